"""What stops a run and is no finding: the sentences of the engine under the area of the fault.

A row: severity, what was seen, why it matters, what to do.
"""

from __future__ import annotations

_NO_LAYER = "No layer is called '{pattern}', which was to stay in high precision."
_PATTERNS = "Patterns are whole dotted parts of a layer's name, and * matches anything."

AREAS: dict[str, tuple[str, ...]] = {
    "usage.keep_near": ("error", _NO_LAYER, _PATTERNS, "Did you mean {near}?"),
    "usage.keep_nothing": ("error", _NO_LAYER, _PATTERNS, "A layer of it is {layer}."),
    "usage.keep_many": (
        "error",
        "{count} patterns of layers to keep in high precision are given; {most} are the limit.",
        "",
        "Write fewer, with a star for what they have in common.",
    ),
    "usage.keep_long": (
        "error",
        "A pattern of layers to keep in high precision has {characters} characters and {stars} stars; "
        "{most_characters} and {most_stars} are the limit.",
        "",
        "Name the layers more plainly, such as *.ffn.2.",
    ),
    "usage.memory": ("error", "Unknown memory setting '{wanted}'.", "", "Use {modes}."),
    "usage.max_error": (
        "error",
        "max_error is {share}, but it is a share of the weights' rms.",
        "",
        "Give a number such as 0.02, which is 2 %.",
    ),
    "usage.max_error_alone": (
        "error",
        "max_error needs a quantized format.",
        "",
        "Choose one, or leave max_error out.",
    ),
    "format.unknown": ("error", "Unknown quantization format '{format}'.", "", "Use none or {known}."),
    "format.not_loaded": (
        "error",
        "This ComfyUI cannot load {format}; it loads {known}.",
        "{format} came with ComfyUI {since}, so the result could not be used here.",
        "Choose another format or update ComfyUI. The command line writes it for another machine.",
    ),
    "device.another": (
        "error",
        "A reproducible result in {wanted} was asked for, but sums are taken in {arithmetic} here.",
        "About one code of a thousand would be another one than its recipe says.",
        "Leave `reproducible` out, or choose the device or memory mode.",
    ),
    "plan.without_file": ("error", "{lora}: this plan was made without its file.", "", "Plan it again."),
}
