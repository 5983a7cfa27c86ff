"""Bytes of one file copied into another."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress

CHUNK = 1 << 26  # bytes copied at once inside the kernel
PIECE = 1 << 20  # and by hand


def copy_range(source: int, begin: int, end: int, target: int, offset: int) -> Iterator[int]:
    """Copy bytes ``begin`` to ``end`` of an open file to ``offset`` in another, block by block.

    Tells after each how many are done; fewer than asked for where the source ends before. Inside the kernel where that
    works, else by hand; file systems that can share blocks until they change (Btrfs, XFS) do so. Raises OSError.
    """
    done, size = 0, end - begin
    with suppress(OSError, AttributeError):  # not on every system, and not between every two file systems
        while count := os.copy_file_range(source, target, min(CHUNK, size - done), begin + done, offset + done):
            done += count
            yield done
    while data := _read(source, min(PIECE, size - done), begin + done):
        rest = memoryview(data)
        while rest:
            count = _write(target, rest, offset + done)
            rest, done = rest[count:], done + count
        yield done


def _read(handle: int, size: int, at: int) -> bytes:
    if hasattr(os, "pread"):
        return os.pread(handle, size, at)
    os.lseek(handle, at, os.SEEK_SET)
    return os.read(handle, size)


def _write(handle: int, data: memoryview, at: int) -> int:
    if hasattr(os, "pwrite"):
        return os.pwrite(handle, data, at)
    os.lseek(handle, at, os.SEEK_SET)
    return os.write(handle, data)
