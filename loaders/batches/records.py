"""What became of each document of a batch: a record each beside the results, and the manifest made of them.

Records take their place whole, and no two workers write one: that holds on network drives and in buckets too.
Imports nothing slow, for a batch that finds nothing to do.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

from ... import __version__
from ...engine.errors import FoundryError
from ...engine.json_batch import BatchRecordJSON, BatchResultJSON, FileJSON, ManifestJSON
from ...engine.revision import REVISION
from ..bakes.wishes import Wishes
from .places import RECORDS, Place, state_of

SCHEMA = 1  # raised when what a record holds changes its meaning
MANIFEST, ENDING = "manifest.json", ".safetensors"
ELSEWHERE = "://"  # in the names of files that are on no disk
MADE, UNCHANGED, FAILED = "made", "unchanged", "failed"


@dataclass(frozen=True)
class Task:
    """One document of a batch; ``name`` is that of its result without the ending."""

    name: str
    document: str

    def sha256(self) -> str:
        """The hash of the document's bytes; empty where it cannot be read."""
        with suppress(OSError):
            return hashlib.sha256(Path(self.document).read_bytes()).hexdigest()
        return ""


@dataclass
class States:
    """How files look, each asked for once."""

    known: dict[str, FileJSON] = field(default_factory=dict)

    def of(self, path: Path | str) -> FileJSON:
        """Size, time and inode of a file; null for one that is not there."""
        name = str(path)
        if name not in self.known:
            self.known[name] = state_of(path)
        return self.known[name]


def asked_of(wishes: Wishes) -> str:
    """One hash over all that a result depends on beside its document and its files."""
    return hashlib.sha256(json.dumps([__version__, REVISION, asdict(wishes)]).encode()).hexdigest()


def record_name(name: str) -> str:
    """What the record of a result is called in its place."""
    return f"{RECORDS}{name}.json"


def write_record(place: Place, record: BatchRecordJSON) -> None:
    """Put a record in its place, or raise FoundryError ``file`` or ``remote``."""
    place.write(record_name(record["name"]), _text(record))


def read_record(place: Place, name: str) -> BatchRecordJSON | None:
    """The record of a document in this place; None for none, a damaged one and one of another version."""
    data: Any = None
    with suppress(ValueError, RecursionError):
        data = json.loads(place.read(record_name(name)) or "null")
    return cast(BatchRecordJSON, data) if _is_record(data) and data["name"] == name else None


def _is_record(data: Any) -> bool:
    """Whether this has the form of a record, as far as it is used: others may write to a bucket too."""
    if not isinstance(data, dict) or data.get("schema") != SCHEMA or BatchRecordJSON.__annotations__.keys() - data:
        return False
    lists, error = (data["files"], data["inputs"]), data["error"]
    if not all(isinstance(each, list) for each in lists) or not (error is None or isinstance(error, dict)):
        return False
    return all(isinstance(file, dict) and isinstance(file.get("path"), str) for each in lists for file in each)


def read_records(place: Place, names: Iterable[str]) -> dict[str, BatchRecordJSON | None]:
    """Name -> record of many documents; the place is then ready to say of each whether its result ``is_there``."""
    names = list(names)
    place.look([record_name(name) for name in names])
    found = {name: read_record(place, name) for name in names}
    place.look_at([each["path"] for record in found.values() if record is not None for each in record["files"]])
    return found


def is_there(record: BatchRecordJSON | None, place: Place) -> bool:
    """Whether the result of a record is as it was left."""
    if record is None or record["state"] != MADE or not record["files"]:
        return False
    return all(each == place.state(each["path"]) for each in record["files"])


def is_done(place: Place, task: Task, asked: str, states: States) -> BatchRecordJSON | None:
    """The record of a result for which nothing has changed: document, options, inputs and the result itself.

    What lies on another machine has to be asked for, which planning does: such a document has none here.
    """
    record = read_record(place, task.name)
    if record is None or not is_there(record, place):
        return None
    same = (record["document"], record["document_sha256"], record["asked"]) == (task.document, task.sha256(), asked)
    known = all(ELSEWHERE not in each["path"] and each == states.of(each["path"]) for each in record["inputs"])
    return record if same and known else None


def failed_record(task: Task, run: str, error: FoundryError, worker: str = "") -> BatchRecordJSON:
    """The record of a document that came to nothing."""
    return blank_record(task, run, worker) | {"state": FAILED, "error": error.to_json()}


def blank_record(task: Task, run: str, worker: str) -> BatchRecordJSON:
    """A record that says nothing yet."""
    return {
        "schema": SCHEMA,
        "name": task.name,
        "document": task.document,
        "state": MADE,
        "out": None,
        "bytes": None,
        "base": None,
        "recipe_sha256": None,
        "error": None,
        "run": run,
        "document_sha256": "",
        "asked": "",
        "inputs": [],
        "files": [],
        "base_identity": "",
        "findings": [],
        "loras": [],
        "relative_error": None,
        "arithmetic": "",
        "together": 0,
        "seconds": 0.0,
        "cpu_seconds": 0.0,
        "peak_rss_bytes": 0,
        "worker": worker,
    }


def is_unchanged(former: BatchRecordJSON | None, record: BatchRecordJSON) -> bool:
    """Whether a result is still the one of that pass; one made anew may be told from it by nothing else in a bucket."""
    same = ("files", "worker", "seconds", "cpu_seconds")
    return former is not None and bool(record["files"]) and all(former[key] == record[key] for key in same)  # type: ignore[literal-required]


def result_of(record: BatchRecordJSON, state: str = "") -> BatchResultJSON:
    """The part of a record that manifest and command tell."""
    return {
        "name": record["name"],
        "document": record["document"],
        "state": state or record["state"],
        "out": record["out"],
        "bytes": record["bytes"],
        "base": record["base"],
        "recipe_sha256": record["recipe_sha256"],
        "error": record["error"],
    }


def write_manifest(place: Place) -> str:
    """Build the manifest from all records of the place; a result that is no longer there is not in it.

    It is left alone where it says the same. What it is called. Raises FoundryError ``file`` or ``remote``.
    """
    names = (name.removeprefix(RECORDS).removesuffix(".json") for name in place.records())
    records = read_records(place, names).values()
    there = [each for each in records if each is not None and (each["state"] == FAILED or is_there(each, place))]
    manifest: ManifestJSON = {"schema": SCHEMA, "results": [result_of(each) for each in there]}
    if place.read(MANIFEST) != (text := _text(manifest)):
        place.write(MANIFEST, text)
    return place.called(MANIFEST)


def _text(data: BatchRecordJSON | ManifestJSON) -> str:
    return json.dumps(data, indent=1) + "\n"
