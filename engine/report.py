"""A plan and its bake told twice: as JSON for programs, as sentences for people; the same in node and terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import cast

from .bake import BakeReport
from .budget import Cost
from .findings import Finding
from .json_bake import BakedJSON
from .json_types import (
    BaseJSON,
    BlocksJSON,
    CheckJSON,
    DocumentJSON,
    LoRAJSON,
    MeasuredJSON,
    ModelJSON,
    PlannedJSON,
    ReportJSON,
)
from .lineage import Lineage, summary
from .memory import AUTO
from .needs import working_bytes
from .plan import MATCH_TRAINING, Layer, Plan
from .terms import effective_scale

SCHEMA = 1  # of a plan's and a bake's JSON; raised when what it holds changes its meaning
CHECK_SCHEMA = 2  # of what a check tells


def layer_json(layer: Layer, gain: float | None = None) -> PlannedJSON:
    """One LoRA of a plan: what it is, how strong, how much of it matched, how much of it survived."""
    scales = [effective_scale(layer, patch) for patch in layer.patches]
    blocks: BlocksJSON = {"blocks": layer.blocks} if layer.blocks else {}
    return {
        "path": layer.path or layer.lora.name,
        "sha256": layer.lora.sha256,
        "stage": layer.stage,
        "weight": layer.strength,
        **blocks,
        "rounding": layer.rounding,
        "dialect": layer.lora.dialect,
        "family": layer.lora.family,
        **layer.coverage.to_json(),
        "scale": [min(scales), max(scales)] if scales else None,
        "gain": gain,
        "lineage": summary(layer.lineage),
    }


def layers_json(plan: Plan, gains: Sequence[float | None] = ()) -> list[PlannedJSON]:
    """Every LoRA of a plan, in order, with its gain where a bake measured one."""
    padded = [*gains, *[None] * (len(plan.layers) - len(gains))]
    return [layer_json(layer, gain) for layer, gain in zip(plan.layers, padded, strict=True)]


def measured_json(plan: Plan, gains: Sequence[float | None] = ()) -> list[MeasuredJSON]:
    """The same, for who may add what was measured."""
    return cast(list[MeasuredJSON], layers_json(plan, gains))


def base_json(plan: Plan) -> BaseJSON:
    """The base of a plan."""
    inside = [contained.ingredient.name for contained in plan.base.contains]
    return {"name": plan.base.name, "family": plan.base.family, "vanilla": plan.vanilla, "contains": inside}


def plan_json(plan: Plan, findings: Iterable[Finding]) -> ReportJSON:
    """What the Stack Validator shows: base, LoRAs, findings."""
    return {
        "schema": SCHEMA,
        "base": base_json(plan),
        "loras": measured_json(plan),
        "findings": [finding.to_json() for finding in findings],
        "memory_bytes": working_bytes(plan, AUTO),
    }


def check_json(ok: bool, findings: Iterable[Finding], models: list[ModelJSON]) -> CheckJSON:
    """What a check tells, of documents and workflows alike."""
    told = [finding.to_json() for finding in findings]
    return {"schema": CHECK_SCHEMA, "ok": ok, "findings": told, "models": models}


def document_json(plan: Plan, findings: Iterable[Finding], ok: bool) -> DocumentJSON:
    """What the check of a document tells; ``base`` and ``loras`` stay for who reads those."""
    base, planned = base_json(plan), layers_json(plan)
    rows: list[LoRAJSON] = [{"node": None, **row, "blocks": row.get("blocks", "")} for row in planned]
    model: ModelJSON = {"base": base, "sampling": None, "loras": rows}
    memory = working_bytes(plan, AUTO)
    return {**check_json(ok, findings, [model]), "base": base, "loras": planned, "memory_bytes": memory}


def bake_json(plan: Plan, findings: Iterable[Finding], report: BakeReport, sha256: str) -> BakedJSON:
    """What a bake shows: the plan, the counts, the gains and the recipe hash."""
    return {
        **plan_json(plan, findings),
        "loras": measured_json(plan, report.gains),
        **report.to_json(),
        "recipe_sha256": sha256,
    }


def layer_sentence(layer: Layer, gain: float | None = None) -> str:
    """``1 fuse: lightning.safetensors x 1.0, 720 of 720 modules, scale 0.125, 100.0% kept``."""
    verb = "fused" if layer.stage == "fuse" else "stacked"
    parts = [
        f"{verb} {layer.lora.name} x {layer.strength:g}: {layer.coverage.matched} of {layer.coverage.modules} modules"
    ]
    scales = sorted({effective_scale(layer, patch) for patch in layer.patches})
    if scales:
        span = f"{scales[0]:g}" if scales[0] == scales[-1] else f"{scales[0]:g} to {scales[-1]:g}"
        parts.append(f"effective scale {span}")
    if layer.blocks:
        parts.append(f"blocks {layer.blocks}")
    if layer.rounding == MATCH_TRAINING:
        parts.append("rounded as in training")
    if gain is not None:
        parts.append(f"{gain:.1%} of the effect kept")
    if known := lineage_words(layer.lineage):
        parts.append(known)
    return ", ".join(parts)


def lineage_words(lineage: Lineage) -> str:
    """``trained with lightning.safetensors (declared)``; empty where nothing is known."""
    claim = lineage.trained
    if claim is None:
        return ""
    names = ", ".join(each.name for each in claim.trained_with or ()) or "no base LoRA"
    return f"trained with {names} ({claim.evidence.level})"


def plan_sentences(plan: Plan, findings: Iterable[Finding], gains: Sequence[float | None] = ()) -> list[str]:
    """The plan as lines of text, findings first."""
    lines = [finding.sentence() for finding in findings] or ["No findings."]
    family = plan.base.family or "unknown family"
    inside = ", ".join(contained.ingredient.name for contained in plan.base.contains)
    told = (f", {inside} inside" if inside else "") + (", no base LoRA by choice" if plan.vanilla else "")
    lines.append(f"base {plan.base.name} ({family}){told}")
    padded = [*gains, *[None] * (len(plan.layers) - len(gains))]
    return lines + [layer_sentence(layer, gain) for layer, gain in zip(plan.layers, padded, strict=True)]


def budget_sentence(cost: Cost) -> str:
    """What an error budget kept in high precision, and what that costs."""
    if not cost.kept:
        return f"error budget {cost.max_error:.2%}: held at {cost.error_without:.2%} with every layer quantized"
    worst = ", ".join(cost.kept[:3]) + (f" and {len(cost.kept) - 3} more" if len(cost.kept) > 3 else "")
    return (
        f"error budget {cost.max_error:.2%} (without it {cost.error_without:.2%}): {len(cost.kept)} layers stay in "
        f"high precision for {cost.extra_bytes / 1e6:.1f} MB more: {worst}"
    )


def bake_sentence(report: BakeReport) -> str:
    """``12 of 40 tensors changed, 10 quantized, weights off by 2.65% (31.5 dB), 3.2 MB read, ...``."""
    reused = f"{report.reused} taken over, " if report.reused else ""
    factors = sorted(report.driven.values())
    span = " to ".join(dict.fromkeys(f"{each:.2f}" for each in factors[:: max(1, len(factors) - 1)]))
    driven = f"LoRAs driven by {span} in {len(factors)} of them, " if factors else ""
    judged = f"outputs of {report.by_outputs} weights and the others" if report.by_outputs else "weights"
    error = "" if report.sqnr_db is None else f"{judged} off by {report.relative_error:.2%} ({report.sqnr_db:.1f} dB), "
    return (
        f"{report.touched} of {report.tensors} tensors changed, {report.quantized} quantized, {reused}{driven}{error}"
        f"{report.bytes_read / 1e6:.1f} MB read, {report.bytes_written / 1e6:.1f} MB written, {report.seconds:.1f} s"
        + (f", {report.arithmetic}" if report.arithmetic else "")
    )
