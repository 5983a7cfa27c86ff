"""What a host makes of a model, as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

KeyMap = Mapping[str, Any]


@dataclass(frozen=True)
class ModelFacts:
    """What the host makes of a model: LoRA key map, names (model -> file), Linear weights, the dtype it computes in."""

    key_map: KeyMap
    names: Mapping[str, str]
    linears: frozenset[str]
    dtype: torch.dtype


def linear_weights(net: torch.nn.Module) -> frozenset[str]:
    """Bare names of the weights of nn.Linear modules (the host's own Linear classes included)."""
    modules = net.named_modules()
    return frozenset(f"{name}.weight" for name, module in modules if type(module).__name__ == "Linear")
