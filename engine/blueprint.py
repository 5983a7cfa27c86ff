"""The blueprint: plan and finish resolved once, into what becomes of every tensor of the base. Frozen data.

Whoever bakes, budgets, stores, looks up or tells a result reads it here; nobody works it out a second time.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from .codes import Format
from .dither import rounding_for
from .errors import FoundryError
from .finish import INPUT_SCALE, Finish, beside_name, check_budget, layer_marker, layer_settings, marker_name
from .guard import already_quantized, raise_first
from .ingredients import ingredients_json
from .json_bake import HeaderJSON, RecipeBaseJSON, RecipeJSON, RecipeLayerJSON
from .json_lineage import InsideJSON
from .lineage import LINEAGE_KEY, SCHEMA
from .plan import MATCH_TRAINING, Layer, Patch, Plan
from .quantize import check_patterns, is_quantizable
from .reuse import essence_of, identity_of, tensor_key
from .smoothed import PRE_QUANT_SCALE, Smoothed
from .tensors import TensorInfo
from .terms import refuse_part, refuse_untrained
from .texts.say import refuse

SIDES = (16, 32, 64, 128, 256)  # what the sides of a weight may have to be a multiple of


@dataclass(frozen=True)
class Fate:
    """What becomes of one base tensor, ``info``.

    ``entries`` are the tensors of the result: itself, then the scale and the marker of a quantized weight. ``format``
    is how its numbers are rounded (None: to ``dtype``, which is what it has where it is not quantized). ``patches``
    come in listed order; ``kept``: an error budget keeps it in high precision; ``key``: see ``reuse.tensor_key``.
    ``calibrated``: it is rounded by what is known of its inputs; ``input_scale``: what those are divided by in fp8.
    """

    info: TensorInfo
    entries: tuple[TensorInfo, ...]
    dtype: torch.dtype
    format: Format | None = None
    patches: tuple[tuple[Layer, Patch], ...] = ()
    kept: bool = False
    key: str = ""
    calibrated: bool = False
    input_scale: float | None = None

    @property
    def result(self) -> TensorInfo:
        """The tensor itself, as it is stored."""
        return self.entries[0]

    @property
    def is_measured(self) -> bool:
        """Whether it is compared with the exact sum: what LoRAs, a format or a budget touch."""
        return bool(self.patches) or self.format is not None or self.kept


@dataclass(frozen=True)
class Blueprint:
    """What is made of every tensor of a base, in file order, and the ``recipe`` it is made by, with its hash.

    ``facts`` are what tells this base from any other, its ``fingerprint`` among them; empty: the result is for once.
    """

    plan: Plan
    finish: Finish
    fates: Mapping[str, Fate]
    recipe: RecipeJSON
    recipe_sha256: str
    facts: Mapping[str, Any]

    @property
    def base_identity(self) -> str:
        """One hash over ``facts``."""
        return identity_of(self.facts)

    @property
    def entries(self) -> tuple[TensorInfo, ...]:
        """Every tensor of the result in the order a bake writes it."""
        return tuple(entry for fate in self.fates.values() for entry in fate.entries)

    @property
    def nbytes(self) -> int:
        """Size of all tensors of the result."""
        return sum(entry.nbytes for entry in self.entries)

    @property
    def quantized(self) -> tuple[str, ...]:
        """The weights that are quantized, in file order."""
        return tuple(name for name, fate in self.fates.items() if fate.format is not None)

    @property
    def keys(self) -> dict[str, str]:
        """Base tensor -> its key."""
        return {name: fate.key for name, fate in self.fates.items()}

    @property
    def changes_nothing(self) -> bool:
        """Whether the result would be the base under another name."""
        return self.finish.dtype is None and not any(fate.is_measured for fate in self.fates.values())

    @property
    def quantization_metadata(self) -> dict[str, str]:
        """The header entry ComfyUI 0.3.75 to 0.38 reads: one dict per quantized layer, named as its tensors are.

        Prefixed spellings beside bare tensors would make 0.28 look for the whole model under that prefix and find
        none. A host that does not know the format stops at this entry; the markers alone would load and be wrong.
        """
        if self.finish.quantization is None:
            return {}
        names = (name.removesuffix(".weight") for name in self.quantized)
        layers = dict.fromkeys(names, layer_settings(self.finish))
        return {"_quantization_metadata": json.dumps({"format_version": "1.0", "layers": layers})}

    def file_metadata(self, arithmetic: str) -> dict[str, str]:
        """``__metadata__`` of a result: what the host needs, the recipe, how sums were worked out, the LoRAs inside."""
        made: HeaderJSON = {"recipe": self.recipe, "recipe_sha256": self.recipe_sha256, "arithmetic": arithmetic}
        if any(isinstance(fate.format, Smoothed) for fate in self.fates.values()):
            made["no_lora_on_top"] = PRE_QUANT_SCALE
        inside: InsideJSON = {"schema": SCHEMA, "contains": ingredients_json(self.plan)}
        records = {"lora_foundry": json.dumps(made), LINEAGE_KEY: json.dumps(inside)}
        return {"format": "pt", **self.quantization_metadata, **records}

    def keeping(self, names: frozenset[str]) -> Blueprint:
        """The same with these weights in high precision, as its error budget wants it: the recipe stays."""
        return blueprint(self.plan, replace(self.finish, keep_names=names), self.facts)


def blueprint(plan: Plan, finish: Finish, facts: Mapping[str, Any] | None = None) -> Blueprint:
    """Resolve what is made of every tensor of the plan's base; no weight is read.

    Raises FoundryError: LF201 for a quantized base, LF202 for a format that would quantize nothing, ``format``,
    ``usage`` for a budget that is none, LF304 for adapters that cannot be applied so.
    """
    raise_first(already_quantized(plan))
    check_budget(finish)
    facts = facts or {}
    for pair in plan.patches():
        refuse_untrained(*pair)
        refuse_part(*pair)
    fit = _quantizable(plan, finish)
    resolved = _resolved(plan, finish, fit - finish.keep_names)
    if finish.quantization is not None and not fit - finish.keep_names:
        raise _nothing_fits(plan, finish, finish.quantization)
    identity = identity_of(facts)
    fates = {fate.info.name: replace(fate, key=tensor_key(identity, essence)) for fate, essence in resolved}
    if finish.max_error is not None and finish.keep_names:  # what a budget keeps follows from it: the recipe stays
        resolved = _resolved(plan, finish, fit)
    recipe = _recipe(plan, finish, str(facts.get("fingerprint", "")), [essence for _, essence in resolved])
    return Blueprint(plan, finish, fates, recipe, recipe_sha256(recipe), facts)


def recipe_sha256(recipe: RecipeJSON) -> str:
    """Hash of a recipe's contents; names are left out and additive layers are sorted, for they change no bit."""
    layers = [{key: value for key, value in layer.items() if key != "lora"} for layer in recipe["layers"]]
    ordered = [layer for layer in layers if layer["rounding"] == MATCH_TRAINING]
    additive = sorted((layer for layer in layers if layer["rounding"] != MATCH_TRAINING), key=json.dumps)
    same = {"finish": recipe["finish"], "tensors": recipe["tensors"], "base": recipe["base"]["fingerprint"]}
    essence = {**same, "ordered": ordered, "additive": additive}
    return hashlib.sha256(json.dumps(essence, sort_keys=True).encode()).hexdigest()


def _nothing_fits(plan: Plan, finish: Finish, format: Format) -> FoundryError:
    """LF202: every layer is kept, or none has a size that the format can store."""
    values = {"base": plan.base.name, "keep": ", ".join(finish.keep) or "nothing"}
    infos, family = plan.base.source.tensors.values(), plan.base.family
    free = [info for info in infos if is_quantizable(info, family, finish.keep, finish.linears)]
    if not free or finish.keep_names:
        return refuse("LF202.all_kept", **values)
    rows = next(side for side in SIDES if format.fits((side, SIDES[-1])))
    columns = next(side for side in SIDES if format.fits((SIDES[-1], side)))
    shape = " x ".join(map(str, free[0].shape))
    sizes = {"rows": rows, "columns": columns, "layer": free[0].name, "shape": shape}
    return refuse("LF202.no_size", **values, **sizes, count=len(free), format=format.name)


# --- steps ------------------------------------------------------------------------------------------------------------


def _quantizable(plan: Plan, finish: Finish) -> frozenset[str]:
    """The weights that are quantized where no budget keeps them; refuses a keep pattern that hits nothing."""
    format, family, keep, linears = finish.quantization, plan.base.family, finish.keep, finish.linears
    if format is None:
        return frozenset()
    check_patterns(keep, plan.base.source.tensors)
    infos = plan.base.source.tensors.values()
    return frozenset(info.name for info in infos if is_quantizable(info, family, keep, linears, format))


def _resolved(plan: Plan, finish: Finish, quantized: frozenset[str]) -> list[tuple[Fate, list[Any]]]:
    """(fate without its key, its essence) of every base tensor, where these are quantized."""
    work, format, marker = plan.by_weight(), finish.quantization, layer_marker(finish)
    regrid = rounding_for(format, plan.base) if format else None  # for what LoRAs change
    exact = [] if finish.arithmetic is None else [finish.arithmetic]
    found = []
    for info in plan.base.source.tensors.values():
        pairs, dtype = work.get(info.name, ()), _plain_dtype(info, finish)
        if format is None or info.name not in quantized:
            entries: tuple[TensorInfo, ...] = (TensorInfo(info.name, dtype, info.shape),)
            fate = Fate(info, entries, dtype, None, pairs, info.name in finish.keep_names)
            made: Any = [str(dtype), *exact] if exact and pairs else str(dtype)
        else:
            known = finish.calibration is not None and finish.calibration.covers(info.name, info.shape[1])
            rounding = (finish.guided or format) if known else regrid if regrid and pairs else format
            scale = finish.input_scale_of(info.name)
            entries = tuple(_quantized_entries(info, rounding, marker, scale))
            fate = Fate(info, entries, dtype, rounding, pairs, calibrated=known, input_scale=scale)
            made = [finish.format, finish.matmul, *_beside_nearest(rounding, format), *exact]
            made += [finish.calibration.identity] if finish.calibration is not None and (known or scale) else []
        found.append((fate, essence_of(info.name, made, pairs)))
    return found


def _beside_nearest(rounding: Format, format: Format) -> list[str]:
    """What the rounding of a weight is called where it is not that of its format."""
    if isinstance(rounding, Smoothed):
        return [PRE_QUANT_SCALE]
    return ["unbiased"] if rounding != format else []


def _plain_dtype(info: TensorInfo, finish: Finish) -> torch.dtype:
    """Dtype of a tensor that is not quantized; a single number is a setting (sigma_min ...) and stays as it is."""
    is_weight = info.dtype.is_floating_point and info.shape != ()
    return finish.dtype if finish.dtype is not None and is_weight else info.dtype


def _quantized_entries(
    info: TensorInfo, format: Format, marker: torch.Tensor | None, input_scale: float | None
) -> Iterator[TensorInfo]:
    """A quantized weight, its scales and, in a format of newer hosts, its marker; the scale of its inputs."""
    yield TensorInfo(info.name, format.dtype, format.code_shape(info.shape))
    for suffix, dtype, shape in format.beside(info.shape):
        yield TensorInfo(beside_name(info.name, suffix), dtype, shape)
    if marker is not None:
        yield TensorInfo(marker_name(info.name), marker.dtype, tuple(marker.shape))
    if input_scale is not None:
        yield TensorInfo(beside_name(info.name, INPUT_SCALE), torch.float32, ())


def _recipe(plan: Plan, finish: Finish, fingerprint: str, essences: list[list[Any]]) -> RecipeJSON:
    """Everything the result depends on, as plain data: contents by hash, the settings, and as ``tensors`` one hash
    over what is made of every tensor, which covers what hosts, families and block weights decide."""
    base: RecipeBaseJSON = {"name": plan.base.name, "fingerprint": fingerprint, "family": plan.base.family}
    if plan.base.dequantized:
        base["dequantized"] = plan.base.quantized
    return {
        "base": base,
        "vanilla": plan.vanilla,
        "layers": [_layer(layer) for layer in plan.layers],
        "finish": finish.settings(),
        "tensors": hashlib.sha256(json.dumps(sorted(essences)).encode()).hexdigest()[:32],
    }


def _layer(layer: Layer) -> RecipeLayerJSON:
    alphas = layer.alphas_beside()
    told: RecipeLayerJSON = {
        "stage": layer.stage,
        "lora": layer.lora.name,
        "sha256": layer.lora.sha256,
        "strength": float(layer.strength),
        "rounding": layer.rounding,
        "matched": layer.coverage.matched,
    }
    if layer.blocks:
        told["blocks"] = layer.blocks
    if alphas:
        told["alphas"] = alphas
    return told
