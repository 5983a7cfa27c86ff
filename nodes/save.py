"""The finished plan as a file, streamed tensor by tensor: the model is never held in memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch

from ..engine.budget import size_json
from ..engine.choice import CHOICES
from ..engine.findings import Finding
from ..engine.finish import FP8_MATMUL, FULL_PRECISION, Finish
from ..engine.formats import FORMATS
from ..engine.memory import AUTO as AUTO_MEMORY
from ..engine.quantize import AUTO, parse_keep
from ..engine.room import device_bytes
from ..engine.texts.say import say
from ..loaders.bakes.baking import BakeOptions, FileRequest, bake_files, resolve
from ..loaders.bakes.calibrated import calibration_findings
from . import folders, host
from .common import HIDDEN, FormatNode, check_number, check_prefix, stage_input
from .making import (
    MAX_ERROR,
    MEMORY_MODE,
    NO_CALIBRATION,
    PICTURE,
    REPRODUCIBLE,
    calibration_of,
    exactly,
    finished,
    ready,
    with_calibration,
)
from .news import CALIBRATED, changes
from .sockets import ANY
from .sources import host_source, plan_of

MOST_GB = 1e6
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


class FoundrySaveModel(FormatNode):
    """Bakes straight to disk, in a format UNETLoader reads."""

    DESCRIPTION = "Bakes the plan into a .safetensors file below output/, with the recipe in its header."
    SEARCH_ALIASES = ["save weights", "merge lora into model", "export fp8", "bake lora"]
    RETURN_TYPES = ("STRING", "STRING", "IMAGE")
    RETURN_NAMES = ("path", "report", "image")
    OUTPUT_TOOLTIPS = ("Where the file is.", "What was done, as text.", PICTURE)
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
            "format": (
                [*FORMATS, *DTYPES, *CHOICES],
                {
                    "tooltip": "float8 and int8 are quantized last; the others are rounded once. This ComfyUI must be "
                    "able to load what it saves; `lora-foundry bake` writes any format."
                },
            ),
        },
        "optional": {
            "matmul": (
                [FULL_PRECISION, FP8_MATMUL],
                {"default": FULL_PRECISION, "tooltip": "How a quantized file is multiplied where it is loaded."},
            ),
            "keep_high_precision": (
                "STRING",
                {"default": AUTO, "tooltip": "auto: the family's list. Add patterns after commas: auto, *.ffn.2"},
            ),
            "max_error": MAX_ERROR,
            "memory": MEMORY_MODE,
            "max_shard_gb": (
                "FLOAT",
                {"default": 0.0, "min": 0.0, "step": 0.5, "tooltip": "Several files and an index; 0: one file."},
            ),
            "reproducible": REPRODUCIBLE,
        },
        "hidden": HIDDEN,
    }

    @classmethod
    def VALIDATE_INPUTS(
        cls,
        input_types: Mapping[str, Any],
        format: str | None = None,
        keep_high_precision: str | None = None,
        pre_quant_scale: bool | None = None,
        filename_prefix: str | None = None,
        max_shard_gb: float | None = None,
    ) -> bool | str:
        """As every finishing node, and what a file may be called and how large its parts may be."""
        faults = (check_prefix(filename_prefix), check_number("max_shard_gb", max_shard_gb, 0, MOST_GB))
        return next(filter(None, faults), None) or super().VALIDATE_INPUTS(
            input_types, format, keep_high_precision, pre_quant_scale
        )

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """ComfyUI's V1 declaration of inputs."""
        return with_calibration(cls.INPUTS)

    @classmethod
    def IS_CHANGED(cls, unique_id: str | None = None, **_: Any) -> int:
        """Runs again when the calibration was collected anew."""
        return changes(CALIBRATED, str(unique_id))

    def run(
        self,
        model: Any,
        filename_prefix: str,
        format: str,
        matmul: str = FULL_PRECISION,
        keep_high_precision: str = AUTO,
        max_error: float = 0.0,
        memory: str = AUTO_MEMORY,
        max_shard_gb: float = 0.0,
        reproducible: bool = False,
        calibration: str = NO_CALIBRATION,
        pre_quant_scale: bool = False,
        unique_id: str | None = None,
        **_: Any,
    ) -> dict[str, Any]:
        """(path, report, image [1, height, width, 3])."""
        format, chosen = host.chosen_format(format)
        plan = plan_of(model)
        findings = ready(plan)
        facts = host_source(plan).facts
        known = calibration_of(calibration, unique_id) if format in FORMATS else None
        quantized, patterns = (format if format in FORMATS else "none"), parse_keep(keep_high_precision)
        finish = Finish(
            quantized,
            DTYPES.get(format),
            matmul,
            patterns,
            facts.linears,
            max_error=(max_error or None) if format in FORMATS else None,
            arithmetic=exactly(reproducible, memory, known),
            calibration=known,
            pre_quant_scale=pre_quant_scale,
        )
        shard = round(max_shard_gb * 1e9) or None
        path, wanted = folders.output_file(filename_prefix), resolve(plan, finish)
        with host.borrowed(device_bytes([wanted])) as device:
            how = BakeOptions(device, memory, max_shard=shard, records=False)
            (baked,) = bake_files([FileRequest(wanted, path)], how, host.progress())
        first, files = str(baked.files[0]), [str(file) for file in baked.files]
        told = (*findings, *calibration_findings(wanted), *_unused(format, max_error, calibration))
        size = size_json(wanted, baked.cost)
        return finished(plan, told, baked, (first,), chosen=chosen, out=first, files=files, size=size)


def _unused(format: str, max_error: float, calibration: str) -> Iterator[Finding]:
    """Notes on settings that are about quantizing alone, where nothing is quantized."""
    if format in FORMATS:
        return
    if calibration != NO_CALIBRATION:
        yield say("LF205.unused", subject=calibration, calibration=calibration, format=format)
    if max_error:
        yield say("LF204.unused", format=format, wanted=f"{max_error:g}")
