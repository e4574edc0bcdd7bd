"""The exact sampler: semi-autoregressive denoising, identical to the published one, batched.

Source: algorithm 1 of LLaDA-MedV (arXiv 2508.01617); details of the reference are pinned by the golden tests.
The sampler is a generator of step records and knows no tokenizer, no image and no plot. It carries a boolean
mask, and runs the output layer only on masked positions that may be chosen.

R rows, P prompt positions, L answer positions, S suffix positions, T = P + L + S, H hidden size, V vocabulary.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from medv_lab.config import GenerationSettings
from medv_lab.diffusion.canvas import Canvas
from medv_lab.diffusion.remasking import Predictions, choose, entropy, predict
from medv_lab.diffusion.schedule import transfer_counts


class Denoiser(Protocol):
    """What the sampler needs of a model."""

    def embed_tokens(self, ids: torch.Tensor) -> torch.Tensor:
        """Ids (...) to embeddings (..., H)."""

    def body(
        self,
        inputs_embeds: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """(R, T, H) to hidden states (R, T, H); mask (R, T), positions (R, T), 0..T-1 by default."""

    def head(self, hidden: torch.Tensor) -> torch.Tensor:
        """Hidden states (N, H) to logits (N, V)."""


@dataclass(frozen=True, eq=False)
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
        cancel: asked before every pass, e.g. `threading.Event().is_set`; true ends the run, and what was yielded
            is a valid part.

    Yields:
        A `StepRecord` for every forward pass.

    Raises:
        FloatingPointError: if the model's numbers are not finite, so that no token can be told from another.
    """
    if prompt_masked is None:
        prompt_masked = torch.zeros(prefix_embeds.shape[:2], dtype=torch.bool)
    canvas = Canvas(
        prompt_masked.cpu().numpy(), settings.gen_length, len(suffix_ids), mask_token_id, stop_ids
    )
    run = _Run(denoiser, settings, mask_token_id, suppressed, prefix_embeds, attention_mask, suffix_ids)
    # The quota is fixed at the start of a block; its positions are all masked then, in every row.
    counts = transfer_counts(settings.block_length, settings.steps_per_block)
    for block in range(settings.num_blocks):
        first, last = block * settings.block_length, (block + 1) * settings.block_length
        for step, count in enumerate(counts):
            active = canvas.waiting_in(first, last)
            if not active.any():
                break
            if cancel is not None and cancel():
                return
            rows, places = canvas.candidates(active, last)
            predictions = run.predict(active, rows, places)
            tokens, confidence = predictions.tokens.cpu().numpy(), predictions.confidence.cpu().numpy()
            if not np.isfinite(confidence).all():
                raise FloatingPointError(
                    f"the model gave no finite probability at answer position "
                    f"{(places - canvas.prompt)[~np.isfinite(confidence)][0]} in step {step} of block {block}; check "
                    "its weights, use float32 or bfloat16 rather than float16, and suppress fewer tokens"
                )
            chosen = choose(confidence, rows, count)
            run.commit(rows[chosen], places[chosen], tokens[chosen])
            canvas.commit(rows[chosen], places[chosen], tokens[chosen])
            canvas.find_stops(active)
            positions = places - canvas.prompt
            yield StepRecord(
                block=block,
                step=step,
                quota=active * count,
                active=active,
                rows=rows[chosen],
                positions=positions[chosen],
                tokens=tokens[chosen],
                confidence=confidence[chosen],
                **_details(predictions, chosen, settings.alternatives),
                candidate_rows=rows,
                candidate_positions=positions,
                candidate_tokens=tokens,
                candidate_confidence=confidence,
                canvas=canvas.ids.copy(),
                stops=canvas.stops,
            )


class _Run:
    """The accelerator's side of a run: embeddings of the whole sequences, and a random generator for each row."""

    def __init__(
        self, denoiser, settings, mask_token_id, suppressed, prefix_embeds, attention_mask, suffix_ids
    ):
        self.denoiser, self.settings, self.suppressed = denoiser, settings, suppressed
        self.device, (rows, self.prompt, _) = prefix_embeds.device, prefix_embeds.shape
        tail = torch.tensor([mask_token_id] * settings.gen_length + list(suffix_ids), device=self.device)
        tail_embeds = denoiser.embed_tokens(tail).to(prefix_embeds.dtype)
        self.mask_embed = tail_embeds[0]
        self.embeds = torch.cat([prefix_embeds, tail_embeds.expand(rows, -1, -1)], dim=1)  # (R, T, H)
        self.attention = self.position_ids = None
        self.padding = np.zeros(rows, np.int64)  # places on the left of each row
        if attention_mask is not None and not bool(attention_mask.all()):
            real = torch.nn.functional.pad(attention_mask.bool(), (0, len(tail)), value=True)
            # Positions count from the first real place, as they do when the row runs alone.
            self.attention, self.position_ids = real, (real.long().cumsum(1) - 1).clamp(min=0)
            self.padding = (~real).sum(1).cpu().numpy()
        self.generators = [torch.Generator(self.device).manual_seed(settings.seed) for _ in range(rows)]

    def predict(self, active: np.ndarray, rows: np.ndarray, places: np.ndarray) -> Predictions:
        """One forward pass of the active rows (R,); predictions at candidates (rows, places), each (N,)."""
        hidden = self._hidden(np.flatnonzero(active))
        local = self._index((active.cumsum() - 1)[rows])  # row among the active ones
        at = self._index(places)
        logits = self.denoiser.head(hidden[0][local, at])
        if self.settings.cfg_scale > 0:
            unconditional = self.denoiser.head(hidden[1][local, at])
            logits = unconditional + (self.settings.cfg_scale + 1) * (logits - unconditional)
        is_random = self.settings.remasking == "random"
        return predict(
            logits,
            self.suppressed,
            self.settings.temperature,
            lambda: self._noise(rows, places, logits.shape[-1]),
            (lambda: self._draw(rows, ())) if is_random else None,
        )

    def commit(self, rows: np.ndarray, places: np.ndarray, tokens: np.ndarray) -> None:
        """Embed the tokens (N,) at their places."""
        embeds = self.denoiser.embed_tokens(self._index(tokens)).to(self.embeds.dtype)
        self.embeds[self._index(rows), self._index(places)] = embeds

    def _hidden(self, active: np.ndarray) -> tuple[torch.Tensor, ...]:
        """Hidden states of the active rows; with guidance also those with the prompt blanked by masks."""
        inputs = (self.embeds, self.attention, self.position_ids)
        if len(active) < len(self.embeds):
            chosen = self._index(active)
            inputs = tuple(None if part is None else part[chosen] for part in inputs)
        if self.settings.cfg_scale == 0:
            return (self.denoiser.body(*inputs),)
        blank = inputs[0].clone()
        blank[:, : self.prompt] = self.mask_embed
        pairs = zip(inputs, (blank, *inputs[1:]), strict=True)
        return self.denoiser.body(*(None if a is None else torch.cat([a, b]) for a, b in pairs)).chunk(2)

    def _noise(self, rows: np.ndarray, places: np.ndarray, vocabulary: int) -> torch.Tensor:
        """Uniform numbers (N, V): drawn for candidates only, or for every position as the reference does."""
        if self.settings.noise == "masked":
            return self._draw(rows, (vocabulary,))
        parts = []
        for row in np.unique(rows):
            padding = int(self.padding[row])  # a row alone has no padding, and draws nothing for it
            shape = (1, self.embeds.shape[1] - padding, vocabulary)
            everywhere = self._rand(row, shape)[0]
            parts.append(everywhere[self._index(places[rows == row] - padding)])
        return torch.cat(parts)

    def _draw(self, rows: np.ndarray, shape: tuple[int, ...]) -> torch.Tensor:
        """Uniform numbers (N, *shape) for candidates, each row's from its own generator: alone as in a batch."""
        return torch.cat([self._rand(row, (int((rows == row).sum()), *shape)) for row in np.unique(rows)])

    def _rand(self, row: int, shape: tuple[int, ...]) -> torch.Tensor:
        return torch.rand(shape, dtype=torch.float64, generator=self.generators[row], device=self.device)

    def _index(self, values: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(values).to(self.device)


def _details(predictions: Predictions, chosen: np.ndarray, alternatives: int) -> dict[str, np.ndarray]:
    """Entropy (N,) and the most probable tokens (N, K) at the chosen candidates."""
    log_probs = predictions.log_probs[torch.from_numpy(chosen).to(predictions.log_probs.device)]
    best = log_probs.topk(min(alternatives, log_probs.shape[-1]), dim=-1)
    return {
        "entropy": entropy(log_probs).cpu().numpy(),
        "alternative_ids": best.indices.cpu().numpy(),
        "alternative_probs": best.values.exp().cpu().numpy(),
    }
