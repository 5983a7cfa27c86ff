"""Small bases and LoRAs, and layers of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from lora_foundry.engine.errors import FoundryError
from lora_foundry.engine.plan import STACK, Base, Layer
from lora_foundry.engine.tensors import TensorSource
from lora_foundry.loaders.bases.families import detect_base
from lora_foundry.loaders.loras.file import LoRAFile
from lora_foundry.loaders.names.lookup import BaseNames
from lora_foundry.loaders.plans.planner import make_layer
from samples import ShapeSource


def a_base(shapes: Mapping[str, tuple[int, ...]]) -> Base:
    source = ShapeSource(shapes, label="base.safetensors")
    return Base("base.safetensors", detect_base(source.tensors), source)


def a_lora(source: TensorSource, name: str = "style.safetensors") -> LoRAFile:
    return LoRAFile(source, name, "0" * 64)


def layer(base: Base, lora: LoRAFile, strength: float = 1.0, stage: str = STACK, **more: Any) -> Layer:
    return make_layer(base, lora, stage, strength, BaseNames(base.source.tensors, base.family), **more)


def refused(base: Base, lora: LoRAFile, code: str, **more: Any) -> str:
    """What is said where these do not make a layer."""
    with pytest.raises(FoundryError) as error:
        layer(base, lora, **more)
    assert error.value.code == code and error.value.fix and lora.label in str(error.value)
    return str(error.value)


def pair(
    module: str = "blocks.0.q",
    out: int = 6,
    width: int = 4,
    rank: int = 2,
    alpha: float | None = None,
    kernel: tuple[int, ...] = (),
) -> dict[str, torch.Tensor]:
    """The tensors of one module of a LoRA, all ones."""
    tensors = {
        f"{module}.lora_up.weight": torch.ones(out, rank, *([1] * len(kernel))),
        f"{module}.lora_down.weight": torch.ones(rank, width, *kernel),
    }
    return tensors if alpha is None else {**tensors, f"{module}.alpha": torch.tensor(alpha)}


def tiny(*pairs: Mapping[str, torch.Tensor], name: str = "style.safetensors") -> LoRAFile:
    return a_lora(ShapeSource({}, {key: value for tensors in pairs for key, value in tensors.items()}), name)
