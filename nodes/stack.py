"""Stage 2: the weighted LoRAs on top of the (fused) base."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..engine.plan import STACK
from ..validator.rules import check
from .common import HIDDEN, StageNode, report_plan, stage_input
from .layers import ALLOW_PARTIAL, add_row, apply_to_clip, clip_strength, open_row, with_finding
from .rows import read_stack
from .sockets import ANY, LORA_STACK, STACKED
from .sources import plan_of


class FoundryStackLoRAs(StageNode):
    """The stack goes on the plan; text-encoder parts go into the CLIP that is wired in."""

    DESCRIPTION = (
        "Adds the weighted LoRAs on top of the fused base. Their order does not matter: all are summed at once."
    )
    SEARCH_ALIASES = ["apply lora stack", "lora weights", "several loras"]
    RETURN_TYPES = (STACKED, "CLIP")
    OUTPUT_TOOLTIPS = ("The stack: validate it, quantize it, apply it or save it.", "CLIP with the text-encoder parts.")
    INPUTS = {
        "required": {
            "model": stage_input(ANY, "The base, the fused base, or a MODEL."),
            "lora_stack": (LORA_STACK, {"tooltip": "LoRA, LoRA Stack, or a stacker of another pack."}),
        },
        "optional": {
            "clip": ("CLIP", {"tooltip": "Receives the LoRAs' text-encoder parts."}),
            "allow_partial": ALLOW_PARTIAL,
        },
        "hidden": HIDDEN,
    }

    def run(
        self, model: Any, lora_stack: Iterable[Any], clip: Any = None, allow_partial: bool = False, **_: Any
    ) -> dict[str, Any]:
        """(the plan with the stack on it, CLIP)."""
        plan = plan_of(model)
        for row in read_stack(lora_stack):
            lora = open_row(row)
            text_encoder_only = clip is not None and not lora.adapters
            if row[1] and not text_encoder_only:
                plan = add_row(plan, lora, row, STACK, allow_partial=allow_partial)
            clip, finding = apply_to_clip(clip, lora, clip_strength(plan, row))
            plan = with_finding(plan, finding)
        return report_plan(plan, check(plan), (plan, clip))
