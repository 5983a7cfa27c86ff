"""Reading every factor of a plan's LoRAs once, before the first weight of the base is touched.

A file that was found sound is remembered by its contents' hash, in this process and in the user's home.
"""

from __future__ import annotations

from ...engine.errors import FoundryError
from ...engine.findings import Finding
from ...engine.plan import Plan
from ...engine.texts.say import say_of
from ..disk.process import PROCESS
from ..disk.store import Store
from .file import LoRAFile

STORE = Store("sound", most=4096, seal=2)  # by sha256; the seal is raised when more is checked than before
ACTS, ZEROS = "acts", "zeros"


def verify(plan: Plan) -> tuple[Finding, ...]:
    """LF304 errors for NaN, Inf or unreadable factors; LF302 for a LoRA of zeros."""
    files = {id(layer.factors): layer.factors for layer in plan.layers if isinstance(layer.factors, LoRAFile)}
    found: list[Finding] = []
    for file in files.values():
        try:
            if _found_out(file) == ZEROS:
                found.append(say_of(file.info.name, "LF302.zeros", modules=len(file.modules)))
        except FoundryError as error:
            found.append(error.finding(file.info.name))
    return tuple(found)


def _found_out(file: LoRAFile) -> str:
    """Whether a sound file does anything, read once. Raises FoundryError for one that is not sound."""
    sha256 = file.info.sha256
    known: str | None = PROCESS.files.get("sound", sha256) or STORE.get(sha256) if file.path is not None else None
    if known is None:
        known = ACTS if file.verify() else ZEROS
        if file.path is not None:
            STORE.put(sha256, known)
    return PROCESS.files.put(known, "sound", sha256) if file.path is not None else known
