"""What the nodes remember from one run to the next, in one object: ComfyUI keeps no node for them to remember it in."""

from __future__ import annotations

import weakref
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from ..engine.errors import FoundryError
from ..engine.reuse import Previous

T = TypeVar("T")
MOST = 512  # files of one validator


@dataclass
class Watch:
    """What one validator saw: by file how to look, and what there was. ``changes`` is how often that was outdated."""

    files: dict[Path, tuple[Callable[[], object], object]] = field(default_factory=dict)
    changes: int = 0

    def seen(self, path: Path, look: Callable[[], T | None], planned: T) -> T:
        """What a look shows now, else what was known while the plan was made."""
        now = quietly(look)
        seen = planned if now is None else now
        if path not in self.files and len(self.files) >= MOST:
            del self.files[next(iter(self.files))]
        self.files[path] = look, seen
        return seen


@dataclass
class Session:
    """``last``: a result in memory, by the identity of its base. ``tokens``: a name for each module of a MODEL.

    ``watches``: what each node saw, by what it looks at and its node id, which several workflows may have.
    """

    last: tuple[str, Previous] | None = None
    tokens: weakref.WeakKeyDictionary[Any, str] = field(default_factory=weakref.WeakKeyDictionary)
    watches: defaultdict[tuple[str, str], Watch] = field(default_factory=lambda: defaultdict(Watch))


SESSION = Session()


def quietly(look: Callable[[], T | None]) -> T | None:
    """What there is to see; None where the file is gone."""
    try:
        return look()
    except FoundryError:
        return None
