"""The quantization formats as data: their codes, scales and rotation, written exactly as ComfyUI's own.

scale = amax / largest code, codes = round_to_nearest(prepared / scale), all in fp32 from the fp32 sum.

``int8_convrot`` is the host's ``int8_tensorwise`` with one scale per row and the ConvRot rotation: every 256 columns of
a row are multiplied by a regular Hadamard matrix, which spreads outliers over the group. The host rotates the
activations the same way, so that the product is unchanged.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch

from .fuse import largest, row_blocks
from .gemm import full_fp32
from .texts.say import refuse

DIVISOR = 16  # the host's 8-bit matmul kernels want both dims divisible by 16


@dataclass(frozen=True)
class Format:
    """One way to store a 2-D weight in 8 bits: ``codes`` [out, in] and fp32 ``scale``, one per tensor or per row.

    ``host_name`` is ComfyUI's own name, ``since`` the first ComfyUI that loads it, ``largest`` the code amax becomes.
    ``group`` columns are rotated together (0: none). ``marked`` layers carry a ``.comfy_quant`` tensor of their own.
    """

    name: str
    host_name: str
    dtype: torch.dtype
    largest: float
    since: str
    row_scaled: bool = False
    group: int = 0
    marked: bool = True

    def fits(self, shape: Sequence[int]) -> bool:
        """Whether a weight of this shape can be stored so: 2-D, dims divisible by 16, columns by the group."""
        if len(shape) != 2 or 0 in shape or any(size % DIVISOR for size in shape):
            return False
        return not self.group or shape[1] % self.group == 0

    def scale_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        """Shape of the stored scale of a weight [out, in]: () per tensor, (out, 1) per row."""
        return (shape[0], 1) if self.row_scaled else ()

    @property
    def options(self) -> dict[str, Any]:
        """What the host must be told beside its name of the format."""
        return {"convrot": True, "convrot_groupsize": self.group} if self.group else {}

    def prepare(self, block: torch.Tensor) -> torch.Tensor:
        """What is rounded: an fp32 block [rows, in] rotated, or the block itself where there is no rotation."""
        return rotate(block, self.group) if self.group else block

    def amax_of(self, prepared: torch.Tensor) -> torch.Tensor:
        """max |prepared| as an fp32 scalar, or per row [rows]; NaN stays NaN."""
        return prepared.abs().amax(dim=1) if self.row_scaled else largest(prepared)

    def scale_of(self, amax: torch.Tensor) -> torch.Tensor:
        """fp32 amax / largest, of amax's shape; 1 where amax is 0 or too small for a scale of full precision."""
        scale = amax.to(torch.float32) / self.largest
        return torch.where(scale < torch.finfo(torch.float32).tiny, 1.0, scale)  # NaN stays NaN

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

    def decode(self, codes: torch.Tensor, scale: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
        """The fp32 weight [rows, in] that the host computes with: codes times scale, rotated back."""
        out = torch.empty(codes.shape, device=codes.device) if out is None else out
        return self.prepare(out.copy_(codes).mul_(_column(scale)))  # a regular Hadamard is its own inverse


FORMATS = {
    each.name: each
    for each in (
        Format("float8_e4m3fn", "float8_e4m3fn", torch.float8_e4m3fn, 448.0, "0.3.75", marked=False),
        Format("float8_e5m2", "float8_e5m2", torch.float8_e5m2, 57344.0, "0.28"),
        Format("int8_convrot", "int8_tensorwise", torch.int8, 127.0, "0.28", row_scaled=True, group=256),
    )
}
DEFAULT = FORMATS["float8_e4m3fn"]


def quantize(weight: torch.Tensor, format: Format, name: str = "weight") -> tuple[torch.Tensor, torch.Tensor]:
    """(codes, scale of ``format.scale_shape``) of an fp32 weight [out, in]; FoundryError LF304 for NaN or Inf."""
    amax = finite_amax(weight, name)
    if not format.row_scaled:
        scale = format.scale_of(amax)
        return format.encode(weight.clone(), scale), scale
    codes = torch.empty(weight.shape, dtype=format.dtype, device=weight.device)
    scale = torch.empty(format.scale_shape(weight.shape), dtype=torch.float32, device=weight.device)
    for rows in row_blocks(weight):
        prepared = format.prepare(weight[rows].clone())
        scale[rows, 0] = format.scale_of(format.amax_of(prepared))
        format.encode(prepared, scale[rows], codes[rows])
    finite_amax(scale, name)  # a rotation can overflow where the weight does not
    return codes, scale


def loadable(layouts: Mapping[str, object]) -> tuple[str, ...]:
    """Names of the formats a host loads; ``layouts`` has its own formats' tensor classes by their host names."""
    return tuple(
        name
        for name, each in FORMATS.items()
        if each.host_name in layouts
        and all(hasattr(getattr(layouts[each.host_name], "Params", None), option) for option in each.options)
    )


def require_loadable(name: str, known: Sequence[str]) -> None:
    """FoundryError ``format`` for one of our formats that is not among those a host loads."""
    if name in FORMATS and name not in known:
        loads = " and ".join(known) or "no quantized format"
        raise refuse("format.not_loaded", format=name, known=loads, since=FORMATS[name].since)


def finite_amax(weight: torch.Tensor, name: str) -> torch.Tensor:
    """max |weight| as an fp32 scalar; FoundryError LF304 when the tensor holds NaN or Inf."""
    if weight.numel() == 0:
        return torch.zeros((), dtype=torch.float32, device=weight.device)
    amax = largest(weight)
    if not math.isfinite(amax.item()):
        bad = int((~torch.isfinite(weight)).sum())
        raise refuse("LF304.result", weight=name, bad=bad, all=weight.numel())
    return amax


def require_finite(weight: torch.Tensor, name: str) -> None:
    """FoundryError LF304 when the tensor holds NaN or Inf; a sum finds both, and is finite for all but huge numbers."""
    if not math.isfinite(weight.sum().item()):
        finite_amax(weight, name)


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
