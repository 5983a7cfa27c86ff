"""The fast way to add products on a GPU: used where Triton is, switched on, and right on that very device.

No GPU has run it yet, so it may not be able to hurt: at its first use on a device it is held against plain torch, and
left for the rest of the process on any difference or error; what rotates is tried by itself, and left by itself.
LORA_FOUNDRY_TRITON=0 switches all of it off.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Hashable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from importlib.util import find_spec

import torch

from .alike import MOST, Sums, aligned, view_at
from .codes import Format
from .formats import FORMATS
from .gain import sampled_rows
from .gemm import Product, full_fp32
from .terms import AnyTerm, Term

SETTING = "LORA_FOUNDRY_TRITON"
# What an import, a compiler or a launch that fails may raise, beside Triton's own errors.
FAULTS: tuple[type[Exception], ...] = (
    RuntimeError, ValueError, TypeError, AttributeError, LookupError, AssertionError, OSError, ImportError,
    subprocess.SubprocessError,
)  # fmt: skip
WEIGHTS = (torch.bfloat16, torch.float16, torch.float32)
CAPABILITY = (8, 0)  # of NVIDIA's; on older ones Triton's compiler may end the process
# What is tried: rows, columns, columns more that a row takes in memory, dtype of the weight, that of the result, and
# dtype and rank of each product: whole blocks, odd ones, and less than one. Each takes seconds to compile.
BF16, FP16, FP32 = WEIGHTS
Case = tuple[int, int, int, torch.dtype, torch.dtype, tuple[tuple[torch.dtype, int], ...]]
CASES = (
    (128, 64, 0, BF16, torch.float8_e4m3fn, ((BF16, 32), (BF16, 5))),
    (70, 100, 8, FP32, BF16, ((FP32, 24),)),
    (1, 16, 3, FP16, torch.float8_e5m2, ((FP16, 40),)),
)
ROTATING = ((48, 512, 8, BF16, torch.int8, ((BF16, 32), (BF16, 5))),)
GROUP = 256  # columns that the kernels can rotate together


def suited(
    start: torch.Tensor, merged: Sequence[AnyTerm], loras: int, format: Format | None, out: torch.Tensor
) -> Term | None:
    """The one term that is added to all of a weight, a product for each of ``loras``; None where torch adds it."""
    term = merged[0] if len(merged) == 1 else None
    if not isinstance(term, Term) or not term.place.is_whole or not start.is_cuda:
        return None
    known = is_known(start.dtype, format, out.dtype) and start.stride(1) == 1 and out.is_contiguous()
    if not known or not start.numel() or not len(term.products) == loras <= MOST:
        return None
    return term if all(_is_known(product) for product in term.products) and is_used(start.device, format) else None


def is_known(weight: torch.dtype, format: Format | None, result: torch.dtype) -> bool:
    """Whether the kernels round such weights so."""
    plain = result == BF16 if format is None else _is_plain(format)
    return plain and weight in WEIGHTS


def is_used(device: torch.device, format: Format | None) -> bool:
    """Whether a device does what they do for this format, and does it right."""
    return not (why_no_rotation(device) if _rotates(format) else why_not(device))


def _rotates(format: Format | None) -> bool:
    return format is not None and bool(format.group)


def _is_known(product: Product) -> bool:
    factors = (product.up, product.down)
    return product.rank > 0 and all(factor.dtype in WEIGHTS and factor.is_contiguous() for factor in factors)


def _is_plain(format: Format) -> bool:
    """Whether codes are the sum times one number, or the rotated sum over one of each row, to the nearest."""
    way = (format.row_scaled, format.group)
    return type(format) is Format and (way == (False, 0) or (way == (True, GROUP) and format.dtype == torch.int8))


def make(
    sums: Sums, format: Format | None, out: torch.Tensor, rows: range
) -> tuple[torch.Tensor | None, torch.Tensor] | None:
    """Round each sum into ``out`` [count, rows, columns]; (scales [count] or [count, rows, 1], what ``Unread`` takes).

    ``rows`` are those whose measure is taken. Five launches, whatever the number of weights and products. None where
    Triton does not compile this, which is not tried again: torch does it.
    """
    from . import triton_kernels

    factors = tuple((each.up.dtype, each.down.dtype) for each in sums.products)
    variant = (sums.weight.dtype, out.dtype, factors)
    if variant in left_out(out.device):
        return None
    try:
        return _launched(sums, format, out, rows)
    except triton_kernels.FAULTS:
        left_out(out.device).add(variant)
        return None


def _launched(
    sums: Sums, format: Format | None, out: torch.Tensor, rows: range
) -> tuple[torch.Tensor | None, torch.Tensor]:
    from . import triton_kernels

    turned = _rotates(format)
    lines = sums.count * sums.weight.shape[0] if turned else 0
    peak = torch.zeros(sums.count + lines, device=out.device)
    scale = peak.new_empty(lines or sums.count)
    if format is not None:
        triton_kernels.add_peaks(sums, turned, peak)
    triton_kernels.write_codes(sums, out, format, peak, scale)
    told = triton_kernels.measures(sums, out, rows, format, peak, scale)
    return (None if format is None else scale.view(sums.count, -1, 1) if turned else scale), told


@cache
def left_out(device: torch.device) -> set[Hashable]:
    """What Triton did not compile for a device in this process: dtypes of weight, result and factors."""
    return set()


@cache
def why_not(device: torch.device) -> str:
    """Why plain torch works on this device; empty where the kernels do. Tried once a process."""
    if os.environ.get(SETTING, "") == "0":
        return f"{SETTING} is 0"
    if find_spec("triton") is None:
        return "Triton is not installed"
    try:
        from . import triton_kernels as triton_kernels
    except FAULTS as error:
        return f"Triton does not load: {type(error).__name__}"
    return _tried(device, CASES)


@cache
def why_no_rotation(device: torch.device) -> str:
    """The same of what is rotated before it is rounded."""
    return why_not(device) or _tried(device, ROTATING)


def _tried(device: torch.device, cases: Sequence[Case]) -> str:
    from . import triton_kernels

    try:
        with _current(device):
            return _too_old(device) or _check(device, cases)
    except (*FAULTS, *triton_kernels.FAULTS) as error:
        return f"the kernels do not run here: {type(error).__name__}"


def _current(device: torch.device) -> AbstractContextManager[object]:
    """Triton launches on the current device, whatever its tensors lie on."""
    current: AbstractContextManager[object] = torch.cuda.device(device) if device.type == "cuda" else nullcontext()
    return current


def _too_old(device: torch.device) -> str:
    if device.type != "cuda" or torch.version.hip is not None:
        return ""
    found = torch.cuda.get_device_capability(device)
    return "" if found >= CAPABILITY else f"compute capability {found[0]}.{found[1]} is below 8.0"


def _check(device: torch.device, cases: Sequence[Case]) -> str:
    """The kernels on a few weights against plain torch; a sum in another order may move a code of a thousand."""
    generator = torch.Generator().manual_seed(0)
    for rows, columns, more, dtype, stored, factors in cases:
        shapes = [((rows, columns + more), 0.02, dtype)]
        for kind, rank in factors:
            shapes += [((rows, rank), 1e-3, kind), ((rank, columns), 1.0, kind)]
        places = [0]
        for shape, _, kind in shapes:
            places.append(aligned(places[-1] + shape[0] * shape[1] * kind.itemsize))
        memory = torch.zeros(2 * places[-1], dtype=torch.uint8)
        for first in (0, places[-1]):
            for at, (shape, size, kind) in zip(places, shapes, strict=False):
                view_at(memory, first + at, kind, shape).copy_(torch.randn(shape, generator=generator) * size)
        memory = memory.to(device)
        each = [_sums(memory[first:], places, shapes, columns) for first in (0, places[-1])]
        both = Sums(each[0].weight, each[0].products, 2, places[-1])
        if wrong := _difference(both, each, stored):
            return f"the kernels differ from torch: {wrong}"
    return ""


Shapes = Sequence[tuple[tuple[int, int], float, torch.dtype]]


def _sums(memory: torch.Tensor, places: Sequence[int], shapes: Shapes, columns: int) -> Sums:
    weight, *factors = (view_at(memory, at, kind, shape) for at, (shape, _, kind) in zip(places, shapes, strict=False))
    pairs = zip(factors[::2], factors[1::2], (0.7, -1.5, 0.25), strict=False)
    return Sums(weight[:, :columns], [Product(*pair) for pair in pairs])


def _difference(both: Sums, each: Sequence[Sums], dtype: torch.dtype) -> str:
    """What is wrong with two weights that are worked on together, in words."""
    format = next((format for format in FORMATS.values() if format.dtype == dtype and _is_plain(format)), None)
    shape, rows = both.weight.shape, sampled_rows(both.weight.shape)
    out = torch.empty(2, *shape, dtype=dtype, device=both.weight.device)
    scales, told = _launched(both, format, out, rows)
    for number, sums in enumerate(each):
        deltas = [_delta(product) for product in sums.products]
        exact = sums.weight.to(torch.float32) + sum(deltas[1:], deltas[0])
        codes, stored, wrong = exact.to(dtype), out[number].double(), ""
        if format is not None and scales is not None:
            prepared, scale = format.prepare(exact.clone()), scales[number]
            wrong = _wrong_scale(format, prepared, told[number, 0].float(), scale)
            codes, stored = format.encode(prepared, scale), format.decode(out[number], scale).double()
        bits = torch.int8 if dtype.itemsize == 1 else torch.int16
        differ = int((out[number].view(bits) != codes.view(bits)).sum())
        if wrong or differ > max(1, codes.numel() // 1000):
            return wrong or str(dtype)
        if not _is_measured(told[number, 2:], stored, exact, deltas):
            return "the measure"
    return ""


def _wrong_scale(format: Format, prepared: torch.Tensor, peak: torch.Tensor, scale: torch.Tensor) -> str:
    """What is wrong with the largest number of a weight, and the scale that follows from it or from those of rows."""
    largest = format.amax_of(prepared)
    if not torch.allclose(peak, largest.amax(), rtol=1e-5):
        return "the largest number"
    wanted = format.scales(prepared, None if format.row_scaled else peak)
    right = torch.allclose(scale, wanted, rtol=1e-5, atol=0) if format.row_scaled else torch.equal(scale, wanted)
    return "" if right else "the scale"


def _delta(product: Product) -> torch.Tensor:
    with full_fp32():
        return product.scaled_up() @ product.down.to(torch.float32)


def _is_measured(told: torch.Tensor, stored: torch.Tensor, exact: torch.Tensor, deltas: Sequence[torch.Tensor]) -> bool:
    """Whether the sums of a measure (see ``gain.measure_of``) are right to a thousandth of what they can be."""
    error = stored - exact
    noise, wanted = error.square().sum(), [error.square().sum(), exact.double().square().sum()]
    most = list(wanted)
    for delta in (delta.double() for delta in deltas):
        energy, spread = delta.square().sum(), (error * delta).square().sum()
        wanted += [(error * delta).sum(), energy, spread]
        most += [(noise * energy).sqrt(), energy, spread]
    return bool(((told - torch.stack(wanted)).abs() <= 1e-3 * torch.stack(most)).all())
