"""Asking a model what was planned, and telling of every run while it goes on and when it has ended."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from medv_lab.config import GenerationSettings
from medv_lab.explorer.controls import Recording
from medv_lab.explorer.runs import Picture, Run
from medv_lab.generation import Answer, RunSoFar, ask
from medv_lab.inputs.canvas import Canvas
from medv_lab.model.modeling import MedVForMaskedDiffusion
from medv_lab.model.processing import MedVProcessor

REFRESH = 0.2  # seconds between two updates of a run that goes on


@dataclass(frozen=True)
class OpenModel:
    """A model that can be asked.

    Attributes:
        ask: answers (picture, question, settings, progress=, cancel=, canvas=, record_attention=,
            record_hidden=, watch=), as `medv_lab.ask` with a model.
        code: statement that loads it, for the code that asks again.
        about: description, shown at the top.
    """

    ask: Callable[..., Answer]
    code: str
    about: str = ""


class AskedAbout(NamedTuple):
    """What is asked about: a picture, the same as a data address, and a question."""

    picture: Picture
    source: str
    question: str


@dataclass(frozen=True)
class PlannedRun:
    """A run that is to be made.

    Attributes:
        side: where its answer is shown.
        settings, canvas: as `ask` takes them.
        recording: what is kept besides the tokens.
    """

    side: str
    settings: GenerationSettings
    recording: Recording
    canvas: Canvas | None = None


def open_model(model: MedVForMaskedDiffusion, processor: MedVProcessor, code: str) -> OpenModel:
    """Return a loaded model with its description."""
    size = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    about = f"{model.medv_source.name}, {size:,.1f} million parameters on {model.device}"
    return OpenModel(partial(ask, model, processor), code, about)


def ask_all(
    model: OpenModel,
    subject: AskedAbout,
    plans: Iterable[PlannedRun],
    number: int,
    cancel: Callable[[], bool],
    show: Callable[[Run], None],
) -> list[Run]:
    """Ask once per plan.

    Args:
        model, subject, plans: who is asked what, and how often.
        number: of all these runs.
        cancel: asked before every pass; true ends the run, and no other is begun.
        show: called with every run, at most once per `REFRESH` seconds while it goes on, and when it has ended.

    Returns:
        The runs that were begun.
    """
    runs: list[Run] = []
    for plan in plans:
        if cancel():
            break
        make_run = partial(
            Run, number, plan.side, **subject._asdict(), model_code=model.code, canvas=plan.canvas
        )
        answer = model.ask(
            subject.picture.image,
            subject.question,
            plan.settings,
            progress=False,
            cancel=cancel,
            canvas=plan.canvas,
            **plan.recording.options,
            watch=_watch(
                plan.settings, lambda answer, make=make_run: show(make(answer=answer, is_running=True))
            ),
        )
        runs.append(make_run(answer=answer))
        show(runs[-1])
    return runs


def _watch(settings: GenerationSettings, show: Callable[[Answer], None]) -> Callable[[RunSoFar], None]:
    """Return what makes an answer of a run so far, and shows it if the last one was shown a while ago."""
    started, last = time.monotonic(), 0.0

    def watch(so_far: RunSoFar) -> None:
        nonlocal last
        if time.monotonic() - last < REFRESH:
            return
        trace, seconds = so_far.trace(), time.monotonic() - started
        text = (trace.text + settings.suffix).strip()
        show(Answer(text, trace, seconds, settings, trace.manifest, is_complete=False))
        last = time.monotonic()

    return watch
