"""The one place where this package remembers something while a process runs; nothing here outlives it."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Hashable
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

MOST_TOGETHER = 20_000  # the server answers nobody else meanwhile
MOST = 8192  # findings about files; the oldest go first
T = TypeVar("T")


class Memory:
    """What was found out, by its kind and what it is of, for as long as that is in one state. Threads may share it."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, Hashable], tuple[object, Any]] = {}
        self._lock = threading.Lock()

    def get(self, kind: str, of: Hashable, state: object = None) -> Any:
        """What was found out in this state; None when nothing was, or it made room."""
        found = self._found.get((kind, of))
        return found[1] if found is not None and found[0] == state else None

    def put(self, found: T, kind: str, of: Hashable, state: object = None) -> T:
        """Remember something in place of what was known in another state; returns it."""
        with self._lock:
            if len(self._found) >= MOST and (kind, of) not in self._found:
                del self._found[next(iter(self._found))]
            self._found[kind, of] = state, found
        return found

    def clear(self) -> None:
        """Forget everything, as a new process has."""
        with self._lock:
            self._found.clear()


@dataclass
class Budget:
    """What the texts of one prompt may take together: tokens of YAML and rows to look up, some 15 us each."""

    left: int = MOST_TOGETHER

    def spend(self, count: int) -> bool:
        """Take so many from it; False where it is used up."""
        self.left -= count
        return self.left >= 0


@dataclass
class Process:
    """``home``: the folder that the host named. ``temps``: names of unfinished files. ``in_use``: entries of caches.

    ``claims``: locks on hidden files beside unfinished ones, as (open handle, how many hold it). ``reading_lock`` is
    held by who reads a whole file in the background; ``rotten``: findings about cached results, yet to be told.
    """

    home: Path | None = None
    temps: set[str] = field(default_factory=set)
    claims: dict[Path, tuple[int | None, int]] = field(default_factory=dict)
    claims_lock: threading.Lock = field(default_factory=threading.Lock)
    in_use: weakref.WeakSet[Any] = field(default_factory=weakref.WeakSet)
    in_use_lock: threading.Lock = field(default_factory=threading.Lock)
    reading_lock: threading.Lock = field(default_factory=threading.Lock)
    files: Memory = field(default_factory=Memory)
    rotten: list[Any] = field(default_factory=list)


PROCESS = Process()
PROMPT: ContextVar[Budget | None] = ContextVar("PROMPT", default=None)  # of the prompt that is being checked here
