"""Weights of one shape with low-rank products, worked on together: where each lies, with what is added to it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from .gemm import Product

MOST = 8  # products that are added together
ALIGN = 256  # bytes: where tensors begin in device memory, as torch's own do


@dataclass(frozen=True)
class Sums:
    """``count`` times weight [rows, columns] + products, each ``shift`` bytes behind the one before, all in one memory.

    Given is the first one. Rows of the weight may lie apart, factors are contiguous; ``MOST`` products at most.
    """

    weight: torch.Tensor
    products: Sequence[Product]
    count: int = 1
    shift: int = 0

    @property
    def factors(self) -> tuple[list[torch.Tensor], list[torch.Tensor], list[int], list[float]]:
        """``MOST`` ups, downs, ranks and scales: the first ones again for those that are not there."""
        given = [*self.products, *[self.products[0]] * (MOST - len(self.products))]
        ranks, scales = [each.rank for each in given], [float(each.scale) for each in given]
        return [each.up for each in given], [each.down for each in given], ranks, scales


def aligned(at: int) -> int:
    """The next place where a tensor may begin."""
    return -(at // -ALIGN) * ALIGN


def view_at(memory: torch.Tensor, at: int, dtype: torch.dtype, shape: Sequence[int]) -> torch.Tensor:
    """A tensor in memory of bytes."""
    size = math.prod(shape) * dtype.itemsize
    return memory[at : at + size].view(dtype).view(tuple(shape))
