"""How the orders people argue about round a weight, in plain torch: what demo and benchmark compare the bake with."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ..engine.dither import neighbour
from ..engine.formats import DEFAULT

FP8, LARGEST = DEFAULT.dtype, DEFAULT.largest
CHUNK = 1 << 22  # elements that are rounded stochastically at a time
Rounding = Callable[[Tensor], Tensor]


def quantized(weight: Tensor, rounding: Rounding, scale: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """(fp8 codes, scale) of a weight; without ``scale`` a new one from amax, in fp32.

    A given scale is that of the base the LoRAs were added to: what lies beyond its largest code is cut off there.
    """
    if scale is not None:
        return rounding((weight / scale).clamp_(-LARGEST, LARGEST)), scale
    values = weight.to(torch.float32)
    scale = values.abs().amax() / LARGEST
    return rounding(values / scale.where(scale > 0, 1.0)), scale


def nearest(values: Tensor) -> Tensor:
    """To the nearest fp8 number; of a weight itself: the cast without a scale."""
    return values.to(FP8)


def stochastic(values: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Up or down to a neighbour among the fp8 (e4m3) numbers, by chance and without bias."""
    codes = torch.empty(values.shape, dtype=FP8, device=values.device)
    rows = max(1, CHUNK // max(1, math.prod(values.shape[1:])))
    for part, out in zip(torch.split(values, rows), torch.split(codes, rows), strict=True):
        chance = torch.rand(part.shape, generator=generator, dtype=part.dtype, device=part.device)
        out.copy_(neighbour(part, chance, FP8).clamp_(-LARGEST, LARGEST))
    return codes
