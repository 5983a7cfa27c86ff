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
from ..bases.checkpoint import is_lora, open_model
from ..bases.families import detect_base
from ..disk.header import file_error, shown
from ..loras.file import open_lora
from ..remote.fetching import at_hand
from ..remote.names import Remote, Where, is_remote, label_of, parse_remote
from ..remote.objects import ANYTHING, Asking
from .accelerators import known_as
from .contents import base_ids, contained_in
from .identity import identify_file
from .provenance import lineage_of, unpacked
from .record import Record, lineage_error

LORA, BASE = "lora", "base"


@dataclass(frozen=True)
class Subject:
    """A file and all that is known of it: of a LoRA its ``lineage``, of a base what it ``contains``."""

    name: str  # without folders
    path: Path  # of a base elsewhere no more than its name
    kind: str
    ids: tuple[str, ...]
    family: str | None = None
    lineage: Lineage = Lineage()
    contains: tuple[Contained, ...] = ()


def open_subject(where: Where, on_step: Progress | None = None, asking: Asking = ANYTHING) -> Subject:
    """The LoRA or the base a name leads to; a LoRA is hashed, one from elsewhere loaded before that.

    Raises FoundryError ``file`` or ``remote``.
    """
    name = label_of(where)
    if not is_lora(where, asking):
        model = open_model(where, asking)
        path, family = (Path(name) if isinstance(where, Remote) else where), detect_base(model.tensors)
        return Subject(name, path, BASE, base_ids(model), family, contains=contained_in(model))
    path = at_hand(where, asking).path
    ids = identify_file(path, on_step).ids
    return Subject(name, path, LORA, ids, _family(path), lineage_of(path, name if isinstance(where, Remote) else ""))


def open_lora_subject(where: Where, on_step: Progress | None = None, asking: Asking = ANYTHING) -> Subject:
    """The same for what must be a LoRA."""
    subject = open_subject(where, on_step, asking)
    if subject.kind != LORA:
        raise file_error(Path(subject.name), "file.is_base")
    return subject


def name_lora(
    text: str, strength: float | None = None, on_step: Progress | None = None, asking: Asking | None = None
) -> Ingredient:
    """A LoRA by all it can be recognised by where ``text`` is a file, else by its name alone.

    ``asking``: how one is asked for whose address ``text`` is; without it that is a name as any other. Raises
    FoundryError ``file`` for a path that leads nowhere, and ``remote``.
    """
    if asking is not None and is_remote(text):
        return replace(_ingredient(parse_remote(text), on_step, asking), strength=strength)
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


def _ingredient(where: Where, on_step: Progress | None = None, asking: Asking = ANYTHING) -> Ingredient:
    subject = open_lora_subject(where, on_step, asking)
    return Item(subject.name, "", 1.0, subject.lineage).ingredient


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
        raise lineage_error(subject.name, "lineage.nothing_known")
    claims = dict.fromkeys(replace(each, evidence=unpacked(each.evidence)) for each in known)
    record = Record(subject.ids, subject.name, subject.family, tuple(claims))
    return {LINEAGE_KEY: json.dumps(record.to_json())}
