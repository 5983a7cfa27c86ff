"""The order law: stage sockets, and the checks that no wire, no script and no native node gets around them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

BASE, FUSED, STACKED = "FOUNDRY_BASE", "FOUNDRY_FUSED", "FOUNDRY_STACKED"
MODEL, QUANTIZED = "MODEL", "FOUNDRY_QUANTIZED"
LORA_STACK = "LORA_STACK"
FUSABLE = f"{BASE},{FUSED},{MODEL}"
ANY = f"{BASE},{FUSED},{STACKED},{MODEL}"
QUANTIZED_MODEL = f"{MODEL},{QUANTIZED}"


def types_of(declared: Any) -> set[str]:
    """``"A,B"`` -> {"A", "B"}; a list of choices is a COMBO."""
    return {part.strip() for part in declared.split(",")} if isinstance(declared, str) else {"COMBO"}


def check_links(inputs: Mapping[str, Mapping[str, Any]], received: Mapping[str, Any]) -> bool | str:
    """True, or the sentence that refuses a wire. ``received`` is what ComfyUI hands VALIDATE_INPUTS as ``input_types``.

    Naming ``input_types`` switches the host's own type checks of the node off, so every link is checked here.
    """
    declared = {name: spec[0] for group in ("required", "optional") for name, spec in inputs.get(group, {}).items()}
    for name, arriving in received.items():
        if name not in declared:
            continue
        problem = refuse_link(name, types_of(arriving), types_of(declared[name]))
        if problem:
            return problem
    return True


def refuse_link(name: str, arriving: set[str], accepted: set[str]) -> str | None:
    """Why this link is refused, or None."""
    if QUANTIZED in arriving and MODEL in accepted and QUANTIZED not in accepted:
        return f"{name}: this model is already quantized. Quantize comes last: connect the stage before it."
    if STACKED in arriving and STACKED not in accepted and FUSED in accepted:
        return f"{name}: LoRAs are already stacked here. Fuse the base LoRA first, then stack, then quantize."
    if arriving & accepted or "*" in arriving | accepted:
        return None
    return f"{name}: received {','.join(sorted(arriving))}, expected {','.join(sorted(accepted))}."
