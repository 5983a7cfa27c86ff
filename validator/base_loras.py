"""LF101, LF102, LF104: whether the base LoRAs that others need are there, below them, and as they were in training.

Only known evidence warns, a guess asks, and of a LoRA of which nobody says anything nothing is said.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..engine.findings import Finding
from ..engine.lineage import QUALITY, STYLE, SUBJECT, SUBTLE, UNDECIDED, UNKNOWN, Claim, Ingredient, plain_name
from ..engine.plan import FUSE
from ..engine.texts.say import listed, say
from .around import (
    BELOW,
    CLOSE,
    FUSED,
    INSIDE,
    KNOWN,
    MEASURED,
    OVER,
    Presence,
    Requirement,
    alike,
    cite,
    loras_in_model,
    merged_in,
    names,
    needing,
    position_of,
    requirement_of,
    say_about,
    severity_for,
    weakest,
)
from .stacks import Item, Stack

USUAL = (STYLE, SUBJECT, QUALITY, SUBTLE, UNKNOWN)  # roles of what goes on top of an accelerator
SHARE = 0.01  # shares of fused modules that differ by less are the same
DTYPES = {"bf16": "bfloat16", "fp16": "float16", "half": "float16", "fp32": "float32", "float": "float32"}
ORDER = {  # (native and applied after, works on the values of the weights) -> text, severity by known evidence
    (False, False): ("LF101.beside", "note"),
    (False, True): ("LF101.beside_dependent", "warning"),
    (True, False): ("LF101.after_trained", "warning"),
    (True, True): ("LF101.after_dependent", "error"),
}


def needs_met(stack: Stack, policy: str) -> Iterator[Finding]:
    """LF102 and LF104, and LF101 where a needed LoRA is there but not below: for each LoRA of which somebody says."""
    everything = loras_in_model(stack)
    for at, item, need in needing(stack):
        if need.rival:
            yield _conflict(item, need, need.rival)
            continue
        near, own = [each for each in everything if each.item != at], tuple(merged_in(at, item))
        for wanted in need.ingredients:
            if any(each.serves(wanted) for each in own):
                continue  # it was merged with what it needs
            found = [each for each in near if each.serves(wanted)]
            if not found:
                yield _missing(stack, at, need, wanted, near)
            if len(found) == 1:  # more than one is LF105
                yield from _differences(item, need, wanted, found[0])
            places = [position_of(stack, at, each) for each in found]
            if places and not set(places) & BELOW:
                yield _not_below(item, need, found[0], places[0])


def _conflict(item: Item, need: Requirement, rival: Claim) -> Finding:
    """LF102: two sources that are equally well known contradict each other. Shown, never resolved."""
    second = rival.use_with if need.stated else rival.trained_with
    values = {"first": names(need.ingredients), "second": names(second or ()), "other_said": cite(rival)}
    return _told("LF102.conflict", item, need, "question", **values)


def _told(key: str, item: Item, need: Requirement, severity: str, level: str = "", **values: str) -> Finding:
    """A finding about what one LoRA needs, by the word of its claim."""
    return say_about(item, key, severity=severity, evidence=level or need.level, said=cite(need.claim), **values)


def _missing(stack: Stack, at: int, need: Requirement, wanted: Ingredient, near: list[Presence]) -> Finding:
    """LF102, or LF104 where another LoRA takes the place of the one that is missing."""
    item, severity = stack.items[at], severity_for(need.firm)
    spare = [each for each in near if not need.includes(each.ingredient)]
    for each in spare:
        below = position_of(stack, at, each) in (INSIDE, FUSED) or each.accelerates
        if below and wanted.compare(each.ingredient) == UNDECIDED:
            values = {"base_lora": wanted.name, "other": each.ingredient.name}
            return _told("LF104.undecided", item, need, "question", **values)
    for each in spare:
        if each.stage == FUSE or (each.accelerates and each.level in KNOWN):
            return _another(item, need, wanted, each.ingredient)
    return _told(_missing_key(stack, need), item, need, severity, base_lora=wanted.name)


def _another(item: Item, need: Requirement, wanted: Ingredient, other: Ingredient) -> Finding:
    """LF104: another LoRA where the needed one belongs, be it a file of the same name."""
    severity = severity_for(need.firm)
    if plain_name(wanted.name) == plain_name(other.name):
        return _told("LF104.contents", item, need, severity, base_lora=wanted.name)
    return _told("LF104.another", item, need, severity, base_lora=wanted.name, other=other.name)


def _missing_key(stack: Stack, need: Requirement) -> str:
    """Which words say that a base LoRA is missing."""
    if need.level not in KNOWN:
        return "LF102.guessed"
    if need.ask:
        return "LF102.ask"
    if need.stated:
        return "LF102.stated"
    return "LF102.vanilla" if stack.vanilla else "LF102.missing"


def _differences(item: Item, need: Requirement, wanted: Ingredient, found: Presence) -> Iterator[Finding]:
    """LF104: the needed LoRA at another strength, on another share of its modules, or fused in another dtype."""
    level = weakest(need.level, found.level)
    severity = severity_for(need.firm and level in KNOWN)
    then, now = wanted, found.ingredient
    close = MEASURED if found.item is None else CLOSE
    if None not in (then.strength, now.strength) and not alike(found.strength, then.strength or 0.0, close):
        values = {"base_lora": wanted.name, "then": f"{then.strength:g}", "now": f"{now.strength:g}"}
        yield _told("LF104.strength", item, need, severity, level, **values)
    shares = [matched / modules for matched, modules in (then.coverage or (0, 0), now.coverage or (0, 0)) if modules]
    if len(shares) == 2 and abs(shares[0] - shares[1]) > SHARE:
        values = {"base_lora": wanted.name, "then": _of(then.coverage), "now": _of(now.coverage)}
        yield _told("LF104.coverage", item, need, severity, level, **values)
    if then.dtype and now.dtype and _dtype(then.dtype) != _dtype(now.dtype):
        values = {"base_lora": wanted.name, "then": then.dtype, "now": now.dtype}
        yield _told("LF104.dtype", item, need, "note", level, **values)


def _of(coverage: tuple[int, int] | None) -> str:
    return "{} of {}".format(*coverage or (0, 0))


def _dtype(name: str) -> str:
    bare = name.lower().removeprefix("torch.")
    return DTYPES.get(bare, bare)


def _not_below(item: Item, need: Requirement, found: Presence, where: str) -> Finding:
    """LF101: the needed LoRA is in the stack, but not below the one that needs it.

    The numbers change for a LoRA that works on the values of the weights. Native loaders run one after the other, so
    there the order was somebody's choice and warns; all LoRAs of one of our stages see the same weights.
    """
    key, known = ORDER[where == OVER, item.dependent]
    severity = severity_for(need.firm, known, "question" if item.dependent else "note")
    return _told(key, item, need, severity, base_lora=found.ingredient.name)


def late_accelerator(stack: Stack, policy: str) -> Iterator[Finding]:
    """LF101: native loaders put an accelerator on top of LoRAs of which nobody says what they need."""
    if not stack.native:
        return
    for late in loras_in_model(stack):
        if late.item is None or not late.accelerates:
            continue
        earlier = [each for each in stack.items[: late.item] if each.strength and _style_like(each)]
        if earlier:
            yield say(
                "LF101.after", evidence=late.role[1], subject=late.ingredient.name, node=late.node,
                base_lora=late.ingredient.name, loras=listed([each.name for each in earlier]),
            )  # fmt: skip


def _style_like(item: Item) -> bool:
    """Whether a LoRA may have been trained on anything: no helper of any kind, and nobody says what it needs."""
    return item.lineage.role[0] in USUAL and requirement_of(item.lineage) is None


RULES = (needs_met, late_accelerator)
