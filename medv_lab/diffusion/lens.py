"""The logit lens over layers and passes: what each layer would say at each answer position, without torch.

A layer's hidden states go through the model's own final norm and output layer, as if it were the last (nostalgebraist,
"interpreting GPT: the logit lens", 2020). F forward passes, K layers, L answer positions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

LENS_ARRAYS = {
    "token_id": np.int32,
    "probability": np.float32,
    "entropy": np.float32,
    "final_rank": np.int32,
    "final_probability": np.float32,
}


@dataclass(frozen=True, eq=False)
class LogitLens:
    """What layers say, read as the sampler reads the last one: guided, and without suppressed tokens.

    All arrays are (F, K, L). Positions that a pass did not compute (with a cache, or before they came to be) have the
    token -1, rank 0 and NaN; so has everything about the final token where the answer stayed masked.

    Attributes:
        layers: numbers of the K layers, from 0.
        token_id, probability: the most probable token, and its probability.
        entropy: of the distribution, nats.
        final_rank, final_probability: of the token that stands there in the end; rank 1 is the most probable.

    Raises:
        ValueError: for parts that do not fit together.
    """

    layers: tuple[int, ...]
    token_id: np.ndarray
    probability: np.ndarray
    entropy: np.ndarray
    final_rank: np.ndarray
    final_probability: np.ndarray

    def __post_init__(self) -> None:
        for name, kind in LENS_ARRAYS.items():
            array = getattr(self, name)
            is_fit = array.ndim == 3 and array.shape[1] == len(self.layers)
            if not is_fit or array.shape != self.token_id.shape or array.dtype != kind:
                raise ValueError(
                    f"{name} of a lens has the shape {array.shape} and type {array.dtype}; {np.dtype(kind)} of "
                    f"(F, {len(self.layers)}, L) fits, the same for all"
                )

    @classmethod
    def empty(cls, layers: tuple[int, ...], passes: int, length: int) -> LogitLens:
        """Return a lens that knows nothing yet."""
        unknown = {np.float32: np.nan, np.int32: 0}
        arrays = {
            name: np.full((passes, len(layers), length), -1 if name == "token_id" else unknown[kind], kind)
            for name, kind in LENS_ARRAYS.items()
        }
        return cls(layers, **arrays)

    @classmethod
    def from_meta(cls, layers: Any, arrays: dict[str, np.ndarray]) -> LogitLens:
        """Read a lens from the layers that JSON held and its arrays.

        Raises:
            ValueError: for anything else.
        """
        if not isinstance(layers, list) or not all(type(number) is int for number in layers):
            raise ValueError(f"its lens has the layers {layers!r}; they must be whole numbers")
        return cls(tuple(layers), **arrays)
