"""Workflows in both forms, and what the lint says of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from drawings import Drawing
from lora_foundry.engine.lineage import (
    DECLARED,
    DERIVED,
    Accelerator,
    Claim,
    Evidence,
    Ingredient,
    Lineage,
)
from lora_foundry.loaders.lint.lint import Lint, lint
from lora_foundry.loaders.workflows.graph import Graph
from lora_foundry.loaders.workflows.reading import graph_of
from mistaken_graphs import MISTAKEN
from sketches import Sketch

QWEN = "qwen_image_bf16.safetensors"
STYLE = "style.safetensors"
FILE = "x.safetensors"


MISTAKEN_BY_NAME = {build.__name__: build for build in MISTAKEN}


def verdicts(result: Lint) -> list[tuple[str, str]]:
    return [(finding.severity, finding.text) for finding in result.findings]


def of_prompt(sketch: Sketch) -> Graph:
    return graph_of(sketch.prompt)


def canvas(prompt: dict[str, Any]) -> dict[str, Any]:
    """The same workflow as the browser saves it: values by place, links by number, sockets without types."""
    ids = {key: number for number, key in enumerate(prompt, 1)}
    links: list[list[Any]] = []
    nodes: list[dict[str, Any]] = []
    for key, node in prompt.items():
        sockets: list[dict[str, Any]] = []
        values: list[Any] = []
        for name, value in node["inputs"].items():
            wired = isinstance(value, list) and len(value) == 2 and value[0] in ids
            if wired:
                links.append([len(links) + 1, ids[value[0]], value[1], ids[key], len(sockets), "*"])
            socket = {"name": name, "type": "*", "link": len(links) if wired else None}
            sockets.append(socket if wired else {**socket, "widget": {"name": name}})
            values += [] if wired else [value]
        nodes.append({"id": ids[key], "type": node["class_type"], "mode": 0, "inputs": sockets, "outputs": [],
                      "widgets_values": values})  # fmt: skip
    return {"nodes": nodes, "links": links, "last_node_id": len(nodes)}


def stacks_of(sketch: Sketch) -> list[tuple[str, list[tuple[Any, ...]]]]:
    return [
        (stack.base, [(item.name, item.stage, item.strength, item.node) for item in stack.items])
        for stack in lint(of_prompt(sketch)).stacks
    ]


def told(drawing: Drawing) -> tuple[list[tuple[Any, ...]], list[str]]:
    """[(LoRAs with strengths, steps, CFG)] of every model, and the text of every finding."""
    result = lint(graph_of(drawing.saved()))
    rows = [
        ([(item.name, item.strength) for item in stack.items], *((each.steps, each.cfg) for each in stack.sampling))
        for stack in result.stacks
    ]
    return rows, [finding.text for finding in result.findings]


def declared(
    trained_with: Sequence[str] | None = None, use_with: Sequence[str] | None = None, level: str = DECLARED
) -> Lineage:
    sets = [None if names is None else tuple(map(Ingredient, names)) for names in (trained_with, use_with)]
    return Lineage(claims=(Claim(Evidence(level, "train.sh"), sets[0], sets[1]),))


def lightning(level: str = DERIVED) -> Lineage:
    known = Accelerator("qwen-8", "Lightning 8", level, "its hash", (1.0, 1.0), (8, 8), (1.0, 1.0))
    return Lineage(("sha256:" + "a" * 64,), accelerator=known)


def ours(fuse: str, style: str = STYLE, base: str = "FoundryLoadBase", **inputs: Any) -> Sketch:
    """A LoRA fused, one stacked, the result saved, by our nodes."""
    g = Sketch()
    model = g(base, base_name=QWEN, **inputs)
    model = g("FoundryFuseBaseLoRA", model=model, lora_name=fuse, strength=1.0, rounding="once")
    row = g("FoundryLoRA", lora_name=style, strength_model=1.0, strength_clip=0.0, enabled=True)
    g("FoundrySaveModel", model=g("FoundryStackLoRAs", model=model, lora_stack=row), filename_prefix="x")
    return g
