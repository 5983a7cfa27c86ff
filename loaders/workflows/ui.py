"""The form the browser saves (nodes on a canvas, subgraphs beside it) as a Graph: what would run, and what stands idle.

Links are followed as the frontend does when it queues: out of and into subgraphs, through reroutes and Get/Set nodes,
around bypassed nodes by socket type, and along wires that cg-use-everywhere notes in ``extra.ue_links``. Nodes of a
muted or bypassed subgraph count as muted or bypassed. Group nodes, the older way to fold a graph, are not followed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ...engine.errors import FoundryError
from ...engine.texts.say import refuse
from ..disk.header import shown
from .canvas import (
    ANY,
    ENTRY,
    SETTERS,
    Canvas,
    DrawnNode,
    Socket,
    definitions,
    entries,
    mapping,
    name_of,
    read_canvas,
    text,
)
from .graph import BYPASSED, MAX_NODES, MUTED, ON, Graph, GraphNode

MAX_DEPTH = 64
REROUTES = ("Reroute", "Reroute (rgthree)", *SETTERS)  # what comes in at a slot goes out at the same slot
GETTERS = ("GetNode", "easy getNode")
PRIMITIVE = "PrimitiveNode"
ON_CANVAS = (  # notes and remote controls: wired up or not, no value passes through them
    *("Note", "MarkdownNote", "Label (rgthree)", "Bookmark (rgthree)"),
    *("Fast Muter (rgthree)", "Fast Bypasser (rgthree)", "Fast Actions Button (rgthree)", "Random Unmuter (rgthree)"),
    *("Fast Groups Muter (rgthree)", "Fast Groups Bypasser (rgthree)", "Node Collector (rgthree)"),
    *("Mute / Bypass Repeater (rgthree)", "Mute / Bypass Relay (rgthree)"),
)
NEVER_SENT = {*REROUTES, *GETTERS, PRIMITIVE, *ON_CANVAS}
OWN = "-1"  # in proxyWidgets: a widget of the subgraph's own inputs, not of a node inside


@dataclass
class Level:
    """One use of a canvas: the workflow itself, or a subgraph node of ``outer`` opened up. ``path`` is "" or "3:12:".

    ``idle`` is the mode of the subgraph node when it is not on, ``given`` are the values its own widgets hold.
    """

    canvas: Canvas
    path: str = ""
    outer: Level | None = None
    host: DrawnNode | None = None
    idle: str = ""
    kinds: tuple[str, ...] = ()
    given: dict[str, Any] = field(default_factory=dict)
    inner: dict[str, Level] = field(default_factory=dict)

    def mode(self, node: DrawnNode) -> str:
        """The mode a node really has: that of the subgraph node around it comes first."""
        return self.idle or node.mode


class Hop(NamedTuple):
    """A link still to be followed, on behalf of an input of type ``wanted``."""

    level: Level
    link: str
    wanted: str


class Output(NamedTuple):
    """The end of a link: an output of a node that runs."""

    node: str
    output: int


class Value(NamedTuple):
    """The end of a link: a widget's value."""

    value: Any


class Lost(NamedTuple):
    """The end of a link: a node that is muted, bypassed with nothing to pass on, or not there."""

    node: str


End = Output | Value | Lost | None  # None: nothing is wired after all
Ends = dict[tuple[str, str, str], End]  # (level, link, type wanted) -> end: long chains are walked once


def graph_of_canvas(saved: Mapping[str, Any], where: str) -> Graph:
    """The graph of a workflow in UI form. Raises FoundryError where its subgraphs have no end."""
    overrides: dict[str, dict[str, Any]] = {}
    ends: Ends = {}
    levels = _open(read_canvas(saved), definitions(saved), overrides, where)
    nodes = (
        _finished(level, node, overrides, ends)
        for level in levels
        for node in level.canvas.nodes.values()
        if node.id not in level.inner and node.kind not in NEVER_SENT
    )
    return Graph({node.id: node for node in nodes})


def _open(
    canvas: Canvas, canvases: Mapping[str, Canvas], overrides: dict[str, dict[str, Any]], where: str
) -> list[Level]:
    """Every level, outermost first. Fills ``overrides``: what subgraph nodes set in nodes inside, by their id."""
    levels, total = [Level(canvas)], 0
    for level in levels:  # grows while it is read
        total += len(level.canvas.nodes)
        if total > MAX_NODES or len(level.kinds) > MAX_DEPTH:
            raise _endless(where, f"its subgraphs unfold to more than {MAX_NODES} nodes or {MAX_DEPTH} levels")
        for node in level.canvas.nodes.values():
            if node.kind in level.kinds:
                raise _endless(where, f"subgraph {shown(node.kind)} contains itself")
            if node.kind in canvases:
                levels.append(_entered(level, node, canvases[node.kind], overrides))
    return levels


def _endless(where: str, what: str) -> FoundryError:
    return refuse("workflow.endless", file=shown(where), what=what)


def _entered(level: Level, node: DrawnNode, canvas: Canvas, overrides: dict[str, dict[str, Any]]) -> Level:
    """The inside of a subgraph node, with the values its widgets hold handed out."""
    path = f"{level.path}{node.id}:"
    mode = level.mode(node)
    inside = Level(canvas, path, level, node, "" if mode == ON else mode, (*level.kinds, node.kind))
    for owner, name, value in _widgets(node, canvas):
        if owner == OWN:
            inside.given[name] = value
        elif value is not None:  # older frontends keep the value inside and leave a gap here
            overrides.setdefault(path + owner, {}).setdefault(name, value)
    level.inner[node.id] = inside
    return inside


def _widgets(node: DrawnNode, canvas: Canvas) -> Iterator[tuple[str, str, Any]]:
    """(owner, name, value) of a subgraph node's widgets: as ``proxyWidgets`` lists them, or those of its inputs."""
    listed = entries(mapping(node.saved.get("properties")).get("proxyWidgets"))
    owners = [(name_of(entry[0]) or "", text(entry[1])) for entry in map(entries, listed) if len(entry) >= 2]
    owners = owners or [(OWN, name) for name in canvas.promoted]
    by_name = mapping(node.saved.get("widgets_values_named")) or mapping(node.saved.get("widgets_values"))
    if by_name:
        yield from ((owner, name, by_name[name]) for owner, name in owners if name in by_name)
    yield from ((owner, name, value) for (owner, name), value in zip(owners, node.value_list(), strict=False))


def _finished(level: Level, node: DrawnNode, overrides: Mapping[str, Mapping[str, Any]], ends: Ends) -> GraphNode:
    """A node with its inputs followed to their ends."""
    identity = level.path + node.id
    values, unnamed = node.values()
    values.update(overrides.get(identity, {}))
    links: dict[str, tuple[str, int]] = {}
    lost: dict[str, str] = {}
    for socket in node.inputs:
        end = _follow(Hop(level, socket.link, socket.type), ends) if socket.link is not None else None
        if isinstance(end, Value):
            values[socket.name] = end.value
        elif end is not None:  # a wire wins over the widget behind it, even one that brings nothing
            values.pop(socket.name, None)
            if isinstance(end, Output):
                links[socket.name] = (end.node, end.output)
            else:
                lost[socket.name] = end.node
    types = {socket.name: socket.type for socket in node.inputs}
    mode, title = level.mode(node), node.title or node.kind
    return GraphNode(identity, node.kind, values, links, mode, title, types, node.outputs, lost, unnamed)


def _follow(hop: Hop, ends: Ends) -> End:
    """Where a link comes from in the end."""
    walked = []
    while (here := (hop.level.path, hop.link, hop.wanted)) not in ends:
        ends[here] = None  # what a circle finds when it comes back here
        walked.append(here)
        wire = hop.level.canvas.links.get(hop.link)
        onward = _behind(hop.level, *wire, hop.wanted) if wire else None
        if not isinstance(onward, Hop):
            ends[here] = onward
            break
        hop = onward
    end = ends[here]
    ends.update(dict.fromkeys(walked, end))
    return end


def _behind(level: Level, source: str, output: int, wanted: str) -> Hop | End:
    """What feeds an output: the node itself, or the next link to follow."""
    if level.outer and source == ENTRY:
        return _out_of(level, output)
    node = level.canvas.nodes.get(source)
    if node is None:
        return Lost(level.path + source)
    if node.mode == BYPASSED:
        return _around(level, node, output, wanted)
    if source in level.inner:
        inside = level.inner[source]
        return _hop(inside, inside.canvas.exits.get(output), wanted)
    if node.kind == PRIMITIVE:
        values = node.value_list()
        return Value(values[0]) if values else None
    if node.kind in REROUTES:
        return _hop(level, node.inputs[output].link, wanted) if output < len(node.inputs) else None
    if node.kind in GETTERS:
        return _from_setter(level, node, wanted)
    return Lost(level.path + source) if level.mode(node) == MUTED else Output(level.path + source, output)


def _hop(level: Level, link: str | None, wanted: str) -> Hop | None:
    return None if link is None else Hop(level, link, wanted)


def _out_of(level: Level, slot: int) -> Hop | End:
    """Through an input of the subgraph to what is wired to it outside, or to the value its widget holds."""
    if level.outer is None or level.host is None or slot >= len(level.canvas.inputs):
        return None
    name = level.canvas.inputs[slot]
    socket = level.host.input(name)
    if socket and socket.link is not None:
        return Hop(level.outer, socket.link, socket.type)
    return Value(level.given[name]) if level.given.get(name) is not None else None


def _from_setter(level: Level | None, getter: DrawnNode, wanted: str) -> Hop | None:
    """To the SetNode of the same name, on this level or one around it."""
    name = text(next(iter(getter.value_list()), None))
    while level:
        if setter := level.canvas.setters.get(name):
            return _hop(level, setter.inputs[0].link, wanted) if setter.inputs else None
        level = level.outer
    return None


def _around(level: Level, node: DrawnNode, output: int, wanted: str) -> Hop | End:
    """Past a bypassed node: the input at the same place if its type fits, else the first one that does."""
    socket = passed_on(node, output, wanted)
    if socket and socket.link is not None:
        return Hop(level, socket.link, socket.type)
    return None if node.id in level.inner else Lost(level.path + node.id)


def passed_on(node: DrawnNode, output: int, wanted: str) -> Socket | None:
    """The input of a bypassed node that comes out at an output, for a taker of type ``wanted``; None: nothing does."""
    made = node.outputs[output] if output < len(node.outputs) else ANY
    beside = node.inputs[output : output + 1]
    if wanted == ANY:
        candidates = [*beside, *node.inputs]
    else:
        fitting = [socket for socket in node.inputs if _fits(socket.type, made) and _fits(socket.type, wanted)]
        candidates = [socket for socket in beside if socket in fitting]
        candidates += [socket for socket in node.inputs if socket.type == wanted]
        candidates += fitting
    return next(iter(candidates), None)


def _fits(one: str, other: str) -> bool:
    """Whether two socket types may be joined: any of the comma-separated names, without case; ``*`` is any."""
    mine, theirs = (set(kind.lower().split(",")) for kind in (one, other))
    return bool(mine & theirs) or ANY in mine | theirs
