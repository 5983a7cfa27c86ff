"""Reading every factor of a plan's LoRAs once, before the first weight of the base is touched.

A file that was found sound is remembered by its contents' hash, in this process and in the user's home.
"""

from __future__ import annotations

from contextlib import suppress

from ...engine.errors import FoundryError
from ...engine.findings import Finding
from ...engine.plan import Plan
from ..disk.home import home, keep, recall
from .file import LoRAFile

FILE = "sound.txt"  # one sha256 a line
MOST = 4096
CHECK = 1  # raised when more is checked than before
_sound: set[str] = set()


def verify(plan: Plan) -> tuple[Finding, ...]:
    """LF304 errors for NaN, Inf or unreadable factors; empty when every LoRA of the plan is sound."""
    files = {id(layer.factors): layer.factors for layer in plan.layers if isinstance(layer.factors, LoRAFile)}
    found: list[Finding] = []
    for file in files.values():
        mark = f"{CHECK}:{file.info.sha256}"
        if file.path is not None and _is_known(mark):
            continue
        try:
            file.verify()
        except FoundryError as error:
            found.append(error.finding(file.info.name))
        else:
            if file.path is not None:
                _remember(mark)
    return tuple(found)


def _is_known(mark: str) -> bool:
    if not _sound:
        _sound.update(recall(home() / FILE).split())
    return mark in _sound


def _remember(mark: str) -> None:
    _sound.add(mark)
    with suppress(OSError):
        lines = [line for line in recall(home() / FILE).split() if line != mark]
        keep(home() / FILE, "\n".join([*lines[-MOST:], mark]))
