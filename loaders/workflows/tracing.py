"""Every model of a workflow followed from where it is sampled or saved down to the file it begins with.

A ``Trail`` is one such way: the loader, and what is applied on it, bottom first. Switches give several trails; a merge
ends one, for what lies below it is no single stack. Nothing here reads a file.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from ...engine.errors import FoundryError
from ...engine.findings import Finding
from ...engine.plan import FUSE, STACK
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
    Loader,
    Switch,
)
from .node_values import LoraRow, rows_of, word

MAX_TRAILS = 32  # kept for one node: more switches than anybody wires
MAX_ROWS = 500  # of one trail, as of a stack
Wire = tuple[str, tuple[str, int]]  # an input and what is wired into it


@dataclass(frozen=True)
class Source:
    """The loader a trail begins with. ``quantized`` says how it makes 8 bits or less of any file, None if not.

    ``beside``: LoRAs stay apart from its quantized weights. ``dequantize``: ours, told to take a quantized file.
    """

    node: str = ""
    name: str = ""
    folders: tuple[str, ...] = ()
    quantized: str | None = None
    beside: bool = False
    ours: bool = False
    dequantize: bool = False


@dataclass(frozen=True)
class Applied:
    """A LoRA on a trail. ``native``: by no node of ours. ``beside``: apart from the weights. ``late``: the node that
    quantized the model before this LoRA came."""

    row: LoraRow
    node: str
    stage: str = STACK
    native: bool = True
    beside: bool = False
    late: str = ""


@dataclass(frozen=True)
class Trail:
    """One model: its source, the LoRAs on it, bottom first, the nodes passed. ``vanilla``: a choice to fuse none."""

    source: Source = Source()
    applied: tuple[Applied, ...] = ()
    nodes: tuple[str, ...] = field(default=(), compare=False)
    vanilla: bool = False
    quantized_at: str = ""
    problems: tuple[Finding, ...] = ()


def model_links(node: GraphNode) -> tuple[str, ...]:
    """The nodes a model comes from: over a model input, else inside a pipe, a context or a guider, each once."""
    if switch := SWITCHES.get(node.kind):
        return _switched(node, switch)
    return tuple(dict.fromkeys(source for _, (source, _) in _model_wires(node)))


def _model_wires(node: GraphNode) -> list[Wire]:
    """The wires a model comes in by; what a switch does not hand on is none."""
    if node.kind in SWITCHES:
        handed_on = _switched(node, SWITCHES[node.kind])
        return [(name, link) for name, link in sorted(node.links.items()) if link[0] in handed_on]
    for pattern, types in ((MODEL_INPUT, MODEL_TYPES), (CARRIER_INPUT, CARRIER_TYPES)):
        if found := _wires(node, pattern, types):
            return found
    return []


def _switched(node: GraphNode, switch: Switch) -> tuple[str, ...]:
    """What a switch hands on: what it is set to, or all it may be while that is only known at run time."""
    wired = {name: source for name, (source, _) in sorted(node.links.items()) if re.fullmatch(switch.inputs, name)}
    name = chosen_input(switch, node, node.values.get(switch.selector))
    if name is None:
        return tuple(dict.fromkeys(wired.values()))
    return (wired[name],) if name in wired else ()


def linked(node: GraphNode, pattern: re.Pattern[str], types: frozenset[str]) -> tuple[str, ...]:
    """Sources of inputs that are of one of these types, or, where the type is not told, are called like this."""
    return tuple(dict.fromkeys(source for _, (source, _) in _wires(node, pattern, types)))


def _wires(node: GraphNode, pattern: re.Pattern[str], types: frozenset[str]) -> list[Wire]:
    found = []
    for name, link in node.links.items():
        told = {each for each in node.inputs.get(name, "*").upper().split(",") if each not in ("*", "")}
        if told & types if told else pattern.fullmatch(name):
            found.append((name, link))
    return found


def trails(graph: Graph) -> dict[str, tuple[Trail, ...]]:
    """Node id -> the models that may come out of it, for every node that a model passes or begins at.

    Of a node with two models the first is under its id and the second under ``second`` of it.
    """
    found: dict[str, tuple[Trail, ...]] = {}
    for node, lane in _bottom_up(graph):
        sources = _sources(graph, node, lane)
        below = [trail for source in sources for trail in found.get(source, ())]
        if MERGES.search(node.kind):
            below = [Trail(Source(node.id, f"a merge of models (node {node.id})"))]
        elif not sources:
            below = [Trail(_source(node))]
        passed = (_through(graph, node, trail, lane) for trail in below)
        found[second(node.id) if lane else node.id] = tuple(dict.fromkeys(passed))[:MAX_TRAILS]
    return found


def second(node_id: str) -> str:
    """The key of the second model of a node with two (``PAIRS``)."""
    return f"{node_id}#2"


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
            node_id = key.removesuffix(second(""))
            lane = int(node_id != key)
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
            yield from (node.id, second(node.id)) if node.kind in PAIRS else (node.id,)


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


def _through(graph: Graph, node: GraphNode, trail: Trail, lane: int = 0) -> Trail:
    """The trail after one more node."""
    try:
        rows = tuple(_applied(graph, node, trail, lane))
    except FoundryError as error:
        rows, trail = (), replace(trail, problems=(*trail.problems, error.finding(node=node.id)))
    nothing_fused = not rows and all(each.stage != FUSE for each in trail.applied)
    return replace(
        trail,
        applied=(*trail.applied, *rows)[:MAX_ROWS],
        nodes=(*trail.nodes, node.id),
        vanilla=nothing_fused if node.kind == FUSE_NODE else trail.vanilla,
        quantized_at=node.id if node.kind == QUANTIZE_NODE else trail.quantized_at,
    )


def _applied(graph: Graph, node: GraphNode, trail: Trail, lane: int) -> Iterator[Applied]:
    beside = trail.source.beside or LORA_NODES.get(node.kind, LoraNode()).beside
    stage = FUSE if node.kind == FUSE_NODE else STACK
    rows = lora_rows(graph, node)
    for row in _of_lane(rows, lane) if node.kind in PAIRS else rows:
        yield Applied(row, node.id, stage, node.kind not in STAGES, beside or row.beside, trail.quantized_at)


def _of_lane(rows: Iterable[LoraRow], lane: int) -> list[LoraRow]:
    """The rows that go onto the first or the second model of a node with two."""
    return [replace(row, half="") for row in rows if row.half in ("", HALVES[lane])]


def halves(trail: Trail) -> tuple[Trail, ...]:
    """A trail once for each model that it stands for: nodes may hold those of high and of low noise as one."""
    if not any(each.row.half for each in trail.applied):
        return (trail,)
    return tuple(replace(trail, applied=tuple(_on(trail, half))) for half in HALVES)


def _on(trail: Trail, half: str) -> Iterator[Applied]:
    yield from (each for each in trail.applied if each.row.half in ("", half))


def lora_rows(graph: Graph, node: GraphNode) -> list[LoraRow]:
    """The LoRAs a node puts on its model, in the order it does. Raises FoundryError for a bad list of ours."""
    own, listed = list(rows_of(node)), list(_stack_rows(graph, node))
    return own + listed if LORA_NODES.get(node.kind, LoraNode()).own_first else listed + own


def _stack_rows(graph: Graph, node: GraphNode) -> Iterator[LoraRow]:
    """The rows of every list of LoRAs that is wired in, the first of a chain first."""
    waiting, chain = [node], []
    seen = {node.id}
    while waiting:
        for _, link in _wires(waiting.pop(), STACK_INPUT, STACK_TYPES):
            above = graph.nodes.get(link[0])
            if above is not None and above.id not in seen:
                seen.add(above.id)
                chain.append((above, link))
                waiting.append(above)
    for above, link in reversed(chain):
        rows = rows_of(above)
        yield from _of_lane(rows, int(_is_second(graph, link))) if above.kind in PAIRS else rows
