"""Base + low-rank products in passes that leave no sum in memory: its amax, its codes, its measure. Only with Triton.

Weights of one shape that lie at equal distances in memory, with their factors, are worked on together. What a kernel
is given has no annotation: see triton_parts.py.

Of several weights the peaks come first, then, where each row has a scale of its own, those of all rows.
"""

# ruff: noqa: ANN001, ANN202

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from triton.errors import TritonError

from .alike import MOST, Sums
from .codes import Format
from .triton_parts import code_of, moved, rotated, step_of, tell, term, total, value_of, whole

FAULTS: tuple[type[Exception], ...] = (TritonError,)
ROWS, COLUMNS, RANKS, SAMPLED = 64, 64, 16, 16  # of a block: rows, columns, ranks; sampled rows
FEW_ROWS, GROUP = 16, 256  # of a block that is rotated
# dtype of the codes -> (bits of the mantissa, bias of the exponent, dtype of the same size that holds the bits)
CODES = {
    torch.float8_e4m3fn: (3, 7, torch.int8),
    torch.float8_e5m2: (2, 15, torch.int8),
    torch.bfloat16: (7, 127, torch.int16),
    torch.int8: (0, 0, torch.int8),
}
# How many ranks and rows there are must not decide what is compiled; what decides how memory is read may.
NUMBERS = [*(f"{name}{at}" for name in ("r", "s") for at in range(MOST)), "height", "every", "samples", "largest"]


@triton.jit(do_not_specialize=NUMBERS)  # type: ignore[untyped-decorator]
def _amax_kernel(  # type: ignore[no-untyped-def]
    weight, u0, u1, u2, u3, u4, u5, u6, u7,
    d0, d1, d2, d3, d4, d5, d6, d7,
    r0, r1, r2, r3, r4, r5, r6, r7,
    s0, s1, s2, s3, s4, s5, s6, s7,
    stride, height, width, shift, peak,
    COUNT: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, BLOCK: tl.constexpr,
    ROTATED: tl.constexpr,
):  # fmt: skip
    across, number = tl.cdiv(width, COLUMNS), tl.program_id(1)
    rows = tl.program_id(0) // across * ROWS + tl.arange(0, ROWS)
    columns = tl.program_id(0) % across * COLUMNS + tl.arange(0, COLUMNS)
    inside = (rows[:, None] < height) & (columns[None, :] < width)
    acc = total(
        weight,
        u0, u1, u2, u3, u4, u5, u6, u7, d0, d1, d2, d3, d4, d5, d6, d7,
        r0, r1, r2, r3, r4, r5, r6, r7, s0, s1, s2, s3, s4, s5, s6, s7,
        rows, columns, inside, stride, height, width, number.to(tl.int64) * shift, COUNT, BLOCK,
    )  # fmt: skip
    if ROTATED:
        acc = rotated(acc, ROWS)
    size = tl.where(acc == acc, tl.abs(acc), float("inf"))  # NaN counts as Inf
    most = tl.max(tl.where(inside, size, 0.0), axis=1)
    if ROTATED:
        tl.atomic_max(peak + tl.num_programs(1) + number.to(tl.int64) * height + rows, most, mask=rows < height)
    tl.atomic_max(peak + number, tl.max(most, axis=0))


@triton.jit(do_not_specialize=NUMBERS)  # type: ignore[untyped-decorator]
def _codes_kernel(  # type: ignore[no-untyped-def]
    weight, u0, u1, u2, u3, u4, u5, u6, u7,
    d0, d1, d2, d3, d4, d5, d6, d7,
    r0, r1, r2, r3, r4, r5, r6, r7,
    s0, s1, s2, s3, s4, s5, s6, s7,
    stride, height, width, shift, peak, scale, out, largest,
    COUNT: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, BLOCK: tl.constexpr,
    BITS: tl.constexpr, BIAS: tl.constexpr, SIGN: tl.constexpr, SCALED: tl.constexpr, ROTATED: tl.constexpr,
):  # fmt: skip
    across, number = tl.cdiv(width, COLUMNS), tl.program_id(1)
    rows = tl.program_id(0) // across * ROWS + tl.arange(0, ROWS)
    columns = tl.program_id(0) % across * COLUMNS + tl.arange(0, COLUMNS)
    inside = (rows[:, None] < height) & (columns[None, :] < width)
    exact = total(
        weight,
        u0, u1, u2, u3, u4, u5, u6, u7, d0, d1, d2, d3, d4, d5, d6, d7,
        r0, r1, r2, r3, r4, r5, r6, r7, s0, s1, s2, s3, s4, s5, s6, s7,
        rows, columns, inside, stride, height, width, number.to(tl.int64) * shift, COUNT, BLOCK,
    )  # fmt: skip
    if ROTATED:
        line, known = number.to(tl.int64) * height + rows, rows < height
        step = step_of(tl.load(peak + tl.num_programs(1) + line, mask=known, other=1.0), largest)
        tl.store(scale + line, step, mask=known & (tl.program_id(0) % across == 0))
        code = whole(tl.div_rn(rotated(exact, ROWS), tl.broadcast_to(step[:, None], (ROWS, COLUMNS))))
    else:
        if SCALED:
            step = step_of(tl.load(peak + number), largest)
            tl.store(scale + number, step, mask=tl.program_id(0) == 0)
            exact = exact * tl.div_rn(1.0, step)
        code = code_of(exact, BITS, BIAS, SIGN)
    if not SCALED:  # nobody has looked whether all numbers are finite, and stay so
        bad = inside & ((code & ((1 << SIGN) - 1)) >= (255 << BITS))
        tl.atomic_max(peak + number, tl.max(tl.max(tl.where(bad, float("inf"), 0.0), axis=1), axis=0))
    place = (number.to(tl.int64) * height + rows[:, None]) * width + columns[None, :]
    tl.store(out + place, code.to(out.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=NUMBERS)  # type: ignore[untyped-decorator]
def _measure_kernel(  # type: ignore[no-untyped-def]
    weight, u0, u1, u2, u3, u4, u5, u6, u7,
    d0, d1, d2, d3, d4, d5, d6, d7,
    r0, r1, r2, r3, r4, r5, r6, r7,
    s0, s1, s2, s3, s4, s5, s6, s7,
    stride, height, width, shift, peak, scale, out, told, every,
    samples,
    COUNT: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, BLOCK: tl.constexpr,
    BITS: tl.constexpr, BIAS: tl.constexpr, SIGN: tl.constexpr, SCALED: tl.constexpr, ROTATED: tl.constexpr,
    SAME: tl.constexpr,
):  # fmt: skip
    across, number = tl.cdiv(width, COLUMNS), tl.program_id(1)
    numbers = tl.program_id(0) // across * ROWS + tl.arange(0, ROWS)
    rows = tl.where(numbers < samples, numbers * every, height)  # what is no sample is outside
    columns = tl.program_id(0) % across * COLUMNS + tl.arange(0, COLUMNS)
    inside = (rows[:, None] < height) & (columns[None, :] < width)
    offset = number.to(tl.int64) * shift
    place = moved(weight, offset) + rows[:, None].to(tl.int64) * stride + columns[None, :]
    base = tl.load(place, mask=inside, other=0.0).to(tl.float32)
    zeros = tl.zeros((ROWS, COLUMNS), tl.float32)
    exact = base.to(tl.float64)
    for at in tl.static_range(COUNT):
        delta = term(
            at, zeros, u0, u1, u2, u3, u4, u5, u6, u7, d0, d1, d2, d3, d4, d5, d6, d7, r0, r1, r2, r3, r4, r5, r6, r7,
            s0, s1, s2, s3, s4, s5, s6, s7, rows, columns, height, width, offset, BLOCK,
        )  # fmt: skip
        exact += delta.to(tl.float64)
    line = number.to(tl.int64) * height + rows
    code = tl.load(out + line[:, None] * width + columns[None, :], mask=inside, other=0).to(tl.int32)
    if ROTATED:  # once more is back again
        value = rotated(code.to(tl.float32) * tl.load(scale + line, mask=rows < height, other=0.0)[:, None], ROWS)
    else:
        value = value_of(code, BITS, BIAS, SIGN)
        if SCALED:
            value = value * tl.load(scale + number)
    error = value.to(tl.float64) - exact
    told += (number.to(tl.int64) * tl.num_programs(0) + tl.program_id(0)) * (4 + 3 * COUNT)
    first = tl.program_id(0) == 0
    tl.store(told, tl.where(first, tl.load(peak + number), 0.0).to(tl.float64))
    if SAME:
        tell(told + 1, tl.where(inside & (value != base), 1.0, 0.0).to(tl.float64))
    else:
        tl.store(told + 1, tl.where(first, 1.0, 0.0).to(tl.float64))
    tell(told + 2, error * error)
    tell(told + 3, exact * exact)
    for at in tl.static_range(COUNT):
        delta = term(
            at, zeros, u0, u1, u2, u3, u4, u5, u6, u7, d0, d1, d2, d3, d4, d5, d6, d7, r0, r1, r2, r3, r4, r5, r6, r7,
            s0, s1, s2, s3, s4, s5, s6, s7, rows, columns, height, width, offset, BLOCK,
        ).to(tl.float64)  # fmt: skip
        tell(told + 4 + 3 * at, error * delta)
        tell(told + 5 + 3 * at, delta * delta)
        tell(told + 6 + 3 * at, error * delta * error * delta)


def add_peaks(sums: Sums, rotates: bool, peak: torch.Tensor) -> None:
    """Raise fp32 ``peak`` [count] to max |weight + products| of each, Inf for NaN.

    ``rotates``: of each one rotated, and behind them [count * rows] those of all rows.
    """
    _launch(_amax_kernel, sums, sums.weight.shape[0], _tile(ROWS, rotates), (peak,), (rotates,))


def write_codes(sums: Sums, out: torch.Tensor, format: Format | None, peak: torch.Tensor, scale: torch.Tensor) -> None:
    """Round each sum into the contiguous ``out`` [count, rows, columns], whose dtype is one of ``CODES``.

    ``format``: what ``peak`` says becomes its largest code; the fp32 ``scale`` [count] is written, or that of all rows
    [count * rows]. None: there is no scale, and ``peak`` becomes Inf where a result is not finite.
    """
    bits, bias, stored = CODES[out.dtype]
    largest, rotates = (1.0, False) if format is None else (format.largest, bool(format.group))
    settings = (bits, bias, 8 * stored.itemsize - 1, format is not None, rotates)
    given = (peak, scale, out.view(stored), largest)
    _launch(_codes_kernel, sums, sums.weight.shape[0], _tile(ROWS, rotates), given, settings)


def measures(
    sums: Sums, out: torch.Tensor, rows: range, format: Format | None, peak: torch.Tensor, scale: torch.Tensor
) -> torch.Tensor:
    """fp64 [count, 4 + 3 * products] of the sampled rows of ``out``: what ``Unread`` takes of each result."""
    bits, bias, stored = CODES[out.dtype]
    rotates = format is not None and bool(format.group)
    tile = _tile(SAMPLED, rotates)
    blocks = _blocks(len(rows), sums.weight.shape[1], tile)
    told = torch.empty(sums.count, blocks, 4 + 3 * len(sums.products), dtype=torch.float64, device=sums.weight.device)
    given = (peak, scale, out.view(stored), told, rows.step, len(rows))
    settings = (bits, bias, 8 * stored.itemsize - 1, format is not None, rotates, out.dtype == sums.weight.dtype)
    _launch(_measure_kernel, sums, len(rows), tile, given, settings)
    return told.sum(1)


def _tile(rows: int, rotates: bool) -> tuple[int, int]:
    """Rows and columns of a block: what is rotated together lies in one."""
    return (FEW_ROWS, GROUP) if rotates else (rows, COLUMNS)


def _blocks(height: int, width: int, tile: tuple[int, int]) -> int:
    blocks: int = triton.cdiv(height, tile[0]) * triton.cdiv(width, tile[1])
    return blocks


def _launch(
    kernel: Any, sums: Sums, height: int, tile: tuple[int, int], given: tuple[Any, ...], settings: tuple[Any, ...]
) -> None:
    """One program for each block of ``height`` rows of every weight; the first axis of a grid has no narrow limit."""
    ups, downs, ranks, scales = sums.factors
    grid = (_blocks(height, sums.weight.shape[1], tile), sums.count)
    shape = (sums.weight.stride(0), *sums.weight.shape, sums.shift)
    fixed = (len(sums.products), *tile, RANKS)
    start(kernel, grid, (sums.weight, *ups, *downs, *ranks, *scales, *shape, *given), (*fixed, *settings))


def start(kernel: Any, grid: tuple[int, int], given: tuple[Any, ...], settings: tuple[Any, ...]) -> None:
    """Launch a kernel on the current device."""
    kernel[grid](*given, *settings)
