"""What a bake leaves for the next one: what its result depends on, what was measured, and how its files looked.

A record only speaks of files that are still as the bake left them. That is told from size, modification time and inode
and from the recipe in the file's own header; what changes the weights and restores all of these is not seen.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ...engine.errors import FoundryError
from ...engine.reuse import identity_of
from ...engine.tensors import TensorSource
from ..disk.header import read_header
from ..disk.source import base_fingerprint, file_state
from ..disk.store import Store
from ..disk.suffixes import SUFFIXES

SCHEMA = 1  # raised when what a record holds changes its meaning
STORE = Store("records", most=100)  # half a megabyte each for a large model


@dataclass(frozen=True)
class BakeRecord:
    """One bake as plain JSON data.

    ``base`` is ``base_facts`` of the base, ``keys`` maps each base tensor to 32 hex digits over all its result depends
    on, ``measures`` each base tensor to its numbers; ``report`` is shown again when nothing had to be done. ``files``
    (name, size, mtime_ns, inode of each result file) is filled in by ``stamped``. ``arithmetic`` is that of the bake.
    """

    recipe_sha256: str
    base: Mapping[str, Any]
    keys: Mapping[str, str] = field(default_factory=dict)
    measures: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    report: Mapping[str, Any] = field(default_factory=dict)
    files: Sequence[Mapping[str, Any]] = ()
    arithmetic: str = ""

    @property
    def base_identity(self) -> str:
        """One hash over the contents of its base, as far as ``base_facts`` tells."""
        return identity_of(self.base)

    def to_json(self) -> dict[str, Any]:
        """As plain data that ``parsed`` reads."""
        return {"schema": SCHEMA, **vars(self)}

    def holds(self, folder: Path) -> bool:
        """Whether every result file is in ``folder``, unchanged and readable."""
        return bool(self.files) and all(_is_as_stated(folder, state, self.recipe_sha256) for state in self.files)


def base_facts(source: TensorSource) -> dict[str, Any]:
    """What tells this base from any other: its ``fingerprint`` and its files' states.

    The fingerprint looks at the ends of each tensor; a change between them shows by the state of the file. A source
    without ``files``, as a model in memory, has its fingerprint alone. Raises FoundryError ``file`` for a missing file.
    """
    return {
        "fingerprint": base_fingerprint(source),
        "files": [file_state(path, path.parent) for path in source.files],
    }


def stamped(record: BakeRecord, folder: Path, files: Sequence[Path]) -> BakeRecord:
    """The record with the present state of its result files in ``folder``. Raises FoundryError ``file``."""
    return replace(record, files=[file_state(path, folder) for path in files])


def parsed(data: Any) -> BakeRecord | None:
    """The record of what ``to_json`` made; None for anything else, and for another version."""
    if not isinstance(data, dict) or data.pop("schema", None) != SCHEMA:
        return None
    with suppress(TypeError):  # other fields than ours
        return BakeRecord(**data)
    return None


def save_record(out: Path, record: BakeRecord, files: Sequence[Path] = ()) -> bool:
    """Keep the record of the bake that wrote ``out`` (``files``: all its files, when there are several).

    False when the home cannot be written to: the next bake then does everything again. FoundryError ``file`` when a
    result is missing.
    """
    paths = [file.absolute() for file in files or (out,)]
    return STORE.put(_key(out), stamped(record, out.absolute().parent, paths).to_json())


def load_record(out: Path) -> BakeRecord | None:
    """The record of the bake that wrote ``out``; None when there is none or a result file is not as it was then."""
    record = parsed(STORE.get(_key(out)))
    return record if record is not None and record.holds(out.parent) else None


def _key(out: Path) -> str:
    """What a result's record is kept under: its absolute path."""
    absolute = out.parent.resolve() / out.name
    return hashlib.sha256(os.fsencode(absolute)).hexdigest()


def _is_as_stated(folder: Path, state: Mapping[str, Any], recipe_sha256: str) -> bool:
    path = folder / str(state["name"])
    try:
        if file_state(path, folder) != dict(state):
            return False
        # Two bakes may have written one name at once: a result says itself which of them it is of.
        told = read_header(path).metadata.get("lora_foundry") if path.suffix.lower() in SUFFIXES else None
    except FoundryError:
        return False
    return told is None or recipe_sha256 in told
