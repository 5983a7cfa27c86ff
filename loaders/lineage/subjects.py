"""What a person or a script means by a file name: which LoRA or base it is, and by what it can be recognised."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from ...engine.errors import FoundryError
from ...engine.lineage import DECLARED, DERIVED, LINEAGE_KEY, Claim, Contained, Ingredient, Lineage
from ...engine.progress import Progress
from ...validator.stacks import Item
from ..bases.checkpoint import is_lora, open_checkpoint
from ..bases.families import detect_base
from ..disk.header import file_error, shown
from ..loras.file import open_lora
from .accelerators import known_as
from .contents import base_ids, contained_in
from .identity import identify_file
from .provenance import lineage_of, unpacked
from .record import Record, lineage_error

LORA, BASE = "lora", "base"


@dataclass(frozen=True)
class Subject:
    """A file and all that is known of it: of a LoRA its ``lineage``, of a base what it ``contains``."""

    path: Path
    kind: str
    ids: tuple[str, ...]
    family: str | None = None
    lineage: Lineage = Lineage()
    contains: tuple[Contained, ...] = ()


def open_subject(path: Path, on_step: Progress | None = None) -> Subject:
    """The LoRA or the base a path names; a LoRA is hashed. Raises FoundryError ``file``."""
    if not is_lora(path):
        model = open_checkpoint(path)
        return Subject(path, BASE, base_ids(model), detect_base(model.tensors), contains=contained_in(model))
    ids = identify_file(path, on_step).ids
    return Subject(path, LORA, ids, _family(path), lineage_of(path))


def open_lora_subject(path: Path, on_step: Progress | None = None) -> Subject:
    """The same for what must be a LoRA."""
    subject = open_subject(path, on_step)
    if subject.kind != LORA:
        raise file_error(path, "file.is_base")
    return subject


def name_lora(text: str, strength: float | None = None, on_step: Progress | None = None) -> Ingredient:
    """A LoRA by all it can be recognised by where ``text`` is a file, else by its name alone.

    Raises FoundryError ``file`` for a path that leads nowhere.
    """
    path = Path(text)
    if path.is_file():
        return replace(_ingredient(path, on_step), strength=strength)
    if re.search(r"[\\/]", text) and path.suffix:
        raise file_error(path, "file.absent_lora")
    return known_as(Ingredient(shown(text, 300), strength=strength))


def resolve(claims: Iterable[Claim], folders: Iterable[Path]) -> tuple[Claim, ...]:
    """Claims of a script with the hashes of every LoRA they name that is found: there, or in one of these folders."""
    places = tuple(folders)
    return tuple(claim.naming(lambda each: _with_ids(each, places)) for claim in claims)


def find_named(name: str, folders: Iterable[Path]) -> Path | None:
    """The file that a script means: the path as it stands, else below one of the folders, else its last part there."""
    parts = [part for part in re.split(r"[\\/]+", name) if part]
    if not parts or "\0" in name:
        return None
    places = [Path(name), *(folder / way for folder in folders for way in (Path(*parts), Path(parts[-1])))]
    return next((place for place in places if place.is_file()), None)


def _with_ids(ingredient: Ingredient, folders: tuple[Path, ...]) -> Ingredient:
    path = find_named(ingredient.name, folders)
    if path is None:
        return ingredient
    try:
        found = _ingredient(path)
    except FoundryError:  # it has the name and is no LoRA: the name is all that is known
        return ingredient
    return replace(ingredient, ids=tuple(dict.fromkeys((*ingredient.ids, *found.ids))), sketch=found.sketch)


def _ingredient(path: Path, on_step: Progress | None = None) -> Ingredient:
    return Item(path.name, "", 1.0, open_lora_subject(path, on_step).lineage).ingredient


def _family(path: Path) -> str | None:
    try:
        return open_lora(path).info.family
    except FoundryError:  # it cannot be used, and has a lineage all the same
        return None


def lineage_metadata(subject: Subject) -> dict[str, str]:
    """``__metadata__`` that carries what is known of a LoRA to wherever the file goes; guesses can be made there again.

    Raises FoundryError ``lineage`` when nothing is known.
    """
    known = [claim for claim in subject.lineage.claims if claim.evidence.level in (DECLARED, DERIVED)]
    if not known:
        raise lineage_error(subject.path.name, "lineage.nothing_known")
    claims = dict.fromkeys(replace(each, evidence=unpacked(each.evidence)) for each in known)
    record = Record(subject.ids, subject.path.name, subject.family, tuple(claims))
    return {LINEAGE_KEY: json.dumps(record.to_json())}
