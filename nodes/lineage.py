"""Lineage records by names of ComfyUI's LoRA folder: what the user says is written down, what is known is told."""

from __future__ import annotations

import posixpath
from collections.abc import Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..engine.errors import FoundryError
from ..engine.lineage import BY_USER, UNKNOWN, Claim, Ingredient, Lineage
from ..engine.progress import Progress
from ..engine.texts.say import refuse
from ..loaders.disk.header import shown
from ..loaders.lineage.accelerators import known_as
from ..loaders.lineage.identity import identify_file
from ..loaders.lineage.provenance import lineage_of
from ..loaders.lineage.record import Record, lineage_json
from ..loaders.lineage.store import declare as write_down
from ..loaders.lineage.store import read, retract
from ..validator.stacks import Item
from .remotes import lora_here

BASE = "the untouched base"
MOST_NAME = 300  # characters of a name that is written down
NamedLoRAs = Sequence[tuple[str, float | None]]  # LoRAs by name, with their strength where it is said


@dataclass(frozen=True)
class Declaration:
    """What the user says about a LoRA: rows of LoRAs, () for the untouched base, None for nothing."""

    trained_with: NamedLoRAs | None = None
    use_with: NamedLoRAs | None = None
    role: str = UNKNOWN
    note: str = ""
    by_name: frozenset[str] = frozenset()  # those that need not be here: where they are not, their name is written down

    @property
    def anything(self) -> bool:
        """Whether there is something to write down."""
        return self.trained_with is not None or self.use_with is not None or self.role != UNKNOWN


def declare(lora_name: str, declaration: Declaration, on_step: Progress | None = None) -> Record | None:
    """Write down what the user says about a LoRA; nothing said takes back what they said before.

    Every file it names is hashed once. Returns the whole record, None where there is none. Raises FoundryError.
    """
    refuse_itself(lora_name, declaration)
    ids = identify_file(lora_here(lora_name), on_step).ids
    if not declaration.anything:
        return retract(ids)
    said = (declaration.trained_with, declaration.use_with)
    trained, used = (ingredients(rows, on_step, declaration.by_name) for rows in said)
    return write_down(ids, lora_name, trained_with=trained, use_with=used, role=declaration.role, note=declaration.note)


def ingredients(
    rows: NamedLoRAs | None, on_step: Progress | None, by_name: Set[str] = frozenset()
) -> tuple[Ingredient, ...] | None:
    """LoRAs by all that they can be recognised by; None stays None."""
    return None if rows is None else tuple(ingredient(*row, on_step, row[0] in by_name) for row in rows)


def ingredient(name: str, strength: float | None, on_step: Progress | None, by_name: bool = False) -> Ingredient:
    """A LoRA at a strength, as something that another one was trained with; ``by_name``: it need not be here."""
    try:
        path = lora_here(name)
    except FoundryError:
        if not by_name:
            raise
        return known_as(Ingredient(shown(name.strip(), MOST_NAME), strength=strength))
    identify_file(path, on_step)  # what follows finds the hashes there
    return replace(Item(name, "", lineage=lineage_of(path)).ingredient, strength=strength)


def declared_before(lora_name: str) -> str:
    """The user's own claim on a LoRA as text, but for its time; empty without one, or for a file never hashed."""
    try:
        ids = hashed_ids(lora_here(lora_name))
        record = read(ids) if ids else None
    except FoundryError as error:
        return error.what
    own = [claim for claim in record.claims if claim.evidence.source == BY_USER] if record else []
    return " ".join(repr(replace(claim, evidence=replace(claim.evidence, time=""))) for claim in own)


def refuse_itself(lora_name: str, declaration: Declaration) -> None:
    """FoundryError ``lineage`` for a LoRA that is said to stand on itself."""
    named = {spelled(name) for name, _ in (*(declaration.trained_with or ()), *(declaration.use_with or ()))}
    if spelled(lora_name) in named:
        raise refuse("lineage.own_base", lora=lora_name)


def spelled(name: str) -> str:
    """A name without what spellings of one file differ in: ``.\\a\\x`` and ``a/x`` are one LoRA."""
    return posixpath.normpath(name.replace("\\", "/"))


def claim_sentence(claim: Claim) -> str:
    """``trained with lightning.safetensors x 1, a style LoRA: declared by the user (it says so on its page)``."""
    statements = [
        "" if claim.trained_with is None else f"trained with {names(claim.trained_with)}",
        "" if claim.use_with is None else f"to be used with {names(claim.use_with)}",
        "" if claim.role == UNKNOWN else f"role {claim.role}",
    ]
    quote = f" ({claim.evidence.quote})" if claim.evidence.quote else ""
    return f"{', '.join(filter(None, statements)) or 'says nothing'}: {claim.evidence.source}{quote}"


def names(ingredients: Sequence[Ingredient]) -> str:
    """LoRAs with their strengths, or the untouched base."""
    strengths = (f" x {each.strength:g}" if each.strength is not None else "" for each in ingredients)
    return ", ".join(f"{each.name}{strength}" for each, strength in zip(ingredients, strengths, strict=True)) or BASE


def told_json(lineage: Lineage) -> dict[str, Any]:
    """What is known of a LoRA: every claim, which of them count, and where in ``claims`` the user's own word is."""
    declared = (at for at, claim in enumerate(lineage.claims) if claim.evidence.source == BY_USER)
    return {**lineage_json(lineage), "declared": next(declared, None)}


def hashed_ids(path: Path) -> tuple[str, ...]:
    """The ids of a file that was hashed before; () otherwise, for nothing is hashed here."""
    try:
        return identify_file(path, _stop).ids
    except _NotHashed:
        return ()


class _NotHashed(Exception):
    pass


def _stop(done: int, total: int) -> None:
    raise _NotHashed
