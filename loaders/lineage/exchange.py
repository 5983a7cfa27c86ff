"""Lineage records from one machine to another: one JSON file, checked as a whole before anything is taken over."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ...engine.errors import FoundryError
from ...engine.json_lineage import ExportJSON
from ...engine.lineage import SCHEMA, Claim, Contained
from ...engine.texts.say import refuse
from ..disk.header import disk_errors, shown
from ..disk.home import keep
from . import store as lineages
from .record import Record, lineage_error, parse_json, parse_record
from .store import AnyClaim

MAX_IMPORT = 16_000_000  # bytes
_IMPORTED = re.compile(r"^(imported from [^:]*: )+")


@dataclass(frozen=True)
class Imported:
    """What an import did, by the names of the records; ``refused`` are (name, reason)."""

    new: tuple[str, ...] = ()
    updated: tuple[str, ...] = ()
    unchanged: tuple[str, ...] = ()
    refused: tuple[tuple[str, str], ...] = ()


def export(records: Iterable[Record] | None = None) -> ExportJSON:
    """One document with these records, or all, for ``import_from``."""
    chosen = lineages.every() if records is None else records
    return {"schema": SCHEMA, "records": [record.to_json() for record in chosen]}


def export_to(path: Path, records: Iterable[Record] | None = None) -> int:
    """Write that document; the old file stays until the new one is complete. Returns how many records are in it.

    Raises FoundryError ``file``.
    """
    document = export(records)
    if not keep(path, json.dumps(document, indent=1) + "\n", lasting=True):
        raise refuse("file.written", file=shown(path.name))
    return len(document["records"])


def import_from(path: Path) -> Imported:
    """Take over the records of a file: an export, or a single record. All is checked before anything is written.

    Claims keep their level and say which file they came from. Raises FoundryError ``file`` or ``lineage`` for a file
    that holds no records at all; a faulty record among others is refused with its reason.
    """
    told: dict[str, list[Any]] = {"new": [], "updated": [], "unchanged": [], "refused": []}
    changed: dict[Path, Record] = {}
    for number, data in enumerate(_records_of(path), 1):
        name = shown(str(data.get("name")), 80) if isinstance(data, dict) else f"record {number}"
        try:
            record = parse_record(data, f"record {number}")
            place = lineages.place(record)
            old = changed.get(place) or lineages.read(record.ids)
            merged = lineages.merge(old, _as_imported(record, old, path))
        except FoundryError as error:
            told["refused"].append((name, error.what))
            continue
        if old is not None and (set(old.claims), set(old.contains)) == (set(merged.claims), set(merged.contains)):
            told["unchanged"].append(name)
        else:
            told["updated" if old else "new"].append(name)
            changed[place] = merged
    for record in changed.values():
        lineages.write(record)
    return Imported(**{kind: tuple(found) for kind, found in told.items()})


def _records_of(path: Path) -> list[Any]:
    with disk_errors(path), path.open("rb") as file:
        data = file.read(MAX_IMPORT + 1)
    if len(data) > MAX_IMPORT:
        raise lineage_error(path.name, "lineage.import_large", most=f"{MAX_IMPORT:,}")
    document = parse_json(data.decode("utf-8-sig", "replace"), path.name)
    if isinstance(document, dict) and "id" in document:
        return [document]
    records = document.get("records") if isinstance(document, dict) and document.get("schema") == SCHEMA else None
    if not isinstance(records, list):
        raise lineage_error(path.name, "lineage.no_export")
    return records


def _as_imported(record: Record, old: Record | None, path: Path) -> Record:
    """The record with sources that name the file, without what is known here from the same origin."""
    prefix = f"imported from {shown(path.name, 80).replace(':', '_')}: "
    claims = _named(record.claims, old.claims if old else (), prefix)
    return replace(record, claims=claims, contains=_named(record.contains, old.contains if old else (), prefix))


def _named(claims: Iterable[AnyClaim], known: Iterable[AnyClaim], prefix: str) -> tuple[AnyClaim, ...]:
    came = [each.by(prefix + _origin(each)) for each in claims]
    return tuple(each for each in came if not any(_repeats(each, other) for other in known))


def _repeats(new: AnyClaim, known: AnyClaim) -> bool:
    """Whether another source says this already, and both had it from the same one."""
    return new.source != known.source and new.by(_origin(new)) == known.by(_origin(known))


def _origin(claim: Claim | Contained) -> str:
    """Who said it first, without the imports it went through."""
    return _IMPORTED.sub("", claim.source)
