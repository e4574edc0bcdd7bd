"""The sampler: semi-autoregressive denoising, batched; by default identical to the published one.

Source: algorithm 1 of LLaDA-MedV (arXiv 2508.01617); `diffusion.reference` has it as a plain loop, and details of the
reference implementation are pinned by the golden tests. The sampler is a generator of step records and knows no
tokenizer, no image and no plot. A boolean mask says which positions are masked, and the output layer runs only on
those that may be filled. Strategy, guard and cache are objects of the settings, of our classes or of a user's own.

L, B, Z answer length, block length, steps; R rows, P prompt, S suffix, T = P + L + S, H hidden size, N candidates,
M committed tokens.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch

from medv_lab.config import GenerationSettings
from medv_lab.diffusion.forward_runner import Denoiser, ForwardRunner
from medv_lab.diffusion.predictions import Predictions, commit_details
from medv_lab.diffusion.state import SamplerState, StepRecord
from medv_lab.strategies.base import Candidates, Committed, Decision, best_per_row
from medv_lab.strategies.caches import NoCache
from medv_lab.strategies.schedule import transfer_counts


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
    end_ids: Sequence[int] = (),
    is_image: torch.Tensor | None = None,
    start_ids: torch.Tensor | None = None,
    process_logits: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | None = None,
    cancel: Callable[[], bool] | None = None,
    record_hidden: Sequence[int] = (),
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
        prompt_masked: bool (R, P), prompt indices that hold the mask; they are filled too, as in the reference.
        stop_ids: sequences before which an answer ends. Once a stop has been found, only the first sequence of this
            list can still move the end, and only to an earlier position, as in the reference.
        suffix_ids: ids behind the answer positions.
        end_ids: tokens that end an answer; strategies that grow read their probability, suppressed or not, and
            `defer_ends` commits them last.
        is_image: bool (R, P), prompt indices of images, which the cache "image" keeps.
        start_ids: answers to start from, (R, L), with the mask where a token is wanted; all masks by default. What is
            given never changes, is never verified, and takes no share of the schedule; see `SamplerState.start`.
        process_logits: changes logits (N, V), given the answers so far of their rows (N, L).
        cancel: asked before every pass, e.g. `threading.Event().is_set`; true ends the run, and what was yielded
            is a valid part.
        record_hidden: numbers of the layers whose states the records keep; a pass of K layers keeps R K L H numbers.

    Yields:
        A `StepRecord` for every forward pass.

    Raises (when the first record is asked for):
        ValueError: if the cache "image" is not told where images are, or `defer_ends` which tokens end an answer, for
            several or padded prompts where the answer grows or with lookahead, or for start_ids of another shape than
            the answers.
        FloatingPointError: if the model's numbers are not finite, so that no token can be told from another.
    """
    strategy = settings.remasking
    _check_inputs(settings, prefix_embeds, attention_mask, is_image, end_ids)

    # x_1: every answer position is a mask. The state holds all that changes during the run.
    if prompt_masked is None:
        prompt_masked = torch.zeros(prefix_embeds.shape[:2], dtype=torch.bool)
    state = SamplerState(
        prompt_masked.cpu().numpy(), settings.gen_length, suffix_ids, mask_token_id, stop_ids
    )
    if start_ids is not None:
        state.start(start_ids.cpu().numpy())
    runner = ForwardRunner(
        denoiser,
        settings,
        state,
        prefix_embeds,
        suppressed=suppressed,
        attention_mask=attention_mask,
        is_image=is_image,
        end_ids=end_ids if strategy.is_growing else (),
        process_logits=process_logits,
        record_hidden=record_hidden,
    )
    memory = strategy.new_memory()
    is_watching = strategy.watches_all and isinstance(settings.cache, NoCache)
    schedule = transfer_counts(settings.block_length, settings.steps_per_block)

    block = last = 0
    while last < state.length:
        first, last = last, min(last + settings.block_length, state.length)
        runner.start_block(first, last)
        # each row's share of every pass: what is given needs no filling
        shares = np.array([transfer_counts(n, len(schedule)) for n in state.to_fill(first, last)])
        passes = _most_passes(settings, state, last)  # of each row
        step = filled_steps = 0  # they differ only where passes lengthen the answer
        changed, post_passes = np.zeros(len(passes), bool), np.zeros(len(passes), np.int64)
        while True:
            waiting = state.waiting_in(first, last) & (filled_steps < passes)
            editing = ~waiting & changed & (post_passes < strategy.post_passes)
            if editing.any():  # what stands before the end
                has_tokens = state.committed(editing, first, last, with_stop=False)[0]
                editing &= np.isin(np.arange(len(editing)), has_tokens)
            active, post_passes = waiting | editing, post_passes + editing
            if not active.any():
                break  # the block is full, or every answer has ended
            if cancel is not None and cancel():
                return

            # 1. Predict a token for every masked position up to the end of the block; some strategies watch the others.
            asked_rows, asked_positions = state.candidates(active, state.length if is_watching else last)
            is_candidate = asked_positions < last
            rows, positions = asked_rows[is_candidate], asked_positions[is_candidate]
            committed_rows, committed_positions = state.committed(
                active, first, last, with_stop=not strategy.edits
            )
            if strategy.edits:  # these are asked for too
                asked_rows, asked_positions, is_candidate = _merge(
                    (rows, positions), (committed_rows, committed_positions)
                )
            verify = (committed_rows, committed_positions, range(first, last)) if strategy.verifies else None
            scheduled = active * (shares[:, filled_steps] if filled_steps < len(schedule) else 0)
            following = shares[0, filled_steps : filled_steps + settings.lookahead]
            following = np.ones(settings.lookahead, np.int64) if strategy.is_adaptive else following
            result = runner.run(active, asked_rows, asked_positions, verify, is_candidate, following.tolist())
            tokens = result.predictions.tokens.cpu().numpy()
            confidence = result.predictions.confidence.cpu().numpy()
            _require_finite(confidence, positions, block, step)
            again = None
            if strategy.edits:
                again = result.watched.most_probable(np.flatnonzero(~is_candidate))

            # 2. Number of tokens to transfer: the schedule's share, or the remaining masks by the remaining passes,
            # rounded up. Masks of the prompt count in the last pass only.
            is_last = active & (filled_steps + 1 == passes)
            num_transfer = scheduled
            if strategy.is_adaptive or strategy.is_revising:
                masks = np.bincount(rows[(positions >= 0) | is_last[rows]], minlength=len(active))
                num_transfer = active * -(-masks // np.maximum(passes - filled_steps, 1))

            # 3. The strategy decides which to commit, and which committed tokens to mask again.
            shown = np.arange(len(rows))
            if settings.defer_ends:
                shown = _without_ends(rows, np.isin(tokens, end_ids))
            seen = Candidates(
                rows=rows[shown],
                positions=positions[shown],
                tokens=tokens[shown],
                confidence=confidence[shown],
                num_transfer=num_transfer,
                scheduled=scheduled,
                answer=state.answer.copy(),
                block_length=settings.block_length,
                step=step,
                distributions=result.predictions.at(shown),
                memory=memory,
                watched=result.watched if strategy.watches_all else None,
                end_ids=tuple(end_ids),
            )
            committed = Committed(
                rows=committed_rows,
                positions=committed_positions,
                tokens=state.answer[committed_rows, committed_positions],
                confidence=state.confidence[committed_rows, committed_positions],
                remasked=state.remasked[committed_rows, committed_positions],
                filled_before=sum(schedule[:filled_steps]) / settings.block_length,
                filled_after=sum(schedule[: filled_steps + 1]) / settings.block_length,
                is_last=is_last,
                draw=lambda of=committed_rows: runner.draw(of).cpu().numpy(),
                verified=result.verified,
                **({} if again is None else _as_edits(again, mask_token_id)),
            )
            decision = strategy.decide(seen, committed, settings.guard)
            _check_decision(decision, settings, len(shown), len(committed_rows))
            commit = shown[decision.commit]
            if len(shown) < len(rows) and decision.is_filling:
                commit = _add_ends(commit, shown, rows, confidence, num_transfer)

            # 4. Commit and remask, then see where answers end. A token that is replaced is remasked and committed.
            commits = {
                "rows": rows[commit],
                "positions": positions[commit],
                "tokens": tokens[commit],
                "confidence": confidence[commit],
                **commit_details(result.predictions, commit, settings.alternatives),
            }
            remask = decision.remask
            if len(decision.replace):
                edits = {
                    "rows": committed_rows[decision.replace],
                    "positions": committed_positions[decision.replace],
                    "tokens": again.tokens.cpu().numpy()[decision.replace],
                    "confidence": again.confidence.cpu().numpy()[decision.replace],
                    **commit_details(again, decision.replace, settings.alternatives),
                }
                commits = _join_by_place(commits, edits)
                remask = np.union1d(remask, decision.replace)
            remasked = committed_rows[remask], committed_positions[remask]
            state.remask(*remasked)
            state.commit(*(commits[name] for name in ("rows", "positions", "tokens", "confidence")))
            state.find_stops(active)
            changed = np.isin(np.arange(len(active)), commits["rows"])

            # 5. An answer that grows gets more masks, but not once it has an end.
            filled_steps += decision.is_filling
            grown = decision.grow if state.stops[0] == state.length else ()
            for position, count in grown:
                state.grow(position, count)
                if decision.is_filling:  # they belong to the block, and need passes of their own
                    last, passes = last + count, passes + count

            yield StepRecord(
                block=block,
                step=step,
                num_transfer=num_transfer * decision.is_filling,
                active=active,
                **commits,
                remasked_rows=remasked[0],
                remasked_positions=remasked[1],
                candidate_rows=rows,
                candidate_positions=positions,
                candidate_tokens=tokens,
                candidate_confidence=confidence,
                canvas=state.answer.copy(),
                stops=state.stops.copy(),
                grown=grown,
                sequences=result.sequences,
                hidden=result.hidden,
            )
            step += 1
        block += 1


def _most_passes(settings: GenerationSettings, state: SamplerState, last: int) -> np.ndarray:
    """Return how many passes the block that ends at position `last` may take in each row, int (R,).

    An adaptive strategy commits at least one token per pass, so that as many as there are masks are enough.
    """
    rows = len(state.stops)
    if not settings.remasking.is_adaptive:
        return np.full(rows, settings.steps_per_block)
    if settings.max_passes is not None:
        return np.full(rows, settings.max_passes // settings.num_blocks)
    return np.bincount(state.candidates(np.ones(rows, bool), last)[0], minlength=rows)


def _merge(
    one: tuple[np.ndarray, np.ndarray], other: tuple[np.ndarray, np.ndarray]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return rows and positions of both, row by row and in order, and which are the first's."""
    rows, positions = (np.concatenate(pair) for pair in zip(one, other, strict=True))
    order = np.lexsort((positions, rows))
    return rows[order], positions[order], order < len(one[0])


def _as_edits(again: Predictions, mask_token_id: int) -> dict[str, np.ndarray]:
    """Return what is predicted at committed tokens, as `Committed` has it."""
    tokens, confidence = again.tokens.cpu().numpy(), again.confidence.cpu().numpy()
    return {"predicted": tokens, "predicted_confidence": np.where(tokens == mask_token_id, 0.0, confidence)}


def _join_by_place(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the commits of both, row by row and in order."""
    both = {name: np.concatenate([part, other[name]]) for name, part in one.items()}
    order = np.lexsort((both["positions"], both["rows"]))
    return {name: part[order] for name, part in both.items()}


def _without_ends(rows: np.ndarray, is_end: np.ndarray) -> np.ndarray:
    """Return the indices of candidates (N,) that are no end tokens, and all of a row that has nothing else."""
    has_others = np.isin(rows, rows[~is_end])
    return np.flatnonzero(~is_end | ~has_others)


def _add_ends(
    commit: np.ndarray, shown: np.ndarray, rows: np.ndarray, confidence: np.ndarray, num_transfer: np.ndarray
) -> np.ndarray:
    """Add the most confident end tokens where all others of a row are committed and are fewer than must be."""
    count = np.bincount(rows[commit], minlength=len(num_transfer))
    is_exhausted = count == np.bincount(rows[shown], minlength=len(num_transfer))
    waiting = np.setdiff1d(np.arange(len(rows)), shown)
    missing = np.where(is_exhausted, np.maximum(num_transfer - count, 0), 0)
    return np.union1d(commit, waiting[best_per_row(confidence[waiting], rows[waiting], missing)])


def _check_inputs(
    settings: GenerationSettings,
    prefix_embeds: torch.Tensor,
    attention_mask: torch.Tensor | None,
    is_image: torch.Tensor | None,
    end_ids: Sequence[int],
) -> None:
    """Check that prompts fit the strategy and the cache, and that what the settings defer is known.

    Raises:
        ValueError: if they do not.
    """
    if settings.cache.reads_images and is_image is None:
        raise ValueError(
            f"cache is {settings.cache.name!r}, but is_image is None; say which prompt indices hold images"
        )
    is_padded = attention_mask is not None and not bool(attention_mask.all())
    if settings.defer_ends and not len(end_ids):
        raise ValueError("defer_ends is true, but no end_ids were given; say which tokens end an answer")
    if settings.is_alone and (len(prefix_embeds) != 1 or is_padded):
        raise ValueError(
            f"{len(prefix_embeds)} prompts were given; answers that grow, or are made with lookahead, are made one at "
            "a time, unpadded"
        )


def _check_decision(
    decision: Decision, settings: GenerationSettings, candidates: int, committed: int
) -> None:
    """Check that a strategy of the user's own, too, decides what can be done and gets on.

    Raises:
        ValueError: for indices out of range or twice the same, for what the class does not say it does, or for a pass
            that neither fills nor lengthens the answer.
    """
    strategy = settings.remasking
    for name, indices, size in (
        ("commit", decision.commit, candidates),
        ("remask", decision.remask, committed),
        ("replace", decision.replace, committed),
    ):
        if len(indices) and not (indices[0] >= 0 and indices[-1] < size and (np.diff(indices) > 0).all()):
            raise ValueError(
                f"{strategy.name!r} decided to {name} {indices.tolist()}; give ascending indices below {size}"
            )
    for is_done, flag in (
        (len(decision.remask), "is_revising"),
        (len(decision.replace), "edits"),
        (decision.grow, "is_growing"),
    ):
        if is_done and not getattr(strategy, flag):
            raise ValueError(f"{strategy.name!r} does what its class does not say; set {flag} = True in it")
    if len(np.intersect1d(decision.remask, decision.replace)):
        raise ValueError(
            f"{strategy.name!r} decided to remask and to replace the same tokens; do one of both"
        )
    if not decision.is_filling and not decision.grow:
        raise ValueError(
            f"{strategy.name!r} neither filled nor lengthened the answer in a pass; it would not end"
        )


def _require_finite(confidence: np.ndarray, positions: np.ndarray, block: int, step: int) -> None:
    """Check that tokens can be told from one another.

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
