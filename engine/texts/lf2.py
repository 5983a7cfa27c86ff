"""Quantization: what LF201 to LF204 say. A row: severity, what was seen, why it matters, what to do."""

from __future__ import annotations

_STORED = ("error", "{base} is stored as {form} ('{tensor}'), which cannot be dequantized here.")
_PLAINER = "Start from the bf16, fp16 or fp8 file of this model."

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
        "Rounded back to 8 bits, a LoRA of 1% of the weights keeps 0% to 43% of its effect; where the rounding is "
        "stochastic, the effect is kept and the weight error grows by 27% to 42%, and by more without scales.",
        "Load the bf16 or fp16 file with weight_dtype default, apply the LoRAs, and quantize last.",
    ),
    "LF201.scaled": (
        "note",
        "{loras} is applied to a scaled fp8 base ({base}: {quantized}).",
        "ComfyUI rounds it back stochastically: the effect is kept, and the error of the weights grows by 27% to 42%.",
        "Nothing must be done. To be rid of that error, load the bf16 or fp16 file, apply the LoRAs, quantize last.",
    ),
    "LF201.named_scaled": (
        "note",
        "{base} is a scaled fp8 file by its name ({sign}), and {loras} goes on top of it.",
        "ComfyUI rounds it back stochastically: the effect is kept, and the error of the weights grows by 27% to 42%.",
        "Nothing must be done. To be rid of that error, load the bf16 or fp16 file, apply the LoRAs, quantize last.",
    ),
    "LF201.nvfp4": (
        "warning",
        "{loras} is applied to an nvfp4 base ({base}: {quantized}).",
        "ComfyUI's own loader rounds it back to 4 bits: 60% to 84% of a LoRA of 1% of the weights are kept, and the "
        "error of the weights doubles (9.5% to 19%). Fused first, all of it is kept at 8.1%.",
        "Load the bf16 or fp16 file, apply the LoRAs, and quantize to nvfp4 last.",
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
        "With scales ComfyUI keeps a LoRA's effect and adds 27% to 42% weight error; without them a LoRA of 1% of the "
        "weights loses up to all of its effect.",
        "If it is, start from the bf16 or fp16 file and quantize last.",
    ),
    "LF201.not_native": (
        "error",
        "This MODEL is a {kind}, not one of ComfyUI's own.",
        "Its weights are quantized or kept in a form that LoRAs cannot be fused into.",
        "Load the bf16 or fp16 file with Load Base Model.",
    ),
    "LF201.four_bits": (
        *_STORED,
        "Its 4 bits have lost about {loss} % of every weight already, and a LoRA would be fused into what is left.",
        _PLAINER,
    ),
    "LF201.kernel_order": (
        *_STORED,
        "Its scales, one per 32 numbers, are packed in the order of a GPU kernel.",
        _PLAINER,
    ),
    "LF201.packed": (
        *_STORED,
        "Its codes or scales are packed in a way this version cannot read.",
        _PLAINER,
    ),
    "LF202.all_kept": (
        "error",
        "No layer of {base} can be quantized with keep = {keep}.",
        "The result would be the unquantized model under another name.",
        "Keep fewer layers in high precision, or finish without quantization.",
    ),
    "LF203.nothing_asked": (
        "error",
        "Nothing would change: {base} with no LoRA, no quantization and no other dtype.",
        "",
        "Add a LoRA with a weight that is not 0, or choose how to finish.",
    ),
    "LF203.unchanged": (
        "error",
        "No tensor of the base was changed.",
        "The LoRAs are all zeros, or too weak for the dtype of the result.",
        "Check the LoRAs and their weights.",
    ),
    "LF203.zeros": (
        "error",
        "All LoRAs of this plan are zeros: {loras}.",
        "The result would be the base under another name.",
        "Look for later checkpoints: a training that never began saves such files.",
    ),
    "LF203.gain": (
        "error",
        "{lora} kept {kept} of its effect; rounding explains 100% +- {tolerance}.",
        "The result would not be the model you asked for, so it was not kept.",
        "Please report this with the recipe; finishing without quantization should work.",
    ),
    "LF204.out_of_reach": (
        "error",
        "max_error {wanted} cannot be held: with every layer in high precision the error is still {error}.",
        "{format} alone has {before}.",
        "Allow a larger error, or finish in fp32 without quantization.",
    ),
    "LF204.all_kept": (
        "error",
        "max_error {wanted} would keep every layer in high precision.",
        "Nothing would be quantized; {format} alone has {before}.",
        "Allow a larger error, or finish without quantization.",
    ),
}
