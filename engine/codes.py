"""How a 2-D weight is stored in few bits: its codes, scales and rotation, written exactly as ComfyUI's own.

scale = amax / largest code, codes = round_to_nearest(prepared / scale), all in fp32 from the fp32 sum. Formats with a
scale for every few columns are in microscaled.py and grouped.py.

``int8_convrot`` is the host's ``int8_tensorwise`` with one scale per row and the ConvRot rotation: every 256 columns of
a row are multiplied by a regular Hadamard matrix, which spreads outliers over the group. The host rotates the
activations the same way, so that the product is unchanged.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

import torch

from .fuse import largest, largest_of_rows, row_blocks
from .gemm import full_fp32

Entry = tuple[str, torch.dtype, tuple[int, ...]]  # what a tensor beside a weight is called, its dtype and shape
Steps = tuple[torch.Tensor, torch.Tensor]  # a scale, columns first, and its reciprocal
EXPONENT = 0x7F8 << 20  # of the bits of an fp32 number
WHOLE = 1.5 * 2.0**23  # times a power of two: added to a smaller number and taken off again, it rounds to that power
BELOW = torch.finfo(torch.float32).tiny - 2.0**-149  # the largest scale that is too small for full precision
FLOATS = ("float8", "mxfp8", "nvfp4", "per tensor")
TURNED = ("convrot", "w4a8", "w6a8")
DIVISOR = 16  # the host's 8-bit matmul kernels want both dims divisible by 16


@dataclass(frozen=True)
class Format:
    """One way to store a 2-D weight: ``codes`` [out, in] and fp32 ``scale``, one per tensor or per row (or per block).

    ``host_name`` is ComfyUI's own name, ``since`` the first ComfyUI that loads it, ``largest`` the code amax becomes.
    ``row_scaled``: a row needs no amax of the whole weight. ``group`` columns are rotated together (0: none).
    ``marked`` layers carry a ``.comfy_quant`` tensor of their own. ``plain_matmul``: the host can multiply without
    rounding the activations. ``coarse``: the gain of LoRAs is repaired, see repair.py. ``grids``: parts of the names of
    a base's forms whose weights lie on much the same grid, see dither.py.
    """

    name: str
    host_name: str
    dtype: torch.dtype
    largest: float
    since: str
    row_scaled: bool = False
    group: int = 0
    marked: bool = True
    plain_matmul: bool = True
    grids: tuple[str, ...] = FLOATS
    coarse: bool = False

    def fits(self, shape: Sequence[int]) -> bool:
        """Whether a weight of this shape can be stored so: 2-D, dims divisible by 16, columns by the group."""
        if len(shape) != 2 or 0 in shape or any(size % DIVISOR for size in shape):
            return False
        return not self.group or shape[1] % self.group == 0

    def code_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        """Shape of the stored codes of a weight [out, in]; rows beyond its own are zeros."""
        return tuple(shape)

    def beside(self, shape: Sequence[int]) -> tuple[Entry, ...]:
        """The tensors stored beside the codes of a weight [out, in], which ``stored_scales`` gives."""
        return (("weight_scale", torch.float32, self.scale_shape(shape)),)

    def scale_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        """Shape of the stored scale of a weight [out, in]: () per tensor, (out, 1) per row."""
        return (shape[0], 1) if self.row_scaled else ()

    @property
    def options(self) -> dict[str, Any]:
        """What the host must be told beside its name of the format."""
        return {"convrot": True, "convrot_groupsize": self.group} if self.group else {}

    @property
    def rounds_as_it_is(self) -> bool:
        """Whether a weight itself is rounded, so that its largest number is that of what is."""
        return not self.group

    @property
    def overwrites(self) -> bool:
        """Whether ``encode`` works in the memory of what it is given."""
        return True

    def prepare(self, block: torch.Tensor) -> torch.Tensor:
        """What is rounded: an fp32 block [rows, in] rotated, or the block itself where there is no rotation."""
        return rotate(block, self.group) if self.group else block

    def amax_of(self, prepared: torch.Tensor) -> torch.Tensor:
        """max |prepared| as an fp32 scalar, or per row [rows]; NaN stays NaN."""
        return largest_of_rows(prepared) if self.row_scaled else largest(prepared)

    def scale_of(self, amax: torch.Tensor) -> torch.Tensor:
        """fp32 amax / largest, of amax's shape; 1 where amax is 0 or too small for a scale of full precision."""
        return torch.threshold(divided(amax.to(torch.float32), self.largest), BELOW, 1.0)  # NaN stays NaN

    def scales(self, prepared: torch.Tensor, amax: torch.Tensor | None = None) -> torch.Tensor:
        """The scale of an fp32 block [rows, in] as it is worked with, rows first, or a scalar; see ``stored_scales``.

        ``amax`` is that of the whole weight, for formats that are not ``row_scaled``; None: this is the whole weight.
        """
        scale = self.scale_of(self.amax_of(prepared) if amax is None else amax)
        return scale.view(-1, 1) if scale.ndim else scale

    def stored_scales(self, scale: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The scale of all rows as it is stored: the tensors of ``beside``."""
        return (scale,)

    def read_scales(self, stored: Sequence[torch.Tensor], shape: Sequence[int]) -> torch.Tensor:
        """The scale as it is worked with, of a weight [out, in], from the tensors of ``beside``."""
        return stored[0]

    def encode(self, prepared: torch.Tensor, scale: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
        """Codes [rows, in], each the nearest to prepared / scale; scale is a scalar, [rows] or [rows, 1].

        ``prepared`` is overwritten: nothing of its size is allocated.
        """
        codes = torch.empty(prepared.shape, dtype=self.dtype, device=prepared.device) if out is None else out
        column = _column(scale)
        for rows in row_blocks(prepared) if prepared.ndim else ():
            self._round(prepared[rows], column[rows] if column.ndim else column, codes[rows])
        return codes

    def _round(self, prepared: torch.Tensor, column: torch.Tensor, codes: torch.Tensor) -> None:
        """Write the codes of a block; one scale for all is multiplied by its reciprocal, as in ComfyUI."""
        exact = prepared.div_(column) if column.ndim else prepared.mul_(column.reciprocal())
        codes.copy_(exact if self.dtype.is_floating_point else exact.round_())

    def steps(self, scale: torch.Tensor) -> Steps:
        """The scale of a prepared weight as ``nearest`` takes it, and what numbers are multiplied by to be in steps."""
        step = scale.t().contiguous()[0] if scale.ndim else scale
        return step, step.reciprocal()

    def nearest(self, column: torch.Tensor, steps: Steps, number: int) -> torch.Tensor:
        """What is stored of column ``number`` [rows] of a prepared weight, read back in fp32."""
        step, per_step = steps
        return self._near(column * per_step).mul_(step)

    def _near(self, exact: torch.Tensor) -> torch.Tensor:
        """Numbers in steps, in place, rounded to codes."""
        exact.clamp_(-self.largest, self.largest)
        if not self.dtype.is_floating_point:
            return exact.round_()
        info = torch.finfo(self.dtype)  # on the bits: casts to fp8 and back take twice as long
        grid = (exact.view(torch.int32) & number_of(EXPONENT, exact.device)).view(torch.float32).clamp_(min=info.tiny)
        grid.mul_(number_of(WHOLE * info.eps, exact.device))
        return exact.add_(grid).sub_(grid)

    def saturated(self, prepared: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        """A prepared block [rows, in], in place, without numbers beyond the largest code."""
        most = self.largest * _column(scale)
        return prepared.clamp_(-most, most)

    def decode(self, codes: torch.Tensor, scale: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
        """The fp32 weight [rows, in] that the host computes with: codes times scale, rotated back."""
        out = torch.empty(codes.shape, device=codes.device) if out is None else out
        return self.prepare(out.copy_(codes).mul_(_column(scale)))  # a regular Hadamard is its own inverse


def divided(numbers: torch.Tensor, by: float) -> torch.Tensor:
    """numbers / by, rounded once: on CUDA torch multiplies by the reciprocal where it is given a number of Python."""
    return numbers / number_of(by, numbers.device)


@lru_cache(maxsize=None, typed=True)  # 1 and 1.0 are two numbers here
def number_of(value: float, device: torch.device) -> torch.Tensor:
    """A number as a scalar, fp32 or int32; torch makes one of a number of Python each time, in 2 us."""
    return torch.full((), value, dtype=torch.int32 if isinstance(value, int) else torch.float32, device=device)


def whole_scale(found: Sequence[torch.Tensor]) -> torch.Tensor:
    """The scale of a weight, of those of its blocks of rows; a scalar is that of all."""
    return torch.cat(list(found)) if found[0].ndim and len(found) > 1 else found[0]


def rotate(block: torch.Tensor, group: int) -> torch.Tensor:
    """Every ``group`` (a power of 4) columns of an fp32 block [rows, in] times their Hadamard matrix.

    Twice gives the block again. The matrix is the Kronecker product of two small ones: two thin matrix products instead
    of one thick one, in a quarter of the time.
    """
    right = 4 ** (group.bit_length() // 4)
    left = group // right
    with full_fp32():
        across = torch.mm(block.reshape(-1, right), hadamard(right, block.device)).view(-1, left, right)
        return torch.matmul(hadamard(left, block.device), across).view(block.shape)


@cache
def hadamard(size: int, device: torch.device) -> torch.Tensor:
    """Regular Hadamard matrix [size, size] in fp32, symmetric and orthogonal; size is a power of 4."""
    step = 1.0 - 2.0 * torch.eye(4).flip(0)
    matrix = torch.ones(1, 1)
    while matrix.shape[0] < size:
        matrix = torch.kron(matrix, step)
    return (matrix / math.sqrt(size)).to(device)


def _column(scale: torch.Tensor) -> torch.Tensor:
    return scale.reshape(-1, 1) if scale.ndim else scale
