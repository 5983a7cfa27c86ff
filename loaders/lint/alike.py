"""Names of files that are nearly alike: what another folder, ending, case or sign between words makes of a name."""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import takewhile

from ...engine.lineage import plain_name
from ..workflows.node_kinds import FILE_ENDINGS


def by_plain_name(names: Iterable[str]) -> dict[str, list[str]]:
    """Plain name -> the names that are written so."""
    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(plain_name(name), []).append(name)
    return found


def most_alike(names: Iterable[str], wanted: str) -> str:
    """Of names with one plain name the one with most of ``wanted``: the file as it is written, then its folders."""
    parts = _parts(wanted)

    def likeness(name: str) -> tuple[bool, int]:
        pairs = zip(_parts(name), parts, strict=False)
        return _parts(name)[-1] == parts[-1], sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))

    return max(names, key=likeness, default="")


def stem(name: str) -> str:
    """A file name without folder and ending."""
    last = _parts(name)[-1]
    return last.rpartition(".")[0] if has_ending(last) else last


def has_ending(name: str) -> bool:
    """Whether a name ends as files of weights do."""
    return name.lower().endswith(FILE_ENDINGS)


def _parts(name: str) -> list[str]:
    return re.split(r"[\\/]", name)
