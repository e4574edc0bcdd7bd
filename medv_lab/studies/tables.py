"""Tables 1, 2 and 3 measured in the small world, with whatever systems are given; every run can be resumed.

    diffusion        the model that is looked at
    ours             the same recipe at the budget of the training ablations, to which the following three are trained
    twin             the autoregressive twin: the same towers and data, by next tokens
    V1, V2           initialised from a general-domain model, without and with alignment (Table 4)
    question-only    trained without pictures, and asked without

`measure_tables` writes a folder `table1` and so on for each table:

    answers.jsonl     one line an answer: system, id, answer; in Tables 1 and 3 words, seconds, passes; in 3 steps
    scores.csv        what `scoring.score_table` makes of them, with 95 % intervals over questions
    differences.csv   diffusion, and ours, minus each system that follows; in Table 3 the most steps minus fewer
    manifest.json     what was asked, which systems are missing, and each system's model, settings and versions

The runner's own files, by which a run is resumed, are in `answers`. Open-ended answers come one at a time, so that
seconds are those of one question.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from medv_lab.config import PRESETS, GenerationSettings
from medv_lab.evaluation.loading import ModelChoice, load_responder
from medv_lab.evaluation.runner import MANIFEST, Answered, answer_together
from medv_lab.phantoms.conversation import conversation_queries, make_conversation
from medv_lab.phantoms.partition import benchmark_queries, make_benchmarks
from medv_lab.store import read_lines, replace_text
from medv_lab.studies.table_scores import TableRun, score_table

SYSTEMS = ("diffusion", "ours", "twin", "V1", "V2", "question-only")
BLIND = ("question-only",)
TABLES = (1, 2, 3)
RUNNER_FOLDER = "answers"
_ANSWERS, _SCORES, _DIFFERENCES = "answers.jsonl", "scores.csv", "differences.csv"
_VQA_BATCH = 32


@dataclass(frozen=True)
class _Way:
    """One system with its settings: what its lines are labelled with, and its model."""

    labels: Mapping[str, Any]
    model: str
    settings: GenerationSettings

    @property
    def name(self) -> str:
        return self.labels["system"]


def measure_tables(
    models: Mapping[str, str],
    output: Path,
    run: TableRun,
    tables: Sequence[int] = TABLES,
    log: Callable[[str], None] = print,
) -> list[Path]:
    """Measure the tables; a rerun asks only what is missing.

    Args:
        models: what `load` takes, by system, one of `SYSTEMS`; the others are reported as missing.
        output: folder of results.
        run: what is asked.
        tables: which of them.
        log: receives what is missing, and progress.

    Returns:
        The folders written; none in processes of a launch other than the first.

    Raises:
        ValueError: for an unknown system or table, or one that no given system is part of.
        CheckpointError: for a model that is not here or not whole.
    """
    unknown = [name for name in models if name not in SYSTEMS]
    if unknown or not models:
        raise ValueError(f"systems are {', '.join(models) or 'none'}; give some of {', '.join(SYSTEMS)}")
    if not set(tables) <= set(TABLES):
        raise ValueError(f"tables are {', '.join(map(str, tables))}; allowed are 1, 2 and 3")
    missing = [name for name in SYSTEMS if name not in models]
    if missing:
        log(f"rows missing, since no model was named for them: {', '.join(missing)}")
    written = []
    for number in sorted(set(tables)):
        ways = _ways(number, models, run)
        found = [_ask(number, way, run, output / RUNNER_FOLDER, log) for way in ways]
        if None not in found:
            about = {"table": number, "run": asdict(run), "missing": missing}
            written.append(_write(number, run, list(zip(ways, found, strict=True)), output, about))
    return written


def read_table(folder: Path) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Answers and manifest of a folder that `measure_tables` wrote.

    Raises:
        FileNotFoundError: if it is none.
    """
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    return read_lines(folder / _ANSWERS), manifest


def read_run(manifest: Mapping[str, Any]) -> TableRun:
    """What was asked, from a table's manifest."""
    return TableRun(**{**manifest["run"], "steps": tuple(manifest["run"]["steps"])})


def frame_texts(number: int, run: TableRun, lines: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """The CSV files of a table, by name, as they follow from its answers."""
    frames = zip((_SCORES, _DIFFERENCES), score_table(number, run, lines), strict=True)
    return {
        name: frame.to_csv(index=False, float_format="%.4f", lineterminator="\n") for name, frame in frames
    }


def _ways(number: int, models: Mapping[str, str], run: TableRun) -> list[_Way]:
    if number == 2:
        return [_Way({"system": name}, models[name], PRESETS["embedded-vqa"]) for name in _given(models)]
    preset = replace(PRESETS["embedded-description"], steps=run.steps[0])
    if number == 1:
        return [_Way({"system": name}, models[name], preset) for name in _given(models)]
    ways = []
    if "diffusion" in models:
        ways += [
            _Way({"system": "diffusion", "steps": steps}, models["diffusion"], replace(preset, steps=steps))
            for steps in run.steps
        ]
    if "ours" in models:
        ways.append(_Way({"system": "ours", "steps": run.steps[0]}, models["ours"], preset))
    if "twin" in models:  # one token a pass: it has no number of steps
        ways.append(_Way({"system": "twin", "steps": None}, models["twin"], preset))
    if not ways:
        raise ValueError("Table 3 is of diffusion, ours and twin; name one of them")
    return ways


def _given(models: Mapping[str, str]) -> list[str]:
    return [name for name in SYSTEMS if name in models]


def _ask(
    number: int, way: _Way, run: TableRun, folder: Path, log: Callable[[str], None]
) -> list[Answered] | None:
    with_pictures = way.name not in BLIND
    if number == 2:
        queries, batch = benchmark_queries(make_benchmarks(run.rounds), with_pictures), _VQA_BATCH
    else:
        queries, batch = conversation_queries(make_conversation("test", run.pictures), with_pictures), 1
    described = ", ".join(f"{name} {value}" for name, value in way.labels.items() if value is not None)
    log(f"table {number}: {described}: {len(queries)} questions")
    responder = load_responder(ModelChoice(way.model), way.settings, way.name)
    return answer_together(queries, responder, folder, batch_size=batch)


def _write(
    number: int, run: TableRun, found: Sequence[tuple[_Way, list[Answered]]], output: Path, about: dict
) -> Path:
    """Write a table's folder; each file is whole or not there."""
    folder = output / f"table{number}"
    lines = [_line(number, way, one) for way, answers in found for one in answers]
    replace_text(folder / _ANSWERS, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
    for name, text in frame_texts(number, run, lines).items():
        replace_text(folder / name, text)
    known = json.loads((output / RUNNER_FOLDER / MANIFEST).read_text(encoding="utf-8"))
    systems = [{**way.labels, **known[answers[0].system.split()[-1]]} for way, answers in found]
    replace_text(folder / MANIFEST, json.dumps({**about, "systems": systems}, indent=1) + "\n")
    return folder


def _line(number: int, way: _Way, answered: Answered) -> dict[str, Any]:
    """An answer without what its manifest and the benchmark say of it."""
    line = {**way.labels, "id": answered.id, "answer": answered.answer}
    if number == 2:
        return line
    seconds = round(answered.seconds, 4)
    return line | {"words": answered.words, "seconds": seconds, "passes": answered.passes}
