"""From questions and pictures to answers: `ask` and `ask_many` for people, `generate` for prompts of ids.

This module sits on top: it imports model, processor and sampler, and none of them imports it. R prompts, S ids.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

import torch
from tqdm import tqdm

from medv_lab.config import REFERENCE_SUPPRESSION, GenerationSettings
from medv_lab.decoding.denoising import denoise
from medv_lab.diffusion.attention_maps import PatchGrid
from medv_lab.diffusion.state import StepRecord
from medv_lab.diffusion.trace import SampleTrace, ids_in, make_trace
from medv_lab.model.attention_probe import AttentionMaps, AttentionProbe
from medv_lab.model.modeling import MedVForMaskedDiffusion
from medv_lab.model.processing import MedVProcessor
from medv_lab.runtime import make_manifest

SECONDS_BEFORE_PROGRESS = 2.0

Conversation = str | Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Answer:
    """What a model said, and how it came to it.

    Attributes:
        text: the answer, trimmed, with the suffix of the settings behind it.
        trace: every commit in order.
        seconds: wall time of the run: of the whole batch, if it was answered in one.
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


@dataclass(frozen=True)
class RunSoFar:
    """A run between two passes.

    Attributes:
        passes: forward passes that were made.
        trace: makes the trace of all commits so far; it costs nothing until it is called.
    """

    passes: int
    trace: Callable[[], SampleTrace] = field(repr=False)


def ask(
    model: MedVForMaskedDiffusion,
    processor: MedVProcessor,
    image: Any,
    question: Conversation,
    settings: GenerationSettings | None = None,
    progress: bool | None = None,
    cancel: Callable[[], bool] | None = None,
    *,
    record_attention: AttentionMaps = False,
    watch: Callable[[RunSoFar], None] | None = None,
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
            numbers of layers for theirs, "rollout" for all layers multiplied. The run then uses eager attention.
        watch: called after every forward pass with the run so far.

    Returns:
        The answer; if the run was ended early, with what had been committed.

    Raises:
        ValueError: for an empty or over-long question, images that do not match their placeholders, or attention
            that is to be recorded from unknown layers or with a cache, or a model that writes from left to right.
        FloatingPointError: if the model's outputs are not finite.
        ImageError: for a picture that cannot be opened.
    """
    more = {"record_attention": record_attention, "watch": watch}
    return ask_many(model, processor, [image], [question], settings, 1, progress, cancel, **more)[0]


def ask_many(
    model: MedVForMaskedDiffusion,
    processor: MedVProcessor,
    images: Sequence[Any] | None,
    questions: Sequence[Conversation],
    settings: GenerationSettings | None = None,
    batch_size: int = 8,
    progress: bool | None = None,
    cancel: Callable[[], bool] | None = None,
    *,
    record_attention: AttentionMaps = False,
    watch: Callable[[RunSoFar], None] | None = None,
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
        ValueError: as `ask`, for a batch size below 1, and for different numbers of images and questions.
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
    batch_size = 1 if settings.remasking.is_growing else batch_size
    batches = -(-len(questions) // batch_size)
    bar = tqdm(
        total=batches * settings.steps,
        delay=SECONDS_BEFORE_PROGRESS if progress is None else 0.0,
        disable=progress is False,
        unit="step",
        leave=False,
    )
    run = _Run(model, processor, settings, bar, cancel, record_attention, watch)
    answers: list[Answer] = []
    with bar:
        for start in range(0, len(questions), batch_size):
            part = slice(start, start + batch_size)
            answers += run.answer_batch(images[part], questions[part])
            if run.is_ended:
                break
    return answers


def generate(
    model: MedVForMaskedDiffusion,
    input_ids: torch.Tensor,
    settings: GenerationSettings | None = None,
    **inputs: Any,
) -> list[torch.Tensor]:
    """Answer prompts of ids with ids.

    Args:
        model: from `load`.
        input_ids: (R, S) with placeholders for images.
        settings: by default `GenerationSettings()`. Its `stop` and `suffix` are texts and are not read here: give
            `stop_ids` and `suffix_ids`; without `stop_ids` all L ids come back.
        inputs: what `denoise` takes.

    Returns:
        The generated ids of each prompt, cut at its stop, with the suffix behind; the suffix alone if the run
        was cancelled before its first pass.

    Raises:
        ValueError, FloatingPointError: as `denoise`.
    """
    suffix = list(inputs.get("suffix_ids", ()))
    records = deque(denoise(model, input_ids, settings or GenerationSettings(), **inputs), maxlen=1)
    if not records:
        return [torch.tensor(suffix, dtype=torch.long) for _ in input_ids]
    rows = zip(records[0].canvas.tolist(), records[0].stops.tolist(), strict=True)
    return [torch.tensor([*canvas[:stop], *suffix], dtype=torch.long) for canvas, stop in rows]


class _Run:
    """Answers batch after batch, until the caller or an interrupt ends it."""

    def __init__(self, model, processor, settings, bar, cancel, record_attention, watch):
        """Take what `ask_many` was given."""
        self.model, self.processor, self.settings, self.bar = model, processor, settings, bar
        self.cancel, self.record_attention, self.watch = cancel, record_attention, watch
        self.is_ended = False
        self.manifest = make_manifest(settings.to_dict(), seed=settings.seed, model=model)
        encode = processor.tokenizer.encode
        self.suffix_ids = encode(settings.suffix, add_special_tokens=False)
        self.stop_ids = [encode(text, add_special_tokens=False) for text in settings.stop]
        self.by_id = settings
        if settings.suppressed_tokens == REFERENCE_SUPPRESSION:
            self.by_id = replace(settings, suppressed_tokens=processor.special.suppressed)

    def should_end(self) -> bool:
        """Ask the caller, and remember the answer."""
        self.is_ended = self.is_ended or (self.cancel is not None and bool(self.cancel()))
        return self.is_ended

    def answer_batch(self, images: Sequence[Any], questions: Sequence[Conversation]) -> list[Answer]:
        """Answer one batch; the answers of a run that was ended hold what was committed."""
        model, processor, settings = self.model, self.processor, self.settings
        started = time.perf_counter()
        inputs = processor(images, questions, gen_length=settings.longest + len(self.suffix_ids))
        probe, grids = None, []
        if self.record_attention is not False:
            probe = AttentionProbe(len(model.model.layers), self.record_attention)
            grids = _patch_grids(inputs, model.config.image_token_index)
        records: list[StepRecord] = []

        def trace_of(row: int) -> SampleTrace:
            return make_trace(
                records,
                row,
                gen_length=settings.gen_length,
                block_length=settings.block_length,
                mask_token_id=model.config.mask_token_id,
                pieces=processor.pieces({*ids_in(records), *self.suffix_ids}),
                manifest=self.manifest,
                attention=None if probe is None else probe.attention(row, grids[row], len(records)),
            )

        known = {
            "stop_ids": self.stop_ids,
            "suffix_ids": self.suffix_ids,
            "cancel": self.should_end,
            "probe": probe,
        }
        try:
            for record in denoise(model, **inputs, settings=self.by_id, **known):
                if probe is not None:
                    probe.take(record)
                records.append(record)
                self.bar.update()
                if self.watch is not None:
                    self.watch(RunSoFar(len(records), lambda: trace_of(0)))
        except KeyboardInterrupt:  # ends the run and keeps what there is
            self.is_ended = True
        self.bar.update(max(0, settings.steps - len(records)))
        seconds = time.perf_counter() - started
        traces = [trace_of(row) for row in range(len(questions))]
        return [
            Answer(
                (trace.text + settings.suffix).strip(),
                trace,
                seconds,
                settings,
                self.manifest,
                not self.is_ended,
            )
            for trace in traces
        ]


def _patch_grids(inputs: Mapping[str, Any], image_token: int) -> list[list[PatchGrid]]:
    """Return the grids of the pictures of every row, their positions counted from the row's first picture."""
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
