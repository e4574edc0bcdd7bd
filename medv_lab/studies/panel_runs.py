"""Ask systems what the qualitative panels show: every question at every setting of a plan, resumable.

A panels folder holds, for each system's name, what the last call asked and nothing older.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from medv_lab.data.images import open_image
from medv_lab.diffusion.trace import SampleTrace
from medv_lab.evaluation.autoregressive import NextTokenResponder
from medv_lab.evaluation.responders import DiffusionResponder, Query, Responder
from medv_lab.evaluation.runner import MANIFEST, answer_questions, digest_of
from medv_lab.generation import ask
from medv_lab.model.causal import MedVForNextToken
from medv_lab.model.modeling import MedVForMaskedDiffusion
from medv_lab.model.processing import MedVProcessor
from medv_lab.runtime import make_manifest
from medv_lab.store import read_lines, replace_text
from medv_lab.studies.panels import (
    REPETITION,
    TRACE,
    Example,
    Plan,
    phantom_examples,
    read_examples,
    read_panels,
    tabulate_repetition,
    write_examples,
)

Asked = tuple[Responder, list[Example]]


def find_examples(folder: Path, questions: Path | None = None) -> list[Example]:
    """The questions of a panels folder, written there with their pictures: of phantoms, or those of a file.

    Raises:
        ValueError: for a file with a line that is no question.
        OSError: for a picture that is not there.
    """
    if questions is None:
        examples = phantom_examples(folder)
    else:
        examples = read_examples(questions)
        for example in examples:
            copy = folder / example.picture
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes((questions.parent / example.picture).read_bytes())
    write_examples(examples, folder)
    return examples


def plan_system(
    model: MedVForMaskedDiffusion | MedVForNextToken,
    processor: MedVProcessor,
    name: str,
    plan: Plan,
    examples: Sequence[Example],
) -> list[Asked]:
    """What a model is asked: descriptions at every setting of the plan, queries and VQA at one.

    A model that writes from left to right has a longest answer and no other setting.
    """
    at_length = [example for example in examples if example.group != "vqa"]
    described = [example for example in examples if example.group == "description"]
    briefly = [example for example in examples if example.group == "vqa"]
    ways = [
        (plan.long, at_length),
        *((settings, described) for settings in plan.sweep()[1:]),
        (plan.short, briefly),
    ]
    if isinstance(model, MedVForNextToken):
        ways = [ways[0], ways[-1]]
        asked = [
            (NextTokenResponder(model, processor, name=name, max_new_tokens=settings.gen_length), chosen)
            for settings, chosen in ways
        ]
    else:
        asked = [(DiffusionResponder(model, processor, settings, name), chosen) for settings, chosen in ways]
    return [(responder, chosen) for responder, chosen in asked if chosen]


def answer_panels(
    asked: Sequence[Asked], folder: Path, *, batch_size: int = 8, progress: bool = True
) -> None:
    """Answer what is missing, forget what the same systems answered otherwise, and count repetition.

    Raises:
        ValueError, JournalError, ImageError, OSError: as `answer_questions`.
    """
    for responder, examples in asked:
        queries = [Query(example.id, example.question, folder / example.picture) for example in examples]
        answer_questions(queries, responder, folder, batch_size=batch_size, progress=progress)
    kept: dict[str, set[str]] = {}
    for responder, _ in asked:
        kept.setdefault(responder.name, set()).add(digest_of(responder.identity))
    _forget(folder, lambda name, digest: name in kept and digest not in kept[name])
    table = tabulate_repetition(read_panels(folder))
    replace_text(folder / REPETITION, table.to_csv(index=False, lineterminator="\n"))


def trace_example(
    model: MedVForMaskedDiffusion, processor: MedVProcessor, example: Example, plan: Plan, folder: Path
) -> Path:
    """Keep the trace of one description, unless it is there from the same model and settings."""
    path = folder / TRACE
    wanted = make_manifest(plan.long.to_dict(), seed=plan.long.seed, model=model)
    if path.is_file():
        known = SampleTrace.load(path).manifest
        if all(known.get(name) == wanted[name] for name in ("model", "settings")):
            return path
    answer = ask(model, processor, open_image(folder / example.picture), example.question, plan.long, False)
    return answer.trace.save(path)


def _forget(folder: Path, is_old: Callable[[str, str], bool]) -> None:
    """Delete answers and manifests of runs, and their lines in the journals."""
    manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    old = {digest: run["name"] for digest, run in manifest.items() if is_old(run["name"], digest)}
    if not old:
        return
    systems = {f"{name} {digest}" for digest, name in old.items()}
    for journal in folder.glob("shard-*.jsonl"):
        lines = [line for line in read_lines(journal) if line["system"] not in systems]
        replace_text(journal, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
    for digest in old:
        (folder / f"answers-{digest}.jsonl").unlink(missing_ok=True)
        del manifest[digest]
    replace_text(folder / MANIFEST, json.dumps(manifest, indent=1) + "\n")
