"""LF401, LF403: strengths other than recommended, accelerators beside each other, steps and CFG that do not fit one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..engine.findings import EVIDENCE, Finding
from ..engine.lineage import ACCELERATOR, QUALITY, SAME, STYLE, SUBJECT, SUBTLE, Accelerator, Lineage
from ..engine.texts.say import listed, say
from .around import (
    KNOWN,
    Presence,
    alike,
    cite,
    loras_in_model,
    needing,
    requirement_of,
    say_about,
    severity_for,
    weakest,
)
from .stacks import Item, Sampling, Stack

Span = tuple[float, float]
USUAL = {SUBJECT: (0.8, 1.0), STYLE: (0.5, 0.7), QUALITY: (0.3, 0.5), SUBTLE: (0.2, 0.4)}  # strengths by role
FAR = 2.0  # beyond, a strength is told whatever the LoRA is for
MORE = 2  # times the steps it is made for: ordinary practice, slower and no worse
SLACK = 1e-3  # a strength that is off by less is inside
PART = 0.3  # a distillation used by so little leaves the model its own steps and CFG: LTX-2.3's publisher takes 0.25
ANY_STEPS = 1000  # the most that a publisher is said to allow: such a LoRA spares the second pass of CFG, and no steps
TUNED = 0.2  # a CFG that is off by less is somebody's fine tuning


def strengths(stack: Stack, policy: str) -> Iterator[Finding]:
    """LF401: by the word of its maker, else of its publisher, else as is usual for its kind; past 2 for any kind.

    A strength that another LoRA was trained with is right, whatever else is recommended.
    """
    fitted = [wanted for _, _, need in needing(stack) for wanted in need.ingredients if wanted.strength is not None]
    for item in stack.items:
        same = (wanted for wanted in fitted if wanted.compare(item.ingredient) == SAME)
        if item.strength and not any(alike(item.strength, wanted.strength or 0.0) for wanted in same):
            yield from _strength(item)


def usual_strength(lineage: Lineage) -> Span | None:
    """The strengths its maker or its publisher recommends, or that are usual for its kind; None where nobody says."""
    found = next(_advice(lineage), None)
    return found[0] if found else None


def _advice(lineage: Lineage) -> Iterator[tuple[Span, str, str, dict[str, str]]]:
    """(strengths, text of the finding, evidence, its values), the best first."""
    claim, known, (role, level) = lineage.recommended, lineage.accelerator, lineage.role
    if claim and claim.strength:
        yield claim.strength, "LF401.maker", claim.evidence.level, {"said": cite(claim)}
    if known and known.strength and role == ACCELERATOR:
        yield known.strength, "LF401.publisher", known.level, {"accelerator": known.name}
    if role in USUAL and level in KNOWN:
        yield USUAL[role], "LF401.role", level, {"role": role}


def _strength(item: Item) -> Iterator[Finding]:
    known, role = item.lineage.accelerator, item.lineage.role[0]
    far = 2 * FAR if known and role == ACCELERATOR else FAR  # high halves of Wan take 3
    span, key, level, values = next(_advice(item.lineage), ((-far, far), "LF401.far", "derived", {}))
    yield from _outside(item, span, key, level, **values)


def _outside(item: Item, span: Span, key: str, level: str, **values: str) -> Iterator[Finding]:
    if not within(item.strength, span):
        least, most = (f"{each:g}" for each in span)
        strength = f"{item.strength:g}"
        yield say_about(item, key, evidence=level, strength=strength, least=least, most=most, **values)


def within(value: float, span: Span, slack: float = SLACK) -> bool:
    """Whether a number is in a range, both ends and a little slack included."""
    return span[0] - slack <= value <= span[1] + slack


def accelerators(stack: Stack) -> tuple[Presence, ...]:
    """Every accelerator of the model, each once; one that another was trained on top of belongs to that."""
    found: list[Presence] = []
    for each in loras_in_model(stack):
        if each.accelerates and not any(each.ingredient.compare(other.ingredient) == SAME for other in found):
            found.append(each)
    needs = [
        need for each in found if each.item is not None and (need := requirement_of(stack.items[each.item].lineage))
    ]
    return tuple(each for each in found if not any(need.includes(each.ingredient) for need in needs))


def several(stack: Stack, policy: str) -> Iterator[Finding]:
    """LF403: more than one accelerator, fused, stacked or inside the base; one that spares no steps goes with any.

    Parts of several that make one whole are a blend, which does not overshoot.
    """
    found = [each for each in accelerators(stack) if _spares_steps(each)]
    if len(found) < 2 or sum(map(_part_of_full, found)) <= 1 + SLACK:
        return
    levels = sorted((weakest(each.level, each.role[1]) for each in found), key=EVIDENCE.index)
    told = listed([each.ingredient.name for each in found])
    last = found[-1]
    yield say(
        "LF403.two", severity=severity_for(levels[1] in KNOWN), evidence=levels[1], subject=last.ingredient.name,
        node=last.node, accelerators=told,
    )  # fmt: skip


def sampled(stack: Stack, policy: str) -> Iterator[Finding]:
    """LF403: steps or CFG outside what the one accelerator is made for; of several, no steps can be right."""
    found = accelerators(stack)
    faster = [each for each in found if _spares_steps(each)]
    others = [each for each in found if not _spares_steps(each)]
    for each in [*(faster if len(faster) == 1 else ()), *others]:
        known = each.accelerator
        if known is None or _is_part(each):
            continue
        level = weakest(each.level, each.role[1], known.level)
        # At another strength its publisher's steps and CFG are no measure any more; LF401 tells of that.
        firm = level in KNOWN and (known.strength is None or within(each.strength, known.strength))
        for sampling in stack.sampling:
            yield from _off(sampling, known, level, severity_for(firm), each.ingredient.name)


def _spares_steps(each: Presence) -> bool:
    known = each.accelerator
    return known is None or known.steps is None or known.steps[1] < ANY_STEPS


def _part_of_full(each: Presence) -> float:
    """Its strength by that which its publisher asks for at least, or by 1."""
    own = each.accelerator.strength if each.accelerator else None
    return abs(each.strength) / (own[0] if own and own[0] > 0 else 1.0)


def _is_part(each: Presence) -> bool:
    """Whether so little of a distillation is used that the model keeps its own steps and CFG."""
    own = each.accelerator.strength if each.accelerator else None
    return 0 < abs(each.strength) <= PART and not (own and within(each.strength, own))


def _off(sampling: Sampling, known: Accelerator, level: str, severity: str, subject: str) -> Iterator[Finding]:
    values: dict[str, str] = {}
    if sampling.steps is not None and known.steps and not known.steps[0] <= sampling.steps <= MORE * known.steps[1]:
        values |= {"steps": span(known.steps), "steps_now": f"{sampling.steps}"}
    if sampling.cfg is not None and known.cfg and not within(sampling.cfg, known.cfg, TUNED):
        values |= {"cfg": span(known.cfg), "cfg_now": f"{sampling.cfg:g}"}
    if values:
        key = "LF403.sampling" if len(values) == 4 else "LF403.steps" if "steps" in values else "LF403.cfg"
        about = {"subject": subject, "node": sampling.node, "accelerator": known.name}
        yield say(key, severity=severity, evidence=level, **about, **values)


def span(numbers: Sequence[float]) -> str:
    """``4`` or ``4 to 8``."""
    return " to ".join(dict.fromkeys(f"{number:g}" for number in numbers))


RULES = (strengths, several, sampled)
