"""LoRA files written, merged and shrunk: what LF504 to LF507 say. A row: severity, what was seen, why, what to do."""

from __future__ import annotations

_NAME_BASE = "Name the base model these LoRAs are for."
_DIALECT = "Choose the dialect comfyui, which holds everything."

WRITING: dict[str, tuple[str, ...]] = {
    "LF504.rows": (
        "error",
        "{weight} is known from {parts} of its parts only, and nothing tells how many rows it has.",
        "Without them the parts have no place in it.",
        _NAME_BASE,
    ),
    "LF504.values": (
        "error",
        "{weight} of the base is needed, and no base is named.",
        "",
        _NAME_BASE,
    ),
    "LF504.quantized": (
        "error",
        "{model} is quantized ({quantized}).",
        "Its rounding errors would be extracted with the difference.",
        "Name the models in bf16, fp16 or fp32.",
    ),
    "LF504.no_recipe": (
        "error",
        "{file} does not tell what it was merged from.",
        "Its proof cannot be worked out again.",
        "Choose a file that this pack merged.",
    ),
    "LF504.base": (
        "error",
        "{file} was merged on the base {base}, which is needed to work its proof out again.",
        "",
        "Name it with --base.",
    ),
    "LF504.families": (
        "error",
        "{one} is made for {one_family}, {other} for {other_family}.",
        "LoRAs of two families have no weight in common.",
        "Merge LoRAs of one family.",
    ),
    "LF504.widened": (
        "error",
        "{lora}: '{module}' makes a weight of the base larger.",
        "A merged LoRA cannot say by how much.",
        "Leave this LoRA out, and use it beside the merged one.",
    ),
    "LF506.loss": (
        "error",
        "{out} in {dtype} would be {error} away from the LoRAs it is merged from, relative to their sum; {allowed} is "
        "allowed.",
        "Nothing was written.",
        "Save it in fp32, shrink it less, or allow more with max_error.",
    ),
    "LF506.extract": (
        "error",
        "{out} in {dtype} would be {error} away from the difference of the two models, relative to it; {allowed} is "
        "allowed.",
        "Nothing was written.",
        "Give a larger rank or fp32, or allow more with max_error.",
    ),
    "LF507.mixed": (
        "note",
        "{lora} ({role}) is merged with other LoRAs.",
        "It is merged whole, but its strength can no longer be set apart, and the merged file is for few steps too.",
        "Keep accelerators apart if you want to switch them on and off.",
    ),
    "LF505.unknown": ("error", "{dialect} is no dialect that LoRAs are written in.", "", "Known are: {dialects}."),
    "LF505.tensor": (
        "error",
        "The dialect {dialect} has no name for a change of {tensor}.",
        "Only weights of layers have names there; left out, the file would be another LoRA.",
        _DIALECT,
    ),
    "LF505.text_encoder": (
        "error",
        "The dialect diffusers has no name for {module} of a text encoder.",
        "Left out, the file would be another LoRA.",
        _DIALECT,
    ),
    "LF505.full": (
        "error",
        "{module} is changed as a whole, and the dialect diffusers has two factors only.",
        "Left out, the file would be another LoRA.",
        _DIALECT,
    ),
    "LF505.layout": (
        "error",
        "{module} of the base is no name that ComfyUI gives.",
        "LoRAs are written for weights under the names ComfyUI gives them.",
        "Name the base as one file that ComfyUI loads, or no base.",
    ),
}
