"""A workflow in every form it is saved in gives one graph; what is no workflow gives one sentence."""

from __future__ import annotations

import json

import pytest
from drawings import KSAMPLER, SAMPLING, Drawing, base, lora, sampled
from lora_foundry.engine.errors import FoundryError
from lora_foundry.loaders.lint.order import upstream
from lora_foundry.loaders.workflows.graph import BYPASSED, MUTED, ON, GraphNode
from lora_foundry.loaders.workflows.reading import MAX_BYTES, graph_of, read_workflow
from lora_foundry.loaders.workflows.widget_names import ORDERS, named_values
from workflow_parts import NAMES, drawn_example, prompt_example

every_example = pytest.mark.parametrize("name", NAMES)


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
    assert next(upstream(graph, "9")).id == "2"


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
