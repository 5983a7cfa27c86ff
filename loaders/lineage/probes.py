"""What weights alone can tell about a plan: a LoRA inside another one, LoRAs that fight, what a DoRA was trained on.

Only what is decidable is said. Results are kept in the user's home by the contents of the files, so that a second look
costs nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import combinations
from typing import Any

from ...engine.findings import Finding
from ...engine.grams import Sums
from ...engine.ingredients import lineage_of_file
from ...engine.lineage import (
    ACCELERATOR,
    DERIVED,
    REPAIR,
    SAME,
    TRAINING_ADAPTER,
    Claim,
    Evidence,
    Ingredient,
    alike,
)
from ...engine.plan import FUSE, STACK, Layer, Plan
from ...engine.progress import Progress, part_of
from ...engine.texts.say import say
from ...validator.containment import contains
from ...validator.magnitudes import Nearest, has_magnitudes, nearest, quote
from ...validator.overlap import COMPARED, Overlap, Pair, as_filed, overlaps
from ...validator.stacks import stack_of
from ..disk.source import states_of
from ..disk.store import Store, key_of
from ..loras.file import LoRAFile
from ..names.blocks import block_of

NOT_FROM_WEIGHTS = (
    "What a plain LoRA was trained on cannot be known from its weights: they carry no trace of the base that any test "
    "finds. Its maker, a training script or a record has to say it."
)
FIGHT = -0.1  # a cosine from which 5% of the effect is lost; unrelated LoRAs of one base reach 0.04 either way
CLASHING = (-0.05, 0.55)  # or this cosine with this share of opposite signs
ALIKE = 0.8
MOST_STACKED = 8  # LoRAs that are compared with each other, the strongest ones
WORST = 3  # blocks that are named
BASES = (ACCELERATOR, TRAINING_ADAPTER, REPAIR)  # roles that stand under other LoRAs, wherever they were put
LEAST = 32  # weights that each pair is compared on, however many pairs there are
REV = 1  # raised when a number means something else than before
STORE = Store("weights", most=500)  # a few kilobytes each


@dataclass(frozen=True)
class Probed:
    """Findings (LF105, LF402), and by the number of a layer what its magnitudes say of its training."""

    findings: tuple[Finding, ...] = ()
    claims: Mapping[int, tuple[Claim, ...]] = field(default_factory=dict)


def probe(plan: Plan, on_step: Progress | None = None) -> Probed:
    """Look into the factors of a plan's LoRAs, and for DoRAs into the base.

    Takes seconds at most, and nothing when nothing changed since the last time. ``on_step(done, total)`` may raise to
    cancel. Raises FoundryError for a file that cannot be read.
    """
    parts = [part_of(on_step, part, 3) for part in range(3)]
    findings = (*_contained(plan, parts[0]), *_together(plan, parts[1]))
    return Probed(findings, dict(_trained(plan, parts[2])))


def _active(plan: Plan, stage: str) -> list[Layer]:
    return [layer for layer in plan.stage(stage) if layer.strength and layer.patches]


def _is_base(layer: Layer) -> bool:
    """Whether other LoRAs stand on it: everything fused, and what is known to be an accelerator or the like."""
    return layer.stage == FUSE or layer.lineage.role[0] in BASES


# --- one inside another


def _contained(plan: Plan, on_step: Progress | None) -> Iterator[Finding]:
    """LF105 for a base LoRA that is also inside another LoRA of the plan."""
    layers = [*_active(plan, STACK), *_active(plan, FUSE)]
    layers.sort(key=_is_base)  # those on top come first, so that a pair is (what may contain, what may be inside)
    pairs = [pair for pair in combinations(layers, 2) if _is_base(pair[1]) and not _same_file(pair)]
    pairs = [pair for pair in pairs if not _is_told(*pair) and not _is_told(*reversed(pair))]
    filed = {id(layer): as_filed(layer) for pair in pairs for layer in pair}
    found = _overlaps(plan, [(filed[id(first)], filed[id(second)]) for first, second in pairs], on_step)
    for (upper, lower), one in zip(pairs, found, strict=True):
        if contains(one.total):
            yield _inside(upper, lower, one.total)
        elif contains(one.swapped().total):
            yield _inside(lower, upper, one.swapped().total)


def _same_file(pair: Pair) -> bool:
    """Whether two layers are of one LoRA, saved again or not: that is said without a look at the weights."""
    sketches = [layer.lineage.sketch for layer in pair]
    return pair[0].lora.sha256 == pair[1].lora.sha256 or (all(sketches) and alike(*sketches))


def _is_told(upper: Layer, lower: Layer) -> bool:
    """Whether a merged LoRA says itself that another one is inside: the rules say so without a look at the weights."""
    inner = lineage_of_file(lower)
    names = Ingredient(lower.lora.name, inner.ids, sketch=inner.sketch)
    return any(each.ingredient.compare(names) == SAME for each in upper.lineage.contains)


def _inside(upper: Layer, lower: Layer, sums: Sums) -> Finding:
    total = f"{lower.strength + upper.strength * sums.coefficient:.2g}"
    values = {"upper": upper.lora.name, "lower": lower.lora.name, "total": total, "alone": f"{lower.strength:.2g}"}
    share = f"{sums.coefficient:.0%}"
    return say("LF105.weights", subject=upper.lora.name, **values, share=share, weights=sums.weights)


# --- two on one level


def _together(plan: Plan, on_step: Progress | None) -> Iterator[Finding]:
    """LF402 for stacked LoRAs that fight, or do the same twice; base LoRAs are meant to change what others do."""
    stacked = [layer for layer in _active(plan, STACK) if not _is_base(layer)]
    strongest = sorted(stacked, key=lambda layer: -abs(layer.strength))[:MOST_STACKED]
    strongest.sort(key=stacked.index)  # a pair is kept in plan order, whatever its strengths
    pairs = [pair for pair in combinations(strongest, 2) if not _same_file(pair)]
    units = {id(layer): replace(layer, strength=1.0) for layer in strongest}
    found = _overlaps(plan, [(units[id(first)], units[id(second)]) for first, second in pairs], on_step)
    for (first, second), one in zip(pairs, found, strict=True):
        applied = Overlap({name: _at(sums, first, second) for name, sums in one.groups.items()})
        if fights(applied.total):
            yield _fight(first, second, applied)
        elif applied.total.significant and applied.total.cosine >= ALIKE:
            yield _alike(first, second, applied.total)


def _at(sums: Sums, first: Layer, second: Layer) -> Sums:
    """Sums of two LoRAs at strength 1, as they are at the strengths of these layers."""
    a, b = first.strength, second.strength
    return replace(
        sums,
        dot=a * b * sums.dot,
        first=a * a * sums.first,
        second=b * b * sums.second,
        chance=(a * b) ** 2 * sums.chance,
        scatter=(a * b) ** 2 * sums.scatter,
        reach=abs(a * b) * sums.reach,
        clashes=sums.clashes if a * b > 0 else sums.sampled - sums.clashes,
    )


def fights(sums: Sums) -> bool:
    """Whether two LoRAs take from each other more than unrelated ones ever do."""
    clashing = sums.cosine <= CLASHING[0] and sums.clash >= CLASHING[1]
    return sums.significant and (sums.cosine <= FIGHT or clashing)


def _fight(first: Layer, second: Layer, one: Overlap) -> Finding:
    worst = sorted(one.groups.items(), key=lambda item: item[1].dot)[:WORST]
    blocks, total = ", ".join(f"{name} ({sums.cosine:.2f})" for name, sums in worst), one.total
    shares = {"clash": total.clash, "energy": total.energy_overlap, "weaker": 1 - total.together}
    values = {"first": first.lora.name, "second": second.lora.name, "cosine": f"{total.cosine:.2f}", "blocks": blocks}
    values |= {name: f"{share:.0%}" for name, share in shares.items()}
    return say("LF402.fight", subject=first.lora.name, **values)


def _alike(first: Layer, second: Layer, sums: Sums) -> Finding:
    times = ((sums.first + 2 * sums.dot + sums.second) / sums.first) ** 0.5
    values = {"first": first.lora.name, "second": second.lora.name, "cosine": f"{sums.cosine:.2f}"}
    return say("LF402.alike", subject=first.lora.name, **values, weights=sums.weights, times=f"{times:.1f}")


# --- what a DoRA was trained on


def _trained(plan: Plan, on_step: Progress | None) -> Iterator[tuple[int, tuple[Claim, ...]]]:
    """Claims for stacked DoRAs; none where LoRAs are already inside the weights we would measure against."""
    fused = _active(plan, FUSE)
    if not fused or plan.base.applied:
        return
    items, below = stack_of(plan).items, tuple(contained.ingredient for contained in plan.base.contains)
    names = {id(layer): item.ingredient for layer, item in zip(plan.layers, items, strict=True)}
    for number, layer in enumerate(plan.layers):
        if layer.stage == STACK and layer.strength and has_magnitudes(layer):
            found = _nearest(plan, layer, fused, on_step)
            if found is not None and found.clear:
                evidence = Evidence(DERIVED, "DoRA magnitudes", quote(found))
                yield number, (Claim(evidence, (*below, *(names[id(fused[each])] for each in found.choice))),)


def _nearest(plan: Plan, layer: Layer, fused: Sequence[Layer], on_step: Progress | None) -> Nearest | None:
    files = states_of(plan.base.source)
    key = _key("nearest", (layer, *fused), files, plan.base.dequantized) if files else None
    if (known := _find(key)) is not None:
        return Nearest(**{**known, "choice": tuple(known["choice"])}) if known else None
    found = nearest(plan.base, layer, fused, on_step)
    _store(key, asdict(found) if found else {})
    return found


def _overlaps(plan: Plan, pairs: Sequence[Pair], on_step: Progress | None) -> list[Overlap]:
    """Compare pairs, as far as that was not done before; what is new is done in one pass."""
    most, family = max(LEAST, COMPARED // max(1, len(pairs))), plan.base.family
    keys = [_key("overlap", pair, family, most) for pair in pairs]
    known = [_find(key) for key in keys]
    new = [number for number, found in enumerate(known) if found is None]
    made = overlaps([pairs[number] for number in new], most, lambda name: block_of(name, family), on_step)
    for number, one in zip(new, made, strict=True):
        known[number] = asdict(one)
        _store(keys[number], known[number])
    return [Overlap({name: Sums(**sums) for name, sums in one["groups"].items()}, one["left_out"]) for one in known]


# --- what is kept


def _key(what: str, layers: Iterable[Layer], *settings: object) -> str | None:
    """What a result is kept under; None where a layer is in no file, whose contents nothing vouches for."""
    traces = [_trace(layer) for layer in layers]
    return key_of(REV, what, traces, settings) if all(traces) else None


def _trace(layer: Layer) -> str:
    """Everything of a layer that numbers depend on, as a hash; empty for one that is in no file."""
    if not isinstance(layer.factors, LoRAFile) or layer.factors.path is None:
        return ""
    targets = [(patch.adapter.module, asdict(patch.target), patch.factor) for patch in layer.patches]
    return key_of(layer.lora.sha256, layer.strength, layer.rounding, layer.alphas_beside(), targets)


def _find(key: str | None) -> Any:
    return STORE.get(key) if key else None


def _store(key: str | None, data: Any) -> None:
    if key:
        STORE.put(key, data)
