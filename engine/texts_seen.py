"""What only a workflow shows (order, stages that are off, files), and what only weights show: as in ``texts_base``."""

from __future__ import annotations

GRAPH_TEXTS: dict[str, tuple[str, str, str, str]] = {
    "LF101.lora_above": (
        "error",
        "LoRA {loras} was applied (node {at}) before the base fusion.",
        "A base LoRA belongs into the untouched weights; what was trained on top of it expects that state.",
        "Move the LoRA into a LoRA Stack after Fuse Base LoRA.",
    ),
    "LF101.stack_above": (
        "error",
        "The LoRA stack was applied (node {at}) before the base fusion.",
        "A base LoRA belongs into the untouched weights; what was trained on top of it expects that state.",
        "Fuse the base LoRA first, then stack, then quantize.",
    ),
    "LF107.bypassed": (
        "note",
        "{stage} (node {at}) is bypassed: {missing}.",
        "The graph runs, but not with what that node was put there for.",
        "Delete the node if that is meant, or switch it on again.",
    ),
    "LF107.muted": (
        "warning",
        "{stage} (node {at}) is muted, but node {user} waits for what it gives: {missing}.",
        "A muted node gives nothing, so what hangs on it cannot run or runs without a model.",
        "Switch it on again, or bypass it.",
    ),
    "LF201.before_stage": (
        "error",
        "The model is quantized ({how}, node {at}) before this stage.",
        "A LoRA added to 8-bit weights loses up to all of its effect or adds up to 40% weight error.",
        "Load with weight_dtype default and quantize last.",
    ),
    "LF201.file_before_stage": (
        "error",
        "{base} is already quantized ({how}), and a stage comes after it (node {at}).",
        "A LoRA added to 8-bit weights loses up to all of its effect or adds up to 40% weight error.",
        "Start from the bf16 or fp16 file and quantize last, or load it with on_quantized_base: dequantize.",
    ),
    "LF201.after_quantize": (
        "warning",
        "LoRA {loras} is applied (node {at}) after Quantize FP8 (node {quantized}).",
        "A LoRA added to 8-bit weights loses up to all of its effect or adds up to 40% weight error.",
        "Put it into the LoRA stack before Quantize FP8.",
    ),
    "LF201.named": (
        "question",
        "Is {base} stored in 8 bits or less? Its name says {sign}, and {loras} goes on top of it.",
        "A LoRA added to 8-bit weights loses up to all of its effect or adds up to 40% weight error.",
        "If it is, start from the bf16 or fp16 file and quantize last.",
    ),
    "LF306.missing": (
        "error",
        "{name} (node {at}) is not in the folder {folder}.",
        "ComfyUI refuses the workflow, or a loader of another pack leaves the file out without a word.",
        "Download it, or choose another one.",
    ),
    "LF306.near": (
        "error",
        "{name} (node {at}) is not in the folder {folder}.",
        "ComfyUI refuses the workflow, or a loader of another pack leaves the file out without a word.",
        "Did you mean {near}?",
    ),
}

WEIGHT_TEXTS: dict[str, tuple[str, str, str, str]] = {
    "LF105.weights": (
        "warning",
        "{upper} already contains {lower}: {share} of it, by their weights ({weights} compared).",
        "Used together they apply {lower} at a strength of {total} instead of {alone}.",
        "Leave {lower} out where {upper} is used, or use an {upper} without it.",
    ),
    "LF402.fight": (
        "note",
        "{first} and {second} work against each other: cosine {cosine}, {clash} opposite signs (chance: 50%), "
        "{energy} of their energy in the same weights; most in {blocks}.",
        "What one adds the other takes away: together they change the model {weaker} less than two LoRAs that have "
        "nothing to do with each other.",
        "Lower one of them, as a whole or by block weights, or use them one at a time.",
    ),
    "LF402.alike": (
        "note",
        "{first} and {second} do nearly the same: cosine {cosine} over {weights} weights.",
        "Their effects add up: together they act {times} times as strongly as {first} alone.",
        "Use one of them, or lower both.",
    ),
}
