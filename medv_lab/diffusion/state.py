"""The one state of a run (tokens, masks, ends of answers), and the record of each of its passes.

Integers and NumPy only, so that a step waits for the accelerator only where tokens are chosen.
R rows, P prompt, L answer positions, S suffix; a sequence index counts over P + L + S, a position over the answer.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


class SamplerState:
    """Answers of a batch in the making; nothing of one row depends on another.

    Attributes:
        prompt: P.
        length: L.
        masked: bool (R, P + L + S).
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
        is_answer, is_suffix = np.ones((rows, gen_length), bool), np.zeros((rows, len(suffix_ids)), bool)
        self.masked = np.concatenate([prompt_masked, is_answer, is_suffix], axis=1)
        self.ids = np.full(self.masked.shape, mask_token_id, np.int64)
        self.ids[:, self.prompt + gen_length :] = suffix_ids
        self.confidence = np.full((rows, gen_length), np.nan)
        self.remasked = np.zeros((rows, gen_length), np.int64)
        self.stops = np.full(rows, gen_length, np.int64)
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

    def committed(self, active: np.ndarray, first: int, last: int) -> tuple[np.ndarray, np.ndarray]:
        """Return rows and positions (M,), row by row and in order, that may be masked again in the `active` rows (R,).

        They are filled positions among first..last - 1, and none behind the row's stop.
        """
        positions = np.arange(self.length)
        inside = (first <= positions) & (positions < last) & (positions <= self.stops[:, None])
        return np.nonzero(~self.answer_masked & active[:, None] & inside)

    def commit(
        self, rows: np.ndarray, positions: np.ndarray, tokens: np.ndarray, confidence: np.ndarray
    ) -> None:
        """Write tokens (N,) with their confidence (N,); a predicted mask id leaves its position masked."""
        self.ids[rows, positions + self.prompt] = tokens
        self.masked[rows, positions + self.prompt] = tokens == self.mask_token_id
        is_answer = positions >= 0
        self.confidence[rows[is_answer], positions[is_answer]] = confidence[is_answer]

    def start(self, answers: np.ndarray) -> None:
        """Commit what answers (R, L) hold besides masks.

        Raises:
            ValueError: for another shape.
        """
        if answers.shape != self.answer.shape:
            raise ValueError(f"the answers to start from are {answers.shape}, should be {self.answer.shape}")
        rows, positions = np.nonzero(answers != self.mask_token_id)
        self.commit(rows, positions, answers[rows, positions], np.ones(len(rows)))

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
        self.length += count
        self.stops = np.full_like(self.stops, self.length)

    def find_stops(self, active: np.ndarray) -> None:
        """Look for the stop sequences in the `active` rows (R,).

        Once a row has a stop, only the first sequence of the list can move it, and only to an earlier position. A row
        is done when it has a stop and nothing before it is masked.
        """
        for number, stop in enumerate(self._stop_ids):
            found_at = _first_match(self.answer, stop)
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
        remasked_rows, remasked_positions: what was masked again, (M,); never a position that was committed just now.
        candidate_rows, candidate_positions, candidate_tokens, candidate_confidence: all that could be
            filled in this pass, (N,).
        canvas: answer ids after the pass, int64 (R, L), the mask id where masked.
        stops: where the answer ends so far (R,), L if no stop was found.
        grown: (position, count) of the masks that were put before a position after the pass; the canvas has them.
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


def _first_match(ids: np.ndarray, stop: np.ndarray) -> np.ndarray:
    """Return the first position (R,) at which `stop` stands in ids (R, L), L if nowhere; an empty stop is at 0."""
    rows, length = ids.shape
    if not len(stop):
        return np.zeros(rows, np.int64)
    if len(stop) > length:
        return np.full(rows, length, np.int64)
    starts = length - len(stop) + 1
    hit = np.ones((rows, starts), bool)
    for offset, token in enumerate(stop.tolist()):
        hit &= ids[:, offset : offset + starts] == token
    return np.where(hit.any(1), hit.argmax(1), length)
