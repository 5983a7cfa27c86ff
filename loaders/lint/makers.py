"""LF306 of files that nodes of ours make a LoRA of: no model is sampled with them, so no stack tells of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from ...engine.errors import FoundryError
from ...engine.findings import Finding
from ..workflows.graph import ON, Graph, GraphNode
from ..workflows.node_kinds import CHECKPOINTS, EXTRACT_NODE, LIST_ENDS, MODELS
from ..workflows.node_values import rows_of, word
from ..workflows.tracing import list_nodes
from ..workflows.trail import Applied, Source
from .files import Files


def files_of_makers(graph: Graph, files: Files, told: Iterable[Finding]) -> Iterator[Finding]:
    """What is to be said of the LoRAs that are merged or compared, and of the models one is extracted from.

    What is ``told`` of rows that lead into a model as well is not said again.
    """
    known = {replace(finding, node="") for finding in told}
    for node in graph.nodes.values():
        if node.mode == ON and node.kind in (*LIST_ENDS, EXTRACT_NODE):
            yield from (each for each in _findings(graph, files, node) if replace(each, node="") not in known)


def _findings(graph: Graph, files: Files, node: GraphNode) -> Iterator[Finding]:
    for above in list_nodes(graph, node) if node.kind in LIST_ENDS else ():
        try:
            for row in rows_of(above):
                yield from files.lora(Applied(row, above.id, native=False)).findings
        except FoundryError as error:
            yield error.finding(severity="error", node=above.id)
    for name in ("tuned_name", "base_name") if node.kind == EXTRACT_NODE else ():
        yield from files.base(Source(node.id, word(node, name), (MODELS, CHECKPOINTS), ours=True)).findings
