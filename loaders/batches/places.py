"""Where a batch puts its results and their records: a folder of this machine, or one of a bucket.

Every text and every result takes its place whole. Imports nothing slow, for a batch that finds nothing to do.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Protocol

from ...engine.json_batch import FileJSON
from ...engine.texts.say import refuse
from ..disk.home import keep, recall
from ..remote.folder import BucketFolder
from ..remote.names import parse_remote
from ..remote.objects import Transfer

RECORDS = "records/"


def state_of(path: Path | str) -> FileJSON:
    """Size, time and inode of a file of this machine; null for one that is not there."""
    found: FileJSON = {"path": str(path), "size": None, "mtime_ns": None, "inode": None}
    with suppress(OSError, ValueError):
        state = Path(path).stat()
        found |= {"size": state.st_size, "mtime_ns": state.st_mtime_ns, "inode": state.st_ino}
    return found


class Place(Protocol):
    """Texts and results by their names; a name may begin with ``records/``. Faults: FoundryError ``file``, ``remote``.

    What a bucket says is remembered until ``forget``, for each question is a request.
    """

    address: str  # which ``place_of`` takes, anywhere
    steps: int  # of a pass: baking, and where results have to be sent, sending

    def called(self, name: str) -> str:
        """What something is called for who asked for it."""

    def own(self, name: str) -> str:
        """The one name that something has, however the place was written."""

    def look(self, names: Sequence[str]) -> None:
        """Read texts that will be asked for, at once where each takes its time."""

    def look_at(self, paths: Sequence[str]) -> None:
        """The same for results, as their records name them."""

    def forget(self) -> None:
        """Others may have written since."""

    def read(self, name: str) -> str:
        """A text; empty where there is none."""

    def write(self, name: str, text: str) -> None:
        """Put a text in its place."""

    def records(self) -> list[str]:
        """The names of all records."""

    def state(self, path: str) -> FileJSON:
        """How a result looks."""

    def prepare(self) -> None:
        """Before anything is made: what cannot be written to is refused."""

    def workshop(self) -> AbstractContextManager[Path]:
        """A folder of this machine in which results are made."""

    def deliver(self, made: Path, on_bytes: Transfer | None = None) -> FileJSON:
        """Bring a result to its place, whole or not at all, and say how it looks there."""

    def sweep(self) -> None:
        """Take away what workers that were killed left half made on this machine."""


def place_of(address: str) -> Place:
    """The place that an address names: ``s3://bucket/folder/``, or a folder of this machine."""
    return Bucket(address) if "://" in address else Folder(Path(address))


class Folder:
    """A folder of this machine, or of a network drive: results are made in it under hidden names."""

    steps = 1

    def __init__(self, path: Path) -> None:
        self.address, self._path = str(path), path

    def called(self, name: str) -> str:
        """Its path."""
        return str(self._path / name)

    def own(self, name: str) -> str:
        """Its path without links."""
        return str((self._path / name).resolve())

    def look(self, names: Sequence[str]) -> None:
        """Reading is quick."""

    def look_at(self, paths: Sequence[str]) -> None:
        """Looking is quick."""

    def forget(self) -> None:
        """Nothing is remembered."""

    def read(self, name: str) -> str:
        """As ``Place``."""
        return recall(self._path / name)

    def write(self, name: str, text: str) -> None:
        """As ``Place``."""
        path = self._path / name
        if not keep(path, text):
            raise refuse("file.record", name=path.name, folder=path.parent)

    def records(self) -> list[str]:
        """As ``Place``, by name."""
        return [f"{RECORDS}{path.name}" for path in sorted((self._path / RECORDS).glob("*.json"))]

    def state(self, path: str) -> FileJSON:
        """As ``Place``."""
        return state_of(path)

    def prepare(self) -> None:
        """Make it where there is none."""
        self._path.mkdir(parents=True, exist_ok=True)

    @contextmanager
    def workshop(self) -> Iterator[Path]:
        """The folder itself."""
        yield self._path

    def deliver(self, made: Path, on_bytes: Transfer | None = None) -> FileJSON:
        """It is in its place."""
        return state_of(made)

    def sweep(self) -> None:
        """As ``Place``."""
        from ..disk.temps import sweep

        for folder in (self._path, self._path / RECORDS):
            sweep(folder)


class Bucket:
    """A folder of a bucket: records are objects beside the results, so that any machine can go on.

    Results are made in a folder beside the cache of files from elsewhere, and sent when their pass is over.
    """

    steps = 2

    def __init__(self, address: str) -> None:
        self.address, self._there = address, BucketFolder(address)
        self._texts: dict[str, str] = {}
        self._states: dict[str, FileJSON] = {}
        self._names: list[str] | None = None

    def called(self, name: str) -> str:
        """Its address."""
        return self._there.object(name).url

    def own(self, name: str) -> str:
        """Its address."""
        return self.called(name)

    def look(self, names: Sequence[str]) -> None:
        """As ``Place``; what is not listed is not asked for."""
        listed = {*self.records()} if names else set()
        wanted = [name for name in names if name not in self._texts]
        self._texts |= dict.fromkeys(wanted, "")
        self._texts |= self._there.texts(name for name in wanted if name in listed or not name.startswith(RECORDS))

    def look_at(self, paths: Sequence[str]) -> None:
        """As ``Place``; what lies anywhere else is not there."""
        ours = {path: path.removeprefix(self.called("")) for path in paths if path not in self._states}
        found = self._there.states(name for path, name in ours.items() if name != path)
        for path, name in ours.items():
            facts = found.get(name)
            self._states[path] = {"path": path, "size": None, "mtime_ns": None, "inode": None}
            if facts is not None:
                self._states[path] |= {"size": facts.size, "etag": facts.etag}

    def forget(self) -> None:
        """As ``Place``."""
        self._texts, self._states, self._names = {}, {}, None

    def read(self, name: str) -> str:
        """As ``Place``."""
        self.look([name])
        return self._texts[name]

    def write(self, name: str, text: str) -> None:
        """As ``Place``."""
        self._there.put(name, text)
        self._texts[name] = text
        if self._names is not None and name.startswith(RECORDS) and name not in self._names:
            self._names.append(name)

    def records(self) -> list[str]:
        """As ``Place``, by name."""
        if self._names is None:
            self._names = [name for name in self._there.listed(RECORDS) if name.endswith(".json")]
        return sorted(self._names)

    def state(self, path: str) -> FileJSON:
        """As ``Place``."""
        self.look_at([path])
        return self._states[path]

    def prepare(self) -> None:
        """Begin an upload and take it back."""
        from ..remote.uploads import require_writable

        self.sweep()
        require_writable(self._there.object("manifest.json"))

    def workshop(self) -> AbstractContextManager[Path]:
        """A hidden folder that goes when the block ends."""
        from ..remote.workshop import workshop

        return workshop()

    def deliver(self, made: Path, on_bytes: Transfer | None = None) -> FileJSON:
        """Send it; here it goes."""
        from ..disk.temps import remove
        from ..remote.uploads import upload

        where = self._there.object(made.name)
        facts = upload(made, where, on_bytes)
        remove(made)
        self._states[where.url] = {
            "path": where.url, "size": facts.size, "mtime_ns": None, "inode": None, "etag": facts.etag
        }  # fmt: skip
        return self._states[where.url]

    def sweep(self) -> None:
        """As ``Place``."""
        from ..remote.workshop import sweep_workshops

        sweep_workshops()


def require_name(place: Place, name: str) -> None:
    """FoundryError ``remote`` for a result of a name that no address can have."""
    if "://" in place.address:
        parse_remote(place.called(name))
