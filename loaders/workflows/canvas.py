"""A saved canvas (nodes, links by number) as tidy data: what is not shaped like a part of one is left out, no error.

A workflow is one canvas, and each of its subgraph definitions is another.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from .graph import BYPASSED, MUTED, ON
from .widget_names import ROWS, named_values

MODES = {2: MUTED, 4: BYPASSED}  # 0 is always; 1 and 3 (on event, on trigger) mean nothing to ComfyUI
ANY = "*"
ENTRY, EXIT = "-10", "-20"  # the ends of a subgraph: links come from the one and leave through the other
SETTERS = ("SetNode", "easy setNode")


@dataclass(frozen=True)
class Socket:
    """An input of a node: its type, the link wired to it, and the widget it stands for, if any."""

    name: str
    type: str
    link: str | None = None
    widget: str = ""


class _Mark(str):
    """A value as text that remembers its place: what is told apart by its words stays so."""

    place: int

    def __new__(cls, value: object, place: int) -> _Mark:
        mark = super().__new__(cls, value if isinstance(value, str) else "")
        mark.place = place
        return mark


@dataclass(frozen=True)
class DrawnNode:
    """A node as it was drawn. ``saved`` is the file's own entry, for what only some kinds have."""

    id: str
    kind: str
    mode: str
    title: str
    inputs: tuple[Socket, ...]
    outputs: tuple[str, ...]
    saved: Mapping[str, Any]

    def input(self, name: str) -> Socket | None:
        """The input of this name."""
        return next((socket for socket in self.inputs if socket.name == name), None)

    def values(self) -> tuple[dict[str, Any], tuple[Any, ...]]:
        """Widget values by name, and those without a name."""
        by_name = self.saved.get("widgets_values_named")  # newest frontends
        saved = by_name if isinstance(by_name, Mapping) else self.saved.get("widgets_values")
        return named_values(self.kind, [socket.widget for socket in self.inputs if socket.widget], saved)

    def place_of(self, name: str) -> int | None:
        """Where among its values in order that of a widget stands."""
        if self.kind in ROWS:
            places = [
                place for place, row in enumerate(self.value_list()) if isinstance(row, Mapping) and "lora" in row
            ]
            return next((place for number, place in enumerate(places, 1) if name == f"lora_{number}"), None)
        marks = [_Mark(value, place) for place, value in enumerate(self.value_list())]
        sockets = [socket.widget for socket in self.inputs if socket.widget]
        mark = named_values(self.kind, sockets, marks)[0].get(name)
        return mark.place if isinstance(mark, _Mark) else None

    def value_list(self) -> list[Any]:
        """Widget values in order."""
        return entries(self.saved.get("widgets_values"))


@dataclass(frozen=True)
class Canvas:
    """Nodes by id, links by id as (node, output), SetNodes by what they set.

    Of a subgraph also the names of its ``inputs``, those of them that stand for a widget inside (``promoted``), and
    the link that arrives at each output (``exits``).
    """

    nodes: Mapping[str, DrawnNode]
    links: Mapping[str, tuple[str, int]]
    setters: Mapping[str, DrawnNode] = field(default_factory=dict)
    inputs: tuple[str, ...] = ()
    promoted: tuple[str, ...] = ()
    exits: Mapping[int, str] = field(default_factory=dict)


def read_canvas(saved: Mapping[str, Any]) -> Canvas:
    """The canvas of a workflow, or of one of its subgraph definitions."""
    nodes = {node.id: node for node in map(_node, mappings(saved.get("nodes"))) if node}
    ends = {link[0]: link[1:] for link in map(_link, entries(saved.get("links"))) if link}
    links = {number: (source, output) for number, (source, output, _, _) in ends.items()}
    for number, target, slot, wire in _everywhere(saved):
        if (node := _wired(nodes.get(target), slot, number)) is not None:
            nodes[target], links[number] = node, wire
    inputs = tuple(text(slot.get("name")) for slot in mappings(saved.get("inputs")))
    widget_links = {slot.link for node in nodes.values() for slot in node.inputs if slot.widget}
    promoted = {slot for number, (source, slot) in links.items() if source == ENTRY and number in widget_links}
    return Canvas(
        nodes,
        links,
        {text(next(iter(node.value_list()), "")): node for node in nodes.values() if node.kind in SETTERS},
        inputs,
        tuple(name for slot, name in enumerate(inputs) if slot in promoted),
        {slot: number for number, (_, _, target, slot) in ends.items() if target == EXIT},
    )


def _everywhere(saved: Mapping[str, Any]) -> Iterator[tuple[str, str, int, tuple[str, int]]]:
    """(link, to node, to input, (from node, from output)) of the wires cg-use-everywhere drew when it saved."""
    for number, wire in enumerate(mappings(mapping(saved.get("extra")).get("ue_links"))):
        target, source = (name_of(wire.get(end)) for end in ("downstream", "upstream"))
        slot, output = (wire.get(f"{end}_slot") for end in ("downstream", "upstream"))
        if target and source and isinstance(slot, int) and isinstance(output, int) and min(slot, output) >= 0:
            yield f"ue{number}", target, slot, (source, output)


def _wired(node: DrawnNode | None, slot: int, link: str) -> DrawnNode | None:
    """The node with a link at one of its inputs; None where there is none, or something is wired to it already."""
    if node is None or slot >= len(node.inputs) or node.inputs[slot].link is not None:
        return None
    inputs = list(node.inputs)
    inputs[slot] = replace(inputs[slot], link=link)
    return replace(node, inputs=tuple(inputs))


def definitions(saved: Mapping[str, Any]) -> dict[str, Canvas]:
    """Subgraph definitions by id, those inside other definitions too."""
    found: dict[str, Canvas] = {}
    left = list(mappings(mapping(saved.get("definitions")).get("subgraphs")))
    for definition in left:  # grows while it is read; JSON is a tree, so it ends
        left += mappings(mapping(definition.get("definitions")).get("subgraphs"))
        if identity := text(definition.get("id")):
            found[identity] = read_canvas(definition)
    return found


def _node(saved: Mapping[str, Any]) -> DrawnNode | None:
    if (identity := name_of(saved.get("id"))) is None:
        return None
    mode = saved.get("mode")
    return DrawnNode(
        identity,
        text(saved.get("type")),
        MODES.get(mode, ON) if isinstance(mode, int) else ON,
        text(saved.get("title")),
        tuple(_socket(mapping(slot)) for slot in entries(saved.get("inputs"))),
        tuple(_type(mapping(slot)) for slot in entries(saved.get("outputs"))),
        saved,
    )


def _socket(saved: Mapping[str, Any]) -> Socket:
    widget = text(mapping(saved.get("widget")).get("name"))
    return Socket(text(saved.get("name")), _type(saved), name_of(saved.get("link")), widget)


def _type(saved: Mapping[str, Any]) -> str:
    """A socket type; old frontends saved a list of choices as the type itself, and 0 or "" for any."""
    kind = saved.get("type")
    return "COMBO" if isinstance(kind, list) else text(kind) or ANY


def _link(saved: object) -> tuple[str, str, int, str, int] | None:
    """(link, from node, from output, to node, to input) of a link in either spelling."""
    if isinstance(saved, Mapping):
        parts = [saved.get(key) for key in ("id", "origin_id", "origin_slot", "target_id", "target_slot")]
    else:
        parts = [*entries(saved), *(None,) * 5][:5]
    number, source, target = (name_of(parts[index]) for index in (0, 1, 3))
    output = parts[2]
    slot = parts[4] if isinstance(parts[4], int) else 0
    if number is None or source is None or not isinstance(output, int) or output < 0:
        return None
    return number, source, output, target or "", slot


def name_of(identity: object) -> str | None:
    """The id of a node or link as a string; None for what is no id."""
    return str(identity) if isinstance(identity, int | str) and not isinstance(identity, bool) else None


def text(value: object) -> str:
    """A string, or "" for anything else."""
    return value if isinstance(value, str) else ""


def mapping(value: object) -> Mapping[str, Any]:
    """A mapping, or an empty one for anything else."""
    return value if isinstance(value, Mapping) else {}


def entries(value: object) -> list[Any]:
    """A list, or an empty one for anything else."""
    return value if isinstance(value, list) else []


def mappings(value: object) -> Iterator[Mapping[str, Any]]:
    """The mappings of a list."""
    return (entry for entry in entries(value) if isinstance(entry, Mapping))
