"""Weights in their files, read one by one when transformers asks for them, and looked at while they are read."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch

from medv_lab.model.checkpoint_files import DTYPES, StoredTensor

STORED_DTYPES = dict(zip(DTYPES, (torch.float64, torch.float32, torch.bfloat16, torch.float16), strict=True))
PART = 4_000_000  # numbers of a tensor that are read at a time


@dataclass(frozen=True)
class Weight:
    """The first rows of a tensor in a file, of which nothing is read until transformers asks for it.

    It is then read in parts into the dtype that is wanted, so that no second copy is ever whole. It is not mapped into
    memory: a mapped weight of the same dtype would change with the file.

    Attributes:
        stored: where it is.
        rows: how many are read.
        dtype: that is wanted.
        broken: receives its key if it holds a number that is not finite in that dtype; no answer may show it.
    """

    stored: StoredTensor
    rows: int
    dtype: torch.dtype
    broken: list[str]

    def __getitem__(self, index: Any) -> torch.Tensor:
        weight = torch.empty((self.rows, *self.stored.shape[1:]), dtype=self.dtype)
        dtype = STORED_DTYPES[self.stored.dtype]
        with self.stored.file.open("rb") as stream:
            stream.seek(self.stored.offset)
            for part in weight.view(-1).split(PART):
                content = bytearray(stream.read(part.numel() * dtype.itemsize))
                part.copy_(torch.frombuffer(content, dtype=dtype))
                if not is_finite(part):  # while it is in the processor's cache
                    self.broken.append(self.stored.key)
        return weight[index]


def is_finite(tensor: torch.Tensor) -> bool:
    """Return False for a tensor of floating point that holds NaN or infinity; True for what is kept in other forms."""
    is_plain = type(tensor) in (torch.Tensor, torch.nn.Parameter) and tensor.is_floating_point()
    if not is_plain or tensor.is_meta or not tensor.numel():
        return True
    return all(math.isfinite(end) for end in map(float, tensor.aminmax()))  # NaN is both ends of what has one
