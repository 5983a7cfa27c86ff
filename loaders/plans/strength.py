"""Where in a model each LoRA of a plan is strong: for pictures."""

from __future__ import annotations

import math
from collections import defaultdict
from typing import TypeVar

from ...engine.json_types import ReportJSON
from ...engine.plan import Base, Layer, Plan
from ..loras.matching import stored_base
from ..names.blocks import OTHER, block_of
from .loudness import changes_of

T = TypeVar("T", bound=ReportJSON)


def with_energy(told: T, plan: Plan) -> T:
    """The JSON of a plan, with ``energy`` at each LoRA where it is known. Reads every factor the first time.

    Raises FoundryError for a file that cannot be read.
    """
    for lora, shares in zip(told["loras"], energy_by_block(plan), strict=True):
        if shares:
            lora["energy"] = {block: round(share, 4) for block, share in shares.items()}
    return told


def energy_by_block(plan: Plan) -> list[dict[str, float]]:
    """For each LoRA of the plan the share of what it adds by block of the model; empty where the weights decide it."""
    base = stored_base(plan.base)
    return [_blocks(base, layer) for layer in plan.layers]


def _blocks(base: Base, layer: Layer) -> dict[str, float]:
    sums: dict[str, float] = defaultdict(float)
    for change in changes_of(base, layer):
        sums[block_of(change.weight, base.family)] += change.mean_square * change.numbers
    whole = sum(sums.values())
    return {block: sums[block] / whole for block in sorted(sums, key=_place)} if 0 < whole < math.inf else {}


def _place(block: str) -> tuple[bool, str, int]:
    kind, _, number = block.partition(".")
    return block == OTHER, kind, int(number or 0)
