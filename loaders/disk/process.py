"""The one place where this package remembers something while a process runs; nothing here outlives it."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Hashable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

MOST = 4096  # findings about files; the oldest go first


class Memory:
    """What was found out about files, by everything it depends on. Threads may share it."""

    def __init__(self) -> None:
        self._found: dict[Hashable, Any] = {}
        self._lock = threading.Lock()

    def get(self, *key: Hashable) -> Any:
        """What was put under this key; None when nothing was, or it made room."""
        return self._found.get(key)

    def put(self, found: Any, *key: Hashable) -> None:
        """Remember something under a key."""
        with self._lock:
            if len(self._found) >= MOST and key not in self._found:
                del self._found[next(iter(self._found))]
            self._found[key] = found

    def clear(self) -> None:
        """Forget everything, as a new process has."""
        self._found.clear()


@dataclass
class Process:
    """``home``: the folder that the host named. ``temps``: names of unfinished files. ``in_use``: entries of caches."""

    home: Path | None = None
    temps: set[str] = field(default_factory=set)
    in_use: weakref.WeakSet[Any] = field(default_factory=weakref.WeakSet)
    in_use_lock: threading.Lock = field(default_factory=threading.Lock)
    files: Memory = field(default_factory=Memory)


PROCESS = Process()
