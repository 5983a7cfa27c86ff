"""The first LoRA stays as it is; each later one loses what it does along the outputs of those before it."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..gemm import Product
from .core import ZERO, decompose, joined
from .deltas import Delta
from .parts import Part


def keep_first(parts: Sequence[Part]) -> Delta:
    """w1 D1 + sum of w_i (1 - Q Q^T) D_i, Q the columns of what is there already. The order of the parts counts."""
    shape, taken = parts[0].delta.shape, torch.zeros(parts[0].delta.size[0], 0, dtype=torch.float64)
    products = []
    for part in parts:
        up, down = joined(part.delta)
        for _ in range(2):  # once leaves what rounding put back
            up = up - taken @ (taken.T @ up)
        products.append(Product(up, down, part.weight))
        taken = torch.cat([taken, _columns(Delta(shape, (Product(up, down, 1.0),)), part.delta)], 1)
    return Delta(shape, tuple(products))


def _columns(left: Delta, whole: Delta) -> torch.Tensor:
    """An orthonormal basis of the columns of what is left of a delta; what is nothing beside the whole has none."""
    found = decompose(left)
    size = float(decompose(whole).values[:1].sum())
    return found.left[:, found.values > ZERO * size]
