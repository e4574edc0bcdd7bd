"""The bookkeeping of a run: which places are masked, which tokens were committed, where each answer ends.

It lives in NumPy on the host, so that a step waits for the accelerator only where tokens are chosen.
R rows, P prompt places, L answer places, S suffix places; places count from 0 over P + L + S.
"""

from collections.abc import Sequence

import numpy as np


class Canvas:
    """Answers of a batch in the making; nothing of one row depends on another.

    Attributes:
        prompt: P.
        length: L.
        masked: bool (R, P + L + S).
        ids: answer ids, int64 (R, L), the mask id where masked.
        stops: where each answer ends, counted from the first answer place, int64 (R,); L if no stop is known.
        is_done: rows that are not filled any further, bool (R,).
    """

    def __init__(
        self,
        prompt_masked: np.ndarray,
        gen_length: int,
        suffix_length: int,
        mask_token_id: int,
        stop_ids: Sequence[Sequence[int]],
    ):
        """Start with every answer place masked, and with the masked places (R, P) of the prompts."""
        rows, self.prompt = prompt_masked.shape
        self.length, self.mask_token_id = gen_length, mask_token_id
        answer, suffix = np.ones((rows, gen_length), bool), np.zeros((rows, suffix_length), bool)
        self.masked = np.concatenate([prompt_masked, answer, suffix], axis=1)
        self.ids = np.full((rows, gen_length), mask_token_id, np.int64)
        self.stops = np.full(rows, gen_length, np.int64)
        self.is_done = np.zeros(rows, bool)
        self._stop_ids = [np.array(stop, np.int64) for stop in stop_ids]
        self._has_stop = np.zeros(rows, bool)
        self._stop_sizes = np.zeros(rows, np.int64)

    def waiting_in(self, first: int, last: int) -> np.ndarray:
        """Rows, bool (R,), that are not done and have a masked place among the answer places first..last - 1."""
        return ~self.is_done & self._answer_masked()[:, first:last].any(1)

    def candidates(self, active: np.ndarray, last: int) -> tuple[np.ndarray, np.ndarray]:
        """Rows and places (N,), row by row and in order, that may be chosen in the `active` rows (R,).

        They are masked, before answer place `last` (the end of the block), and before the row's stop. Masks left
        in earlier blocks and in the prompt are among them.
        """
        places = np.arange(self.masked.shape[1]) - self.prompt
        return np.nonzero(self.masked & active[:, None] & (places < last) & (places < self.stops[:, None]))

    def committed(self, active: np.ndarray, first: int, last: int) -> tuple[np.ndarray, np.ndarray]:
        """Rows and places (M,), row by row and in order, that may be revoked in the `active` rows (R,).

        They are answer places first..last - 1 that are filled, and none behind the row's stop.
        """
        places = np.arange(self.masked.shape[1]) - self.prompt
        inside = (first <= places) & (places < last) & (places <= self.stops[:, None])
        return np.nonzero(~self.masked & active[:, None] & inside)

    def commit(self, rows: np.ndarray, places: np.ndarray, tokens: np.ndarray) -> None:
        """Write tokens (N,); a predicted mask id leaves its place masked."""
        self.masked[rows, places] = tokens == self.mask_token_id
        is_answer = (places >= self.prompt) & (places < self.prompt + self.length)
        self.ids[rows[is_answer], places[is_answer] - self.prompt] = tokens[is_answer]

    def revoke(self, rows: np.ndarray, places: np.ndarray) -> None:
        """Mask answer places (N,) again; a stop that loses a token is forgotten, and no other takes its place yet."""
        positions = places - self.prompt
        self.masked[rows, places] = True
        self.ids[rows, positions] = self.mask_token_id
        broken = (self.stops[rows] <= positions) & (positions < (self.stops + self._stop_sizes)[rows])
        lost = np.isin(np.arange(len(self.stops)), rows[broken])
        self.stops = np.where(lost, self.length, self.stops)
        self._has_stop &= ~lost

    def grow(self, position: int, count: int) -> None:
        """Put `count` masks before answer place `position` of every row; only while no stop is known."""
        self.masked = np.insert(self.masked, [self.prompt + position] * count, True, axis=1)
        self.ids = np.insert(self.ids, [position] * count, self.mask_token_id, axis=1)
        self.length += count
        self.stops = np.full_like(self.stops, self.length)

    def find_stops(self, active: np.ndarray) -> None:
        """Look for the stop sequences in the `active` rows (R,).

        Once a row has a stop, only the first sequence of the list can move it, and only to an earlier place. A row
        is done when it has a stop and nothing before it is masked.
        """
        for number, stop in enumerate(self._stop_ids):
            found_at = _first_match(self.ids, stop)
            found = active & (found_at < self.length)
            if number:
                found &= ~self._has_stop
            self.stops = np.where(found, np.minimum(found_at, self.stops), self.stops)
            self._stop_sizes[found] = len(stop)
            self._has_stop |= found
        before_stop = np.arange(self.length) < self.stops[:, None]
        self.is_done |= self._has_stop & ~(self._answer_masked() & before_stop).any(1)

    def _answer_masked(self) -> np.ndarray:
        return self.masked[:, self.prompt : self.prompt + self.length]


def _first_match(ids: np.ndarray, stop: np.ndarray) -> np.ndarray:
    """First place (R,) at which `stop` stands in each row of ids (R, L), L if nowhere; an empty stop is at 0."""
    rows, length = ids.shape
    if not len(stop):
        return np.zeros(rows, np.int64)
    if len(stop) > length:
        return np.full(rows, length, np.int64)
    windows = np.lib.stride_tricks.sliding_window_view(ids, len(stop), axis=1)  # (R, L - n + 1, n)
    hit = (windows == stop).all(-1)
    return np.where(hit.any(1), hit.argmax(1), length)
