"""Names of LoRAs that the registry of accelerators knows, so that two spellings of one can be seen to be one."""

from __future__ import annotations

from dataclasses import replace

from ...engine.errors import FoundryError
from ...engine.lineage import KNOWN_ID, Accelerator, Ingredient
from .accelerators import recognise


def known_name(name: str, ids: tuple[str, ...] = ()) -> Accelerator | None:
    """The registry's entry for a name, or for a file of that name with these ids; None too for a broken registry."""
    try:
        return recognise(name, ids) if name.strip() else None
    except FoundryError:  # told once, where a file itself is looked up, and not again for every name
        return None


def known_as(ingredient: Ingredient) -> Ingredient:
    """The LoRA with the id of its entry in the registry, if it has one."""
    if any(id.startswith(KNOWN_ID) for id in ingredient.ids):
        return ingredient
    known = known_name(ingredient.name, ingredient.ids)
    return replace(ingredient, ids=(*ingredient.ids, f"{KNOWN_ID}{known.id}")) if known and known.id else ingredient
