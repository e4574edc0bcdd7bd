"""Ask systems what the qualitative panels show: every question at every setting of a plan, resumable.

A panels folder shows, for each system's name, what the last call asked and nothing older.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from medv_lab.data.images import open_image
from medv_lab.diffusion.trace import SampleTrace
from medv_lab.evaluation.autoregressive import NextTokenResponder
from medv_lab.evaluation.responders import DiffusionResponder, Responder
from medv_lab.evaluation.runner import MANIFEST, answer_questions, read_manifest
from medv_lab.generation import ask
from medv_lab.model.causal import MedVForNextToken
from medv_lab.model.modeling import MedVForMaskedDiffusion
from medv_lab.model.processing import MedVProcessor
from medv_lab.runtime import make_manifest
from medv_lab.store import replace_text
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


class Asked(NamedTuple):
    """Who is asked what, in which parts of a plan."""

    responder: Responder
    examples: list[Example]
    parts: list[str]


def find_examples(folder: Path, questions: Path | None = None) -> list[Example]:
    """Return the questions of a panels folder, written there with their pictures: of phantoms, or those of a file.

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
    """Return what a model is asked: descriptions at every setting of the plan, queries and VQA at one.

    A model that writes from left to right has a longest answer and no other setting.
    """
    at_length = [example for example in examples if example.group != "vqa"]
    described = [example for example in examples if example.group == "description"]
    briefly = [example for example in examples if example.group == "vqa"]
    if isinstance(model, MedVForNextToken):
        ways = [(plan.long, at_length, ["main"]), (plan.short, briefly, ["short"])]
        asked = [
            Asked(
                NextTokenResponder(model, processor, name=name, max_new_tokens=settings.gen_length),
                chosen,
                parts,
            )
            for settings, chosen, parts in ways
        ]
    else:
        ways = [
            (settings, at_length if "main" in parts else described, parts)
            for settings, parts in plan.sweep().items()
        ]
        ways.append((plan.short, briefly, ["short"]))
        asked = [
            Asked(DiffusionResponder(model, processor, settings, name), chosen, parts)
            for settings, chosen, parts in ways
        ]
    return [one for one in asked if one.examples]


def answer_panels(
    asked: Sequence[Asked], folder: Path, *, batch_size: int = 8, progress: bool = True
) -> None:
    """Answer what is missing, show no longer what the same systems answered otherwise, and count repetition.

    Raises:
        ValueError, ImageError, OSError: as `answer_questions`.
    """
    for responder, examples, parts in asked:
        questions = [example.to_question(folder) for example in examples]
        answer_questions(
            questions,
            responder,
            folder,
            batch_size=batch_size,
            notes={"parts": parts},
            progress=progress,
        )
    names, runs = {one.responder.name for one in asked}, {one.responder.run for one in asked}
    manifest = read_manifest(folder)
    for run in [run for run, about in manifest.items() if about["name"] in names and run not in runs]:
        (folder / f"answers-{run}.jsonl").unlink(missing_ok=True)
        del manifest[run]
    replace_text(folder / MANIFEST, json.dumps(manifest, indent=1) + "\n")
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
