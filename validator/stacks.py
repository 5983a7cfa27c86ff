"""A stack as the rules see it: what lies in the model in which order, whoever put it there.

A plan, a stack document and a workflow made of native nodes all become this, so one set of rules judges them all.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..engine.adapters import needs_weight
from ..engine.ingredients import ingredient_of, lineage_of_file
from ..engine.lineage import NOTHING_KNOWN, Contained, Ingredient, Lineage
from ..engine.plan import Plan
from .named import Variant, variant_by_name

POLICIES = MATCH, ALLOW = ("match training", "allow accelerators")


@dataclass(frozen=True)
class Item:
    """One LoRA of a stack. ``stage`` is ``fuse`` or ``stack``; ``node`` is the graph node that applies it, if any.

    ``matched`` of ``modules`` found a weight (0 of 0: not looked at). ``dependent``: what it does depends on the
    weights below it (DoRA, OFT, set ...), so order changes numbers and not only the state.
    """

    name: str
    stage: str
    strength: float = 1.0
    lineage: Lineage = NOTHING_KNOWN
    matched: int = 0
    modules: int = 0
    dependent: bool = False
    node: str = ""
    variant: Variant = Variant()

    @property
    def ingredient(self) -> Ingredient:
        """This LoRA as something a later one may be trained with. A guess at what it is gives it no id."""
        return ingredient_of(self.name, self.lineage, self.strength, self.matched, self.modules)


@dataclass(frozen=True)
class Sampling:
    """How a graph samples this model. None: linked or not said."""

    steps: int | None = None
    cfg: float | None = None
    node: str = ""


@dataclass(frozen=True)
class Stack:
    """One model as it is sampled or saved.

    ``contains`` are LoRAs known to be inside the base already. ``items`` come in the order they are applied, bottom
    first. ``vanilla``: no base LoRA by an explicit choice. ``native``: the items are patches of native nodes, each
    applied to what the ones before it left; in a plan all of a stage see the same weights. ``scaled``: its weights are
    fp8 with scales, which the host rounds back to stochastically; ``whole``: they are known to have 16 bits or more.
    """

    base: str
    family: str | None = None
    quantized: str | None = None
    dequantized: bool = False
    contains: tuple[Contained, ...] = ()
    items: tuple[Item, ...] = ()
    vanilla: bool = False
    native: bool = False
    sampling: tuple[Sampling, ...] = ()
    node: str = ""
    scaled: bool = False
    whole: bool = False
    variant: Variant = Variant()


def stack_of(plan: Plan, sampling: tuple[Sampling, ...] = ()) -> Stack:
    """The stack a plan makes."""
    items = tuple(
        Item(
            layer.lora.name,
            layer.stage,
            layer.strength,
            lineage_of_file(layer),
            layer.coverage.matched,
            layer.coverage.modules,
            any(needs_weight(patch.adapter) for patch in layer.patches),
            variant=variant_by_name(layer.lora.name),
        )
        for layer in plan.layers
    )
    base = plan.base
    return Stack(
        base.name, base.family, base.quantized, base.dequantized, base.contains, items, plan.vanilla, sampling=sampling,
        whole=base.quantized is None, variant=variant_by_name(base.name),
    )  # fmt: skip
