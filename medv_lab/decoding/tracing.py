"""From the records of a run to the trace of each of its rows. L answer positions, F forward passes of a row."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from medv_lab.decoding.denoising import VisionDenoiser
from medv_lab.diffusion.attention_maps import PatchAttention
from medv_lab.diffusion.lens import LogitLens
from medv_lab.diffusion.predictions import entropy, guide, suppress
from medv_lab.diffusion.state import StepRecord
from medv_lab.diffusion.trace import SampleTrace


def make_trace(
    records: Sequence[StepRecord],
    row: int,
    *,
    gen_length: int,
    block_length: int,
    mask_token_id: int,
    pieces: Mapping[int, bytes],
    manifest: Mapping[str, Any],
    attention: PatchAttention | None = None,
    given: np.ndarray | None = None,
    first_stop: int | None = None,
) -> SampleTrace:
    """Gather one row's commits, and what was remasked, from the records of a run.

    Args:
        records: what the sampler yielded; passes in which the row took no part are not counted.
        row: which row.
        gen_length, block_length, mask_token_id, pieces, manifest, attention: see `SampleTrace`. With lookahead the
            manifest gets "sequences", how many the model ran in each pass.
        given: ids of the canvas that the row started from, int (L,), the mask id at masks; None if all were.
        first_stop: position at which that canvas ends; None if it has no end.
    """
    own = [record for record in records if record.active[row]]
    mine = [record.rows == row for record in own]
    grown = [event for record in own for event in record.grown]
    born = np.full(gen_length, -1, np.int32)
    given = np.zeros(0, np.int64) if given is None else given
    for step, record in enumerate(own):
        for position, count in record.grown:
            born = np.insert(born, [position] * count, step)
            if given.size:
                given = np.insert(given, [position] * count, mask_token_id)
    drafts = _changed_drafts(own, row, len(born), mask_token_id)

    def gather(read, dtype, shape=(0,)) -> np.ndarray:
        parts = [read(record)[chosen] for record, chosen in zip(own, mine, strict=True)]
        return np.concatenate(parts).astype(dtype) if parts else np.zeros(shape, dtype)

    if any(record.sequences != record.active.sum() for record in own):  # some were run ahead
        manifest = {**manifest, "sequences": [record.sequences for record in own]}
    counts = [int(chosen.sum()) for chosen in mine]
    remasked = [record.remasked_positions[record.remasked_rows == row] for record in own]
    ends = [int(record.stops[row]) for record in own]
    return SampleTrace(
        step=np.repeat(np.arange(len(own)), counts).astype(np.int32),
        block=np.repeat([record.block for record in own], counts).astype(np.int32),
        position=_joined(
            on_final_canvas(record.positions[chosen], own[step:])
            for step, (record, chosen) in enumerate(zip(own, mine, strict=True))
        ),
        token_id=gather(lambda record: record.tokens, np.int32),
        confidence=gather(lambda record: record.confidence, np.float32),
        entropy=gather(lambda record: record.entropy, np.float32),
        alternative_ids=gather(lambda record: record.alternative_ids, np.int32, (0, 0)),
        alternative_probs=gather(lambda record: record.alternative_probs, np.float32, (0, 0)),
        # while an answer grows no stop is known, and its end is that of the canvas
        stops=np.array(
            [len(born) if end == len(o.canvas[row]) else end for end, o in zip(ends, own, strict=True)],
            np.int32,
        ),
        remasked_step=np.repeat(np.arange(len(own)), [len(positions) for positions in remasked]).astype(
            np.int32
        ),
        remasked_position=_joined(remasked),
        **drafts,
        given=given.astype(np.int32),
        first_stop=len(born) if grown or first_stop is None else first_stop,
        born=born if grown else np.zeros(0, np.int32),
        gen_length=len(born),
        block_length=len(born) if grown else block_length,
        mask_token_id=mask_token_id,
        pieces=pieces,
        manifest=manifest,
        attention=attention,
    )


def on_final_canvas(positions: np.ndarray, records: Sequence[StepRecord]) -> np.ndarray:
    """Return positions (N,) of the canvas of the first record, moved by all that was put before them from then on."""
    moved = positions.copy()
    for record in records:
        for start, count in record.grown:
            moved[moved >= start] += count
    return moved


def _changed_drafts(own: Sequence[StepRecord], row: int, length: int, mask: int) -> dict[str, np.ndarray]:
    """Return the drafts of a row's passes as `SampleTrace` keeps them, on the final canvas of L positions."""
    known = np.full(length, mask)  # what was kept last at each position
    steps, changed, tokens = [], [], []
    for step, record in enumerate(own):
        mine = (record.candidate_rows == row) & (record.candidate_positions >= 0)
        fresh = np.full(length, mask)
        fresh[on_final_canvas(record.candidate_positions[mine], own[step:])] = record.candidate_tokens[mine]
        is_masked = np.zeros(length, bool)
        # the canvas of a record has the masks that were put in after its pass
        masked = np.flatnonzero(record.canvas[row] == mask)
        is_masked[on_final_canvas(masked, own[step + 1 :])] = True
        at = np.flatnonzero(is_masked & (fresh != known))
        known[at] = fresh[at]
        steps.append(np.full(len(at), step))
        changed.append(at)
        tokens.append(fresh[at])
    return {
        "draft_step": _joined(steps),
        "draft_position": _joined(changed),
        "draft_token": _joined(tokens),
    }


def _joined(parts: Iterable[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.zeros(0), *parts]).astype(np.int32)


def ids_in(records: Sequence[StepRecord], row: int) -> set[int]:
    """Return every id that a row committed, considered, drafted or was given: those whose pieces its trace needs."""
    found: set[int] = set()
    for record in records:
        mine = record.rows == row
        drafted = record.candidate_tokens[record.candidate_rows == row]
        for part in (record.tokens[mine], record.alternative_ids[mine], drafted):
            found.update(part.ravel().tolist())
    return found.union(records[-1].canvas[row].tolist() if records else ())


@torch.no_grad()
def read_lens(
    model: VisionDenoiser,
    records: Sequence[StepRecord],
    row: int,
    trace: SampleTrace,
    layers: tuple[int, ...],
    *,
    cfg_scale: float = 0.0,
    suppressed: tuple[int, ...] = (),
) -> LogitLens:
    """Return what the recorded layers of a row's passes say, by the model's own output layer.

    Args:
        model: that made the records.
        records, row: as `make_trace` takes them; the records have hidden states.
        trace: of that row, which knows the final tokens.
        layers: numbers of the layers that were recorded, as `choose_layers` gives them.
        cfg_scale, suppressed: of the run, so that the last layer says what the sampler read.
    """
    own, final = [record for record in records if record.active[row]], trace.replay()
    lens = LogitLens.empty(layers, len(own), trace.gen_length)
    for step, record in enumerate(own):
        states = record.hidden[:, int(record.active[:row].sum())].to(model.input_device)  # (copies, K, L, H)
        there = np.flatnonzero(
            trace.is_there(step - 1)
        )  # on the final canvas, where the pass's positions lie
        is_known = ~states[0, 0, :, 0].isnan()
        at = there[is_known.cpu().numpy()]
        has_end = final[at] != trace.mask_token_id
        tokens = torch.from_numpy(final[at]).to(states.device)[:, None]
        for number in range(len(layers)):
            logits, *blanked = (model.head(copy[number, is_known]) for copy in states)
            if blanked:
                logits = guide(logits, blanked[0], cfg_scale)
            log_probs = suppress(logits, suppressed).double().log_softmax(-1)  # (L, V)
            best, own_log_prob = log_probs.max(-1), log_probs.gather(-1, tokens)
            lens.token_id[step, number, at] = best.indices.cpu()
            lens.probability[step, number, at] = best.values.exp().cpu()
            lens.entropy[step, number, at] = entropy(log_probs).cpu()
            rank = 1 + (log_probs > own_log_prob).sum(-1).cpu().numpy()
            lens.final_rank[step, number, at[has_end]] = rank[has_end]
            share = own_log_prob[:, 0].exp().cpu().numpy()
            lens.final_probability[step, number, at[has_end]] = share[has_end]
    return lens
