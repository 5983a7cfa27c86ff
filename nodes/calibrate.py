"""Calibrate: what the Linears of a MODEL are given while it samples, kept for the quantizing that follows."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

import torch

from ..engine.calibration import BLOCKS, RANGES, ROUNDING, WHAT, Origin
from ..engine.collect import Collector, block_size, gram_bytes
from ..engine.errors import FoundryError
from ..engine.memory import available_bytes
from ..engine.plan import STACK, Plan
from ..engine.quantize import AUTO, is_quantizable
from ..loaders.bakes.calibrations import (
    calibration_path,
    calibrations_folder,
    save_calibration,
    spilled,
)
from . import host
from .common import FoundryNode, check_number
from .refusals import refusal
from .sockets import MODEL, check_links
from .sources import host_source, plan_of
from .watching import Watch, watched

MOST_GB = 1e6
SHARE = 3  # of the free memory a third is taken, where nothing is said


class FoundryCalibrate(FoundryNode):
    """Looks on while this MODEL samples; every sampling writes the file of this name anew."""

    DESCRIPTION = (
        "Put it between the unquantized MODEL, LoRAs and all, and the sampler. It keeps what the layers are given "
        "under a name; 3 Quantize and Save Baked Model round by it. The picture does not change."
    )
    SEARCH_ALIASES = ["calibration", "activation ranges", "gptq"]
    RETURN_TYPES = ("MODEL",)
    OUTPUT_TOOLTIPS = ("The same MODEL: sample with it as usual.",)
    INPUTS = {
        "required": {
            "model": (
                MODEL,
                {"tooltip": "Not quantized, with the LoRAs that will be baked: from 3 Apply."},
            ),
            "name": ("STRING", {"default": "calibration", "tooltip": "What 3 Quantize will list it as."}),
            "what": (
                list(WHAT),
                {
                    "default": ROUNDING,
                    "tooltip": "ranges: the largest inputs, for fp8 products. ranges and rounding: how inputs hang "
                    "together too, which makes every format closer.",
                },
            ),
        },
        "optional": {
            "memory_gb": (
                "FLOAT",
                {
                    "default": 0.0,
                    "min": 0.0,
                    "step": 0.5,
                    "tooltip": "The most it may hold while it samples; beyond that it uses the disk. 0: a third of "
                    "what is free.",
                },
            ),
        },
    }

    @classmethod
    def VALIDATE_INPUTS(
        cls, input_types: Mapping[str, Any], name: Any = None, memory_gb: float | None = None
    ) -> bool | str:
        """Wires, what a calibration can be called, and the memory."""
        fault = None if name is None else name_fault(name)
        return fault or check_number("memory_gb", memory_gb, 0, MOST_GB) or check_links(cls.INPUT_TYPES(), input_types)

    def run(self, model: Any, name: str, what: str, memory_gb: float = 0.0) -> tuple[Any]:
        """The MODEL, watched."""
        plan = plan_of(model)
        facts, path, origin = host_source(plan).facts, calibration_path(name), origin_of(model, plan)
        fits = fitting(plan, facts.linears)
        size, on_disk = (0, False) if what == RANGES else how_to_count(fits, memory_gb)

        def begin() -> Watch:
            opened = ExitStack()
            allocate = opened.enter_context(spilled(calibrations_folder())) if on_disk else torch.zeros
            collected = Collector(size, allocate, fits)
            return Watch(collected.add, lambda: save_calibration(path, collected, origin), opened.close)

        return (watched(model, facts.linears, begin),)


def fitting(plan: Plan, linears: frozenset[str]) -> dict[str, int]:
    """The Linears that are quantized unless the user says otherwise, and how many inputs they have."""
    infos = plan.base.source.tensors.values()
    return {each.name: each.shape[1] for each in infos if is_quantizable(each, plan.base.family, (AUTO,), linears)}


def how_to_count(widths: Mapping[str, int], memory_gb: float) -> tuple[int, bool]:
    """(columns of a block of X^T X, whether it goes to the disk)."""
    limit = int(memory_gb * 1e9)
    if not limit:
        free = available_bytes()
        limit = gram_bytes(widths, BLOCKS[0]) if free is None else free // SHARE
    size = block_size(widths, limit)
    return size, gram_bytes(widths, size) > limit


def origin_of(model: Any, plan: Plan) -> Origin:
    """What a MODEL tells of its base and LoRAs: by our own record, and by what other nodes did to it since."""
    record = host.ledger(model)
    others, recipe = plan.base.applied[len(record.get(STACK, ())) :], record.get("recipe")
    if recipe is None:
        return Origin(plan.base.name, others=others)
    base = recipe["base"]
    return Origin(base["name"], base["fingerprint"], tuple(recipe["layers"]), others)


def name_fault(name: Any) -> str | None:
    """Why a calibration cannot have a typed-in name, or None."""
    try:
        calibration_path(str(name))
    except FoundryError as error:
        return refusal(error)
    return None
