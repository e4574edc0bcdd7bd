"""A strategy that edits: a committed token is replaced at once, without becoming a mask in between.

R rows, N candidates, M committed tokens of the active block.
"""

from dataclasses import dataclass

import numpy as np

from medv_lab.strategies.base import Candidates, Committed, Decision, Guard, Strategy, best_per_row, parameter


@dataclass(frozen=True)
class EditTokens(Strategy):
    """Commits all above a threshold, and replaces each committed token where another is predicted above a second one.

    What is predicted at a committed token sees that token. Once a block is full it is edited on, until a pass changes
    nothing or `post_passes` were made. Nothing at or behind the end of an answer is replaced, once it is found. Source:
    LLaDA2.1 (arXiv 2602.08676), mask-to-token and token-to-token editing; the defaults are its quality mode, 0.5 and
    0.0 its speed mode. Those models were trained to edit. A model that was trained on masks only has learned nothing
    about what it predicts at tokens, so that the speed mode asks for trouble.
    """

    name = "edit"
    is_adaptive = True
    is_revising = True
    edits = True
    threshold: float = parameter(0.7, 0, 1)
    edit_threshold: float = parameter(0.5, 0, 1)
    post_passes: int = parameter(16, 0, 2**31)

    def decide(self, seen: Candidates, committed: Committed, guard: Guard) -> Decision:
        """Fill masks, and replace tokens."""
        count = seen.count(seen.rows[seen.confidence > self.threshold])
        commit = best_per_row(seen.confidence, seen.rows, np.maximum(count, seen.num_transfer))
        is_other = committed.predicted != committed.tokens
        replace = np.flatnonzero(is_other & (committed.predicted_confidence > self.edit_threshold))
        return Decision(commit, replace=replace)
