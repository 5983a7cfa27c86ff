"""Findings as pure rules: over a plan, and over a stack, whoever made it. Each rule is one function of a table."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ..engine.findings import Finding, worst_first
from ..engine.guard import already_quantized
from ..engine.plan import FUSE, Plan
from ..engine.smoothed import PRE_QUANT_SCALE
from ..engine.texts.say import listed, say
from . import base_loras as rules_base
from . import surplus as rules_surplus
from . import use as rules_use
from . import variants as rules_variants
from .stacks import ALLOW, Sampling, Stack, stack_of

FOUR_BITS = {"nvfp4": "LF201.nvfp4", "w4a8": "LF201.w4a8"}  # by how such a base's description begins


def wrong_order(plan: Plan) -> Iterator[Finding]:
    """LF101: LoRAs were inside the model before the base fusion (or the choice to fuse nothing)."""
    if plan.base.applied and (plan.stage(FUSE) or plan.vanilla):
        yield say("LF101.applied", loras=", ".join(plan.base.applied))


def file_findings(plan: Plan) -> Iterator[Finding]:
    """LF301 to LF305, found while the files were read and matched."""
    yield from plan.findings
    for layer in plan.layers:
        yield from layer.findings


def natively_quantized(stack: Stack, policy: str) -> Iterator[Finding]:
    """LF201: ComfyUI's own loaders put LoRAs onto a quantized base. It runs, so it is no error; GGUF costs time.

    Scales and stochastic rounding keep the effect; a LoRA that was distilled on these very weights is where it belongs.
    Under a ``pre_quant_scale`` the effect is another one: that is an error.
    """
    loras = [item for item in stack.items if item.strength and not rules_variants.made_on(item, stack)]
    if stack.native and stack.quantized and not stack.dequantized and loras:
        gguf = stack.quantized.startswith("GGUF")
        coarse = FOUR_BITS.get(stack.quantized.partition(" ")[0], "LF201.native")
        coarse = "LF201.smoothed" if PRE_QUANT_SCALE in stack.quantized else coarse
        key = "LF201.gguf" if gguf else "LF201.scaled" if stack.scaled else coarse
        values = {"base": stack.base, "quantized": stack.quantized, "loras": listed([item.name for item in loras])}
        yield say(key, subject=stack.base, node=loras[0].node, **values)


PLAN_RULES: tuple[Callable[[Plan], Iterator[Finding]], ...] = (wrong_order, already_quantized, file_findings)
STACK_RULES: tuple[Callable[[Stack, str], Iterator[Finding]], ...] = (
    natively_quantized,
    *rules_base.RULES,
    *rules_surplus.RULES,
    *rules_use.RULES,
    *rules_variants.RULES,
)


def check(plan: Plan, policy: str = ALLOW, sampling: tuple[Sampling, ...] = ()) -> tuple[Finding, ...]:
    """Every finding about a plan, worst first. ``policy`` is one of ``stacks.POLICIES``."""
    found = [finding for rule in PLAN_RULES for finding in rule(plan)]
    return worst_first([*found, *check_stack(stack_of(plan, sampling), policy)])


def check_stack(stack: Stack, policy: str = ALLOW) -> tuple[Finding, ...]:
    """Every finding about a stack, worst first: those that need no plan."""
    return worst_first(finding for rule in STACK_RULES for finding in rule(stack, policy))
