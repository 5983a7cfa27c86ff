"""LoRAs and bases of known factors as real files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file

BLOCKS, SIZE = 8, 128
MODULES = [f"blocks.{block}.attn.{part}" for block in range(BLOCKS) for part in ("to_q", "to_out")]
Factors = dict[str, tuple[torch.Tensor, torch.Tensor]]


def factors(seed: int, rank: int = 8, norm: float = 1.0) -> Factors:
    random = torch.Generator().manual_seed(seed)
    found = {}
    for module in MODULES:
        up, down = torch.randn(SIZE, rank, generator=random), torch.randn(rank, SIZE, generator=random)
        found[module] = (up * (norm / (up @ down).norm()), down)
    return found


def add(one: Factors, other: Factors, strength: float, modules: Sequence[str] = MODULES) -> Factors:
    """one + strength * other, exactly; ``other`` only in these modules."""
    return {
        module: (
            torch.cat([one[module][0], (strength if module in modules else 0.0) * other[module][0]], 1),
            torch.cat([one[module][1], other[module][1]], 0),
        )
        for module in MODULES
    }


def save_lora(
    path: Path,
    parts: Factors,
    prefix: str = "",
    flat: bool = False,
    magnitudes: Mapping[str, torch.Tensor] | None = None,
) -> Path:
    tensors: dict[str, torch.Tensor] = {}
    for module, (up, down) in parts.items():
        name = prefix + (module.replace(".", "_") if flat else module)
        tensors |= {f"{name}.lora_up.weight": up.bfloat16(), f"{name}.lora_down.weight": down.bfloat16()}
        if magnitudes and module in magnitudes:
            tensors[f"{name}.dora_scale"] = magnitudes[module].bfloat16()
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
    return path


def weights() -> dict[str, torch.Tensor]:
    random = torch.Generator().manual_seed(99)
    return {f"{module}.weight": torch.randn(SIZE, SIZE, generator=random) * 0.05 for module in MODULES}


def save_base(path: Path, parts: Factors | None = None, strength: float = 1.0) -> Path:
    values = weights()
    for module, (up, down) in (parts or {}).items():
        values[f"{module}.weight"] += strength * up @ down
    save_file({name: value.bfloat16() for name, value in values.items()}, path)
    return path


STYLE, OTHER, LIGHTNING = factors(1), factors(2), factors(3, norm=1.2)


def magnitudes(parts: Factors | None = None, off: float = 0.001) -> dict[str, torch.Tensor]:
    """Row lengths of the base with a LoRA in it, after training that moved each by about ``off``."""
    random, sizes = torch.Generator().manual_seed(4), {}
    for module in MODULES:
        weight = weights()[f"{module}.weight"]
        if parts:
            weight = weight + parts[module][0] @ parts[module][1]
        sizes[module] = weight.norm(dim=1, keepdim=True) * (1 + off * torch.randn(SIZE, 1, generator=random))
    return sizes
