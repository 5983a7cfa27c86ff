"""LoRA files as the inputs of a merge: every adapter on the modules of the file that is to be written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from ...engine.adapters import NOT_READ, RESHAPE, SET, needs_weight
from ...engine.merge.deltas import Delta, delta_of, rank_of
from ...engine.merge.parts import Input, Spec
from ...engine.plan import STACK, Adapter, Coverage, Layer, Patch
from ...engine.terms import Dense, make_term, read_parts
from ...engine.texts.say import refuse
from ..lineage.provenance import lineage_of_lora
from ..loras.file import LoRAFile
from ..names.blocks import parse_blocks
from ..names.lookup import BIAS
from ..names.outgoing import Unit, text_key
from ..plans.planner import make_layer
from ..remote.names import is_remote, parse_remote
from .ground import Ground
from .placing import keeps_all, order_of, placed


@dataclass(frozen=True)
class Wanted:
    """One LoRA of a merge: its file, its strengths on the model and on text encoders, and factors by block."""

    name: str
    path: Path
    strength: float = 1.0
    clip_strength: float = 1.0
    blocks: str = ""

    @property
    def file_name(self) -> str:
        """Its name without folders: no folder of the user goes into a file to be shared."""
        return parse_remote(self.name).file if is_remote(self.name) else self.path.name


@dataclass(frozen=True, eq=False)
class Matched:
    """A LoRA on its ground: what the engine takes, the layer a plan would have of it, and the units it changes.

    ``sets`` are the keys of the units that it replaces.
    """

    wanted: Wanted
    lora: LoRAFile
    layer: Layer
    input: Input
    units: dict[str, Unit]
    sets: frozenset[str] = frozenset()


Read = Callable[[], Delta]


@dataclass
class _Found:
    """What one LoRA has for one unit, collected."""

    unit: Unit
    strength: float
    reads: list[Read] = field(default_factory=list)
    ranks: list[int | None] = field(default_factory=list)
    sets: bool = False

    def spec(self) -> Spec:
        ranks = [rank for rank in self.ranks if rank is not None]
        return Spec(self.unit.shape, sum(ranks) if len(ranks) == len(self.ranks) else None)

    def delta(self) -> Delta:
        deltas = [read() for read in self.reads]
        products = tuple(product for delta in deltas for product in delta.products)
        dense = tuple(each for delta in deltas for each in delta.dense)
        replaces = [delta.replaces for delta in deltas if delta.replaces is not None]
        return Delta(self.unit.shape, products, dense, replaces[0] if replaces else None)


def match_all(
    ground: Ground, wanted: Sequence[tuple[Wanted, LoRAFile]], whole: Callable[[Layer], bool]
) -> list[Matched]:
    """Every LoRA on the ground. ``whole`` says which of them no method may touch.

    Raises FoundryError: what the planner raises for a LoRA that does not fit, LF304 for one that makes weights larger.
    """
    return [_matched(ground, each, lora, whole) for each, lora in wanted]


def _matched(ground: Ground, wanted: Wanted, lora: LoRAFile, whole: Callable[[Layer], bool]) -> Matched:
    layer = _layer(ground, wanted, lora)
    found: dict[str, _Found] = {}
    for patch in layer.patches:
        _add_patch(found, ground, layer, patch)
    factor = wanted.clip_strength * parse_blocks(wanted.blocks, ground.base.family).text
    for adapter in lora.text_adapters if factor else ():
        _add_text(found, ground, lora, adapter, factor)
    specs = {name: each.spec() for name, each in found.items()}
    weight = wanted.strength or 1.0
    factors = {name: each.strength / weight for name, each in found.items()}
    given = Input(wanted.file_name, weight, specs, lambda name: found[name].delta(), factors, whole(layer))
    sets = frozenset(name for name, each in found.items() if each.sets)
    return Matched(wanted, lora, layer, given, {name: each.unit for name, each in found.items()}, sets)


def _layer(ground: Ground, wanted: Wanted, lora: LoRAFile) -> Layer:
    """The LoRA on the ground; one for text encoders only changes nothing there."""
    if lora.adapters:
        return make_layer(ground.base, lora, STACK, wanted.strength, ground.matcher, blocks=wanted.blocks)
    coverage = Coverage(0, 0, text_encoder=len(lora.text_encoder))
    known = lineage_of_lora(lora)
    return Layer(STACK, lora.info, wanted.strength, (), coverage, findings=lora.findings, factors=lora, lineage=known)


def _add_patch(found: dict[str, _Found], ground: Ground, layer: Layer, patch: Patch) -> None:
    adapter, target = patch.adapter, patch.target
    if RESHAPE in dict(adapter.parts) or (target.slice is not None and target.slice[0] != 0):
        raise refuse("LF504.widened", lora=layer.lora.name, module=adapter.module)
    strength = layer.strength * patch.factor
    rows = ground.base.source.tensors[target.weight].shape[0]
    sets = adapter.kind == SET and len(adapter.delta_shape) == 1  # a norm: it has no dense delta that would be large
    dependent = needs_weight(adapter) and not sets
    for unit in ground.outgoing.units(target.weight):
        order = order_of(patch, unit, rows, target_rows=dependent)
        if order is not None and strength:
            each = found.setdefault(unit.key, _Found(unit, strength))
            each.reads.append(_reader(ground, layer, patch, order, unit, dependent))
            each.ranks.append(rank_of(adapter, layer.factors.tensors) if layer.factors else None)
            each.sets |= sets


def _reader(ground: Ground, layer: Layer, patch: Patch, order: torch.Tensor, unit: Unit, dependent: bool) -> Read:
    if not dependent:
        moved = None if keeps_all(order, patch.adapter.delta_shape[0]) else order  # thousands of orders are 100 MB
        return lambda: placed(delta_of(patch.adapter, read_parts(layer, patch)), moved, unit.shape)
    if not ground.named:
        delta_of(patch.adapter, {})  # says that it needs the base
    ground.require_numbers()
    return lambda: placed(_on_weight(ground, layer, patch), order, unit.shape)


def _on_weight(ground: Ground, layer: Layer, patch: Patch) -> Delta:
    """The change of a weight by an adapter that depends on it, at strength 1; what is set counts at any strength."""
    alone = replace(layer, strength=1.0, patches=(replace(patch, factor=1.0),))
    weight = ground.weight(patch.target.weight)
    term = make_term(alone, alone.patches[0], weight=weight.flatten(1) if weight.ndim > 1 else weight[:, None])
    height = term.span[1] - term.span[0]
    scale = 1.0 / (layer.strength * patch.factor) if patch.adapter.kind == SET else 1.0

    def rows(index: slice | torch.Tensor) -> torch.Tensor:
        return term.delta(index, torch.float32)

    return Delta((height, *weight.shape[1:]), dense=(Dense(rows, height, scale),))


def _add_text(found: dict[str, _Found], ground: Ground, lora: LoRAFile, adapter: Adapter, strength: float) -> None:
    module = adapter.module.removesuffix(BIAS)
    tensor = "bias" if module != adapter.module else "weight"
    unit = ground.outgoing.text_unit(text_key(module), adapter.delta_shape, tensor)
    each = found.setdefault(unit.key, _Found(unit, strength))
    names = {part: name for part, name in adapter.parts if part not in NOT_READ}
    each.reads.append(lambda: delta_of(adapter, {part: lora.read(name) for part, name in names.items()}))
    each.ranks.append(rank_of(adapter, lora.tensors))
