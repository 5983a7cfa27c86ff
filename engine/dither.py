"""Rounding without bias, for a base that was quantized before: its weights lie on the grid they are rounded to again.

To the nearest, nearly every weight would fall back to where it was, and the LoRAs with it: of one of 1% rms 37% is
left, of 0.2% rms 7%. Rounded up with a chance equal to the way already gone, all of it is kept on average, for a weight
error that is still below that of a first quantization. The chance comes from a hash of the number itself, so that a
bake gives the same bits every time; a number on the grid stays where it is.

Grids meet across formats too: codes of nvfp4 times their scales are floats of few bits, so to the nearest fp8 they lose
41% of a LoRA of 1% or gain 68%; rotated ones are whole numbers of about the same size.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from .codes import TURNED, Format
from .gemm import Workspace
from .grouped import Grouped
from .microscaled import MXFP8, NVFP4
from .plan import Base

BITS = 20  # of the chance: at most what fp8 e4m3 drops of an fp32 mantissa, so that all of it counts
_EXPONENTS = {torch.float32: (torch.int32, 0x7F8 << 20), torch.float64: (torch.int64, 0x7FF << 52)}  # bits, mask
_HASH = -1640531527  # 2**32 / golden ratio as a signed number, odd: mixes all bits of a number into the high ones


@dataclass(frozen=True)
class Unbiased(Format):
    """A format whose codes are right on average instead of nearest."""

    def _round(self, prepared: torch.Tensor, column: torch.Tensor, codes: torch.Tensor) -> None:
        """Write one of the two codes around prepared / scale."""
        exact = prepared.div_(column).clamp_(-self.largest, self.largest)
        chance = _chance(exact)
        codes.copy_(
            neighbour(exact, chance, self.dtype) if self.dtype.is_floating_point else exact.add_(chance).floor_()
        )


@dataclass(frozen=True)
class UnbiasedMXFP8(MXFP8):
    """The same for mxfp8."""

    def _nearest(self, exact: torch.Tensor) -> torch.Tensor:
        return neighbour(exact, _chance(exact), self.dtype)


@dataclass(frozen=True)
class UnbiasedNVFP4(NVFP4):
    """The same for nvfp4, whose largest number of a block then has to become 6: nothing is cut off."""

    def _nearest(self, exact: torch.Tensor, space: Workspace) -> torch.Tensor:
        steps = exact.clamp(1, 4).log2_().floor_().exp2_().mul_(0.5)
        size = exact.div(steps).add_(_chance(exact)).floor_().mul_(steps).clamp_(max=6)
        return super()._nearest(size, space)


@dataclass(frozen=True)
class UnbiasedGrouped(Grouped):
    """The same for w4a8 and w6a8, between the two int8 numbers that codes can stand for there.

    What is beyond the largest code is cut off, so LoRAs are driven (``coarse``) to make up for it.
    """

    def _picked(self, scaled: torch.Tensor, scale: torch.Tensor, space: Workspace) -> torch.Tensor:
        exact = (scaled.view(*scale.shape, -1) * scale[..., None]).view(scaled.shape)
        near = super()._picked(scaled, scale, space)
        off = exact - self.levels(near, scale)
        least = 0 if self.bits == 4 else 1
        other = near.to(torch.int16).add_(off.sign().to(torch.int16)).clamp_(least, 2**self.bits - 1).to(torch.uint8)
        gap = self.levels(other, scale).sub_(exact).add_(off)  # between the two, 0 where they mean the same
        return torch.where(_chance(exact) * gap.abs() < off.abs(), other, near)


@dataclass(frozen=True)
class DitheredMXFP8(MXFP8):
    """mxfp8 for weights that come from bf16: these lie on the grid of half codes, for scales are powers of two.

    One of 16 lies right between two codes, where any LoRA tips it: of one of 0.1% rms 194% arrive. So each is taken as
    anything that bf16 would have rounded to it: 96%, for an error of 2.659% instead of 2.656%.
    """

    def _nearest(self, exact: torch.Tensor) -> torch.Tensor:
        bits = exact.view(torch.int32)
        power = (bits & _EXPONENTS[torch.float32][1]).view(torch.float32)
        around = (bits * _HASH).bitwise_right_shift_(32 - BITS).to(torch.float32)  # -2**19 to 2**19
        return torch.addcmul(exact, around, power, value=torch.finfo(torch.bfloat16).eps * 2.0**-BITS)


def rounding_for(format: Format, base: Base) -> Format:
    """How weights that LoRAs changed are rounded: without bias where the base lies on about the same grid already."""
    form = (base.quantized or "").rpartition(": ")[2] if base.dequantized else ""
    if any(grid in form for grid in format.grids):
        return _unbiased(format)
    if isinstance(format, MXFP8):
        return DitheredMXFP8(**vars(format))
    if isinstance(format, Grouped) and any(grid in form for grid in TURNED):
        return replace(format, coarse=True)  # grids that meet here and there: driving is enough
    return format


def _unbiased(format: Format) -> Format:
    if isinstance(format, NVFP4):
        return UnbiasedNVFP4(**{**vars(format), "searched": range(1)})
    if isinstance(format, MXFP8):
        return UnbiasedMXFP8(**vars(format))
    if isinstance(format, Grouped):
        return UnbiasedGrouped(**{**vars(format), "coarse": True})
    return Unbiased(**vars(format))


def _chance(exact: torch.Tensor) -> torch.Tensor:
    """A number in [0, 1) of 20 bits for every number, spread evenly over numbers however close."""
    mixed = exact.view(torch.int32) * _HASH
    return ((mixed >> (32 - BITS)) & ((1 << BITS) - 1)).to(torch.float32) * 2.0**-BITS


def neighbour(exact: torch.Tensor, chance: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Numbers that ``dtype`` holds exactly: for each of ``exact`` (fp32 or fp64) one of its two neighbours.

    ``chance`` is a number in [0, 1) for each: the upper one is taken where it reaches what is missing to it.
    """
    info = torch.finfo(dtype)
    bits, mask = _EXPONENTS[exact.dtype]
    power = (exact.view(bits) & mask).view(exact.dtype)  # 2**e at or below |exact|
    step = power.mul_(info.eps).clamp_(min=info.eps * info.tiny)
    return exact.div(step).add_(chance).floor_().mul_(step)
