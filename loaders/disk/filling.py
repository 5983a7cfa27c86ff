"""Bytes of a file into memory that is there already, by several threads: one does not keep up with a GPU's bus."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack

import torch

from .header import Header, disk_errors, file_error

THREADS, PART = 4, 4 << 20  # threads, and bytes that are worth one
_at: Callable[[int, list[memoryview], int], int] | None = os.preadv if sys.platform == "linux" else None


class Filler:
    """Threads that read, made when they are first needed and gone with the stack."""

    def __init__(self, opened: ExitStack) -> None:
        self._opened, self._lock = opened, threading.Lock()
        self._pool: ThreadPoolExecutor | None = None

    def fill(self, header: Header, descriptor: int, begin: int, buffer: torch.Tensor) -> None:
        """The file's bytes from ``begin`` on into all of ``buffer`` (uint8). FoundryError for a file that was cut."""
        count = min(THREADS, max(1, len(buffer) // PART))
        step = -(len(buffer) // -count)
        parts = [(begin + first, buffer[first : first + step]) for first in range(0, len(buffer), step or 1)]
        if len(parts) == 1:
            self._read(header, descriptor, *parts[0])
            return
        if self._pool is None:
            self._pool = self._opened.enter_context(ThreadPoolExecutor(THREADS, "lora-foundry-fill"))
        reads = [self._pool.submit(self._read, header, descriptor, *part) for part in parts]
        wait(reads)  # also where one fails: the file and the buffer are in use until the last one ends
        for read in reads:
            read.result()

    def _read(self, header: Header, descriptor: int, begin: int, buffer: torch.Tensor) -> None:
        rest = buffer.numpy().data
        while len(rest):
            with disk_errors(header.path):
                count = self._some(descriptor, rest, begin)
            if not count:
                raise file_error(header.path, "file.changed")
            begin, rest = begin + count, rest[count:]

    def _some(self, descriptor: int, rest: memoryview, begin: int) -> int:
        """Bytes read: one call gives at most 2 GiB."""
        if _at is not None:
            return _at(descriptor, [rest], begin)
        with self._lock:
            os.lseek(descriptor, begin, os.SEEK_SET)
            data = os.read(descriptor, min(len(rest), PART))
        rest[: len(data)] = data
        return len(data)
