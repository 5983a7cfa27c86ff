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


def links(node: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(input name, upstream node id) of every linked input."""
    for name, value in node.get("inputs", {}).items():
        if isinstance(value, list) and len(value) == 2 and isinstance(value[0], str):
            yield name, value[0]


def upstream_models(prompt: Prompt, node_id: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every node above this one on a model path, nearest first, each once."""
    seen: set[str] = {node_id}
    queue = [node_id]
    while queue:
        for name, source in links(prompt.get(queue.pop(0), {})):
            if name.startswith("model") and source in prompt and source not in seen:
                seen.add(source)
                queue.append(source)
                yield source, prompt[source]


def lora_of(node: Mapping[str, Any]) -> str | None:
    """The LoRA a native loader applies to its MODEL, or None."""
    inputs = node.get("inputs", {})
    is_loader = "lora" in str(node.get("class_type", "")).lower() and "model" in inputs
    name = inputs.get("lora_name")
    return name if is_loader and isinstance(name, str) and inputs.get("strength_model", 1.0) != 0 else None


def check_order(prompt: Prompt, node_id: str) -> tuple[Finding, ...]:
    """Findings about what stands above one of our stages: LF101 before Fuse, LF201 before any stage."""
    stage = str(prompt.get(node_id, {}).get("class_type", ""))
    found: list[Finding] = []
    for source, node in upstream_models(prompt, node_id):
        kind = str(node.get("class_type", ""))
        if kind == QUANTIZE_NODE or str(node.get("inputs", {}).get("weight_dtype", "")).startswith("fp8"):
            found.append(quantized_before(source, node))
        if stage == FUSE_NODE and kind in (STACK_NODE, VALIDATOR_NODE):
            found.append(applied_before(source, "the LoRA stack"))
        elif stage == FUSE_NODE and kind != FUSE_NODE and (lora := lora_of(node)) is not None:
            found.append(applied_before(source, lora))
    return worst_first(found)


def quantized_before(source: str, node: Mapping[str, Any]) -> Finding:
    """LF201 for a loader or node that quantizes above a stage."""
    how = node.get("inputs", {}).get("weight_dtype") or "Quantize FP8"
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
