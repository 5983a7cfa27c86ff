"""What LoRAs of any dialect are matched on: the weights of a base, or without one those the LoRAs are made for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from ...engine.fuse import fused_weight, make_terms
from ...engine.guard import already_quantized, raise_first
from ...engine.plan import FUSE, Base, Layer, Plan
from ...engine.tensors import InMemory, TensorInfo
from ...engine.texts.say import refuse
from ..bases.checkpoint import open_model
from ..bases.dequantize import REFUSE, Dequantized, opened
from ..bases.families import detect_base, differ, family_of_names
from ..bases.signatures import OR
from ..lineage.contents import contained_in
from ..loras.file import LoRAFile
from ..loras.matching import add_layer
from ..names.lookup import BaseNames
from ..names.native import fuller, stand_in
from ..names.outgoing import Outgoing
from ..plans.planner import make_layer
from ..remote.names import Where, label_of
from ..remote.objects import ANYTHING, Asking


class Shapes(InMemory):
    """A base of which names and shapes are known, and no number."""

    label = "the model the other LoRAs are for"

    def __init__(self, tensors: dict[str, TensorInfo]) -> None:
        self.tensors = tensors

    def read(self, name: str) -> torch.Tensor:
        """There is nothing to read."""
        raise refuse("LF504.values", weight=name)


@dataclass(frozen=True, eq=False)
class Ground:
    """The base that LoRAs are matched on, with what is fused into it first, and the names a file gives its modules.

    ``named``: it is a real one, whose numbers can be read.
    """

    plan: Plan
    outgoing: Outgoing
    named: bool

    @property
    def base(self) -> Base:
        """The base itself."""
        return self.plan.base

    @property
    def matcher(self) -> BaseNames:
        """Finds its weights by the names of LoRA files."""
        return BaseNames(self.base.source.tensors, self.base.family)

    def require_numbers(self) -> None:
        """FoundryError ``LF201`` for a base whose numbers are quantized: names and shapes are all it can give."""
        raise_first(already_quantized(self.plan))

    def weight(self, name: str) -> torch.Tensor:
        """A weight as the merged LoRAs meet it: what is fused first is in it, in fp32."""
        stored = self.base.source.read(name)
        pairs = self.plan.by_weight().get(name, ())
        return fused_weight(stored, pairs, make_terms(stored, pairs)) if pairs else stored


def ground_of(
    loras: Sequence[LoRAFile],
    base: Where | None,
    dialect: str,
    on_quantized_base: str = REFUSE,
    asking: Asking = ANYTHING,
) -> Ground:
    """The ground for these LoRAs. Raises FoundryError ``LF504`` for LoRAs of two families, and what opening raises."""
    if base is not None:
        found = _opened(base, on_quantized_base, asking)
        return Ground(Plan(found), Outgoing(found.source.tensors, found.family, dialect), True)
    family = _family(loras)
    modules: dict[str, tuple[int, ...]] = {}
    for adapter in (each for lora in loras for each in lora.adapters):
        modules[adapter.module] = fuller(modules.get(adapter.module), adapter.delta_shape)
    source = Shapes(stand_in(modules, family))
    return Ground(Plan(Base(source.label, family, source)), Outgoing(source.tensors, family, dialect), False)


def ground_on(plan: Plan, dialect: str) -> Ground:
    """The ground of a plan: its base, and what is fused into it."""
    return Ground(plan, Outgoing(plan.base.source.tensors, plan.base.family, dialect), True)


def with_fused(ground: Ground, lora: LoRAFile, strength: float, blocks: str = "") -> Ground:
    """The same with a base LoRA fused into it first: what the LoRAs above it see. Needs a base that is named."""
    layer: Layer = make_layer(ground.base, lora, FUSE, strength, ground.matcher, blocks=blocks)
    return replace(ground, plan=add_layer(ground.plan, layer))


def _opened(where: Where, on_quantized_base: str, asking: Asking) -> Base:
    source = opened(open_model(where, asking), on_quantized_base)
    family, inside = detect_base(source.tensors), contained_in(source)
    dequantized = isinstance(source, Dequantized)
    return Base(label_of(where), family, source, source.quantized, dequantized=dequantized, contains=inside)


def _family(loras: Sequence[LoRAFile]) -> str | None:
    """The family of all; LoRAs that do not show theirs are told apart by their shapes later."""
    known = [lora for lora in loras if lora.info.family is not None]
    known.sort(key=lambda lora: OR in (lora.info.family or ""))
    for other in known[1:]:
        if differ(known[0].info.family, other.info.family):
            values = {"one": known[0].label, "other": other.label}
            families = {"one_family": known[0].info.family, "other_family": other.info.family}
            raise refuse("LF504.families", **values, **families)
    return family_of_names(known[0].info.family) if known else None
