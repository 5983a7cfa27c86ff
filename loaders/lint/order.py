"""Order check of a workflow before anything expensive runs: what stands above a stage on its MODEL path.

It looks at nothing else, reads no file, and ignores unknown keys and nodes: a prompt is what a client sent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from ...engine.errors import FoundryError
from ...engine.findings import Finding, worst_first
from ...engine.lineage import GUESSED
from ...engine.texts.say import listed, say
from ..workflows.constants import with_constants
from ..workflows.graph import ON, Graph, GraphNode
from ..workflows.node_kinds import (
    FUSE_NODE,
    LOADERS,
    MERGES,
    QUANTIZE_NODE,
    STACK_NODE,
    STAGES,
    VALIDATOR_NODE,
)
from ..workflows.node_values import LoraRow
from ..workflows.reading import graph_of_prompt
from ..workflows.tracing import lora_rows, model_links, quantized_by

MOST_STEPS = 300_000  # from stages up to what stands above them, in one graph
MOST_FAULTS = 64  # told above one stage, the nearest ones
Faults = dict[tuple[str, str], tuple[Finding, ...]]  # (node, kind of stage it stands above) -> what is wrong with that
Links = Callable[[GraphNode], tuple[str, ...]]


def check_order(prompt: Mapping[str, Any], node_id: str) -> tuple[Finding, ...]:
    """Findings about what stands above one of our stages in a prompt: LF101 before Fuse, LF201 before any of them."""
    return order_above(with_constants(graph_of_prompt(prompt)), node_id)


def order_above(graph: Graph, node_id: str) -> tuple[Finding, ...]:
    """Findings about what stands above one of our stages, worst first, else nearest first."""
    stage = graph.nodes.get(node_id)
    return () if stage is None else _order_above(graph, stage, tuple(upstream(graph, node_id)), {})


def orders(graph: Graph) -> tuple[dict[str, tuple[Finding, ...]], int]:
    """The same of every running stage of a graph, by its id; and how many were left out after ``MOST_STEPS``."""
    stages = [node for node in graph.nodes.values() if node.kind in STAGES and node.mode == ON]
    found: dict[str, tuple[Finding, ...]] = {}
    known: Faults = {}
    steps = 0
    for stage in stages:
        above = tuple(upstream(graph, stage.id))
        steps += len(above) + 1
        found[stage.id] = _order_above(graph, stage, above, known)
        if steps > MOST_STEPS:
            break
    return found, len(stages) - len(found)


def _order_above(graph: Graph, stage: GraphNode, above: tuple[GraphNode, ...], known: Faults) -> tuple[Finding, ...]:
    kind = FUSE_NODE if stage.kind == FUSE_NODE else QUANTIZE_NODE if stage.kind in STAGES else ""  # alike else
    for node in above:
        if (node.id, kind) not in known:
            known[node.id, kind] = tuple(_fault(graph, node, stage.kind))
    faulty = [node for node in above if known[node.id, kind]][:MOST_FAULTS]
    if not faulty:
        return ()
    certain = {node.id for node in upstream(graph, stage.id, certain_links)}
    return worst_first(
        finding if node.id in certain else as_question(finding) for node in faulty for finding in known[node.id, kind]
    )


def upstream(graph: Graph, node_id: str, links: Links = model_links) -> Iterator[GraphNode]:
    """Every node above this one on a model path, nearest first, each once."""
    seen, queue = {node_id}, [node_id]
    for current in queue:
        for source in links(graph.nodes[current]):
            if source in graph.nodes and source not in seen:
                seen.add(source)
                queue.append(source)
                yield graph.nodes[source]


def certain_links(node: GraphNode) -> tuple[str, ...]:
    """Where a model comes from for certain: of several it may be any, unless they are merged."""
    links = model_links(node)
    return links if len(links) < 2 or MERGES.search(node.kind) else ()


def as_question(finding: Finding) -> Finding:
    """A finding about a model that a switch may leave out: it may ask, not warn, and stops nothing."""
    firm = finding.severity in ("error", "warning")
    return replace(finding, severity="question", evidence=GUESSED) if firm else finding


def _fault(graph: Graph, node: GraphNode, stage: str) -> Iterator[Finding]:
    """What is wrong with this node standing above a stage of that kind."""
    how = "3 Quantize" if node.kind == QUANTIZE_NODE else quantized_by(node)
    if how and stage in STAGES:
        yield say("LF201.before_stage", node=node.id, how=how, at=node.id)
    if stage != FUSE_NODE:
        return
    if node.kind in (STACK_NODE, VALIDATOR_NODE):
        yield say("LF101.stack_above", node=node.id, at=node.id)
    elif node.kind not in STAGES and (rows := _rows(graph, node)):
        loras = listed([row.name for row in rows])
        yield say("LF101.lora_above", subject=rows[0].name, node=node.id, loras=loras, at=node.id)


def _rows(graph: Graph, node: GraphNode) -> list[LoraRow]:
    """The LoRAs a node puts on its model; of a list that cannot be read, none: the node that reads it will tell."""
    if not model_links(node) and node.kind not in LOADERS:
        return []
    try:
        return lora_rows(graph, node)
    except FoundryError:
        return []
