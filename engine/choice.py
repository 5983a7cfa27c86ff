"""Which format fits a machine: ``auto`` and ``smallest``, by what its ComfyUI loads and what its GPU is fast in.

The speeds these rules rest on are cited in docs/formats.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

FITTING, SMALLEST = CHOICES = ("auto", "smallest")
FP8, INT8, NVFP4, W4A8 = "float8_e4m3fn", "int8_convrot", "nvfp4", "w4a8"
CUDA = (13, 0)  # from this one on the host's kernels for int8 and 4 bits are there


@dataclass(frozen=True)
class Machine:
    """The ``formats`` its ComfyUI loads; its GPU's name and NVIDIA's compute capability and CUDA, (0, 0) for others."""

    formats: Sequence[str]
    name: str = "no GPU"
    capability: tuple[int, int] = (0, 0)
    cuda: tuple[int, int] = (0, 0)


def machine_of(device: torch.device | None, formats: Sequence[str]) -> Machine:
    """The machine with this device."""
    if device is None or device.type != "cuda":
        return Machine(formats)
    name, version = torch.cuda.get_device_name(device), torch.version.cuda
    if version is None:  # ROCm
        return Machine(formats, name)
    major, minor = (int(number) for number in version.split(".")[:2])
    return Machine(formats, name, torch.cuda.get_device_capability(device), (major, minor))


def choose(wanted: str, machine: Machine) -> tuple[str, str]:
    """(format, a sentence that says why), or (wanted, "") for what is a format already."""
    if wanted not in CHOICES:
        return wanted, ""
    format, why = _smallest(machine) if wanted == SMALLEST else _fitting(machine)
    return format, f"{wanted}: {format}, {why}"


def choose_for_others(wanted: str) -> tuple[str, str]:
    """The same where no ComfyUI is known: 8 bits that all load; 4 bits for the GPU here, if there is one."""
    if wanted in CHOICES and torch.backends.mps.is_available():
        return INT8, f"{wanted}: {INT8}, for ComfyUI 0.27.0 and later: the GPU of this Mac (MPS) knows no fp8"
    if wanted == FITTING:
        return FP8, f"{wanted}: {FP8}, which every ComfyUI from 0.3.75 on loads; no ComfyUI is asked here"
    if wanted == SMALLEST and not torch.cuda.is_available():
        return W4A8, f"{wanted}: {W4A8}, 4 bits for ComfyUI 0.31.0 and NVIDIA GPUs from Ampere on; there is no GPU here"
    if wanted == SMALLEST:
        return choose(wanted, machine_of(torch.device("cuda", torch.cuda.current_device()), (FP8, INT8, NVFP4, W4A8)))
    return wanted, ""


def _fitting(machine: Machine) -> tuple[str, str]:
    """8 bits, in what is not slower than bf16 there."""
    if FP8 not in machine.formats and INT8 in machine.formats:
        return INT8, "for this device knows no fp8"
    if INT8 not in machine.formats:
        return FP8, "which every ComfyUI from 0.3.75 on loads; int8_convrot needs 0.27.0"
    if machine.capability < (7, 5):
        return FP8, f"for {machine.name} is not known to be faster in int8"
    if machine.cuda < CUDA:
        return FP8, f"for int8 is fast with CUDA 13, and this torch has {_dotted(machine.cuda)}"
    if machine.capability[0] in (9, 10):
        return FP8, f"for int8 is no faster than bf16 on {machine.name}"
    return INT8, f"with a third of the error of fp8, and fast on {machine.name}"


def _smallest(machine: Machine) -> tuple[str, str]:
    """4 bits where the host has kernels for them."""
    fast = machine.cuda >= CUDA
    if fast and machine.capability >= (10, 0) and NVFP4 in machine.formats:
        return NVFP4, f"4 bits that {machine.name} multiplies itself"
    if machine.capability >= (8, 0) and W4A8 in machine.formats:
        return W4A8, f"4 bits that run as int8 on {machine.name}"
    format, why = _fitting(machine)
    return format, f"as no format of 4 bits runs well on {machine.name} with what is loaded here: {why}"


def _dotted(version: tuple[int, int]) -> str:
    return ".".join(map(str, version))
