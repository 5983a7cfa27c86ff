"""LoRAs compared before they are merged or stacked: how they get along, and strengths that are not too much."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import cast

from ...engine.json_merge import ConflictsJSON
from ...engine.merge.conflicts import Conflicts, conflicts
from ...engine.progress import Progress
from ..names.blocks import block_of
from .matching import Wanted
from .merging import Gathered
from .record import rounded

TEXT = "text encoder"


def compare(gathered: Gathered, on_step: Progress | None = None) -> Conflicts:
    """Every pair of the LoRAs at their strengths, by block. Nothing of full size is made of plain LoRAs.

    ``on_step(done, total)`` counts modules and may raise to cancel. Raises FoundryError as a merge does.
    """
    units, family = gathered.units, gathered.ground.base.family

    def block(key: str) -> str:
        view = units[key].view
        return block_of(view[0].weight, family) if view else TEXT

    return conflicts([each.input for each in gathered.matched], block, on_step)


def advised(wanted: Sequence[Wanted], found: Conflicts) -> tuple[Wanted, ...]:
    """The same LoRAs at the strengths that bring the stack's energy to that of its strongest one."""
    quieter = 1 / max(1.0, found.loudness)
    return tuple(
        replace(each, strength=each.strength * quieter, clip_strength=each.clip_strength * quieter) for each in wanted
    )


def conflicts_json(found: Conflicts) -> ConflictsJSON:
    """Tables of all pairs, energies by block, and the advice."""
    told = rounded(found.to_json())
    renamed = {
        key: [{"name": each["name"], "strength": each["weight"]} for each in told[key]] for key in ("loras", "advice")
    }
    return cast(ConflictsJSON, {**told, **renamed})


def conflicts_sentences(told: ConflictsJSON) -> list[str]:
    """Every pair in a line, then the advice."""
    names = [each["name"] for each in told["loras"]]
    lines = [
        f"{names[one]} and {names[other]}: cosine {told['cosine'][one][other]:.2f}, "
        f"{told['clash'][one][other]:.0%} opposite signs ({told['excess'][one][other]:+.1%} beyond chance)"
        for one in range(len(names))
        for other in range(one + 1, len(names))
    ]
    loud = told["stack_to_strongest"]
    lines.append(f"together {loud:.2f} times as strong as the strongest of them alone")
    if loud > 1:
        advice = ", ".join(f"{each['name']} {each['strength']:.3g}" for each in told["advice"])
        lines.append(f"as strong as that one alone at: {advice}")
    return lines
