"""Order check of a workflow before anything expensive runs: what stands above a stage on its MODEL path.

It looks at nothing else, reads no file, and ignores unknown keys and nodes: a prompt is what a client sent.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ..engine.errors import FoundryError
from ..engine.findings import Finding, worst_first
from ..engine.texts import say
from .node_kinds import FUSE_NODE, LOADERS, QUANTIZE_NODE, STACK_NODE, STAGES, VALIDATOR_NODE
from .node_kinds import NO_LORA as NO_LORA
from .node_values import LoraRow
from .tracing import lora_rows, model_links, quantized_by
from .workflow_graph import Graph, GraphNode

Prompt = Mapping[str, Mapping[str, Any]]


def check_order(prompt: Prompt, node_id: str) -> tuple[Finding, ...]:
    """Findings about what stands above one of our stages in a prompt: LF101 before Fuse, LF201 before any of them."""
    return order_above(prompt_graph(prompt), node_id)


def order_above(graph: Graph, node_id: str) -> tuple[Finding, ...]:
    """Findings about what stands above one of our stages, worst first, else nearest first."""
    stage = graph.nodes.get(node_id)
    above = upstream(graph, node_id) if stage is not None else ()
    return worst_first(finding for node in above for finding in _fault(graph, node, stage.kind if stage else ""))


def upstream(graph: Graph, node_id: str) -> Iterator[GraphNode]:
    """Every node above this one on a model path, nearest first, each once."""
    seen, queue = {node_id}, [node_id]
    for current in queue:
        for source in model_links(graph.nodes[current]):
            if source in graph.nodes and source not in seen:
                seen.add(source)
                queue.append(source)
                yield graph.nodes[source]


def prompt_graph(prompt: Prompt) -> Graph:
    """A prompt as ComfyUI runs it; what is no node becomes one that does nothing."""
    return Graph({str(key): _node(str(key), node) for key, node in prompt.items()})


def _node(node_id: str, data: object) -> GraphNode:
    kind = data.get("class_type") if isinstance(data, Mapping) else None
    inputs = data.get("inputs") if isinstance(data, Mapping) else None
    inputs = inputs if isinstance(inputs, Mapping) else {}
    links = {str(name): (value[0], value[1]) for name, value in inputs.items() if _is_link(value)}
    values = {str(name): value for name, value in inputs.items() if name not in links}
    return GraphNode(node_id, kind if isinstance(kind, str) else "", values, links)


def _is_link(value: object) -> bool:
    return isinstance(value, list) and len(value) == 2 and isinstance(value[0], str)


def _fault(graph: Graph, node: GraphNode, stage: str) -> Iterator[Finding]:
    """What is wrong with this node standing above a stage of that kind."""
    how = "Quantize FP8" if node.kind == QUANTIZE_NODE else quantized_by(node)
    if how and stage in STAGES:
        yield say("LF201.before_stage", node=node.id, how=how, at=node.id)
    if stage != FUSE_NODE:
        return
    if node.kind in (STACK_NODE, VALIDATOR_NODE):
        yield say("LF101.stack_above", node=node.id, at=node.id)
    elif node.kind not in STAGES and (rows := _rows(graph, node)):
        loras = ", ".join(row.name for row in rows)
        yield say("LF101.lora_above", subject=rows[0].name, node=node.id, loras=loras, at=node.id)


def _rows(graph: Graph, node: GraphNode) -> list[LoraRow]:
    """The LoRAs a node puts on its model; of a list that cannot be read, none: the node that reads it will tell."""
    if not model_links(node) and node.kind not in LOADERS:
        return []
    try:
        return lora_rows(graph, node)
    except FoundryError:
        return []
