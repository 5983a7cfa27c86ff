"""Inputs of Linears as models have them, made up, and calibrations of them in memory."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from fakes import Tensors
from lora_foundry.engine.calibration import Calibration, Inputs, Origin, Range


def a_calibration(
    known: Mapping[str, Inputs], origin: Origin | None = None, ranges: Mapping[str, Range] | None = None
) -> Calibration:
    """A calibration in memory; each weight has inputs of its own."""
    sets = {weight: str(number) for number, weight in enumerate(known)}
    tensors: dict[str, torch.Tensor] = {}
    for weight, inputs in known.items():
        tensors |= {f"{sets[weight]}.gram": inputs.gram, f"{sets[weight]}.held": inputs.held}
    usual = {weight: Range(10.0, 1.0, 4096) for weight in known}
    return Calibration("made", "0" * 64, ranges or usual, sets, origin or Origin(), Tensors(tensors))
