"""The fast way to add products on a GPU: used where Triton is, switched on, and right on that very device.

No GPU has run it yet, so it may not be able to hurt: at its first use on a device it is held against plain torch, and
left for the rest of the process on any difference or error. LORA_FOUNDRY_TRITON=0 switches it off.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec

import torch

from .codes import Format
from .formats import FORMATS
from .gemm import full_fp32
from .terms import AnyTerm, Term

SETTING = "LORA_FOUNDRY_TRITON"
# What an import, a compiler or a launch that fails may raise, beside Triton's own errors.
FAULTS: tuple[type[Exception], ...] = (
    RuntimeError, ValueError, TypeError, AttributeError, LookupError, AssertionError, OSError, ImportError,
    subprocess.SubprocessError,
)  # fmt: skip
# rows, columns, ranks, columns more that a row takes in memory: whole blocks, none, and less than one
CASES = ((128, 128, 32, 0), (70, 100, 24, 8), (130, 48, 5, 0), (1, 16, 1, 3))
WEIGHTS = (torch.bfloat16, torch.float16, torch.float32)


def suited(start: torch.Tensor, merged: Sequence[AnyTerm], format: Format | None, out: torch.Tensor) -> Term | None:
    """The one term of products that is added to all of a weight, where the kernels do that; None where torch does."""
    term = merged[0] if len(merged) == 1 else None
    if not isinstance(term, Term) or not term.place.is_whole or not start.is_cuda:
        return None
    plain = (format is None and out.dtype == torch.bfloat16) or (format is not None and _is_plain(format))
    known = plain and start.dtype in WEIGHTS and start.stride(1) == 1 and out.is_contiguous() and start.numel() > 0
    return term if known and not why_not(start.device) else None


def _is_plain(format: Format) -> bool:
    """Whether codes are the sum times one number, to the nearest."""
    return type(format) is Format and not format.row_scaled and not format.group


def sum_amax(start: torch.Tensor, term: Term) -> torch.Tensor:
    """max |start + term| as an fp32 scalar on the device, Inf for NaN."""
    from . import triton_kernels

    return triton_kernels.sum_amax(start, term.up, term.down)


def sum_codes(start: torch.Tensor, term: Term, factor: torch.Tensor, out: torch.Tensor) -> None:
    """(start + term) * factor, rounded once into ``out``."""
    from . import triton_kernels

    triton_kernels.sum_codes(start, term.up, term.down, factor, out)


@cache
def why_not(device: torch.device) -> str:
    """Why plain torch works on this device; empty where the kernels do. Tried once a process."""
    if os.environ.get(SETTING, "") == "0":
        return f"{SETTING} is 0"
    if find_spec("triton") is None:
        return "Triton is not installed"
    try:
        from . import triton_kernels
    except FAULTS as error:
        return f"Triton does not load: {type(error).__name__}"
    try:
        return _check(device)
    except (*FAULTS, *triton_kernels.FAULTS) as error:
        return f"the kernels do not run here: {type(error).__name__}"


def _check(device: torch.device) -> str:
    """The kernels on a few weights against plain torch; a sum in another order may move a code of a thousand."""
    generator = torch.Generator().manual_seed(0)
    for number, (rows, columns, ranks, more) in enumerate(CASES):
        weight, up, down = (
            torch.randn(*size, generator=generator).mul_(scale).to(device)
            for size, scale in (((rows, columns + more), 0.02), ((rows, ranks), 1e-3), ((ranks, columns), 1.0))
        )
        weight = weight.to(WEIGHTS[number % len(WEIGHTS)])[:, :columns]
        if wrong := _difference(weight, up.contiguous(), down.contiguous()):
            return f"the kernels differ from torch: {wrong}"
    return ""


def _difference(weight: torch.Tensor, up: torch.Tensor, down: torch.Tensor) -> str:
    from . import triton_kernels

    with full_fp32():
        exact = torch.addmm(weight.to(torch.float32), up, down)
    amax = triton_kernels.sum_amax(weight, up, down)
    if not torch.allclose(amax, exact.abs().amax(), rtol=1e-5):
        return "the largest number"
    one = torch.ones((), device=weight.device)
    for dtype in triton_kernels.CODES:
        known = [format for format in FORMATS.values() if format.dtype == dtype and _is_plain(format)]
        factor = known[0].scale_of(amax).reciprocal() if known else one
        got, want = torch.empty(weight.shape, dtype=dtype, device=weight.device), (exact * factor).to(dtype)
        triton_kernels.sum_codes(weight, up, down, factor, got)
        stored = triton_kernels.CODES[dtype][2]
        wrong = got.view(stored) != want.view(stored)
        if int(wrong.sum()) > max(1, wrong.numel() // 1000):
            return str(dtype)
    return ""
