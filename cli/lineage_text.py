"""What is known of a file's training, for a terminal and as JSON: the claims, who makes them, and which one counts."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from ..engine.lineage import FILE_ID, UNKNOWN
from .looks import room
from .terminal import table

if TYPE_CHECKING:
    from ..engine.json_lineage import ShownBaseJSON, ShownLoRAJSON, SubjectJSON
    from ..engine.lineage import Claim, Ingredient
    from ..loaders.lineage.record import Record
    from ..loaders.lineage.subjects import Subject

FIELDS = {"trained_with": "trained with", "use_with": "use with"}
WIDTH = 60  # characters of a text in a table
UNSAID = "Nobody says what it was trained with. If you know: lora-foundry lineage declare FILE --trained-with LORA|none"


def subject_json(subject: Subject) -> ShownLoRAJSON | ShownBaseJSON:
    """What ``show`` tells, as plain data (docs/lineage.schema.json)."""
    from ..loaders.lineage.record import contained_json, lineage_json
    from ..loaders.lineage.subjects import LORA

    about: SubjectJSON = {"schema": 1, "kind": subject.kind, "file": subject.name, "family": subject.family}
    if subject.kind == LORA:
        return {**about, **lineage_json(subject.lineage)}
    return {**about, "ids": list(subject.ids), "contains": [contained_json(each) for each in subject.contains]}


def subject_text(subject: Subject) -> str:
    """The same as tables: what counts on top, every claim below, then who contradicts whom."""
    from ..loaders.lineage.probes import NOT_FROM_WEIGHTS
    from ..loaders.lineage.subjects import BASE

    facts = [("file", _shown(subject.name)), ("family", subject.family or "not recognised")]
    facts += [("id", id) for id in subject.ids]
    if subject.kind == BASE:
        return f"{table(facts)}\n\n{_inside_table(subject)}"
    lineage = subject.lineage
    role, level = lineage.role
    facts.append(("role", role if role == UNKNOWN else f"{role} ({level})"))
    if known := lineage.accelerator:
        facts.append(("known as", f"{known.name} ({known.level}: {_shown(known.why)})"))
    for (field, what), claim in zip(FIELDS.items(), (lineage.trained, lineage.used), strict=True):
        facts.append((what, _counted(claim, field)))
    conflicts = [_conflict(field, *pair) for field in FIELDS for pair in lineage.conflicts(field)]
    claims = claims_table(lineage.claims) if lineage.claims else f"{NOT_FROM_WEIGHTS}\n{UNSAID}"
    return "\n".join([table(facts), "", claims, *conflicts])


def record_text(record: Record) -> str:
    """A record as a table."""
    return claims_table(record.claims) if record.claims else _inside_table(record)


def claims_table(claims: Iterable[Claim]) -> str:
    """Claims with their evidence, one a line."""
    rows = [
        (
            claim.evidence.level,
            _shown(claim.evidence.source),
            _names(claim.trained_with),
            "keep it or drop it?" if claim.ask else _names(claim.use_with),
            "-" if claim.role == UNKNOWN else claim.role,
            _shown(claim.evidence.quote),
        )
        for claim in claims
    ]
    return table(rows, ("level", "source", "trained with", "use with", "role", "quote"), room())


def found_lines(claims: Iterable[Claim]) -> list[str]:
    """Each LoRA that a script names, and whether its file was found: then it is known by more than its name."""
    named = [each for claim in claims for each in (*(claim.trained_with or ()), *(claim.use_with or ()))]
    found = {each.name: next((id for id in each.ids if id.startswith(FILE_ID)), "") for each in named}
    return [f"{_shown(name)}: {id or 'not found here, so it is known by its name alone'}" for name, id in found.items()]


def _counted(claim: Claim | None, field: str) -> str:
    if claim is None:
        return "-"
    return f"{_names(claim.told(field))} ({claim.evidence.level}: {_shown(claim.evidence.source)})"


def _conflict(field: str, first: Claim, second: Claim) -> str:
    seen = f"{_shown(first.evidence.source)} says {_names(first.told(field))}"
    other = f"{_shown(second.evidence.source)} says {_names(second.told(field))}"
    return f"Conflict about {FIELDS[field]!r}: {seen}, {other}. The first one counts: forget or declare to settle it."


def _inside_table(about: Subject | Record) -> str:
    rows = [(each.level, _names((each.ingredient,)), _shown(each.source)) for each in about.contains]
    return table(rows, ("level", "LoRA inside", "source"), room()) if rows else "No LoRA is known to be inside."


def _names(ingredients: tuple[Ingredient, ...] | None) -> str:
    if ingredients is None:
        return "-"
    strengths = ["" if each.strength is None else f" x {each.strength:g}" for each in ingredients]
    named = [_shown(each.name) + strength for each, strength in zip(ingredients, strengths, strict=True)]
    return ", ".join(named) or "the untouched base"


def _shown(text: str) -> str:
    from ..loaders.disk.header import shown

    return shown(text, WIDTH)
