"""The store of lineage records: one small JSON file each below ``data_home()``, named by the hash of what it is about.

A LoRA is known by the hash of its tensor bytes, which a rename or an edit of its metadata leaves alone; a base by its
fingerprint. No text of a record ever becomes part of a path. Files are replaced as a whole; several processes may write
different records at once.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import TypeVar

from ...engine.errors import FoundryError
from ...engine.json_lineage import MANY
from ...engine.lineage import BY_USER, DECLARED, TENSORS_ID, UNKNOWN, Claim, Contained, Evidence, Ingredient
from ..disk.header import disk_errors, regular_file
from ..disk.home import data_home, keep
from ..disk.temps import sweep
from .record import BASE_ID, MAX_RECORD, Record, lineage_error, parse_json, parse_record

FOLDERS = {TENSORS_ID: "lineage", BASE_ID: "lineage/bases"}  # how the id begins that a record is filed under
_HEX = re.compile(r"[0-9a-f]{64}")
AnyClaim = TypeVar("AnyClaim", Claim, Contained)


def declare(
    ids: Sequence[str],
    name: str,
    family: str | None = None,
    *,
    trained_with: tuple[Ingredient, ...] | None = None,
    use_with: tuple[Ingredient, ...] | None = None,
    role: str = UNKNOWN,
    contains: tuple[Ingredient, ...] = (),
    note: str = "",
) -> Record:
    """Write down what the user says about a LoRA, or with ``contains`` about a base; it replaces what they said before.

    None: not said, (): the untouched base. Returns the whole record. Raises FoundryError ``lineage``.
    """
    time = datetime.now(timezone.utc).isoformat(timespec="seconds")
    claim = Claim(Evidence(DECLARED, BY_USER, note, time), trained_with, use_with, role)
    inside = tuple(Contained(ingredient, DECLARED, BY_USER) for ingredient in contains)
    says = trained_with is not None or use_with is not None or role != UNKNOWN
    if not says and not inside:
        raise lineage_error(name, "lineage.nothing")
    return save(Record(tuple(ids), name, family, (claim,) if says else (), inside))


def save(record: Record) -> Record:
    """Merge a record into the store (``merge``). Returns what is stored now.

    Raises FoundryError ``lineage`` for a record without an id to file it under, for a damaged record in its place (it
    might still hold something), and when the folder cannot be written to.
    """
    new = parse_record(record.to_json(), record.name)
    place(new)
    merged = merge(read(new.ids), new)
    write(merged)
    return merged


def load(ids: Sequence[str]) -> tuple[Claim, ...]:
    """The claims about a LoRA; a damaged record is a claim that says nothing but this. Never raises."""
    try:
        record = read(ids)
    except FoundryError as error:
        return (Claim(Evidence(UNKNOWN, "its record in the store is not used", error.what)),)
    return record.claims if record else ()


def read(ids: Sequence[str]) -> Record | None:
    """The record of a LoRA or a base, or None. Raises FoundryError ``lineage`` for a damaged one.

    Where only the hash of a whole file is known all records are looked through.
    """
    path = find_place(ids)
    if path is None:
        return next((record for record in every() if set(record.ids) & set(ids)), None)
    with disk_errors(path):  # a folder that may not be looked into is one fault, told with the record
        there = path.exists()
    return _read(path) if there else None


def forget(ids: Sequence[str]) -> bool:
    """Remove the record, damaged or not; False when there was none. Raises FoundryError ``file``."""
    path = find_place(ids)
    if path is None and (record := read(ids)):
        path = find_place(record.ids)
    if path is None or not path.exists():
        return False
    with disk_errors(path):
        path.unlink()
    return True


def retract(ids: Sequence[str]) -> Record | None:
    """Take the user's own word out of a record; what other sources say stays. Returns what is left, if anything is.

    Raises FoundryError ``lineage`` for a damaged record, and when it cannot be written.
    """
    record = read(ids)
    if record is None:
        return None
    left = replace(
        record,
        claims=tuple(each for each in record.claims if each.source != BY_USER),
        contains=tuple(each for each in record.contains if each.source != BY_USER),
    )
    if not left.claims and not left.contains:
        forget(record.ids)
        return None
    write(left)
    return left


def every() -> Iterator[Record]:
    """All records that can be read, by name; ``damaged`` tells of the others."""
    found = []
    for path in _files():
        with suppress(FoundryError):
            found.append(_read(path))
    yield from sorted(found, key=lambda record: (record.name.lower(), record.ids))


def damaged() -> Iterator[FoundryError]:
    """Why the records that cannot be read cannot."""
    for path in _files():
        try:
            _read(path)
        except FoundryError as error:
            yield error


def merge(old: Record | None, new: Record) -> Record:
    """Both records as one: of each source the new words count, and what the user said comes first.

    Raises FoundryError ``lineage`` for more claims than a record may hold.
    """
    old = old or replace(new, claims=(), contains=())
    claims, contains = merge_claims(old.claims, new.claims), merge_claims(old.contains, new.contains)
    if max(len(claims), len(contains)) > MANY:
        raise lineage_error(new.name, "lineage.many", most=MANY)
    ids = max(old.ids, new.ids, key=len)
    return Record(ids, new.name or old.name, new.family or old.family, claims, contains)


def merge_claims(old: Iterable[AnyClaim], new: Sequence[AnyClaim]) -> tuple[AnyClaim, ...]:
    """What was said before without the sources that speak again, and what they say now; the user first."""
    again = {each.source for each in new}
    claims: list[AnyClaim] = [each for each in old if each.source not in again]
    claims += new
    return tuple(sorted(claims, key=lambda each: each.source != BY_USER))


def find_place(ids: Iterable[str]) -> Path | None:
    """Where the record with these ids is filed; None without an id to file it under."""
    for id in ids:
        for prefix, folder in FOLDERS.items():
            if id.startswith(prefix) and _HEX.fullmatch(id.removeprefix(prefix)):
                return data_home() / folder / f"{id.removeprefix(prefix)}.json"
    return None


def place(record: Record) -> Path:
    """Where a record is filed. Raises FoundryError ``lineage`` for one without an id to file it under."""
    path = find_place(record.ids)
    if path is None:
        raise lineage_error(record.name, "lineage.no_hash")
    return path


def write(record: Record) -> None:
    """Put a record in its place as it is. Raises FoundryError ``lineage`` when that cannot be."""
    path, text = place(record), json.dumps(record.to_json(), indent=1) + "\n"
    if len(text) > MAX_RECORD or not keep(path, text, lasting=True):
        raise lineage_error(record.name, "lineage.unwritten", folder=path.parent)
    sweep(path.parent)


def has_bases() -> bool:
    """Whether anything is stored about a base: else none needs its fingerprint taken."""
    return any(path.parent.name == "bases" for path in _files())


def record_folders() -> list[Path]:
    """Where all records lie; none of them need exist."""
    return [data_home() / folder for folder in FOLDERS.values()]


def _files() -> list[Path]:
    found: list[Path] = []
    for folder in record_folders():
        with suppress(OSError):
            entries = folder.iterdir()
            found += [path for path in entries if path.suffix == ".json" and _HEX.fullmatch(path.stem)]
    return found


def _read(path: Path) -> Record:
    where = f"the lineage record {path.name}"
    try:
        regular_file(path)
        with disk_errors(path), path.open("rb") as file:
            data = file.read(MAX_RECORD + 1)
        if len(data) > MAX_RECORD:
            raise lineage_error(where, "lineage.large", most=MAX_RECORD)
        record = parse_record(parse_json(data.decode("utf-8", "replace"), where), where)
        if find_place(record.ids) != path:
            raise lineage_error(where, "lineage.elsewhere")
    except FoundryError as error:
        fix = f"Forget it and declare again, or repair {path}."
        raise FoundryError("lineage", error.what, error.why, fix) from error
    return record
