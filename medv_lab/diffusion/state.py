"""The one state of a run (tokens, masks, ends of answers), and the record of each of its passes.

Integers and NumPy only, so that a step waits for the accelerator only where tokens are chosen.
R rows, P prompt, L answer positions, S suffix; a sequence index counts over P + L + S, a position over the answer.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


class SamplerState:
    """Answers of a batch in the making; nothing of one row depends on another.

    Attributes:
        prompt: P.
        length: L.
        masked: bool (R, P + L + S).
        given: answer tokens that were there before the first pass and never change, bool (R, L).
        first_stops: position at which each answer ends before the first pass, int64 (R,); L unless given tokens say so.
        ids: int64 (R, P + L + S), the mask id where masked; in the prompt only what stood or stands at masks is known.
        confidence: of each token when it was committed, float64 (R, L); NaN where none was.
        remasked: how often each position was masked again, int64 (R, L).
        stops: position at which each answer ends, int64 (R,); L if no stop is known.
        is_done: rows that are not filled any further, bool (R,).
    """

    def __init__(
        self,
        prompt_masked: np.ndarray,
        gen_length: int,
        suffix_ids: Sequence[int],
        mask_token_id: int,
        stop_ids: Sequence[Sequence[int]],
    ):
        """Start with every answer position masked, and with the masked indices (R, P) of the prompts."""
        rows, self.prompt = prompt_masked.shape
        self.length, self.mask_token_id = gen_length, mask_token_id
        self.given = np.zeros((rows, gen_length), bool)
        is_answer, is_suffix = np.ones((rows, gen_length), bool), np.zeros((rows, len(suffix_ids)), bool)
        self.masked = np.concatenate([prompt_masked, is_answer, is_suffix], axis=1)
        self.ids = np.full(self.masked.shape, mask_token_id, np.int64)
        self.ids[:, self.prompt + gen_length :] = suffix_ids
        self.confidence = np.full((rows, gen_length), np.nan)
        self.remasked = np.zeros((rows, gen_length), np.int64)
        self.stops = np.full(rows, gen_length, np.int64)
        self.first_stops = self.stops
        self._least_stops = np.zeros(rows, np.int64)  # no answer ends before what it was given
        self.is_done = np.zeros(rows, bool)
        self._stop_ids = [np.array(stop, np.int64) for stop in stop_ids]
        self._has_stop = np.zeros(rows, bool)
        self._stop_sizes = np.zeros(rows, np.int64)

    @property
    def answer(self) -> np.ndarray:
        """Answer ids, int64 (R, L), the mask id where masked."""
        return self.ids[:, self.prompt : self.prompt + self.length]

    @property
    def answer_masked(self) -> np.ndarray:
        """Masked answer positions, bool (R, L)."""
        return self.masked[:, self.prompt : self.prompt + self.length]

    def waiting_in(self, first: int, last: int) -> np.ndarray:
        """Return the rows, bool (R,), that are not done and have a mask among the positions first..last - 1."""
        return ~self.is_done & self.answer_masked[:, first:last].any(1)

    def candidates(self, active: np.ndarray, last: int) -> tuple[np.ndarray, np.ndarray]:
        """Return rows and positions (N,), row by row and in order, that may be filled in the `active` rows (R,).

        They are masked, before position `last` (the end of the block), and before the row's stop. Masks left in
        earlier blocks and in the prompt, at negative positions, are among them.
        """
        positions = np.arange(self.masked.shape[1]) - self.prompt
        rows, at = np.nonzero(
            self.masked & active[:, None] & (positions < last) & (positions < self.stops[:, None])
        )
        return rows, at - self.prompt

    def committed(
        self, active: np.ndarray, first: int, last: int, *, with_stop: bool = True
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return rows and positions (M,), row by row and in order, that may be masked again in the `active` rows (R,).

        They are positions among first..last - 1 that were filled, not given, and none behind the row's stop; or none at
        the stop either.
        """
        positions = np.arange(self.length)
        inside = (first <= positions) & (positions < last) & (positions < self.stops[:, None] + with_stop)
        return np.nonzero(~self.answer_masked & ~self.given & active[:, None] & inside)

    def to_fill(self, first: int, last: int) -> np.ndarray:
        """Count the masks among the positions first..last - 1, int (R,), none behind an end that was given."""
        positions = np.arange(self.length)
        inside = (first <= positions) & (positions < last) & (positions < self.first_stops[:, None])
        return (self.answer_masked & inside).sum(1)

    def commit(
        self, rows: np.ndarray, positions: np.ndarray, tokens: np.ndarray, confidence: np.ndarray
    ) -> None:
        """Write tokens (N,) with their confidence (N,); a predicted mask id leaves its position masked."""
        self.ids[rows, positions + self.prompt] = tokens
        self.masked[rows, positions + self.prompt] = tokens == self.mask_token_id
        is_answer = positions >= 0
        self.confidence[rows[is_answer], positions[is_answer]] = confidence[is_answer]

    def start(self, answers: np.ndarray) -> None:
        """Take what answers (R, L) hold besides masks as given, and see where they end.

        A stop that stands in the given tokens ends the answer. Otherwise no answer ends before the last of them.

        Raises:
            ValueError: for another shape.
        """
        if answers.shape != self.answer.shape:
            raise ValueError(f"the answers to start from are {answers.shape}, should be {self.answer.shape}")
        self.answer[:] = answers
        self.answer_masked[:] = answers == self.mask_token_id
        self.given = ~self.answer_masked
        self.find_stops(np.ones(len(answers), bool))
        self.first_stops = self.stops
        is_in_answer = self.given & (np.arange(self.length) < self.stops[:, None])
        self._least_stops = np.where(is_in_answer, np.arange(1, self.length + 1), 0).max(1)

    def remask(self, rows: np.ndarray, positions: np.ndarray) -> None:
        """Mask positions (M,) again; a stop that loses a token is forgotten, and no other replaces it yet."""
        if not len(rows):
            return
        self.ids[rows, positions + self.prompt] = self.mask_token_id
        self.masked[rows, positions + self.prompt] = True
        self.remasked[rows, positions] += 1
        is_broken = (self.stops[rows] <= positions) & (positions < (self.stops + self._stop_sizes)[rows])
        lost = np.isin(np.arange(len(self.stops)), rows[is_broken])
        self.stops = np.where(lost, self.length, self.stops)
        self._has_stop &= ~lost

    def grow(self, position: int, count: int) -> None:
        """Put `count` masks before a position of every row; only while no stop is known."""
        at = [self.prompt + position] * count
        self.ids = np.insert(self.ids, at, self.mask_token_id, axis=1)
        self.masked = np.insert(self.masked, at, True, axis=1)
        self.confidence = np.insert(self.confidence, [position] * count, np.nan, axis=1)
        self.remasked = np.insert(self.remasked, [position] * count, 0, axis=1)
        self.given = np.insert(self.given, [position] * count, False, axis=1)
        self._least_stops = self._least_stops + count * (position < self._least_stops)
        self.length += count
        self.stops = self.first_stops = np.full_like(self.stops, self.length)

    def find_stops(self, active: np.ndarray) -> None:
        """Look for the stop sequences in the `active` rows (R,).

        Once a row has a stop, only the first sequence of the list can move it, and only to an earlier position. A row
        is done when it has a stop and nothing before it is masked.
        """
        for number, stop in enumerate(self._stop_ids):
            found_at = _first_match(self.answer, stop, self._least_stops)
            found = active & (found_at < self.length)
            if number:
                found &= ~self._has_stop
            self.stops = np.where(found, np.minimum(found_at, self.stops), self.stops)
            self._stop_sizes[found] = len(stop)
            self._has_stop |= found
        before_stop = np.arange(self.length) < self.stops[:, None]
        self.is_done |= self._has_stop & ~(self.answer_masked & before_stop).any(1)


@dataclass(frozen=True, eq=False)
class StepRecord:
    """One forward pass. Positions count from the first answer position; negative ones lie in the prompt.

    Attributes:
        block, step: which block, and which pass within it.
        num_transfer: number of tokens to transfer in each row, int (R,); a paced strategy commits at most this many.
        active: rows that take part in this pass, bool (R,); the others are done or wait for the next block.
        rows, positions, tokens, confidence, entropy: one entry per commit, (C,).
        alternative_ids, alternative_probs: the K most probable tokens at each commit, (C, K).
        remasked_rows, remasked_positions: what was masked again, (M,). A position that is also among the commits had
            its token replaced: the old one went before the new one came.
        candidate_rows, candidate_positions, candidate_tokens, candidate_confidence: all that could be
            filled in this pass, (N,).
        canvas: answer ids after the pass, int64 (R, L), the mask id where masked.
        stops: where the answer ends so far (R,), L if no stop was found.
        grown: (position, count) of the masks that were put before a position after the pass; the canvas has them.
        sequences: how many the model ran: one for each active row by default; with lookahead also later states that
            were guessed, and none where an earlier pass had guessed this one.
        hidden: states of the recorded layers at the answer positions, each after the final norm, a tensor (1, R', K,
            L, H) of the R' active rows in the model's dtype, (2, R', K, L, H) with guidance, the blanked prompt second;
            NaN at positions that were not computed. None unless it was asked for.
    """

    block: int
    step: int
    num_transfer: np.ndarray
    active: np.ndarray
    rows: np.ndarray
    positions: np.ndarray
    tokens: np.ndarray
    confidence: np.ndarray
    entropy: np.ndarray
    alternative_ids: np.ndarray
    alternative_probs: np.ndarray
    remasked_rows: np.ndarray
    remasked_positions: np.ndarray
    candidate_rows: np.ndarray
    candidate_positions: np.ndarray
    candidate_tokens: np.ndarray
    candidate_confidence: np.ndarray
    canvas: np.ndarray
    stops: np.ndarray
    grown: tuple[tuple[int, int], ...] = ()
    sequences: int = 1
    hidden: Any = None


def find_first_stops(
    answers: np.ndarray, mask_token_id: int, stop_ids: Sequence[Sequence[int]]
) -> np.ndarray:
    """Return where answers (R, L) to start from end by what they were given, int64 (R,); L where they do not."""
    prompts = np.zeros((len(answers), 0), bool)
    state = SamplerState(prompts, answers.shape[1], (), mask_token_id, stop_ids)
    state.start(answers)
    return state.first_stops


def _first_match(ids: np.ndarray, stop: np.ndarray, least: np.ndarray) -> np.ndarray:
    """Return the first position (R,), `least` (R,) or later, at which `stop` stands in ids (R, L), L if nowhere.

    An empty stop stands everywhere.
    """
    length = ids.shape[1]
    if len(stop) > length:
        return np.full(len(ids), length, np.int64)
    if not len(stop):
        return least
    starts = length - len(stop) + 1
    hit = np.arange(starts) >= least[:, None]
    for offset, token in enumerate(stop.tolist()):
        hit &= ids[:, offset : offset + starts] == token
    return np.where(hit.any(1), hit.argmax(1), length)
