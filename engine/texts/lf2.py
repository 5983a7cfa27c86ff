"""Quantization: what LF201 to LF204 say. A row: severity, what was seen, why it matters, what to do."""

from __future__ import annotations

QUANTIZATION: dict[str, tuple[str, ...]] = {
    "LF201.base": (
        "error",
        "{base} is already quantized ({quantized}).",
        "A LoRA added to 8-bit weights loses up to all of its effect or adds up to 40% weight error.",
        "Start from the bf16 or fp16 file and quantize last. If only this fp8 or int8 file exists, load it with "
        "on_quantized_base: dequantize (Load Base Model, or a document).",
    ),
    "LF201.dequantized": (
        "note",
        "{base} is quantized ({quantized}): it is dequantized, fused, and quantized again if asked for.",
        "What the first quantization lost stays lost, {loss} of each weight as is typical of this form; "
        "errors reported here are measured against the dequantized weights.",
    ),
    "LF201.native": (
        "warning",
        "{loras} is applied to a base that is quantized already ({base}: {quantized}).",
        "Rounded back to 8 bits, a LoRA of 1% of the weights keeps 0% to 43% of its effect. ComfyUI's stochastic "
        "rounding keeps the effect and adds 27% to 42% weight error.",
        "Load the bf16 or fp16 file with weight_dtype default, apply the LoRAs, and quantize last.",
    ),
    "LF201.gguf": (
        "note",
        "{loras} is applied to a GGUF base ({base}: {quantized}).",
        "GGUF weights are dequantized for every step and the LoRA is added there: its effect is kept, at a price in "
        "time, and it cannot be fused into the file.",
        "Nothing to do. To fuse, start from the bf16 or fp16 file.",
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
}
