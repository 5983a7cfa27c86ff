"""How a bake ends: the output tensors, their dtypes, and the header that lets any ComfyUI load them."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from .errors import FoundryError
from .formats import FORMATS, Format
from .ingredients import ingredients_json
from .lineage import LINEAGE_KEY, SCHEMA
from .plan import Plan
from .quantize import AUTO, is_quantizable
from .tensors import TensorInfo

FULL_PRECISION, FP8_MATMUL = "full precision", "fp8"
SCALE_SUFFIX = "weight_scale"
MARKER_SUFFIX = "comfy_quant"


@dataclass(frozen=True)
class Finish:
    """``format`` is a key of FORMATS or ``none``; ``dtype`` is for what is not quantized (None: as stored).

    ``keep`` are patterns of layers that stay in high precision (``auto``: the family's list); ``linears`` are the
    weights a host knows to be nn.Linear (None: decided by name); ``keep_names`` are weights the error budget
    ``max_error`` keeps.
    """

    format: str = "none"
    dtype: torch.dtype | None = None
    matmul: str = FULL_PRECISION
    keep: tuple[str, ...] = (AUTO,)
    linears: frozenset[str] | None = None
    keep_names: frozenset[str] = frozenset()
    max_error: float | None = None

    @property
    def quantization(self) -> Format | None:
        """The format weights are quantized to, or None; FoundryError ``format`` for a name that is none."""
        if self.format == "none":
            return None
        if self.format not in FORMATS:
            known = ", ".join(FORMATS)
            raise FoundryError("format", f"Unknown quantization format {self.format!r}.", fix=f"Use none or {known}.")
        return FORMATS[self.format]

    def settings(self) -> dict[str, Any]:
        """What of this finish changes the result, for the recipe."""
        dtype = None if self.dtype is None else str(self.dtype).removeprefix("torch.")
        budget = {} if self.max_error is None else {"max_error": self.max_error}  # which decides keep_names
        return {"format": self.format, "dtype": dtype, "matmul": self.matmul, "keep": list(self.keep), **budget}


def quantized_names(plan: Plan, finish: Finish) -> tuple[str, ...]:
    """The weights that are quantized, in file order; a format that would quantize nothing is an error."""
    format = finish.quantization
    if format is None:
        return ()
    family, keep, linears = plan.base.family, finish.keep, finish.linears
    tensors = (info for info in plan.base.source.tensors.values() if info.name not in finish.keep_names)
    names = tuple(info.name for info in tensors if is_quantizable(info, family, keep, linears, format))
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


def marker_name(weight: str) -> str:
    """``blocks.0.q.weight`` -> ``blocks.0.q.comfy_quant``."""
    return weight.removesuffix("weight") + MARKER_SUFFIX


def layer_settings(finish: Finish) -> dict[str, Any]:
    """What the host is told of each quantized layer: its name of the format, the rotation, how it multiplies.

    int8 has no full precision matmul: the host always rounds the (rotated) activations to int8, one scale per token.
    """
    format = finish.quantization
    if format is None:
        return {}
    full = finish.matmul == FULL_PRECISION and format.dtype.is_floating_point
    return {"format": format.host_name, **format.options, **({"full_precision_matrix_mult": True} if full else {})}


def layer_marker(finish: Finish) -> torch.Tensor | None:
    """The ``.comfy_quant`` tensor beside each quantized weight (JSON as uint8); None where the header is enough."""
    if finish.quantization is None or not finish.quantization.marked:
        return None
    return torch.tensor(list(json.dumps(layer_settings(finish)).encode()), dtype=torch.uint8)


def outputs(plan: Plan, finish: Finish) -> tuple[TensorInfo, ...]:
    """Every tensor of the result in the order a bake writes it: names, dtypes and shapes are known beforehand.

    A quantized weight is followed by its scale and, in a format of newer hosts, by its marker.
    """
    chosen: Collection[str] = set(quantized_names(plan, finish))
    marker, entries = layer_marker(finish), list[TensorInfo]()
    for info in plan.base.source.tensors.values():
        format = finish.quantization if info.name in chosen else None
        entries.append(TensorInfo(info.name, format.dtype if format else output_dtype(info, finish), info.shape))
        if format is not None:
            entries.append(TensorInfo(scale_name(info.name), torch.float32, format.scale_shape(info.shape)))
        if format is not None and marker is not None:
            entries.append(TensorInfo(marker_name(info.name), marker.dtype, tuple(marker.shape)))
    return tuple(entries)


def quantization_metadata(plan: Plan, finish: Finish) -> dict[str, str]:
    """The header entry ComfyUI 0.3.75 to 0.38 reads: one dict per quantized layer, named as its tensors are.

    Prefixed spellings beside bare tensors would make 0.28 look for the whole model under that prefix and find none.
    A host that does not know the format stops at this entry; the markers alone would load there and be wrong.
    """
    names = quantized_names(plan, finish)
    if not names:
        return {}
    layers = dict.fromkeys((name.removesuffix(".weight") for name in names), layer_settings(finish))
    return {"_quantization_metadata": json.dumps({"format_version": "1.0", "layers": layers})}


def file_metadata(plan: Plan, finish: Finish, recipe: Mapping[str, Any], sha256: str) -> dict[str, str]:
    """``__metadata__`` of a result: what the host needs, the recipe it was made by, and which LoRAs are inside."""
    made = {"recipe": dict(recipe), "recipe_sha256": sha256}
    inside = {"schema": SCHEMA, "contains": ingredients_json(plan)}
    records = {"lora_foundry": json.dumps(made), LINEAGE_KEY: json.dumps(inside)}
    return {"format": "pt", **quantization_metadata(plan, finish), **records}
