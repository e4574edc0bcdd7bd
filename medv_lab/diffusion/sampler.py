"""The exact sampler: semi-autoregressive denoising, identical to the published one, batched.

Source: algorithm 1 of LLaDA-MedV (arXiv 2508.01617); details of the reference are pinned by the golden tests.
The sampler is a generator of step records and knows no tokenizer, no image and no plot. It carries a boolean
mask, and runs the output layer only on masked positions that may be chosen.

R rows, P prompt positions, L answer positions, S suffix positions, T = P + L + S, H hidden size.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from medv_lab.config import GenerationSettings
from medv_lab.diffusion.remasking import Predictions, entropy, predict
from medv_lab.diffusion.schedule import transfer_counts


class Denoiser(Protocol):
    """What the sampler needs of a model."""

    def embed_tokens(self, ids: torch.Tensor) -> torch.Tensor:
        """Ids (...) to embeddings (..., H)."""

    def body(self, inputs_embeds, attention_mask=None, position_ids=None) -> torch.Tensor:
        """(R, T, H) to hidden states (R, T, H)."""

    def head(self, hidden: torch.Tensor) -> torch.Tensor:
        """Hidden states (N, H) to logits (N, V)."""


@dataclass(frozen=True)
class StepRecord:
    """One forward pass. Positions count from the first answer position; negative ones lie in the prompt.

    Attributes:
        block, step: which block, and which step within it.
        quota: positions to commit in each row, int (R,).
        active: rows that take part in this pass, bool (R,); the others are done or wait for the next block.
        rows, positions, tokens, confidence, entropy: one entry a commit, (N,).
        alternative_ids, alternative_probs: most probable tokens at each commit, (N, K).
        candidate_rows, candidate_positions, candidate_tokens, candidate_confidence: all that could be chosen.
        canvas: answer ids after the pass, int64 (R, L), the mask id where masked.
        stops: where the answer ends so far (R,), L if no stop was found.
    """

    block: int
    step: int
    quota: np.ndarray
    active: np.ndarray
    rows: np.ndarray
    positions: np.ndarray
    tokens: np.ndarray
    confidence: np.ndarray
    entropy: np.ndarray
    alternative_ids: np.ndarray
    alternative_probs: np.ndarray
    candidate_rows: np.ndarray
    candidate_positions: np.ndarray
    candidate_tokens: np.ndarray
    candidate_confidence: np.ndarray
    canvas: np.ndarray
    stops: np.ndarray


class _State:
    """Canvas, mask, stops and random generators of a run."""

    def __init__(self, denoiser, prefix_embeds, settings, mask_token_id, prompt_masked, stop_ids, suffix_ids):
        device, (rows, prompt, _) = prefix_embeds.device, prefix_embeds.shape
        self.prompt, self.length = prompt, settings.gen_length
        self.mask_token_id, self.stop_ids = mask_token_id, [list(stop) for stop in stop_ids]
        tail = torch.tensor([mask_token_id] * self.length + list(suffix_ids), device=device)
        tail_embeds = denoiser.embed_tokens(tail).to(prefix_embeds.dtype).expand(rows, -1, -1)
        self.embeds = torch.cat([prefix_embeds, tail_embeds], dim=1)  # (R, T, H)
        self.masked = torch.zeros(self.embeds.shape[:2], dtype=torch.bool, device=device)
        self.masked[:, prompt : prompt + self.length] = True
        if prompt_masked is not None:
            self.masked[:, :prompt] = prompt_masked
        self.canvas = torch.full((rows, self.length), mask_token_id, device=device)
        self.stops = torch.full((rows,), self.length, device=device)
        self.has_stop = torch.zeros(rows, dtype=torch.bool, device=device)
        self.done = torch.zeros(rows, dtype=torch.bool, device=device)
        self.generators = [torch.Generator(device).manual_seed(settings.seed) for _ in range(rows)]

    def answer_masked(self) -> torch.Tensor:
        """Masked answer positions, bool (R, L)."""
        return self.masked[:, self.prompt : self.prompt + self.length]

    def commit(
        self, rows: torch.Tensor, places: torch.Tensor, tokens: torch.Tensor, embeds: torch.Tensor
    ) -> None:
        """Write tokens at places of the sequence; a predicted mask id leaves its place masked."""
        self.embeds[rows, places] = embeds
        self.masked[rows, places] = tokens == self.mask_token_id
        in_answer = (places >= self.prompt) & (places < self.prompt + self.length)
        self.canvas[rows[in_answer], places[in_answer] - self.prompt] = tokens[in_answer]

    def find_stops(self, active: torch.Tensor) -> None:
        """Look for stop sequences; once a row has a stop, only the first of the list can move it earlier."""
        for number, stop in enumerate(self.stop_ids):
            searched = active & (~self.has_stop if number else torch.ones_like(active))
            first = _first_match(self.canvas, stop)  # L where there is none
            found = searched & (first < self.length)
            self.stops = torch.where(found, torch.minimum(first, self.stops), self.stops)
            self.has_stop |= found
        places = torch.arange(self.length, device=self.canvas.device)
        waiting = (self.answer_masked() & (places < self.stops[:, None])).any(1)
        self.done |= self.has_stop & ~waiting


def _first_match(canvas: torch.Tensor, stop: Sequence[int]) -> torch.Tensor:
    """First place (R,) at which the ids of `stop` stand in each row, L if nowhere; an empty stop is at 0."""
    rows, length = canvas.shape
    if not stop:
        return torch.zeros(rows, dtype=torch.long, device=canvas.device)
    if len(stop) > length:
        return torch.full((rows,), length, device=canvas.device)
    windows = canvas.unfold(1, len(stop), 1)  # (R, L - n + 1, n)
    hit = (windows == torch.tensor(list(stop), device=canvas.device)).all(-1)
    return torch.where(hit.any(1), hit.int().argmax(1), length)


@torch.no_grad()
def sample(
    denoiser: Denoiser,
    prefix_embeds: torch.Tensor,
    settings: GenerationSettings,
    *,
    mask_token_id: int,
    suppressed: tuple[int, ...] = (),
    attention_mask: torch.Tensor | None = None,
    prompt_masked: torch.Tensor | None = None,
    stop_ids: Sequence[Sequence[int]] = (),
    suffix_ids: Sequence[int] = (),
    cancel: Callable[[], bool] | None = None,
) -> Iterator[StepRecord]:
    """Fill the answer positions step by step.

    Rows are independent: each is filled as it would be alone, with a generator of its own from the same seed.

    Args:
        denoiser: embeds ids and predicts them.
        prefix_embeds: prompts with their images in, (R, P, H); shorter ones padded on the left.
        settings: `stop`, `suffix` and `suppressed_tokens` are texts and names there; this function takes
            their ids below.
        mask_token_id: id of the mask.
        suppressed: ids never predicted.
        attention_mask: (R, P), 0 at padding; None if nothing is padded.
        prompt_masked: bool (R, P), prompt positions that hold the mask; they are filled too, as in the reference.
        stop_ids: sequences before which an answer ends. When one is known, only the first can move the end.
        suffix_ids: ids behind the answer positions.
        cancel: asked before every pass; true ends the run, and what was yielded is a valid part.

    Yields:
        A `StepRecord` for every forward pass.
    """
    state = _State(denoiser, prefix_embeds, settings, mask_token_id, prompt_masked, stop_ids, suffix_ids)
    attention, position_ids = _attention(attention_mask, state)
    for block in range(settings.num_blocks):
        first, last = block * settings.block_length, (block + 1) * settings.block_length
        in_block = slice(first, last)
        # The quota is fixed at the start of a block; its positions are all masked then, in every row.
        counts = transfer_counts(settings.block_length, settings.steps_per_block)
        for step, count in enumerate(counts):
            active = ~state.done & state.answer_masked()[:, in_block].any(1)
            if not active.any():
                break
            if cancel is not None and cancel():
                return
            yield _step(
                denoiser, state, settings, suppressed, attention, position_ids, active, block, step, count
            )


def _attention(
    attention_mask: torch.Tensor | None, state: _State
) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """Mask and positions of whole sequences; rows padded on the left count their positions from the first real one."""
    if attention_mask is None or bool(attention_mask.all()):
        return None, None
    extra = state.embeds.shape[1] - state.prompt
    attention = torch.cat(
        [attention_mask.bool(), attention_mask.new_ones(len(attention_mask), extra).bool()], dim=1
    )
    return attention, (attention.long().cumsum(1) - 1).clamp(min=0)


def _step(
    denoiser, state, settings, suppressed, attention, position_ids, active, block, step, count
) -> StepRecord:
    """One forward pass over the active rows, and its commits."""
    allowed = _allowed(state, (block + 1) * settings.block_length) & active[:, None]
    rows, places = allowed.nonzero(as_tuple=True)  # row by row, places in order
    hidden = _hidden(denoiser, state, settings.cfg_scale, attention, position_ids, active)
    local = active.cumsum(0)[rows] - 1  # row among the active ones
    logits = denoiser.head(hidden[0][local, places])
    if settings.cfg_scale > 0:
        unconditional = denoiser.head(hidden[1][local, places])
        logits = unconditional + (settings.cfg_scale + 1) * (logits - unconditional)
    # Draws are made row by row, so that a row gets the same numbers in a batch as alone.
    per_row = [(state.generators[row], rows == row) for row in active.nonzero()[:, 0].tolist()]
    predictions = predict(
        logits,
        suppressed,
        settings.temperature,
        lambda: _noise(per_row, places, logits.shape[-1], state.embeds.shape[1], settings.noise),
        (lambda: _draw(per_row, ())) if settings.remasking == "random" else None,
    )
    chosen = _choose(predictions.confidence, rows, len(active), count)
    state.commit(
        rows[chosen],
        places[chosen],
        predictions.tokens[chosen],
        denoiser.embed_tokens(predictions.tokens[chosen]),
    )
    state.find_stops(active)
    return _record(
        state, settings, predictions, rows, places - state.prompt, chosen, active, block, step, count
    )


def _allowed(state: _State, block_end: int) -> torch.Tensor:
    """Masked positions that may be chosen, bool (R, T): none behind the block, none at or behind a stop."""
    places = torch.arange(state.embeds.shape[1], device=state.embeds.device) - state.prompt
    return state.masked & (places < block_end) & (places < state.stops[:, None])


def _hidden(denoiser, state, cfg_scale, attention, position_ids, active) -> tuple[torch.Tensor, ...]:
    """Hidden states of the active rows; with guidance also those with the prompt blanked by masks."""
    embeds = state.embeds[active]
    mask = None if attention is None else attention[active]
    positions = None if position_ids is None else position_ids[active]
    if cfg_scale == 0:
        return (denoiser.body(embeds, mask, positions),)
    blank = embeds.clone()
    blank[:, : state.prompt] = denoiser.embed_tokens(
        torch.tensor(state.mask_token_id, device=embeds.device)
    ).to(embeds.dtype)
    both = None if mask is None else torch.cat([mask, mask])
    twice = None if positions is None else torch.cat([positions, positions])
    return denoiser.body(torch.cat([embeds, blank]), both, twice).chunk(2)


def _draw(per_row, shape: tuple[int, ...]) -> torch.Tensor:
    """Uniform float64 numbers for every candidate, each row's from its own generator."""
    parts = [
        torch.rand((int(mine.sum()), *shape), dtype=torch.float64, generator=generator, device=mine.device)
        for generator, mine in per_row
    ]
    return torch.cat(parts)


def _noise(per_row, places: torch.Tensor, vocabulary: int, length: int, kind: str) -> torch.Tensor:
    """Uniform numbers (N, V): drawn for candidates only, or for all positions as the reference does."""
    if kind == "masked":
        return _draw(per_row, (vocabulary,))
    parts = []
    for generator, mine in per_row:
        everywhere = torch.rand(
            (1, length, vocabulary), dtype=torch.float64, generator=generator, device=mine.device
        )
        parts.append(everywhere[0, places[mine]])
    return torch.cat(parts)


def _choose(confidence: torch.Tensor, rows: torch.Tensor, batch: int, count: int) -> torch.Tensor:
    """Indices of the `count` most confident candidates of each row, in order of position."""
    if count == 0 or len(rows) == 0:
        return rows.new_zeros(0)
    by_confidence = confidence.argsort(descending=True, stable=True)
    order = by_confidence[rows[by_confidence].argsort(stable=True)]  # row by row, most confident first
    starts = torch.searchsorted(rows, torch.arange(batch, device=rows.device))
    rank = torch.arange(len(order), device=rows.device) - starts[rows[order]]
    return order[rank < count].sort().values


def _record(
    state: _State, settings, predictions: Predictions, rows, positions, chosen, active, block, step, count
) -> StepRecord:
    log_probs = predictions.log_probs[chosen]
    best = log_probs.topk(min(settings.alternatives, log_probs.shape[-1]), dim=-1)

    def array(tensor: torch.Tensor) -> np.ndarray:
        return tensor.detach().cpu().numpy().copy()

    return StepRecord(
        block=block,
        step=step,
        quota=array(active.long() * count),
        active=array(active),
        rows=array(rows[chosen]),
        positions=array(positions[chosen]),
        tokens=array(predictions.tokens[chosen]),
        confidence=array(predictions.confidence[chosen]),
        entropy=array(entropy(log_probs)),
        alternative_ids=array(best.indices),
        alternative_probs=array(best.values.exp()),
        candidate_rows=array(rows),
        candidate_positions=array(positions),
        candidate_tokens=array(predictions.tokens),
        candidate_confidence=array(predictions.confidence),
        canvas=array(state.canvas),
        stops=array(state.stops),
    )
