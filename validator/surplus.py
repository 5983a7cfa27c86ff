"""LF103, LF105, LF106: LoRAs that are in a model and should not be: unneeded, doubled, or only meant for training."""

from __future__ import annotations

from collections.abc import Iterator

from ..engine.findings import Finding
from ..engine.lineage import (
    ACCELERATOR,
    DECLARED,
    HEAD,
    SAME,
    TRAINING_ADAPTER,
    UNDECIDED,
    UNKNOWN,
    Contained,
    Ingredient,
    Lineage,
    plain_name,
)
from ..engine.plan import FUSE, STACK
from ..engine.texts.say import say
from .around import KNOWN, Presence, cite, loras_in_model, merged_in, names, needing, say_about, severity_for, weakest
from .stacks import MATCH, Item, Stack

TWICE = {  # stages of the two -> text and severity where they are the same file
    (FUSE, FUSE): ("LF105.twice", "error"),
    (FUSE, STACK): ("LF105.fused_and_stacked", "warning"),
    (STACK, STACK): ("LF105.stacked_twice", "note"),
}


def unneeded(stack: Stack, policy: str) -> Iterator[Finding]:
    """LF103: a base LoRA below a LoRA that is known to need none.

    An accelerator is no subject of this: it is made for any base. What is inside the base file may have been there in
    training too, so only what this stack adds warns, and only where the user wants the stack as it was trained.
    """
    everything = loras_in_model(stack)
    for _, item, need in needing(stack):
        if need.ingredients or need.rival or not need.firm or item.stage == FUSE or item.lineage.role[0] == ACCELERATOR:
            continue
        dropped = dropped_by(item.lineage)
        base_loras = [each for each in everything if _is_base_lora(stack, each)]
        extra = [each for each in base_loras if not any(each.serves(other) for other in dropped)]
        if extra:
            strict = policy == MATCH and need.level == DECLARED and any(each.item is not None for each in extra)
            key, severity = "LF103.stated" if need.stated else "LF103.trained", "warning" if strict else "note"
            listed = names(each.ingredient for each in extra)
            about = {"said": cite(need.claim), "base_loras": listed}
            yield say_about(item, key, severity=severity, evidence=need.level, **about)


def _is_base_lora(stack: Stack, each: Presence) -> bool:
    """Whether a LoRA is known to be a base LoRA: fused by choice, or an accelerator inside the base or a native chain.

    A base file tells what was baked into it, not what of that was a base LoRA.
    """
    if each.stage == FUSE:
        return each.strength > 0
    return each.accelerates and each.role[1] in KNOWN and (each.item is None or stack.native)


def inside_already(stack: Stack, policy: str) -> Iterator[Finding]:
    """LF105: a LoRA that the base contains is added again. One that is subtracted takes it out, which is fine."""
    for contained in stack.contains:
        if contained.level == UNKNOWN:
            continue
        for item in stack.items:
            if item.strength > 0 and contained.ingredient.compare(item.ingredient) == SAME:
                key, about = _inside_key(contained, item), {"base": stack.base, "source": contained.source}
                yield say_about(item, key, evidence=contained.level, **about)


def _inside_key(contained: Contained, item: Item) -> str:
    """An error needs the same contents: a name may be that of another file, and an error leaves no way on."""
    if contained.level not in KNOWN:
        return "LF105.contained_guessed"
    if item.stage != FUSE:
        return "LF105.contained_stacked"
    return "LF105.contained" if contained.ingredient.shares_contents(item.ingredient) else "LF105.contained_name"


def listed_twice(stack: Stack, policy: str) -> Iterator[Finding]:
    """LF105: the same file is in the stack more than once; each is told with the first one before it."""
    items = [item for item in stack.items if item.strength]
    things = [item.ingredient for item in items]
    signs: dict[object, list[int]] = {}  # what only the same file has in common -> items with it
    for at, item in enumerate(items):
        earlier = {number for sign in _signs(things[at]) for number in signs.setdefault(sign, [])}
        for sign in _signs(things[at]):
            signs[sign].append(at)
        for number in sorted(earlier):
            other = items[number]
            if item.strength * other.strength < 0:
                continue
            same = _same_file(things[number], things[at])
            if same:
                yield _twice(other, item)
            elif same is None and FUSE in (item.stage, other.stage):
                yield say_about(item, "LF105.same_name", evidence="guessed", other=other.name)
            if same is not False:
                break


def _signs(thing: Ingredient) -> tuple[object, ...]:
    """Of two LoRAs that are the same file at least one is the same: an id, the plain name, the shapes of the sketch."""
    shapes = tuple(row[:HEAD] for row in thing.sketch)
    return (*thing.ids, f"name:{plain_name(thing.name)}", *((shapes,) if shapes else ()))


def _same_file(one: Ingredient, other: Ingredient) -> bool | None:
    """Whether two LoRAs of a stack are one file; None where only names are known and just their folders differ.

    Files of one name in two folders are two LoRAs where their contents differ.
    """
    unread = not (one.ids and other.ids)
    if one.shares_contents(other) or (unread and one.name == other.name):
        return True
    return None if one.compare(other) == SAME else False


def _twice(first: Item, second: Item) -> Finding:
    low, high = sorted((first, second), key=lambda item: item.stage != FUSE)
    key, severity = TWICE[low.stage, high.stage]
    values = {"first": f"{low.strength:g}", "second": f"{high.strength:g}"}
    if key == "LF105.stacked_twice":
        values["sum"] = f"{low.strength + high.strength:g}"
    return say_about(second, key, severity=severity, **values)


def left_in(stack: Stack, policy: str) -> Iterator[Finding]:
    """LF106: what a LoRA was only trained with, and training adapters as such, are in the model."""
    told: set[int | None] = set()
    everything = loras_in_model(stack)
    for at, item in enumerate(stack.items):
        wanted = dropped_by(item.lineage) if item.strength else ()
        for each in everything if wanted else ():
            if each.item != at and any(each.serves(other) for other in wanted):
                told.add(each.item)
                yield _dropped(item, each)
    for each in everything:
        if each.item not in told and each.strength > 0:
            yield from _adapter(stack, each)


def dropped_by(lineage: Lineage) -> tuple[Ingredient, ...]:
    """What it was trained with and is to be used without; nothing where sources disagree or names decide nothing."""
    trained, used = lineage.trained, lineage.used
    if trained is None or used is None or any(lineage.conflicts()) or any(lineage.conflicts("use_with")):
        return ()
    # Names that differ in one source mean two files; in two sources they may mean one.
    kept = (SAME,) if trained is used else (SAME, UNDECIDED)
    with_, use = trained.trained_with or (), used.use_with or ()
    return tuple(each for each in with_ if not any(each.compare(other) in kept for other in use))


def _dropped(item: Item, each: Presence) -> Finding:
    claims = [claim for claim in (item.lineage.trained, item.lineage.used) if claim]
    level = weakest(each.level, *(claim.evidence.level for claim in claims))
    about = {"base_lora": each.ingredient.name, "said": cite(claims[-1])}
    return say_about(item, "LF106.dropped", severity=severity_for(level in KNOWN), evidence=level, **about)


def _adapter(stack: Stack, each: Presence) -> Iterator[Finding]:
    role, level = each.role
    if role != TRAINING_ADAPTER or any(need.includes(each.ingredient) for _, _, need in needing(stack)):
        return
    key = "LF106.adapter" if level in KNOWN else "LF106.adapter_guessed"
    name = each.ingredient.name
    yield say(key, evidence=level, subject=name, node=each.node, lora=name)


def merged_and_listed(stack: Stack, policy: str) -> Iterator[Finding]:
    """LF105: a LoRA that was merged into one of the stack is in the model a second time: by itself, or merged too."""
    inside = [each for each in loras_in_model(stack) if each.item is None]
    listed = [Presence(item.ingredient, item=number) for number, item in enumerate(stack.items) if item.strength]
    before: list[Presence] = []
    for at, item in enumerate(stack.items):
        merged = list(merged_in(at, item)) if item.strength else []
        others = [each for each in (*inside, *listed, *before) if each.item != at]
        for inner in merged:
            for each in others:
                if each.ingredient.compare(inner.ingredient) == SAME and each.strength * inner.strength > 0:
                    yield _merged_twice(stack, item, inner, each)
        before += merged


def _merged_twice(stack: Stack, item: Item, inner: Presence, other: Presence) -> Finding:
    level = weakest(inner.level, other.level)
    return say(
        "LF105.merged", severity=severity_for(level in KNOWN), evidence=level, subject=item.name, node=item.node,
        merged=item.name, lora=inner.ingredient.name, strength=f"{inner.strength:g}",
        where=stack.base if other.item is None else stack.items[other.item].name,
    )  # fmt: skip


RULES = (unneeded, inside_already, listed_twice, left_in, merged_and_listed)
