"""What the Triton kernels are made of: the sum for a block of numbers, its rotation, and how it is rounded and read.

Products and sums are fp32 and scales stay outside, rounding is done on the bits, to the nearest and to even: the same
on every card, also where it has no fp8 of its own, and in Triton's interpreter on a CPU. What a function is given has
no annotation: Triton's compiler looks each of them up, and knows no names but its own.
"""

# ruff: noqa: ANN001, ANN201

from __future__ import annotations

import os

import triton
import triton.language as tl

INTERPRETED = tl.constexpr(os.environ.get("TRITON_INTERPRET") == "1")  # it takes bf16 numbers in products for integers


@triton.jit
def moved(memory, offset):  # type: ignore[no-untyped-def]
    """A pointer ``offset`` bytes on."""
    return memory + offset // (memory.dtype.element_ty.primitive_bitwidth // 8)


@triton.jit  # type: ignore[untyped-decorator]
def pick(at: tl.constexpr, x0, x1, x2, x3, x4, x5, x6, x7):  # type: ignore[no-untyped-def]
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
def added(  # type: ignore[no-untyped-def]
    acc, up, down, ranks, scale, rows, columns, height, width, offset,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """fp32 acc + scale * up @ down for a block of row and column numbers; products of 16-bit factors are exact."""
    SAME: tl.constexpr = up.dtype.element_ty == down.dtype.element_ty and up.dtype.element_ty != tl.float32
    SHORT: tl.constexpr = SAME and not (INTERPRETED and up.dtype.element_ty == tl.bfloat16)
    up = moved(up, offset)
    down = moved(down, offset)
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
def term(  # type: ignore[no-untyped-def]
    at: tl.constexpr, acc, u0, u1, u2, u3, u4, u5, u6, u7,
    d0, d1, d2, d3, d4, d5, d6, d7,
    r0, r1, r2, r3, r4, r5, r6, r7,
    s0, s1, s2, s3, s4, s5, s6, s7,
    rows, columns, height, width, offset,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """acc + the product number ``at``."""
    up = pick(at, u0, u1, u2, u3, u4, u5, u6, u7)
    down = pick(at, d0, d1, d2, d3, d4, d5, d6, d7)
    ranks = pick(at, r0, r1, r2, r3, r4, r5, r6, r7)
    scale = pick(at, s0, s1, s2, s3, s4, s5, s6, s7)
    return added(acc, up, down, ranks, scale, rows, columns, height, width, offset, BLOCK)


@triton.jit  # type: ignore[untyped-decorator]
def total(  # type: ignore[no-untyped-def]
    weight, u0, u1, u2, u3, u4, u5, u6, u7,
    d0, d1, d2, d3, d4, d5, d6, d7,
    r0, r1, r2, r3, r4, r5, r6, r7,
    s0, s1, s2, s3, s4, s5, s6, s7,
    rows, columns, inside, stride, height, width, offset,
    COUNT: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """weight + products in fp32 for a block of row and column numbers."""
    place = moved(weight, offset) + rows[:, None].to(tl.int64) * stride + columns[None, :]
    acc = tl.load(place, mask=inside, other=0.0).to(tl.float32)
    for at in tl.static_range(COUNT):
        acc = term(
            at, acc, u0, u1, u2, u3, u4, u5, u6, u7, d0, d1, d2, d3, d4, d5, d6, d7, r0, r1, r2, r3, r4, r5, r6, r7,
            s0, s1, s2, s3, s4, s5, s6, s7, rows, columns, height, width, offset, BLOCK,
        )  # fmt: skip
    return acc


@triton.jit  # type: ignore[untyped-decorator]
def code_of(exact, BITS: tl.constexpr, BIAS: tl.constexpr, SIGN: tl.constexpr):  # type: ignore[no-untyped-def]
    """The bits of the nearest number with a mantissa of ``BITS`` bits; halves to even."""
    bits = exact.to(tl.int32, bitcast=True)
    size = bits & 0x7FFFFFFF
    SHIFT: tl.constexpr = 23 - BITS
    code = ((size + ((1 << (SHIFT - 1)) - 1) + ((size >> SHIFT) & 1)) >> SHIFT) - ((127 - BIAS) << BITS)
    if BIAS < 127:  # numbers below the smallest normal one are multiples of a fixed step
        steps = tl.abs(exact) * (2.0 ** (BIAS - 1 + BITS))
        code = tl.where(tl.abs(exact) < 2.0 ** (1 - BIAS), whole(steps), code)
    code = tl.where(exact == exact, code, (1 << SIGN) - 1)  # NaN
    return code | (((bits >> 31) & 1) << SIGN)


@triton.jit  # type: ignore[untyped-decorator]
def value_of(code, BITS: tl.constexpr, BIAS: tl.constexpr, SIGN: tl.constexpr):  # type: ignore[no-untyped-def]
    """The fp32 number that a finite code means."""
    size = code & ((1 << SIGN) - 1)
    value = ((size << (23 - BITS)) + ((127 - BIAS) << 23)).to(tl.float32, bitcast=True)
    if BIAS < 127:
        value = tl.where(size < (1 << BITS), size.to(tl.float32) * (2.0 ** (1 - BIAS - BITS)), value)
    return tl.where(((code >> SIGN) & 1) == 1, -value, value)


@triton.jit
def whole(exact):  # type: ignore[no-untyped-def]
    """The nearest whole number, halves to even, of numbers below 2^22."""
    return ((exact + 12582912.0) - 12582912.0).to(tl.int32)


@triton.jit
def step_of(peak, largest):  # type: ignore[no-untyped-def]
    """The scale with which ``peak`` becomes ``largest``; 1 where it would be too small for full precision."""
    step = tl.div_rn(peak, largest)
    return tl.where(step < 1.1754943508222875e-38, 1.0, step)


@triton.jit
def tell(place, values):  # type: ignore[no-untyped-def]
    """The sum of a block of numbers."""
    tl.store(place, tl.sum(tl.sum(values, axis=1), axis=0))


@triton.jit  # type: ignore[untyped-decorator]
def rotated(block, ROWS: tl.constexpr):  # type: ignore[no-untyped-def]
    """fp32 [ROWS, 256] times the regular Hadamard matrix of 256: two thin products, as in ``codes.rotate``."""
    number = tl.arange(0, 16)
    coarse = tl.where(number[:, None] // 4 + number[None, :] // 4 == 3, -0.5, 0.5)
    matrix = coarse * tl.where(number[:, None] % 4 + number[None, :] % 4 == 3, -0.5, 0.5)
    for _ in tl.static_range(2):
        block = tl.dot(tl.reshape(block, (ROWS * 16, 16)), matrix, input_precision="ieee")
        block = tl.permute(tl.reshape(block, (ROWS, 16, 16)), (0, 2, 1))
    return tl.reshape(block, (ROWS, 256))
