"""Answers that find their own length: the canvas starts short and grows where the model wants to say more.

Source: DAEDAL (arXiv 2508.00819), its initial length adjustment and its mask insertion. Two decisions make an answer
longer, both by the mean probability of an end token over the last `end_window` positions of the canvas:

- before anything is filled, `growth` masks are appended until that mean reaches `end_threshold`;
- while it is filled, the least sure masked position that is below `unsure_threshold` becomes `growth` masks, as long
  as the mean is below `expand_threshold`. At most one position a pass.

A pass fills all positions above `threshold`, and at least the masks left over the filling passes left, rounded up, so
that the answer is full after Z filling passes. The length never exceeds `max_length`, and nothing grows once a stop is
known or in the last pass. One prompt at a time. P prompt places, L answer places now, N candidates.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch

from medv_lab.config import GenerationSettings
from medv_lab.diffusion.canvas import Canvas
from medv_lab.diffusion.passes import Denoiser, Passes
from medv_lab.diffusion.remasking import choose
from medv_lab.diffusion.sampler import StepRecord, commit_details, require_finite


@torch.no_grad()
def sample_growing(
    denoiser: Denoiser,
    prefix_embeds: torch.Tensor,
    settings: GenerationSettings,
    *,
    mask_token_id: int,
    end_ids: Sequence[int],
    suppressed: tuple[int, ...] = (),
    attention_mask: torch.Tensor | None = None,
    prompt_masked: torch.Tensor | None = None,
    stop_ids: Sequence[Sequence[int]] = (),
    suffix_ids: Sequence[int] = (),
    cancel: Callable[[], bool] | None = None,
) -> Iterator[StepRecord]:
    """Fill an answer step by step, and lengthen it.

    Args:
        prefix_embeds: one prompt, (1, P, H).
        end_ids: tokens that end an answer; their probability counts also where they are suppressed.
        denoiser, settings, mask_token_id, suppressed, attention_mask, prompt_masked, stop_ids, suffix_ids, cancel: as
            `diffusion.sampler.sample` takes them.

    Yields:
        A `StepRecord` for every forward pass; `grown` says where masks were put after it. Passes that only lengthen
        commit nothing.

    Raises:
        ValueError: for several prompts, or one that is padded.
        FloatingPointError: if the model's numbers are not finite.
    """
    is_padded = attention_mask is not None and not bool(attention_mask.all())
    if len(prefix_embeds) != 1 or is_padded:
        raise ValueError(
            f"{len(prefix_embeds)} prompts were given; an answer that grows is made one at a time, unpadded"
        )
    if prompt_masked is None:
        prompt_masked = torch.zeros(prefix_embeds.shape[:2], dtype=torch.bool)
    canvas = Canvas(
        prompt_masked.cpu().numpy(), settings.gen_length, len(suffix_ids), mask_token_id, stop_ids
    )
    passes = Passes(denoiser, settings, mask_token_id, suppressed, prefix_embeds, None, suffix_ids)
    active, filled, number, is_filling = np.ones(1, bool), 0, 0, False
    while filled < settings.steps and canvas.waiting_in(0, canvas.length).any():
        if cancel is not None and cancel():
            return
        rows, places = canvas.candidates(active, canvas.length)
        predictions, ends = passes.predict_with_ends(active, rows, places, end_ids)
        positions, tokens = places - canvas.prompt, predictions.tokens.cpu().numpy()
        confidence = predictions.confidence.cpu().numpy()
        require_finite(confidence, positions, 0, number)
        end = _end_of_canvas(canvas, positions, ends, end_ids, settings.parameter("end_window"))
        is_filling = is_filling or not _wants_more(canvas, end, settings)
        quota = np.zeros(1, np.int64)
        chosen, grown = np.zeros(0, np.int64), ()
        if is_filling:
            quota[0] = -(-len(rows) // (settings.steps - filled))
            sure = int((confidence > settings.parameter("threshold")).sum())
            chosen = choose(confidence, rows, max(int(quota[0]), sure))
            for side in (passes, canvas):
                side.commit(rows[chosen], places[chosen], tokens[chosen])
            canvas.find_stops(active)
            filled += 1
            if filled < settings.steps:
                grown = _insertion(canvas, positions, confidence, chosen, end, settings)
        else:
            grown = ((canvas.length, settings.parameter("growth")),)
        for position, count in grown:
            passes.grow(canvas.prompt + position, count)
            canvas.grow(position, count)
        yield StepRecord(
            block=0,
            step=number,
            quota=quota,
            active=active,
            rows=rows[chosen],
            positions=positions[chosen],
            tokens=tokens[chosen],
            confidence=confidence[chosen],
            **commit_details(predictions, chosen, settings.alternatives),
            revoked_rows=np.zeros(0, np.int64),
            revoked_positions=np.zeros(0, np.int64),
            candidate_rows=rows,
            candidate_positions=positions,
            candidate_tokens=tokens,
            candidate_confidence=confidence,
            canvas=canvas.ids.copy(),
            stops=canvas.stops,
            grown=grown,
        )
        number += 1


def _end_of_canvas(
    canvas: Canvas, positions: np.ndarray, ends: np.ndarray, end_ids: Sequence[int], window: int
) -> float:
    """Mean probability of an end token over the last positions; 1 or 0 where one is filled."""
    probability = np.isin(canvas.ids[0], list(end_ids)).astype(np.float64)
    is_answer = positions >= 0
    probability[positions[is_answer]] = ends[is_answer]
    return float(probability[-window:].mean())


def _wants_more(canvas: Canvas, end: float, settings: GenerationSettings) -> bool:
    """Whether the canvas is lengthened before it is filled."""
    fits = canvas.length + settings.parameter("growth") <= settings.parameter("max_length")
    return fits and end < settings.parameter("end_threshold")


def _insertion(
    canvas: Canvas,
    positions: np.ndarray,
    confidence: np.ndarray,
    chosen: np.ndarray,
    end: float,
    settings: GenerationSettings,
) -> tuple[tuple[int, int], ...]:
    """Where masks are put behind a position that stays masked, and how many: nowhere, or at one place."""
    more = settings.parameter("growth") - 1  # the position itself is one of them
    has_stop = canvas.stops[0] < canvas.length
    fits = canvas.length + more <= settings.parameter("max_length")
    waiting = np.setdiff1d(np.arange(len(positions)), chosen)
    waiting = waiting[
        (positions[waiting] >= 0) & (confidence[waiting] < settings.parameter("unsure_threshold"))
    ]
    if has_stop or not fits or not len(waiting) or end >= settings.parameter("expand_threshold"):
        return ()
    least_sure = waiting[confidence[waiting].argmin()]
    return ((int(positions[least_sure]) + 1, more),)
