"""Order check of a workflow in API form (node id -> {class_type, inputs}), before anything expensive runs.

Only what comes before a stage on its MODEL path is looked at; unknown keys and unknown nodes are ignored.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ..engine.findings import Finding, worst_first

Prompt = Mapping[str, Mapping[str, Any]]
FUSE_NODE, STACK_NODE, VALIDATOR_NODE = "FoundryFuseBaseLoRA", "FoundryStackLoRAs", "FoundryStackValidator"
QUANTIZE_NODE = "FoundryQuantizeFP8"
NO_LORA = ("", "none")  # what loaders and stackers of other packs hold where nothing is chosen


def inputs_of(node: object) -> Mapping[str, Any]:
    """The inputs of a node; nothing for what is no node at all."""
    inputs = node.get("inputs") if isinstance(node, Mapping) else None
    return inputs if isinstance(inputs, Mapping) else {}


def kind_of(node: object) -> str:
    """The class of a node, or an empty string."""
    return str(node.get("class_type", "")) if isinstance(node, Mapping) else ""


def links(node: object) -> Iterator[tuple[str, str]]:
    """(input name, upstream node id) of every linked input."""
    for name, value in inputs_of(node).items():
        if isinstance(value, list) and len(value) == 2 and isinstance(value[0], str):
            yield name, value[0]


def upstream_models(prompt: Prompt, node_id: str) -> Iterator[tuple[str, object]]:
    """Every node above this one on a model path, nearest first, each once."""
    seen: set[str] = {node_id}
    queue = [node_id]
    while queue:
        for name, source in links(prompt.get(queue.pop(0))):
            if name.startswith("model") and source in prompt and source not in seen:
                seen.add(source)
                queue.append(source)
                yield source, prompt[source]


def lora_of(node: object) -> str | None:
    """The LoRA a loader applies to its MODEL, or None: ``lora_name``, or the first row that is on (rgthree)."""
    inputs = inputs_of(node)
    if "lora" not in kind_of(node).lower() or "model" not in inputs:
        return None
    rows = (row for row in inputs.values() if isinstance(row, Mapping))
    names = [row.get("lora") for row in rows if row.get("on") and row.get("strength", 1.0) != 0]
    if inputs.get("strength_model", 1.0) != 0:
        names.append(inputs.get("lora_name"))
    return next((name for name in names if isinstance(name, str) and name.strip().lower() not in NO_LORA), None)


def check_order(prompt: Prompt, node_id: str) -> tuple[Finding, ...]:
    """Findings about what stands above one of our stages: LF101 before Fuse, LF201 before any stage."""
    stage = kind_of(prompt.get(node_id))
    found: list[Finding] = []
    for source, node in upstream_models(prompt, node_id):
        kind = kind_of(node)
        if kind == QUANTIZE_NODE or str(inputs_of(node).get("weight_dtype", "")).startswith("fp8"):
            found.append(quantized_before(source, node))
        if stage == FUSE_NODE and kind in (STACK_NODE, VALIDATOR_NODE):
            found.append(applied_before(source, "the LoRA stack"))
        elif stage == FUSE_NODE and kind != FUSE_NODE and (lora := lora_of(node)) is not None:
            found.append(applied_before(source, lora))
    return worst_first(found)


def quantized_before(source: str, node: object) -> Finding:
    """LF201 for a loader or node that quantizes above a stage."""
    how = inputs_of(node).get("weight_dtype") or "Quantize FP8"
    return Finding(
        "LF201",
        "error",
        f"The model is quantized ({how}, node {source}) before this stage.",
        "A LoRA added to 8-bit weights loses up to all of its effect or adds up to 40% weight error.",
        "Load with weight_dtype default and quantize last.",
    )


def applied_before(source: str, lora: str) -> Finding:
    """LF101 for a LoRA above the base fusion."""
    return Finding(
        "LF101",
        "error",
        f"LoRA {lora} was applied (node {source}) before the base fusion.",
        "A base LoRA belongs into the untouched weights; what was trained on top of it expects that state.",
        "Move the LoRA into a LoRA Stack after Fuse Base LoRA.",
    )
