"""Strengths, conflicts, accelerators and sampling: what LF401 to LF403 say.

A row: severity, what was seen, why it matters, what to do.
"""

from __future__ import annotations

USE: dict[str, tuple[str, ...]] = {
    "LF401.role": (
        "note",
        "{lora} is at strength {strength}; for a LoRA of the kind {role}, {least} to {most} is usual.",
        "Above that, LoRAs tend to drown each other and the base; below it, little of them is seen.",
        "Try {least} to {most}.",
    ),
    "LF401.maker": (
        "note",
        "{lora} is at strength {strength}; {least} to {most} is recommended ({said}).",
        "The recommendation is that of the source named here.",
        "Try {least} to {most}.",
    ),
    "LF401.publisher": (
        "note",
        "{lora} is at strength {strength}; the publisher of {accelerator} says {least} to {most}.",
        "An accelerator is distilled for one strength; others blur or burn the image.",
        "Try {least} to {most}.",
    ),
    "LF401.far": (
        "note",
        "{lora} is at strength {strength}.",
        "Past {most} a LoRA of any kind mostly distorts the image.",
        "Try at most {most}, or say what it is for with Declare Lineage.",
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
    "LF403.two": (
        "warning",
        "There are several accelerators in this model: {accelerators}.",
        "Each is distilled to shorten sampling on its own; together they overshoot.",
        "Keep one of them.",
    ),
    "LF403.steps": (
        "warning",
        "{accelerator} is made for {steps} steps; the sampler takes {steps_now}.",
        "Too few steps leave noise; more than it was distilled for burn contrast and detail.",
        "Set the steps to {steps}.",
    ),
    "LF403.cfg": (
        "warning",
        "{accelerator} is made for CFG {cfg}; the sampler uses {cfg_now}.",
        "Its guidance is distilled in; a CFG beyond that is applied a second time and burns the image.",
        "Set CFG to {cfg}.",
    ),
    "LF403.sampling": (
        "warning",
        "{accelerator} is made for {steps} steps and CFG {cfg}; the sampler takes {steps_now} steps at CFG {cfg_now}.",
        "Steps and guidance are distilled in; others leave noise or burn the image.",
        "Set the steps to {steps} and CFG to {cfg}.",
    ),
}
