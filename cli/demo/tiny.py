"""The smallest models a ComfyUI accepts, with real tensor names and random weights, and LoRAs to go with them.

For the demo and the tests: shapes follow from rules here, nothing is downloaded and ComfyUI is not needed. Widths and
counts a host insists on are the defaults; unit tests pass a smaller ``width`` (a multiple of 128, or less than 128).
Names and shapes (``families.py``) equal those of the host's own classes: tests/host/test_tiny_models.py compares them.
"""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from .families import clip_l, flux, qwen_image, sd15, sdxl, taesd, wan
from .layers import Shape, Shapes

SPECS: dict[str, Callable[..., Shapes]] = {
    "wan": wan,
    "sd15": sd15,
    "sdxl": sdxl,
    "flux": flux,
    "qwen-image": qwen_image,
}
PARTS: dict[str, Callable[..., Shapes]] = {"clip-l": clip_l, "taesd": taesd}


def shapes(family: str, *, width: int | None = None, layers: int | None = None) -> Shapes:
    """Tensor name -> shape of a family (``SPECS``) or of a part of a checkpoint (``PARTS``)."""
    given: dict[str, Any] = {"width": width, "layers": layers}
    return (SPECS | PARTS)[family](**{key: value for key, value in given.items() if value is not None})


# --- weights ---------------------------------------------------------------------------------------------------------
def state_dict(
    family: str,
    *,
    seed: int = 0,
    dtype: torch.dtype = torch.bfloat16,
    width: int | None = None,
    layers: int | None = None,
) -> dict[str, Tensor]:
    """Random weights under bare names. A tensor depends on seed, name, shape and dtype alone, not on its neighbours."""
    table = shapes(family, width=width, layers=layers)
    return {name: _weight(name, shape, seed, dtype) for name, shape in table.items()}


def _weight(name: str, shape: Shape, seed: int, dtype: torch.dtype) -> Tensor:
    if name in ("vae_scale", "vae_shift"):
        return torch.tensor(float(name == "vae_scale"), dtype=dtype)
    if len(shape) == 1 and not name.endswith("bias"):
        return torch.ones(shape, dtype=dtype)  # every 1-D tensor but a bias belongs to a norm
    return _normal(shape, weight_rms(shape), seed, name).to(dtype)


def weight_rms(shape: Shape) -> float:
    """Root mean square of a made weight: keeps activations in range, as a trained model would."""
    return 0.5 / math.sqrt(math.prod(shape[1:])) if len(shape) > 1 else 0.02


def _normal(shape: Shape, rms: float, seed: int, name: str) -> Tensor:
    generator = torch.Generator().manual_seed(zlib.crc32(f"{seed} {name}".encode()))
    return torch.empty(shape).normal_(0.0, rms, generator=generator)


def checkpoint(*, seed: int = 0, dtype: torch.dtype = torch.bfloat16) -> dict[str, Tensor]:
    """An all-in-one SD1.5 file: diffusion model, text encoder and autoencoder, which CheckpointLoaderSimple loads."""
    parts = {"model.diffusion_model.": "sd15", "cond_stage_model.transformer.": "clip-l", "first_stage_model.": "taesd"}
    return {
        prefix + name: tensor
        for prefix, part in parts.items()
        for name, tensor in state_dict(part, seed=seed, dtype=dtype).items()
    }


# --- LoRAs -----------------------------------------------------------------------------------------------------------
DIALECTS = {
    "down/up": (".lora_down.weight", ".lora_up.weight"),
    "A/B": (".lora_A.weight", ".lora_B.weight"),
    "A/B default": (".lora_A.default.weight", ".lora_B.default.weight"),
}


def layer_names(
    names: Mapping[str, Tensor] | Mapping[str, Shape], pattern: str = "", convolutions: bool = False
) -> list[str]:
    """The layers a LoRA can go on: 2-D weights whose name ``pattern`` is found in (4-D ones too on request)."""
    wanted = (2, 4) if convolutions else (2,)
    weights = (name for name in names if name.endswith(".weight") and len(_shape(names[name])) in wanted)
    layers = (name.removesuffix(".weight") for name in weights if "embedding.weight" not in name)
    return [layer for layer in layers if re.search(pattern, layer)]


def lora(
    base: Mapping[str, Tensor] | Mapping[str, Shape],
    *,
    rank: int,
    alpha: float | None = None,
    dialect: str = "down/up",
    prefix: str = "",
    modules: str | Iterable[str] = "",
    convolutions: bool = False,
    rms: float = 0.01,
    seed: int = 0,
    dtype: torch.dtype = torch.bfloat16,
) -> dict[str, Tensor]:
    """A random LoRA for ``base`` (weights, or shapes) in one of ``DIALECTS``.

    ``rms`` is the size of the delta at strength 1 (alpha / rank included) relative to the weight it goes on.
    ``modules`` is a regular expression or a list of layers. A ``prefix`` ending in ``_`` flattens the dots of the
    layer, as kohya does. Without ``alpha`` the file states none.
    Shapes: down ``(rank, in[, kh, kw])``, up ``(out, rank[, 1, 1])``.
    """
    chosen = layer_names(base, modules, convolutions) if isinstance(modules, str) else modules
    down_suffix, up_suffix = DIALECTS[dialect]
    scale = 1.0 if alpha is None else alpha / rank
    tensors: dict[str, Tensor] = {}
    for layer in chosen:
        down, up = _factors(base[f"{layer}.weight"], rank, rms / scale if scale else 0.0, seed, layer)
        name = prefix + (layer.replace(".", "_") if prefix.endswith("_") else layer)
        tensors |= {name + down_suffix: down.to(dtype), name + up_suffix: up.to(dtype)}
        if alpha is not None:
            tensors[f"{name}.alpha"] = torch.tensor(float(alpha))
    return tensors


def _factors(weight: Tensor | Shape, rank: int, rms: float, seed: int, layer: str) -> tuple[Tensor, Tensor]:
    """down and up in fp32, scaled so that ``up @ down`` has exactly ``rms`` times the weight's root mean square."""
    out, *rest = _shape(weight)
    down = _normal((rank, *rest), 1.0 / math.sqrt(math.prod(rest)), seed, f"{layer}.down")
    up = _normal((out, rank, *([1] * len(rest[1:]))), 1.0, seed, f"{layer}.up")
    size = weight.float().square().mean().sqrt().item() if isinstance(weight, Tensor) else weight_rms(weight)
    gram = (up.flatten(1).T @ up.flatten(1)) * (down.flatten(1) @ down.flatten(1).T)
    return down, up * (rms * size / math.sqrt(gram.sum().item() / (out * math.prod(rest))))


def _shape(value: Tensor | Shape) -> Shape:
    return tuple(value.shape) if isinstance(value, Tensor) else tuple(value)
