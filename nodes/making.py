"""Finishing a plan inside ComfyUI: bake it, make a MODEL of it, and tell what happened."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ..engine.bake import BakeReport, bake
from ..engine.findings import Finding
from ..engine.finish import Finish, quantization_metadata
from ..engine.plan import FUSE, STACK, Plan, recipe_sha256
from ..engine.report import bake_json, bake_sentence, plan_sentences
from ..engine.rules import check, raise_first
from ..loaders.checkpoints import fingerprint
from ..loaders.verify import verify
from . import host
from .common import reply


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
    return recipe_sha256(plan.recipe(finish.settings(), fingerprint(plan.base.source)))


def model_from(plan: Plan, finish: Finish, **options: Any) -> tuple[Any, BakeReport]:
    """(a fresh MODEL of the finished plan, report)."""
    sink = StateDict()
    report = bake(plan, finish, sink, host.progress(), host.compute_device())
    facts: host.ModelFacts = plan.base.source.facts  # type: ignore[attr-defined]
    return host.build_model(sink.tensors, quantization_metadata(plan, finish), facts.dtype, **options), report


def baked_model(plan: Plan, finish: Finish, sha256: str) -> tuple[Any, BakeReport]:
    """A MODEL of the finished plan that keeps the wrappers, options and attachments of the MODEL it came from."""
    fresh, report = model_from(plan, finish)
    origin = plan.base.source.model  # type: ignore[attr-defined]
    model = fresh if origin is None else host.take_weights(origin, fresh)

    def rebuild(**options: Any) -> Any:
        return model_from(plan, finish, **options)[0]

    return host.sign(model, ledger_of(plan, finish, sha256), rebuild), report


def ledger_of(plan: Plan, finish: Finish, sha256: str) -> dict[str, Any]:
    """What a MODEL made here remembers of itself; plain data."""
    fused, stacked = ([layer.lora.name for layer in plan.stage(stage)] for stage in (FUSE, STACK))
    return {
        "base": plan.base.name,
        FUSE: fused,
        STACK: [*plan.base.applied, *stacked],
        "format": finish.format,
        "recipe_sha256": sha256,
    }


def finished(
    plan: Plan,
    findings: Sequence[Finding],
    report: BakeReport,
    sha256: str,
    result: tuple[Any, ...],
    done: str = "",
    **extra: Any,
) -> dict[str, Any]:
    """What a finishing node returns; the report text, which ends with ``done``, becomes the last output."""
    lines = [*plan_sentences(plan, findings, report.gains), done or bake_sentence(report)]
    data = {**bake_json(plan, findings, report, sha256), **extra}
    return reply((*result, "\n".join(lines)), lines, data)
