"""Where a bake computes, and in which arithmetic: what decides the last bits of a result beside its recipe."""

from __future__ import annotations

import torch

from . import gemm, kernels
from .memory import LOWEST

CPU = torch.device("cpu")


def resolved(device: torch.device | None) -> torch.device:
    """The device with its number: ``cuda`` is the current one of them, None the CPU."""
    if device is None:
        return CPU
    if device.type == "cuda" and device.index is None:
        return torch.device("cuda", torch.cuda.current_device())
    return device


def arithmetic_of(device: torch.device | None, memory: str) -> str:
    """How sums are worked out there, in words: two arithmetics differ in about one 8-bit code of a thousand.

    ``memory`` is the mode that is used: a CPU with bf16 products uses fewer of them, the less may be held.
    """
    place = resolved(device)
    if place.type == "cuda":
        way = "" if kernels.why_not(place) else " with Triton"
        if way and kernels.why_no_rotation(place):
            way += " but for rotations"
        return f"fp32{way} on {torch.cuda.get_device_name(place)}"
    if gemm.fast_bf16(place.type) and memory != LOWEST:
        return f"bf16 products on the CPU ({memory})"
    return "fp32 on the CPU"
