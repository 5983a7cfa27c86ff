"""nvfp4 and mxfp8: a scale for every 16 or 32 columns, in the bytes that Blackwell's matrix units and ComfyUI read.

nvfp4: 4-bit floats (0, 0.5, 1, 1.5, 2, 3, 4, 6 and their negatives), an e4m3 scale per 16 columns, one fp32 scale for
all. The block's largest number does not have to become 6: of the e4m3 codes around amax / 6 the one with the smallest
squared error is taken (8.1 % error of Gaussian weights instead of 9.5 %).
mxfp8: e4m3 codes, a power of two per 32 columns.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import torch

from .codes import EXPONENT, Entry, Format, Steps, divided, number_of
from .gemm import Workspace
from .packing import nibbles, padded, swizzle, swizzled_shape, unswizzle

E4M3 = torch.float8_e4m3fn
E4M3_CODES = 0x7E  # the largest finite one; positive codes stand in the order of their numbers
ROUNDS = 2.0**22  # added to numbers from 0 to 6 and taken off again, it rounds to 0.5; times 2 to 1, and so on
PLACE = 149 << 1  # of ROUNDS: its bits without the lower 22, which are those of what is added to it
MANTISSA, ONE = 0x7FFFFF, 127 << 23  # of fp32: the bits of a fraction, and of 1.0
SEARCHED = range(-1, 7)  # e4m3 codes around amax / 6
FEW = 3 << 15  # numbers worked on at once: what is worked with stays in the core's cache
SIMPLE = 3 << 16  # the same where little is held beside them
FEW_THERE = 1 << 22  # the same on a GPU


@dataclass(frozen=True)
class Microscaled(Format):
    """A format with a scale per ``block`` columns.

    Its scale is worked with as fp32 [rows, columns / block (+ 1)]: one number a block, which ``entries_of`` packs.
    """

    block: int = 16

    def fits(self, shape: Sequence[int]) -> bool:
        """Whether a weight of this shape can be stored so: 2-D, rows divisible by 16, columns by the block."""
        return super().fits(shape) and shape[1] % self.block == 0

    def amax_per_block(self, prepared: torch.Tensor, space: Workspace) -> torch.Tensor:
        """[rows, columns / block]"""
        sizes = torch.abs(prepared, out=space.take(prepared.shape, prepared.device, slot="sizes"))
        sizes = sizes.view(len(prepared), -1, self.block)
        if self.block > 16:
            return sizes.amax(dim=2)
        half = torch.maximum(sizes[..., :8], sizes[..., 8:])  # torch takes the largest of 16 one by one
        half = torch.maximum(half[..., :4], half[..., 4:])
        return torch.maximum(torch.maximum(half[..., 0], half[..., 1]), torch.maximum(half[..., 2], half[..., 3]))

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

    @property
    def overwrites(self) -> bool:
        """As ``Format.overwrites``: a few rows at a time are worked on elsewhere."""
        return False


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
        space = small_space(prepared.device)
        exact = torch.cat([self.amax_per_block(prepared[rows], space) for rows in few_rows(prepared, SIMPLE)])
        exact.div_(number_of(self.largest, exact.device))
        above = exact.view(torch.int32).add(MANTISSA).bitwise_and_(EXPONENT).view(torch.float32)
        return above.add_(exact.mul_(0.0))  # NaN and Inf stay what is no number

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
        exponents = number_of(ONE << 1, scale.device) - scale.view(torch.int32)  # 1 / 0 is large, and meets zeros only
        per_step = exponents.view(torch.float32)[..., None]  # a power of two: as exact as to divide
        space = small_space(prepared.device)
        for rows in few_rows(prepared, SIMPLE):
            blocks = prepared[rows].view(-1, scale.shape[1], self.block)
            exact = torch.mul(blocks, per_step[rows], out=space.take(blocks.shape, blocks.device, slot="exact"))
            codes[rows].copy_(self._nearest(exact).view(-1, codes.shape[1]))
        return codes

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
        space = small_space(prepared.device)
        for rows in few_rows(prepared):
            exact = divided(self.amax_per_block(prepared[rows], space), 6.0) / whole
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
        best, largest = codes.flatten(), exact.amax(0)
        tried = (best.to(torch.int16) + _column_of(self.searched, device)).clamp_(1, E4M3_CODES).to(torch.uint8)
        scales = tried.view(E4M3).to(torch.float32).mul_(whole)
        off, per_step = torch.empty_like(scales), scales.reciprocal()
        for number in range(len(self.searched)):
            scaled = torch.mul(exact, per_step[number], out=space.take(shape, device, slot="scaled"))
            torch.sum(_to_4_bits(scaled, space).sub_(scaled).square_(), 0, out=off[number])
        off.mul_(scales).mul_(scales)
        least = torch.full(shape[1:], float("inf"), device=device)
        for code, error in zip(tried, off, strict=True):
            better = error < least
            best, least = torch.where(better, code, best), torch.where(better, error, least)
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
        space = small_space(prepared.device)
        for rows in few_rows(prepared):
            blocks = prepared[rows].view(-1, scale.shape[1] - 1, self.block)
            step = self.step_of(scale[rows])
            step = step.masked_fill_(~(step > 0), 1.0)[..., None]  # where it is 0 the numbers are 0 too
            exact = torch.div(blocks, step, out=space.take(blocks.shape, blocks.device, slot="exact"))
            exact = exact.view(len(blocks), -1)
            bits = exact.view(torch.int32)
            signs = torch.bitwise_right_shift(bits, 31, out=space.take(bits.shape, bits.device, bits.dtype, "signs"))
            code = self._nearest(exact.abs_(), space).sub_(signs, alpha=8)
            pairs = code.view(torch.int64)  # the even column below
            both = torch.bitwise_right_shift(pairs, 32, out=signs.view(torch.int64))
            out[rows] = both.add_(pairs, alpha=16)
        return out

    def step_of(self, scale: torch.Tensor) -> torch.Tensor:
        """The scale of each block times that for all."""
        return scale[:, :-1] * scale[:, -1:]

    def _near(self, exact: torch.Tensor) -> torch.Tensor:
        grid = (exact.view(torch.int32) & number_of(EXPONENT, exact.device)).view(torch.float32).clamp_(1, 4)
        grid.mul_(number_of(1.5 * ROUNDS, exact.device))
        return exact.add_(grid).sub_(grid).clamp_(-6, 6)

    def saturated(self, prepared: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        """Nothing to do: the largest code takes what is beyond it."""
        return prepared

    def _nearest(self, exact: torch.Tensor, space: Workspace) -> torch.Tensor:
        """int32 codes [rows, in], 0 to 7, of magnitudes, which are overwritten; halves go to the even code."""
        steps = _steps_of(exact.clamp_(max=6), space)
        code = exact.add_(steps, alpha=ROUNDS).view(torch.int32)
        place = torch.bitwise_right_shift(code, 22, out=steps.view(torch.int32))
        return code.bitwise_and_(7).add_(place).sub_(PLACE)

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
    steps = _steps_of(exact, space)
    rounded = torch.add(exact, steps, alpha=ROUNDS, out=space.take(exact.shape, exact.device, slot="rounded"))
    return rounded.sub_(steps, alpha=ROUNDS).clamp_(max=6)


def _steps_of(exact: torch.Tensor, space: Workspace) -> torch.Tensor:
    """1, 2 or 4, the power of two at or below each magnitude: twice the distance of the codes there."""
    steps = torch.clamp(exact, 1, 4, out=space.take(exact.shape, exact.device, slot="steps"))
    steps.view(torch.int32).bitwise_and_(EXPONENT)
    return steps


class _Here(threading.local):
    """A thread's own memory for what is worked on in its core's cache; to ask for it each time is slower."""

    def __init__(self) -> None:
        self.space = Workspace()


def small_space(device: torch.device) -> Workspace:
    """Memory for ``few_rows``; on a GPU it is let go of."""
    return _HERE.space if device.type == "cpu" else Workspace()


_HERE = _Here()


def few_rows(tensor: torch.Tensor, few: int = FEW) -> Iterator[slice]:
    """The rows that are worked on at once; far more of them on a GPU."""
    step = max(1, (few if tensor.device.type == "cpu" else FEW_THERE) // max(1, tensor.shape[1]))
    return (slice(first, min(first + step, len(tensor))) for first in range(0, len(tensor), step))


@cache
def _column_of(numbers: range, device: torch.device) -> torch.Tensor:
    """int16 [numbers, 1]"""
    return torch.tensor(numbers, dtype=torch.int16, device=device)[:, None]


@cache
def _numbers(device: torch.device) -> torch.Tensor:
    """What the 16 codes mean."""
    sizes = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0])
    return torch.cat([sizes, -sizes]).to(device)
