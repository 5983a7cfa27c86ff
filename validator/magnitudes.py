"""What the magnitudes of a DoRA tell about the weights it was trained on.

Training starts with m = |W| of the very weights below it, and moves m little. So light training leaves m nearest to the
norms of those weights; heavy training leaves it nowhere, and then nothing is said. Lengths are compared as the pattern
of log(m / |W|) over rows or columns: a growth that all have in common comes from training and counts for nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from einops import rearrange

from ..engine.adapters import MAGNITUDE, needs_all_rows
from ..engine.dense import as_rows
from ..engine.fuse import fused_weight, make_terms
from ..engine.plan import Base, Layer, Patch
from ..engine.progress import Progress
from ..engine.terms import WHOLE, placement, read_parts
from .overlap import on_weight, spread

MODULES = 20
LEAST_MODULES = 8
MARGIN = 0.5  # the nearest must be half as far as the next, in the median module
AGREE = 0.8  # of the modules must have the same nearest
MOVED = 0.02  # light training moves m by 0.1% to 1%; further away it may have been other weights altogether
MOST_FUSED = 3

Choice = tuple[int, ...]  # which of the fused layers were below it in training; () is none of them


@dataclass(frozen=True)
class Nearest:
    """The weights that magnitudes are nearest to: the base with the ``choice`` of fused layers in it.

    ``margin`` is 1 - nearest / next of the median module, ``agree`` of ``modules`` say the same; ``moved`` is how far m
    is from the nearest, ``apart`` how far from the next (rms of the pattern, medians).
    """

    choice: Choice
    margin: float
    agree: int
    modules: int
    moved: float
    apart: float

    @property
    def clear(self) -> bool:
        """Whether that is a verdict."""
        enough = self.modules >= LEAST_MODULES and self.agree >= AGREE * self.modules
        return enough and self.margin >= MARGIN and self.moved <= MOVED


def has_magnitudes(layer: Layer) -> bool:
    """Whether a layer is a DoRA, at least in parts."""
    return any(MAGNITUDE in dict(patch.adapter.parts) for patch in layer.patches)


def nearest(base: Base, layer: Layer, fused: Sequence[Layer], on_step: Progress | None = None) -> Nearest | None:
    """Which weights the magnitudes of a layer are nearest to: the base's, or those with fused layers in them.

    None where there is nothing to compare: no magnitudes, or none on weights that a fused layer changes. Reads up to 20
    weights of the base.
    """
    fused = [each for each in fused if each.strength][:MOST_FUSED]
    names = spread([patch.target.weight for patch in layer.patches if _comparable(patch, fused)], MODULES)
    choices: list[Choice] = [(), *((number,) for number in range(len(fused)))]
    if len(fused) > 1:
        choices.append(tuple(range(len(fused))))
    found = []
    for done, name in enumerate(names):
        if on_step is not None:
            on_step(done, len(names))
        distances = _distances(base, layer, name, [[fused[number] for number in choice] for choice in choices])
        if distances is not None:
            found.append(distances)
    return _judged(choices, found) if found else None


def _comparable(patch: Patch, fused: Sequence[Layer]) -> bool:
    """A DoRA of a whole weight that a fused layer changes too."""
    target = patch.target
    whole = target.part is None and target.transform is None and placement(patch) == (WHOLE, WHOLE)
    has = MAGNITUDE in dict(patch.adapter.parts)
    return whole and has and any(on_weight(each, target.weight) for each in fused)


def _distances(base: Base, layer: Layer, name: str, choices: Sequence[Sequence[Layer]]) -> list[float] | None:
    """How far the magnitudes on a weight are from each choice's norms; None for sizes that are no lengths."""
    patch = next(patch for patch in on_weight(layer, name) if MAGNITUDE in dict(patch.adapter.parts))
    magnitude = read_parts(layer, patch)[MAGNITUDE].double().reshape(-1)
    by_columns = layer.factors is not None and needs_all_rows(patch.adapter, layer.factors.tensors) is not None
    weight = base.source.read(name)
    distances = []
    for choice in choices:
        pairs = [(each, below) for each in choice for below in on_weight(each, name)]
        total = fused_weight(weight, pairs, make_terms(weight, pairs)) if pairs else weight
        norms = lengths(total, len(magnitude) if by_columns else None)
        if norms.shape != magnitude.shape or not bool((norms > 0).all() and (magnitude > 0).all()):
            return None
        distances.append(distance(magnitude, norms))
    return distances


def lengths(weight: torch.Tensor, channels: int | None = None) -> torch.Tensor:
    """The norm of each row of a weight, or of each of ``channels`` input channels with its kernel; float64."""
    squares = as_rows(weight).to(torch.float32).square()
    if channels is None:
        return squares.sum(1, dtype=torch.float64).sqrt()
    columns = squares.sum(0, dtype=torch.float64)
    return rearrange(columns, "(channel kernel) -> channel kernel", channel=channels).sum(1).sqrt()


def distance(magnitude: torch.Tensor, norms: torch.Tensor) -> float:
    """rms of log(m / norm) about its mean: 0.01 is a pattern that differs by 1%."""
    ratio = (magnitude / norms).log()
    return float((ratio - ratio.mean()).square().mean().sqrt())


def _judged(choices: Sequence[Choice], distances: Sequence[Sequence[float]]) -> Nearest:
    """The choice most modules are nearest to, and how clearly they are."""
    table = np.array(distances)  # [modules, choices]
    count = np.bincount(table.argmin(axis=1), minlength=len(choices))
    best = int(count.argmax())
    own, others = table[:, best], np.delete(table, best, axis=1).min(axis=1)
    margins = 1 - np.divide(own, others, out=np.ones_like(own), where=others > 0)
    margin, moved, apart = (float(np.median(values)) for values in (margins, own, others))
    return Nearest(choices[best], margin, int(count[best]), len(distances), moved, apart)


def quote(found: Nearest) -> str:
    """The numbers of a verdict, for its evidence."""
    return (
        f"in {found.agree} of {found.modules} modules nearest; {found.moved:.2%} away, the next {found.apart:.2%} "
        f"(margin {found.margin:.2f})"
    )
