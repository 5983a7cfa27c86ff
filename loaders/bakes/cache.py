"""Whole results kept for the next run, each in a folder of its own: either complete with its record, or not there.

An entry appears by one rename and disappears by one rename, so neither a killed writer nor a second one leaves half of
one. An entry counts as used as long as this process holds its ``Entry`` object.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from concurrent.futures import wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from ...engine.errors import FoundryError
from ...engine.progress import Progress
from ...engine.texts.say import refuse
from ..disk.header import shown
from ..disk.home import keep, recall, seal, unseal
from ..disk.process import PROCESS
from ..disk.temps import sweep, temporary
from .records import BakeRecord, parsed, stamped
from .rot import is_damaged, looked_at

RESULT, RECORD = "model.safetensors", "record.json"
_PLACE = re.compile(r"[0-9a-f]{16}-[0-9a-f]{32}")
WAIT = 0.2  # seconds between two looks whether the user cancelled
PAUSES = (0.1, 0.3, 1.0, 0.0)  # seconds between attempts to rename what another program looks at


class Key(NamedTuple):
    """What a result is found by: the hash of its recipe and the identity of its base (``BakeRecord.base_identity``)."""

    recipe_sha256: str
    base_identity: str

    @property
    def name(self) -> str:
        """The entry's folder; results on one base begin alike."""
        return self.family + sha256(self.recipe_sha256.encode()).hexdigest()[:32]

    @property
    def family(self) -> str:
        """What the names of all entries on this base begin with."""
        return sha256(self.base_identity.encode()).hexdigest()[:16] + "-"


@dataclass(frozen=True, eq=False)
class Entry:
    """A complete result and its record. While the object lives, this process does not evict the file."""

    path: Path
    record: BakeRecord

    def __post_init__(self) -> None:
        with PROCESS.in_use_lock:
            PROCESS.in_use.add(self)


@dataclass
class Slot:
    """A result in the making: write ``path``, set ``record`` before the block ends; ``entry`` is there after it."""

    path: Path
    record: BakeRecord | None = None
    entry: Entry | None = None


class BakeCache:
    """Results in ``folder``, together at most ``limit`` bytes; the least recently used make room for new ones.

    Only what this process uses may stay beyond the limit, until it is let go of and something else is stored.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder, self.limit = folder.resolve(), limit

    def find(self, key: Key) -> Entry | None:
        """The result of exactly this recipe on exactly this base, or None; never a stale or a half-written one."""
        entry = self._open(self.folder / key.name)
        if entry is not None and (entry.record.recipe_sha256, entry.record.base_identity) != key:
            return None
        return entry

    def latest_like(self, base_identity: str) -> Entry | None:
        """The most recently used result on this base, whatever its recipe: its unchanged tensors can be taken over."""
        family = Key("", base_identity).family
        for place in reversed(self._places()):
            entry = self._open(place) if place.name.startswith(family) else None
            if entry is not None and entry.record.base_identity == base_identity:
                return entry
        return None

    @contextmanager
    def storing(self, key: Key, nbytes: int) -> Iterator[Slot]:
        """Make a result of about ``nbytes`` in a ``with`` block that writes ``slot.path`` and sets ``slot.record``.

        Leaving the block publishes both at once; an exception in it leaves nothing. Room is made before, so that the
        limit holds meanwhile. Raises FoundryError ``cache`` for a result larger than the limit, and for a folder that
        cannot be written.
        """
        self._require_fit(nbytes)
        with _writable(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        sweep(self.folder)
        self._make_room(nbytes)
        with temporary(self.folder) as work:
            with _writable(self.folder):
                work.mkdir()
            slot = Slot(work / RESULT)
            yield slot
            slot.entry = self._publish(key, work, slot)
        self._make_room()

    def is_sound(self, entry: Entry, on_step: Progress | None = None) -> bool:
        """Whether a result is what was written, by its hash; waits until it was read. A damaged one is gone then.

        ``on_step`` is called meanwhile, and may raise to cancel.
        """
        try:
            answer = looked_at(entry.path, partial(self._evict, entry.path.parent, True))
        except OSError:
            return False  # gone
        while not wait([answer], WAIT).done:
            if on_step is not None:
                on_step(1, 1)
        return answer.result()

    def drop(self, key: Key) -> None:
        """Take one result away, even one in use, so that the next one of its key is not taken for it."""
        self._evict(self.folder / key.name, in_use_too=True)

    def _open(self, place: Path) -> Entry | None:
        """The entry in a folder, marked as used; None when there is none or it is not whole and unchanged."""
        record = parsed(unseal(recall(place / RECORD)))
        if record is None:
            return None
        entry = Entry(place / RESULT, record)  # in use from here on, so that no thread evicts what is being checked
        if not record.holds(place) or self._is_damaged(entry):
            return None
        with suppress(OSError):
            now = time.time_ns()
            os.utime(place / RECORD, ns=(now, now))
        return entry

    def _is_damaged(self, entry: Entry) -> bool:
        """Whether a result is known to be damaged; that of one that nobody looked at yet begins in the background."""
        with suppress(OSError):  # it is being evicted
            looked_at(entry.path, partial(self._evict, entry.path.parent, True))
        return is_damaged(entry.path)

    def _publish(self, key: Key, work: Path, slot: Slot) -> Entry:
        if slot.record is None or (slot.record.recipe_sha256, slot.record.base_identity) != key:
            raise ValueError("the slot needs the record of its key")
        if not slot.path.is_file():
            raise ValueError("the slot needs its file")
        self._require_fit(_size(work))
        files = sorted(path for path in work.rglob("*") if path.is_file())
        if not keep(work / RECORD, seal(stamped(slot.record, work, files).to_json())):
            raise _refused(self.folder, "the record of a result could not be written")
        mine = Entry(self.folder / key.name / RESULT, slot.record)  # in use before it is there: no thread takes it away
        place, reason = mine.path.parent, ""
        entry = self.find(key)  # another process may have made it meanwhile
        if entry is None:
            reason = _rename(work, place)  # refused where another one is faster by a moment: then that is found
            entry = self.find(key)
        if entry is None and place.exists():  # what stands there is unusable
            reason = _rename(work, place) if self._evict(place, True) else "another program keeps a damaged result open"
            entry = self.find(key)
        if entry is None:
            raise _refused(self.folder, reason or "another program removes what is in it")
        return entry

    def _require_fit(self, nbytes: int) -> None:
        if nbytes > self.limit:
            raise refuse("cache.too_large", size=_gigabytes(nbytes), limit=_gigabytes(self.limit))

    def _make_room(self, nbytes: int = 0) -> None:
        """Evict the least recently used results until ``nbytes`` more fit; those in use stay."""
        places = self._places()
        excess = sum(map(_size, places)) + nbytes - self.limit
        for place in places:
            if excess <= 0:
                return
            size = _size(place)
            excess -= size if self._evict(place) else 0

    def _evict(self, place: Path, in_use_too: bool = False) -> bool:
        """Take one entry away in one step; False when it is in use, here or (on Windows) anywhere."""
        with temporary(self.folder) as away, PROCESS.in_use_lock:
            if not in_use_too and any(entry.path.parent == place for entry in PROCESS.in_use):
                return False
            try:
                place.rename(away)
            except OSError:
                return False
        return True

    def _places(self) -> list[Path]:
        """The folders of all entries, the least recently used first."""
        with suppress(OSError):
            # nothing else in the folder is ever touched
            found = [path for path in self.folder.iterdir() if _PLACE.fullmatch(path.name) and path.is_dir()]
            return sorted(found, key=_last_use)
        return []


@contextmanager
def _writable(folder: Path) -> Iterator[None]:
    """What the system refuses, as one sentence."""
    try:
        yield
    except OSError as error:
        raise _refused(folder, error.strerror or str(error)) from error


def _refused(folder: Path, reason: str) -> FoundryError:
    return refuse("cache.refused", folder=shown(str(folder)), reason=reason)


def _rename(work: Path, place: Path) -> str:
    """Give a folder its name; returns the reason when the system refuses, as it does when the name is taken."""
    reason = ""
    for pause in PAUSES:
        try:
            work.rename(place)
            return ""
        except OSError as error:
            reason = error.strerror or str(error)
            if not isinstance(error, PermissionError):
                break
        time.sleep(pause)  # Windows: a virus scanner looks into what was just written
    return reason


def _last_use(place: Path) -> tuple[int, str]:
    with suppress(OSError):
        return (place / RECORD).stat().st_mtime_ns, place.name
    return 0, place.name


def _size(place: Path) -> int:
    total = 0
    with suppress(OSError):  # another process may be removing it
        for path in place.rglob("*"):
            total += path.stat().st_size if path.is_file() else 0
    return total


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:,.2f} GB"
