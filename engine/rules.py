"""Findings as pure rules over a plan. Each rule is one function; ``check`` runs them all, worst first."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from .errors import FoundryError
from .findings import Finding, stops, worst_first
from .plan import FUSE, Plan

# Typical weight error (rms over rms) of what a base may be stored as, the larger first: a file may mix them.
TYPICAL_LOSS = (
    ("float8_e5m2", "about 5.3%"),
    ("per tensor", "1.2% to 3.4%"),
    ("float8_e4m3fn without scales", "about 3.3%"),
    ("float8_e4m3fn", "about 2.65%"),
    ("per row with convrot", "about 0.9%"),
    ("per row", "0.9% to 1.4%"),
)


def wrong_order(plan: Plan) -> Iterator[Finding]:
    """LF101: LoRAs were inside the model before the base fusion (or the choice to fuse nothing)."""
    if plan.base.applied and (plan.stage(FUSE) or plan.vanilla):
        yield Finding(
            "LF101",
            "error",
            f"{', '.join(plan.base.applied)} was applied before the base fusion.",
            "A base LoRA belongs into the untouched weights; what was trained on top of it expects that state.",
            "Fuse the base LoRA first and move the other LoRAs into the stack.",
        )


def already_quantized(plan: Plan) -> Iterator[Finding]:
    """LF201: the base is quantized, LoRAs would come after quantization; a note where it is dequantized on request."""
    base = plan.base
    if base.quantized is None:
        return
    if base.dequantized:
        loss = next((share for form, share in TYPICAL_LOSS if form in base.quantized), "an unknown share")
        yield Finding(
            "LF201",
            "note",
            f"{base.name} is quantized ({base.quantized}): it is dequantized, fused, and quantized again if asked for.",
            f"What the first quantization lost stays lost, {loss} of each weight as is typical of this form; "
            "errors reported here are measured against the dequantized weights.",
            evidence="declared",
        )
        return
    yield Finding(
        "LF201",
        "error",
        f"{base.name} is already quantized ({base.quantized}).",
        "A LoRA added to 8-bit weights loses up to all of its effect or adds up to 40% weight error.",
        "Start from the bf16 or fp16 file and quantize last. If only this fp8 or int8 file exists, load it with "
        "on_quantized_base: dequantize (Load Base Model, or a document).",
    )


def file_findings(plan: Plan) -> Iterator[Finding]:
    """LF301 to LF305, found while the files were read and matched."""
    yield from plan.findings
    for layer in plan.layers:
        yield from layer.findings


RULES: tuple[Callable[[Plan], Iterator[Finding]], ...] = (wrong_order, already_quantized, file_findings)


def check(plan: Plan) -> tuple[Finding, ...]:
    """Every finding about a plan, worst first."""
    return worst_first(finding for rule in RULES for finding in rule(plan))


def raise_first(findings: Iterable[Finding], strict: bool = False) -> None:
    """Raise the worst finding as a FoundryError when it stops a run (in strict mode warnings do too)."""
    ordered = worst_first(findings)
    if stops(ordered, strict):
        worst = ordered[0]
        raise FoundryError(worst.code, worst.seen, worst.why, worst.fix)
