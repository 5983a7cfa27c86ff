"""The JSON of the verbs of ``lora-foundry lineage`` and of ``inspect``, as types."""

from __future__ import annotations

from typing import Annotated, TypedDict

from .json_lineage import ClaimJSON, Ids, RecordJSON

Schema = Annotated[int, ("const", 1)]


class RecordedJSON(TypedDict):
    """What a file says of itself: that this very LoRA is inside it."""

    strength: Annotated[float | None, "null where it does not say."]
    source: str


class WeighedNumbersJSON(TypedDict, total=False):
    """What was measured."""

    modules: Annotated[int, "That have it inside; of two LoRAs those that were compared."]
    of: Annotated[int, "Modules looked at; of two LoRAs all of the one that may be inside."]
    spread: Annotated[float, "Of a checkpoint: how far the strength scatters over its modules."]
    cosine: Annotated[float, "Of two LoRAs."]
    left_out: Annotated[int, "Of two LoRAs: modules whose change depends on the base, which are not compared."]


class WeighedJSON(WeighedNumbersJSON):
    """Whether a LoRA is inside another file, by its own record, else by its weights."""

    kind: Annotated[str, ("enum", ("lora", "checkpoint"))]
    verdict: Annotated[str, ("enum", ("contains it", "does not contain it", "cannot be told"))]
    coefficient: Annotated[float | None, "The strength it is inside with, by the weights; null: nothing was measured."]
    recorded: RecordedJSON | None
    says: Annotated[str, "The same in a sentence."]


class WeighJSON(WeighedJSON):
    """What `lora-foundry lineage weigh --json` prints."""

    schema: Schema
    kept: Annotated[bool, "Written down for the checkpoint, so that checks know it."]


class DeclaredJSON(TypedDict):
    """What `lora-foundry lineage declare --json` prints."""

    schema: Schema
    record: RecordJSON


class ForgottenJSON(TypedDict):
    """What `lora-foundry lineage forget --json` prints."""

    schema: Schema
    ids: Ids
    forgotten: bool


class ExportedJSON(TypedDict):
    """What `lora-foundry lineage export -o OUT --json` prints; without -o the export itself is printed."""

    schema: Schema
    out: str
    records: Annotated[int, "How many."]
    damaged: Annotated[list[str], "Records that were left out, in a sentence each."]


class ImportedJSON(TypedDict):
    """What `lora-foundry lineage import --json` prints: names of LoRAs and bases."""

    schema: Schema
    new: list[str]
    updated: list[str]
    unchanged: list[str]
    refused: Annotated[list[list[str]], "A name, and why."]


class ReadJSON(TypedDict):
    """What `lora-foundry lineage read --json` prints."""

    schema: Schema
    source: str
    claims: list[ClaimJSON]
    stored_for: Annotated[Ids | None, "The LoRA they were written down for; null: none."]


class StampedJSON(TypedDict):
    """What `lora-foundry lineage stamp --json` prints."""

    schema: Schema
    out: str
    ids: Ids
