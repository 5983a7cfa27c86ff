"""What became of each document of a batch: a record each in the folder of the results, and the manifest made of them.

Records are written under a hidden name and renamed, and no two workers write one: that holds on network drives too.
Imports nothing slow, for a batch that finds nothing to do.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ... import __version__
from ...engine.errors import FoundryError
from ...engine.json_batch import BatchRecordJSON, BatchResultJSON, FileJSON, ManifestJSON
from ...engine.revision import REVISION
from ...engine.texts.say import refuse
from ..bakes.wishes import Wishes
from ..disk.home import keep, recall

SCHEMA = 1  # raised when what a record holds changes its meaning
FOLDER, MANIFEST, ENDING = "records", "manifest.json", ".safetensors"
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
            self.known[name] = {"path": name, "size": None, "mtime_ns": None, "inode": None}
            with suppress(OSError, ValueError):
                state = Path(name).stat()
                self.known[name] |= {"size": state.st_size, "mtime_ns": state.st_mtime_ns, "inode": state.st_ino}
        return self.known[name]


def asked_of(wishes: Wishes) -> str:
    """One hash over all that a result depends on beside its document and its files."""
    return hashlib.sha256(json.dumps([__version__, REVISION, asdict(wishes)]).encode()).hexdigest()


def write_record(out: Path, record: BatchRecordJSON) -> None:
    """Put a record in its place, or raise FoundryError ``file``."""
    _write(out / FOLDER / f"{record['name']}.json", record)


def read_record(out: Path, name: str) -> BatchRecordJSON | None:
    """The record of a document in this folder; None for none, a damaged one and one of another version."""
    data: Any = None
    with suppress(ValueError, RecursionError):
        data = json.loads(recall(out / FOLDER / f"{name}.json") or "null")
    if not isinstance(data, dict) or data.get("schema") != SCHEMA or BatchRecordJSON.__annotations__.keys() - data:
        return None
    record: BatchRecordJSON = data  # type: ignore[assignment]
    return record


def is_there(record: BatchRecordJSON | None, states: States) -> bool:
    """Whether the result of a record is as it was left."""
    if record is None or record["state"] != MADE or not record["files"]:
        return False
    return all(each == states.of(each["path"]) for each in record["files"])


def is_done(out: Path, task: Task, asked: str, states: States) -> BatchRecordJSON | None:
    """The record of a result for which nothing has changed: document, options, inputs and the result itself.

    What lies on another machine has to be asked for, which planning does: such a document has none here.
    """
    record = read_record(out, task.name)
    if record is None or not is_there(record, states):
        return None
    same = (record["document"], record["document_sha256"], record["asked"]) == (task.document, task.sha256(), asked)
    known = all(ELSEWHERE not in each["path"] and each == states.of(each["path"]) for each in record["inputs"])
    return record if same and known else None


def failed_record(task: Task, run: str, error: FoundryError, worker: str = "") -> BatchRecordJSON:
    """The record of a document that came to nothing."""
    told = {"code": error.code, "what": error.what, "why": error.why, "fix": error.fix}
    return blank_record(task, run, worker) | {"state": FAILED, "error": told}  # type: ignore[return-value]


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


def write_manifest(out: Path) -> Path:
    """Build the manifest from all records of the folder; a result that is no longer there is not in it.

    It is left alone where it says the same. Raises FoundryError ``file``.
    """
    states = States()
    records = [read_record(out, path.stem) for path in sorted((out / FOLDER).glob("*.json"))]
    there = [each for each in records if each is not None and (each["state"] == FAILED or is_there(each, states))]
    manifest: ManifestJSON = {"schema": SCHEMA, "results": [result_of(each) for each in there]}
    _write(out / MANIFEST, manifest)
    return out / MANIFEST


def _write(path: Path, data: BatchRecordJSON | ManifestJSON) -> None:
    text = json.dumps(data, indent=1) + "\n"
    if recall(path) != text and not keep(path, text):
        raise refuse("file.record", name=path.name, folder=path.parent)
