"""The JSON of a bake and of the recipe in a result's header, as types: ``docs/bake.schema.json`` is made of them."""

from __future__ import annotations

from typing import Annotated, TypedDict

from .json_types import Count, ReportJSON, Rounding, Stage

Error = Annotated[float, ("minimum", 0), "rms of the rounding error over rms of the exact weights."]
Decibel = Annotated[float, "Signal to rounding noise in dB; null for no error at all."]
SHA256 = Annotated[str, ("pattern", "^[0-9a-f]{64}$")]


class LayerJSON(TypedDict):
    """How far one weight of the result is from the exact one."""

    relative_error: Error
    sqnr_db: Decibel | None


class NumbersJSON(TypedDict):
    """What a bake did and how good it is."""

    tensors: Annotated[Count, "Of the base."]
    touched: Annotated[Count, "Those that LoRAs changed."]
    quantized: Count
    reused: Annotated[Count, "Those that were taken over from an earlier result."]
    bytes_read: Count
    bytes_written: Count
    seconds: float
    peak_rss_bytes: Count
    arithmetic: Annotated[str, "How and where sums were taken, which decides their last bits."]
    relative_error: Annotated[Error | None, "Of all changed and quantized weights; null where there are none."]
    sqnr_db: Decibel | None
    by_outputs: Annotated[Count, "Of those, weights whose error and gains are those of their outputs: a calibration."]
    driven: Annotated[dict[str, float], "Weights in which a LoRA was driven to arrive whole in 4 bits, by this factor."]
    worst_layers: Annotated[dict[str, Error], "The weights with the largest relative error, worst first."]
    layers: Annotated[dict[str, LayerJSON], "Every weight that was changed or quantized, worst first."]


class CostJSON(TypedDict):
    """What an error budget did."""

    max_error: float
    error_without: Annotated[Error, "With every layer quantized."]
    kept: Annotated[list[str], "The weights it kept in high precision."]
    extra_bytes: Count


class BakedJSON(ReportJSON, NumbersJSON):
    """The plan, what its bake did, and what it depends on."""

    recipe_sha256: SHA256


class SizeJSON(TypedDict):
    """Bytes of all tensors."""

    before: Annotated[Count, "Of the base."]
    after: Annotated[Count, "Of the result."]


class MadeJSON(TypedDict, total=False):
    """What the command line and the finishing nodes add, each what it knows."""

    out: Annotated[str, "The result, or the first of its files."]
    files: list[str]
    state: Annotated[str, ("enum", ("made", "unchanged", "from the cache"))]
    how: Annotated[str, ("enum", ("patches", "bake")), "Of 3 Apply."]
    budget: CostJSON | None
    size: SizeJSON
    chosen: Annotated[str, "Which format `auto` or `smallest` came to, and why."]


class BakeJSON(BakedJSON, MadeJSON):
    """A bake: `lora-foundry bake DOCUMENT --json`, and the ui.foundry entry of a finishing node."""


class ResultsJSON(TypedDict):
    """`lora-foundry bake --json` of several documents, in their order."""

    results: list[BakeJSON]


class DequantizedJSON(TypedDict, total=False):
    """What a base has that was dequantized: how it was stored."""

    dequantized: str | None


class RecipeBaseJSON(DequantizedJSON):
    """The base of a recipe."""

    name: str
    fingerprint: Annotated[str, "Over names, shapes and the ends of every tensor (sha256, hex), or empty."]
    family: str | None


class OptionalLayerJSON(TypedDict, total=False):
    """What only some layers have."""

    blocks: Annotated[str, "Factors by block."]
    alphas: Annotated[str, "Hash over the alphas that no tensor of its file states."]


class RecipeLayerJSON(OptionalLayerJSON):
    """A LoRA of a recipe."""

    stage: Stage
    lora: Annotated[str, "Its name, for people."]
    sha256: Annotated[str, "Of its file, or empty."]
    strength: float
    rounding: Rounding
    matched: Count


class BudgetJSON(TypedDict, total=False):
    """What an error budget adds to the settings."""

    max_error: float


class ExactJSON(TypedDict, total=False):
    """What a reproducible result adds to the settings."""

    arithmetic: Annotated[str, "The only one it may be worked out in."]


class CalibratedJSON(TypedDict, total=False):
    """What a calibration adds to the settings."""

    calibration: Annotated[SHA256, "Over what is known of the inputs."]
    pre_quant_scale: Annotated[bool, "Columns are evened out by them: no LoRA may be put on top."]


class FinishJSON(BudgetJSON, ExactJSON, CalibratedJSON):
    """How a result is finished."""

    format: str
    dtype: Annotated[str | None, "Of what is not quantized; null: as stored."]
    matmul: str
    keep: Annotated[list[str], "Patterns of layers that stay in high precision."]


class RecipeJSON(TypedDict):
    """Everything a result depends on: contents by hash, and the settings."""

    base: RecipeBaseJSON
    vanilla: bool
    layers: list[RecipeLayerJSON]
    finish: FinishJSON
    tensors: Annotated[str, ("pattern", "^[0-9a-f]{32}$"), "One hash over what is made of every tensor."]


class OnTopJSON(TypedDict, total=False):
    """What a result says that no LoRA may be put on top of."""

    no_lora_on_top: Annotated[str, "Why: `pre_quant_scale`, which hosts apply to inputs and not to LoRAs."]


class HeaderJSON(OnTopJSON):
    """The text under 'lora_foundry' in __metadata__ of a result."""

    recipe: RecipeJSON
    recipe_sha256: Annotated[SHA256, "Over the recipe without names; the order of additive layers does not count."]
    arithmetic: Annotated[str, "How and where sums were taken, which decides their last bits."]
