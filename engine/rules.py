"""Findings as pure rules: over a plan, and over a stack, whoever made it. Each rule is one function of a table."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from . import rules_base, rules_surplus, rules_use
from .errors import FoundryError
from .findings import Finding, stops, worst_first
from .plan import FUSE, Plan
from .stacks import ALLOW, Sampling, Stack, stack_of
from .texts import say

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
        yield say("LF101.applied", loras=", ".join(plan.base.applied))


def already_quantized(plan: Plan) -> Iterator[Finding]:
    """LF201: the base is quantized, LoRAs would come after quantization; a note where it is dequantized on request."""
    base = plan.base
    if base.quantized is None:
        return
    if base.dequantized:
        loss = next((share for form, share in TYPICAL_LOSS if form in base.quantized), "an unknown share")
        values = {"base": base.name, "quantized": base.quantized, "loss": loss}
        yield say("LF201.dequantized", evidence="declared", **values)
    else:
        yield say("LF201.base", base=base.name, quantized=base.quantized)


def file_findings(plan: Plan) -> Iterator[Finding]:
    """LF301 to LF305, found while the files were read and matched."""
    yield from plan.findings
    for layer in plan.layers:
        yield from layer.findings


def natively_quantized(stack: Stack, policy: str) -> Iterator[Finding]:
    """LF201: ComfyUI's own loaders put LoRAs onto a quantized base. It runs, so it is no error; GGUF costs time."""
    loras = [item for item in stack.items if item.strength]
    if stack.native and stack.quantized and not stack.dequantized and loras:
        key = "LF201.gguf" if stack.quantized.startswith("GGUF") else "LF201.native"
        values = {"base": stack.base, "quantized": stack.quantized, "loras": ", ".join(item.name for item in loras)}
        yield say(key, subject=stack.base, node=loras[0].node, **values)


PLAN_RULES: tuple[Callable[[Plan], Iterator[Finding]], ...] = (wrong_order, already_quantized, file_findings)
STACK_RULES: tuple[Callable[[Stack, str], Iterator[Finding]], ...] = (
    natively_quantized,
    *rules_base.RULES,
    *rules_surplus.RULES,
    *rules_use.RULES,
)


def check(plan: Plan, policy: str = ALLOW, sampling: tuple[Sampling, ...] = ()) -> tuple[Finding, ...]:
    """Every finding about a plan, worst first. ``policy`` is one of ``stacks.POLICIES``."""
    found = [finding for rule in PLAN_RULES for finding in rule(plan)]
    return worst_first([*found, *check_stack(stack_of(plan, sampling), policy)])


def check_stack(stack: Stack, policy: str = ALLOW) -> tuple[Finding, ...]:
    """Every finding about a stack, worst first: those that need no plan."""
    return worst_first(finding for rule in STACK_RULES for finding in rule(stack, policy))


def raise_first(findings: Iterable[Finding], strict: bool = False) -> None:
    """Raise the worst finding as a FoundryError when it stops a run (in strict mode warnings do too)."""
    ordered = worst_first(findings)
    if stops(ordered, strict):
        worst = ordered[0]
        raise FoundryError(worst.code, worst.seen, worst.why, worst.fix)
