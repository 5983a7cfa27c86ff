"""Less interference: the singular vectors of all LoRAs are made orthogonal to each other, their values stay.

Task singular vectors (Gargiulo et al. 2024), with the triples a LoRA has; the published code takes min(rows, columns) /
k of each LoRA, which for a LoRA are mostly null vectors of the SVD's choice. No knob.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..gemm import Product
from .core import Svd, decompose, factored
from .deltas import Delta
from .parts import Part

ALIKE = 1e-5  # of the largest: directions that fp32 LoRAs have in common


def tsv(parts: Sequence[Part]) -> Delta:
    """polar(U) S polar(V)^T, with U, S, V the triples of all weight * delta side by side."""
    found = sorted((decompose(part.weighted).support for part in parts), key=_by_values)
    left, right = polar(torch.cat([each.left for each in found], 1)), polar(torch.cat([each.right for each in found]))
    root = torch.cat([each.values for each in found]).sqrt()
    return Delta(parts[0].delta.shape, (Product(left * root, root[:, None] * right, 1.0),))


def _by_values(found: Svd) -> list[float]:
    return (-found.values).tolist()


def polar(matrix: torch.Tensor) -> torch.Tensor:
    """The nearest matrix whose columns (or rows) are orthonormal; what they all lack, it lacks too."""
    tall = matrix.shape[0] > matrix.shape[1]
    whole = factored(matrix if tall else matrix.T)
    left, values, right = torch.linalg.svd(whole.r, full_matrices=False)
    there = values > ALIKE * values[:1]
    found = whole.turned(left[:, there] @ right[there])
    return found if tall else found.T
