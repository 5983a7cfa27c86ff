"""What the engine needs to know about tensors that live somewhere else (a file, shards, a loaded model)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch

FP8_DTYPES = (torch.float8_e4m3fn, torch.float8_e5m2)


@dataclass(frozen=True)
class TensorInfo:
    """Name, dtype and shape of one tensor; no data."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Size in bytes when stored contiguously."""
        return math.prod(self.shape) * self.dtype.itemsize


class TensorSource(Protocol):
    """Tensors that can be listed for free and read one at a time.

    ``read`` returns a tensor in its stored dtype that the caller must not modify (it may be a view of a mapped file).
    """

    label: str

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        """Every tensor by name, in file order."""

    def read(self, name: str) -> torch.Tensor:
        """One tensor, contiguous, in its stored dtype."""


class TensorSink(Protocol):
    """Where a bake puts its result; entries arrive in the order they were announced."""

    def write(self, name: str, tensor: torch.Tensor) -> None:
        """Store one finished tensor."""
