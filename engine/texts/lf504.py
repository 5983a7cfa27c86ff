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
