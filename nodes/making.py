"""Finishing a plan inside ComfyUI: bake it, make a MODEL of it, and tell what happened."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ..engine.bake import BakeReport, bake_all
from ..engine.budget import Cost, Nowhere, check_budget, within
from ..engine.findings import Finding
from ..engine.finish import Finish, quantization_metadata
from ..engine.guard import raise_first
from ..engine.ingredients import ingredients_json
from ..engine.job import Order
from ..engine.memory import AUTO, MODES
from ..engine.plan import FUSE, STACK, Plan, recipe_sha256
from ..engine.report import bake_json, bake_sentence, budget_sentence, plan_sentences
from ..engine.reuse import tensor_keys
from ..loaders.bakes.baking import MADE, Baked, How, Wanted, bake_files
from ..loaders.bakes.cache import BakeCache, Entry
from ..loaders.disk.sharding import parse_size
from ..loaders.disk.source import base_fingerprint
from ..loaders.loras.verify import verify
from ..validator.rules import check
from . import again, folders, host
from .common import reply

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
KEEP = (
    [MEMORY, FILE],
    {
        "default": MEMORY,
        "tooltip": "file: bake to a cache on disk that ComfyUI maps. The same plan is found there again, and a changed "
        "strength redoes only what it touches.",
    },
)


@dataclass(frozen=True)
class Settings:
    """How a MODEL is made: what may be held while it bakes, and where the result is kept."""

    memory: str = AUTO
    keep: str = MEMORY


@dataclass(frozen=True)
class Made:
    """A MODEL, the report of its bake, what an error budget cost, whether it was there already, and its cached file."""

    model: Any
    report: BakeReport
    cost: Cost | None = None
    state: str = MADE
    entry: Entry | None = None


class StateDict:
    """A sink that keeps the finished tensors in memory."""

    def __init__(self) -> None:
        self.tensors: dict[str, torch.Tensor] = {}

    def write(self, name: str, tensor: torch.Tensor) -> None:
        """Keep one tensor on the CPU."""
        self.tensors[name] = tensor.to("cpu")


def ready(plan: Plan) -> tuple[Finding, ...]:
    """All findings of a plan that is about to be finished; raises the first error, before any weight is read."""
    findings = (*check(plan), *verify(plan))
    raise_first(findings)
    return findings


def recipe_hash(plan: Plan, finish: Finish) -> str:
    """Hash of everything the result depends on."""
    return recipe_sha256(plan.recipe(finish.settings(), base_fingerprint(plan.base.source)))


def baked_model(plan: Plan, finish: Finish, settings: Settings = Settings()) -> Made:
    """A MODEL of the finished plan that keeps the wrappers, options and attachments of the MODEL it came from."""
    check_budget(finish.max_error, finish)
    make = _from_file if settings.keep == FILE else _in_memory
    made = make(plan, finish, settings)
    origin = plan.base.source.model  # type: ignore[attr-defined]
    model = made.model if origin is None else host.take_weights(origin, made.model)

    def rebuild(**options: Any) -> Any:
        return make(plan, finish, settings, **options).model

    record = ledger_of(plan, finish, recipe_hash(plan, finish))
    return replace(made, model=host.sign(model, record, rebuild, made.entry))


def _in_memory(plan: Plan, finish: Finish, settings: Settings, **options: Any) -> Made:
    """A MODEL from tensors in memory; a small model's tensors are remembered for the next bake."""
    step, device = host.progress(), host.compute_device()
    cost = None
    if finish.max_error is not None:
        (measured,) = bake_all([Order(plan, finish, Nowhere())], step, device, settings.memory)
        finish, cost = within(plan, finish, finish.max_error, measured.measures)
    identity, sink = again.identity_of(plan), StateDict()
    keys = tensor_keys(plan, finish, identity)
    order = Order(plan, finish, sink, again.previous(identity), keys)
    (report,) = bake_all([order], step, device, settings.memory)
    again.remember(identity, keys, report, sink.tensors)
    model = host.build_model(sink.tensors, quantization_metadata(plan, finish), _dtype(plan), **options)
    return Made(model, report, cost)


def _from_file(plan: Plan, finish: Finish, settings: Settings, **options: Any) -> Made:
    """A MODEL that maps a file of the bake cache; a result that is there already is not baked again."""
    how = How(host.compute_device(), settings.memory, cache=bake_cache(), records=False)
    baked: Baked = bake_files([Wanted(plan, finish, None)], how, host.progress())[0]
    model = host.load_baked(baked.files[0], _dtype(plan), **options)
    return Made(model, baked.report, baked.cost, baked.state, baked.entry)


def bake_cache() -> BakeCache:
    """Finished models on disk: in LORA_FOUNDRY_CACHE, or ComfyUI's user folder; LORA_FOUNDRY_CACHE_SIZE bounds them."""
    folder = os.environ.get("LORA_FOUNDRY_CACHE")
    size = parse_size(os.environ.get("LORA_FOUNDRY_CACHE_SIZE", CACHE_SIZE))
    return BakeCache(Path(folder) if folder else folders.user_folder() / "bakes", size)


def _dtype(plan: Plan) -> torch.dtype:
    facts: host.ModelFacts = plan.base.source.facts  # type: ignore[attr-defined]
    return facts.dtype


def ledger_of(plan: Plan, finish: Finish, sha256: str) -> dict[str, Any]:
    """What a MODEL made here remembers of itself; plain data."""
    fused, stacked = ([layer.lora.name for layer in plan.stage(stage)] for stage in (FUSE, STACK))
    return {
        "base": plan.base.name,
        FUSE: fused,
        STACK: [*plan.base.applied, *stacked],
        "ingredients": ingredients_json(plan),
        "format": finish.format,
        "recipe_sha256": sha256,
    }


def made_reply(plan: Plan, findings: Sequence[Finding], made: Made, sha256: str, **extra: Any) -> dict[str, Any]:
    """What a node returns that made a MODEL by baking."""
    done = bake_sentence(made.report) if made.state == MADE else f"{made.state}: {bake_sentence(made.report)}"
    return finished(plan, findings, made.report, sha256, (made.model,), done, made.cost, state=made.state, **extra)


def finished(
    plan: Plan,
    findings: Sequence[Finding],
    report: BakeReport,
    sha256: str,
    result: tuple[Any, ...],
    done: str = "",
    cost: Cost | None = None,
    **extra: Any,
) -> dict[str, Any]:
    """What a finishing node returns; the report text, which ends with ``done``, becomes the last output."""
    budget = [] if cost is None else [budget_sentence(cost)]
    lines = [*plan_sentences(plan, findings, report.gains), *budget, done or bake_sentence(report)]
    data = {**bake_json(plan, findings, report, sha256), **extra, "budget": None if cost is None else cost.to_json()}
    return reply((*result, "\n".join(lines)), lines, data)
