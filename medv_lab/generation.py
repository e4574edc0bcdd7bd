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

import numpy as np
import torch
from tqdm import tqdm

from medv_lab.config import REFERENCE_SUPPRESSION, GenerationSettings, SettingsError
from medv_lab.decoding.denoising import Layers, choose_layers, denoise
from medv_lab.decoding.tracing import ids_in, make_trace, read_lens
from medv_lab.diffusion.attention_maps import PatchGrid
from medv_lab.diffusion.state import StepRecord, find_first_stops
from medv_lab.diffusion.trace import SampleTrace
from medv_lab.inputs.canvas import Canvas, fit_canvases, read_canvas
from medv_lab.inputs.image_processing import list_notes, open_pictures
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
        is_complete: false if the run was ended early, or left a mask before the end of the answer.
        is_cancelled: true if the run was cancelled or interrupted; text and trace are then what there was.
        notes: what is to be known of the answer, one sentence each: what was done to the picture that its file does not
            ask for, that next to nothing can be seen in it, that the model chose the mask itself.
    """

    text: str
    trace: SampleTrace = field(repr=False)
    seconds: float
    settings: GenerationSettings = field(repr=False)
    manifest: Mapping[str, Any] = field(repr=False)
    is_complete: bool = True
    is_cancelled: bool = False
    notes: tuple[str, ...] = ()

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
    canvas: Canvas | None = None,
    record_attention: AttentionMaps = False,
    record_hidden: Layers = False,
    watch: Callable[[RunSoFar], None] | None = None,
) -> Answer:
    """Ask one question about a picture, several pictures, or none.

    Args:
        model, processor: from `load`.
        image: anything `open_image` takes, a list of such, or None.
        question: a text, or a conversation [(role, text), ...] that ends with a user turn.
        settings: by default `GenerationSettings()`; with a canvas, one block of its length and a pass for each token.
        progress: show a bar on stderr; None shows one once a run takes longer than 2 seconds.
        cancel: asked before every forward pass; true ends the run. An interrupt (Ctrl-C) ends it likewise.
        canvas: the answer as far as it is given, "There is ____ in the left upper zone." with a mask for each
            underscore, or ids with None at masks (`inputs.canvas`). What is given stays as it is. With settings, masks
            follow it up to `gen_length`; end it with "<|eot_id|>" if nothing is to follow.
        record_attention: keep in the trace where each commit looked on the pictures: True for a map of every layer,
            numbers of layers for theirs, "rollout" for all layers multiplied. The run then uses eager attention.
        record_hidden: keep in the trace the logit lens, what each layer would say at each position in each pass: True
            for every layer, numbers of layers for theirs. No token changes. Until the answer is done, passes x layers
            x L x hidden size numbers are held in memory.
        watch: called after every forward pass with the run so far, which has no lens yet.

    Returns:
        The answer; if the run was ended early, with what had been committed.

    Raises:
        ValueError: for an empty or over-long question or canvas, images that do not match their placeholders, or
            attention that is to be recorded from unknown layers or with a cache, or a model that writes from left to
            right.
        FloatingPointError: if the model's outputs are not finite.
        ImageError: for a picture that cannot be opened.
    """
    more = {"canvases": [canvas], "record_attention": record_attention, "watch": watch}
    more["record_hidden"] = record_hidden
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
    canvases: Sequence[Canvas | None] | None = None,
    record_attention: AttentionMaps = False,
    record_hidden: Layers = False,
    watch: Callable[[RunSoFar], None] | None = None,
) -> list[Answer]:
    """Ask many questions, some at a time; each gets the answer that it would get alone.

    Args:
        model, processor, settings, progress, cancel, record_attention, record_hidden: as in `ask`.
        images: one entry per question (a picture, a list of pictures, or None), or None.
        questions: texts or conversations.
        batch_size: how many are answered at a time; one where `settings.is_alone` says so.
        canvases: one entry per question, as in `ask` (None where nothing is given), or None.
        watch: called after every forward pass of a batch with the run so far of its first question.

    Returns:
        One answer per question that was begun, in order: all of them unless the run was ended early.

    Raises:
        ValueError: as `ask`, for a batch size below 1, for different numbers of images, canvases and questions, and
            for canvases of several lengths without settings.
        ImageError: for a picture that cannot be opened.
    """
    if type(batch_size) is not int or batch_size < 1:
        raise ValueError(f"batch_size is {batch_size!r}; give 1 or more")
    if isinstance(questions, str) or not isinstance(questions, Sequence):
        raise TypeError(f"questions are {questions!r:.80}; give a list of texts or conversations")
    if settings is not None and not isinstance(settings, GenerationSettings):
        raise SettingsError(f"settings are {settings!r:.80}; give GenerationSettings(...), or None")
    if model.config.is_causal:
        raise ValueError(
            "the model writes from left to right, so there is nothing to denoise; ask it through "
            "medv_lab.evaluation.autoregressive.NextTokenResponder"
        )
    questions = list(questions)
    parts = {"images": images, "canvases": canvases}
    parts = {name: [None] * len(questions) if part is None else list(part) for name, part in parts.items()}
    for name, part in parts.items():
        if len(part) != len(questions):
            raise ValueError(
                f"{len(questions)} questions came with {len(part)} {name}; give one entry for each (or None)"
            )
    images = parts["images"]
    starts = [None if one is None else read_canvas(one, processor.tokenizer) for one in parts["canvases"]]
    settings = settings or _settings_for(starts, processor.special.mask)
    if any(starts):
        starts = fit_canvases(starts, settings.gen_length, processor.special.mask)
    batch_size = 1 if settings.is_alone else batch_size
    batches = -(-len(questions) // batch_size)
    bar = tqdm(
        total=batches * settings.most_passes,
        delay=SECONDS_BEFORE_PROGRESS if progress is None else 0.0,
        disable=progress is False,
        unit="step",
        leave=False,
    )
    run = _Run(model, processor, settings, bar, cancel, record_attention, record_hidden, watch)
    answers: list[Answer] = []
    with bar:
        for start in range(0, len(questions), batch_size):
            part = slice(start, start + batch_size)
            answers += run.answer_batch(images[part], questions[part], starts[part])
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
        The generated ids of each prompt, cut at its stop, with the suffix behind; where no pass was made (the run was
        cancelled before, or nothing was masked) what `start_ids` gave, or the suffix alone.

    Raises:
        ValueError, FloatingPointError: as `denoise`.
    """
    suffix, start = list(inputs.get("suffix_ids", ())), inputs.get("start_ids")
    records = deque(denoise(model, input_ids, settings or GenerationSettings(), **inputs), maxlen=1)
    if records:
        canvas, stops = records[0].canvas, records[0].stops
    elif start is None:
        canvas, stops = np.zeros((len(input_ids), 0)), np.zeros(len(input_ids), int)
    else:
        canvas = start.cpu().numpy()
        stops = find_first_stops(canvas, model.config.mask_token_id, inputs.get("stop_ids", ()))
    rows = zip(canvas.tolist(), stops.tolist(), strict=True)
    return [torch.tensor([*canvas[:stop], *suffix], dtype=torch.long) for canvas, stop in rows]


class _Run:
    """Answers batch after batch, until the caller or an interrupt ends it."""

    def __init__(self, model, processor, settings, bar, cancel, record_attention, record_hidden, watch):
        """Take what `ask_many` was given."""
        self.layers = choose_layers("record_hidden", record_hidden, model.config.num_hidden_layers)
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

    def answer_batch(
        self, images: Sequence[Any], questions: Sequence[Conversation], starts: Sequence[list[int] | None]
    ) -> list[Answer]:
        """Answer one batch; the answers of a run that was ended hold what was committed."""
        model, processor, settings = self.model, self.processor, self.settings
        started = time.perf_counter()
        pictures = [open_pictures(entry) for entry in images]
        # a text is what the user says, never a whole prompt
        said = [[("user", one)] if isinstance(one, str) else one for one in questions]
        inputs = processor(pictures, said, gen_length=settings.longest + len(self.suffix_ids))
        probe, grids = None, []
        if self.record_attention is not False:
            probe = AttentionProbe(len(model.model.layers), self.record_attention)
            grids = _patch_grids(inputs, model.config.image_token_index)
        records: list[StepRecord] = []
        mask = model.config.mask_token_id
        start_ids = None if starts[0] is None else torch.tensor(starts)
        first_stops = None
        if start_ids is not None:
            first_stops = find_first_stops(start_ids.numpy(), mask, self.stop_ids).tolist()

        def trace_of(row: int) -> SampleTrace:
            return make_trace(
                records,
                row,
                gen_length=settings.gen_length,
                block_length=settings.block_length,
                mask_token_id=mask,
                pieces=processor.pieces({*ids_in(records, row), *(starts[row] or ()), *self.suffix_ids}),
                manifest=self.manifest,
                attention=None if probe is None else probe.attention(row, grids[row], len(records)),
                given=None if start_ids is None else start_ids[row].numpy(),
                first_stop=None if first_stops is None else first_stops[row],
            )

        known = {
            "stop_ids": self.stop_ids,
            "suffix_ids": self.suffix_ids,
            "start_ids": start_ids,
            "cancel": self.should_end,
            "probe": probe,
            "record_hidden": self.layers or False,
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
        self.bar.update(max(0, settings.most_passes - len(records)))
        seconds = time.perf_counter() - started
        traces = [trace_of(row) for row in range(len(questions))]
        masks_asked = (inputs["input_ids"] == model.config.mask_token_id).sum(1).tolist()
        if self.layers:
            traces = [self.with_lens(trace, records, row) for row, trace in enumerate(traces)]
        return [
            Answer(
                (trace.text + settings.suffix).strip(),
                trace,
                seconds,
                settings,
                self.manifest,
                is_complete=not self.is_ended and not trace.masks_left,
                is_cancelled=self.is_ended,
                notes=list_notes(own) + _note_masks(trace, asked, self.is_ended),
            )
            for trace, own, asked in zip(traces, pictures, masks_asked, strict=True)
        ]

    def with_lens(self, trace: SampleTrace, records: Sequence[StepRecord], row: int) -> SampleTrace:
        """Return the trace of a row with its lens, and the pieces of the tokens that layers say."""
        more = {"cfg_scale": self.settings.cfg_scale, "suppressed": self.by_id.suppressed_tokens}
        lens = read_lens(self.model, records, row, trace, self.layers, **more)
        said = np.unique(lens.token_id[lens.token_id >= 0]).tolist()
        return replace(trace, lens=lens, pieces={**trace.pieces, **self.processor.pieces(said)})


def _settings_for(canvases: Sequence[list[int] | None], mask_token_id: int) -> GenerationSettings:
    """Return the default settings; of canvases, as long as they are.

    Raises:
        ValueError: for canvases of several lengths, or one that leaves nothing to fill.
    """
    lengths = {len(ids) for ids in canvases if ids}
    if not lengths:
        return GenerationSettings()
    if len(lengths) > 1:
        raise ValueError(
            f"the canvases have {', '.join(map(str, sorted(lengths)))} tokens; give settings, whose gen_length all are "
            "filled up to"
        )
    if any(mask_token_id not in ids for ids in canvases if ids):
        raise ValueError(
            "a canvas has no gap; mark what is to be filled by ____ (a mask for each underscore), or give settings "
            "whose gen_length is longer, so that the answer goes on"
        )
    (length,) = lengths
    return GenerationSettings(gen_length=length, block_length=length, steps=length)


def _note_masks(trace: SampleTrace, asked: int, is_cancelled: bool) -> tuple[str, ...]:
    """Say of a trace, and of the number of masks in its prompt, which masks are none of the sampler's."""
    notes = []
    if asked:
        notes.append(f"The question holds {asked} mask tokens, which may be filled in place of the answer's.")
    if chosen := int(trace.predicted_masks.sum()):
        notes.append(f"The model chose the mask itself in {chosen} of {len(trace.step)} commits.")
    if trace.masks_left and not is_cancelled:
        notes.append(f"{trace.masks_left} positions of the answer are masked still.")
    return tuple(notes)


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
