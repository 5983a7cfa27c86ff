"""Names like a given one, for messages: in a moment, whatever a stranger wrote."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

MOST_WORK = 5_000_000  # characters of the word times characters of all names: under half a second
LONGEST = 300  # characters of a word or a name that is looked at


def near(word: str, known: Iterable[str], most: int = 1, alike: float = 0.6) -> list[str]:
    """Up to ``most`` of the known names, best first; as many of them are compared as ``MOST_WORK`` allows.

    ``alike`` is difflib's ratio, 1 for the same name.
    """
    if len(word) > LONGEST:
        return []
    left, listed = MOST_WORK, []
    for name in known:
        if len(name) <= LONGEST:
            left -= len(word) * len(name)
            if left < 0:
                break
            listed.append(name)
    return difflib.get_close_matches(word, listed, most, alike)
