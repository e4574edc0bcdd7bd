"""Keys and values that are kept from pass to pass, so that a pass computes only some places.

With every position seeing every other, each commit changes all keys and values; what is kept is out of date, so every
cache but `none` is an approximation: `is_exact` says which settings give the exact run. Kinds, by what a pass computes:

- none: everything. Exact.
- prefix: the active block and all behind it; prompt and finished blocks are kept (Fast-dLLM, arXiv 2505.22618).
- dual: the active block; all before and behind it is kept (the same, DualCache).
- image: everything but the places of images, which are most of a prompt.

The first pass of a block computes everything (block-wise refresh), and so does every `cache_refresh`-th pass after it.
Masked places that may be filled are always computed, wherever they are. R rows, T places, Q computed places.
"""

import numpy as np
import torch

from medv_lab.config import GenerationSettings


def is_exact(settings: GenerationSettings) -> bool:
    """Whether nothing that is out of date is ever read."""
    return settings.cache == "none" or settings.cache_refresh == 1


class KeyValueCache:
    """Keys and values of all layers over all places; attention layers call `update` as they do of transformers' caches.

    Attributes:
        places: which places the pass computes, int64 (R, Q); None for all, which replaces what was kept.
    """

    def __init__(self) -> None:
        """Start empty; the first pass must compute all places."""
        self.places: torch.Tensor | None = None
        self._layers: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def update(
        self, keys: torch.Tensor, values: torch.Tensor, layer: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Put a layer's new keys and values (R, heads, Q, D) in their places; all (R, heads, T, D) come back."""
        if self.places is None:
            self._layers[layer] = keys, values
            return keys, values
        at = self.places[:, None, :, None]
        for kept, new in zip(self._layers[layer], (keys, values), strict=True):
            kept.scatter_(2, at.expand_as(new), new)
        return self._layers[layer]

    def keep_rows(self, rows: torch.Tensor) -> None:
        """Drop all but these rows (R',)."""
        self._layers = {layer: (keys[rows], values[rows]) for layer, (keys, values) in self._layers.items()}


class Reuse:
    """Which places each pass computes, by the cache of the settings; R rows of the run, R' that take part in a pass."""

    def __init__(self, settings: GenerationSettings, reusable: np.ndarray, device: torch.device):
        """Take which places hold images, bool (R, T), and where the model computes."""
        self.settings, self.reusable, self.device = settings, reusable, device
        self.store = KeyValueCache()
        self._rows = np.zeros(0, np.int64)  # those in the store
        self._block, self._age = slice(0, 0), 0

    def start_block(self, first: int, last: int) -> None:
        """The places first..last - 1 are filled next."""
        self._block, self._age = slice(first, last), 0

    def plan(self, active: np.ndarray, needed: np.ndarray) -> np.ndarray:
        """Make the store ready for the next pass; which places (R', Q) it computes.

        Rows that compute fewer places than others repeat their last one, which changes nothing.

        Args:
            active: rows that take part, bool (R,); within a block they only become fewer.
            needed: what must be computed in any case, bool (R, T).
        """
        rows, refresh = np.flatnonzero(active), self.settings.cache_refresh
        is_full = self._age == 0 or (refresh is not None and self._age % refresh == 0)
        self._age += 1
        if is_full:
            self.store.places, self._rows = None, rows
            return np.tile(np.arange(needed.shape[1]), (len(rows), 1))
        if len(rows) < len(self._rows):
            self.store.keep_rows(self._for_all_copies(np.flatnonzero(active[self._rows])))
            self._rows = rows
        places = listed((needed | self._region())[rows])
        self.store.places = torch.from_numpy(places).to(self.device).repeat(self._copies, 1)
        return places

    @property
    def _copies(self) -> int:
        return 2 if self.settings.cfg_scale > 0 else 1  # guidance runs every row twice

    def _for_all_copies(self, local: np.ndarray) -> torch.Tensor:
        both = np.concatenate([local + copy * len(self._rows) for copy in range(self._copies)])
        return torch.from_numpy(both).to(self.device)

    def _region(self) -> np.ndarray:
        """Places, bool (R, T), that a pass between two full ones computes."""
        if self.settings.cache == "image":
            return ~self.reusable
        region = np.zeros_like(self.reusable)
        region[:, self._block.start : self._block.stop if self.settings.cache == "dual" else None] = True
        return region


def listed(chosen: np.ndarray) -> np.ndarray:
    """The chosen places of each row in order, bool (R, T) to int64 (R, Q); the last is repeated in shorter rows."""
    counts = chosen.sum(1)
    order = np.argsort(~chosen, axis=1, kind="stable")
    at = np.minimum(np.arange(counts.max()), counts[:, None] - 1)
    return np.take_along_axis(order, at, 1)
