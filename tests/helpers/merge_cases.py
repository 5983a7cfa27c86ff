"""Seven merges with seeded factors, and what every method makes of them by definition, in float64 on whole deltas."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from lora_foundry.engine.merge.parts import Part
from merge_parts import low_rank
from numpy.typing import NDArray

Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class Case:
    """LoRAs of float32 factors; ``overlap`` is how strong two directions are that all of them share."""

    name: str
    seed: int
    shape: tuple[int, int]
    ranks: tuple[int, ...]
    alphas: tuple[float, ...]
    weights: tuple[float, ...]
    reranks: tuple[int, ...]
    overlap: float = 0.0
    rslora: bool = False

    @cached_property
    def parts(self) -> list[Part]:
        rng = np.random.default_rng(self.seed)
        rows, columns = self.shape
        common, parts = rng.standard_normal((rows, 2)), []
        for rank, alpha, weight in zip(self.ranks, self.alphas, self.weights, strict=True):
            up = rng.standard_normal((rows, rank)) * 0.1
            up[:, : min(2, rank)] += self.overlap * common[:, : min(2, rank)] * 0.1
            down = rng.standard_normal((rank, columns)) * 0.2
            scale = alpha / (math.sqrt(rank) if self.rslora else rank)
            factors = [torch.from_numpy(each.astype(np.float32)) for each in (up, down)]
            parts.append(Part(low_rank((factors[0], factors[1], scale)), weight))
        return parts

    @cached_property
    def deltas(self) -> list[Matrix]:
        products = (part.delta.products[0] for part in self.parts)
        return [p.scale * p.up.double().numpy() @ p.down.double().numpy() for p in products]


CASES = [
    Case("two of one rank", 11, (24, 16), (4, 4), (4, 4), (1.0, 0.7), (4, 2)),
    Case("three, alpha differs", 12, (24, 16), (4, 4, 4), (4, 8, 1), (1.0, 0.7, 0.5), (4, 8)),
    Case("mixed ranks", 13, (40, 32), (2, 8, 16), (2, 4, 16), (0.8, 1.0, 0.3), (8, 16)),
    Case("negative weight", 14, (32, 32), (4, 4), (4, 4), (1.0, -0.6), (4,)),
    Case("overlap", 15, (48, 32), (8, 8, 8), (8, 8, 8), (1.0, 1.0, 1.0), (8, 16), overlap=3.0),
    Case("rs-LoRA", 16, (32, 24), (4, 4), (8, 4), (1.0, 0.5), (4,), rslora=True),
    Case("rank above the width", 17, (48, 12), (8, 8), (8, 16), (1.0, 1.0), (8, 12)),
]


# --- definitions


def weighted(deltas: Sequence[Matrix], weights: Sequence[float]) -> Matrix:
    return np.asarray(sum(weight * delta for weight, delta in zip(weights, deltas, strict=True)))


def nearest(matrix: Matrix, rank: int) -> Matrix:
    left, values, right = np.linalg.svd(matrix, full_matrices=False)
    return np.asarray((left[:, :rank] * values[:rank]) @ right[:rank])


def trimmed(numbers: Matrix, density: float) -> Matrix:
    keep = np.argsort(-np.abs(numbers).ravel(), kind="stable")[: int(density * numbers.size)]
    out = np.zeros(numbers.size)
    out[keep] = numbers.ravel()[keep]
    return np.asarray(out.reshape(numbers.shape))


def ties_of(deltas: Sequence[Matrix], weights: Sequence[float], density: float) -> Matrix:
    kept = np.stack([trimmed(delta, density) for delta in deltas])
    elected = np.where(kept.sum(0) >= 0, 1, -1)
    agree = np.sign(kept) == elected
    total = (kept * np.asarray(weights)[:, None, None] * agree).sum(0)
    return np.asarray(total / np.maximum(agree.sum(0), 1))


def knots_ties(deltas: Sequence[Matrix], weights: Sequence[float], density: float) -> Matrix:
    left, values, _ = np.linalg.svd(np.concatenate(deltas, 1), full_matrices=False)
    left = left[:, values > 1e-9 * values[0]]
    return np.asarray(left @ ties_of([left.T @ delta for delta in deltas], weights, density))


def polar_of(matrix: Matrix) -> Matrix:
    left, _, right = np.linalg.svd(matrix, full_matrices=False)
    return np.asarray(left @ right)


def tsv_of(deltas: Sequence[Matrix], weights: Sequence[float]) -> Matrix:
    lefts, sizes, rights = [], [], []
    for weight, delta in zip(weights, deltas, strict=True):
        left, values, right = np.linalg.svd(weight * delta, full_matrices=False)
        there = values > 1e-9 * values[0]
        lefts.append(left[:, there])
        sizes.append(values[there])
        rights.append(right[there])
    return np.asarray(
        polar_of(np.concatenate(lefts, 1)) @ np.diag(np.concatenate(sizes)) @ polar_of(np.concatenate(rights))
    )


def projected(deltas: Sequence[Matrix], weights: Sequence[float]) -> Matrix:
    """Each LoRA without the columns of those before it."""
    total, taken = np.zeros(deltas[0].shape), np.zeros((len(deltas[0]), 0))
    for weight, delta in zip(weights, deltas, strict=True):
        left_over = delta - taken @ (taken.T @ delta)
        total += weight * left_over
        left, values, _ = np.linalg.svd(left_over, full_matrices=False)
        taken = np.concatenate([taken, left[:, values > 1e-9 * np.linalg.norm(delta)]], 1)
    return total
