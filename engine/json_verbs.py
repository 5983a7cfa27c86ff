"""The JSON of ``lora-foundry inspect``, ``doctor``, ``init`` and the verbs of ``lineage``, as types."""

from __future__ import annotations

from typing import Annotated, Any, TypedDict

from .json_lineage import ClaimJSON, Ids, KnownJSON, RecordJSON, Role
from .json_types import FindingJSON, Level

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


Span = Annotated[list[float], ("minItems", 2), ("maxItems", 2), "Least and most."]


class FactsJSON(TypedDict):
    """What is told of every file."""

    file: str
    files: Annotated[list[str], "All files of a model that is cut into several."]
    bytes: int
    tensors: int
    dtypes: Annotated[dict[str, int], "How many tensors are stored in which dtype."]
    metadata: Annotated[dict[str, str], "As the file states it; claims."]
    findings: list[FindingJSON]


class TrainingJSON(TypedDict, total=False):
    """What the metadata states of the training, as far as it does."""

    tool: str
    base_model: str
    trigger_words: str
    tags: Annotated[list[str], "Those used most."]


class GroupJSON(TypedDict):
    """A group of blocks of the model."""

    blocks: int
    modules: int


class AdaptersJSON(TypedDict, total=False):
    """What a LoRA changes, and how strongly; absent where it cannot be used, which a finding tells."""

    role: Role
    role_why: str
    role_evidence: Level
    family: str | None
    variant: Annotated[dict[str, str], "By aspect: version, task ..."]
    modules: int
    text_encoder: Annotated[int, "Modules of text encoders."]
    adapters: Annotated[dict[str, int], "How many of which kind."]
    blocks: Annotated[dict[str, GroupJSON], "By group, as double_blocks; the rest is other."]
    rank: Span | None
    alpha: Span | None
    alpha_from: Annotated[dict[str, int], "Where how many alphas stand."]
    scale: Annotated[Span | None, "alpha / rank."]
    unused: Annotated[list[str], "Tensors that no adapter has."]


class InspectedLoRAJSON(FactsJSON, TrainingJSON, AdaptersJSON):
    """What `lora-foundry inspect LORA --json` prints."""

    kind: Annotated[str, ("enum", ("lora",))]
    sha256: str
    dialect: str
    layout: Annotated[str | None, "The row of `inspect --dialects` that it is written like."]
    writers: Annotated[str | None, "Who writes files like it."]
    lineage: KnownJSON


class InspectedBaseJSON(FactsJSON):
    """What `lora-foundry inspect BASE --json` prints."""

    kind: Annotated[str, ("enum", ("base",))]
    family: str | None
    prefix: Annotated[str, "What stands before the names of its weights."]
    other_tensors: Annotated[int, "Of text encoders, autoencoders and others."]
    quantized: Annotated[str | None, "How its weights are stored where that is no plain floating point."]
    fingerprint: str
    made_by: Annotated[dict[str, Any] | None, "What this pack wrote into its own result, as bake.schema.json says."]


class InspectedCalibrationJSON(FactsJSON):
    """What `lora-foundry inspect CALIBRATION --json` prints."""

    kind: Annotated[str, ("enum", ("calibration",))]
    what: Annotated[str, "ranges, or ranges and rounding."]
    linears: Annotated[int, "Of how many layers it knows the inputs."]
    tokens: Annotated[int, "Inputs of the layer that saw most."]
    base: Annotated[str, "The model that sampled; empty where it was not told."]
    fingerprint: str
    loras: Annotated[list[str], "Those in that model, with their strengths."]
    others: Annotated[list[str], "What else was done to it."]


class DialectJSON(TypedDict):
    """One known way of writing LoRAs."""

    name: str
    writers: str
    prefix: str
    modules: Annotated[str, "A regular expression for the start of a module's name."]
    marks: Annotated[list[str], "Dialects, kinds and parts that must all be there."]
    alpha: Annotated[str, "Where the scale is written."]


class DialectsJSON(TypedDict):
    """What `lora-foundry inspect --dialects --json` prints."""

    dialects: list[DialectJSON]


class MachineCheckJSON(TypedDict):
    """One thing that was looked at."""

    name: str
    ok: bool
    seen: Annotated[str, "A version, a place, or what is wrong."]
    fix: Annotated[str, "What mends it, or empty."]
    required: Annotated[bool, "Whether the pack needs it: else ok of the whole does not depend on it."]


class DoctorJSON(TypedDict):
    """What `lora-foundry doctor --json` prints."""

    ok: Annotated[bool, "Nothing that is required is missing."]
    checks: list[MachineCheckJSON]


class StackRowJSON(TypedDict):
    """One LoRA of a document."""

    path: Annotated[str, "Seen from the folder of the document, or an address."]
    strength: float


class StackDocumentJSON(TypedDict, total=False):
    """A document as `init` writes it; all keys that may be in one: documents.md."""

    base: str
    fuse: Annotated[list[StackRowJSON], "Empty: none, on purpose."]
    stack: list[StackRowJSON]
    quantize: Annotated[str, "A format."]


class InitJSON(TypedDict):
    """What `lora-foundry init --json` prints."""

    out: Annotated[str, "The file that was written."]
    document: StackDocumentJSON
