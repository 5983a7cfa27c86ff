"""When a LoRA is inside another one, or inside a checkpoint: the verdicts, and what they are allowed to rest on.

A merge at strength c has <U, L> = c <L, L>. An extraction of limited rank keeps a part of that (0.3 of 0.5 at worst),
so from 0.2 on it is told. Numbers that chance, rounding or a fine-tune could explain are no verdict.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ..engine.dense import as_rows
from ..engine.fuse import add_rows
from ..engine.grams import SIGMAS, Sums
from ..engine.plan import Layer
from ..engine.progress import Progress
from ..engine.tensors import StreamedSource, TensorSource
from ..engine.terms import make_term
from .overlap import as_filed, comparable, on_weight, spread

CONTAINED = 0.2  # a share from which a LoRA counts as being inside
EXPRESSED = 0.1  # of its energy must lie in what the other's factors span: a merge has 1, strangers r^2 / (out in)
EXACT = 0.95  # from here on it is an exact merge, and which of two has the other inside is beyond doubt
MODULES = 20  # of a checkpoint that are looked at
ROWS = 256  # of each
LEAST_MODULES = 8
UNCLEAR = 0.1  # of the modules may lie between inside and not inside
STEADY = 1 / 3  # how far the modules may scatter about their mean, against the mean


def contains(sums: Sums) -> bool:
    """Whether the first of two LoRAs certainly has the second inside. False may also mean that it cannot be told."""
    reverse = sums.swapped().expressed >= EXACT > sums.expressed
    return sums.coefficient >= CONTAINED and sums.expressed >= EXPRESSED and sums.significant and not reverse


def is_apart(sums: Sums) -> bool:
    """Whether the first of two LoRAs certainly does not have the second inside at a share worth telling."""
    error = SIGMAS * math.sqrt(sums.chance) / sums.second if sums.second > 0 else math.inf
    return abs(sums.coefficient) + error < CONTAINED


@dataclass(frozen=True)
class Containment:
    """How much of a LoRA is inside a checkpoint: ``coefficient`` is 1 where it was fused at strength 1, 0 where not.

    It is inside ``modules`` of the ``of`` that were looked at; among these the coefficient scatters by ``spread``.
    """

    coefficient: float
    modules: int
    of: int
    spread: float


@dataclass(frozen=True)
class _Module:
    """<M - W, d> and <d, d> on some rows of one weight, and how far rounding alone may move their quotient."""

    aligned: float
    energy: float
    noise: float

    @property
    def coefficient(self) -> float:
        return self.aligned / self.energy


def contained_share(
    modified: TensorSource, original: TensorSource, layer: Layer, on_step: Progress | None = None
) -> Containment | None:
    """How much of a LoRA went from ``original`` into ``modified``, from rows of about 20 weights.

    ``layer`` is the LoRA matched to the original; its strength does not count. None where it cannot be told: too few
    weights in common, or a checkpoint that was also trained so far that this drowns. Both sources give plain weights.
    """
    layer = as_filed(layer)
    names = spread(_names(modified, original, layer), MODULES)
    modules = []
    for done, name in enumerate(names):
        if on_step is not None:
            on_step(done, len(names))
        modules.append(_module(modified, original, layer, name))
    return _share([module for module in modules if module is not None and SIGMAS * module.noise < CONTAINED / 2])


def _names(modified: TensorSource, original: TensorSource, layer: Layer) -> list[str]:
    """Weights of the LoRA that both sources have in one shape, and where its delta needs no other weights."""
    names = dict.fromkeys(patch.target.weight for patch in layer.patches)
    there = [name for name in names if name in modified.tensors and name in original.tensors]
    same = [name for name in there if modified.tensors[name].shape == original.tensors[name].shape]
    return [name for name in same if all(map(comparable, on_weight(layer, name)))]


def _module(modified: TensorSource, original: TensorSource, layer: Layer, name: str) -> _Module | None:
    height = original.tensors[name].shape[0]
    first = max(0, (height - ROWS) // 2)
    rows = slice(first, min(height, first + ROWS))
    before = read_rows(original, name, rows)
    change = read_rows(modified, name, rows) - before
    delta = add_rows(torch.zeros_like(before), rows, [make_term(layer, patch) for patch in on_weight(layer, name)])
    change, delta = change.double(), delta.double()
    aligned, energy = float((change * delta).sum()), float(delta.square().sum())
    if not energy > 0 or not math.isfinite(aligned):
        return None
    rest = change - aligned / energy * delta
    return _Module(aligned, energy, math.sqrt(float((rest * delta).square().sum())) / energy)


def read_rows(source: TensorSource, name: str, rows: slice) -> torch.Tensor:
    """Some rows of a weight in fp32 [n, in * kh * kw], in their own memory; a vector's are [n, 1]."""
    if isinstance(source, StreamedSource):
        with source.reader() as reader:
            part = reader.read_rows(name, rows.start, rows.stop).to(torch.float32, copy=True)
    else:
        part = source.read(name)[rows].to(torch.float32, copy=True)
    return as_rows(part)


def _share(modules: Sequence[_Module]) -> Containment | None:
    """Modules are inside or not; many in between mean that something else was done to the checkpoint."""
    coefficients = np.array([module.coefficient for module in modules])
    inside = np.abs(coefficients) >= CONTAINED
    unclear = ~inside & (np.abs(coefficients) >= CONTAINED / 2)
    if len(modules) < LEAST_MODULES or unclear.sum() > UNCLEAR * len(modules):
        return None
    told = inside if inside.any() else ~inside
    weights = np.array([module.energy for module in modules])[told]
    mean = float(np.average(coefficients[told], weights=weights))
    spread = float(np.average((coefficients[told] - mean) ** 2, weights=weights)) ** 0.5
    if inside.any() and (inside.sum() < LEAST_MODULES / 2 or spread > STEADY * abs(mean)):
        return None
    return Containment(mean, int(inside.sum()), len(modules), spread)
