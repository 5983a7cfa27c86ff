"""Quantization: what LF201 to LF205 say. A row: severity, what was seen, why it matters, what to do."""

from __future__ import annotations

_STORED = ("error", "{base} is stored as {form} ('{tensor}'), which cannot be dequantized here.")
_PLAINER = "Start from the bf16, fp16 or fp8 file of this model."
_EVENED = (
    "ComfyUI multiplies the inputs of its layers by pre_quant_scale and adds a LoRA as if it did not: what the LoRA "
    "does is off by two thirds of it in the pack's own test."
)
_LATE = (
    "A LoRA added to 8-bit weights loses up to all of its effect or adds up to 40% weight error; of one of 1% of the "
    "weights of an nvfp4 file ComfyUI's own loader keeps 59% to 79%, at nearly twice the error."
)
_BEFORE = "Put it into the LoRA stack before 3 Quantize."

QUANTIZATION: dict[str, tuple[str, ...]] = {
    "LF201.base": (
        "error",
        "{base} is already quantized ({quantized}).",
        _LATE,
        "Start from the bf16 or fp16 file and quantize last. If only this file exists, load it with "
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
        "On a base that is quantized already ({base}: {quantized}): {loras}.",
        "Rounded back to 8 bits, a LoRA of 1% of the weights keeps 0% to 44% of its effect; where the rounding is "
        "stochastic, the effect is kept and the weight error grows by 27% to 42%, and by more without scales.",
        "Load the bf16 or fp16 file with weight_dtype default, apply the LoRAs, and quantize last.",
    ),
    "LF201.scaled": (
        "note",
        "On a scaled fp8 base ({base}: {quantized}): {loras}.",
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
        "On an nvfp4 base ({base}: {quantized}): {loras}.",
        "ComfyUI's own loader rounds it back to 4 bits: 59% to 79% of a LoRA of 1% of the weights are kept, and the "
        "error of the weights nearly doubles (9.5% to 17.6%). Fused first, all of it is kept at 8.1%.",
        "Load the bf16 or fp16 file, apply the LoRAs, and quantize to nvfp4 last.",
    ),
    "LF201.w4a8": (
        "warning",
        "On a w4a8 base ({base}: {quantized}): {loras}.",
        "ComfyUI's own loader rounds it back to 4 bits: 93% of a LoRA of 1% of the weights are kept, and the error of "
        "the weights grows by a third (7.1% to 9.3%). Fused first, all of it is kept at 7.1%.",
        "Load the bf16 or fp16 file, apply the LoRAs, and quantize to w4a8 last.",
    ),
    "LF201.smoothed": (
        "error",
        "On {base}, which is {quantized}: {loras}.",
        _EVENED,
        "Load the bf16 or fp16 file, apply the LoRAs, and quantize to nvfp4 last.",
    ),
    "LF201.no_lora": (
        "note",
        "No LoRA may be put on top of {base}: it is {quantized}.",
        "ComfyUI multiplies the inputs of its layers by pre_quant_scale and would add a LoRA as if it did not.",
        "Start from the bf16 or fp16 file, or say on_quantized_base: dequantize. ComfyUI before 0.30 does not know "
        "the scale and computes something else.",
    ),
    "LF201.gguf": (
        "note",
        "On a GGUF base ({base}: {quantized}): {loras}.",
        "GGUF weights are dequantized for every step and the LoRA is added there: its effect is kept, at a price in "
        "time, and it cannot be fused into the file.",
        "Nothing to do. To fuse, start from the bf16 or fp16 file.",
    ),
    "LF201.before_stage": (
        "error",
        "The model is quantized ({how}, node {at}) before this stage.",
        _LATE,
        "Load with weight_dtype default and quantize last.",
    ),
    "LF201.file_before_stage": (
        "error",
        "{base} is already quantized ({how}), and a stage comes after it (node {at}).",
        _LATE,
        "Start from the bf16 or fp16 file and quantize last, or load it with on_quantized_base: dequantize.",
    ),
    "LF201.after_quantize": (
        "warning",
        "LoRA {loras} is applied (node {at}) after 3 Quantize (node {quantized}).",
        _LATE,
        _BEFORE,
    ),
    "LF201.after_format": (
        "warning",
        "LoRA {loras} is applied (node {at}) after 3 Quantize to {format} (node {quantized}).",
        "ComfyUI's own loader rounds it back to {format}: {kept} of a LoRA of 1% of the weights are kept, and the "
        "error of the weights is {late}. Fused first, all of it is kept at {first}.",
        _BEFORE,
    ),
    "LF201.after_smoothed": (
        "error",
        "LoRA {loras} is applied (node {at}) after 3 Quantize to nvfp4 with pre_quant_scale (node {quantized}).",
        _EVENED,
        _BEFORE,
    ),
    "LF201.named": (
        "question",
        "Is {base} stored in 8 bits or less? Its name says {sign}, and {loras} goes on top of it.",
        "With scales ComfyUI keeps a LoRA's effect and adds 27% to 42% weight error; without them a LoRA of 1% of the "
        "weights loses up to all of its effect.",
        "If it is, start from the bf16 or fp16 file and quantize last.",
    ),
    "LF201.named_other": (
        "question",
        "Is {base} stored in 8 bits or less? Its name says {sign}, and {loras} goes on top of it.",
        "The weights are rounded again with the LoRA: in int8 its effect is kept and their error grows from 0.7% to "
        "1.2%, in mxfp8 from 2.7% to 3.4%; in 4 bits part of the effect is lost, and the error doubles.",
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
    "LF202.no_size": (
        "error",
        "None of the {count} layers of {base} that keep = {keep} leaves can be stored as {format}.",
        "It takes weights [outputs, inputs] of whole {rows} x {columns}; '{layer}' is {shape}.",
        "Choose another format, such as fp8.",
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
        "The LoRAs are too weak for the dtype of the result.",
        "Check the LoRAs and their weights.",
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
    "LF204.unused": (
        "note",
        "max_error {wanted} is not used: {format} is not quantized.",
        "It is an error budget for quantized layers; the others are rounded once.",
        "Nothing must be done. Choose a quantized format to have it held.",
    ),
    "LF205.base": (
        "error",
        "The calibration {calibration} was collected on {theirs}, and this is {base}.",
        "The inputs of its layers are those of another model.",
        "Choose the calibration of this base, or sample it once through Calibrate.",
    ),
    "LF205.nothing": (
        "error",
        "The calibration {calibration} knows none of the {count} layers that are quantized.",
        "It is of a model whose layers have other names or shapes, or layers that are kept were calibrated.",
        "Sample this model once through Calibrate.",
    ),
    "LF205.loras": (
        "warning",
        "The calibration {calibration} was collected with other LoRAs: {differences}.",
        "Its inputs are near those of this model, not the same: rounding by them is a little worse than it could be.",
        "Sample the model with these LoRAs through Calibrate.",
    ),
    "LF205.unknown": (
        "note",
        "The calibration {calibration} does not tell of which base and LoRAs it is ({others}).",
        "Only names and shapes of layers could be compared.",
        "Sample a MODEL of 3 Apply through Calibrate to have it on record.",
    ),
    "LF205.partly": (
        "note",
        "The calibration {calibration} knows {known} of the {count} layers that are quantized.",
        "The others are rounded to the nearest, without what their inputs are.",
        "Nothing must be done; the first of them is {first}.",
    ),
    "LF205.ranges": (
        "note",
        "The calibration {calibration} has ranges alone, which {format} with matmul {matmul} does not use.",
        "Ranges give inputs a scale where a host multiplies in fp8; every other format scales them as they come.",
        "Collect `ranges and rounding` to round weights by their inputs.",
    ),
    "LF205.unused": (
        "note",
        "The calibration {calibration} is not used: {format} is not quantized.",
        "A calibration tells how quantized weights are rounded; the others are rounded once.",
        "Nothing must be done. Choose a quantized format to round by it.",
    ),
    "LF205.damaged": (
        "error",
        "The calibration {calibration} holds no usable numbers for {weight}.",
        "NaN, Inf or something else than products of inputs: the file is damaged.",
        "Sample the model through Calibrate again.",
    ),
}
