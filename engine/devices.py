"""Where a bake computes."""

from __future__ import annotations

import torch

CPU = torch.device("cpu")


def resolved(device: torch.device | None) -> torch.device:
    """The device with its number: ``cuda`` is the current one of them, None the CPU."""
    if device is None:
        return CPU
    if device.type == "cuda" and device.index is None:
        return torch.device("cuda", torch.cuda.current_device())
    return device
