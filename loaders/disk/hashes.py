"""The sha256 of a file, taken once: kept in this process and in the user's home until the file changes.

One pass gives two: of the whole file, and of what follows the JSON header of a safetensors file. The second survives
edits of metadata; others call it AutoV3 (its first 12 digits), addnet hash or ``sshs_model_hash``.

A change shows by size, modification time or inode. What restores all three after changing the contents is not seen.
"""

from __future__ import annotations

import hashlib
import io
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from ...engine.progress import Progress
from .header import MAX_HEADER, disk_errors, regular_file
from .home import home, recall, unseal
from .process import PROCESS
from .reading import check_unchanged
from .store import Store, key_of

STORE = Store("hashes", most=4096)
FORMER = "hashes.jsonl"  # where older versions kept them, a sealed line each
SETTLED_NS = 2_000_000_000  # clocks of file systems tick up to 2 s apart: a younger file may change and look the same
CHUNK = 1 << 21
Key = tuple[str, int, int, int]  # absolute path, size, mtime_ns, inode


class Hashes(NamedTuple):
    """Hex digests of a file and of its tensors: ``tensors`` is empty for a file that is no safetensors, None: unknown.

    Unknown are the tensors of what an older version wrote down.
    """

    file: str
    tensors: str | None


def file_sha256(path: Path, on_step: Progress | None = None) -> str:
    """Hash (sha256, hex) of a whole file. Raises FoundryError ``file``, also when it changes meanwhile.

    ``on_step`` counts bytes; what it raises ends the hashing.
    """
    return _hashes(path, on_step, lambda found: True).file


def file_hashes(path: Path, on_step: Progress | None = None) -> Hashes:
    """Both hashes of a file. Raises FoundryError ``file``, also when it changes meanwhile."""
    return _hashes(path, on_step, lambda found: found.tensors is not None)


def is_as_hashed(path: Path) -> bool:
    """Whether a file has the hash that is written down for its state; where none is, this one is written down.

    Reads all of it. Raises FoundryError ``file``, also when it changes meanwhile.
    """
    key = _key(path, regular_file(path))
    known, seen = _look_up(key), _hash(path, key[1:3], None)
    if known is None:
        STORE.put(key_of(*key), list(seen))
    return known is None or known.file == seen.file


def _key(path: Path, state: os.stat_result) -> Key:
    return str(path.absolute()), state.st_size, state.st_mtime_ns, state.st_ino


def _hashes(path: Path, on_step: Progress | None, enough: Callable[[Hashes], bool]) -> Hashes:
    state = regular_file(path)
    key = _key(path, state)
    settled = time.time_ns() - state.st_mtime_ns > SETTLED_NS
    found: Hashes | None = PROCESS.files.get("hashes", key[0], key) or _look_up(key)
    if found is None or not enough(found):
        found = _hash(path, key[1:3], on_step)
        if settled:
            STORE.put(key_of(*key), list(found))
    if settled:
        PROCESS.files.put(found, "hashes", key[0], key)
    return found


def _hash(path: Path, expected: tuple[int, int], on_step: Progress | None) -> Hashes:
    whole, tensors, size = hashlib.sha256(), hashlib.sha256(), expected[0]
    buffer, done, start = memoryview(bytearray(CHUNK)), 0, 0
    # A digest lets go of the GIL: on two cores the second one costs no time.
    with ThreadPoolExecutor(1) as beside, disk_errors(path), path.open("rb", buffering=0) as file:
        while count := _filled(file, buffer):
            start = start if done else _data_start(bytes(buffer[:9]), size)
            second = beside.submit(tensors.update, buffer[min(max(start - done, 0), count) : count])
            whole.update(buffer[:count])
            second.result()
            done += count
            if on_step is not None:
                on_step(done, size)
        state = os.fstat(file.fileno())
    check_unchanged(path, (state.st_size, state.st_mtime_ns), expected)
    return Hashes(whole.hexdigest(), tensors.hexdigest() if start else "")


def _filled(file: io.FileIO, buffer: memoryview) -> int:
    """Read until the buffer is full or the file ends: some drives give less than was asked for. Returns the bytes."""
    done = 0
    while done < len(buffer) and (count := file.readinto(buffer[done:])):
        done += count
    return done


def _data_start(begin: bytes, size: int) -> int:
    """Where the bytes after the header begin, from the first nine bytes; 0 for a file that is no safetensors."""
    length = int.from_bytes(begin[:8], "little")
    return 8 + length if begin[8:] == b"{" and 2 <= length <= min(size - 8, MAX_HEADER) else 0


def _look_up(key: Key) -> Hashes | None:
    """What is written down for this state of the file."""
    with suppress(OSError):  # a home that may not be looked into
        if (home() / FORMER).is_file():  # a pipe of that name would hang
            _take_over()
    found = STORE.get(key_of(*key))
    return Hashes(*(*found, None)[:2]) if isinstance(found, list) and found else None  # an old one has no second hash


def _take_over() -> None:
    """Move what an older version wrote down into the store; where it has two lines of a file, the longer one counts."""
    entries = [entry for line in recall(home() / FORMER).split("\n") if isinstance(entry := unseal(line), list)]
    for entry in sorted(entries, key=len):
        STORE.put(key_of(*entry[:4]), entry[4:])
    with suppress(OSError):
        (home() / FORMER).unlink()
