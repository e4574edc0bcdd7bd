"""Keys and values that are kept from pass to pass, and which sequence indices each pass computes.

R rows, R' rows that take part in a pass, T sequence indices, Q of them computed, D head size.
"""

import numpy as np
import torch

from medv_lab.strategies.base import Cache


class KeyValueCache:
    """Keys and values of all layers over the whole sequence; attention layers call `update` as in transformers.

    Attributes:
        indices: which sequence indices the pass computes, int64 (R, Q); None for all, which replaces what was kept.
        span: (first, last) where these are first..last - 1 in every row, which are written without an index.
    """

    def __init__(self) -> None:
        """Start empty; the first pass must compute everything."""
        self.indices: torch.Tensor | None = None
        self.span: tuple[int, int] | None = None
        self._layers: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def update(
        self, keys: torch.Tensor, values: torch.Tensor, layer: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Put a layer's new keys and values (R, heads, Q, D) in their places; all (R, heads, T, D) come back."""
        if self.indices is None:
            self._layers[layer] = keys, values
            return keys, values
        if self.span is not None:
            for kept, new in zip(self._layers[layer], (keys, values), strict=True):
                kept[:, :, slice(*self.span)] = new
            return self._layers[layer]
        at = self.indices.to(keys.device)[:, None, :, None]  # layers may lie on several devices
        for kept, new in zip(self._layers[layer], (keys, values), strict=True):
            kept.scatter_(2, at.expand_as(new), new)
        return self._layers[layer]

    def repeated(self, count: int) -> "KeyValueCache":
        """Return a copy in which every row stands `count` times, side by side."""
        other = KeyValueCache()
        other.indices, other.span = self.indices.repeat_interleave(count, 0), self.span
        other._layers = {
            layer: tuple(part.repeat_interleave(count, 0) for part in pair)
            for layer, pair in self._layers.items()
        }
        return other

    def keep_rows(self, rows: torch.Tensor) -> None:
        """Drop all but these rows (R',)."""
        self._layers = {
            layer: (keys[rows.to(keys.device)], values[rows.to(values.device)])
            for layer, (keys, values) in self._layers.items()
        }


class CachePlan:
    """What each pass of a run computes, as the cache of the settings says."""

    def __init__(self, cache: Cache, is_image: np.ndarray, prompt: int, copies: int, device: torch.device):
        """Prepare a run.

        Args:
            cache: of the settings.
            is_image: sequence indices that hold images, bool (R, T).
            prompt: P, where the answer begins.
            copies: how often every row runs; 2 with guidance.
            device: where the model computes.
        """
        self.cache, self.is_image, self.copies, self.device = cache, is_image, copies, device
        self.prompt = prompt
        self.kept = KeyValueCache()
        self._rows = np.zeros(0, np.int64)  # those in the cache
        self._block, self._passes = (0, 0), 0
        self.is_repeating = (
            False  # true in passes that read nothing which another pass of the block has written
        )

    def start_block(self, first: int, last: int) -> None:
        """Prepare for a block at the sequence indices first..last - 1."""
        self._block, self._passes = (first, last), 0

    def next_pass(self, active: np.ndarray, needed: np.ndarray) -> np.ndarray:
        """Make the cache ready for the next pass, and return which sequence indices (R', Q) it computes.

        Rows that compute fewer than others repeat their last one, which changes nothing.

        Args:
            active: rows that take part, bool (R,); within a block they only become fewer.
            needed: what must be computed in any case, bool (R, T).
        """
        rows, is_full = np.flatnonzero(active), self.cache.is_full(self._passes)
        is_answer_full = self.cache.is_answer_full(self._passes)
        self._passes += 1
        self.is_repeating = False
        if is_full:
            self.kept.indices, self._rows = None, rows
            return np.tile(np.arange(needed.shape[1]), (len(rows), 1))
        if len(rows) < len(self._rows):
            local = np.flatnonzero(active[self._rows])
            every = np.concatenate([local + copy * len(self._rows) for copy in range(self.copies)])
            self.kept.keep_rows(torch.from_numpy(every).to(self.device))
            self._rows = rows
        always = self.cache.computed(self.is_image, *self._block)
        self.is_repeating = not (needed & ~always).any()
        if is_answer_full:
            always[:, self.prompt :], self.is_repeating = True, False
        indices = listed((needed | always)[rows])
        self.kept.indices = torch.from_numpy(indices).to(self.device).repeat(self.copies, 1)
        first, count = int(indices[0, 0]), indices.shape[1]
        is_span = bool((indices == np.arange(first, first + count)).all())
        self.kept.span = (first, first + count) if is_span else None
        return indices


def states_at(states: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
    """Return the states (R, T, H) at indices (R, Q) of their rows, (R, Q, H), copied row by row."""
    rows, length, _ = states.shape
    starts = torch.arange(0, rows * length, length, device=at.device)[:, None]
    return states.flatten(0, 1).index_select(0, (at + starts).flatten()).unflatten(0, at.shape)


def listed(chosen: np.ndarray) -> np.ndarray:
    """List the chosen indices of each row in order, bool (R, T) to int64 (R, Q); shorter rows repeat their last."""
    counts = chosen.sum(1)
    order = np.argsort(~chosen, axis=1, kind="stable")
    at = np.minimum(np.arange(counts.max()), counts[:, None] - 1)
    return np.take_along_axis(order, at, 1)
