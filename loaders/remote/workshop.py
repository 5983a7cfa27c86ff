"""Where results for elsewhere are made: beside the cache, which lies on a disk that is chosen for large files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..disk.temps import sweep, temporary
from ..disk.writer import writing
from .cache import Cache


def sweep_workshops() -> None:
    """Take away those of processes that were killed."""
    sweep(Cache.of(os.environ).folder)


@contextmanager
def workshop() -> Iterator[Path]:
    """A hidden folder that goes when the block ends. FoundryError ``file`` where the disk refuses it."""
    folder = Cache.of(os.environ).folder
    with writing(folder / "out", 0):
        folder.mkdir(parents=True, exist_ok=True)
    with temporary(folder) as work:
        with writing(work, 0):
            work.mkdir()
        yield work
