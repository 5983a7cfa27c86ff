"""Subgraphs are opened: their widgets, wires and modes reach the nodes inside."""

from __future__ import annotations

import copy

import pytest
from drawings import SUB, Drawing, base, lora, sampled
from lora_foundry.loaders.workflows.graph import BYPASSED, MUTED, ON
from lora_foundry.loaders.workflows.reading import graph_of
from workflow_parts import subgraph


def test_a_subgraph_is_opened():
    graph = graph_of(subgraph())
    assert graph.nodes.keys() == {"1", "9", "5:2", "5:3"}
    assert graph.nodes["9"].links == {"model": ("5:3", 0)}
    assert graph.nodes["5:3"].links == {"model": ("5:2", 0)} and graph.nodes["5:2"].links == {"model": ("1", 0)}
    assert graph.nodes["5:3"].values == {"lora_name": "style3", "strength_model": 0.5}


PROMOTED = [
    ({"widgets_values": [0.9]}, (0.5, 0.9)),
    ({"widgets_values": [0.9], "sockets": False}, (0.5, 0.9)),
    ({"widgets_values": {"strength": 0.9}}, (0.5, 0.9)),
    ({"widgets_values": [None]}, (0.5, 0.5)),
    ({"widgets_values": [0.9], "properties": {"proxyWidgets": [["-1", "strength"]]}}, (0.5, 0.9)),
    ({"widgets_values": [0.8, 0.9], "properties": {"proxyWidgets": [[2, "strength_model"], ["-1", "strength"]]}},
     (0.8, 0.9)),
    ({"widgets_values": [None, 0.9], "properties": {"proxyWidgets": [["2", "strength_model"], ["-1", "strength"]]}},
     (0.5, 0.9)),
    ({"widgets_values": [0.9], "properties": {"proxyWidgets": "nonsense"}}, (0.5, 0.9)),
]  # fmt: skip


@pytest.mark.parametrize(("host", "strengths"), PROMOTED)
def test_widgets_of_a_subgraph_reach_the_nodes_inside(host, strengths):
    graph = graph_of(subgraph(**host))
    assert tuple(graph.nodes[key].values["strength_model"] for key in ("5:2", "5:3")) == strengths


def test_a_wire_into_a_subgraph_wins_over_its_widget():
    saved = subgraph(widgets_values=[0.9])
    saved["nodes"].append({"id": 7, "type": "PrimitiveFloat", "outputs": [{"type": "FLOAT"}], "widgets_values": [0.2]})
    saved["links"].append([90, 7, 0, 5, 1, "FLOAT"])
    saved["nodes"][1]["inputs"][1]["link"] = 90
    node = graph_of(saved).nodes["5:3"]
    assert node.links["strength_model"] == ("7", 0) and "strength_model" not in node.values


@pytest.mark.parametrize(("mode", "name"), [(2, MUTED), (4, BYPASSED)])
def test_an_idle_subgraph_makes_its_nodes_idle(mode, name):
    graph = graph_of(subgraph(mode))
    assert {key: node.mode for key, node in graph.nodes.items()} == {"1": ON, "9": ON, "5:2": name, "5:3": name}
    if name == BYPASSED:
        assert graph.nodes["9"].links == {"model": ("1", 0)} and graph.nodes["5:3"].links == {"model": ("5:2", 0)}
    else:
        assert graph.nodes["9"].lost == {"model": "5:3"} and not graph.nodes["9"].links


def test_a_bypassed_subgraph_with_nothing_to_pass_on():
    saved = subgraph(4)
    saved["nodes"][1]["inputs"] = []
    node = graph_of(saved).nodes["9"]
    assert not node.links and not node.lost


def test_subgraphs_in_subgraphs_and_two_uses_of_one():
    inner = lora(Drawing(), 2, -10).wire(2, 0, -20, 0).definition("inner", "model", "model")
    middle = Drawing().add(7, "inner", "model:MODEL", "MODEL").add(8, "inner", "model:MODEL", "MODEL")
    middle.wire(-10, 0, 7, "model").wire(7, 0, 8, "model").wire(8, 0, -20, 0)
    outer = base().add(5, "middle", "model:MODEL", "MODEL").wire(1, 0, 5, "model")
    held = middle.definition("middle", "model", "model", definitions={"subgraphs": [inner]})
    for definitions in ([held], [middle.definition("middle", "model", "model"), inner]):
        graph = graph_of(sampled(copy.deepcopy(outer), 5).saved(definitions={"subgraphs": definitions}))
        assert graph.nodes.keys() == {"1", "9", "5:7:2", "5:8:2"}
        assert graph.nodes["9"].links == {"model": ("5:8:2", 0)}
        assert graph.nodes["5:8:2"].links == {"model": ("5:7:2", 0)}
        assert graph.nodes["5:7:2"].links == {"model": ("1", 0)}


def test_a_subgraph_that_only_passes_on():
    through = Drawing().wire(-10, 0, -20, 0).definition(SUB, "model", "model")
    drawing = base().add(5, SUB, "model:MODEL", "MODEL").wire(1, 0, 5, "model")
    graph = graph_of(sampled(drawing, 5).saved(definitions={"subgraphs": [through]}))
    assert graph.nodes["9"].links == {"model": ("1", 0)}


def test_a_getter_inside_finds_a_setter_outside():
    inside = lora(Drawing().add(4, "GetNode", "", "MODEL", widgets_values=["main"]), 2, 4).wire(2, 0, -20, 0)
    outside = base().add(3, "SetNode", "MODEL:MODEL", "*", widgets_values=["main"]).wire(1, 0, 3, 0)
    saved = sampled(outside.add(5, SUB, "", "MODEL"), 5).saved(
        definitions={"subgraphs": [inside.definition(SUB, "", "model")]}
    )
    assert graph_of(saved).nodes["5:2"].links == {"model": ("1", 0)}
