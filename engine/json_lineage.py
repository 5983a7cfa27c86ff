"""Lineage records as JSON, as types, and how much of each is read: ``docs/lineage.schema.json`` is made of them."""

from __future__ import annotations

from typing import Annotated, TypedDict

from .json_types import LEVELS, Stage

MANY = 100  # claims of a record, LoRAs of a claim
MANY_SHAPES = 1000  # rows of a sketch
NAME, SOURCE, QUOTE = 300, 400, 1000  # characters kept of a text
MAX_STRENGTH = 1000.0
IDS = "^((sha256|tensors|base):[0-9a-f]{64}|known:[A-Za-z0-9_.+-]{1,120})$"

Hash = Annotated[str, ("pattern", "^[0-9a-f]{64}$")]
Id = Annotated[str, ("pattern", IDS)]
Ids = Annotated[
    list[Id],
    ("maxItems", MANY),
    "sha256: of the whole file; tensors: of the bytes after its header, which renaming and edits of the metadata leave "
    "alone; base: fingerprint of a base model; known: entry of the registry of accelerators.",
]
Level = Annotated[
    str,
    ("enum", LEVELS),
    "How well it is known. declared: said by the user, a script, a config or the file itself. derived: recomputed from "
    "contents. guessed: from names and comments. Only the first two may warn.",
]
Role = Annotated[
    str,
    ("enum",
     ("style", "subject", "quality", "subtle", "accelerator", "training adapter", "repair", "control", "unknown")),
]  # fmt: skip
Range = Annotated[list[float], ("minItems", 2), ("maxItems", 2)]
Source = Annotated[str, ("maxLength", SOURCE)]
Place = Annotated[int, ("minimum", 0)]


class NamedJSON(TypedDict):
    """What every LoRA has that a record names."""

    name: Annotated[str, ("maxLength", NAME), "As the source writes it; a name, never opened."]


class IngredientJSON(NamedJSON, total=False):
    """A LoRA that something was trained with, or is to be used with."""

    ids: Ids
    strength: Annotated[float | None, ("minimum", -MAX_STRENGTH), ("maximum", MAX_STRENGTH)]
    dtype: Annotated[str, "Of the base while it was fused, if that is known."]
    coverage: Annotated[
        list[int] | None, ("minItems", 2), ("maxItems", 2), "Modules that were fused, of modules it has."
    ]
    sketch: Annotated[
        list[Annotated[list[float], ("maxItems", MANY)]],
        ("maxItems", MANY_SHAPES),
        "Of its fingerprint, to recognise it under another name, re-saved or in another dtype. One row a shape: rows, "
        "columns, how many modules, the norm of all their deltas, sums of projections on fixed sign vectors.",
    ]


Ingredients = Annotated[
    list[IngredientJSON],
    ("maxItems", MANY),
    "null: the source says nothing about it. An empty list: the untouched base.",
]


class TextsJSON(TypedDict, total=False):
    """What evidence may have."""

    quote: Annotated[str, ("maxLength", QUOTE), "The very text or number it rests on."]
    time: Annotated[str, "When it was recorded (ISO 8601, UTC), or empty."]


class EvidenceJSON(TextsJSON):
    """Where a claim comes from."""

    level: Level
    source: Annotated[
        Source,
        "A file, a tool or a person's choice. 'declared by the user' is what the user said here; claims of an import "
        "begin with 'imported from FILE: '.",
    ]


class SayingJSON(TypedDict, total=False):
    """What a claim may say."""

    trained_with: Ingredients | None
    use_with: Ingredients | None
    role: Role
    ask: Annotated[bool, "The source cannot tell whether what it was trained with is kept in use or dropped."]
    strength: Annotated[Range | None, "Recommended by its maker: least, most."]


class ClaimJSON(SayingJSON):
    """One source's word. Sources that contradict each other are kept side by side."""

    evidence: EvidenceJSON


class ContainedJSON(IngredientJSON, total=False):
    """A LoRA inside a base model, or inside a merged LoRA."""

    level: Level
    source: Source


class BakedInJSON(IngredientJSON):
    """A LoRA inside a file that this pack baked."""

    stage: Annotated[Stage, "How it was added."]


class IdJSON(TypedDict, total=False):
    """What a record is about. It is filed under tensor_sha256 or base; in a header it counts as the file's own only
    where tensor_sha256 is that of the file."""

    sha256: Hash
    tensor_sha256: Hash
    base: Hash


class ToldJSON(TypedDict, total=False):
    """What a record may hold."""

    family: str | None
    role: Annotated[Role, "The best known one of the claims; not read."]
    claims: Annotated[list[ClaimJSON], ("maxItems", MANY)]
    contains: Annotated[list[ContainedJSON], ("maxItems", MANY), "Of a base model or a merged LoRA."]


class RecordJSON(ToldJSON):
    """A file of the store, the text under 'lora_foundry.lineage' in a LoRA's header, or an entry of an export."""

    schema: Annotated[int, ("const", 1)]
    id: IdJSON
    name: Annotated[str, ("maxLength", NAME)]


class InsideJSON(TypedDict):
    """What a baked file says of itself in its header."""

    schema: Annotated[int, ("const", 1)]
    contains: list[BakedInJSON]


class ExportJSON(TypedDict):
    """What `lora-foundry lineage export` writes and `import` reads."""

    schema: Annotated[int, ("const", 1)]
    records: list[RecordJSON]


class AcceleratorJSON(TypedDict):
    """What the file was recognised as, and what its publisher says of using it."""

    id: Annotated[str, "Empty where only the kind is known, not the version."]
    name: str
    level: Level
    why: str
    strength: Range | None
    steps: Range | None
    cfg: Range | None
    role: Role


class BestRoleJSON(TypedDict):
    """The best known role, and how well it is known."""

    role: Role
    level: Level


class KnownJSON(TypedDict):
    """All that is known of a LoRA: every claim, which of them count, who contradicts whom."""

    ids: Ids
    role: BestRoleJSON
    claims: list[ClaimJSON]
    trained: Annotated[Place | None, "Place of the claim that counts for what it was trained with, or null."]
    used: Annotated[Place | None, "Place of the claim that counts for what it is to be used with, or null."]
    conflicts: Annotated[
        list[Annotated[list[Place], ("minItems", 2), ("maxItems", 2)]],
        "Pairs of the claim that counts and one of the same level that contradicts it.",
    ]
    accelerator: AcceleratorJSON | None
    merged: Annotated[list[ContainedJSON], "LoRAs that were merged into it."]


class SubjectJSON(TypedDict):
    """What is shown of every file."""

    schema: Annotated[int, ("const", 1)]
    kind: Annotated[str, ("enum", ("lora", "base"))]
    file: str
    family: str | None


class ShownLoRAJSON(SubjectJSON, KnownJSON):
    """What `lora-foundry lineage show LORA --json` prints."""


class ShownBaseJSON(SubjectJSON):
    """What `lora-foundry lineage show BASE --json` prints."""

    ids: Ids
    contains: list[ContainedJSON]
