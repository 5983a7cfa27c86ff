"""Results of looking at weights, kept in the user's home under a key over everything they depend on."""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from .home import home, keep, recall, seal, unseal
from .temps import remove, sweep

FOLDER = "weights"
MOST = 500  # of a few kilobytes; the oldest go first


def key_of(*parts: object) -> str:
    """A key (sha256, hex) over plain data."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def find(key: str) -> Any:
    """What was kept under a key; None when there is nothing, or the file is damaged."""
    return unseal(recall(_place(key)))


def store(key: str, data: Any) -> None:
    """Keep plain data under a key. A home that cannot be written to costs time, never a result."""
    path = _place(key)
    keep(path, seal(data))
    sweep(path.parent)
    with suppress(OSError):
        for old in sorted(path.parent.glob("*.json"), key=lambda each: each.stat().st_mtime_ns)[:-MOST]:
            remove(old)


def _place(key: str) -> Path:
    return home() / FOLDER / f"{key}.json"
