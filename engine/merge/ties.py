"""TIES where it means the same whatever the factors: on coordinates along the singular vectors all LoRAs share.

KnOTS (Stoica et al. 2024): [D1 .. Dk] = U S V^T; the rows of U^T D_i are trimmed and their signs elected, and U brings
the result back. On the numbers of up and down, or in a basis that nobody pinned, the result is an accident.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ..gemm import Product
from .core import joined
from .deltas import Delta
from .parts import Part

DENSITY = 0.5  # of each LoRA's coordinates, the largest ones, that are left
SHARED = 1e-6  # of the largest value: directions below are what rounding made of nothing


@dataclass(frozen=True, eq=False)
class Coordinates:
    """Each delta is ``basis`` [rows, k] @ its ``inner`` [k, columns], at strength 1."""

    basis: torch.Tensor
    inner: tuple[torch.Tensor, ...]


def ties(parts: Sequence[Part], density: float = DENSITY) -> Delta:
    """Trim each LoRA, elect a sign for each number, and take the mean of the LoRAs that agree with it.

    As PEFT does it: the election counts deltas without their weights, a sum of 0 is positive, the mean is that of
    weight * delta over the number of LoRAs that agree.
    """
    where = coordinates([part.delta for part in parts])
    trimmed = [trim(inner, density) for inner in where.inner]
    elected = (torch.stack(trimmed).sum(0) >= 0).double() * 2 - 1
    total, count = torch.zeros_like(elected), torch.zeros_like(elected)
    for part, inner in zip(parts, trimmed, strict=True):
        agrees = inner.sign() == elected
        total += part.weight * inner * agrees
        count += agrees
    return Delta(parts[0].delta.shape, (Product(where.basis, total / count.clamp(min=1), 1.0),))


def coordinates(deltas: Sequence[Delta]) -> Coordinates:
    """The left singular vectors of all deltas side by side, and each delta along them."""
    pairs = [joined(delta) for delta in deltas]
    basis, core = torch.linalg.qr(torch.cat([up for up, _ in pairs], 1))
    splits = core.split([up.shape[1] for up, _ in pairs], 1)
    sizes = [split @ torch.linalg.qr(down.T, mode="r").R.T for split, (_, down) in zip(splits, pairs, strict=True)]
    left, values, _ = torch.linalg.svd(torch.cat(sizes, 1), full_matrices=False)
    left = left[:, values > SHARED * values[:1]]
    inner = tuple((left.T @ split) @ down for split, (_, down) in zip(splits, pairs, strict=True))
    return Coordinates(basis @ left, inner)


def trim(numbers: torch.Tensor, density: float) -> torch.Tensor:
    """The int(density * count) largest numbers by magnitude, of equal ones the first; 0 for the others."""
    keep, size = int(density * numbers.numel()), numbers.abs().flatten()
    if keep == 0:
        return torch.zeros_like(numbers)
    least = size.kthvalue(size.numel() - keep + 1).values
    kept, ties_at = size > least, size == least
    kept |= ties_at & (ties_at.cumsum(0) <= keep - int(kept.sum()))
    return numbers * kept.reshape(numbers.shape)
