"""w4a8 and w6a8: rotated weights in 4 or 6 bits, which the host turns into int8 as it multiplies.

ComfyUI's ``asym_w4a8_int8``: a level is round(code * the scale of 16 columns), an int8 number, times the scale of its
row. Of 4-bit codes a table says what they mean, 6-bit codes are whole numbers from -31 to 31. The scale of 16 columns
is that of a few e4m3 codes around their largest number with the smallest squared error.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch

from .codes import Entry, Format, Steps, divided, number_of
from .gemm import Workspace
from .microscaled import E4M3, E4M3_CODES, few_rows, small_space
from .packing import nibbles, pack_nibbles

BLOCK = 16
LEVELS = 127  # of int8
# The levels with the least squared error for Gaussian numbers over the largest of 16. Kernels of comfy-kitchen (Apache
# 2.0, where these numbers come from) are fast for this table only.
CODEBOOK = (
    -0.980602, -0.794529, -0.638165, -0.500986, -0.377321, -0.263187, -0.155210, -0.050720,
    0.052541, 0.156985, 0.265284, 0.379533, 0.502636, 0.638953, 0.794876, 0.980671,
)  # fmt: skip
STEPS = 1024  # of the table from a number to its nearest level, per unit


@dataclass(frozen=True)
class Grouped(Format):
    """``bits`` 4 or 6. The scale is worked with as fp32 [rows, in / 16 + 1], that of the row in the last column.

    ``searched``: which e4m3 codes around the largest number are tried for the scale of 16 columns.
    """

    bits: int = 4
    searched: range = range(-3, 3)
    codebook: tuple[float, ...] = CODEBOOK

    @property
    def options(self) -> dict[str, Any]:
        """What the host must be told beside its name of the format; the width of the codes tells their bits."""
        return {"group_size": BLOCK, "convrot_groupsize": self.group}

    def code_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        """``bits`` bits a column."""
        return shape[0], shape[1] * self.bits // 8

    def beside(self, shape: Sequence[int]) -> tuple[Entry, ...]:
        """Scales of 16 columns and of rows, and the table."""
        relative: Entry = ("weight_s_rel", E4M3, (shape[0], shape[1] // BLOCK))
        table: tuple[Entry, ...] = (("weight_codebook", torch.float32, (len(CODEBOOK),)),) if self.bits == 4 else ()
        return (relative, ("weight_s_channel", torch.float32, (shape[0],)), *table)

    def stored_scales(self, scale: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The tensors of ``beside``."""
        table = (_levels_of(self.codebook, scale.device).clone(),) if self.bits == 4 else ()
        return (scale[:, :-1].to(E4M3), scale[:, -1].contiguous(), *table)

    def read_scales(self, stored: Sequence[torch.Tensor], shape: Sequence[int]) -> torch.Tensor:
        """[rows, in / 16 + 1]"""
        return torch.cat([stored[0].to(torch.float32), stored[1].to(torch.float32).reshape(-1, 1)], 1)

    @property
    def _top(self) -> float:
        """What the largest of 16 numbers becomes."""
        return self.codebook[-1] if self.bits == 4 else 31.0

    def scales(self, prepared: torch.Tensor, amax: torch.Tensor | None = None) -> torch.Tensor:
        """The scale of each row, and the e4m3 scale of every 16 columns that is the best."""
        found = torch.empty(len(prepared), prepared.shape[1] // BLOCK + 1, device=prepared.device)
        space = small_space(prepared.device)
        for rows in few_rows(prepared):
            found[rows, -1] = self.scale_of(self.amax_of(prepared[rows]))
            found[rows, :-1] = self._search(prepared[rows] / found[rows, -1:], space)
        return found

    def _search(self, exact: torch.Tensor, space: Workspace) -> torch.Tensor:
        """fp32 [rows, in / 16] e4m3 numbers; ``exact`` [rows, in] is in steps of int8."""
        device, shape = exact.device, (BLOCK, exact.numel() // BLOCK)
        blocks = space.take(shape, device, slot="blocks").copy_(exact.view(-1, BLOCK).t())
        first = divided(blocks.abs().amax(0), self._top).to(E4M3).view(torch.uint8).to(torch.int16)
        best, least = torch.ones(shape[1:], device=device), torch.full(shape[1:], float("inf"), device=device)
        for step in self.searched:
            scale = (first + step).clamp_(1, E4M3_CODES).to(torch.uint8).view(E4M3).to(torch.float32)
            scaled = torch.mul(blocks, scale.reciprocal(), out=space.take(shape, device, slot="scaled"))
            levels = self._levels(self._codes(scaled, space), scale, space)
            off = levels.sub_(blocks).square_().sum(0)
            better = off < least
            best, least = torch.where(better, scale, best), torch.where(better, off, least)
        return best.view(len(exact), -1)

    def _codes(self, scaled: torch.Tensor, space: Workspace) -> torch.Tensor:
        """The nearest codes of numbers over their scale, as int32 (4 bits: places in a table); ``scaled`` goes."""
        if self.bits == 6:
            return scaled.round_().clamp_(-31, 31)
        places = space.take(scaled.shape, scaled.device, torch.int32, "places")
        return places.copy_(scaled.mul_(STEPS).add_(STEPS + 0.5)).clamp_(0, 2 * STEPS)  # NaN is no place

    def _levels(self, codes: torch.Tensor, scale: torch.Tensor, space: Workspace) -> torch.Tensor:
        """The int8 numbers, as fp32, of what ``_codes`` gave."""
        if self.bits == 4:
            levels = space.take(codes.shape, codes.device, slot="levels")
            torch.index_select(_nearest_level(self.codebook, codes.device), 0, codes.view(-1), out=levels.view(-1))
            codes = levels
        return codes.mul_(scale).round_().clamp_(-LEVELS, LEVELS)

    def encode(self, prepared: torch.Tensor, scale: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
        """int8 codes [rows, in * bits / 8], the even column in the low half of a byte."""
        if out is None:
            out = torch.empty(self.code_shape(prepared.shape), dtype=torch.int8, device=prepared.device)
        space = small_space(prepared.device)
        for rows in few_rows(prepared):
            part = scale[rows]
            whole = part[:, :-1] * part[:, -1:]
            blocks = prepared[rows].view(len(part), -1, BLOCK)
            blocks.div_(whole[..., None])
            codes = self._picked(blocks.view(len(part), -1), part[:, :-1], space)
            _pack(codes, self.bits, out[rows].view(torch.uint8))
        return out

    def _picked(self, scaled: torch.Tensor, scale: torch.Tensor, space: Workspace) -> torch.Tensor:
        """The nearest codes, uint8 as they are stored; ``scaled`` [rows, in] is over the scales, and goes."""
        codes = self._codes(scaled, space)
        if self.bits == 6:
            return codes.add_(32).to(torch.uint8)
        return torch.index_select(_nearest_code(self.codebook, codes.device), 0, codes.view(-1)).view(codes.shape)

    def levels(self, codes: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        """fp32 [rows, in] int8 numbers that stored codes (any integers) mean under the scales of 16 columns."""
        if self.bits == 4:
            numbers = torch.index_select(_levels_of(self.codebook, codes.device), 0, codes.int().view(-1))
        else:
            numbers = codes.to(torch.float32).sub_(32)
        blocks = numbers.view(len(codes), -1, BLOCK)
        return blocks.mul_(scale[..., None]).round_().clamp_(-LEVELS, LEVELS).view(codes.shape)

    def steps(self, scale: torch.Tensor) -> Steps:
        """As ``Format.steps``: the scales as they are, [in / 16 + 1, rows], and what makes codes (4 bits: places) of
        numbers."""
        per_code = (scale[:, :-1] * scale[:, -1:]).t().contiguous().reciprocal()
        return scale.t().contiguous(), per_code * STEPS if self.bits == 4 else per_code  # a power of two: exact

    def nearest(self, column: torch.Tensor, steps: Steps, number: int) -> torch.Tensor:
        """As ``Format.nearest``."""
        whole, relative = steps[0][-1], steps[0][number // BLOCK]
        codes = column * steps[1][number // BLOCK]
        if self.bits == 4:
            places = codes.add_(number_of(STEPS + 0.5, column.device)).clamp_(0, 2 * STEPS).to(torch.int32)
            codes = torch.index_select(_nearest_level(self.codebook, column.device), 0, places)
        else:
            codes.round_().clamp_(-31, 31)
        return codes.mul_(relative).round_().clamp_(-LEVELS, LEVELS).mul_(whole)

    def saturated(self, prepared: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        """Nothing to do: the largest code takes what is beyond it."""
        return prepared

    def decode(self, codes: torch.Tensor, scale: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
        """The fp32 weight [rows, in] that the host computes with."""
        columns = codes.shape[1] * 8 // self.bits
        out = torch.empty(len(codes), columns, device=codes.device) if out is None else out
        numbers = _unpacked(codes.view(torch.uint8), columns, self.bits)
        if self.bits == 4:
            torch.index_select(_levels_of(self.codebook, codes.device), 0, numbers.int().view(-1), out=out.view(-1))
        else:
            out.copy_(numbers).sub_(32)
        blocks = out.view(len(codes), -1, BLOCK)
        blocks.mul_(scale[:, :-1, None]).round_().clamp_(-LEVELS, LEVELS)
        return self.prepare(out.mul_(scale[:, -1:]))  # a regular Hadamard is its own inverse


def _pack(codes: torch.Tensor, bits: int, out: torch.Tensor) -> None:
    """uint8 codes [rows, in] into bytes: a plane of their low 4 bits, then one of the high 2 of 6."""
    half = codes.shape[1] // 2
    low = codes & 15
    pack_nibbles(low[:, 0::2], low[:, 1::2], out[:, :half])
    if bits == 6:
        high = (codes >> 4).view(len(codes), -1, 4)
        out[:, half:] = high[..., 0] | high[..., 1] << 2 | high[..., 2] << 4 | high[..., 3] << 6


def _unpacked(packed: torch.Tensor, columns: int, bits: int) -> torch.Tensor:
    """uint8 codes [rows, columns]."""
    codes = packed.new_empty(len(packed), columns)
    codes[:, 0::2], codes[:, 1::2] = nibbles(packed[:, : columns // 2])
    if bits == 6:
        for place in range(4):
            codes[:, place::4] |= (packed[:, columns // 2 :] >> 2 * place & 3) << 4
    return codes


@cache
def _levels_of(codebook: tuple[float, ...], device: torch.device) -> torch.Tensor:
    return torch.tensor(codebook, device=device)


@cache
def _nearest_code(codebook: tuple[float, ...], device: torch.device) -> torch.Tensor:
    """uint8 [2 * STEPS + 1]: the code whose level is nearest to (place - STEPS) / STEPS."""
    numbers = torch.arange(-STEPS, STEPS + 1, dtype=torch.float64) / STEPS
    levels = torch.tensor(codebook, dtype=torch.float64)
    return (numbers[:, None] - levels).abs().argmin(1).to(torch.uint8).to(device)


@cache
def _nearest_level(codebook: tuple[float, ...], device: torch.device) -> torch.Tensor:
    """The same as fp32 levels."""
    return _levels_of(codebook, device)[_nearest_code(codebook, device).int()]
