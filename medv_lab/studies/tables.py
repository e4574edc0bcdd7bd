"""Tables 1, 2 and 3 measured on phantoms, with whatever systems are given; every run can be resumed.

    diffusion        the model that is looked at
    ours             the same recipe at the budget of the training ablations, to which the following three are trained
    twin             the autoregressive twin: the same architecture and data, by next tokens
    V1, V2           initialised from a general-domain model, without and with alignment (Table 4)
    question-only    trained without pictures, and asked without

`measure_tables` writes a folder `table1` and so on for each table:

    answers.jsonl     one line per answer: question_id, system, run, text; in Tables 1 and 3 seconds and passes
    scores.csv        what `score_table` makes of them, with 95 % intervals over questions; controls of descriptions
    differences.csv   diffusion, and ours, minus each system that follows; in Table 3 the most steps minus fewer
    manifest.json     what was asked, which systems are missing, and each run's model, settings and versions

The runner's own files, by which a run is resumed, are in `answers`. Open-ended answers come one at a time, so that
seconds are those of one question.
"""

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from medv_lab.config import PRESETS, GenerationSettings
from medv_lab.evaluation.loading import load_responder
from medv_lab.evaluation.model_choice import ModelChoice
from medv_lab.evaluation.runner import answer_questions
from medv_lab.phantoms.benchmark import make_benchmarks
from medv_lab.phantoms.conversation import make_conversation
from medv_lab.records import MANIFEST, Prediction, read_manifest
from medv_lab.store import read_lines, replace_text, write_lines
from medv_lab.studies.table_run import TableRun
from medv_lab.studies.table_scores import score_table

SYSTEMS = ("diffusion", "ours", "twin", "V1", "V2", "question-only")
BLIND = ("question-only",)
TABLES = (1, 2, 3)
RUNNER_FOLDER = "answers"
_ANSWERS = "answers.jsonl"
_FIELDS = ("question_id", "system", "run", "text")
_VQA_BATCH = 32


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
        runs = []
        for system, settings in _ways(number, models, run):
            with_pictures = system not in BLIND
            if number == 2:
                questions, batch = make_benchmarks(run.rounds, with_pictures), _VQA_BATCH
            else:
                questions, batch = make_conversation("test", run.pictures, with_pictures), 1
            log(f"table {number}: {system}, Z = {settings.steps}: {len(questions)} questions")
            responder = load_responder(ModelChoice(models[system]), settings, system)
            runs.append(answer_questions(questions, responder, output / RUNNER_FOLDER, batch_size=batch))
        if None not in runs:
            about = {"table": number, "run": asdict(run), "missing": missing}
            written.append(_write(number, run, runs, output, about))
    return written


def read_table(folder: Path) -> tuple[list[Prediction], dict[str, Any]]:
    """Read answers and manifest of a folder that `measure_tables` wrote.

    Raises:
        FileNotFoundError: if it is none.
    """
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    settings = {about["run"]: about["settings"] for about in manifest["systems"]}
    lines = read_lines(folder / _ANSWERS)
    return [Prediction.from_dict(line, settings[line["run"]]) for line in lines], manifest


def read_run(manifest: Mapping[str, Any]) -> TableRun:
    """Read what was asked from a table's manifest."""
    return TableRun(**{**manifest["run"], "steps": tuple(manifest["run"]["steps"])})


def frame_texts(number: int, run: TableRun, predictions: Sequence[Prediction]) -> dict[str, str]:
    """Write the CSV files of a table, by name, as they follow from its answers."""
    names, frames = ("scores.csv", "differences.csv"), score_table(number, run, predictions)
    texts = (frame.to_csv(index=False, float_format="%.4f", lineterminator="\n") for frame in frames)
    return dict(zip(names, texts, strict=True))


def _ways(number: int, models: Collection[str], run: TableRun) -> list[tuple[str, GenerationSettings]]:
    """List systems and settings of a table; in Table 3 diffusion at every number of steps."""
    if number == 2:
        return [(name, PRESETS["embedded-vqa"]) for name in SYSTEMS if name in models]
    preset = PRESETS["embedded-description"]
    ways = [
        (name, replace(preset, steps=steps))
        for name in (SYSTEMS if number == 1 else ("diffusion", "ours", "twin"))
        for steps in (run.steps if (number, name) == (3, "diffusion") else run.steps[:1])
        if name in models
    ]
    if not ways:
        raise ValueError("Table 3 is of diffusion, ours and twin; name one of them")
    return ways


def _write(number: int, run: TableRun, runs: Sequence[list[Prediction]], output: Path, about: dict) -> Path:
    """Write a table's folder; each file is whole or not there."""
    folder = output / f"table{number}"
    predictions = [replace(one, seconds=round(one.seconds, 4)) for answers in runs for one in answers]
    fields = _FIELDS if number == 2 else (*_FIELDS, "seconds", "passes")
    write_lines(folder / _ANSWERS, [{name: getattr(one, name) for name in fields} for one in predictions])
    for name, text in frame_texts(number, run, predictions).items():
        replace_text(folder / name, text)
    known = read_manifest(output / RUNNER_FOLDER)
    systems = [
        {"system": answers[0].system, "run": answers[0].run, **known[answers[0].run]} for answers in runs
    ]
    replace_text(folder / MANIFEST, json.dumps({**about, "systems": systems}, indent=1) + "\n")
    return folder
