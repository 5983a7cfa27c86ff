"""Base + low-rank products in passes that leave no sum in memory: its amax, its codes, its measure. Only with Triton.

Products and sums are fp32 and scales stay outside, rounding is done on the bits, to the nearest and to even: the same
on every card, also where it has no fp8 of its own, and in Triton's interpreter on a CPU. Weights of one shape that lie
at equal distances in memory, with their factors, are worked on together. What a kernel is given has no annotation:
Triton's compiler looks each of them up, and knows no names but its own.
"""

# ruff: noqa: ANN001, ANN202

from __future__ import annotations

import os
from typing import Any

import torch
import triton
import triton.language as tl
from triton.errors import TritonError

from .alike import MOST, Sums

FAULTS: tuple[type[Exception], ...] = (TritonError,)
ROWS, COLUMNS, RANKS, SAMPLED = 64, 64, 16, 16  # of a block: rows, columns, ranks; sampled rows
# dtype of the codes -> (bits of the mantissa, bias of the exponent, dtype of the same size that holds the bits)
CODES = {
    torch.float8_e4m3fn: (3, 7, torch.int8),
    torch.float8_e5m2: (2, 15, torch.int8),
    torch.bfloat16: (7, 127, torch.int16),
}
INTERPRETED = tl.constexpr(os.environ.get("TRITON_INTERPRET") == "1")  # it takes bf16 numbers in products for integers
# How many ranks and rows there are must not decide what is compiled; what decides how memory is read may.
NUMBERS = [*(f"{name}{at}" for name in ("r", "s") for at in range(MOST)), "height", "every", "samples", "largest"]


@triton.jit
def _moved(memory, offset):  # type: ignore[no-untyped-def]
    """A pointer ``offset`` bytes on."""
    return memory + offset // (memory.dtype.element_ty.primitive_bitwidth // 8)


@triton.jit  # type: ignore[untyped-decorator]
def _pick(at: tl.constexpr, x0, x1, x2, x3, x4, x5, x6, x7):  # type: ignore[no-untyped-def]
    """One of ``MOST``, known when it is compiled: they may be of different dtypes."""
    if at == 0:
        picked = x0
    elif at == 1:
        picked = x1
    elif at == 2:
        picked = x2
    elif at == 3:
        picked = x3
    elif at == 4:
        picked = x4
    elif at == 5:
        picked = x5
    elif at == 6:
        picked = x6
    else:
        picked = x7
    return picked


@triton.jit  # type: ignore[untyped-decorator]
def _added(  # type: ignore[no-untyped-def]
    acc, up, down, ranks, scale, rows, columns, height, width, offset,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """fp32 acc + scale * up @ down for a block of row and column numbers; products of 16-bit factors are exact."""
    SAME: tl.constexpr = up.dtype.element_ty == down.dtype.element_ty and up.dtype.element_ty != tl.float32
    SHORT: tl.constexpr = SAME and not (INTERPRETED and up.dtype.element_ty == tl.bfloat16)
    up = _moved(up, offset)
    down = _moved(down, offset)
    part = tl.zeros((rows.shape[0], columns.shape[0]), tl.float32)
    for first in range(0, ranks, BLOCK):
        numbers = first + tl.arange(0, BLOCK)
        known = numbers < ranks
        left = tl.load(
            up + rows[:, None].to(tl.int64) * ranks + numbers[None, :],
            mask=(rows[:, None] < height) & known[None, :],
            other=0.0,
        )
        right = tl.load(
            down + numbers[:, None].to(tl.int64) * width + columns[None, :],
            mask=known[:, None] & (columns[None, :] < width),
            other=0.0,
        )
        if SHORT:
            part += tl.dot(left, right)
        else:
            part += tl.dot(left.to(tl.float32), right.to(tl.float32), input_precision="ieee")
    return acc + part * scale


@triton.jit  # type: ignore[untyped-decorator]
def _sum(  # type: ignore[no-untyped-def]
    weight, u0, u1, u2, u3, u4, u5, u6, u7,
    d0, d1, d2, d3, d4, d5, d6, d7,
    r0, r1, r2, r3, r4, r5, r6, r7,
    s0, s1, s2, s3, s4, s5, s6, s7,
    rows, columns, inside, stride, height, width, offset,
    COUNT: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """weight + products in fp32 for a block of row and column numbers."""
    place = _moved(weight, offset) + rows[:, None].to(tl.int64) * stride + columns[None, :]
    acc = tl.load(place, mask=inside, other=0.0).to(tl.float32)
    for at in tl.static_range(COUNT):
        up = _pick(at, u0, u1, u2, u3, u4, u5, u6, u7)
        down = _pick(at, d0, d1, d2, d3, d4, d5, d6, d7)
        ranks = _pick(at, r0, r1, r2, r3, r4, r5, r6, r7)
        scale = _pick(at, s0, s1, s2, s3, s4, s5, s6, s7)
        acc = _added(acc, up, down, ranks, scale, rows, columns, height, width, offset, BLOCK)
    return acc


@triton.jit(do_not_specialize=NUMBERS)  # type: ignore[untyped-decorator]
def _amax_kernel(  # type: ignore[no-untyped-def]
    weight, u0, u1, u2, u3, u4, u5, u6, u7,
    d0, d1, d2, d3, d4, d5, d6, d7,
    r0, r1, r2, r3, r4, r5, r6, r7,
    s0, s1, s2, s3, s4, s5, s6, s7,
    stride, height, width, shift, peak,
    COUNT: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    across, number = tl.cdiv(width, COLUMNS), tl.program_id(1)
    rows = tl.program_id(0) // across * ROWS + tl.arange(0, ROWS)
    columns = tl.program_id(0) % across * COLUMNS + tl.arange(0, COLUMNS)
    inside = (rows[:, None] < height) & (columns[None, :] < width)
    acc = _sum(
        weight,
        u0, u1, u2, u3, u4, u5, u6, u7, d0, d1, d2, d3, d4, d5, d6, d7,
        r0, r1, r2, r3, r4, r5, r6, r7, s0, s1, s2, s3, s4, s5, s6, s7,
        rows, columns, inside, stride, height, width, number.to(tl.int64) * shift, COUNT, BLOCK,
    )  # fmt: skip
    size = tl.where(acc == acc, tl.abs(acc), float("inf"))  # NaN counts as Inf
    tl.atomic_max(peak + number, tl.max(tl.max(tl.where(inside, size, 0.0), axis=1), axis=0))


@triton.jit(do_not_specialize=NUMBERS)  # type: ignore[untyped-decorator]
def _codes_kernel(  # type: ignore[no-untyped-def]
    weight, u0, u1, u2, u3, u4, u5, u6, u7,
    d0, d1, d2, d3, d4, d5, d6, d7,
    r0, r1, r2, r3, r4, r5, r6, r7,
    s0, s1, s2, s3, s4, s5, s6, s7,
    stride, height, width, shift, peak, scale, out, largest,
    COUNT: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, BLOCK: tl.constexpr,
    BITS: tl.constexpr, BIAS: tl.constexpr, SIGN: tl.constexpr, SCALED: tl.constexpr,
):  # fmt: skip
    across, number = tl.cdiv(width, COLUMNS), tl.program_id(1)
    rows = tl.program_id(0) // across * ROWS + tl.arange(0, ROWS)
    columns = tl.program_id(0) % across * COLUMNS + tl.arange(0, COLUMNS)
    inside = (rows[:, None] < height) & (columns[None, :] < width)
    exact = _sum(
        weight,
        u0, u1, u2, u3, u4, u5, u6, u7, d0, d1, d2, d3, d4, d5, d6, d7,
        r0, r1, r2, r3, r4, r5, r6, r7, s0, s1, s2, s3, s4, s5, s6, s7,
        rows, columns, inside, stride, height, width, number.to(tl.int64) * shift, COUNT, BLOCK,
    )  # fmt: skip
    if SCALED:
        step = tl.div_rn(tl.load(peak + number), largest)
        step = tl.where(step < 1.1754943508222875e-38, 1.0, step)  # too small for a scale of full precision
        tl.store(scale + number, step, mask=tl.program_id(0) == 0)
        exact = exact * tl.div_rn(1.0, step)
    code = _code(exact, BITS, BIAS, SIGN)
    if not SCALED:  # nobody has looked whether all numbers are finite, and stay so
        bad = inside & ((code & ((1 << SIGN) - 1)) >= (255 << BITS))
        tl.atomic_max(peak + number, tl.max(tl.max(tl.where(bad, float("inf"), 0.0), axis=1), axis=0))
    place = (number.to(tl.int64) * height + rows[:, None]) * width + columns[None, :]
    tl.store(out + place, code.to(out.dtype.element_ty), mask=inside)


@triton.jit  # type: ignore[untyped-decorator]
def _code(exact, BITS: tl.constexpr, BIAS: tl.constexpr, SIGN: tl.constexpr):  # type: ignore[no-untyped-def]
    """The bits of the nearest number with a mantissa of ``BITS`` bits; halves to even."""
    bits = exact.to(tl.int32, bitcast=True)
    size = bits & 0x7FFFFFFF
    SHIFT: tl.constexpr = 23 - BITS
    code = ((size + ((1 << (SHIFT - 1)) - 1) + ((size >> SHIFT) & 1)) >> SHIFT) - ((127 - BIAS) << BITS)
    if BIAS < 127:  # numbers below the smallest normal one are multiples of a fixed step
        steps = tl.abs(exact) * (2.0 ** (BIAS - 1 + BITS))
        code = tl.where(tl.abs(exact) < 2.0 ** (1 - BIAS), ((steps + 12582912.0) - 12582912.0).to(tl.int32), code)
    code = tl.where(exact == exact, code, (1 << SIGN) - 1)  # NaN
    return code | (((bits >> 31) & 1) << SIGN)


@triton.jit  # type: ignore[untyped-decorator]
def _value(code, BITS: tl.constexpr, BIAS: tl.constexpr, SIGN: tl.constexpr):  # type: ignore[no-untyped-def]
    """The fp32 number that a finite code means."""
    size = code & ((1 << SIGN) - 1)
    value = ((size << (23 - BITS)) + ((127 - BIAS) << 23)).to(tl.float32, bitcast=True)
    if BIAS < 127:
        value = tl.where(size < (1 << BITS), size.to(tl.float32) * (2.0 ** (1 - BIAS - BITS)), value)
    return tl.where(((code >> SIGN) & 1) == 1, -value, value)


@triton.jit
def _tell(place, values):  # type: ignore[no-untyped-def]
    """The sum of a block of numbers."""
    tl.store(place, tl.sum(tl.sum(values, axis=1), axis=0))


@triton.jit(do_not_specialize=NUMBERS)  # type: ignore[untyped-decorator]
def _measure_kernel(  # type: ignore[no-untyped-def]
    weight, u0, u1, u2, u3, u4, u5, u6, u7,
    d0, d1, d2, d3, d4, d5, d6, d7,
    r0, r1, r2, r3, r4, r5, r6, r7,
    s0, s1, s2, s3, s4, s5, s6, s7,
    stride, height, width, shift, peak, scale, out, told, every,
    samples,
    COUNT: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, BLOCK: tl.constexpr,
    BITS: tl.constexpr, BIAS: tl.constexpr, SIGN: tl.constexpr, SCALED: tl.constexpr, SAME: tl.constexpr,
):  # fmt: skip
    across, number = tl.cdiv(width, COLUMNS), tl.program_id(1)
    numbers = tl.program_id(0) // across * ROWS + tl.arange(0, ROWS)
    rows = tl.where(numbers < samples, numbers * every, height)  # what is no sample is outside
    columns = tl.program_id(0) % across * COLUMNS + tl.arange(0, COLUMNS)
    inside = (rows[:, None] < height) & (columns[None, :] < width)
    offset = number.to(tl.int64) * shift
    place = _moved(weight, offset) + rows[:, None].to(tl.int64) * stride + columns[None, :]
    base = tl.load(place, mask=inside, other=0.0).to(tl.float32)
    zeros = tl.zeros((ROWS, COLUMNS), tl.float32)
    exact = base.to(tl.float64)
    for at in tl.static_range(COUNT):
        up = _pick(at, u0, u1, u2, u3, u4, u5, u6, u7)
        down = _pick(at, d0, d1, d2, d3, d4, d5, d6, d7)
        ranks = _pick(at, r0, r1, r2, r3, r4, r5, r6, r7)
        strength = _pick(at, s0, s1, s2, s3, s4, s5, s6, s7)
        delta = _added(zeros, up, down, ranks, strength, rows, columns, height, width, offset, BLOCK)
        exact += delta.to(tl.float64)
    stored = (number.to(tl.int64) * height + rows[:, None]) * width + columns[None, :]
    value = _value(tl.load(out + stored, mask=inside, other=0).to(tl.int32), BITS, BIAS, SIGN)
    if SCALED:
        value = value * tl.load(scale + number)
    error = value.to(tl.float64) - exact
    told += (number.to(tl.int64) * tl.num_programs(0) + tl.program_id(0)) * (4 + 3 * COUNT)
    first = tl.program_id(0) == 0
    tl.store(told, tl.where(first, tl.load(peak + number), 0.0).to(tl.float64))
    if SAME:
        _tell(told + 1, tl.where(inside & (value != base), 1.0, 0.0).to(tl.float64))
    else:
        tl.store(told + 1, tl.where(first, 1.0, 0.0).to(tl.float64))
    _tell(told + 2, error * error)
    _tell(told + 3, exact * exact)
    for at in tl.static_range(COUNT):
        up = _pick(at, u0, u1, u2, u3, u4, u5, u6, u7)
        down = _pick(at, d0, d1, d2, d3, d4, d5, d6, d7)
        ranks = _pick(at, r0, r1, r2, r3, r4, r5, r6, r7)
        strength = _pick(at, s0, s1, s2, s3, s4, s5, s6, s7)
        delta = _added(zeros, up, down, ranks, strength, rows, columns, height, width, offset, BLOCK).to(tl.float64)
        _tell(told + 4 + 3 * at, error * delta)
        _tell(told + 5 + 3 * at, delta * delta)
        _tell(told + 6 + 3 * at, error * delta * error * delta)


def add_peaks(sums: Sums, peak: torch.Tensor) -> None:
    """Raise fp32 ``peak`` [count] to max |weight + products| of each, Inf for NaN."""
    _launch(_amax_kernel, sums, sums.weight.shape[0], ROWS, (peak,), ())


def write_codes(sums: Sums, out: torch.Tensor, largest: float | None, peak: torch.Tensor, scale: torch.Tensor) -> None:
    """Round each sum into the contiguous ``out`` [count, rows, columns], whose dtype is one of ``CODES``.

    ``largest``: the code that ``peak`` becomes; its fp32 ``scale`` [count] is written. None: there is no scale, and
    ``peak`` becomes Inf where a result is not finite.
    """
    bits, bias, stored = CODES[out.dtype]
    given = (peak, scale, out.view(stored), 1.0 if largest is None else largest)
    settings = (bits, bias, 8 * stored.itemsize - 1, largest is not None)
    _launch(_codes_kernel, sums, sums.weight.shape[0], ROWS, given, settings)


def measures(
    sums: Sums, out: torch.Tensor, rows: range, is_scaled: bool, peak: torch.Tensor, scale: torch.Tensor
) -> torch.Tensor:
    """fp64 [count, 4 + 3 * products] of the sampled rows of ``out``: what ``Unread`` takes of each result."""
    bits, bias, stored = CODES[out.dtype]
    blocks = triton.cdiv(len(rows), SAMPLED) * triton.cdiv(sums.weight.shape[1], COLUMNS)
    told = torch.empty(sums.count, blocks, 4 + 3 * len(sums.products), dtype=torch.float64, device=sums.weight.device)
    given = (peak, scale, out.view(stored), told, rows.step, len(rows))
    settings = (bits, bias, 8 * stored.itemsize - 1, is_scaled, out.dtype == sums.weight.dtype)
    _launch(_measure_kernel, sums, len(rows), SAMPLED, given, settings)
    return told.sum(1)


def _launch(
    kernel: Any, sums: Sums, height: int, block: int, given: tuple[Any, ...], settings: tuple[Any, ...]
) -> None:
    """One program for each block of ``height`` rows of every weight; the first axis of a grid has no narrow limit."""
    ups, downs, ranks, scales = sums.factors
    grid = (triton.cdiv(height, block) * triton.cdiv(sums.weight.shape[1], COLUMNS), sums.count)
    shape = (sums.weight.stride(0), *sums.weight.shape, sums.shift)
    fixed = (len(sums.products), block, COLUMNS, RANKS)
    start(kernel, grid, (sums.weight, *ups, *downs, *ranks, *scales, *shape, *given), (*fixed, *settings))


def start(kernel: Any, grid: tuple[int, int], given: tuple[Any, ...], settings: tuple[Any, ...]) -> None:
    """Launch a kernel on the current device."""
    kernel[grid](*given, *settings)
