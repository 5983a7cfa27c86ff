"""LoRA files written in a dialect for one block of a family, and what they add to its base when they are read back."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from fixtures_bases import NATIVE
from lora_foundry.engine.fuse import fused_weight, make_terms
from lora_foundry.engine.plan import STACK, Base, Plan
from lora_foundry.engine.tensors import TensorInfo
from lora_foundry.loaders.loras.file import LoRAFile
from lora_foundry.loaders.loras.saving import Saved, adapter_metadata, has_alphas, save_lora
from lora_foundry.loaders.names.lookup import BaseNames
from lora_foundry.loaders.names.outgoing import Outgoing
from lora_foundry.loaders.plans.planner import make_layer
from samples import ShapeSource

Shapes = Mapping[str, tuple[int, ...]]
RANK = 3
CONTEXTS = (768, 2048)


def infos(shapes: Shapes) -> dict[str, TensorInfo]:
    return {name: TensorInfo(name, torch.float32, shape) for name, shape in shapes.items()}


def tiny(shapes: Shapes) -> dict[str, tuple[int, ...]]:
    """The same names at sizes of which a whole delta is nothing: every width is a 64th, a kernel stays.

    So do the columns that are read from a text encoder of SD: by them its LoRAs are told.
    """
    return {name: tuple(_small(name, size, dim) for dim, size in enumerate(shape)) for name, shape in shapes.items()}


def _small(name: str, size: int, dim: int) -> int:
    context = dim == 1 and "attn2.to_" in name and size in CONTEXTS
    if size < 64 or dim > 1 or context:
        return size
    return -(-size // 64 // 4) * 4 if size > 256 else max(size // 64, 2)  # LoKr wants sizes it can divide


def native(family: str) -> dict[str, tuple[int, ...]]:
    return tiny(NATIVE[family])


def layers_of(shapes: Shapes) -> list[str]:
    """The weights a low-rank module may stand for."""
    return [name for name, shape in shapes.items() if name.endswith(".weight") and len(shape) > 1]


def written(
    path: Path, family: str, dialect: str, shapes: Shapes, seed: int = 0, text: Shapes | None = None, scale: float = 1.0
) -> dict[str, torch.Tensor]:
    """A file of random factors for every layer; returns what it adds to each, worked out here, and to text encoders."""
    names, random = Outgoing(infos(shapes), family, dialect), torch.Generator().manual_seed(seed)
    units = [(weight, unit) for weight in layers_of(shapes) for unit in names.units(weight)]
    units += [(key, names.text_unit(key, shape)) for key, shape in (text or {}).items()]
    modules = [Saved(unit, RANK + (number % 2)) for number, (_, unit) in enumerate(units)]
    deltas = {weight: torch.zeros({**shapes, **(text or {})}[weight]) for weight, _ in units}
    with save_lora(path, modules, dialect, torch.float32, adapter_metadata(modules, dialect)) as file:
        for (weight, unit), module in zip(units, modules, strict=True):
            up, down = (torch.randn(shape, generator=random) for shape in module.shapes)
            alpha = scale * module.rank if has_alphas(dialect) else None
            file.write(module, up, down, alpha=alpha)
            up = up if alpha is None else up * scale
            made = (up.flatten(1) @ down.flatten(1)).reshape(unit.shape)
            for piece in unit.view:
                assert piece.weight == weight
                part, made = made[: piece.length], made[piece.length :]
                deltas[weight][piece.start : piece.start + piece.length] += part
            if not unit.view:
                deltas[weight] += made
    return deltas


def added(lora: LoRAFile, family: str, shapes: Shapes) -> dict[str, torch.Tensor]:
    """What a file adds to every weight of a base with these shapes, as the engine sums it."""
    base = Base("base", family, ShapeSource(dict(shapes)))
    layer = make_layer(base, lora, STACK, 1.0, BaseNames(base.source.tensors, family))
    assert layer.coverage.matched == layer.coverage.modules, layer.coverage.unmatched
    found: dict[str, torch.Tensor] = {}
    for name, pairs in Plan(base, (layer,)).by_weight().items():
        zeros = torch.zeros(shapes[name])
        found[name] = fused_weight(zeros, pairs, make_terms(zeros, pairs))
    return found
