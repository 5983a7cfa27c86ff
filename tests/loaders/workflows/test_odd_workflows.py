"""Damaged and endless workflows give a graph or an error, and nothing else."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from drawings import SUB, Drawing, base, lora, sampled
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lora_foundry.engine.errors import FoundryError
from lora_foundry.loaders.workflows.graph import BYPASSED, MAX_NODES, MUTED, ON, Graph
from lora_foundry.loaders.workflows.reading import graph_of
from lora_foundry.loaders.workflows.ui import MAX_DEPTH
from workflow_parts import NAMES, drawn_example, prompt_example, subgraph


def test_circles_end():
    drawing = Drawing().add(1, "Reroute", "a:*", "*").add(2, "Reroute", "a:*", "*").wire(1, 0, 2, 0).wire(2, 0, 1, 0)
    drawing.add(3, "LoraLoaderModelOnly", "model:MODEL", "MODEL", mode=4).wire(3, 0, 3, "model")
    graph = graph_of(sampled(sampled(drawing, 2), 3, identity=10).saved())
    assert not graph.nodes["9"].links and not graph.nodes["10"].links


def test_what_has_no_id_is_no_node():
    nodes = [{"id": True, "type": "A"}, {"type": "B"}, {"id": 1.5, "type": "C"}]
    assert not graph_of({"nodes": nodes, "links": []}).nodes


def test_links_to_nowhere():
    drawing = sampled(Drawing(), 77)
    assert graph_of(drawing.saved()).nodes["9"].lost == {"model": "77"}
    drawing.nodes[0]["inputs"][0]["link"] = 1234
    assert not graph_of(drawing.saved()).nodes["9"].lost


@pytest.mark.parametrize("inside", ["itself", "each other"])
def test_subgraphs_without_end(inside):
    one = Drawing().add(1, "one" if inside == "itself" else "two").definition("one")
    two = Drawing().add(1, "one").definition("two")
    with pytest.raises(FoundryError, match="contains itself") as caught:
        graph_of(Drawing().add(5, "one").saved(definitions={"subgraphs": [one, two]}), "x.json")
    assert caught.value.code == "workflow" and "x.json" in str(caught.value)


def test_subgraphs_that_unfold_to_too_much():
    doubling = [Drawing().add(1, f"s{n + 1}").add(2, f"s{n + 1}").definition(f"s{n}") for n in range(40)]
    deep = [Drawing().add(1, f"s{n + 1}").definition(f"s{n}") for n in range(MAX_DEPTH + 5)]
    for definitions in (doubling, deep):
        with pytest.raises(FoundryError, match=f"more than {MAX_NODES} nodes or {MAX_DEPTH} levels"):
            graph_of(Drawing().add(1, "s0").saved(definitions={"subgraphs": definitions}))


def test_long_chains_of_every_kind():
    """Nothing is recursive: 5000 reroutes, bypassed LoRAs and LoRAs in one row."""
    for kind, mode, left in (("Reroute", 0, 2), ("LoraLoaderModelOnly", 4, 5002), ("LoraLoaderModelOnly", 0, 5002)):
        nodes = [{"id": 0, "type": "UNETLoader", "outputs": [{"type": "MODEL"}]}]
        for identity in range(1, 5001):
            slot = {"name": "model", "type": "MODEL", "link": identity}
            nodes.append({"id": identity, "type": kind, "mode": mode, "inputs": [slot], "outputs": [{"type": "MODEL"}]})
        nodes.append({"id": 5001, "type": "KSampler", "inputs": [{"name": "model", "type": "MODEL", "link": 5001}]})
        links = [[identity, identity - 1, 0, identity, 0, "MODEL"] for identity in range(1, 5002)]
        graph = graph_of({"nodes": nodes, "links": links})
        assert len(graph.nodes) == left
        assert graph.nodes["5001"].links == {"model": ("0" if kind == "Reroute" or mode else "5000", 0)}


ODD = [None, True, -1, 10**400, 1.5, "", "x", [], [None], {}, {"name": []}, [[[]]], "-10", -10, -20]


@pytest.mark.parametrize("odd", ODD, ids=repr)
@pytest.mark.parametrize("name", ["plain", "subgraph"])
def test_every_part_may_be_anything(name, odd):
    """Each value of a workflow replaced by nonsense, one at a time: a graph or a FoundryError, nothing else."""
    original = subgraph(widgets_values=[0.9]) if name == "subgraph" else sampled(lora(base(), 2, 1), 2).saved()
    for path in paths(original):
        assert_graph_or_error(replaced(original, path, odd))


def paths(data: Any, here: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    parts = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    return [here, *(path for key, value in parts for path in paths(value, (*here, key)))]


def replaced(data: Any, path: tuple[Any, ...], value: Any) -> Any:
    if not path:
        return value
    changed = copy.copy(data)
    changed[path[0]] = replaced(data[path[0]], path[1:], value)
    return changed


def assert_graph_or_error(data: Any) -> None:
    try:
        graph = graph_of(data, "x.json")
    except FoundryError as error:
        assert error.code == "workflow" and "x.json" in str(error)
        return
    assert isinstance(graph, Graph)
    for node in graph.nodes.values():
        assert isinstance(node.kind, str) and isinstance(node.id, str) and node.mode in (ON, MUTED, BYPASSED)
        assert all(source in graph.nodes for source, _ in node.links.values())
        assert all(graph.nodes[source].mode != MUTED for source, _ in node.links.values())


words = st.sampled_from(["", "-10", "1", "model", SUB, "Reroute"])
keys = st.sampled_from(["id", "name", "link", "x"])
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-30, 40) | st.floats() | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data(), name=st.sampled_from([*NAMES, "subgraph"]), form=st.sampled_from(["drawn", "prompt", "both"]))
def test_mutated_workflows(data, name, form):
    if name == "subgraph":
        saved, prompt = subgraph(widgets_values=[0.9]), {"1": {"class_type": "A", "inputs": {"a": ["1", 0]}}}
    else:
        saved, prompt = drawn_example(name), prompt_example(name)
    broken = {"drawn": saved, "prompt": prompt, "both": {"prompt": prompt, "workflow": saved}}[form]
    everything = paths(broken)
    for _ in range(data.draw(st.integers(1, 6))):
        path = everything[data.draw(st.integers(0, len(everything) - 1))]
        try:
            broken = replaced(broken, path, data.draw(json_values))
        except (LookupError, TypeError):  # inside something that an earlier change took away
            continue
    assert_graph_or_error(broken)


@settings(max_examples=200, deadline=None)
@given(json_values)
def test_any_json(value):
    assert_graph_or_error(value)
