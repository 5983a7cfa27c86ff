"""Every model of a workflow followed from where it is sampled or saved down to the file it begins with.

A ``Trail`` is one such way: the loader, and what is applied on it, bottom first. Switches give several trails; a merge
ends one, for what lies below it is no single stack. Nothing here reads a file.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import lru_cache
from typing import Any

from ...engine.errors import FoundryError
from ...engine.findings import Finding
from ...engine.plan import FUSE, STACK
from ...validator.stacks import POLICIES
from ..bases.dequantize import DEQUANTIZE
from .constants import chosen_input
from .graph import Graph, GraphNode
from .lora_kinds import HALVES, LORA_NODES, LoraNode
from .node_kinds import (
    CARRIER_INPUT,
    CARRIER_TYPES,
    FILE_INPUTS,
    FUSE_NODE,
    GGUF,
    LOADERS,
    MERGES,
    MODEL_INPUT,
    MODEL_TYPES,
    OUR_LOADERS,
    PAIRS,
    QUANTIZE_NODE,
    STACK_INPUT,
    STACK_TYPES,
    STAGES,
    SWITCHES,
    UNKNOWN_LOADER,
    VALIDATOR_NODE,
    Loader,
    Switch,
)
from .node_values import LoraRow, rows_of, word
from .trail import Applied, Chain, Source, Trail

MAX_TRAILS = 32  # kept for one node: more switches than anybody wires
MAX_ROWS = 500  # of one trail, as of a stack; LoRAs beyond it are counted
MAX_STEPS = 60_000  # of all trails through all nodes together
MAX_PROBLEMS = 20  # told of one trail
MAX_LIST, FEW = 5000, 32  # nodes of one list of LoRAs that are read; after MAX_STEPS in one graph, a few of each
Wire = tuple[str, tuple[str, int]]  # an input and what is wired into it


def model_links(node: GraphNode) -> tuple[str, ...]:
    """The nodes a model comes from: over a model input, else inside a pipe, a context or a guider, each once."""
    if "models" not in node.memo:
        node.memo["models"] = _model_links(node)
    found: tuple[str, ...] = node.memo["models"]
    return found


def _model_links(node: GraphNode) -> tuple[str, ...]:
    return tuple(dict.fromkeys(source for _, (source, _) in _model_wires(node)))


def _model_wires(node: GraphNode) -> list[Wire]:
    """The wires a model comes in by; what a switch does not hand on is none."""
    if switch := SWITCHES.get(node.kind):
        return _switched(node, switch)
    for pattern, types in ((MODEL_INPUT, MODEL_TYPES), (CARRIER_INPUT, CARRIER_TYPES)):
        if found := _wires(node, pattern, types):
            return found
    return []


def _switched(node: GraphNode, switch: Switch) -> list[Wire]:
    """What a switch hands on: what it is set to, or all it may be while that is only known at run time."""
    wired = [(name, link) for name, link in sorted(node.links.items()) if re.fullmatch(switch.inputs, name)]
    chosen = chosen_input(switch, node, node.values.get(switch.selector))
    return [(name, link) for name, link in wired if chosen in (None, name)]


def linked(node: GraphNode, pattern: re.Pattern[str], types: frozenset[str]) -> tuple[str, ...]:
    """Sources of inputs that are of one of these types, or, where the type is not told, are called like this."""
    return tuple(dict.fromkeys(source for _, (source, _) in _wires(node, pattern, types)))


def _wires(node: GraphNode, pattern: re.Pattern[str], types: frozenset[str]) -> list[Wire]:
    found = []
    for name, link in node.links.items():
        told = _told(node.inputs[name]) if name in node.inputs else None
        if told & types if told else pattern.fullmatch(name):
            found.append((name, link))
    return found


@lru_cache(maxsize=1024)
def _told(kind: str) -> frozenset[str]:
    """The types of a socket, but for those that say nothing."""
    return frozenset(kind.upper().split(",")) - {"*", ""}


class Trails(dict[str, tuple[Trail, ...]]):
    """Node id -> the models that may come out of it. ``cut`` counts the nodes at which some were left out."""

    cut = 0


def trails(graph: Graph) -> Trails:
    """The models that may come out of every node that one passes or begins at.

    Of a node with several models the first is under its id and every other under its ``lane_key``.
    After ``MAX_STEPS`` a node keeps its first trail only, and after as many again there are no more.
    """
    found = Trails()
    shared: dict[tuple[Any, ...], Chain] = {}
    steps = 0
    for node, lane in _bottom_up(graph):
        sources = _sources(graph, node, lane)
        below = [trail for source in sources for trail in found.get(source, ())]
        if MERGES.search(node.kind):
            below = [Trail(Source(node.id, f"a merge of models (node {node.id})"))]
        elif not sources:
            below = [Trail(_source(node))]
        kept = below if steps < MAX_STEPS else below[:1] if steps < 2 * MAX_STEPS else []
        steps += len(kept)
        through = _Through(graph, node, lane, shared) if kept else None
        steps += through.size if through else 0
        passing = tuple(dict.fromkeys(map(through.after, kept))) if through else ()
        found[lane_key(node.id, lane)] = passing[:MAX_TRAILS]
        found.cut += len(kept) < len(below) or len(passing) > MAX_TRAILS
    return found


def lane_key(node_id: str, lane: int) -> str:
    """The key of one of the models of a node with several (``PAIRS``); ``lane`` is 0 for the first."""
    return f"{node_id}#{lane + 1}" if lane else node_id


def second(node_id: str) -> str:
    """The key of the second model of a node with several."""
    return lane_key(node_id, 1)


def _sources(graph: Graph, node: GraphNode, lane: int) -> list[str]:
    """Where a model of a node comes from, as keys of ``trails``. ``lane`` is 1 for its second."""
    inputs = PAIRS.get(node.kind)
    wires = [(name, link) for name, link in _model_wires(node) if inputs is None or name == inputs[lane]]
    return list(dict.fromkeys(second(link[0]) if _is_second(graph, link) else link[0] for _, link in wires))


def _is_second(graph: Graph, link: tuple[str, int]) -> bool:
    """Whether a link brings the second model, or list, of a node with two."""
    source, output = link
    return output == 1 and source in graph.nodes and graph.nodes[source].kind in PAIRS


def _bottom_up(graph: Graph) -> Iterator[tuple[GraphNode, int]]:
    """Nodes that touch models, each after those it takes a model from (a ring is cut somewhere), and which model."""
    seen: set[str] = set()
    for start in _users(graph):
        stack = [(start, False)]
        while stack:
            key, ready = stack.pop()
            lane = next((lane for lane in (1, 2) if key.endswith(lane_key("", lane))), 0)
            node_id = key.removesuffix(lane_key("", lane))
            node = graph.nodes.get(node_id)
            if node is None or (key in seen and not ready):
                continue
            seen.add(key)
            if ready:
                yield node, lane
            else:
                stack += [(key, True), *((source, False) for source in reversed(_sources(graph, node, lane)))]


def _users(graph: Graph) -> Iterator[str]:
    for node in graph.nodes.values():
        if node.kind in STAGES or model_links(node):
            yield from (lane_key(node.id, lane) for lane, _ in enumerate(PAIRS.get(node.kind, ("",))))


def _source(node: GraphNode) -> Source:
    loader = LOADERS.get(node.kind)
    if loader is None:
        name = next((text for key in FILE_INPUTS if (text := word(node, key))), "")
        return Source(node.id, name, (), quantized_by(node), _beside(UNKNOWN_LOADER, node))
    name = word(node, loader.name)
    ours = node.kind in OUR_LOADERS
    dequantize = ours and node.values.get("on_quantized_base") == DEQUANTIZE
    return Source(node.id, name, loader.folders, quantized_by(node), _beside(loader, node), ours, dequantize)


def quantized_by(node: GraphNode) -> str | None:
    """How a loader quantizes what it loads, None where it does not, or only the file tells."""
    loader = LOADERS.get(node.kind, UNKNOWN_LOADER)
    asked = node.values.get(loader.dtype) if loader.dtype not in node.links else None
    if isinstance(asked, str) and re.match(r"fp8|int8|.*qfloat8", asked):
        return asked
    is_gguf = any(str(node.values.get(key, "")).lower().endswith(".gguf") for key in (loader.name, *FILE_INPUTS))
    return loader.quantized or (GGUF if is_gguf else None)


def _beside(loader: Loader, node: GraphNode) -> bool:
    """Whether LoRAs stay apart from what this loader makes of its file."""
    scaled = any("scaled" in str(node.values.get(key, "")) for key in (loader.name, loader.dtype))
    return loader.beside or quantized_by(node) == GGUF or (loader.scaled_beside and scaled)


class _Through:
    """One node, or one model of a node with two, for every trail that passes: what it puts on a model is read once."""

    def __init__(self, graph: Graph, node: GraphNode, lane: int, shared: dict[tuple[Any, ...], Chain]) -> None:
        self._node, self._lane, self._shared = node, lane, shared
        self._rows: list[LoraRow] = []
        self._problem: tuple[Finding, ...] = ()
        try:
            rows = lora_rows(graph, node)
            self._rows = _of_lane(rows, lane) if node.kind in PAIRS else rows
        except FoundryError as error:
            self._problem = (error.finding(node=node.id),)

    @property
    def size(self) -> int:
        """How many LoRAs it puts on a model."""
        return len(self._rows)

    def after(self, trail: Trail) -> Trail:
        """The trail after this node."""
        node, size = self._node, trail.top.size
        more = self._rows[: max(0, MAX_ROWS - size)]
        kept: dict[str, Any] = {"path": Chain(node.id, trail.path)}
        if self._rows:
            kept |= {"top": self._on(trail, more), "left_out": trail.left_out + len(self._rows) - len(more)}
        if node.kind == FUSE_NODE:
            kept |= {"vanilla": not self._rows and not trail.fused, "fused": trail.fused or bool(more)}
        if node.kind == QUANTIZE_NODE:
            kept["quantized_at"] = node.id
        if self._problem and len(trail.problems) < MAX_PROBLEMS:
            kept["problems"] = (*trail.problems, *self._problem)
        if node.kind == VALIDATOR_NODE:
            asked = node.values.get("policy")
            kept["policy"] = asked if asked in POLICIES else trail.policy
            kept["strict"] = trail.strict or node.values.get("strict") is True
        return replace(trail, **kept)

    def _on(self, trail: Trail, rows: Iterable[LoraRow]) -> Chain:
        """The LoRAs of a trail with these on top; the same ones on the same chain are one chain."""
        node, top = self._node, trail.top
        beside = trail.source.beside or LORA_NODES.get(node.kind, LoraNode()).beside
        stage = FUSE if node.kind == FUSE_NODE else STACK
        for number, row in enumerate(rows):
            key = (top, node.id, self._lane, number, beside, trail.quantized_at)
            if key not in self._shared:
                native = node.kind not in STAGES
                applied = Applied(row, node.id, stage, native, beside or row.beside, trail.quantized_at)
                self._shared[key] = Chain(applied, top, top.halved or bool(row.half))
            top = self._shared[key]
        return top


def _of_lane(rows: Iterable[LoraRow], lane: int) -> list[LoraRow]:
    """The rows that go onto the first or the second model of a node with two."""
    return [replace(row, half="") for row in rows if row.half in ("", *HALVES[lane : lane + 1])]


def lora_rows(graph: Graph, node: GraphNode) -> list[LoraRow]:
    """The LoRAs a node puts on its model, in the order it does. Raises FoundryError for a bad list of ours."""
    own, listed = list(rows_of(node)), list(_stack_rows(graph, node))
    return own + listed if LORA_NODES.get(node.kind, LoraNode()).own_first else listed + own


def _list_links(node: GraphNode) -> list[tuple[str, int]]:
    """What lists of LoRAs come from: nodes and their outputs."""
    if "lists" not in node.memo:
        node.memo["lists"] = [link for _, link in _wires(node, STACK_INPUT, STACK_TYPES)]
    found: list[tuple[str, int]] = node.memo["lists"]
    return found


def _stack_rows(graph: Graph, node: GraphNode) -> Iterator[LoraRow]:
    """The rows of every list of LoRAs that is wired in, the first of a chain first."""
    for above, link in _listed(graph, node):
        rows = rows_of(above)
        yield from _of_lane(rows, int(_is_second(graph, link))) if above.kind in PAIRS else rows


def list_nodes(graph: Graph, node: GraphNode) -> list[GraphNode]:
    """The nodes whose lists of LoRAs are wired into a node, one after the other, the first of a chain first."""
    return [above for above, _ in _listed(graph, node)]


def _listed(graph: Graph, node: GraphNode) -> list[tuple[GraphNode, tuple[str, int]]]:
    """Those nodes, and the link by which each came."""
    read = graph.memo.get("lists", 0)
    most = MAX_LIST if read < MAX_STEPS else FEW
    waiting, chain = [node], list[tuple[GraphNode, tuple[str, int]]]()
    seen = {node.id}
    while waiting and len(chain) < most:
        for link in _list_links(waiting.pop()):
            above = graph.nodes.get(link[0])
            if above is not None and above.id not in seen:
                seen.add(above.id)
                chain.append((above, link))
                waiting.append(above)
    graph.memo["lists"] = read + len(chain)
    return list(reversed(chain))
