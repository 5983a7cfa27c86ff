"""Stage 3: quantize last, from the fp32 sum, into a MODEL the host runs natively."""

from __future__ import annotations

from typing import Any

from ..engine.choice import CHOICES, FITTING
from ..engine.finish import FP8_MATMUL, FULL_PRECISION, Finish
from ..engine.formats import FORMATS
from ..engine.memory import AUTO as AUTO_MEMORY
from ..engine.quantize import AUTO, parse_keep
from ..loaders.bakes.baking import resolve
from ..loaders.bakes.calibrated import calibration_findings
from . import host
from .common import HIDDEN, FormatNode, stage_input
from .making import (
    KEEP,
    MAX_ERROR,
    MEMORY,
    MEMORY_MODE,
    NO_CALIBRATION,
    PICTURE,
    REPRODUCIBLE,
    baked_model,
    calibration_of,
    exactly,
    made_reply,
    ready,
    with_calibration,
)
from .news import CALIBRATED, KEPT, changes
from .sockets import ANY, QUANTIZED_MODEL
from .sources import host_source, plan_of


class FoundryQuantizeFP8(FormatNode):
    """One pass: read each weight once, add all LoRAs in fp32, quantize, build the MODEL."""

    DESCRIPTION = (
        "Bakes the plan and quantizes it last (fp8, int8 or 4 bits), so that every LoRA keeps its full effect at half "
        "the memory."
    )
    SEARCH_ALIASES = ["fp8", "int8", "nvfp4", "mxfp8", "4 bits", "quantize weights"]
    RETURN_TYPES = (QUANTIZED_MODEL, "STRING", "IMAGE")
    RETURN_NAMES = ("MODEL", "report", "image")
    OUTPUT_TOOLTIPS = (
        "A quantized MODEL: sample with it. No LoRA belongs after it.",
        "What was done, as text.",
        PICTURE,
    )
    INPUTS = {
        "required": {
            "model": stage_input(ANY, "The plan to finish."),
            "format": (
                [*FORMATS, *CHOICES],
                {
                    "default": FITTING,
                    "tooltip": "auto: 8 bits that this ComfyUI loads and this GPU is fast in. smallest: 4 bits where "
                    "they are fast. float8_e4m3fn loads in every ComfyUI from 0.3.75 on.",
                },
            ),
            "matmul": (
                [FULL_PRECISION, FP8_MATMUL],
                {"tooltip": "full precision: best quality. fp8: faster on Ada, Hopper and Blackwell."},
            ),
            "keep_high_precision": (
                "STRING",
                {"default": AUTO, "tooltip": "auto: the family's list. Add patterns after commas: auto, *.ffn.2"},
            ),
        },
        "optional": {"max_error": MAX_ERROR, "memory": MEMORY_MODE, "keep": KEEP, "reproducible": REPRODUCIBLE},
        "hidden": HIDDEN,
    }

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """ComfyUI's V1 declaration of inputs."""
        return with_calibration(cls.INPUTS)

    @classmethod
    def IS_CHANGED(cls, unique_id: str | None = None, **_: Any) -> str:
        """Runs again when the file of its result turned out to be damaged, or the calibration was collected anew."""
        return f"{changes(KEPT, str(unique_id))} {changes(CALIBRATED, str(unique_id))}"

    def run(
        self,
        model: Any,
        format: str,
        matmul: str,
        keep_high_precision: str,
        max_error: float = 0.0,
        memory: str = AUTO_MEMORY,
        keep: str = MEMORY,
        reproducible: bool = False,
        calibration: str = NO_CALIBRATION,
        pre_quant_scale: bool = False,
        unique_id: str | None = None,
        **_: Any,
    ) -> dict[str, Any]:
        """(quantized MODEL, report, image [1, height, width, 3])."""
        format, chosen = host.chosen_format(format)
        plan = plan_of(model)
        findings = ready(plan)
        facts = host_source(plan).facts
        patterns = parse_keep(keep_high_precision)
        known = calibration_of(calibration, unique_id)
        finish = Finish(
            format,
            None,
            matmul,
            patterns,
            facts.linears,
            max_error=max_error or None,
            arithmetic=exactly(reproducible, memory, known),
            calibration=known,
            pre_quant_scale=pre_quant_scale,
        )
        wanted = resolve(plan, finish)
        told = (*findings, *calibration_findings(wanted))
        return made_reply(wanted, told, *baked_model(wanted, memory, keep, unique_id), chosen=chosen)
