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
from medv_lab.evaluation.runner import answer_questions
from medv_lab.generation import ask
from medv_lab.model.causal import MedVForNextToken
from medv_lab.model.modeling import MedVForMaskedDiffusion
from medv_lab.model.processing import MedVProcessor
from medv_lab.records import MANIFEST, Question, read_manifest
from medv_lab.runtime import make_manifest
from medv_lab.store import read_lines, replace_text, write_lines
from medv_lab.studies.panels import (
    GROUPS,
    QUESTIONS,
    REPETITION,
    TRACE,
    PanelPlan,
    read_panels,
    read_questions,
    tabulate_repetition,
    write_phantom_questions,
)


class Asked(NamedTuple):
    """Who is asked what, in which parts of a plan."""

    responder: Responder
    questions: list[Question]
    parts: list[str]


def find_questions(folder: Path, questions: Path | None = None) -> list[Question]:
    """Return the questions of a panels folder, written there with their pictures: of phantoms, or those of a file.

    Raises:
        ValueError: for a file with a line that is no question.
        OSError: for a picture that is not there.
    """
    if questions is None:
        write_phantom_questions(folder)
    else:
        for question in read_questions(questions):
            copy = folder / question.image.relative_to(questions.parent)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(question.image.read_bytes())
        write_lines(folder / QUESTIONS, read_lines(questions))
    return read_questions(folder / QUESTIONS)


def plan_system(
    model: MedVForMaskedDiffusion | MedVForNextToken,
    processor: MedVProcessor,
    name: str,
    plan: PanelPlan,
    questions: Sequence[Question],
) -> list[Asked]:
    """Return what a model is asked: descriptions at every setting of the plan, queries and VQA at one.

    A model that writes from left to right has a longest answer and no other setting.
    """
    kinds = {kind: [one for one in questions if one.kind == kind] for kind in GROUPS}
    at_length, briefly = [*kinds["description"], *kinds["query"]], kinds["vqa"]
    if isinstance(model, MedVForNextToken):
        ways = [(plan.long, at_length, ["main"]), (plan.short, briefly, ["short"])]
    else:
        ways = [
            (settings, at_length if "main" in parts else kinds["description"], parts)
            for settings, parts in plan.sweep().items()
        ]
        ways.append((plan.short, briefly, ["short"]))
    make = NextTokenResponder if isinstance(model, MedVForNextToken) else DiffusionResponder
    return [
        Asked(make(model, processor, settings, name), chosen, parts)
        for settings, chosen, parts in ways
        if chosen
    ]


def answer_panels(asked: Sequence[Asked], folder: Path, *, batch_size: int = 8) -> None:
    """Answer what is missing, show no longer what the same systems answered otherwise, and count repetition.

    Raises:
        ValueError, ImageError, OSError: as `answer_questions`.
    """
    for responder, questions, parts in asked:
        answer_questions(questions, responder, folder, batch_size=batch_size, notes={"parts": parts})
    names, runs = {one.responder.name for one in asked}, {one.responder.run for one in asked}
    manifest = read_manifest(folder)
    for run in [run for run, about in manifest.items() if about["name"] in names and run not in runs]:
        (folder / f"answers-{run}.jsonl").unlink(missing_ok=True)
        del manifest[run]
    replace_text(folder / MANIFEST, json.dumps(manifest, indent=1) + "\n")
    table = tabulate_repetition(read_panels(folder))
    replace_text(folder / REPETITION, table.to_csv(index=False, lineterminator="\n"))


def trace_example(
    model: MedVForMaskedDiffusion, processor: MedVProcessor, question: Question, plan: PanelPlan, folder: Path
) -> Path:
    """Keep the trace of one description, unless it is there from the same model and settings."""
    path = folder / TRACE
    wanted = make_manifest(plan.long.to_dict(), seed=plan.long.seed, model=model)
    if path.is_file():
        known = SampleTrace.load(path).manifest
        if all(known.get(name) == wanted[name] for name in ("model", "settings")):
            return path
    answer = ask(model, processor, open_image(question.image), question.text, plan.long, False)
    return answer.trace.save(path)
