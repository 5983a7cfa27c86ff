"""Base + low-rank products in two passes that leave no sum in memory: its amax, then its codes. Only where Triton is.

Products and sums are fp32, rounding is done on the bits, to the nearest and to even: the same on every card, also where
it has no fp8 of its own, and in Triton's interpreter on a CPU.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from triton.errors import TritonError

FAULTS: tuple[type[Exception], ...] = (TritonError,)
BLOCK_ROWS, BLOCK_COLUMNS, BLOCK_RANKS = 64, 64, 16
# dtype of the codes -> (bits of the mantissa, bias of the exponent, dtype of the same size that holds the bits)
CODES = {
    torch.float8_e4m3fn: (3, 7, torch.int8),
    torch.float8_e5m2: (2, 15, torch.int8),
    torch.bfloat16: (7, 127, torch.int16),
}


@triton.jit  # type: ignore[untyped-decorator]
def _sum(
    weight: Any, up: Any, down: Any, rows: Any, columns: Any, stride: Any, height: Any, width: Any, inside: Any,
    RANKS: tl.constexpr, BLOCK: tl.constexpr,
) -> Any:  # fmt: skip
    """weight + up @ down in fp32 for a block of row and column numbers."""
    acc = tl.load(weight + rows[:, None].to(tl.int64) * stride + columns[None, :], mask=inside, other=0.0)
    acc = acc.to(tl.float32)
    for first in tl.static_range(0, RANKS, BLOCK):
        ranks = first + tl.arange(0, BLOCK)
        known = ranks < RANKS
        left = tl.load(
            up + rows[:, None] * RANKS + ranks[None, :], mask=(rows[:, None] < height) & known[None, :], other=0.0
        )
        right = tl.load(
            down + ranks[:, None] * width + columns[None, :],
            mask=known[:, None] & (columns[None, :] < width),
            other=0.0,
        )
        acc += tl.dot(left, right, input_precision="ieee")
    return acc


@triton.jit  # type: ignore[untyped-decorator]
def _amax_kernel(
    weight: Any, up: Any, down: Any, amax: Any, stride: Any, height: Any, width: Any,
    RANKS: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, BLOCK: tl.constexpr,
) -> None:  # fmt: skip
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    columns = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    inside = (rows[:, None] < height) & (columns[None, :] < width)
    acc = _sum(weight, up, down, rows, columns, stride, height, width, inside, RANKS, BLOCK)
    size = tl.where(acc == acc, tl.abs(acc), float("inf"))  # NaN counts as Inf
    tl.atomic_max(amax, tl.max(tl.max(tl.where(inside, size, 0.0), axis=1), axis=0))


@triton.jit  # type: ignore[untyped-decorator]
def _codes_kernel(
    weight: Any, up: Any, down: Any, factor: Any, out: Any, stride: Any, height: Any, width: Any,
    RANKS: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, BLOCK: tl.constexpr,
    BITS: tl.constexpr, BIAS: tl.constexpr, SIGN: tl.constexpr,
) -> None:  # fmt: skip
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    columns = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    inside = (rows[:, None] < height) & (columns[None, :] < width)
    exact = _sum(weight, up, down, rows, columns, stride, height, width, inside, RANKS, BLOCK) * tl.load(factor)
    bits = exact.to(tl.int32, bitcast=True)
    size = bits & 0x7FFFFFFF
    SHIFT: tl.constexpr = 23 - BITS
    code = ((size + ((1 << (SHIFT - 1)) - 1) + ((size >> SHIFT) & 1)) >> SHIFT) - ((127 - BIAS) << BITS)
    if BIAS < 127:  # numbers below the smallest normal one are multiples of a fixed step
        steps = tl.abs(exact) * (2.0 ** (BIAS - 1 + BITS))
        code = tl.where(tl.abs(exact) < 2.0 ** (1 - BIAS), ((steps + 12582912.0) - 12582912.0).to(tl.int32), code)
    code = tl.where(exact == exact, code, (1 << SIGN) - 1)  # NaN
    code = code | (((bits >> 31) & 1) << SIGN)
    place = rows[:, None].to(tl.int64) * width + columns[None, :]
    tl.store(out + place, code.to(out.dtype.element_ty), mask=inside)


def sum_amax(weight: torch.Tensor, up: torch.Tensor, down: torch.Tensor) -> torch.Tensor:
    """max |weight + up @ down| as an fp32 scalar, Inf for NaN; weight [rows, columns], up and down contiguous fp32."""
    amax = torch.zeros(1, dtype=torch.float32, device=weight.device)
    height, width = weight.shape
    grid = (triton.cdiv(height, BLOCK_ROWS), triton.cdiv(width, BLOCK_COLUMNS))
    _amax_kernel[grid](
        weight, up, down, amax, weight.stride(0), height, width, up.shape[1], BLOCK_ROWS, BLOCK_COLUMNS, BLOCK_RANKS
    )
    return amax[0]


def sum_codes(
    weight: torch.Tensor, up: torch.Tensor, down: torch.Tensor, factor: torch.Tensor, out: torch.Tensor
) -> None:
    """(weight + up @ down) * factor rounded into the contiguous ``out``, whose dtype is one of ``CODES``."""
    bits, bias, stored = CODES[out.dtype]
    height, width = weight.shape
    grid = (triton.cdiv(height, BLOCK_ROWS), triton.cdiv(width, BLOCK_COLUMNS))
    _codes_kernel[grid](
        weight, up, down, factor, out.view(stored), weight.stride(0), height, width, up.shape[1],
        BLOCK_ROWS, BLOCK_COLUMNS, BLOCK_RANKS, bits, bias, 8 * stored.itemsize - 1,
    )  # fmt: skip
