"""Wired values that are known before a run: written where they arrive, so that everything else reads plain values.

A number may come from a primitive or another node that holds one value, through converters and through switches, whose
selectors may be wired in the same way. What only the run knows stays a link.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from .graph import Graph, GraphNode
from .lora_kinds import LORA_NODES
from .node_kinds import CONVERTERS, HELD, SWITCHES, Switch
from .node_values import spelled

Scalar = bool | int | float | str
MOST_HOPS = 64  # from a value to where it is used: more than anybody wires
VALUE_TYPES = {"INT", "FLOAT", "BOOLEAN", "STRING", "COMBO", "NUMBER", "*"}  # sockets a plain value may arrive at
_HOLDERS = re.compile(
    r"(easy |primitive )?(int|float|bool|string|number)|.*(constant|literal)|easy (lora|ckpt|controlnet)Names",
    re.IGNORECASE,
)
_NUMBERS = re.compile(r"(easy |primitive )?(int|float|number)", re.IGNORECASE)
_CONTROLS = ("fixed", "increment", "decrement", "randomize")  # what the frontend writes behind a number


def with_constants(graph: Graph) -> Graph:
    """The same graph, every link that brings a known number, word or truth value turned into that value."""
    reader = _Reader(graph.nodes)
    return Graph({identity: reader.settled(node) for identity, node in graph.nodes.items()})


def chosen_input(switch: Switch, node: GraphNode, selector: object) -> str | None:
    """The input a switch hands on: by its selector, "" where it is none of the inputs; None: only the run knows.

    Of a switch without a selector it is the first that is wired in.
    """
    if not switch.selector:
        wired = sorted(name for name in node.links if re.fullmatch(switch.inputs, name))
        return wired[0] if wired else ""
    if isinstance(selector, int):
        return switch.chosen.format(selector) if isinstance(switch.chosen, str) else switch.chosen[bool(selector)]
    return None


class _Reader:
    """Reads values off the nodes of one graph, each once."""

    def __init__(self, nodes: Mapping[str, GraphNode]) -> None:
        self._nodes = nodes
        self._known: dict[str, Scalar | None] = {}  # of the first output; others are never read

    def settled(self, node: GraphNode) -> GraphNode:
        """A node with the values that its links bring."""
        plain = {name: link for name, link in node.links.items() if _takes_values(node.inputs.get(name, "*"))}
        found = {name: value for name, link in plain.items() if (value := self._out_of(link)) is not None}
        if not found:
            return node
        links = {name: link for name, link in node.links.items() if name not in found}
        return replace(node, values={**node.values, **found}, links=links)

    def _out_of(self, link: tuple[str, int], hops: int = 0) -> Scalar | None:
        """What a link brings, if it is one value that is known."""
        identity, output = link
        if output:
            return None
        if identity not in self._known and hops < MOST_HOPS:
            self._known[identity] = None  # what a ring finds when it comes back here
            node = self._nodes.get(identity)
            self._known[identity] = self._handed_on(node, hops + 1) if node else None
        return self._known.get(identity)

    def _handed_on(self, node: GraphNode, hops: int) -> Scalar | None:
        if switch := SWITCHES.get(node.kind):
            name = chosen_input(switch, node, self._input(node, switch.selector, hops))
            return self._input(node, name, hops) if name else None
        if through := CONVERTERS.get(node.kind):
            return self._input(node, through, hops)
        if node.kind in LORA_NODES:  # a stacker's text is no value of its list
            return None
        holding = next((name for name in HELD if name in node.values or name in node.links), "")
        if holding and node.links.keys() <= {holding}:
            return self._input(node, holding, hops)
        return _only_value(node) if not node.links else None

    def _input(self, node: GraphNode, name: str, hops: int) -> Scalar | None:
        if name in node.links:
            return self._out_of(node.links[name], hops)
        value = node.values.get(name)
        return value if isinstance(value, bool | int | float | str) else None


def _takes_values(told: str) -> bool:
    """Whether a socket of this type may be given a plain value."""
    return not VALUE_TYPES.isdisjoint(told.upper().split(","))


def _only_value(node: GraphNode) -> Scalar | None:
    """The one value of a node that is called after what it holds, by whatever name it has it."""
    values = [value for value in (*node.values.values(), *node.unnamed) if value not in _CONTROLS]
    if len(values) != 1 or not isinstance(values[0], bool | int | float | str) or not _HOLDERS.match(node.kind):
        return None
    written = isinstance(values[0], str) and _NUMBERS.match(node.kind)  # ComfyLiterals hold numbers as text
    return spelled(values[0]) if written else values[0]
