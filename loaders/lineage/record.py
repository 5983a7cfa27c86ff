"""A lineage record as JSON: one form for the store, for ``__metadata__`` and for exports (docs/lineage.schema.json).

Records come from strangers. Everything that is read is checked, capped and made safe to print; nothing in it is a path.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, TypeVar, cast

from ...engine import json_lineage as forms
from ...engine.errors import FoundryError
from ...engine.findings import EVIDENCE
from ...engine.lineage import (
    DECLARED,
    FILE_ID,
    ROLES,
    SCHEMA,
    TENSORS_ID,
    UNKNOWN,
    Claim,
    Contained,
    Evidence,
    Ingredient,
    Lineage,
)
from ...engine.texts.say import refuse
from ..disk.header import shown

BASE_ID = "base:"  # of a base model: a `base_fingerprint`, for nobody hashes 40 GB to plan
HASHES = {"sha256": FILE_ID, "tensor_sha256": TENSORS_ID, "base": BASE_ID}  # key of ``id`` -> how the id begins
MAX_RECORD = 1 << 20  # bytes of a record
_HASH = re.compile(r"[0-9a-f]{64}")
_ID = re.compile(r"(sha256|tensors|base):[0-9a-f]{64}|known:[\w.+-]{1,120}")
_Thing = TypeVar("_Thing")


@dataclass(frozen=True)
class Record:
    """What is claimed about one LoRA, or which LoRAs are said to be inside one base. ``ids`` are the file's own."""

    ids: tuple[str, ...]
    name: str
    family: str | None = None
    claims: tuple[Claim, ...] = ()
    contains: tuple[Contained, ...] = ()

    def hash_of(self, prefix: str) -> str | None:
        """The hash (hex) behind one kind of id; None when the record has none of that kind."""
        return next((id.removeprefix(prefix) for id in self.ids if id.startswith(prefix)), None)

    def to_json(self) -> forms.RecordJSON:
        """The record as plain data; ``parse_record`` reads it back."""
        ids = {key: found for key, prefix in HASHES.items() if (found := self.hash_of(prefix))}
        told: forms.RecordJSON = {
            "schema": SCHEMA,
            "id": cast(forms.IdJSON, ids),
            "name": self.name,
            "family": self.family,
            "role": Lineage(self.ids, self.claims).role[0],
            "claims": [claim_json(claim) for claim in self.claims],
        }
        if self.contains:
            told["contains"] = [contained_json(each) for each in self.contains]
        return told


def claim_json(claim: Claim) -> forms.ClaimJSON:
    """A claim as plain data; ``parse_claim`` reads it back."""
    return {
        "trained_with": _list_json(claim.trained_with),
        "use_with": _list_json(claim.use_with),
        "role": claim.role,
        "ask": claim.ask,
        "strength": list(claim.strength) if claim.strength else None,
        "evidence": cast(forms.EvidenceJSON, asdict(claim.evidence)),
    }


def lineage_json(lineage: Lineage) -> forms.KnownJSON:
    """All that is known of a LoRA: every claim, which of them count, who contradicts whom (places in ``claims``)."""
    claims, (role, level), known = list(lineage.claims), lineage.role, lineage.accelerator
    conflicts = dict.fromkeys((*lineage.conflicts("trained_with"), *lineage.conflicts("use_with")))
    return {
        "ids": list(lineage.ids),
        "role": {"role": role, "level": level},
        "claims": [claim_json(claim) for claim in claims],
        "trained": None if lineage.trained is None else claims.index(lineage.trained),
        "used": None if lineage.used is None else claims.index(lineage.used),
        "conflicts": [[claims.index(first), claims.index(second)] for first, second in conflicts],
        "accelerator": None if known is None else cast(forms.AcceleratorJSON, asdict(known)),
        "merged": [contained_json(each) for each in lineage.contains],
    }


def contained_json(contained: Contained) -> forms.ContainedJSON:
    """A LoRA inside a base as plain data; ``parse_contained`` reads it back."""
    return {**contained.ingredient.to_json(), "level": contained.level, "source": contained.source}


def parse_json(text: str, where: str) -> Any:
    """JSON from a stranger. Raises FoundryError ``lineage`` for anything that is none."""
    try:
        return json.loads(text)
    except RecursionError as error:
        raise lineage_error(where, "lineage.deep") from error
    except ValueError as error:
        raise lineage_error(where, "lineage.form", reason=shown(str(error))) from error


def parse_record(data: object, where: str) -> Record:
    """The record that ``to_json`` made. Raises FoundryError ``lineage`` that says what is wrong and where it stands."""
    try:
        return _record(_mapping(data, "the record"))
    except (ValueError, OverflowError) as error:
        raise lineage_error(where, "lineage.form", reason=shown(str(error))) from error


def parse_contained(data: object, source: str) -> tuple[Contained, ...]:
    """The ``contains`` list of a record; ``source`` stands where an entry names none. Raises ValueError."""
    return _many(data, "contains", lambda each: _contained(_mapping(each, "an entry of contains"), source))


def lineage_error(where: str, key: str, **values: object) -> FoundryError:
    """The error of a record: ``refuse`` with the place, as it can be printed, in the blank ``where``."""
    return refuse(key, where=shown(where), **values)


def _record(data: Mapping[str, Any]) -> Record:
    if data.get("schema") != SCHEMA:
        raise ValueError(f"its schema is {data.get('schema')!r}, and this version reads {SCHEMA}")
    ids = _mapping(data.get("id"), "id")
    found = {key: ids[key] for key in HASHES if ids.get(key) is not None}
    if not all(isinstance(value, str) and _HASH.fullmatch(value) for value in found.values()):
        raise ValueError("an id is no sha256 in lower-case hex")
    family = data.get("family")
    return Record(
        tuple(HASHES[key] + value for key, value in found.items()),
        _text(data.get("name"), "name", forms.NAME),
        None if family is None else _text(family, "family", 60),
        _many(data.get("claims"), "claims", lambda each: _claim(_mapping(each, "a claim"))),
        parse_contained(data.get("contains"), "a record"),
    )


def _claim(data: Mapping[str, Any]) -> Claim:
    told = _mapping(data.get("evidence"), "evidence")
    level, role = told.get("level"), data.get("role", UNKNOWN)
    if level not in EVIDENCE or role not in ROLES:
        raise ValueError(f"{level!r} is no level of evidence, or {role!r} is no role")
    texts = (("source", forms.SOURCE), ("quote", forms.QUOTE), ("time", 40))
    evidence = Evidence(level, *(_text(told.get(key, ""), key, limit) for key, limit in texts))
    trained_with, use_with = (_ingredients(data.get(key), key) for key in ("trained_with", "use_with"))
    return Claim(
        evidence, trained_with, use_with, role, _pair(data.get("strength"), "strength"), data.get("ask") is True
    )


def _contained(data: Mapping[str, Any], source: str) -> Contained:
    level = data.get("level", DECLARED)
    if level not in EVIDENCE:
        raise ValueError(f"{level!r} is no level of evidence")
    return Contained(_ingredient(data), level, _text(data.get("source", source), "source", forms.SOURCE))


def _ingredients(data: object, key: str) -> tuple[Ingredient, ...] | None:
    return None if data is None else _many(data, key, lambda each: _ingredient(_mapping(each, f"a LoRA of {key}")))


def _ingredient(data: Mapping[str, Any]) -> Ingredient:
    ids = _many(data.get("ids"), "ids", lambda id: _text(id, "an id", forms.NAME))
    strength, coverage = data.get("strength"), _pair(data.get("coverage"), "coverage", 1e6)
    return Ingredient(
        _text(data.get("name"), "the name of a LoRA", forms.NAME),
        tuple(id for id in ids if _ID.fullmatch(id)),  # a kind of id this version does not know is no fault
        None if strength is None else _number(strength, "strength"),
        _text(data.get("dtype", ""), "dtype", 60),
        None if coverage is None else (int(coverage[0]), int(coverage[1])),
        _many(data.get("sketch"), "sketch", _row, forms.MANY_SHAPES),
    )


def _row(data: object) -> tuple[float, ...]:
    return _many(data, "a row of a sketch", lambda each: _number(each, "sketch", 1e30))


def _list_json(ingredients: tuple[Ingredient, ...] | None) -> list[forms.IngredientJSON] | None:
    return None if ingredients is None else [ingredient.to_json() for ingredient in ingredients]


# --- plain values -----------------------------------------------------------------------------------------------------


def _many(data: object, what: str, parse: Callable[[object], _Thing], most: int = forms.MANY) -> tuple[_Thing, ...]:
    if data is None:
        return ()
    if not isinstance(data, list) or len(data) > most:
        raise ValueError(f"{what} is no list of at most {most}")
    return tuple(parse(each) for each in data)


def _mapping(data: object, what: str) -> Mapping[str, Any]:
    if not isinstance(data, dict):
        raise ValueError(f"{what} is no JSON object")
    return data


def _text(data: object, what: str, limit: int) -> str:
    if not isinstance(data, str):
        raise ValueError(f"{what} is no text")
    return shown(data, limit)


def _number(data: object, what: str, most: float = forms.MAX_STRENGTH) -> float:
    if isinstance(data, bool) or not isinstance(data, int | float) or not -most <= data <= most:
        raise ValueError(f"{what} is no number from {-most:g} to {most:g}")
    return float(data)


def _pair(data: object, what: str, most: float = forms.MAX_STRENGTH) -> tuple[float, float] | None:
    if data is None:
        return None
    if not isinstance(data, list) or len(data) != 2:
        raise ValueError(f"{what} is no pair of numbers")
    return _number(data[0], what, most), _number(data[1], what, most)
