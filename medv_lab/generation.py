"""Ask a model about pictures: questions in, answers with their traces out."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from typing import Any

from tqdm import tqdm

from medv_lab.config import GROWING, REFERENCE_SUPPRESSION, GenerationSettings
from medv_lab.diffusion.attention_maps import PatchGrid
from medv_lab.diffusion.sampler import StepRecord
from medv_lab.diffusion.trace import SampleTrace, ids_in, make_trace
from medv_lab.model.attention_probe import AttentionMaps, AttentionProbe
from medv_lab.model.modeling import MedVForMaskedDiffusion
from medv_lab.model.processing import MedVProcessor
from medv_lab.runtime import make_manifest

SECONDS_BEFORE_PROGRESS = 2.0

Question = str | Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Answer:
    """What a model said, and how it came to it.

    Attributes:
        text: the answer, trimmed, with the suffix of the settings behind it.
        trace: every commit in order.
        seconds: wall time of the run (of the whole batch, if it was answered in one).
        settings: the settings in force.
        manifest: versions, settings and model that made it.
        is_complete: false if the run was cancelled or interrupted; text and trace are then what there was.
    """

    text: str
    trace: SampleTrace = field(repr=False)
    seconds: float
    settings: GenerationSettings = field(repr=False)
    manifest: Mapping[str, Any] = field(repr=False)
    is_complete: bool = True

    def __str__(self) -> str:
        return self.text


class RunSoFar:
    """A run between two passes.

    Attributes:
        passes: forward passes that were made.
    """

    def __init__(self, passes: int, trace: Callable[[], SampleTrace]):
        """Take what makes the trace, which is made only for those who ask."""
        self.passes = passes
        self._trace = trace

    def trace(self) -> SampleTrace:
        """All commits so far."""
        return self._trace()


Watch = Callable[[RunSoFar], None]


def ask(
    model: MedVForMaskedDiffusion,
    processor: MedVProcessor,
    image: Any,
    question: Question,
    settings: GenerationSettings | None = None,
    progress: bool | None = None,
    cancel: Callable[[], bool] | None = None,
    *,
    record_attention: AttentionMaps = False,
    watch: Watch | None = None,
) -> Answer:
    """Ask one question about a picture, several pictures, or none.

    Args:
        model, processor: from `load`.
        image: anything `open_image` takes, a list of such, or None.
        question: a text, or a conversation [(role, text), ...] that ends with a user turn.
        settings: by default `GenerationSettings()`.
        progress: show a bar on stderr; None shows one once a run takes longer than 2 seconds.
        cancel: asked before every forward pass; true ends the run. An interrupt (Ctrl-C) ends it likewise.
        record_attention: keep in the trace where each commit looked on the pictures: True for a map of every layer,
            numbers of layers for theirs, "rollout" for all layers multiplied. Attention is eager in such a run.
        watch: called after every forward pass with the run so far.

    Returns:
        The answer; if the run was ended early, with what had been committed.

    Raises:
        ValueError: for an empty or over-long question, images that do not match their places, or attention that
            is to be recorded from unknown layers or with a cache.
        ImageError: for a picture that cannot be opened.
    """
    answers = ask_many(
        model,
        processor,
        [image],
        [question],
        settings,
        1,
        progress,
        cancel,
        record_attention=record_attention,
        watch=watch,
    )
    return answers[0]


def ask_many(
    model: MedVForMaskedDiffusion,
    processor: MedVProcessor,
    images: Sequence[Any] | None,
    questions: Sequence[Question],
    settings: GenerationSettings | None = None,
    batch_size: int = 8,
    progress: bool | None = None,
    cancel: Callable[[], bool] | None = None,
    *,
    record_attention: AttentionMaps = False,
    watch: Watch | None = None,
) -> list[Answer]:
    """Ask many questions, some at a time; each gets the answer that it would get alone.

    Args:
        model, processor, settings, progress, cancel, record_attention: as in `ask`.
        images: one entry per question (a picture, a list of pictures, or None), or None.
        questions: texts or conversations.
        batch_size: how many are answered at a time; one where answers grow, each to a length of its own.
        watch: called after every forward pass of a batch with the run so far of its first question.

    Returns:
        One answer per question that was begun, in order: all of them unless the run was ended early.

    Raises:
        ValueError: as `ask`, and for a batch size below 1 or other numbers of images and questions.
        ImageError: for a picture that cannot be opened.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; give 1 or more")
    if model.config.is_causal:
        raise ValueError(
            "the model writes from left to right, so there is nothing to denoise; ask it through "
            "medv_lab.evaluation.autoregressive.NextTokenResponder"
        )
    questions = list(questions)
    images = [None] * len(questions) if images is None else list(images)
    if len(images) != len(questions):
        raise ValueError(
            f"{len(questions)} questions came with {len(images)} images; give one entry for each (or None)"
        )
    settings = settings or GenerationSettings()
    batch_size = 1 if settings.remasking in GROWING else batch_size
    manifest = make_manifest(asdict(settings), seed=settings.seed, model=model)
    batches = -(-len(questions) // batch_size)
    answers: list[Answer] = []
    with _progress_bar(progress, batches * settings.steps) as bar:
        for start in range(0, len(questions), batch_size):
            part = slice(start, start + batch_size)
            answers += _answer_batch(
                model,
                processor,
                images[part],
                questions[part],
                settings,
                manifest,
                _Ending(cancel),
                _Observers(bar, watch, record_attention),
            )
            if not answers[-1].is_complete:
                break
    return answers


@dataclass(frozen=True)
class _Observers:
    """Who looks on while a batch is answered."""

    bar: tqdm
    watch: Watch | None
    record_attention: AttentionMaps


def _answer_batch(
    model, processor, images, questions, settings, manifest, ending: _Ending, observers: _Observers
) -> list[Answer]:
    suffix_ids = processor.tokenizer.encode(settings.suffix, add_special_tokens=False)
    stop_ids = [processor.tokenizer.encode(text, add_special_tokens=False) for text in settings.stop]
    start = time.perf_counter()
    length = settings.parameter("max_length") if settings.remasking in GROWING else settings.gen_length
    inputs = processor(images, questions, gen_length=length + len(suffix_ids))
    by_id = settings
    if settings.suppressed_tokens == REFERENCE_SUPPRESSION:
        by_id = replace(settings, suppressed_tokens=processor.special.suppressed)
    probe, grids = None, [[] for _ in questions]
    if observers.record_attention is not False:
        probe = AttentionProbe(len(model.model.layers), observers.record_attention)
        grids = _grids(inputs, model.config.image_token_index)
    records: list[StepRecord] = []

    def trace_of(row: int) -> SampleTrace:
        return make_trace(
            records,
            row,
            gen_length=settings.gen_length,
            block_length=settings.block_length,
            mask_token_id=model.config.mask_token_id,
            pieces=processor.pieces({*ids_in(records), *suffix_ids}),
            manifest=manifest,
            attention=None if probe is None else probe.attention(row, grids[row], len(records)),
        )

    try:
        for record in model.denoise(
            **inputs, settings=by_id, stop_ids=stop_ids, suffix_ids=suffix_ids, cancel=ending, probe=probe
        ):
            if probe is not None:
                probe.take(record)
            records.append(record)
            observers.bar.update()
            if observers.watch is not None:
                observers.watch(RunSoFar(len(records), lambda: trace_of(0)))
    except KeyboardInterrupt:  # ends the run and keeps what there is
        ending.is_early = True
    observers.bar.update(max(0, settings.steps - len(records)))
    seconds = time.perf_counter() - start
    answers = []
    for row in range(len(questions)):
        trace = trace_of(row)
        text = (trace.text + settings.suffix).strip()
        answers.append(Answer(text, trace, seconds, settings, manifest, not ending.is_early))
    return answers


def _grids(inputs: Mapping[str, Any], image_token: int) -> list[list[PatchGrid]]:
    """The grids of the pictures of every row, their positions counted from the row's first picture."""
    layouts = iter(inputs.get("tile_layouts", []))
    rows = []
    for count in (inputs["input_ids"] == image_token).sum(1).tolist():
        grids: list[PatchGrid] = []
        start = 0
        for image, layout in enumerate(islice(layouts, count)):
            grids += layout.patch_grids(image, start)
            start += layout.num_positions
        rows.append(grids)
    return rows


class _Ending:
    """Asks the caller's `cancel`, and remembers whether the run was ended by it or by an interrupt."""

    def __init__(self, cancel: Callable[[], bool] | None):
        self.cancel = cancel
        self.is_early = False

    def __call__(self) -> bool:
        self.is_early = self.is_early or (self.cancel is not None and bool(self.cancel()))
        return self.is_early


def _progress_bar(progress: bool | None, total: int) -> tqdm:
    delay = SECONDS_BEFORE_PROGRESS if progress is None else 0.0
    return tqdm(total=total, delay=delay, disable=progress is False, unit="step", leave=False)
