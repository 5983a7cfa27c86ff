"""What a workflow says of LoRAs that could not be followed: a node nobody knows, a name only the run knows.

A LoRA counts as followed once it lies on the way of a model to where that is sampled, saved or trained on. One that is
switched off, or that nothing takes, plays no part.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ...engine.errors import FoundryError
from .graph import ON, Graph, GraphNode
from .lora_kinds import LORA_NODES, NO_MODEL_LORAS, NO_MODEL_TYPES
from .node_kinds import (
    CARRIER_TYPES,
    FILE_ENDINGS,
    LIST_ENDS,
    LOADERS,
    MERGES,
    MODEL_TYPES,
    OTHER_INPUT,
    SCHEDULERS,
    STACK_INPUT,
    STACK_TYPES,
    SWITCHES,
    TRAINERS,
    TRAINING,
)
from .node_values import is_lora_node, named_loras, rows_of, wired_names
from .sampling import ends
from .tracing import linked, model_links

MOST_STEPS = 100_000  # down from LoRAs that were not followed, in one graph
CARRYING = MODEL_TYPES | CARRIER_TYPES | STACK_TYPES | {"*", "HOOKS"}


@dataclass(frozen=True)
class Unread:
    """LoRAs that nothing was said of. ``at`` is the node they are lost in; without one, ``nodes`` cannot be read.

    ``loras`` are their names where those could be read.
    """

    nodes: tuple[str, ...]
    loras: tuple[str, ...] = ()
    at: str = ""


def unread(graph: Graph) -> tuple[tuple[Unread, ...], int]:
    """Every group of LoRAs that could not be followed, in the order of the nodes: of a settled graph.

    The second is how many nodes with LoRAs were not looked at, after ``MOST_STEPS``.
    """
    walk = _Walk(graph)
    lost: dict[str, list[str]] = {}
    blind = []
    left_out = 0
    for node in graph.nodes.values():
        if node.mode != ON or not walk.brings_loras(node):
            continue
        if walk.steps > MOST_STEPS and node.id not in walk.followed:
            left_out += 1
            continue
        sinks = () if node.id in walk.followed else walk.sinks(node.id)
        if is_blind(graph, node) and (sinks or node.id in walk.followed):
            blind.append(Unread((node.id,)))
        elif sinks and _names(node):
            lost.setdefault(sinks[0], []).append(node.id)
    found = [Unread(tuple(nodes), tuple(_names_of(graph, nodes)), at) for at, nodes in lost.items()]
    return (*found, *blind), left_out


def is_blind(graph: Graph, node: GraphNode) -> bool:
    """Whether a node names a LoRA in a way that cannot be read: by a wire, or by an input nobody knows."""
    if any(wired_names(node)):
        return True
    if _read(node) or (node.kind in LORA_NODES and not node.unnamed):
        return False
    files = any(_is_file(value) for value in (*node.values.values(), *node.unnamed))
    return files or (node.kind not in LORA_NODES and _is_list_alone(graph, node))


def _is_list_alone(graph: Graph, node: GraphNode) -> bool:
    """Whether a node makes a list of LoRAs out of nothing that was read: the wire is typed so, and nothing comes in."""
    source = graph.nodes.get(next(iter(linked(node, STACK_INPUT, STACK_TYPES)), ""))
    return _lists_loras(node) and source is None and not _says_none(node)


def _says_none(node: GraphNode) -> bool:
    """Whether all words of a node are such as stand where nothing is chosen."""
    words = [value for value in (*node.values.values(), *node.unnamed) if isinstance(value, str)]
    return bool(words) and all(word.strip().lower() in ("", "none", "[none]") for word in words)


def _lists_loras(node: GraphNode) -> bool:
    """Whether a node makes a list of LoRAs, by the types of its outputs."""
    return any("LORA" in made.upper() and made.upper() not in NO_MODEL_TYPES for made in node.outputs)


def _is_file(value: object) -> bool:
    return isinstance(value, str) and value.strip().lower().endswith(FILE_ENDINGS)


def _names(node: GraphNode) -> list[str]:
    """The LoRAs of a node that do something."""
    try:
        return [row.name for row in rows_of(node)]
    except FoundryError:  # told where the list is read
        return []


def _read(node: GraphNode) -> bool:
    """Whether a node names LoRAs in a way that is known, at any strength, or so badly that it is told."""
    try:
        return bool(named_loras(node))
    except FoundryError:
        return True


def _names_of(graph: Graph, nodes: list[str]) -> Iterator[str]:
    for node in nodes:
        yield from _names(graph.nodes[node])


class _Walk:
    """The ways of LoRAs through one graph, downwards."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        used = (node.id for node in graph.nodes.values() if node.mode == ON and node.kind in LIST_ENDS)
        self._ends = {*used, *(end.node for end in ends(graph))}
        self._takers = _takers(graph)
        self.steps = 0  # of all ways down that were taken
        self.followed = frozenset(self._above(self._ends))

    def brings_loras(self, node: GraphNode) -> bool:
        """Whether a node may name LoRAs for a model."""
        if node.kind in (*NO_MODEL_LORAS, *TRAINERS) or (node.kind in LOADERS and node.kind not in LORA_NODES):
            return False
        return (is_lora_node(node) and not TRAINING.search(node.kind)) or _lists_loras(node)

    def _above(self, starts: set[str]) -> Iterator[str]:
        """Every node that is read on the way up from where models are used up; merges are not looked into."""
        seen, queue = set(starts), list(starts)
        for identity in queue:
            yield identity
            node = self._graph.nodes[identity]
            models = () if MERGES.search(node.kind) else model_links(node)
            for source in (*models, *linked(node, STACK_INPUT, STACK_TYPES)):
                if source in self._graph.nodes and source not in seen:
                    seen.add(source)
                    queue.append(source)

    def sinks(self, start: str) -> tuple[str, ...]:
        """The nodes in which what comes out of ``start`` is lost, those that sample first; none: nothing takes it."""
        seen, queue, found = {start}, [start], []
        for identity in queue:
            self.steps += 1
            for taker in self._takers.get(identity, ()):
                if taker in seen:
                    continue
                seen.add(taker)
                node = self._graph.nodes[taker]
                if self._passes_on(node, identity):
                    queue.append(taker)
                if not self._passes_on(node, identity) or self._ends_here(node):
                    found.append(taker)
        return tuple(sorted(found, key=lambda each: "sampl" not in self._graph.nodes[each].kind.lower()))

    def _passes_on(self, node: GraphNode, source: str) -> bool:
        known = (*model_links(node), *linked(node, STACK_INPUT, STACK_TYPES))
        return source in known and not MERGES.search(node.kind)

    def _ends_here(self, node: GraphNode) -> bool:
        """Whether nothing takes what a node makes although it makes no model: it may sample, in an unknown way."""
        makes_models = not CARRYING.isdisjoint(node.outputs) or is_lora_node(node)
        return not makes_models and not self._takers.get(node.id)


def _takers(graph: Graph) -> Mapping[str, list[str]]:
    """Node id -> the running nodes that take a model or LoRAs from it; a switch takes only what it is set to."""
    found: dict[str, list[str]] = {}
    for node in graph.nodes.values():
        chosen = model_links(node) if node.kind in SWITCHES else None
        for name, (source, _) in node.links.items() if node.mode == ON and node.kind not in SCHEDULERS else ():
            if _carries(node, name) and (chosen is None or source in chosen):
                found.setdefault(source, []).append(node.id)
    return found


def _carries(node: GraphNode, name: str) -> bool:
    """Whether a model or LoRAs may come in by an input: by its type, or, where that is not told, by its name."""
    told = {each for each in node.inputs.get(name, "*").upper().split(",") if each}
    if told - {"*"}:
        return not CARRYING.isdisjoint(told) or any("LORA" in each for each in told)
    return not re.fullmatch(OTHER_INPUT, name)
