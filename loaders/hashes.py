"""The sha256 of a file, taken once: kept in this process and in the user's home until the file changes.

A change shows by size, modification time or inode. What restores all three after changing the contents is not seen.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from contextlib import suppress
from pathlib import Path

from .header import disk_errors, regular_file
from .home import home, keep, recall, seal, unseal
from .reading import check_unchanged

FILE = "hashes.jsonl"
MOST = 4096  # hashes kept on disk; beyond that a quarter goes, the oldest first
SETTLED_NS = 2_000_000_000  # clocks of file systems tick up to 2 s apart: a younger file may change and look the same
Key = tuple[str, int, int, int]  # absolute path, size, mtime_ns, inode
_known: dict[Key, str] = {}


def file_sha256(path: Path) -> str:
    """Hash (sha256, hex) of a whole file. Raises FoundryError ``file``, also when it changes meanwhile."""
    state = regular_file(path)
    key = (str(path.absolute()), state.st_size, state.st_mtime_ns, state.st_ino)
    settled = time.time_ns() - state.st_mtime_ns > SETTLED_NS
    sha256 = _known.get(key) or _look_up(key)
    if sha256 is None:
        sha256 = _hash(path, key[1:3])
        if settled:
            _write_down(key, sha256)
    if settled:
        _known[key] = sha256
    return sha256


def _hash(path: Path, expected: tuple[int, int]) -> str:
    digest, buffer = hashlib.sha256(), memoryview(bytearray(1 << 20))
    with disk_errors(path), path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            digest.update(buffer[:count])
        state = os.fstat(file.fileno())
    check_unchanged(path, (state.st_size, state.st_mtime_ns), expected)
    return digest.hexdigest()


def _look_up(key: Key) -> str | None:
    """What is written down for this state of the file. Only its own lines are parsed: thousands are left alone."""
    wanted = json.dumps(key, separators=(",", ":"))[:-1] + ","
    lines = (line for line in recall(home() / FILE).split("\n") if wanted in line)
    return next((str(entry[4]) for line in lines if (entry := unseal(line)) is not None), None)


def _write_down(key: Key, sha256: str) -> None:
    """Add one line; several processes may do so at once. A home that refuses it is no error."""
    path = home() / FILE
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write(f"\n{seal([*key, sha256])}")  # first a line end: half a line of a killed writer ends there
    lines = recall(path).split("\n")
    if len(lines) > MOST:
        keep(path, "\n".join([line for line in lines if unseal(line) is not None][-MOST * 3 // 4 :]))
