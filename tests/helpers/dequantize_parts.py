"""One weight in every quantized form a base is stored in, and what it means in float64."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from fakes import FP8_VALUES, noise
from lora_foundry.loaders.bases.checkpoint import open_checkpoint
from lora_foundry.loaders.bases.dequantize import Dequantized
from safetensors.torch import save_file

E4M3, E5M2 = torch.float8_e4m3fn, torch.float8_e5m2
Q, ROWS, COLUMNS = "blocks.0.q", 48, 256
PLAIN = {
    "blocks.0.norm.weight": noise((COLUMNS,), 1.0, 90),
    "head.weight": noise((16, COLUMNS), 0.02, 91),
}


@dataclass
class Form:
    """How ``blocks.0.q.weight`` is stored: codes and what stands beside them; ``exact`` is what it means in float64."""

    codes: torch.Tensor
    scale: torch.Tensor | None = None
    parts: dict[str, torch.Tensor] = field(default_factory=dict)
    header: object = None
    group: int = 0
    told: str = ""

    @property
    def tensors(self) -> dict[str, torch.Tensor]:
        return {f"{Q}.weight": self.codes, **self.parts, **PLAIN}

    @property
    def metadata(self) -> dict[str, str] | None:
        return None if self.header is None else {"_quantization_metadata": json.dumps({"layers": self.header})}

    @property
    def exact(self) -> torch.Tensor:
        scale = torch.ones(()) if self.scale is None else self.scale
        weight = values_of(self.codes) * scale.double().reshape(-1, 1)
        return weight if not self.group else rotated(weight, self.group)


def values_of(codes: torch.Tensor) -> torch.Tensor:
    """What codes mean, in float64, by the definition of the format rather than by torch's cast."""
    if codes.dtype == torch.int8:
        return codes.double()
    raw = codes.view(torch.uint8).long()
    size = FP8_VALUES[codes.dtype][raw & 127]
    return torch.where(raw >= 128, -size, size)


def rotated(weight: torch.Tensor, group: int) -> torch.Tensor:
    """Every ``group`` columns times a regular Hadamard matrix, in float64; twice gives the weight again."""
    four = torch.tensor([[1, 1, 1, -1], [1, 1, -1, 1], [1, -1, 1, 1], [-1, 1, 1, 1]], dtype=torch.float64) / 2
    matrix = torch.ones(1, 1, dtype=torch.float64)
    while len(matrix) < group:
        matrix = torch.kron(matrix, four)
    return (weight.reshape(len(weight), -1, group) @ matrix).reshape(weight.shape)


def settings_of(**settings: object) -> torch.Tensor:
    return torch.tensor(list(json.dumps(settings).encode()), dtype=torch.uint8)


def original(seed: int = 1) -> torch.Tensor:
    return noise((ROWS, COLUMNS), 0.02, seed, torch.float64)


def fp8(
    dtype: torch.dtype,
    key: str = "",
    parts: dict[str, torch.Tensor] | None = None,
    shape: tuple[int, ...] = (),
    **more: Any,
) -> Form:
    """fp8 codes; with a scale (per tensor, or per row where ``shape`` says so) when there is a ``key`` for it."""
    weight = original()
    if not key:
        return Form(weight.to(dtype), parts=parts or {}, **more)
    per_row = bool(shape) and shape[0] == ROWS
    amax = weight.abs().amax(1, keepdim=True) if per_row else weight.abs().max()
    scale = (amax / float(FP8_VALUES[dtype][-1])).float()
    stored = scale.reshape(shape)
    return Form((weight / scale).to(dtype), stored, {f"{Q}.{key}": stored, **(parts or {})}, **more)


def int8(per_row: bool = True, group: int = 0, column: bool = True, nested: bool = False, **settings: object) -> Form:
    weight = rotated(original(), group) if group else original()
    amax = weight.abs().amax(1) if per_row else weight.abs().max()
    scale = (amax / 127).float()
    codes = (weight / scale.double().reshape(-1, 1)).round().to(torch.int8)
    stored = scale[:, None] if per_row and column else scale
    rotation = {"convrot": True, "convrot_groupsize": group} if group else {}
    told = {"format": "int8_tensorwise", **({"params": rotation} if nested else rotation), **settings}
    layout = f"int8_tensorwise per {'row' if per_row else 'tensor'}{' with convrot' if group else ''}"
    parts = {f"{Q}.weight_scale": stored, f"{Q}.comfy_quant": settings_of(**told)}
    return Form(codes, scale, parts, group=group, told=f"comfy_quant: {layout}")


def marked(dtype: torch.dtype, name: str) -> Form:
    return fp8(dtype, "weight_scale", {f"{Q}.comfy_quant": settings_of(format=name)}, told=f"comfy_quant: {name}")


NUMBER = torch.tensor([1.0])
HEADED = "float8_e4m3fn with weight_scale (_quantization_metadata)"
SCALED = "scaled fp8 (scale_weight): float8_e4m3fn"
FORMS = {
    "scaled fp8": fp8(E4M3, "scale_weight", {"scaled_fp8": torch.zeros(2).to(E4M3)}, (1,), told=SCALED),
    "scaled fp8, with input scale": fp8(
        E4M3, "scale_weight", {"scaled_fp8": torch.zeros(0), f"{Q}.scale_input": NUMBER}, told=SCALED
    ),
    "scaled fp8 without marker": fp8(E4M3, "scale_weight", told=SCALED),
    "scaled fp8 e5m2": fp8(E5M2, "scale_weight", told="scaled fp8 (scale_weight): float8_e5m2"),
    "header, settings": fp8(E4M3, "weight_scale", header={Q: {"format": "float8_e4m3fn"}}, told=HEADED),
    "header, a word": fp8(
        E4M3, "weight_scale", {f"{Q}.input_scale": NUMBER}, header={Q: "float8_e4m3fn"}, told=HEADED
    ),
    "header, both spellings": fp8(
        E4M3, "weight_scale", told=HEADED,
        header=dict.fromkeys((Q, f"model.diffusion_model.{Q}"), {"format": "float8_e4m3fn"}),
    ),
    "weight_scale alone": fp8(E4M3, "weight_scale", told="float8_e4m3fn with weight_scale"),
    "a scale per row": fp8(E4M3, "weight_scale", shape=(ROWS, 1), told="float8_e4m3fn with weight_scale"),
    "a scale per row, flat": fp8(E4M3, "weight_scale", shape=(ROWS,), told="float8_e4m3fn with weight_scale"),
    "plain fp8": fp8(E4M3, told="float8_e4m3fn without scales"),
    "plain fp8 e5m2": fp8(E5M2, told="float8_e5m2 without scales"),
    "comfy_quant fp8": marked(E4M3, "float8_e4m3fn"),
    "comfy_quant e5m2": marked(E5M2, "float8_e5m2"),
    "int8 per tensor": int8(per_row=False),
    "int8 per row": int8(),
    "int8 per row, flat": int8(column=False),
    "int8 convrot": int8(group=256),
    "int8 convrot in groups of 64": int8(group=64),
    "int8 convrot, told in params": int8(group=16, nested=True),
}  # fmt: skip
every_form = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())


def save(
    path: Path, tensors: dict[str, torch.Tensor], metadata: dict[str, str] | None = None, prefix: str = ""
) -> Path:
    save_file({prefix + name: tensor.contiguous() for name, tensor in tensors.items()}, path, metadata)
    return path


def dequantized(
    folder: Path, tensors: dict[str, torch.Tensor], metadata: dict[str, str] | None = None, prefix: str = ""
) -> Dequantized:
    return Dequantized(open_checkpoint(save(folder / "base.safetensors", tensors, metadata, prefix)))


def of_form(folder: Path, form: Form, prefix: str = "") -> Dequantized:
    return dequantized(folder, form.tensors, form.metadata, prefix)
