"""The finished plan as a file, streamed tensor by tensor: the model is never held in memory."""

from __future__ import annotations

from typing import Any

import torch

from ..engine.finish import FP8_FORMATS, Finish
from ..loaders.baking import bake_to_file
from . import host
from .common import HIDDEN, StageNode, stage_input
from .making import finished, ready
from .sockets import ANY
from .sources import plan_of

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


class FoundrySaveModel(StageNode):
    """Bakes straight to disk, in a format UNETLoader reads."""

    DESCRIPTION = "Bakes the plan into a .safetensors file below output/, with the recipe in its header."
    RETURN_TYPES = ("STRING", "STRING")
    RETURN_NAMES = ("path", "report")
    OUTPUT_TOOLTIPS = ("Where the file is.", "What was done, as text.")
    OUTPUT_NODE = True
    INPUTS = {
        "required": {
            "model": stage_input(ANY, "The plan to finish."),
            "filename_prefix": (
                "STRING",
                {
                    "default": "diffusion_models/foundry",
                    "tooltip": "Below output/; Load Diffusion Model lists that folder.",
                },
            ),
            "format": ([*FP8_FORMATS, *DTYPES], {"tooltip": "float8 is quantized last; the others are rounded once."}),
        },
        "hidden": HIDDEN,
    }

    def run(self, model: Any, filename_prefix: str, format: str, **_: Any) -> dict[str, Any]:
        """(path, report)."""
        plan = plan_of(model)
        findings = ready(plan)
        facts = plan.base.source.facts  # type: ignore[attr-defined]
        quantized = format in FP8_FORMATS
        finish = Finish(format if quantized else "none", DTYPES.get(format), linears=facts.linears)
        path = host.output_file(filename_prefix)
        report, sha256 = bake_to_file(plan, finish, path, host.progress(), host.compute_device())
        return finished(plan, findings, report, sha256, (str(path),), out=str(path))
