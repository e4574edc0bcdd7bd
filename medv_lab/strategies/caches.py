"""Caches: which positions a pass computes, and whose keys and values are kept from earlier passes.

With every position seeing every other, each commit changes all keys and values; what is kept is out of date, so every
cache is an approximation unless it computes everything (`is_exact`). The first pass of a block computes everything
(block-wise refresh), and so does every `refresh`-th pass after it. Masked positions that may be filled are always
computed, wherever they are.

d2Cache (arXiv 2509.23094) is not here: it chooses positions by attention rollout, so that every pass must hand out its
attention maps, which fused attention does not make; eager attention, which does, costs more than a cache saves here.
"""

from dataclasses import dataclass

import numpy as np

from medv_lab.strategies.base import Cache, check_number, parameter


@dataclass(frozen=True)
class NoCache(Cache):
    """Keeps nothing: every pass computes everything. Exact."""

    name = "none"

    @property
    def is_exact(self) -> bool:
        """True."""
        return True


@dataclass(frozen=True)
class RefreshedCache(Cache):
    """A cache that computes everything in the first pass of a block, and every `refresh`-th pass after it.

    Attributes:
        refresh: None for the first pass only.
    """

    refresh: int | None = None

    def __post_init__(self) -> None:
        if self.refresh is not None:
            check_number("refresh", self.refresh, int, 1)

    @property
    def is_exact(self) -> bool:
        """True if everything is computed in every pass."""
        return self.refresh == 1

    def is_full(self, passes: int) -> bool:
        """Return whether a refresh is due."""
        return passes == 0 or (self.refresh is not None and passes % self.refresh == 0)


@dataclass(frozen=True)
class PrefixCache(RefreshedCache):
    """Computes the active block and all behind it; all before is kept (Fast-dLLM, arXiv 2505.22618)."""

    name = "prefix"

    def computed(self, is_image: np.ndarray, first: int, last: int) -> np.ndarray:
        """Return the indices from the block on."""
        return _span(is_image, first, None)


@dataclass(frozen=True)
class DualCache(RefreshedCache):
    """Computes the active block; all before and behind it is kept (Fast-dLLM, arXiv 2505.22618, DualCache)."""

    name = "dual"

    def computed(self, is_image: np.ndarray, first: int, last: int) -> np.ndarray:
        """Return the indices of the block."""
        return _span(is_image, first, last)


@dataclass(frozen=True)
class ImageCache(RefreshedCache):
    """Computes everything but the images, which are most of a prompt."""

    name = "image"
    reads_images = True

    def computed(self, is_image: np.ndarray, first: int, last: int) -> np.ndarray:
        """Return the indices that hold no image."""
        return ~is_image


@dataclass(frozen=True)
class IntervalCache(RefreshedCache):
    """Computes the active block, every `answer_refresh`-th pass the answer, every `refresh`-th everything.

    Source: dLLM-Cache (arXiv 2506.06295), its two intervals, counted here from the first pass of each block, which
    computes everything. Between them the paper computes the quarter of the answer's tokens whose values moved most,
    found in every layer anew, and keeps the outputs of attention and MLP of all others; here that part is the block:
    its masks must be computed in any case, since they are read, and its tokens are those that just moved.
    """

    name = "interval"
    refresh: int | None = 25
    answer_refresh: int = parameter(4, 1, 2**31)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("answer_refresh", self.answer_refresh, int, 1)

    def is_answer_full(self, passes: int) -> bool:
        """Return whether a refresh of the answer is due."""
        return passes % self.answer_refresh == 0

    def computed(self, is_image: np.ndarray, first: int, last: int) -> np.ndarray:
        """Return the indices of the block."""
        return _span(is_image, first, last)


def _span(is_image: np.ndarray, first: int, last: int | None) -> np.ndarray:
    chosen = np.zeros_like(is_image)
    chosen[:, first:last] = True
    return chosen
