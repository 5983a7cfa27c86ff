"""Reading every factor of a plan's LoRAs once, before the first weight of the base is touched."""

from __future__ import annotations

from ..engine.errors import FoundryError
from ..engine.findings import Finding
from ..engine.plan import Plan
from .lora import LoRAFile


def verify(plan: Plan) -> tuple[Finding, ...]:
    """LF304 errors for NaN, Inf or unreadable factors; empty when every LoRA of the plan is sound."""
    files = {id(layer.factors): layer.factors for layer in plan.layers if isinstance(layer.factors, LoRAFile)}
    found: list[Finding] = []
    for file in files.values():
        try:
            file.verify()
        except FoundryError as error:
            found.append(error.finding(file.info.name))
    return tuple(found)
