"""How a bake ends: the output tensors, their dtypes, and the header that lets any ComfyUI load them."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from .errors import FoundryError
from .plan import Plan
from .quantize import AUTO, is_quantizable
from .tensors import TensorInfo

FP8_FORMATS = {"float8_e4m3fn": torch.float8_e4m3fn}
FULL_PRECISION, FP8_MATMUL = "full precision", "fp8"
SCALE_SUFFIX = "weight_scale"


@dataclass(frozen=True)
class Finish:
    """``format`` names an fp8 dtype or is ``none``; ``dtype`` is for what is not quantized (None: as stored).

    ``keep`` are patterns of layers that stay in high precision (``auto``: the family's list);
    ``linears`` are the weights a host knows to be nn.Linear (None: decided by name).
    """

    format: str = "none"
    dtype: torch.dtype | None = None
    matmul: str = FULL_PRECISION
    keep: tuple[str, ...] = (AUTO,)
    linears: frozenset[str] | None = None

    @property
    def fp8(self) -> torch.dtype | None:
        """The fp8 dtype weights are quantized to, or None."""
        if self.format == "none":
            return None
        if self.format not in FP8_FORMATS:
            known = ", ".join(FP8_FORMATS)
            raise FoundryError("format", f"Unknown quantization format {self.format!r}.", fix=f"Use none or {known}.")
        return FP8_FORMATS[self.format]

    def settings(self) -> dict[str, Any]:
        """What of this finish changes the result, for the recipe."""
        dtype = None if self.dtype is None else str(self.dtype).removeprefix("torch.")
        return {"format": self.format, "dtype": dtype, "matmul": self.matmul, "keep": list(self.keep)}


def quantized_names(plan: Plan, finish: Finish) -> tuple[str, ...]:
    """The weights that become fp8, in file order; an fp8 finish that would quantize nothing is an error."""
    if finish.fp8 is None:
        return ()
    tensors = plan.base.source.tensors.values()
    names = tuple(t.name for t in tensors if is_quantizable(t, plan.base.family, finish.keep, finish.linears))
    if not names:
        raise FoundryError(
            "LF202",
            f"No layer of {plan.base.name} can be quantized with keep = {', '.join(finish.keep) or 'nothing'}.",
            "The result would be the unquantized model under another name.",
            "Keep fewer layers in high precision, or finish without quantization.",
        )
    return names


def output_dtype(info: TensorInfo, finish: Finish) -> torch.dtype:
    """Dtype of a tensor that is not quantized; a single number is a setting (sigma_min ...) and stays as it is."""
    is_weight = info.dtype.is_floating_point and info.shape != ()
    return finish.dtype if finish.dtype is not None and is_weight else info.dtype


def scale_name(weight: str) -> str:
    """``blocks.0.q.weight`` -> ``blocks.0.q.weight_scale``."""
    return weight.removesuffix("weight") + SCALE_SUFFIX


def outputs(plan: Plan, finish: Finish) -> tuple[TensorInfo, ...]:
    """Every tensor of the result in the order a bake writes it: names, dtypes and shapes are known beforehand."""
    chosen: Collection[str] = set(quantized_names(plan, finish))
    entries: list[TensorInfo] = []
    for info in plan.base.source.tensors.values():
        if finish.fp8 is not None and info.name in chosen:
            entries.append(TensorInfo(info.name, finish.fp8, info.shape))
            entries.append(TensorInfo(scale_name(info.name), torch.float32, ()))
        else:
            entries.append(TensorInfo(info.name, output_dtype(info, finish), info.shape))
    return tuple(entries)


def quantization_metadata(plan: Plan, finish: Finish) -> dict[str, str]:
    """The header entry ComfyUI 0.3.75 to 0.38 reads: one dict per quantized layer, named as its tensors are.

    Prefixed spellings beside bare tensors would make 0.28 look for the whole model under that prefix and find none.
    """
    names = quantized_names(plan, finish)
    if not names:
        return {}
    entry: dict[str, Any] = {"format": finish.format}
    if finish.matmul == FULL_PRECISION:
        entry["full_precision_matrix_mult"] = True
    layers = {name.removesuffix(".weight"): entry for name in names}
    return {"_quantization_metadata": json.dumps({"format_version": "1.0", "layers": layers})}


def file_metadata(plan: Plan, finish: Finish, recipe: Mapping[str, Any], sha256: str) -> dict[str, str]:
    """``__metadata__`` of a result: what the host needs, and the recipe it was made by."""
    record = {"recipe": dict(recipe), "recipe_sha256": sha256}
    return {"format": "pt", **quantization_metadata(plan, finish), "lora_foundry": json.dumps(record)}
