"""Passes made ahead: states that a run may come to are guessed, and run in one batch with the state where it is.

A pass of few positions waits for the weights to be read, so that several states can cost little more than one. They
are guessed from the last pass: the tokens that it was most sure of are put in, some at a time. When the run comes to a
state that was guessed, what the model says of it is there already, and no pass is made. What the run does is decided by
the strategy alone, from predictions of the very states that it comes to: it commits what it commits without guesses, up
to the rounding of a batch.

Source: self-speculative decoding of diffusion models, with a chain of guesses (arXiv 2510.04147; 2509.18085 drafts
likewise). One prompt. N candidates, Q query indices, G guesses, H hidden size.
"""

from collections.abc import Sequence

import numpy as np
import torch

from medv_lab.diffusion.state import SamplerState

Guess = tuple[np.ndarray, np.ndarray]  # sequence indices and the tokens there


class Lookahead:
    """Guesses the next states of one run, and keeps what the last pass found out about them.

    Attributes:
        row: where the present state stands in the batch that was run last, 0 unless it was guessed.
    """

    def __init__(self, state: SamplerState):
        """Watch the state of a run of one prompt."""
        self.state, self.row = state, 0
        self._draft: Guess = np.zeros(0, np.int64), np.zeros(0, np.int64)  # the surest first
        self.forget()

    def forget(self) -> None:
        """Drop all states: what is kept of other positions has changed."""
        self._rows: dict[bytes, int] = {}
        self._queries, self._hidden = np.zeros(0, np.int64), ()

    def draft(self, indices: np.ndarray, tokens: np.ndarray, confidence: np.ndarray) -> None:
        """Take what the present state's pass predicts at sequence indices (N,), to guess from."""
        order = np.argsort(-confidence, kind="stable")
        order = order[
            tokens[order] != self.state.mask_token_id
        ]  # a mask that becomes a mask is no other state
        self._draft = indices[order], tokens[order]

    def guess(self, indices: np.ndarray, counts: Sequence[int]) -> list[Guess]:
        """Guess what will stand at the masks among indices (N,) after passes that commit so many tokens.

        Each guess has all that the one before has. A state in which nothing is left to fill is not guessed.
        """
        at, tokens = self._draft
        is_open = np.isin(at, indices) & self.state.masked[0, at]
        at, tokens = at[is_open], tokens[is_open]
        ends = np.cumsum(counts, dtype=np.int64)
        return [(at[:end], tokens[:end]) for end in ends[ends < len(at)]]

    def keep(
        self, guesses: Sequence[Guess], queries: np.ndarray, hidden: tuple[torch.Tensor, ...]
    ) -> tuple[torch.Tensor, ...]:
        """Keep hidden states (1 + G, Q, H) at the queries, and return those of the present state, (1, Q, H).

        Args:
            guesses: the states behind the present one.
            queries: sequence indices (Q,).
            hidden: one, or two with guidance.
        """
        self._rows, self._queries, self._hidden = {}, queries, hidden
        for row, (at, tokens) in enumerate(guesses, 1):
            ids = self.state.ids[0].copy()
            ids[at] = tokens
            self._rows[ids.tobytes()] = row
        return tuple(part[:1] for part in hidden)

    def recall(self, queries: np.ndarray) -> tuple[torch.Tensor, ...] | None:
        """Return hidden states (1, Q, H) of the present state at the queries, None where it was not guessed."""
        row, self.row = self._rows.get(self.state.ids[0].tobytes()), 0
        if row is None or not np.isin(queries, self._queries).all():
            return None
        self.row = row
        at = torch.from_numpy(np.searchsorted(self._queries, queries)).to(self._hidden[0].device)
        return tuple(part[row : row + 1, at] for part in self._hidden)
