"""What a LoRA of a stack needs, and what lies around it: the words in which the rules LF101 to LF106 are written."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from ..engine.findings import EVIDENCE, Finding
from ..engine.lineage import (
    ACCELERATOR,
    DECLARED,
    DERIVED,
    KNOWN_ID,
    SAME,
    UNKNOWN,
    Accelerator,
    Claim,
    Contained,
    Ingredient,
    Lineage,
)
from ..engine.plan import FUSE
from ..engine.texts.say import listed, say
from .stacks import Item, Stack

KNOWN = (DECLARED, DERIVED)  # evidence that may warn; a guess only asks
# Where another LoRA lies, seen from one: the first three are below it and part of the weights it is applied to.
INSIDE, FUSED, UNDER, BESIDE, OVER = "inside the base", "fused", "under", "beside", "over"  # under, over: native only
BELOW = {INSIDE, FUSED, UNDER}
QUOTE = 160  # characters of a source's words that a finding repeats
CLOSE, MEASURED = 0.01, 0.05  # strengths that differ by less than this share are the same: set, and inside a base


@dataclass(frozen=True)
class Requirement:
    """What a LoRA needs below it by the word of ``claim``; ``rival`` is as well known and says something else.

    ``stated``: the claim says what to use it with; otherwise what it was trained with is taken for that.
    """

    ingredients: tuple[Ingredient, ...]
    claim: Claim
    stated: bool
    rival: Claim | None = None

    @property
    def level(self) -> str:
        """How well it is known."""
        return self.claim.evidence.level

    @property
    def ask(self) -> bool:
        """Whether it is open if the LoRA is to be used with what it was trained with."""
        return self.claim.ask and not self.stated

    @property
    def firm(self) -> bool:
        """Whether it is known well enough to be held against a stack."""
        return self.level in KNOWN and not self.ask

    def includes(self, other: Ingredient) -> bool:
        """Whether a LoRA is one of those needed, for all that is known."""
        return any(wanted.compare(other) == SAME for wanted in self.ingredients)


def requirement_of(lineage: Lineage) -> Requirement | None:
    """What a LoRA needs below it: what it is to be used with, else what it was trained with; None when nobody says."""
    for field, claim in (("use_with", lineage.used), ("trained_with", lineage.trained)):
        if claim is not None:
            rival = next((other for _, other in lineage.conflicts(field)), None)
            return Requirement(claim.told(field) or (), claim, field == "use_with", rival)
    return None


@dataclass(frozen=True)
class Presence:
    """A LoRA that is in the model.

    ``level`` tells how well it is known to be there; what the stack itself lists is a fact. ``role`` comes with its
    own level. ``item`` is its number in the stack's items and ``stage`` theirs, None and empty inside the base.
    """

    ingredient: Ingredient
    level: str = DECLARED
    role: tuple[str, str] = (UNKNOWN, UNKNOWN)
    accelerator: Accelerator | None = None
    item: int | None = None
    stage: str = ""
    node: str = ""

    @property
    def strength(self) -> float:
        """Its strength; 1.0 where it is not known."""
        return 1.0 if self.ingredient.strength is None else self.ingredient.strength

    @property
    def accelerates(self) -> bool:
        """Whether it adds an accelerator, by whatever evidence; one that is subtracted does not."""
        return self.role[0] == ACCELERATOR and self.strength > 0

    def serves(self, wanted: Ingredient) -> bool:
        """Whether it is the wanted LoRA, added where that was added and subtracted where that was subtracted."""
        sign = 1.0 if wanted.strength is None else wanted.strength
        return self.strength * sign > 0 and wanted.compare(self.ingredient) == SAME


def loras_in_model(stack: Stack) -> tuple[Presence, ...]:
    """Every LoRA of the model at a strength that does something, those inside the base first.

    What was merged into a LoRA of the stack is in the model as that LoRA is.
    """
    numbered = [(number, item) for number, item in enumerate(stack.items) if item.strength]
    listed = tuple(each for number, item in numbered for each in (_listed(number, item), *merged_in(number, item)))
    removed = [each for each in listed if each.strength < 0]
    inside = (_inside(contained) for contained in stack.contains if contained.level != UNKNOWN)
    return (*(each for each in inside if not any(_cancels(each, other) for other in removed)), *listed)


def position_of(stack: Stack, at: int, each: Presence) -> str:
    """Where a LoRA lies as seen from item number ``at``."""
    if each.item is None:
        return INSIDE
    if stack.native:
        return UNDER if each.item < at else OVER
    item = stack.items[at]
    sums = item.stage != FUSE or not item.dependent  # all of a stage see the same weights; a sum does not mind
    return FUSED if each.stage == FUSE and sums else BESIDE


def merged_in(number: int, item: Item) -> Iterator[Presence]:
    """The LoRAs that were merged into one of the stack, at the strengths they have in the model."""
    for contained in item.lineage.contains:
        inside = _inside(contained)
        ingredient = replace(contained.ingredient, strength=inside.strength * item.strength)
        yield replace(inside, ingredient=ingredient, item=number, node=item.node)


def _listed(number: int, item: Item) -> Presence:
    about = {"stage": item.stage, "node": item.node}
    return Presence(item.ingredient, role=item.lineage.role, accelerator=item.lineage.accelerator, item=number, **about)


def _inside(contained: Contained) -> Presence:
    known, level = contained.accelerator, UNKNOWN
    if known:
        level = known.level
    if any(id.startswith(KNOWN_ID) for id in contained.ingredient.ids):
        level = DERIVED
    role = UNKNOWN if level == UNKNOWN else ACCELERATOR
    return Presence(contained.ingredient, contained.level, (role, weakest(level, contained.level)), known)


def _cancels(inside: Presence, other: Presence) -> bool:
    """Whether a LoRA of the stack takes another out of the base again."""
    same = inside.ingredient.compare(other.ingredient) == SAME
    return same and alike(-other.strength, inside.strength, MEASURED)


def alike(strength: float, other: float, share: float = CLOSE) -> bool:
    """Whether two strengths are the same within this share of the second."""
    return abs(strength - other) <= share * abs(other)


def weakest(*levels: str) -> str:
    """The level of a verdict that rests on all of these."""
    return max(levels, key=EVIDENCE.index)


def severity_for(firm: bool, known: str = "warning", open_: str = "question") -> str:
    """The severity: known evidence may warn, everything else asks."""
    return known if firm else open_


def cite(claim: Claim) -> str:
    """Who says it, and the very words: ``train.sh: --lora_fused lightning.safetensors``."""
    words = " ".join(claim.evidence.quote.split())
    short = words if len(words) <= QUOTE else words[: QUOTE - 3] + "..."
    return f"{claim.evidence.source}: {short}" if short else claim.evidence.source


def say_about(item: Item, key: str, **values: str) -> Finding:
    """A finding about one LoRA of a stack: it is the subject and fills the blank ``lora``."""
    return say(key, subject=item.name, node=item.node, lora=item.name, **values)


def names(ingredients: Iterable[Ingredient]) -> str:
    """Names in a row; ``none`` for no LoRA at all."""
    return listed([ingredient.name for ingredient in ingredients]) or "none"


def needing(stack: Stack) -> Iterator[tuple[int, Item, Requirement]]:
    """(number, LoRA, what it needs) of every LoRA that does something and of which somebody says."""
    for number, item in enumerate(stack.items):
        need = requirement_of(item.lineage) if item.strength else None
        if need is not None:
            yield number, item, need
