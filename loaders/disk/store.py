"""Small results in the user's home under a key over everything they depend on; they can always be made again."""

from __future__ import annotations

import hashlib
import json
import os
import time
import zlib
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .home import home, keep, recall, seal, unseal
from .temps import remove, sweep

FORMER = ("sound.txt",)  # files in the home that older versions wrote and nothing reads


def key_of(*parts: object) -> str:
    """A key (sha256, hex) over plain data."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


@dataclass(frozen=True)
class Store:
    """At most about ``most`` entries in ``folder`` of the home, a file each; the least recently used go first.

    ``seal`` is a number, raised when what an entry holds changes its meaning: the older ones are then absent. So is a
    damaged entry. Several processes may write at once. A home that cannot be written to costs time, never a result.
    A file each, for a library is not clearly better: of 5,000 entries of 2 KB one put took 450 us and one get 35 us,
    with ``diskcache`` 233 and 174, with ``sqlite3`` 120 and 74, after seconds of work that each entry saves.
    """

    folder: str
    most: int
    seal: int = 0

    def get(self, key: str) -> Any:
        """What was put under a key, marked as used; None when there is nothing."""
        path = self.place(key)
        found = unseal(recall(path), self.seal)
        if found is not None:
            _mark_used(path)
        return found

    def put(self, key: str, data: Any) -> bool:
        """Keep plain data under a key; False when the home refuses it."""
        path = self.place(key)
        if not keep(path, seal(data, self.seal)):
            return False
        _mark_used(path)
        if zlib.crc32(key.encode()) % (self.most // 128 + 1) == 0:  # a large folder is not listed for every entry
            self.prune()
        return True

    def prune(self) -> None:
        """Drop what is too much, an eighth more than needed, and what killed processes and older versions left."""
        folder = home() / self.folder
        with suppress(OSError):
            for name in FORMER:
                (home() / name).unlink(missing_ok=True)
        with suppress(OSError):
            found = list(folder.iterdir())
            entries = [path for path in found if path.suffix == ".json"]
            if len(entries) < len(found):
                sweep(folder)
            if len(entries) > self.most:
                entries.sort(key=lambda path: path.stat().st_mtime_ns)
                for path in entries[: len(entries) - self.most + self.most // 8]:
                    remove(path)

    def place(self, key: str) -> Path:
        """Where the entry of a key is; keys are names of files (``key_of``)."""
        return home() / self.folder / f"{key}.json"


def _mark_used(path: Path) -> None:
    with suppress(OSError):
        now = time.time_ns()  # the clock of a file system ticks too slowly to tell two entries apart
        os.utime(path, ns=(now, now))
