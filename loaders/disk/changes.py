"""Whether something changed in folders since they were looked at: names, sizes and times; nothing is opened."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path


def state_of(places: Iterable[Path]) -> str:
    """Name, size and time of these files, and of every file that lies in these folders (not below them), as one text.

    It is another text when a file comes, goes or is written. What cannot be looked at counts as not there, and of a
    link that leads nowhere only the name counts.
    """
    return "\n".join(line for place in sorted(set(places)) for line in (str(place), *_inside(place)))


def _inside(place: Path) -> list[str]:
    found = list[str]()
    with suppress(OSError):
        if not place.is_dir():
            return [_told(place.stat())]
        with os.scandir(place) as entries:
            found += [line for entry in entries if (line := _line(entry))]
    return sorted(found)


def _line(entry: os.DirEntry[str]) -> str:
    """An entry of a folder; empty for a folder."""
    with suppress(OSError):
        return "" if entry.is_dir() else f"{entry.name}:{_told(entry.stat())}"
    return entry.name


def _told(state: os.stat_result) -> str:
    return f"{state.st_size}:{state.st_mtime_ns}"
