"""What findings say, as templates: one entry a situation, so that a translator and a reader find all of them here.

``say`` fills the blanks. A key is a code and a word: ``LF102.missing``. The browser finds translations of the same
keys under ``loraFoundry.findings`` in ``locales/<language>/main.json``.
"""

from __future__ import annotations

from dataclasses import dataclass

from .findings import Finding
from .texts_base import BASE_TEXTS


@dataclass(frozen=True)
class Text:
    """Severity where it does not depend on the evidence, and what was seen, why it matters, what to do."""

    severity: str
    seen: str
    why: str = ""
    fix: str = ""


TEXTS: dict[str, Text] = {
    **{key: Text(*parts) for key, parts in BASE_TEXTS.items()},
    # --- quantized bases ----------------------------------------------------------------------------------------------
    "LF201.base": Text(
        "error",
        "{base} is already quantized ({quantized}).",
        "A LoRA added to 8-bit weights loses up to all of its effect or adds up to 40% weight error.",
        "Start from the bf16 or fp16 file and quantize last. If only this fp8 or int8 file exists, load it with "
        "on_quantized_base: dequantize (Load Base Model, or a document).",
    ),
    "LF201.dequantized": Text(
        "note",
        "{base} is quantized ({quantized}): it is dequantized, fused, and quantized again if asked for.",
        "What the first quantization lost stays lost, {loss} of each weight as is typical of this form; "
        "errors reported here are measured against the dequantized weights.",
    ),
    "LF201.native": Text(
        "warning",
        "{loras} is applied to a base that is quantized already ({base}: {quantized}).",
        "Rounded back to 8 bits, a LoRA of 1% of the weights keeps 0% to 43% of its effect. ComfyUI's stochastic "
        "rounding keeps the effect and adds 27% to 42% weight error.",
        "Load the bf16 or fp16 file with weight_dtype default, apply the LoRAs, and quantize last.",
    ),
    "LF201.gguf": Text(
        "note",
        "{loras} is applied to a GGUF base ({base}: {quantized}).",
        "GGUF weights are dequantized for every step and the LoRA is added there: its effect is kept, at a price in "
        "time, and it cannot be fused into the file.",
        "Nothing to do. To fuse, start from the bf16 or fp16 file.",
    ),
    # --- strengths, accelerators, sampling ----------------------------------------------------------------------------
    "LF401.role": Text(
        "note",
        "{lora} is at strength {strength}; for a LoRA of the kind {role}, {least} to {most} is usual.",
        "Above that, LoRAs tend to drown each other and the base; below it, little of them is seen.",
        "Try {least} to {most}.",
    ),
    "LF401.maker": Text(
        "note",
        "{lora} is at strength {strength}; {least} to {most} is recommended ({said}).",
        "The recommendation is that of the source named here.",
        "Try {least} to {most}.",
    ),
    "LF401.publisher": Text(
        "note",
        "{lora} is at strength {strength}; the publisher of {accelerator} says {least} to {most}.",
        "An accelerator is distilled for one strength; others blur or burn the image.",
        "Try {least} to {most}.",
    ),
    "LF403.two": Text(
        "warning",
        "There are several accelerators in this model: {accelerators}.",
        "Each is distilled to shorten sampling on its own; together they overshoot.",
        "Keep one of them.",
    ),
    "LF403.steps": Text(
        "warning",
        "{accelerator} is made for {steps} steps; the sampler takes {steps_now}.",
        "Too few steps leave noise; more than it was distilled for burn contrast and detail.",
        "Set the steps to {steps}.",
    ),
    "LF403.cfg": Text(
        "warning",
        "{accelerator} is made for CFG {cfg}; the sampler uses {cfg_now}.",
        "Its guidance is distilled in; a CFG beyond that is applied a second time and burns the image.",
        "Set CFG to {cfg}.",
    ),
    "LF403.sampling": Text(
        "warning",
        "{accelerator} is made for {steps} steps and CFG {cfg}; the sampler takes {steps_now} steps at CFG {cfg_now}.",
        "Steps and guidance are distilled in; others leave noise or burn the image.",
        "Set the steps to {steps} and CFG to {cfg}.",
    ),
}


def say(
    key: str, *, severity: str = "", evidence: str = "derived", subject: str = "", node: str = "", **values: object
) -> Finding:
    """The finding of a text with its blanks filled. Raises KeyError for an unknown key or a blank without a value."""
    text = TEXTS[key]
    filled = {name: str(value) for name, value in values.items()}
    seen, why, fix = (part.format_map(filled) for part in (text.seen, text.why, text.fix))
    code = key.partition(".")[0]
    return Finding(
        code, severity or text.severity, seen, why, fix, evidence, subject, node, key, tuple(filled.items())
    )


# What only a workflow shows: the lint of graphs.
TEXTS |= {
    "LF101.lora_above": Text(
        "error",
        "LoRA {loras} was applied (node {at}) before the base fusion.",
        "A base LoRA belongs into the untouched weights; what was trained on top of it expects that state.",
        "Move the LoRA into a LoRA Stack after Fuse Base LoRA.",
    ),
    "LF101.stack_above": Text(
        "error",
        "The LoRA stack was applied (node {at}) before the base fusion.",
        "A base LoRA belongs into the untouched weights; what was trained on top of it expects that state.",
        "Fuse the base LoRA first, then stack, then quantize.",
    ),
    "LF107.bypassed": Text(
        "note",
        "{stage} (node {at}) is bypassed: {missing}.",
        "The graph runs, but not with what that node was put there for.",
        "Delete the node if that is meant, or switch it on again.",
    ),
    "LF107.muted": Text(
        "warning",
        "{stage} (node {at}) is muted, but node {user} waits for what it gives: {missing}.",
        "A muted node gives nothing, so what hangs on it cannot run or runs without a model.",
        "Switch it on again, or bypass it.",
    ),
    "LF201.before_stage": Text(
        "error",
        "The model is quantized ({how}, node {at}) before this stage.",
        "A LoRA added to 8-bit weights loses up to all of its effect or adds up to 40% weight error.",
        "Load with weight_dtype default and quantize last.",
    ),
    "LF201.file_before_stage": Text(
        "error",
        "{base} is already quantized ({how}), and a stage comes after it (node {at}).",
        "A LoRA added to 8-bit weights loses up to all of its effect or adds up to 40% weight error.",
        "Start from the bf16 or fp16 file and quantize last, or load it with on_quantized_base: dequantize.",
    ),
    "LF201.after_quantize": Text(
        "warning",
        "LoRA {loras} is applied (node {at}) after Quantize FP8 (node {quantized}).",
        "A LoRA added to 8-bit weights loses up to all of its effect or adds up to 40% weight error.",
        "Put it into the LoRA stack before Quantize FP8.",
    ),
    "LF201.named": Text(
        "question",
        "Is {base} stored in 8 bits or less? Its name says {sign}, and {loras} goes on top of it.",
        "A LoRA added to 8-bit weights loses up to all of its effect or adds up to 40% weight error.",
        "If it is, start from the bf16 or fp16 file and quantize last.",
    ),
    "LF306.missing": Text(
        "error",
        "{name} (node {at}) is not in the folder {folder}.",
        "ComfyUI refuses the workflow, or a loader of another pack leaves the file out without a word.",
        "Download it, or choose another one.",
    ),
    "LF306.near": Text(
        "error",
        "{name} (node {at}) is not in the folder {folder}.",
        "ComfyUI refuses the workflow, or a loader of another pack leaves the file out without a word.",
        "Did you mean {near}?",
    ),
    "LF105.weights": Text(
        "warning",
        "{upper} already contains {lower}: {share} of it, by their weights ({weights} compared).",
        "Used together they apply {lower} at a strength of {total} instead of {alone}.",
        "Leave {lower} out where {upper} is used, or use an {upper} without it.",
    ),
    "LF402.fight": Text(
        "note",
        "{first} and {second} work against each other: cosine {cosine}, {clash} opposite signs (chance: 50%), "
        "{energy} of their energy in the same weights; most in {blocks}.",
        "What one adds the other takes away: together they change the model {weaker} less than two LoRAs that have "
        "nothing to do with each other.",
        "Lower one of them, as a whole or by block weights, or use them one at a time.",
    ),
    "LF402.alike": Text(
        "note",
        "{first} and {second} do nearly the same: cosine {cosine} over {weights} weights.",
        "Their effects add up: together they act {times} times as strongly as {first} alone.",
        "Use one of them, or lower both.",
    ),
}
