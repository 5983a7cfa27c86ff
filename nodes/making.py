"""Finishing a plan inside ComfyUI: bake it, make a MODEL of it, and tell what happened."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ..engine.bake import bake_all
from ..engine.blueprint import Blueprint
from ..engine.budget import hold_budgets, size_json
from ..engine.calibration import Calibration
from ..engine.devices import CPU, arithmetic_of
from ..engine.findings import Finding
from ..engine.guard import raise_first
from ..engine.ingredients import ingredients_json
from ..engine.job import BakeRequest
from ..engine.memory import AUTO, MODES, choose_memory
from ..engine.plan import FUSE, STACK, Plan
from ..engine.report import bake_json, bake_sentence, budget_sentence, plan_sentences
from ..engine.room import choose_device, device_bytes
from ..engine.smoothed import PRE_QUANT_SCALE
from ..engine.tensors import StateDict
from ..loaders.bakes.baking import MADE, BakeOptions, BakeResult, FileRequest, bake_files
from ..loaders.bakes.cache import BakeCache
from ..loaders.bakes.calibrations import calibration_names, find_calibration, load_calibration
from ..loaders.disk.sharding import parse_size
from ..loaders.loras.verify import verify
from ..loaders.plans.loudness import loudness
from ..loaders.plans.strength import with_energy
from ..validator.rules import check
from . import again, folders, host
from .common import picture_of, reply
from .news import CALIBRATED, kept_file, seen_file
from .sources import host_source

MEMORY, FILE = "memory", "file"
CACHE_SIZE = "50GB"
MAX_ERROR = (
    "FLOAT",
    {
        "default": 0.0,
        "min": 0.0,
        "max": 1.0,
        "step": 0.001,
        "round": False,
        "tooltip": "Keep the worst layers in high precision until the error of all is below this share; 0: off.",
    },
)
MEMORY_MODE = (
    list(MODES),
    {"default": AUTO, "tooltip": "low: one tensor at a time. lowest: one block of rows at a time, slower."},
)
REPRODUCIBLE = (
    "BOOLEAN",
    {
        "default": False,
        "tooltip": "on: a result is found again only where sums are taken on the same device in the same way, so that "
        "one recipe is the same file to the last bit.",
    },
)
NO_CALIBRATION = "none"
PICTURE = "What is kept of each LoRA, where it is strong, the size before and after, and the error of the layers."
ROUNDED_BY = "What Calibrate collected: weights are rounded by their inputs, and judged by their outputs."
EVENED = (
    "BOOLEAN",
    {
        "default": False,
        "tooltip": "nvfp4 with a calibration: columns are evened out by their inputs, which is nearer. No LoRA may be "
        "put on top of it.",
    },
)
KEEP = (
    [MEMORY, FILE],
    {
        "default": MEMORY,
        "tooltip": "file: bake to a cache on disk that ComfyUI maps. The same plan is found there again, and a changed "
        "strength redoes only what it touches.",
    },
)


def ready(plan: Plan) -> tuple[Finding, ...]:
    """All findings of a plan that is about to be finished; raises the first error, before any weight is read."""
    findings = (*check(plan), *verify(plan))
    raise_first(findings)
    return (*findings, *loudness(plan, host.progress()))


def exactly(reproducible: bool, memory: str, known: Calibration | None = None) -> str | None:
    """The arithmetic a reproducible result is worked out in here; None where any will do."""
    device = host.compute_device() if known is None else CPU  # error feedback is work for the CPU
    return arithmetic_of(device, memory) if reproducible else None


def with_calibration(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Declared inputs and, last of the optional ones, the calibrations there are now and what can be made of one."""
    choices = [NO_CALIBRATION, *calibration_names()]
    known = {"calibration": (choices, {"tooltip": ROUNDED_BY}), PRE_QUANT_SCALE: EVENED}
    return {**inputs, "optional": {**inputs["optional"], **known}}


def calibration_of(name: str, node_id: str | None) -> Calibration | None:
    """The calibration of that name, or None; ``changes`` of that node counts when it is collected again, also where
    the name comes by a wire. FoundryError ``file``.
    """
    if name == NO_CALIBRATION:
        return None
    path = find_calibration(name)
    seen_file(path, str(node_id), CALIBRATED)
    return load_calibration(path)


def baked_model(
    wanted: Blueprint, memory: str = AUTO, keep: str = MEMORY, node_id: str | None = None
) -> tuple[Any, BakeResult]:
    """(a MODEL of the finished plan that keeps the wrappers, options and attachments of the MODEL it came from, what
    was done for it). ``memory``: what may be held while it bakes; ``keep``: where the result is kept; ``node_id``: of
    whom ``changes`` counts it when the kept file turns out to be damaged.
    """
    make = _from_file if keep == FILE else _in_memory
    fresh, result = make(wanted, memory)
    origin = host_source(wanted.plan).model
    model = fresh if origin is None else host.take_weights(origin, fresh)

    def rebuild(**options: Any) -> Any:
        return make(wanted, memory, **options)[0]

    if result.entry is not None:
        kept_file(result.entry.path, str(node_id))
    return host.sign(model, ledger_of(wanted), rebuild, result.entry), result


def _in_memory(wanted: Blueprint, memory: str, **options: Any) -> tuple[Any, BakeResult]:
    """A MODEL from tensors in memory; a small model's tensors are remembered for the next bake."""
    on_step, sink = host.progress(), StateDict()
    infos, exact = wanted.plan.base.source.tensors.values(), wanted.finish.arithmetic is not None
    memory = choose_memory(memory, infos, exact)
    with host.borrowed(device_bytes([wanted])) as free:
        device = choose_device([wanted], free)
        ((held, cost),) = hold_budgets([wanted], on_step, device, memory)
        (report,) = bake_all([BakeRequest(held, sink, again.previous(held.base_identity))], on_step, device, memory)
    again.remember(held, report, sink.tensors)
    model = host.build_model(sink.tensors, held.quantization_metadata, _dtype(held.plan), **options)
    return model, BakeResult(report, held.recipe_sha256, cost)


def _from_file(wanted: Blueprint, memory: str, **options: Any) -> tuple[Any, BakeResult]:
    """A MODEL that maps a file of the bake cache; a result that is there already is not baked again."""
    with host.borrowed(device_bytes([wanted])) as device:
        how = BakeOptions(device, memory, cache=bake_cache(), records=False)
        (result,) = bake_files([FileRequest(wanted, None)], how, host.progress())
    return host.load_baked(result.files[0], _dtype(wanted.plan), **options), result


def bake_cache() -> BakeCache:
    """Finished models on disk: in LORA_FOUNDRY_CACHE, or ComfyUI's user folder; LORA_FOUNDRY_CACHE_SIZE bounds them.

    Where the user folder is copied to other machines (Desktop keeps it in Documents) they are beside the models.
    """
    folder = os.environ.get("LORA_FOUNDRY_CACHE")
    size = parse_size(os.environ.get("LORA_FOUNDRY_CACHE_SIZE", CACHE_SIZE))
    return BakeCache(Path(folder) if folder else folders.bakes_folder(), size)


def _dtype(plan: Plan) -> torch.dtype:
    return host_source(plan).facts.dtype


def ledger_of(made: Blueprint) -> dict[str, Any]:
    """What a MODEL made here remembers of itself; plain data."""
    plan = made.plan
    fused, stacked = ([layer.lora.name for layer in plan.stage(stage)] for stage in (FUSE, STACK))
    return {
        "base": plan.base.name,
        FUSE: fused,
        STACK: [*plan.base.applied, *stacked],
        "ingredients": ingredients_json(plan),
        "recipe": {"base": made.recipe["base"], "layers": made.recipe["layers"]},
        "format": made.finish.format,
        "recipe_sha256": made.recipe_sha256,
    }


def made_reply(
    wanted: Blueprint, findings: Sequence[Finding], model: Any, result: BakeResult, **extra: Any
) -> dict[str, Any]:
    """What a node returns that made a MODEL by baking."""
    done = bake_sentence(result.report) if result.state == MADE else f"{result.state}: {bake_sentence(result.report)}"
    size = size_json(wanted, result.cost)
    return finished(wanted.plan, findings, result, (model,), done, state=result.state, size=size, **extra)


def finished(
    plan: Plan, findings: Sequence[Finding], made: BakeResult, outputs: tuple[Any, ...], done: str = "", *,
    chosen: str = "", **extra: Any,
) -> dict[str, Any]:  # fmt: skip
    """What a finishing node returns; the report text, which ends with ``done``, and the picture become the last
    outputs.

    ``chosen`` says why a format was chosen.
    """
    report, cost = made.report, made.cost
    budget = [] if cost is None else [budget_sentence(cost)]
    why = [host.why_cpu()] if report.arithmetic and host.why_cpu() else []
    told_why = [chosen] if chosen else []
    findings = (*findings, *made.findings)
    lines = [*plan_sentences(plan, findings, report.gains), *told_why, *budget, done or bake_sentence(report), *why]
    told = {**extra, **({"chosen": chosen} if chosen else {}), "budget": None if cost is None else cost.to_json()}
    baked = {**with_energy(bake_json(plan, findings, report, made.sha256), plan), **told}
    return reply((*outputs, "\n".join(lines), picture_of(baked, plan)), lines, baked)
