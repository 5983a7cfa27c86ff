"""A disk that fails below Python: ``fault_disk.c``, built with the system's compiler and preloaded into a process.

``build(compiler, folder)`` gives the library, ``environment(library)`` what a process is started with that is to have
it, and in that process the disk fails under ``failing(folder, fault)``.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

SOURCE = Path(__file__).with_name("fault_disk.c")
KINDS = ("none", "read", "write", "fsync", "close", "create", "rename", "mkdir", "short")  # as in fault_disk.c


@dataclass(frozen=True)
class Fault:
    """What fails in a folder: from byte or call number ``at`` on, for good or ``once``, with this number of error.

    A ``short`` disk moves at most ``at`` bytes a call, and fails nothing.
    """

    kind: str
    at: int
    error: int = 0
    once: bool = False


@dataclass
class Seen:
    """What became of a fault: how much of its kind there was (bytes or calls), and how often it failed."""

    count: int = 0
    hits: int = 0


def build(compiler: Path, folder: Path) -> Path:
    """The library, made in a folder."""
    library = folder / "fault_disk.so"
    command = [str(compiler), "-shared", "-fPIC", "-O1", "-o", str(library), str(SOURCE), "-ldl"]
    subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603 (the compiler that was found)
    return library


def environment(library: Path) -> dict[str, str]:
    """Variables for a process that is to have this disk."""
    return {**os.environ, "LD_PRELOAD": str(library)}


@contextmanager
def failing(folder: Path, fault: Fault) -> Iterator[Seen]:
    """In a process that has it: a fault in the files of a folder, or in one file, for as long as the block lasts."""
    disk, seen = ctypes.CDLL(None), Seen()
    disk.fault_disk.argtypes = (ctypes.c_char_p, ctypes.c_int, ctypes.c_long, ctypes.c_int, ctypes.c_int)
    disk.fault_disk_seen.restype = disk.fault_disk_hits.restype = ctypes.c_long
    disk.fault_disk(os.fsencode(folder), KINDS.index(fault.kind), fault.at, fault.error, fault.once)
    try:
        yield seen
    finally:
        seen.count, seen.hits = disk.fault_disk_seen(), disk.fault_disk_hits()
        disk.fault_disk(b"", 0, 0, 0, 0)
