"""A canvas, the workflow as the browser saves it or one of its subgraph definitions, as a level that can be changed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ..workflows.canvas import EXIT, SETTERS, Canvas, DrawnNode, entries, mapping, mappings, name_of, read_canvas, text
from ..workflows.graph import BYPASSED
from ..workflows.ui import GETTERS, REROUTES, passed_on
from .kinds import APPLIERS, FORMS
from .level import Level, Out, Piece, Taker
from .links import Links, as_id

_OF_THE_PACK = ("cnr_id", "aux_id", "ver", "Node name for S&R")  # properties that say whose node it is


@dataclass
class Numbers:
    """The last ids in use of a whole workflow: its subgraphs count on."""

    node: int
    link: int


class CanvasLevel(Level):
    """A canvas, changed in place. ``hosts`` are the subgraph nodes that show this definition, as saved."""

    def __init__(
        self, path: str, saved: dict[str, Any], numbers: Numbers, hosts: Iterable[dict[str, Any]] = ()
    ) -> None:
        self.saved, self.numbers, self._hosts = saved, numbers, list(hosts)
        self.nodes = {key: node for node in saved["nodes"] if (key := name_of(mapping(node).get("id"))) is not None}
        self._links = Links(saved, self.nodes, objects=bool(path))
        canvas = read_canvas({**saved, "extra": None})  # without the wires other packs draw: those are not here
        self._drawn = canvas.nodes
        self._exits = self._wired_to_exits()
        self._shown = self._shown_outside()
        self._named: dict[str, dict[str, list[str]]] = {}
        self._removed: set[str] = set()
        super().__init__(path, (_piece(node, canvas) for node in canvas.nodes.values()))

    # --- as it was found

    def leaving(self, out: Out) -> Iterator[Taker]:
        """The outputs of the subgraph, as the level was found."""
        yield from ((EXIT, slot) for slot in self._exits.get(out, ()))

    def _wired_to_exits(self) -> dict[Out, list[str]]:
        found: dict[Out, list[str]] = {}
        for _, origin, (target, slot) in self._links.all():
            if target == EXIT:
                found.setdefault(origin, []).append(str(slot))
        return found

    def held(self, piece: Piece) -> Iterator[str]:
        """Widgets that the subgraph's own node shows."""
        yield from (text(entry[1]) for entry in self._shown.get(piece.id, ()))

    def _shown_outside(self) -> dict[str, list[list[Any]]]:
        """Node -> what the subgraph's own nodes show of it: (node, widget), as saved."""
        found: dict[str, list[list[Any]]] = {}
        for host in self._hosts:
            listed = entries(mapping(host.get("properties")).get("proxyWidgets"))
            for entry in (each for each in listed if isinstance(each, list) and len(each) >= 2):
                found.setdefault(name_of(entry[0]) or "", []).append(entry)
        return found

    # --- changes

    def add(self, kind: str, values: Mapping[str, Any], title: str = "") -> str:
        """A new node at the origin; it is given a place later."""
        self.numbers.node += 1
        number, form = self.numbers.node, FORMS[kind]
        outputs = [{"name": name, "type": made, "links": []} for name, made in form.outputs]
        node = {
            **{"id": number, "type": kind, "pos": [0, 0], "size": list(form.size), "flags": {}},
            **{"order": len(self.nodes), "mode": 0, "inputs": _sockets(kind), "outputs": outputs},
            **({"title": title} if title else {}),
            "properties": {"Node name for S&R": kind},
            "widgets_values": _widget_values(kind, values),
        }
        self.saved["nodes"].append(node)
        self.nodes[str(number)] = node
        return str(number)

    def wire(self, out: Out, target: str, name: str) -> None:
        """A new link; one that was there goes."""
        slot, socket = self._socket(target, name)
        if socket.get("link") is not None:
            self._links.drop([socket["link"]])
        self.numbers.link += 1
        self._links.add(self.numbers.link, out, (target, slot), text(socket.get("type")))

    def unwire(self, target: str, name: str) -> None:
        """The link goes."""
        if name in self.pieces[target].wires:
            self._links.drop([self._socket(target, name)[1]["link"]])

    def hand_over(self, old: Out, new: Out) -> None:
        """Every link of the old output keeps its id and its way."""
        self._links.hand_over(old, new)

    def set_value(self, identity: str, name: str, value: object) -> bool:
        """A widget's value, by its place or by its name."""
        drawn, values = self._drawn.get(identity), self.nodes[identity].get("widgets_values")
        place = drawn.place_of(name) if drawn else None
        if drawn is None or name in self.pieces[identity].wires or (not isinstance(values, dict) and place is None):
            return False
        if isinstance(values, dict):
            values[name] = value
        elif isinstance(values, list) and place is not None:
            values[place] = value
        return True

    def move_input(self, old: Taker, new: Taker) -> None:
        """The link with its way, and the place among the widgets that the subgraph's own node shows.

        Two models may have a LoRA in common: the second one gets a link of its own.
        """
        for entry in [each for each in self._shown.get(old[0], ()) if each[1] == old[1]]:
            entry[0], entry[1] = new
            self._shown[old[0]].remove(entry)
            self._shown.setdefault(new[0], []).append(entry)
        _, leaving = self._socket(*old)
        slot, socket = self._socket(*new)
        socket["link"], leaving["link"] = leaving.get("link"), None
        if socket["link"] is not None:
            self._links.end_at(socket["link"], (new[0], slot))
        elif old[1] in self.pieces[old[0]].wires:
            self.wire(self.pieces[old[0]].wires[old[1]], *new)

    def become(self, identity: str, kind: str, names: Mapping[str, str]) -> None:
        """The node keeps id, place, title, links and the values that ours knows."""
        node, drawn = self.nodes[identity], self._drawn[identity]
        values = {names[name]: value for name, value in drawn.values()[0].items() if name in names}
        links = {names[socket.name]: socket.link for socket in drawn.inputs if socket.name in names and socket.link}
        node["type"], node["widgets_values"], node["inputs"] = kind, _widget_values(kind, values), _sockets(kind)
        node.pop("widgets_values_named", None)
        for slot, socket in enumerate(node["inputs"]):
            if socket["name"] in links:
                socket["link"] = as_id(links[socket["name"]])
                self._links.end_at(socket["link"], (identity, slot))
        for (name, made), output in zip(FORMS[kind].outputs, mappings(node.get("outputs")), strict=False):
            if isinstance(output, dict):
                for gone in ("localized_name", "label"):
                    output.pop(gone, None)
                output.update(name=name, type=made)
        kept = {key: value for key, value in mapping(node.get("properties")).items() if key not in _OF_THE_PACK}
        node["properties"] = {**kept, "Node name for S&R": kind}
        for entry in self._shown.get(identity, ()):
            entry[1] = names.get(entry[1], entry[1])

    def remove(self, ids: Iterable[str], passed: Iterable[str] = ()) -> None:
        """The nodes with their links; of those ``passed`` (reroutes and their like) what nobody takes any more."""
        candidates = {*passed, *self._setters_of(passed)}
        gone = list(ids)
        waiting = candidates | self._feeding(gone)
        self._remove(gone)
        while waiting:
            idle = [each for each in waiting & candidates if each in self.nodes and self._is_idle(self._drawn[each])]
            waiting = self._feeding(idle)
            self._remove(idle)

    def settle(self) -> None:
        """Write down what was taken away, once for all of it."""
        self._links.settle()
        if self._removed:
            self.saved["nodes"] = [
                each for each in self.saved["nodes"] if name_of(mapping(each).get("id")) not in self._removed
            ]
            self._removed = set()

    def _feeding(self, ids: Iterable[str]) -> set[str]:
        """The nodes that something comes from into these, over a Get node too."""
        ids = list(ids)
        above = {origin[0] for key in ids for _, origin, (target, _) in self._links.touching(key) if target == key}
        return above | {*self._setters_of(ids)}

    def _remove(self, gone: list[str]) -> None:
        self._links.drop([number for key in gone for number, _, _ in self._links.touching(key)])
        for identity in gone:
            self._removed.add(identity)
            del self.nodes[identity]

    def _is_idle(self, node: DrawnNode) -> bool:
        """Whether nobody takes anything from a node; of a Set node, over its Get nodes either."""
        if self._links.begin_at(node.id):
            return False
        names = self._names(GETTERS) if node.kind in SETTERS else {}
        return not any(key in self.nodes for key in names.get(_name_set(node), ()))

    def _setters_of(self, passed: Iterable[str]) -> Iterator[str]:
        """The Set nodes that the Get nodes among these read."""
        setters = self._names(SETTERS)
        for key in passed:
            if key in self._drawn and self._drawn[key].kind in GETTERS:
                yield from setters.get(_name_set(self._drawn[key]), ())

    def _names(self, kinds: tuple[str, ...]) -> dict[str, list[str]]:
        """Name -> the Set or Get nodes of that name, as the level was found."""
        kind = "set" if kinds == SETTERS else "get"
        if kind not in self._named:
            found: dict[str, list[str]] = {}
            for key, node in self._drawn.items():
                if node.kind in kinds:
                    found.setdefault(_name_set(node), []).append(key)
            self._named[kind] = found
        return self._named[kind]

    def _socket(self, identity: str, name: str) -> tuple[int, dict[str, Any]]:
        """(number, input) of a node; one that a file does not have, for nothing is wired there, is added."""
        node = self.nodes[identity]
        if not isinstance(node.get("inputs"), list):
            node["inputs"] = []
        inputs: list[Any] = node["inputs"]
        for at, socket in enumerate(inputs):
            if isinstance(socket, dict) and socket.get("name") == name:
                return at, socket
        kind = text(node.get("type"))
        known = next((each for each in (_sockets(kind) if kind in FORMS else []) if each["name"] == name), None)
        inputs.append(known or {"name": name, "type": "*", "link": None})
        return len(inputs) - 1, inputs[-1]


def _name_set(node: DrawnNode) -> str:
    """The name a Set or Get node has, as something to look up."""
    return repr(node.value_list()[:1])


def _piece(node: DrawnNode, canvas: Canvas) -> Piece:
    wires = {socket.name: wire for socket in node.inputs if (wire := canvas.links.get(socket.link or ""))}
    passing: dict[int, str] | None = None
    if node.kind in REROUTES:
        passing = {slot: socket.name for slot, socket in enumerate(node.inputs)}
    elif node.kind in GETTERS:
        passing = {}
        setter = canvas.setters.get(text(next(iter(node.value_list()), None)))
        source = next((canvas.links.get(socket.link or "") for socket in setter.inputs), None) if setter else None
        if source:
            passing, wires = {0: "set"}, {"set": source}
    elif node.mode == BYPASSED and node.kind not in APPLIERS:  # those become rows that are off
        inputs = {slot: passed_on(node, slot, made) for slot, made in enumerate(node.outputs)}
        passing = {slot: socket.name for slot, socket in inputs.items() if socket}
    return Piece(node.id, node.kind, node.mode, node.title, wires, passing)


def _sockets(kind: str) -> list[dict[str, Any]]:
    """The inputs of a node of ours: sockets first, as frontends write them."""
    form = FORMS[kind]
    found: list[dict[str, Any]] = []
    for name, made in (*form.sockets, *form.widgets):
        widget = {} if (name, made) in form.sockets else {"widget": {"name": name}}
        optional = {"shape": 7} if name in form.optional else {}
        found.append({"name": name, **optional, "type": made, **widget, "link": None})
    return found


def _widget_values(kind: str, values: Mapping[str, Any]) -> list[Any]:
    form = FORMS[kind]
    return [values.get(name, default) for (name, _), default in zip(form.widgets, form.defaults, strict=True)]
