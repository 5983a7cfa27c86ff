"""Stage 3: quantize last, from the fp32 sum, into a MODEL the host runs natively."""

from __future__ import annotations

from typing import Any

from ..engine.finish import FP8_FORMATS, FP8_MATMUL, FULL_PRECISION, Finish
from ..engine.quantize import AUTO, parse_keep
from .common import HIDDEN, StageNode, stage_input
from .making import baked_model, finished, ready, recipe_hash
from .sockets import ANY, QUANTIZED_MODEL
from .sources import plan_of


class FoundryQuantizeFP8(StageNode):
    """One pass: read each weight once, add all LoRAs in fp32, quantize, build the MODEL."""

    DESCRIPTION = "Bakes the plan and quantizes it last, so that every LoRA keeps its full effect at half the memory."
    RETURN_TYPES = (QUANTIZED_MODEL, "STRING")
    RETURN_NAMES = ("MODEL", "report")
    OUTPUT_TOOLTIPS = ("A quantized MODEL: sample with it. No LoRA belongs after it.", "What was done, as text.")
    INPUTS = {
        "required": {
            "model": stage_input(ANY, "The plan to finish."),
            "format": (list(FP8_FORMATS), {"tooltip": "Loads in every ComfyUI from 0.3.75 on."}),
            "matmul": (
                [FULL_PRECISION, FP8_MATMUL],
                {"tooltip": "full precision: best quality. fp8: faster on Ada, Hopper and Blackwell."},
            ),
            "keep_high_precision": (
                "STRING",
                {"default": AUTO, "tooltip": "auto: the family's list. Add patterns after commas: auto, *.ffn.2"},
            ),
        },
        "hidden": HIDDEN,
    }

    def run(self, model: Any, format: str, matmul: str, keep_high_precision: str, **_: Any) -> dict[str, Any]:
        """(quantized MODEL, report)."""
        plan = plan_of(model)
        findings = ready(plan)
        facts = plan.base.source.facts  # type: ignore[attr-defined]
        finish = Finish(format, None, matmul, parse_keep(keep_high_precision), facts.linears)
        sha256 = recipe_hash(plan, finish)
        baked, report = baked_model(plan, finish, sha256)
        return finished(plan, findings, report, sha256, (baked,))
