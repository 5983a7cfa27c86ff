"""What a LoRA was trained with and is to be used with, who says so, and how well that is known.

Every source makes a claim of its own. The best known one counts; claims that contradict it on the same level are shown,
never resolved. Nothing here reads a file: ``loaders/lineage/provenance.py`` collects the claims.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property, lru_cache
from typing import Any, cast

from .findings import EVIDENCE
from .json_lineage import IngredientJSON
from .json_types import LineageJSON

DECLARED, DERIVED, GUESSED, UNKNOWN = EVIDENCE  # best known first
BY_USER = "declared by the user"  # the source that settles what other declared ones dispute
SCHEMA = 1  # of records in files and in the store; raised when what they hold changes its meaning
LINEAGE_KEY = "lora_foundry.lineage"  # of a record in ``__metadata__``
STYLE, SUBJECT, QUALITY, SUBTLE = "style", "subject", "quality", "subtle"
ACCELERATOR, TRAINING_ADAPTER, REPAIR, CONTROL = "accelerator", "training adapter", "repair", "control"
ROLES = (STYLE, SUBJECT, QUALITY, SUBTLE, ACCELERATOR, TRAINING_ADAPTER, REPAIR, CONTROL, UNKNOWN)
# How an id begins: of the whole file, of the bytes after its header, of an entry in the registry of accelerators.
FILE_ID, TENSORS_ID, KNOWN_ID = "sha256:", "tensors:", "known:"
# Of a fingerprint, one row a shape: rows, columns, how many modules, the norm of all, sums of their projections.
Sketch = tuple[tuple[float, ...], ...]
HEAD = 3  # numbers of a row that must be equal
TOLERANCE, COARSE = 1e-2, 0.12  # of the norm, for the others; three times what rounding to 8 bits moves them
SAME, DIFFERENT, UNDECIDED = "same", "different", "undecided"
# What trainers call every LoRA, as ``plain_name`` writes it: equal ones tell nothing.
NO_NAME = re.compile(r"(step|epoch)-?\d+|pytorch-lora-weights|adapter-model|checkpoint-\d+|lora|last")


@dataclass(frozen=True)
class Ingredient:
    """A base LoRA that something was trained with, or is to be used with.

    ``ids`` are what it can be recognised by (``sha256:``, ``tensors:`` and ``known:`` prefixes; none where a source
    only gave a name). ``coverage`` is (modules that were fused, modules it has) where the trainer told. ``sketch`` is
    that of its fingerprint: it also recognises the LoRA under another name, re-saved or in another dtype.
    """

    name: str
    ids: tuple[str, ...] = ()
    strength: float | None = None
    dtype: str = ""
    coverage: tuple[int, int] | None = None
    sketch: Sketch = ()

    def compare(self, other: Ingredient) -> str:
        """``same``, ``different`` or ``undecided`` (only names to go by, and they differ).

        One id in common decides; else two sketches do, unless precision or the cut into modules may be all that
        differs; else two ids of one kind that differ; else equal file names, if they are names at all.
        """
        if self == other or self.shares_contents(other):
            return SAME
        if self.sketch and other.sketch:
            near = self._is_near(other) and may_be_alike(self.sketch, other.sketch)
            return UNDECIDED if near else DIFFERENT
        if {id.partition(":")[0] for id in self.ids} & {id.partition(":")[0] for id in other.ids}:
            return DIFFERENT
        name = plain_name(self.name)
        return SAME if name == plain_name(other.name) and not NO_NAME.fullmatch(name) else UNDECIDED

    def shares_contents(self, other: Ingredient) -> bool:
        """Whether contents tell that both are one LoRA, whatever their names are."""
        if not set(self.ids).isdisjoint(other.ids):
            return True
        return bool(self.sketch and other.sketch) and self._is_near(other) and alike(self.sketch, other.sketch)

    def _is_near(self, other: Ingredient) -> bool:
        """Whether the norms of two sketches allow any likeness: a quick no for most pairs of a large stack."""
        return abs(self._norm - other._norm) <= 2 * TOLERANCE * max(self._norm, other._norm)  # alike: at most sqrt(2)

    @cached_property
    def _norm(self) -> float:
        return _norm(self.sketch)

    def to_json(self) -> IngredientJSON:
        """As plain data; ``from_json`` reads it back."""
        data = {**asdict(self), "ids": list(self.ids), "coverage": list(self.coverage) if self.coverage else None}
        sketch = [list(row) for row in data.pop("sketch")]
        return cast(IngredientJSON, {**data, "sketch": sketch} if sketch else data)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Ingredient:
        """What ``to_json`` made. Raises KeyError, TypeError or ValueError for anything else."""
        matched = data.get("coverage")
        return cls(
            str(data["name"]),
            tuple(map(str, data.get("ids") or ())),
            None if data.get("strength") is None else float(data["strength"]),
            str(data.get("dtype") or ""),
            None if matched is None else (int(matched[0]), int(matched[1])),
            tuple(tuple(map(float, row)) for row in data.get("sketch") or ()),
        )


def alike(one: Sketch, other: Sketch) -> bool:
    """Whether two sketches are of one LoRA: the same shapes as often, and all sums within 1 % of the norms."""
    return _shapes(one) == _shapes(other) and _same(one, other, TOLERANCE)


def may_be_alike(one: Sketch, other: Sketch) -> bool:
    """Whether two sketches that are not alike may be of one LoRA all the same: their norms agree.

    In 8 bits its sums are off by some percent; in other modules (q, k and v, or all in one) nothing else is the same.
    """
    norms = [_norm(sketch) for sketch in (one, other)]
    recut = _shapes(one) != _shapes(other)
    return abs(norms[0] - norms[1]) <= TOLERANCE * max(norms) and (recut or _same(one, other, COARSE))


def _norm(sketch: Sketch) -> float:
    return math.hypot(*(row[HEAD] for row in sketch if len(row) > HEAD))


def _shapes(sketch: Sketch) -> list[tuple[float, ...]]:
    return [row[:HEAD] for row in sketch]


def _same(one: Sketch, other: Sketch, tolerance: float) -> bool:
    return all(_same_sums(mine, theirs, tolerance) for mine, theirs in zip(one, other, strict=True))


def _same_sums(mine: tuple[float, ...], theirs: tuple[float, ...], tolerance: float) -> bool:
    if not len(mine) == len(theirs) > HEAD:
        return False
    slack = tolerance * max(mine[HEAD], theirs[HEAD])
    return all(abs(a - b) <= slack for a, b in zip(mine, theirs, strict=True))


@lru_cache(maxsize=4096)
def plain_name(name: str) -> str:
    """A file name for comparing: without folders, ending, case and separators."""
    stem = re.sub(r"\.(safetensors|sft|ckpt|pt|bin)$", "", re.split(r"[\\/]", name.strip())[-1], flags=re.IGNORECASE)
    return re.sub(r"[\s_.-]+", "-", stem).lower()


@dataclass(frozen=True)
class Evidence:
    """Where a claim comes from: ``level`` is one of ``EVIDENCE``, ``source`` names a file or a person's choice.

    ``quote`` is the very text or number it rests on, ``time`` when it was recorded (ISO 8601, UTC), if it was.
    """

    level: str
    source: str
    quote: str = ""
    time: str = ""


@dataclass(frozen=True)
class Claim:
    """One source's word. ``trained_with`` and ``use_with``: None where it says nothing, () for the untouched base.

    ``ask`` marks a source that cannot tell whether what the LoRA was trained with is to be kept in use or dropped
    (kohya's ``--base_weights``, DiffSynth's ``--preset_lora_path``); it must not be assumed.
    """

    evidence: Evidence
    trained_with: tuple[Ingredient, ...] | None = None
    use_with: tuple[Ingredient, ...] | None = None
    role: str = UNKNOWN
    strength: tuple[float, float] | None = None  # recommended by its maker: (least, most)
    ask: bool = False

    @property
    def source(self) -> str:
        """Who says it."""
        return self.evidence.source

    def by(self, source: str) -> Claim:
        """The same, said by another source."""
        return replace(self, evidence=replace(self.evidence, source=source))

    def naming(self, change: Callable[[Ingredient], Ingredient]) -> Claim:
        """The claim with every LoRA it names changed."""
        lists = (self.trained_with, self.use_with)
        trained_with, use_with = (None if listed is None else tuple(map(change, listed)) for listed in lists)
        return replace(self, trained_with=trained_with, use_with=use_with)

    def told(self, field: str) -> tuple[Ingredient, ...] | None:
        """Its word in ``field``, which is ``trained_with`` or ``use_with``."""
        return {"trained_with": self.trained_with, "use_with": self.use_with}[field]


@dataclass(frozen=True)
class Accelerator:
    """A known few-step LoRA and what its publisher says: strength, steps and CFG as (least, most), None: not said.

    ``level`` tells how it was recognised: ``derived`` by hash, ``guessed`` by name, metadata or structure. ``id`` is
    empty where only the kind of LoRA is known, not its version. The registry knows LoRAs of other roles too.
    ``made_on`` is the format of the weights it was distilled on, where that was no plain one.
    """

    id: str
    name: str
    level: str
    why: str
    strength: tuple[float, float] | None = None
    steps: tuple[int, int] | None = None
    cfg: tuple[float, float] | None = None
    role: str = ACCELERATOR
    made_on: str = ""


@dataclass(frozen=True)
class Contained:
    """A LoRA that is inside a base already; ``level`` and ``source`` tell how that is known.

    ``accelerator`` is what it was recognised as, so that steps and CFG can be judged for a base fused by others too.
    """

    ingredient: Ingredient
    level: str
    source: str
    accelerator: Accelerator | None = None

    def by(self, source: str) -> Contained:
        """The same, said by another source."""
        return replace(self, source=source)


@dataclass(frozen=True)
class Lineage:
    """All claims about one file, in the order they were found. ``ids`` and ``sketch`` are its own.

    ``contains`` are the LoRAs that were merged into it.
    """

    ids: tuple[str, ...] = ()
    claims: tuple[Claim, ...] = ()
    accelerator: Accelerator | None = None
    sketch: Sketch = ()
    contains: tuple[Contained, ...] = ()

    @cached_property
    def trained(self) -> Claim | None:
        """The best known claim about what it was trained with; None when nobody says."""
        return self._best("trained_with")

    @cached_property
    def used(self) -> Claim | None:
        """The best known claim about what it is to be used with; None when nobody says, or the user: as trained."""
        own = next((claim for claim in self._known() if claim.evidence.source == BY_USER), None)
        if own is not None and own.trained_with is not None and own.use_with is None:
            return None
        return self._best("use_with")

    @cached_property
    def role(self) -> tuple[str, str]:
        """(role, evidence level) of the best known claim about its role, or of its being a known accelerator."""
        told = [(claim.role, claim.evidence.level) for claim in self._known() if claim.role != UNKNOWN]
        if self.accelerator:
            told.append((self.accelerator.role, self.accelerator.level))
        return min(told, key=lambda each: EVIDENCE.index(each[1]), default=(UNKNOWN, UNKNOWN))

    @cached_property
    def recommended(self) -> Claim | None:
        """The best known claim that recommends a strength; None when nobody does."""
        saying = [claim for claim in self._known() if claim.strength is not None]
        return min(saying, key=_by_knowledge, default=None)

    def conflicts(self, field: str = "trained_with") -> Iterator[tuple[Claim, Claim]]:
        """Pairs of the best claim and another of the same level that says something else in ``field``.

        None against the user's own word: it comes first, and settles a dispute of others.

        ``field`` is ``trained_with`` or ``use_with``.
        """
        best = self._best(field)
        if best is not None and best.evidence.source == BY_USER:
            return  # who declares has seen what the others say
        for claim in self._known():
            told = claim.told(field)
            if best is None or told is None or claim.evidence.level != best.evidence.level:
                continue
            if not same_ingredients(best.told(field) or (), told):
                yield best, claim

    def _known(self) -> list[Claim]:
        """The claims that say how well they know; one of level ``unknown`` is no more than silence."""
        return [claim for claim in self.claims if claim.evidence.level != UNKNOWN]

    def _best(self, field: str) -> Claim | None:
        saying = [claim for claim in self._known() if claim.told(field) is not None]
        return min(saying, key=_by_knowledge, default=None)


def _by_knowledge(claim: Claim) -> tuple[int, bool]:
    return EVIDENCE.index(claim.evidence.level), claim.evidence.source != BY_USER


NOTHING_KNOWN = Lineage()


def same_ingredients(first: tuple[Ingredient, ...], second: tuple[Ingredient, ...]) -> bool:
    """Whether two lists may name the same LoRAs, in any order: what cannot be decided counts as the same."""
    return len(first) == len(second) and not _has_stranger(first, second) and not _has_stranger(second, first)


def _has_stranger(some: tuple[Ingredient, ...], others: tuple[Ingredient, ...]) -> bool:
    """Whether one of ``some`` is none of ``others`` for certain."""
    return any(all(each.compare(other) == DIFFERENT for other in others) for each in some)


def summary(lineage: Lineage) -> LineageJSON:
    """A lineage in short, as plain data: names of LoRAs, null where nobody says; ``level`` is that of the best word."""
    trained, used = lineage.trained, lineage.used
    role, level = lineage.role
    levels = [claim.evidence.level for claim in (trained, used) if claim] + [level]
    return {
        "level": min(levels, key=EVIDENCE.index),
        "trained_with": [each.name for each in trained.trained_with or ()] if trained else None,
        "use_with": [each.name for each in used.use_with or ()] if used else None,
        "role": role,
        "accelerator": (lineage.accelerator.id or None) if lineage.accelerator else None,
    }
