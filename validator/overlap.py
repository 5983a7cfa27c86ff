"""How much two LoRAs have to do with each other: inner products of their deltas over all weights both change.

A pair of rank 64 costs a few milliseconds a weight. Kinds that depend on the base (DoRA, OFT, set ...) are left out and
counted. Nothing here judges: ``containment`` and ``loaders.probes`` say what a number means.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise

from ..engine.adapters import needs_weight
from ..engine.grams import Side, Sums, compare
from ..engine.plan import ONCE, Layer, Patch
from ..engine.progress import Progress
from ..engine.terms import WHOLE, make_term, placement

COMPARED = 1000  # weights that are compared at most, of all pairs together: a few seconds on one core
Pair = tuple[Layer, Layer]


@dataclass(frozen=True)
class Overlap:
    """Two LoRAs compared: sums by group of weights (a block), and how many weights in common were ``left_out``."""

    groups: Mapping[str, Sums] = field(default_factory=dict)
    left_out: int = 0

    @cached_property
    def total(self) -> Sums:
        """The sums over all weights that were compared."""
        return sum(self.groups.values(), Sums())

    def swapped(self) -> Overlap:
        """The same pair, seen from the other LoRA."""
        return replace(self, groups={name: sums.swapped() for name, sums in self.groups.items()})


def overlap(first: Layer, second: Layer, most: int = COMPARED) -> Overlap:
    """Compare two layers at their strengths (``as_filed`` takes these away) over at most ``most`` common weights."""
    return overlaps([(first, second)], most)[0]


def overlaps(
    pairs: Sequence[Pair],
    most: int = COMPARED,
    group: Callable[[str], str] = str,
    on_step: Progress | None = None,
) -> list[Overlap]:
    """Compare pairs of layers in one pass over their files, at most ``most`` weights of each, spread over the model.

    ``group`` names the block of a weight; ``on_step(done, total)`` counts weights. Raises FoundryError for a file that
    cannot be read.
    """
    common = [_common(pair) for pair in pairs]
    wanted: dict[str, list[int]] = {}
    for number, (names, _) in enumerate(common):
        for name in spread(names, most):
            wanted.setdefault(name, []).append(number)
    sums: list[dict[str, Sums]] = [{} for _ in pairs]
    for done, (name, numbers) in enumerate(wanted.items()):
        if on_step is not None:
            on_step(done, len(wanted))
        layers = {id(layer): layer for number in numbers for layer in pairs[number]}
        sides = {key: Side([make_term(layer, p) for p in on_weight(layer, name)]) for key, layer in layers.items()}
        for number in numbers:
            groups, block = sums[number], group(name)
            first, second = pairs[number]
            groups[block] = groups.get(block, Sums()) + compare(sides[id(first)], sides[id(second)])
    return [Overlap(groups, left_out) for groups, (_, left_out) in zip(sums, common, strict=True)]


def as_filed(layer: Layer) -> Layer:
    """The layer as its file has it: strength 1, no block weights, its alpha counted."""
    return replace(layer, strength=1.0, rounding=ONCE, patches=tuple(replace(p, factor=1.0) for p in layer.patches))


def spread(names: Sequence[str], wanted: int) -> list[str]:
    """At most ``wanted`` of the names: one of each of as many runs, the same ones every time.

    A fixed stride would meet the same module of every block of a model.
    """
    if len(names) <= wanted:
        return list(names)
    edges = [len(names) * part // wanted for part in range(wanted + 1)]
    pick = random.Random(0)  # noqa: S311  # which weights are looked at is no secret
    return [names[pick.randrange(first, stop)] for first, stop in pairwise(edges)]


def on_weight(layer: Layer, name: str) -> list[Patch]:
    """The patches of a layer that change a weight."""
    return [patch for patch in layer.patches if patch.target.weight == name and patch.factor != 0.0]


def comparable(patch: Patch) -> bool:
    """Whether a delta can be made without the base, on whole rows."""
    return not needs_weight(patch.adapter) and placement(patch)[1] == WHOLE


def _common(pair: Pair) -> tuple[list[str], int]:
    """(the weights both change, how many others they have in common that cannot be compared)."""
    touched = [_weights(layer) for layer in pair]
    shared = [name for name in touched[0] if name in touched[1]]
    fit = [name for name in shared if touched[0][name] and touched[1][name]]
    return fit, len(shared) - len(fit)


def _weights(layer: Layer) -> dict[str, bool]:
    """The weights a layer changes, and whether all it does there can be compared."""
    found: dict[str, bool] = {}
    for patch in layer.patches:
        if patch.factor != 0.0:
            found[patch.target.weight] = found.get(patch.target.weight, True) and comparable(patch)
    return found
