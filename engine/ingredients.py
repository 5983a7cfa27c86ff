"""The LoRAs of a plan as ingredients: what a later LoRA may be trained with, and what a file says is inside."""

from __future__ import annotations

from dataclasses import replace

from .json_lineage import BakedInJSON
from .lineage import DECLARED, DERIVED, FILE_ID, KNOWN_ID, Ingredient, Lineage
from .plan import FUSE, Layer, Plan


def ingredient_of(name: str, lineage: Lineage, strength: float, matched: int, modules: int) -> Ingredient:
    """A LoRA as something a later one may be trained with. A guess at what it is gives it no id."""
    known = lineage.accelerator
    ids = (*lineage.ids, *((KNOWN_ID + known.id,) if known and known.level in (DECLARED, DERIVED) else ()))
    coverage = (matched, modules) if modules else None
    return Ingredient(name, ids, strength, coverage=coverage, sketch=lineage.sketch)


def ingredients_json(plan: Plan) -> list[BakedInJSON]:
    """What is inside the result of a plan, for records: each LoRA with its stage, what the base held already first."""
    inside = [(FUSE, contained.ingredient) for contained in plan.base.contains]
    inside += [(layer.stage, _ingredient(layer)) for layer in plan.layers if layer.strength]
    return [{"stage": stage, **ingredient.to_json()} for stage, ingredient in inside]


def _ingredient(layer: Layer) -> Ingredient:
    coverage = layer.coverage
    return ingredient_of(layer.lora.name, lineage_of_file(layer), layer.strength, coverage.matched, coverage.modules)


def lineage_of_file(layer: Layer) -> Lineage:
    """A layer's lineage; the hash of its file is an id even where nothing else is known of it."""
    known = layer.lineage
    if not layer.lora.sha256 or any(id.startswith(FILE_ID) for id in known.ids):
        return known
    return replace(known, ids=(*known.ids, FILE_ID + layer.lora.sha256))
