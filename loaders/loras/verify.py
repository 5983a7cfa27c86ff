"""Reading every factor of a plan's LoRAs once, before the first weight of the base is touched.

A file that was found sound is remembered by its contents' hash, in this process and in the user's home.
"""

from __future__ import annotations

from ...engine.errors import FoundryError
from ...engine.findings import Finding
from ...engine.plan import Plan
from ..disk.process import PROCESS
from ..disk.store import Store
from .file import LoRAFile

STORE = Store("sound", most=4096, seal=1)  # by sha256; the seal is raised when more is checked than before


def verify(plan: Plan) -> tuple[Finding, ...]:
    """LF304 errors for NaN, Inf or unreadable factors; empty when every LoRA of the plan is sound."""
    files = {id(layer.factors): layer.factors for layer in plan.layers if isinstance(layer.factors, LoRAFile)}
    found: list[Finding] = []
    for file in files.values():
        if file.path is not None and _is_known(file.info.sha256):
            continue
        try:
            file.verify()
        except FoundryError as error:
            found.append(error.finding(file.info.name))
        else:
            if file.path is not None:
                STORE.put(file.info.sha256, True)
                PROCESS.files.put(True, "sound", file.info.sha256)
    return tuple(found)


def _is_known(sha256: str) -> bool:
    return bool(PROCESS.files.get("sound", sha256) or STORE.get(sha256))
