"""LF104 and LF303 by names: LoRAs for the other noise, the other task or another version than the base's. They ask."""

from __future__ import annotations

from collections.abc import Iterator

from ..engine.findings import Finding
from ..engine.lineage import ACCELERATOR
from ..engine.texts.say import say
from .around import KNOWN, severity_for
from .stacks import Item, Stack


def other_variant(stack: Stack, policy: str) -> Iterator[Finding]:
    """Each aspect in which a LoRA's name and the base contradict each other; what one of them does not say fits."""
    for item in stack.items:
        if item.strength:
            yield from _noise(stack, item)
            yield from _task(stack, item)
            yield from _version(stack, item)


def _noise(stack: Stack, item: Item) -> Iterator[Finding]:
    if _differ(item.variant.noise, stack.variant.noise):
        yield _asked("LF104.noise", stack, item, item.variant.noise, stack.variant.noise)


def _task(stack: Stack, item: Item) -> Iterator[Finding]:
    """A LoRA of Wan 2.1 on a Wan 2.2 of the other task is used on purpose, and let be."""
    if item.variant.version == stack.variant.version != "" and _differ(item.variant.task, stack.variant.task):
        yield _asked("LF303.task", stack, item, item.variant.task, stack.variant.task)


def _version(stack: Stack, item: Item) -> Iterator[Finding]:
    """Styles are put on other versions on purpose; an accelerator is distilled from one."""
    if item.lineage.role[0] == ACCELERATOR and _differ(item.variant.version, stack.variant.version):
        yield _asked("LF104.version", stack, item, item.variant.version, stack.variant.version)


def made_on(item: Item, stack: Stack) -> bool:
    """Whether a LoRA was distilled on fp8 weights without scales, and gets such."""
    known = item.lineage.accelerator
    return bool(
        known and known.made_on and "fp8" in (stack.quantized or "").replace("float8", "fp8") and not stack.scaled
    )


def on_other_weights(stack: Stack, policy: str) -> Iterator[Finding]:
    """LF104: a LoRA that was distilled on 8-bit weights, on a base of 16 bits."""
    for item in stack.items:
        known = item.lineage.accelerator
        if stack.whole and item.strength and known and known.made_on:
            values = {"lora": item.name, "base": stack.base, "then": known.made_on}
            severity = severity_for(known.level in KNOWN)
            about = {"evidence": known.level, "subject": item.name, "node": item.node}
            yield say("LF104.weights", severity=severity, **about, **values)


def _differ(one: str, other: str) -> bool:
    return bool(one and other) and one != other


def _asked(key: str, stack: Stack, item: Item, then: str, now: str) -> Finding:
    values = {"lora": item.name, "base": stack.base, "then": then, "now": now}
    return say(key, evidence="guessed", subject=item.name, node=item.node, **values)


RULES = (other_variant, on_other_weights)
