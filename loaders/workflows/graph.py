"""A workflow as plain data: nodes with their values and links, whichever form it was saved in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

MAX_NODES = 50_000  # more than ComfyUI itself could draw
ON, MUTED, BYPASSED = "on", "muted", "bypassed"


@dataclass(frozen=True)
class GraphNode:
    """One node. ``values`` are its set inputs by name, ``links`` its wired ones: input name -> (node id, output).

    ``id`` is "12", or "3:12" for node 12 inside the subgraph node 3. ``kind`` is the class name. ``inputs`` and
    ``outputs`` are socket types where the form tells them (UI form), in order. ``lost`` are wires that bring nothing:
    input name -> the node that is muted, bypassed without anything to pass on, or not there. ``unnamed`` are values
    of widgets whose names neither the file nor we know. ``memo`` keeps what was worked out of it, for several ask.
    """

    id: str
    kind: str
    values: Mapping[str, Any] = field(default_factory=dict)
    links: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    mode: str = ON
    title: str = ""
    inputs: Mapping[str, str] = field(default_factory=dict)
    outputs: tuple[str, ...] = ()
    lost: Mapping[str, str] = field(default_factory=dict)
    unnamed: tuple[Any, ...] = ()
    memo: dict[str, Any] = field(default_factory=dict, init=False, repr=False, compare=False)


@dataclass(frozen=True)
class Graph:
    """Nodes by id. Links go to nodes that run; reroutes, subgraphs, virtual and bypassed nodes are resolved already.

    Muted and bypassed nodes are among the nodes, with their mode and their own links; no link of another goes to them.
    ``memo`` as that of a node.
    """

    nodes: Mapping[str, GraphNode]
    memo: dict[str, Any] = field(default_factory=dict, init=False, repr=False, compare=False)
