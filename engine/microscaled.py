"""nvfp4 and mxfp8: a scale for every 16 or 32 columns, in the bytes that Blackwell's matrix units and ComfyUI read.

nvfp4: 4-bit floats (0, 0.5, 1, 1.5, 2, 3, 4, 6 and their negatives), an e4m3 scale per 16 columns, one fp32 scale for
all. The block's largest number does not have to become 6: of the e4m3 codes around amax / 6 the one with the smallest
squared error is taken (8.1 % error of Gaussian weights instead of 9.5 %).
mxfp8: e4m3 codes, a power of two per 32 columns.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import torch

from .codes import EXPONENT, Entry, Format, Steps, divided
from .gemm import Workspace
from .packing import nibbles, pack_nibbles, padded, swizzle, swizzled_shape, unswizzle

E4M3 = torch.float8_e4m3fn
E4M3_CODES = 0x7E  # the largest finite one; positive codes stand in the order of their numbers
ROUNDS = 1.5 * 2.0**22  # added to numbers of up to 6 and taken off again, it rounds to 0.5; times 2 to 1, and so on
SEARCHED = range(-1, 7)  # e4m3 codes around amax / 6
SEARCH_ROWS = 32  # searched at once: what is worked with stays in the core's cache
SEARCHED_THERE = 1 << 22  # numbers searched at once on a GPU


@dataclass(frozen=True)
class Microscaled(Format):
    """A format with a scale per ``block`` columns.

    Its scale is worked with as fp32 [rows, columns / block (+ 1)]: one number a block, which ``entries_of`` packs.
    """

    block: int = 16

    def fits(self, shape: Sequence[int]) -> bool:
        """Whether a weight of this shape can be stored so: 2-D, rows divisible by 16, columns by the block."""
        return super().fits(shape) and shape[1] % self.block == 0

    def amax_per_block(self, prepared: torch.Tensor) -> torch.Tensor:
        """[rows, columns / block]"""
        return prepared.view(len(prepared), -1, self.block).abs().amax(dim=2)

    def steps(self, scale: torch.Tensor) -> Steps:
        """As ``Format.steps``, [blocks, rows]; 0 and 0 for a block of zeros, which stays one."""
        step = self.step_of(scale).t().contiguous()
        return step, torch.where(step > 0, step.reciprocal(), 0.0)

    def step_of(self, scale: torch.Tensor) -> torch.Tensor:
        """What a code is multiplied by, [rows, blocks]."""
        return scale

    def nearest(self, column: torch.Tensor, steps: Steps, number: int) -> torch.Tensor:
        """As ``Format.nearest``."""
        step, per_step = (each[number // self.block] for each in steps)
        return self._near(column * per_step).mul_(step)

    def _divide(self, prepared: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        """prepared / the scale of its block, in place; where that is 0 the numbers are 0 too."""
        blocks = prepared.view(len(prepared), -1, self.block)
        blocks.div_(scale.masked_fill(~(scale > 0), 1.0)[..., None])
        return prepared


@dataclass(frozen=True)
class MXFP8(Microscaled):
    """e4m3 codes [rows padded to 32, in] and e8m0 scales (uint8, swizzled)."""

    block: int = 32

    def fits(self, shape: Sequence[int]) -> bool:
        """Whether nothing has to be filled up: a reader could not tell by how much."""
        return super().fits(shape) and shape[0] % self.block == 0

    def code_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        """Rows are padded to a multiple of 32."""
        return padded(shape[0], self.block), shape[1]

    def beside(self, shape: Sequence[int]) -> tuple[Entry, ...]:
        """The scales, as exponents."""
        return (("weight_scale", torch.uint8, swizzled_shape(shape[0], shape[1] // self.block)),)

    def scales(self, prepared: torch.Tensor, amax: torch.Tensor | None = None) -> torch.Tensor:
        """The power of two at or above amax / 448 of each block; 0 for a block of zeros."""
        exact = divided(self.amax_per_block(prepared), self.largest)
        bits = exact.view(torch.int32)
        above = ((bits >> 23) + ((bits & 0x7FFFFF) != 0).to(torch.int32)).clamp_(min=1) << 23
        return torch.where(exact > 0, above.view(torch.float32), exact)  # NaN and Inf are found before

    def stored_scales(self, scale: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Biased exponents; 0 says a block of zeros."""
        return (swizzle((scale.view(torch.int32) >> 23).to(torch.uint8)),)

    def read_scales(self, stored: Sequence[torch.Tensor], shape: Sequence[int]) -> torch.Tensor:
        """Powers of two."""
        exponents = unswizzle(stored[0].view(torch.uint8), shape[0], shape[1] // self.block)
        return (exponents.to(torch.int32) << 23).view(torch.float32)

    def encode(self, prepared: torch.Tensor, scale: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
        """e4m3 codes [rows, in], the nearest to prepared / scale."""
        codes = torch.empty(prepared.shape, dtype=self.dtype, device=prepared.device) if out is None else out
        return codes.copy_(self._nearest(self._divide(prepared, scale)))

    def saturated(self, prepared: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        """As ``Format.saturated``, by block."""
        most = (self.largest * scale)[..., None]
        prepared.view(len(prepared), -1, self.block).clamp_(-most, most)
        return prepared

    def _nearest(self, exact: torch.Tensor) -> torch.Tensor:
        return exact

    def decode(self, codes: torch.Tensor, scale: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
        """The fp32 weight [rows, in]."""
        out = torch.empty(codes.shape, device=codes.device) if out is None else out
        out.copy_(codes).view(len(codes), -1, self.block).mul_(scale[..., None])
        return out


@dataclass(frozen=True)
class NVFP4(Microscaled):
    """4-bit floats, the even column in the high half of a byte; e4m3 scales (swizzled) and an fp32 scale for all.

    ``searched``: which e4m3 codes around amax / 6 are tried for each block. Scales are worked with as fp32
    [rows, in / 16 + 1], the scale for all in the last column.
    """

    searched: range = SEARCHED

    def code_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        """Two columns a byte."""
        return shape[0], shape[1] // 2

    def beside(self, shape: Sequence[int]) -> tuple[Entry, ...]:
        """The scales of blocks, and the one for all."""
        blocks = swizzled_shape(shape[0], shape[1] // self.block)
        return ("weight_scale", E4M3, blocks), ("weight_scale_2", torch.float32, ())

    def scales(self, prepared: torch.Tensor, amax: torch.Tensor | None = None) -> torch.Tensor:
        """The e4m3 scale of each block; ``amax`` of the whole weight gives the one for all."""
        whole = self.scale_of(self.amax_of(prepared) if amax is None else amax)
        found = torch.empty(len(prepared), prepared.shape[1] // self.block + 1, device=prepared.device)
        found[:, -1] = whole
        space = Workspace()
        for rows in few_rows(prepared):
            exact = divided(self.amax_per_block(prepared[rows]), 6.0) / whole
            codes = exact.clamp_(max=448).to(E4M3).view(torch.uint8)
            if len(self.searched) > 1:
                codes = self._search(prepared[rows], codes, whole, space)
            found[rows, :-1] = codes.view(E4M3).to(torch.float32)
        return found

    def _search(
        self, prepared: torch.Tensor, codes: torch.Tensor, whole: torch.Tensor, space: Workspace
    ) -> torch.Tensor:
        """uint8 [rows, in / 16]: of the codes around ``codes`` the first with the smallest squared error.

        Blocks are put side by side, so that one operation does the same place of all of them.
        """
        device, shape = prepared.device, (self.block, codes.numel())
        exact = space.take(shape, device, slot="exact").copy_(prepared.reshape(-1, self.block).t()).abs_()
        first, largest = codes.flatten().to(torch.int16), exact.amax(0)
        best, least = codes.flatten(), torch.full(shape[1:], float("inf"), device=device)
        for step in self.searched:
            tried = (first + step).clamp_(1, E4M3_CODES).to(torch.uint8)
            scale = tried.view(E4M3).to(torch.float32).mul_(whole)
            scaled = torch.mul(exact, scale.reciprocal(), out=space.take(shape, device, slot="scaled"))
            off = _to_4_bits(scaled, space).sub_(scaled).square_().sum(0).mul_(scale).mul_(scale)
            better = off < least
            best, least = torch.where(better, tried, best), torch.where(better, off, least)
        return torch.where(largest > 0, best, codes.flatten()).view(codes.shape)

    def stored_scales(self, scale: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """e4m3 codes and a scalar."""
        return swizzle(scale[:, :-1].to(E4M3).view(torch.uint8)).view(E4M3), scale[0, -1].clone()

    def read_scales(self, stored: Sequence[torch.Tensor], shape: Sequence[int]) -> torch.Tensor:
        """[rows, in / 16 + 1]"""
        blocks = unswizzle(stored[0].view(torch.uint8), shape[0], shape[1] // self.block).contiguous()
        whole = stored[1].to(torch.float32).reshape(1, 1).expand(shape[0], 1)
        return torch.cat([blocks.view(E4M3).to(torch.float32), whole], 1)

    def encode(self, prepared: torch.Tensor, scale: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
        """uint8 codes [rows, in / 2]."""
        if out is None:
            out = torch.empty(len(prepared), prepared.shape[1] // 2, dtype=torch.uint8, device=prepared.device)
        space = Workspace()
        for rows in few_rows(prepared):
            part = scale[rows]
            exact = self._divide(prepared[rows], part[:, :-1] * part[:, -1:])
            sign = torch.signbit(exact).to(torch.uint8).bitwise_left_shift_(3)
            size = self._nearest(exact.abs_(), space)
            # 0 .5 1 1.5 2 3 4 6 -> 0 to 7
            code = torch.minimum(torch.minimum(size * 2, size + 2), size.mul(0.5).add_(4)).to(torch.uint8)
            code.bitwise_or_(sign)
            pack_nibbles(code[:, 1::2], code[:, 0::2], out[rows])
        return out

    def step_of(self, scale: torch.Tensor) -> torch.Tensor:
        """The scale of each block times that for all."""
        return scale[:, :-1] * scale[:, -1:]

    def _near(self, exact: torch.Tensor) -> torch.Tensor:
        grid = (exact.view(torch.int32) & EXPONENT).view(torch.float32).clamp_(1, 4).mul_(ROUNDS)
        return exact.add_(grid).sub_(grid).clamp_(-6, 6)

    def saturated(self, prepared: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        """Nothing to do: the largest code takes what is beyond it."""
        return prepared

    def _nearest(self, exact: torch.Tensor, space: Workspace) -> torch.Tensor:
        """Magnitudes [rows, in] rounded to those of 4-bit floats, halves to the even code."""
        return _to_4_bits(exact, space)

    def decode(self, codes: torch.Tensor, scale: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
        """The fp32 weight [rows, in]."""
        out = torch.empty(len(codes), codes.shape[1] * 2, device=codes.device) if out is None else out
        numbers = _numbers(codes.device)
        low, high = nibbles(codes)
        out[:, 0::2], out[:, 1::2] = numbers[high.int()], numbers[low.int()]
        out.view(len(codes), -1, self.block).mul_((scale[:, :-1] * scale[:, -1:])[..., None])
        return out


def _to_4_bits(exact: torch.Tensor, space: Workspace) -> torch.Tensor:
    """Magnitudes rounded to 0 .5 1 1.5 2 3 4 6, halves to even, in workspace memory."""
    steps = space.take(exact.shape, exact.device, slot="steps")
    torch.bitwise_and(exact.view(torch.int32), EXPONENT, out=steps.view(torch.int32))  # the power of two below
    steps.clamp_(1, 4).mul_(ROUNDS)
    rounded = torch.add(exact, steps, out=space.take(exact.shape, exact.device, slot="rounded"))
    return rounded.sub_(steps).clamp_(max=6)


def few_rows(tensor: torch.Tensor) -> Iterator[slice]:
    """The rows that are searched at once; far more of them on a GPU."""
    step = SEARCH_ROWS if tensor.device.type == "cpu" else max(1, SEARCHED_THERE // tensor.shape[1])
    return (slice(first, min(first + step, len(tensor))) for first in range(0, len(tensor), step))


@cache
def _numbers(device: torch.device) -> torch.Tensor:
    """What the 16 codes mean."""
    sizes = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0])
    return torch.cat([sizes, -sizes]).to(device)
