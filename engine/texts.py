"""What findings say, as templates: one entry a situation, so that a translator and a reader find all of them here.

``say`` fills the blanks. A key is a code and a word: ``LF102.missing``. The browser finds translations of the same
keys under ``loraFoundry.findings`` in ``locales/<language>/main.json``.
"""

from __future__ import annotations

from dataclasses import dataclass

from .findings import Finding
from .texts_base import BASE_TEXTS
from .texts_seen import GRAPH_TEXTS, WEIGHT_TEXTS


@dataclass(frozen=True)
class Text:
    """Severity where it does not depend on the evidence, and what was seen, why it matters, what to do."""

    severity: str
    seen: str
    why: str = ""
    fix: str = ""


TEXTS: dict[str, Text] = {
    **{key: Text(*parts) for key, parts in (BASE_TEXTS | GRAPH_TEXTS | WEIGHT_TEXTS).items()},
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
