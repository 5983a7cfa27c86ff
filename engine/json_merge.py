"""The JSON of merges, as types: what ``lora-foundry merge`` prints, and what a merged file says in its header."""

from __future__ import annotations

from typing import Annotated, TypedDict

from .json_types import FindingJSON

MERGE_KEY = "lora_foundry.merge"  # in the header of a merged file

Share = Annotated[
    float | None,
    "How much of it is in the result, at its strength: 1 is all; least squares merged ~ sum of share x LoRA. null "
    "where it adds nothing.",
]


class ShareJSON(TypedDict):
    """What is left of one LoRA."""

    name: str
    share: Share


class WorstJSON(TypedDict):
    """The layer that is furthest away from the sum."""

    module: str
    error: float


class ProofJSON(TypedDict):
    """What a merge kept, measured against the live stack: all LoRAs at their strengths, summed."""

    error: Annotated[float, "|merged - stack| / |stack|, over all layers."]
    norm_ratio: Annotated[float, "|merged| / |stack|."]
    shares: list[ShareJSON]
    worst: WorstJSON | None
    layers: Annotated[dict[str, float], "The error of every module, by its name in the file."]


class MergedLoRAJSON(TypedDict):
    """One LoRA that was merged."""

    name: str
    sha256: Annotated[str, "Of the whole file."]
    strength: float
    clip_strength: Annotated[float, "Of its text-encoder parts."]
    blocks: Annotated[str, "Factors of the strength by block; empty: all alike."]
    whole: Annotated[bool, "A base LoRA, which no method changes."]


class BelowJSON(TypedDict):
    """A base LoRA that was fused below the merged ones and is not in the file."""

    name: str
    sha256: str
    strength: float


class MergeRecipeJSON(TypedDict):
    """All that the numbers of a merged file depend on."""

    schema: Annotated[int, ("const", 1)]
    method: str
    policy: Annotated[str | None, "How far it was shrunk, as `energy 0.99`; null: not at all."]
    dialect: str
    dtype: str
    family: str | None
    base: Annotated[str | None, "The base that was named; null: none was needed."]
    fuse: list[BelowJSON]
    inputs: list[MergedLoRAJSON]


class MergeHeaderJSON(TypedDict):
    """The text under 'lora_foundry.merge' in the header of a merged file."""

    recipe: MergeRecipeJSON
    recipe_sha256: str
    proof: ProofJSON


class ApartJSON(TypedDict):
    """A LoRA that was not merged, to be used beside the file."""

    name: str
    strength: float


class VerifiedJSON(TypedDict):
    """The proof worked out again from the files alone, and whether the file says the same of itself."""

    agrees: bool
    proof: ProofJSON


class MergeJSON(MergeHeaderJSON):
    """What `lora-foundry merge --json` and the node Merge LoRAs tell."""

    out: str
    bytes: int
    modules: int
    rank: Annotated[list[int] | None, ("minItems", 2), ("maxItems", 2), "Least and most; null without factors."]
    whole: Annotated[int, "Modules that are stored as a whole: norms, biases, full differences."]
    apart: list[ApartJSON]
    findings: list[FindingJSON]
    verified: VerifiedJSON | None


class VerifyJSON(VerifiedJSON):
    """What `lora-foundry merge --verify FILE --json` prints."""

    out: str


Pairs = Annotated[list[list[float]], "A row and a column for each LoRA, in the order of ``loras``."]


class StrengthJSON(TypedDict):
    """A LoRA at a strength."""

    name: str
    strength: float


class PairsJSON(TypedDict):
    """Every pair of LoRAs."""

    cosine: Pairs
    clash: Annotated[Pairs, "The share of opposite signs."]
    excess: Annotated[Pairs, "That share beyond arccos(cosine) / pi, which chance gives."]


class BlockJSON(PairsJSON):
    """The same in one block of the model; energies are shares of the whole stack's."""

    block: str
    stack: float
    loras: list[float]


class ConflictsJSON(PairsJSON):
    """What `lora-foundry conflicts --json` and the node LoRA Conflicts tell."""

    loras: list[StrengthJSON]
    blocks: list[BlockJSON]
    stack_to_strongest: Annotated[float, "The norm of all together against that of the strongest alone."]
    advice: Annotated[list[StrengthJSON], "The strengths at which the two are equal; unchanged where it is below 1."]
    left_out: Annotated[int, "Modules that a LoRA replaces: these cannot be compared."]


class ExtractRecipeJSON(TypedDict):
    """What a LoRA was extracted from, and how."""

    tuned: str
    base: str
    family: str | None
    policy: str
    dialect: str
    dtype: str


class ExtractJSON(TypedDict):
    """What `lora-foundry extract --json` and the node Extract LoRA tell."""

    out: str
    bytes: int
    recipe: ExtractRecipeJSON
    proof: Annotated[ProofJSON, "Against the whole difference of the two models: what the rank lost."]
    modules: int
    rank: Annotated[list[int] | None, ("minItems", 2), ("maxItems", 2), "Least and most."]
