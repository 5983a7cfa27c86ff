"""Stage 1: base LoRAs go into the untouched weights before anything else."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from ..engine.guard import raise_first
from ..engine.plan import FUSE, MATCH_TRAINING, ONCE, Plan
from ..engine.texts.say import refuse
from ..validator.rules import check, wrong_order
from .common import HIDDEN, StageNode, check_file, file_state, report_plan, stage_input
from .layers import ALLOW_PARTIAL, add_row, apply_to_clip, open_row, with_finding
from .rows import STRENGTH, StackRow, lora_choices, read_stack
from .sockets import FUSABLE, FUSED, LORA_STACK, check_links
from .sources import plan_of

VANILLA = "none: vanilla base"


class FoundryFuseBaseLoRA(StageNode):
    """Lightning and other base LoRAs, in any dialect, fused before the stack."""

    DESCRIPTION = (
        "Adds base LoRAs (Lightning, Turbo, or whatever your LoRAs were trained on) to the untouched weights. "
        f"'{VANILLA}' records that none is wanted."
    )
    SEARCH_ALIASES = ["lightning", "turbo", "hyper", "lcm", "dmd", "accelerator", "speed lora"]
    RETURN_TYPES = (FUSED,)
    OUTPUT_TOOLTIPS = ("The fused base: connect it to 2 Stack LoRAs, or to a finishing node.",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """ComfyUI's V1 declaration of inputs."""
        return {
            "required": {
                "model": stage_input(FUSABLE, "The base, or a MODEL that carries no LoRA yet."),
                "lora_name": ([VANILLA, *lora_choices()], {"tooltip": "The base LoRA; its dialect is recognised."}),
                "strength": ("FLOAT", {**STRENGTH, "tooltip": "Times alpha / rank of each module."}),
                "rounding": (
                    [ONCE, MATCH_TRAINING],
                    {"tooltip": "once: exact, rounded at the end. match training: bf16 as the trainer did."},
                ),
            },
            "optional": {
                "lora_stack": (LORA_STACK, {"tooltip": "More base LoRAs, fused after this one."}),
                "allow_partial": ALLOW_PARTIAL,
            },
            "hidden": HIDDEN,
        }

    @classmethod
    def VALIDATE_INPUTS(cls, input_types: Mapping[str, Any], lora_name: Any = None) -> bool | str:
        """Wires, and that the LoRA exists."""
        problem = None if lora_name == VANILLA else check_file(lora_name, "loras")
        return problem or check_links(cls.INPUT_TYPES(), input_types)

    @classmethod
    def IS_CHANGED(cls, lora_name: str = "", **_: Any) -> str:
        """Runs again when the file was replaced."""
        return "" if lora_name == VANILLA else file_state(lora_name, "loras")

    def run(
        self,
        model: Any,
        lora_name: str,
        strength: float,
        rounding: str,
        lora_stack: Iterable[Any] | None = None,
        allow_partial: bool = False,
        **_: Any,
    ) -> dict[str, Any]:
        """The plan with the base LoRAs on it."""
        plan = plan_of(model)
        first = [] if lora_name == VANILLA else [StackRow(lora_name, strength, strength)]
        rows = [*first, *read_stack(lora_stack)]
        plan = replace(plan, vanilla=not rows and not plan.layers)
        raise_first(wrong_order(replace(plan, vanilla=True)))
        refuse_mixed_rounding(plan, rounding)
        for row in rows:
            lora = open_row(row)
            plan = add_row(plan, lora, row, FUSE, rounding, allow_partial)
            plan = with_finding(plan, apply_to_clip(None, lora, row[2])[1])
        return report_plan(plan, check(plan), (plan,))


def refuse_mixed_rounding(plan: Plan, rounding: str) -> None:
    """FoundryError when base LoRAs already on the plan are rounded otherwise: training knew one rounding for all."""
    others = [layer.lora.name for layer in plan.stage(FUSE) if layer.rounding != rounding]
    if others:
        raise refuse("rounding.mixed", loras=", ".join(others), rounding=repr(rounding))
