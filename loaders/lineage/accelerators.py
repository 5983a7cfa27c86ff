"""Is this LoRA a known accelerator, training adapter or repair, and what does its publisher say of using it?

A hash or a fingerprint of the registry recognises a file for sure (``derived``). A name or a structure is a guess,
however exact: names are compared whole, so that ``lightning_effect`` and ``turbo_car_style`` are what they are.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace

from ...engine.lineage import DERIVED, GUESSED, KNOWN_ID, Accelerator, Ingredient, plain_name
from ...engine.plan import Adapter
from ...validator.fingerprint import Fingerprint
from ..disk.header import shown
from .registry import KnownLoRA, registry

TITLES = ("ss_output_name", "modelspec.title", "name")  # metadata that may hold the name a file was published under
LONGEST = 300  # characters of a name that are looked at
DIGITS = 12  # of a hash that are quoted: as many as others show


def recognise(
    name: str, ids: tuple[str, ...] = (), metadata: Mapping[str, str] | None = None, adapters: tuple[Adapter, ...] = ()
) -> Accelerator | None:
    """What a file is known as by its hashes (``Identity.ids``), else by its name, its title or its structure.

    None for everything else: that is what most files are.
    """
    entries = registry()
    for entry in entries:
        if common := min(entry.ids & set(ids), default=""):
            kind, _, digest = common.partition(":")
            what = "its tensors have" if kind == "tensors" else "it has"
            return _known(entry, DERIVED, f"{what} the sha256 {digest[:DIGITS]} of {entry.name}")
    for where, text in _names(name, metadata or {}):
        plain = _plain(text)
        for entry in entries:
            if any(pattern.fullmatch(plain["/" in pattern.pattern]) for pattern in entry.match):
                return _known(entry, GUESSED, f"{where} is '{shown(text)}'")
    for entry in entries:
        form = entry.structure
        if form is not None and form.fits(adapters):
            why = f"it has {form.modules} modules of rank {form.rank} and alpha {form.alpha:g} named as in {entry.name}"
            return _known(entry, GUESSED, why)
    return None


def recognise_fingerprint(fingerprint: Fingerprint) -> Accelerator | None:
    """What a LoRA is known as by what it does to a model, whatever it is called and however it was saved."""
    for entry in registry():
        if any(known.matches(fingerprint) for known in entry.fingerprints):
            return _known(entry, DERIVED, f"it changes a model as {entry.name} does, within 1 %")
    return None


def known_name(name: str, ids: tuple[str, ...] = ()) -> Accelerator | None:
    """The registry's entry for a name, or for a file of that name with these ids."""
    return recognise(name, ids) if name.strip() else None


def known_as(ingredient: Ingredient) -> Ingredient:
    """The LoRA with the id of its entry in the registry, if it has one."""
    if any(id.startswith(KNOWN_ID) for id in ingredient.ids):
        return ingredient
    known = known_name(ingredient.name, ingredient.ids)
    return replace(ingredient, ids=(*ingredient.ids, f"{KNOWN_ID}{known.id}")) if known and known.id else ingredient


def _known(entry: KnownLoRA, level: str, why: str) -> Accelerator:
    id = "" if entry.generic else entry.id
    return Accelerator(id, entry.name, level, why, entry.strength, entry.steps, entry.cfg, entry.role, entry.made_on)


def _names(name: str, metadata: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """(where it was found, a name)."""
    yield "its file name", name
    for key in TITLES:
        if text := metadata.get(key, "").strip():
            yield f"'{key}' in its metadata", text


def _plain(text: str) -> tuple[str, str]:
    """The name alone, and with its folder for the patterns that ask for one: ``lightning/my_style`` is a style."""
    folder, name = ["", *re.split(r"[\\/]+", text.strip()[-LONGEST:])][-2:]
    return plain_name(name), f"{plain_name(folder)}/{plain_name(name)}"
