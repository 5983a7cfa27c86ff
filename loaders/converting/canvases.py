"""The canvases of a saved workflow: itself, and the definitions of its subgraphs, with the ids that are in use."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ..workflows.canvas import entries, mapping, mappings, name_of, text
from ..workflows.graph import ON, Graph
from .canvas_level import CanvasLevel, Numbers


def levels_of(saved: dict[str, Any], graph: Graph) -> Iterator[CanvasLevel]:
    """The workflow, and each subgraph definition that is in use, once: by its first use that is on."""
    definitions = {text(each.get("id")): each for each in definitions_of(saved)}
    canvases = [saved, *definitions.values()]
    numbers = Numbers(*(max(map(count, canvases), default=0) for count in (_last_node, _last_link)))
    hosts: dict[str, list[dict[str, Any]]] = {}
    for canvas in canvases:
        for node in entries(canvas.get("nodes")):
            hosts.setdefault(text(mapping(node).get("type")), []).append(node)
    yield CanvasLevel("", saved, numbers)
    for identity, path in _uses(saved, definitions, graph):
        yield CanvasLevel(path, definitions[identity], numbers, hosts[identity])


def definitions_of(saved: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Every subgraph definition of a workflow, those inside others too."""
    waiting = list(mappings(mapping(saved.get("definitions")).get("subgraphs")))
    for definition in waiting:  # grows while it is read
        if isinstance(definition, dict) and isinstance(definition.get("nodes"), list):
            yield definition
        waiting += mappings(mapping(definition.get("definitions")).get("subgraphs"))


def _uses(
    saved: Mapping[str, Any], definitions: Mapping[str, Mapping[str, Any]], graph: Graph
) -> Iterator[tuple[str, str]]:
    """(definition, path of its nodes) of each definition that runs somewhere."""
    running = {node.id.rpartition(":")[0] for node in graph.nodes.values() if node.mode == ON}
    waiting: list[tuple[str, Mapping[str, Any]]] = [("", saved)]
    seen: set[str] = set()
    for path, canvas in waiting:
        for node in mappings(canvas.get("nodes")):
            identity, own = text(node.get("type")), f"{path}{name_of(node.get('id'))}"
            if identity in definitions and identity not in seen:
                waiting.append((f"{own}:", definitions[identity]))
                if own in running:
                    seen.add(identity)
                    yield identity, f"{own}:"


def _last_node(canvas: Mapping[str, Any]) -> int:
    ids = [node.get("id") for node in mappings(canvas.get("nodes"))]
    return _most(*ids, canvas.get("last_node_id"), mapping(canvas.get("state")).get("lastNodeId"))


def _last_link(canvas: Mapping[str, Any]) -> int:
    links = entries(canvas.get("links"))
    ids = [link.get("id") if isinstance(link, Mapping) else next(iter(entries(link)), None) for link in links]
    return _most(*ids, canvas.get("last_link_id"), mapping(canvas.get("state")).get("lastLinkId"))


def _most(*numbers: object) -> int:
    return max((number for number in numbers if isinstance(number, int)), default=0)


def count_on(saved: dict[str, Any], levels: list[CanvasLevel]) -> None:
    """Write down what was taken away, and the last ids that are in use now."""
    for level in levels:
        level.settle()
    numbers = levels[0].numbers
    for canvas in (saved, *definitions_of(saved)):
        for owner, node, link in (
            (canvas, "last_node_id", "last_link_id"),
            (canvas.get("state"), "lastNodeId", "lastLinkId"),
        ):
            if isinstance(owner, dict):
                owner.update(
                    {key: value for key, value in ((node, numbers.node), (link, numbers.link)) if key in owner}
                )
