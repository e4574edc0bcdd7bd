"""Recorded attention from the tokens of an answer to the prompt's pictures, as NumPy arrays and without torch.

N commits, K maps (layers, or one rollout), P sequence indices that hold pictures, counted among themselves.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

ROLLOUT = "rollout"
_GRID_FIELDS = ("image", "start", "rows", "columns", "row_length", "box")


@dataclass(frozen=True)
class PatchGrid:
    """A grid of patches over a picture.

    Attributes:
        image: which picture of the prompt, from 0.
        start: index of the first patch, counted over all indices that hold pictures.
        rows, columns: patches.
        row_length: indices from one row to the next; more than `columns` where a newline vector ends a row.
        box: (left, top, right, bottom) of what the grid covers, in fractions of the picture's width and height;
            beyond 0..1 where padding is covered.
    """

    image: int
    start: int
    rows: int
    columns: int
    row_length: int
    box: tuple[float, float, float, float]

    @property
    def last(self) -> int:
        """The index behind the last patch."""
        return self.start + (self.rows - 1) * self.row_length + self.columns

    def indices(self) -> np.ndarray:
        """Return the index of every patch, int (rows, columns)."""
        return self.start + np.arange(self.rows)[:, None] * self.row_length + np.arange(self.columns)


@dataclass(frozen=True, eq=False)
class PatchAttention:
    """Attention from each commit's position, in the pass that committed it, to the pictures.

    Attributes:
        maps: what the K maps are: numbers of layers, or "rollout" alone.
        values: share of the position's attention that went to each index, float (N, K, P). A layer's map is the mean
            over its heads. Summed over them it is what the pictures got; text got the rest. NaN for commits in
            the prompt.
        grids: how the indices lie on the pictures.

    Raises:
        ValueError: for parts that do not fit together.
    """

    maps: tuple[int | str, ...]
    values: np.ndarray
    grids: tuple[PatchGrid, ...]

    def __post_init__(self) -> None:
        if self.values.dtype.kind != "f" or self.values.ndim != 3 or self.values.shape[1] != len(self.maps):
            raise ValueError(
                f"attention values of the shape {self.values.shape} and type {self.values.dtype} do not fit "
                f"the {len(self.maps)} maps; floats (N, K, P) do"
            )
        recorded = self.values.shape[2]
        # by numbers alone, since indices that are out of range may be too many to list
        for grid in self.grids:
            is_within = grid.start >= 0 and 0 <= grid.rows <= recorded and 0 <= grid.columns <= recorded
            is_within &= grid.columns <= grid.row_length
            if not is_within or (grid.rows and grid.columns and grid.last > recorded):
                raise ValueError(f"{grid} reaches beyond the {recorded} indices that are recorded")

    def mean(self, commits: np.ndarray, maps: Iterable[int | str] | None = None) -> np.ndarray:
        """Return the mean over commits and maps, (P,); NaN where no commit is given.

        Args:
            commits: their numbers, or a boolean mask (N,).
            maps: which of `maps`; all by default.

        Raises:
            ValueError: for a map that was not recorded.
        """
        wanted = self.maps if maps is None else tuple(maps)
        unknown = [name for name in wanted if name not in self.maps]
        if unknown or not wanted:
            raise ValueError(f"maps are {wanted!r}; recorded are {', '.join(map(repr, self.maps))}")
        chosen = self.values[commits][:, [self.maps.index(name) for name in wanted]].astype(np.float64)
        if not len(chosen):
            return np.full(self.values.shape[2], np.nan)
        return chosen.mean((0, 1))

    def to_meta(self) -> dict[str, Any]:
        """Return all but the values, as JSON holds it."""
        return {"maps": list(self.maps), "grids": [asdict(grid) for grid in self.grids]}

    @classmethod
    def from_meta(cls, meta: Any, values: np.ndarray) -> PatchAttention:
        """Read what `to_meta` wrote, and the values.

        Raises:
            ValueError: for anything else.
        """
        try:
            grids = tuple(_read_grid(grid) for grid in meta["grids"])
            return cls(tuple(meta["maps"]), values, grids)
        except (AttributeError, KeyError, OverflowError, TypeError) as error:
            raise ValueError(f"its attention is no table of maps and grids ({error})") from error


def _read_grid(grid: Mapping[str, Any]) -> PatchGrid:
    *numbers, box = (grid[name] for name in _GRID_FIELDS)
    left, top, right, bottom = map(float, box)
    return PatchGrid(*map(int, numbers), (left, top, right, bottom))
