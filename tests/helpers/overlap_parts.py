"""LoRAs of known factors, and their inner products by the textbook."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from fakes import Delta, Tensors, a_layer
from lora_foundry.engine.plan import Layer

SHAPE = (96, 64)
MODULES = 16
Pair = tuple[torch.Tensor, torch.Tensor]  # up, down
NAMES = [f"blocks.{number}.attn.q.weight" for number in range(MODULES)]


def factors(seed: int, rank: int, norm: float = 1.0, shape: tuple[int, ...] = SHAPE) -> list[Pair]:
    """Factors of one LoRA on every weight, each delta of this norm with singular values that fall off."""
    random = torch.Generator().manual_seed(seed)
    found = []
    for _ in NAMES:
        up = torch.randn(shape[0], rank, generator=random) * torch.exp(-0.1 * torch.arange(rank))
        down = torch.randn(rank, shape[1], generator=random)
        found.append((up * (norm / (up @ down).norm()), down))
    return found


def lora(
    pairs: Iterable[Pair], dtype: torch.dtype = torch.bfloat16, name: str = "style.safetensors", **more: Any
) -> Layer:
    """A layer of these factors on the weights of ``NAMES``."""
    deltas = [Delta(weight, up.to(dtype), down.to(dtype)) for weight, (up, down) in zip(NAMES, pairs, strict=False)]
    return a_layer(deltas, name=name, **more)


def exact(first: Mapping[str, torch.Tensor], second: Mapping[str, torch.Tensor]) -> dict[str, float]:
    """The sums by the textbook, from whole deltas in float64 (dicts of weight -> delta)."""
    shared = [name for name in first if name in second]
    flat = [(first[name].double().flatten(), second[name].double().flatten()) for name in shared]
    dots = [float(a @ b) for a, b in flat]
    return {
        "dot": sum(dots),
        "first": sum(float(a @ a) for a, _ in flat),
        "second": sum(float(b @ b) for _, b in flat),
        "chance": sum(float((a @ a) * (b @ b)) / len(a) for a, b in flat),
        "scatter": sum(dot**2 for dot in dots),
        "reach": sum(float(a.norm() * b.norm()) for a, b in flat),
    }


def whole(layer: Layer, strength: float = 1.0) -> dict[str, torch.Tensor]:
    """Every delta of a layer of plain LoRAs in float64, from its factors as stored."""
    assert isinstance(layer.factors, Tensors)
    found = {}
    for patch in layer.patches:
        parts = dict(patch.adapter.parts)
        up, down = (layer.factors.values[parts[part]].double() for part in ("up", "down"))
        found[patch.target.weight] = strength * patch.adapter.scale * up @ down
    return found
