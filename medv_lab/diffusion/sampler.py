"""The sampler: semi-autoregressive denoising, batched; by default identical to the published one.

Source: algorithm 1 of LLaDA-MedV (arXiv 2508.01617); details of the reference are pinned by the golden tests.
The sampler is a generator of step records and knows no tokenizer, no image and no plot. It carries a boolean
mask, and runs the output layer only on masked positions that may be chosen. Low confidence and random remasking
without guard and cache are the published sampler; everything else the settings offer is built on the same loop.

R rows, P prompt positions, L answer positions, S suffix positions, T = P + L + S, H hidden size, V vocabulary.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from medv_lab.config import GROWING, GenerationSettings
from medv_lab.diffusion.canvas import Canvas
from medv_lab.diffusion.passes import Denoiser, Passes
from medv_lab.diffusion.remasking import Predictions, entropy
from medv_lab.diffusion.repetition import GUARDS
from medv_lab.diffusion.revision import REVISIONS, Decision, Held, Ledger
from medv_lab.diffusion.schedule import transfer_counts
from medv_lab.diffusion.strategies import ADAPTIVE, STRATEGIES, Candidates, Stability

_NONE = (np.zeros(0, np.int64), np.zeros(0, np.int64))


@dataclass(frozen=True, eq=False)
class StepRecord:
    """One forward pass. Positions count from the first answer position; negative ones lie in the prompt.

    Attributes:
        block, step: which block, and which step within it.
        quota: positions to commit in each row at least, int (R,); those that are not adaptive commit no more.
        active: rows that take part in this pass, bool (R,); the others are done or wait for the next block.
        rows, positions, tokens, confidence, entropy: one entry a commit, (N,).
        alternative_ids, alternative_probs: most probable tokens at each commit, (N, K).
        revoked_rows, revoked_positions: what was masked again, (M,); never a position that was committed just now.
        candidate_rows, candidate_positions, candidate_tokens, candidate_confidence: all that could be chosen.
        canvas: answer ids after the pass, int64 (R, L), the mask id where masked.
        stops: where the answer ends so far (R,), L if no stop was found.
        grown: (position, count) of the masks that were put before a position after the pass; the canvas has them.
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
    revoked_rows: np.ndarray
    revoked_positions: np.ndarray
    candidate_rows: np.ndarray
    candidate_positions: np.ndarray
    candidate_tokens: np.ndarray
    candidate_confidence: np.ndarray
    canvas: np.ndarray
    stops: np.ndarray
    grown: tuple[tuple[int, int], ...] = ()


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
    reusable: torch.Tensor | None = None,
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
        reusable: bool (R, P), prompt positions of images, which the cache "image" keeps.
        cancel: asked before every pass, e.g. `threading.Event().is_set`; true ends the run, and what was yielded
            is a valid part.

    Yields:
        A `StepRecord` for every forward pass.

    Raises:
        ValueError: if the cache "image" is not told where images are, or for a strategy that grows
            (`diffusion.growth`).
        FloatingPointError: if the model's numbers are not finite, so that no token can be told from another.
    """
    if settings.remasking in GROWING:
        raise ValueError(
            f"remasking {settings.remasking!r} grows the answer; call diffusion.growth.sample_growing"
        )
    if settings.cache == "image" and reusable is None:
        raise ValueError("cache is 'image', but reusable is None; say which prompt positions hold images")
    if prompt_masked is None:
        prompt_masked = torch.zeros(prefix_embeds.shape[:2], dtype=torch.bool)
    canvas = Canvas(
        prompt_masked.cpu().numpy(), settings.gen_length, len(suffix_ids), mask_token_id, stop_ids
    )
    passes = Passes(
        denoiser, settings, mask_token_id, suppressed, prefix_embeds, attention_mask, suffix_ids, reusable
    )
    chooser = _Chooser(settings, canvas, passes)
    for block in range(settings.num_blocks):
        first, last = block * settings.block_length, (block + 1) * settings.block_length
        passes.start_block(first, last)
        for step in range(settings.steps_per_block):
            active = canvas.waiting_in(first, last)
            if not active.any():
                break
            if cancel is not None and cancel():
                return
            rows, places = canvas.candidates(active, last)
            held = canvas.committed(active, first, last) if chooser.is_revising else _NONE
            verified = None
            if settings.remasking == "wino":
                tokens = canvas.ids[held[0], held[1] - canvas.prompt]
                shadowed = np.arange(first, last) + canvas.prompt
                predictions, verified = passes.predict_and_verify(
                    active, rows, places, shadowed, *held, tokens
                )
            else:
                predictions = passes.predict(active, rows, places)
            seen = chooser.look(predictions, active, rows, places, step)
            require_finite(seen.confidence, seen.positions, block, step)
            decision = chooser.decide(seen, held, verified, step)
            chosen, (revoked_rows, revoked_places) = decision.commit, (part[decision.revoke] for part in held)
            if chooser.is_revising:
                chooser.note(seen, decision, held)
            for side in (passes, canvas):
                side.commit(rows[chosen], places[chosen], seen.tokens[chosen])
                if len(revoked_rows):
                    side.revoke(revoked_rows, revoked_places)
            canvas.find_stops(active)
            yield StepRecord(
                block=block,
                step=step,
                quota=seen.quota,
                active=active,
                rows=rows[chosen],
                positions=seen.positions[chosen],
                tokens=seen.tokens[chosen],
                confidence=seen.confidence[chosen],
                **commit_details(predictions, chosen, settings.alternatives),
                revoked_rows=revoked_rows,
                revoked_positions=revoked_places - canvas.prompt,
                candidate_rows=rows,
                candidate_positions=seen.positions,
                candidate_tokens=seen.tokens,
                candidate_confidence=seen.confidence,
                canvas=canvas.ids.copy(),
                stops=canvas.stops,
            )


class _Chooser:
    """The strategy of a run at work: the quota of each pass, what has been seen before, and the choice."""

    def __init__(self, settings: GenerationSettings, canvas: Canvas, passes: Passes):
        self.settings, self.canvas, self.passes = settings, canvas, passes
        self.is_revising = settings.remasking in REVISIONS
        self.counts = transfer_counts(settings.block_length, settings.steps_per_block)
        self.stability = None
        if settings.remasking == "kl_stability":
            self.stability = Stability(settings.parameter("kl_bound"))
        self.ledger = Ledger(len(canvas.ids), settings.gen_length)

    def look(self, predictions: Predictions, active, rows, places, step: int) -> Candidates:
        """What a pass predicts, as strategies see it."""
        positions = places - self.canvas.prompt
        stable = np.zeros(len(rows), np.int64)
        if self.stability is not None:
            stable = self.stability.update(rows, positions, predictions.log_probs)
        return Candidates(
            rows=rows,
            positions=positions,
            tokens=predictions.tokens.cpu().numpy(),
            confidence=predictions.confidence.cpu().numpy(),
            predictions=predictions,
            quota=self._quota(active, rows, step),
            stable_passes=stable,
            answer=self.canvas.ids,
        )

    def _quota(self, active: np.ndarray, rows: np.ndarray, step: int) -> np.ndarray:
        """How many of each row (R,) must be committed: the schedule's share, or what is left over the passes left."""
        if not self.is_revising and self.settings.remasking not in ADAPTIVE:
            return active * self.counts[step]
        return -(-np.bincount(rows, minlength=len(active)) // (len(self.counts) - step))

    def decide(self, seen: Candidates, held: tuple[np.ndarray, np.ndarray], verified, step: int) -> Decision:
        """What to commit of the candidates, and to revoke of the held places."""
        settings = self.settings
        if not self.is_revising:
            plan = STRATEGIES[settings.remasking](seen, settings)
            return Decision(GUARDS[settings.repetition_guard](plan, seen, settings), np.zeros(0, np.int64))
        rows, positions = held[0], held[1] - self.canvas.prompt
        unknown = np.full(len(rows), np.nan)
        is_random = settings.remasking == "remdm"
        return REVISIONS[settings.remasking](
            seen,
            Held(
                rows=rows,
                positions=positions,
                tokens=self.canvas.ids[rows, positions],
                confidence=self.ledger.confidence[rows, positions],
                revisions=self.ledger.revisions[rows, positions],
                verified=unknown if verified is None else verified,
                drawn=self.passes.draw(rows).cpu().numpy() if is_random else unknown,
                filled_before=sum(self.counts[:step]) / settings.block_length,
                filled_after=sum(self.counts[: step + 1]) / settings.block_length,
                block_length=settings.block_length,
                is_last=step + 1 == len(self.counts),
            ),
            settings,
        )

    def note(self, seen: Candidates, decision: Decision, held: tuple[np.ndarray, np.ndarray]) -> None:
        """Remember what was decided, for revisions to come."""
        chosen, revoked = decision.commit, decision.revoke
        self.ledger.commit(seen.rows[chosen], seen.positions[chosen], seen.confidence[chosen])
        self.ledger.revoke(held[0][revoked], held[1][revoked] - self.canvas.prompt)


def require_finite(confidence: np.ndarray, positions: np.ndarray, block: int, step: int) -> None:
    """See that tokens can be told from one another.

    Raises:
        FloatingPointError: if a confidence (N,) is not finite.
    """
    finite = np.isfinite(confidence)
    if not finite.all():
        raise FloatingPointError(
            f"the model gave no finite probability at answer position {positions[~finite][0]} "
            f"in step {step} of block {block}; check "
            "its weights, use float32 or bfloat16 rather than float16, and suppress fewer tokens"
        )


def commit_details(predictions: Predictions, chosen: np.ndarray, alternatives: int) -> dict[str, np.ndarray]:
    """Entropy (N,) and the most probable tokens (N, K) at the chosen candidates."""
    at = torch.from_numpy(chosen).to(predictions.logits.device)
    log_probs = predictions.logits[at].log_softmax(-1)
    best = log_probs.topk(min(alternatives, log_probs.shape[-1]), dim=-1)
    return {
        "entropy": entropy(log_probs).cpu().numpy(),
        "alternative_ids": best.indices.cpu().numpy(),
        "alternative_probs": best.values.exp().cpu().numpy(),
    }
