"""Which adapter goes to which weights of a base, how much of it, and why one does not: by names and by shapes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from ...engine.adapters import RESHAPE, SET
from ...engine.grown import Grown, grown_base
from ...engine.plan import Adapter, Base, Layer, Patch, Plan, Target
from ...engine.tensors import TensorInfo
from ...engine.texts.say import refuse
from ..disk.header import shown
from ..names.blocks import BlockWeights
from ..names.lookup import BIAS, Matcher, TwoViews
from .file import LoRAFile
from .fitting import as_stored, fits

Shape = tuple[int, ...]
# The layers that take a model's input, by its own names and those of diffusers; FLUX control LoRAs double one, and the
# widest inputs published (fill, with mask and picture) are six times those of the plain model.
INPUT_LAYERS = {
    *("img_in", "img_in.proj", "patch_embedding", "x_embedder", "x_embedder.proj", "input_blocks.0.0", "conv_in"),
    *("pos_embed.proj", "proj_in"),
}
MOST_WIDER = 8
NO_WEIGHT, NO_BIAS = "no weight of this name", "its layer has no bias here"


@dataclass
class Fit:
    """What matching gave: patches, modules without a weight, and modules whose weight has another shape."""

    patches: list[Patch] = field(default_factory=list)
    nameless: dict[str, str] = field(default_factory=dict)
    misfits: dict[str, str] = field(default_factory=dict)


def match(base: Base, lora: LoRAFile, matcher: Matcher, factors: BlockWeights) -> Fit:
    """Every adapter of a file on its weights; blocks with the factor 0 are matched and get no patch."""
    fit = Fit()
    for filed in lora.adapters:
        targets = _found(filed, matcher, base.source.tensors)
        adapter = _in_shape(filed, targets, base.source.tensors)
        if not targets or any(target.weight not in base.source.tensors for target in targets):
            fit.nameless[adapter.module] = _nameless(adapter, matcher)
        elif reason := _shape_reason(adapter, targets, base.source.tensors):
            stored = stored_base(base)
            if _shape_reason(adapter, targets, stored.source.tensors):
                fit.misfits[adapter.module] = reason
            else:
                fit.patches += [_beside_room(patch, stored, base) for patch in _patches(adapter, targets, factors)]
        else:
            fit.patches += _patches(adapter, targets, factors)
    return fit


def parameters(base: Base, lora: LoRAFile, matcher: Matcher, factors: BlockWeights) -> dict[str, list[Patch]]:
    """What a file holds whole of a model's parameters, which have no suffix that says so: they replace the model's.

    Tensor -> its patches, none in a block with the factor 0.
    """
    patches: dict[str, list[Patch]] = {}
    for name in lora.unused:
        info = lora.tensors[name]
        if not info.dtype.is_floating_point or not info.shape or 0 in info.shape:
            continue
        adapter = Adapter(name, SET, ((SET, name),), 1, info.shape)
        targets = _found(adapter, matcher, base.source.tensors)
        there = bool(targets) and all(target.weight in base.source.tensors for target in targets)
        adapter = _in_shape(adapter, targets, base.source.tensors)
        if there and not _shape_reason(adapter, targets, base.source.tensors):
            patches[name] = _patches(adapter, targets, factors)
    return patches


def _found(adapter: Adapter, matcher: Matcher, tensors: Mapping[str, TensorInfo]) -> tuple[Target, ...]:
    """Where an adapter goes; by the second view of a matcher where it fits by that alone."""
    targets = matcher.find(adapter.module)
    there = bool(targets) and all(target.weight in tensors for target in targets)
    if isinstance(matcher, TwoViews) and there and _shape_reason(adapter, targets, tensors):
        other = matcher.second(adapter.module)
        return other if other and not _shape_reason(adapter, other, tensors) else targets
    return targets


def _in_shape(adapter: Adapter, targets: tuple[Target, ...], tensors: Mapping[str, TensorInfo]) -> Adapter:
    """The adapter as its one whole weight stores the same numbers."""
    if len(targets) != 1 or targets[0].slice or targets[0].transform or targets[0].weight not in tensors:
        return adapter
    return as_stored(adapter, tensors[targets[0].weight].shape)


def add_layer(plan: Plan, layer: Layer) -> Plan:
    """The plan with one layer more, on a larger base where the layer wants one.

    Layers before it then keep to the part of a weight that was there, so the order of listing changes nothing.
    """
    if layer.strength == 0.0 or not any(_reshapes(patch) for patch in layer.patches):
        return plan.add(layer)
    base = grown_base(plan.base, layer.patches)
    layers = tuple(
        replace(each, patches=tuple(_beside_room(patch, plan.base, base) for patch in each.patches))
        for each in plan.layers
    )
    return replace(plan, base=base, layers=layers).add(layer)


def _patches(adapter: Adapter, targets: tuple[Target, ...], factors: BlockWeights) -> list[Patch]:
    patches = [Patch(adapter, target, factors(target.weight)) for target in targets]
    return [patch for patch in patches if patch.factor != 0.0]


def _nameless(adapter: Adapter, matcher: Matcher) -> str:
    layer = adapter.module.removesuffix(BIAS)
    return NO_BIAS if layer != adapter.module and matcher.find(layer) else NO_WEIGHT


def _reshapes(patch: Patch) -> bool:
    return RESHAPE in dict(patch.adapter.parts)


def stored_base(base: Base) -> Base:
    """The base as its file has it, before any weight was made larger."""
    return replace(base, source=base.source.source) if isinstance(base.source, Grown) else base


def _beside_room(patch: Patch, before: Base, after: Base) -> Patch:
    """The patch on the part of a weight that was there before it was made larger."""
    target = patch.target
    old, new = (base.source.tensors[target.weight].shape for base in (before, after))
    if old == new or _reshapes(patch):
        return patch
    grown = [dim for dim in range(len(old)) if old[dim] != new[dim]]
    if target.slice is None and len(grown) == 1 and grown[0] < 2:
        return replace(patch, target=replace(target, slice=(grown[0], 0, old[grown[0]])))
    raise refuse("LF304.part_of_grown", weight=shown(target.weight))


# --- shapes


def _shape_reason(adapter: Adapter, targets: tuple[Target, ...], tensors: Mapping[str, TensorInfo]) -> str | None:
    """Why a delta cannot go to its targets, or None."""
    places = [_place(target, tensors[target.weight].shape) for target in targets]
    wanted, where = list(places[0][0]), places[0][1]
    if len(targets) > 1:
        wanted[0] = sum(shape[0] for shape, _ in places)
        where = f"{where} and {len(targets) - 1} more"
    if fits(adapter, tuple(wanted)):
        return _growth_reason(adapter, targets, tuple(wanted)) if RESHAPE in dict(adapter.parts) else None
    return f"shape {_size(adapter.delta_shape)} for {where} of shape {_size(wanted)}"


def _growth_reason(adapter: Adapter, targets: tuple[Target, ...], stored: Shape) -> str | None:
    """Why a weight may not become as large as a LoRA wants it, or None: a file of a few KB could ask for gigabytes."""
    wanted = adapter.delta_shape
    if wanted == stored:
        return None
    wider = (stored[0], wanted[1], *stored[2:])
    known = all(target.slice is None and target.weight.removesuffix(".weight") in INPUT_LAYERS for target in targets)
    if known and wanted == wider and wanted[1] <= MOST_WIDER * stored[1]:
        return None
    law = f"only the inputs of a model's first layer may grow, at most {MOST_WIDER} times"
    return f"it wants {_size(stored)} to become {_size(wanted)}; {law}"


def _place(target: Target, shape: Shape) -> tuple[Shape, str]:
    """(the shape of what a target names, its name for a sentence)."""
    wanted, where = list(shape), f"'{shown(target.weight)}'"
    if target.slice is not None:
        dim, start, length = target.slice
        where = f"{length} of the {shape[dim]} rows of {where}" if dim == 0 else f"a part of {where}"
        wanted[dim] = length if start + length <= shape[dim] else -1
    return tuple(wanted), where


def _size(shape: Shape | list[int]) -> str:
    return " x ".join(map(str, shape))
