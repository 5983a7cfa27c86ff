"""A workflow in every form it is saved in gives one graph; what is no workflow gives one sentence."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from drawings import KSAMPLER, SAMPLING, SUB, Drawing, Json, base, lora, sampled
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lora_foundry.engine.errors import FoundryError
from lora_foundry.loaders.workflows.graph import BYPASSED, MUTED, ON, Graph, GraphNode
from lora_foundry.loaders.workflows.reading import MAX_BYTES, graph_of, read_workflow
from lora_foundry.loaders.workflows.ui import MAX_DEPTH, MAX_NODES
from lora_foundry.loaders.workflows.widget_names import ORDERS, named_values

EXAMPLES = Path(__file__).resolve().parents[3] / "example_workflows"
NAMES = sorted(path.stem for path in EXAMPLES.glob("*.json"))

every_example = pytest.mark.parametrize("name", NAMES)


def load(path: Path) -> Json:
    return json.loads(path.read_text(encoding="utf-8"))


def drawn_example(name: str) -> Json:
    return load(EXAMPLES / f"{name}.json")


def prompt_example(name: str) -> Json:
    return load(EXAMPLES / "api" / f"{name}.json")


# Both forms of one workflow


def same(one: GraphNode, other: GraphNode) -> bool:
    return (one.kind, dict(one.values), dict(one.links), one.mode) == (
        other.kind,
        dict(other.values),
        dict(other.links),
        other.mode,
    )


@every_example
def test_both_forms_give_one_graph(name):
    drawn, prompt = graph_of(drawn_example(name), name), graph_of(prompt_example(name), name)
    assert drawn.nodes.keys() == prompt.nodes.keys() and len(prompt.nodes) > 10
    assert [key for key, node in prompt.nodes.items() if not same(node, drawn.nodes[key])] == []


@every_example
def test_widgets_keep_their_names_where_the_file_dropped_them(name):
    """As in exported files and pictures: sockets of widgets that nothing is wired to are gone."""
    saved = drawn_example(name)
    for node in saved["nodes"]:
        node["inputs"] = [slot for slot in node["inputs"] if "widget" not in slot]
    drawn, prompt = graph_of(saved, name), graph_of(prompt_example(name), name)
    known = {key for key, node in prompt.nodes.items() if node.kind in ORDERS}
    assert {prompt.nodes[key].kind for key in known} >= {"FoundryLoadBase", "KSampler"} & {
        node.kind for node in prompt.nodes.values()
    }
    assert [key for key in known if not same(prompt.nodes[key], drawn.nodes[key])] == []


@every_example
def test_links_as_objects_say_the_same(name):
    saved = drawn_example(name)
    keys = ("id", "origin_id", "origin_slot", "target_id", "target_slot", "type")
    objects = {**saved, "version": 1, "links": [dict(zip(keys, link, strict=True)) for link in saved["links"]]}
    assert graph_of(objects, name) == graph_of(saved, name)


@every_example
@pytest.mark.parametrize("wrap", ["prompt", "workflow", "output", "body", "history", "run", "queue"])
def test_wrapped_forms(name, wrap):
    prompt, saved = prompt_example(name), drawn_example(name)
    extra = {"extra_pnginfo": {"workflow": saved}}
    entry = [3, "0000-1111", prompt, extra, ["12"]]
    wrapped = {
        "prompt": {"prompt": prompt},
        "workflow": {"workflow": saved},
        "output": {"output": prompt, "workflow": saved},
        "body": {"prompt": prompt, "client_id": "x", "extra_data": extra},
        "history": {"prompt": entry, "outputs": {}, "status": {}},
        "run": {"0000-1111": {"prompt": entry, "outputs": {}, "status": {}}},
        "queue": entry,
    }[wrap]
    found = graph_of(wrapped, name)
    plain = graph_of(prompt, name)
    assert [key for key, node in plain.nodes.items() if not same(node, found.nodes[key])] == []
    assert found.nodes.keys() == plain.nodes.keys()


# API form


def test_ids_of_links_may_be_numbers_and_lists_stay_lists():
    prompt = {
        "1": {"class_type": "A", "inputs": {"size": [512, 0], "boxed": {"__value__": ["1", 0]}, "pair": [1, 0.5]}},
        "2": {
            "class_type": "B",
            "inputs": {"model": [1, 2], "same": ["1", 0], "flag": ["1", True]},
            "_meta": {"title": "b"},
        },
        "_loop_body": ["2"],
        "note": {"text": "x"},
    }
    graph = graph_of(prompt)
    assert graph.nodes.keys() == {"1", "2"}
    assert graph.nodes["1"].values == {"size": [512, 0], "boxed": ["1", 0], "pair": [1, 0.5]}
    assert graph.nodes["2"].links == {"model": ("1", 2), "same": ("1", 0)} and graph.nodes["2"].title == "b"
    assert graph.nodes["2"].values == {"flag": ["1", True]}


def test_a_link_to_a_node_that_is_not_there_is_lost():
    graph = graph_of({"2": {"class_type": "B", "inputs": {"model": ["7", 0]}}})
    assert graph.nodes["2"].lost == {"model": "7"} and not graph.nodes["2"].links and not graph.nodes["2"].values


def test_above_goes_up_the_wires():
    graph = graph_of(sampled(lora(base(), 2, 1), 2).saved())
    assert [(name, node.id) for name, node in graph.above("9")] == [("model", "2")]
    assert list(graph.above("nothing")) == []


# Widgets


@pytest.mark.parametrize(
    ("kind", "sockets", "saved", "values", "rest"),
    [
        ("KSampler", "", KSAMPLER, SAMPLING, ()),
        ("KSampler", "", KSAMPLER[:1] + KSAMPLER[2:], SAMPLING, ()),  # saved before the seed had a control
        ("KSampler", "seed", KSAMPLER, SAMPLING, ()),  # only the wired one kept its socket
        ("LoraLoader", "", ["x", 1.0], {"lora_name": "x", "strength_model": 1.0}, ()),  # from an older version
        ("LoraLoader", "", ["x", 1, 2, "new"], {"lora_name": "x", "strength_model": 1, "strength_clip": 2}, ("new",)),
        ("Unknown", "a b", [1, 2], {"a": 1, "b": 2}, ()),
        ("Unknown", "a my_seed b", [1, 2, "fixed", 3], {"a": 1, "my_seed": 2, "b": 3}, ()),
        ("Unknown", "a", [1, 2], {}, (1, 2)),
        ("Unknown", "a b", [1], {}, (1,)),
        ("Unknown", "", {"a": 1, "b": [2]}, {"a": 1, "b": [2]}, ()),
        ("Unknown", "", "nonsense", {}, ()),
        ("LoRA Stacker", "", ["simple", 1, "x", 0.5], {"input_mode": "simple", "lora_count": 1, "lora_name_1": "x",
                                                      "lora_wt_1": 0.5}, ()),
        ("Lora Loader Stack (rgthree)", "", ["x", 0.5], {"lora_01": "x", "strength_01": 0.5}, ()),
    ],
)  # fmt: skip
def test_names_of_widgets(kind, sockets, saved, values, rest):
    assert named_values(kind, sockets.split(), saved) == (values, rest)


def test_rows_of_a_power_lora_loader():
    rows = [{"on": True, "lora": "a", "strength": 1}, {"on": False, "lora": "b", "strength": 0.5, "strengthTwo": None}]
    saved = [{}, {"type": "PowerLoraLoaderHeaderWidget"}, *rows, {}, ""]
    drawing = base().add(2, "Power Lora Loader (rgthree)", "model:MODEL clip:CLIP", "MODEL CLIP", widgets_values=saved)
    assert graph_of(drawing.saved()).nodes["2"].values == {"lora_1": rows[0], "lora_2": rows[1]}


def test_newest_frontends_save_names():
    node = {"widgets_values": [1, 2], "widgets_values_named": {"a": 1, "b": 2}}
    assert graph_of(Drawing().add(1, "X", **node).saved()).nodes["1"].values == {"a": 1, "b": 2}


def test_a_wire_wins_over_the_widget_and_shifts_nothing():
    drawing = sampled(base(), 1).add(3, "PrimitiveInt", "", "INT", widgets_values=[12])
    drawing.nodes[1]["inputs"].append({"name": "steps", "type": "INT", "widget": {"name": "steps"}, "link": None})
    node = graph_of(drawing.wire(3, 0, 9, "steps").saved()).nodes["9"]
    assert node.links == {"model": ("1", 0), "steps": ("3", 0)}
    assert node.values == {name: value for name, value in SAMPLING.items() if name != "steps"}


def test_sockets_tell_types():
    node = graph_of(sampled(base(), 1).saved()).nodes["9"]
    assert node.inputs == {"model": "MODEL"} and node.outputs == ("LATENT",) and node.title == "KSampler"


# Virtual nodes


@pytest.mark.parametrize("kind", ["Reroute", "Reroute (rgthree)"])
def test_reroutes_are_wires(kind):
    drawing = base().add(2, kind, "a:*", "*").add(3, kind, "a:*", "*").wire(1, 0, 2, 0).wire(2, 0, 3, 0)
    graph = graph_of(sampled(drawing, 3).saved())
    assert graph.nodes.keys() == {"1", "9"} and graph.nodes["9"].links == {"model": ("1", 0)}


def test_an_empty_reroute_leaves_the_widget():
    sockets = "model:MODEL strength_model:FLOAT!"
    drawing = base().add(2, "LoraLoaderModelOnly", sockets, "MODEL", widgets_values=["x", 0.3])
    drawing.add(3, "Reroute", "a:*", "*").wire(3, 0, 2, "strength_model").wire(1, 0, 2, "model")
    node = graph_of(drawing.saved()).nodes["2"]
    assert node.values == {"lora_name": "x", "strength_model": 0.3} and not node.lost


def test_a_primitive_gives_its_value():
    drawing = sampled(base(), 1).add(3, "PrimitiveNode", "", "INT", widgets_values=[77, "fixed"])
    drawing.nodes[1]["inputs"].append({"name": "seed", "type": "INT", "widget": {"name": "seed"}, "link": None})
    graph = graph_of(drawing.wire(3, 0, 9, "seed").saved())
    assert graph.nodes.keys() == {"1", "9"} and graph.nodes["9"].values == {**SAMPLING, "seed": 77}


@pytest.mark.parametrize("pack", ["SetNode GetNode", "easy setNode;easy getNode"])
def test_set_and_get_are_wires(pack):
    setter, getter = pack.split(";") if ";" in pack else pack.split()
    drawing = base().add(2, setter, "MODEL:MODEL", "*", widgets_values=["main"]).wire(1, 0, 2, 0)
    drawing.add(3, setter, "MODEL:MODEL", "*", widgets_values=["other"])
    drawing.add(4, getter, "", "MODEL", widgets_values=["main"]).add(5, getter, "", "MODEL", widgets_values=["none"])
    graph = graph_of(sampled(sampled(drawing, 4), 5, identity=10).saved())
    assert graph.nodes["9"].links == {"model": ("1", 0)} and graph.nodes.keys() == {"1", "9", "10"}
    assert not graph.nodes["10"].links and not graph.nodes["10"].lost


def test_notes_and_remote_controls_are_no_nodes():
    drawing = base().add(2, "Note", widgets_values=["hi"]).add(3, "MarkdownNote").add(4, "Fast Muter (rgthree)", "a:*")
    assert graph_of(drawing.wire(1, 0, 4, 0).saved()).nodes.keys() == {"1"}


def test_switches_of_other_packs_stay_nodes():
    drawing = base().add(2, "Any Switch (rgthree)", "any_01:MODEL any_02:MODEL", "MODEL").wire(1, 0, 2, "any_02")
    graph = graph_of(sampled(drawing, 2).saved())
    assert graph.nodes["9"].links == {"model": ("2", 0)} and graph.nodes["2"].links == {"any_02": ("1", 0)}


# Muted and bypassed


def test_a_bypassed_node_lets_its_input_through():
    graph = graph_of(sampled(lora(lora(base(), 2, 1), 3, 2), 3).mode(2, 4).mode(3, 4).saved())
    assert graph.nodes["9"].links == {"model": ("1", 0)} and not graph.nodes["9"].lost
    assert {key: node.mode for key, node in graph.nodes.items()} == {"1": ON, "2": BYPASSED, "3": BYPASSED, "9": ON}
    assert graph.nodes["2"].values["lora_name"] == "style2.safetensors"
    assert graph.nodes["2"].links == {"model": ("1", 0)}


def test_a_muted_node_lets_nothing_through():
    graph = graph_of(sampled(lora(base(), 2, 1), 2).mode(2, 2).saved())
    assert graph.nodes["9"].lost == {"model": "2"} and not graph.nodes["9"].links
    assert graph.nodes["2"].mode == MUTED and graph.nodes["2"].links == {"model": ("1", 0)}


BYPASS = [  # inputs and outputs of the bypassed node, the output wired, type asked for -> the input that is let through
    ("model:MODEL clip:CLIP", "MODEL CLIP", 1, "CLIP", "clip"),
    ("clip:CLIP model:MODEL", "MODEL CLIP", 0, "MODEL", "model"),
    ("a:MODEL b:MODEL", "LATENT MODEL", 1, "MODEL", "b"),
    ("a:MODEL b:MODEL", "MODEL", 0, "MODEL", "a"),
    ("a:IMAGE b:FOUNDRY_BASE,MODEL c:MODEL", "MODEL", 0, "MODEL", "c"),  # the exact type before one of several
    ("a:IMAGE b:FOUNDRY_BASE,model", "MODEL", 0, "MODEL", "b"),
    ("a:IMAGE b:*", "MODEL", 0, "MODEL", "b"),
    ("a:IMAGE b:MODEL", "IMAGE MODEL", 1, "*", "b"),
    ("a:IMAGE b:MODEL", "X X X", 2, "*", "a"),
    ("a:IMAGE b:CLIP", "MODEL", 0, "MODEL", None),
    ("", "MODEL", 0, "MODEL", None),
]


@pytest.mark.parametrize(("inputs", "outputs", "output", "wanted", "through"), BYPASS)
def test_bypass_goes_by_type(inputs, outputs, output, wanted, through):
    drawing = Drawing().add(5, "Odd", inputs, outputs, mode=4).add(9, "End", f"in:{wanted}").wire(5, output, 9, "in")
    for number, word in enumerate(inputs.split(), 11):
        drawing.add(number, "Source", "", "*").wire(number, 0, 5, word.partition(":")[0])
    node = graph_of(drawing.saved()).nodes["9"]
    if through is None:
        assert node.lost == {"in": "5"} and not node.links
    else:
        place = [word.partition(":")[0] for word in inputs.split()].index(through)
        assert node.links == {"in": (str(11 + place), 0)} and not node.lost


# Subgraphs


def subgraph(mode: int = 0, **host: Any) -> Json:
    """base -> [subgraph 5: LoRA 2 -> LoRA 3 (its strength is a widget of the subgraph)] -> sampler."""
    inside = Drawing()
    for identity in (2, 3):
        inside.add(identity, "LoraLoaderModelOnly", "model:MODEL strength_model:FLOAT!", "MODEL",
                   widgets_values=[f"style{identity}", 0.5])  # fmt: skip
    inside.wire(-10, 0, 2, "model").wire(2, 0, 3, "model").wire(-10, 1, 3, "strength_model").wire(3, 0, -20, 0)
    inputs = "model:MODEL strength:FLOAT!" if host.pop("sockets", True) else "model:MODEL"
    outer = base().add(5, SUB, inputs, "MODEL", mode=mode, **host).wire(1, 0, 5, "model")
    definition = inside.definition(SUB, "model strength", "model")
    return sampled(outer, 5).saved(definitions={"subgraphs": [definition]})


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


# What nobody meant


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


STRANGERS = {
    "stack document": {"base": "x", "fuse": [], "stack": []},
    "/object_info": {"KSampler": {"input": {"required": {}}, "output": ["LATENT"], "name": "KSampler"}},
    "index of a sharded model": {"metadata": {}, "weight_map": {"a": "b"}},
    "configuration of a model": {"_class_name": "FluxPipeline", "vae": []},
    "another kind": {"hello": {"world": 1}},
    "of another kind": {"nodes": [{"id": "1", "type": "n8n-nodes-base.start"}], "connections": {}},
}


@pytest.mark.parametrize("what", STRANGERS)
def test_other_json_is_told_in_one_sentence(what, tmp_path):
    path = tmp_path / "x.json"
    path.write_text(json.dumps(STRANGERS[what]))
    with pytest.raises(FoundryError, match=what) as caught:
        read_workflow(path)
    assert caught.value.code == "workflow" and caught.value.what.startswith("x.json holds no workflow:")
    assert caught.value.why and caught.value.fix


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no json",
        b"[" * 200_000,
        b"9" * 6000,
        b"\xff\xfe\x00",
        b'{"1": ' * 3000,
        b"null",
        b"[]",
        b"{}",
        b"\0" * 64,
    ],
    ids=lambda content: repr(content[:8]),
)
def test_other_files_are_told(content, tmp_path):
    path = tmp_path / "x.json"
    path.write_bytes(content)
    with pytest.raises(FoundryError, match="holds no workflow") as caught:
        read_workflow(path)
    assert caught.value.code == "workflow"


def test_files_that_are_not_there_or_too_large(tmp_path):
    with pytest.raises(FoundryError, match="does not exist"):
        read_workflow(tmp_path / "none.json")
    with pytest.raises(FoundryError, match="not a regular file"):
        read_workflow(tmp_path)
    path = tmp_path / "large.json"
    with path.open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    with pytest.raises(FoundryError, match="larger than 32 MB"):
        read_workflow(path)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_files_of_windows_editors(encoding, tmp_path):
    path = tmp_path / "x.json"
    path.write_text(json.dumps(prompt_example(NAMES[0])), encoding=encoding)
    assert read_workflow(path) == graph_of(prompt_example(NAMES[0]))
