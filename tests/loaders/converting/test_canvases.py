"""Converting workflows as the browser saves them: the same models, the same bytes elsewhere, a tidy canvas."""

from __future__ import annotations

import copy
import json
from itertools import combinations
from typing import Any

import pytest
from applied_loras import seen_by
from convertible_graphs import CONVERTIBLE
from drawings import SUB, Drawing, base, lora, sampled
from drawn_prompts import drawn, folded, prompt_of
from lora_foundry.loaders.converting.convert import convert
from lora_foundry.loaders.converting.kinds import APPLIERS, FORMS
from lora_foundry.loaders.converting.layout import Box, box_of

every_graph = pytest.mark.parametrize("name", CONVERTIBLE)
Json = dict[str, Any]


def before_and_after(name: str, fold: bool = False) -> tuple[Json, Json]:
    saved = drawn(CONVERTIBLE[name]().prompt)
    saved = folded(saved) if fold else saved
    kept = copy.deepcopy(saved)
    result = convert(saved)
    assert saved == kept and result.converted and not result.left
    return saved, result.made


def levels(saved: Json) -> list[Json]:
    return [saved, *saved.get("definitions", {}).get("subgraphs", [])]


def link_parts(link: Any) -> list[Any]:
    keys = ("id", "origin_id", "origin_slot", "target_id", "target_slot")
    return [link[key] for key in keys] if isinstance(link, dict) else link[:5]


def check_links(level: Json) -> None:
    """Every link is noted at both of its ends, and nothing else is noted there."""
    ends = {parts[0]: parts for parts in map(link_parts, level["links"])}
    assert len(ends) == len(level["links"])
    nodes = {node["id"]: node for node in level["nodes"]}
    assert len(nodes) == len(level["nodes"])
    for number, source, output, target, slot in ends.values():
        leaving = level["inputs"][output]["linkIds"] if source == -10 else nodes[source]["outputs"][output]["links"]
        assert number in leaving
        assert target == -20 or nodes[target]["inputs"][slot]["link"] == number
    for node in level["nodes"]:
        for slot, socket in enumerate(node["inputs"]):
            assert socket["link"] is None or ends[socket["link"]][3:] == [node["id"], slot]
        for slot, output in enumerate(node["outputs"]):
            assert all(ends[number][1:3] == [node["id"], slot] for number in output["links"] or ())


def without_links(node: Json) -> str:
    bare = copy.deepcopy(node)
    for socket in bare["inputs"]:
        socket["link"] = None
    for output in bare["outputs"]:
        output["links"] = None
    return json.dumps(bare)


@pytest.mark.parametrize("fold", [False, True], ids=["flat", "subgraph"])
@every_graph
def test_whoever_took_a_model_or_a_clip_gets_the_same_one(name, fold):
    saved, made = before_and_after(name, fold)
    before, after = prompt_of(saved), prompt_of(made)
    assert seen_by(after) == {key: value for key, value in seen_by(before).items() if key[0] in after}
    assert not [node for node in after.values() if node["class_type"] in APPLIERS]


@pytest.mark.parametrize("fold", [False, True], ids=["flat", "subgraph"])
@every_graph
def test_the_file_is_sound_and_all_else_keeps_its_bytes(name, fold):
    saved, made = before_and_after(name, fold)
    for old, new in zip(levels(saved), levels(made), strict=True):
        check_links(new)
        kept = {node["id"]: node for node in old["nodes"]}
        for node in new["nodes"]:
            if node["type"] in FORMS:
                assert node["id"] in kept or node["id"] > max(kept, default=0)
            else:
                assert without_links(node) == without_links(kept[node["id"]])
        same = {"id", "revision", "config", "extra", "version", "name", "inputs", "outputs"}
        assert {key: old.get(key) for key in same} == {key: new.get(key) for key in same}
    ids = [node["id"] for level in levels(made) for node in level["nodes"]]
    numbers = [link_parts(link)[0] for level in levels(made) for link in level["links"]]
    assert made["last_node_id"] >= max(ids) and made["last_link_id"] >= max(numbers, default=0)


@every_graph
def test_no_two_nodes_overlap_and_new_ones_stand_in_frames_of_their_own(name):
    _, made = before_and_after(name)
    boxes = {node["id"]: box_of(node) for node in made["nodes"]}
    assert not [(one, two) for one, two in combinations(boxes, 2) if boxes[one].meets(boxes[two])]
    for frame in made["groups"]:
        x, y, width, height = frame["bounding"]
        inside = [
            node for node in made["nodes"] if x <= node["pos"][0] < x + width and y <= node["pos"][1] < y + height
        ]
        assert inside and all(node["type"] in FORMS for node in inside) and frame["title"].startswith("LoRA Foundry")


def test_the_frame_of_the_new_nodes_lies_over_no_other_frame():
    """It lay over the title of the next one, where that left no room between nodes."""
    before, _ = before_and_after("qwen_lightning")
    loader, *others = sorted(before["nodes"], key=lambda node: "Lora" not in node["type"])
    loader["pos"] = [0, 0]
    for place, node in enumerate(others):
        node["pos"] = [600 * (place % 2) - 300, 330 + 400 * (place // 2)]
    frame = [-320, 250, 1400, 3000]
    made = convert({**before, "groups": [{"id": 1, "title": "Sample", "bounding": frame}, {"bounding": ["x"]}]}).made
    mine = made["groups"][-1]["bounding"]
    assert len(made["groups"]) == 3 and not Box(*mine).meets(Box(*frame))


def only(made: Json, kind: str) -> Json:
    (found,) = [node for level in levels(made) for node in level["nodes"] if node["type"] == kind]
    return found


def rows(made: Json) -> list[Json]:
    found: list[Json] = json.loads(only(made, "FoundryLoRAStack")["widgets_values"][0])
    return found


def test_a_bypassed_loader_is_a_row_that_is_off():
    saved = sampled(lora(lora(base(), 2, 1), 3, 2), 3).mode(3, 4).saved()
    assert [row.get("on", True) for row in rows(convert(saved).made)] == [True, False]
    saved = sampled(lora(lora(base(), 2, 1), 3, 2), 3).mode(2, 4).saved()
    assert [row.get("on", True) for row in rows(convert(saved).made)] == [False, True]


def test_reroutes_and_set_and_get_nodes_that_lead_nowhere_go():
    drawing = base().add(2, "Reroute", "x:*", "*").wire(1, 0, 2, 0)
    drawing = lora(drawing, 3, 2).add(4, "SetNode", "MODEL:MODEL", "MODEL", widgets_values=["it"]).wire(3, 0, 4, 0)
    drawing = lora(drawing.add(5, "GetNode", "", "MODEL", widgets_values=["it"]), 6, 5)
    drawing = drawing.add(7, "Reroute", "x:*", "*").wire(6, 0, 7, 0)
    result = convert(sampled(drawing, 7).saved())
    kinds = [node["type"] for node in result.made["nodes"]]
    assert kinds.count("Reroute") == 1 and not {"SetNode", "GetNode"} & set(kinds)
    assert [row["path"] for row in rows(result.made)] == ["style3.safetensors", "style6.safetensors"]


def test_a_set_node_that_others_read_stays():
    drawing = lora(base(), 3, 1).add(4, "SetNode", "MODEL:MODEL", "MODEL", widgets_values=["it"]).wire(3, 0, 4, 0)
    drawing = sampled(drawing.add(5, "GetNode", "", "MODEL", widgets_values=["it"]), 5)
    result = convert(sampled(drawing, 3, identity=10).saved())
    after = prompt_of(result.made)
    assert {after["9"]["inputs"]["model"][0], after["10"]["inputs"]["model"][0]} == {
        str(only(result.made, "FoundryApply")["id"])
    }


def inner(drawing: Drawing, inputs: str, outputs: str, **more: Any) -> Json:
    """A definition whose ends note their links, as frontends save it."""
    made = drawing.definition(SUB, inputs, outputs, **more)
    for slot, end in enumerate(made["inputs"]):
        end["linkIds"] = [
            link["id"] for link in made["links"] if (link["origin_id"], link["origin_slot"]) == (-10, slot)
        ]
    for slot, end in enumerate(made["outputs"]):
        end["linkIds"] = [
            link["id"] for link in made["links"] if (link["target_id"], link["target_slot"]) == (-20, slot)
        ]
    for node in made["nodes"]:
        for slot, output in enumerate(node["outputs"]):
            output["links"] = [link["id"] for link in made["links"]
                               if (link["origin_id"], link["origin_slot"]) == (node["id"], slot)]  # fmt: skip
    return made


def with_a_strength_from_outside() -> Json:
    """base -> [subgraph 5: LoRA 2, its name shown outside -> LoRA 3, its strength an input] -> sampler."""
    inside = Drawing()
    for identity in (2, 3):
        inside.add(identity, "LoraLoaderModelOnly", "model:MODEL lora_name:COMBO! strength_model:FLOAT!", "MODEL",
                   widgets_values=[f"style{identity}.safetensors", 0.5])  # fmt: skip
    inside.wire(-10, 0, 2, "model").wire(2, 0, 3, "model").wire(-10, 1, 3, "strength_model").wire(3, 0, -20, 0)
    outer = base().add(5, SUB, "model:MODEL strength:FLOAT!", "MODEL", widgets_values=[0.25, "shown.safetensors"],
                       properties={"proxyWidgets": [["-1", "strength"], ["2", "lora_name"]]})  # fmt: skip
    definition = inner(inside, "model strength", "model")
    return sampled(outer.wire(1, 0, 5, "model"), 5).saved(definitions={"subgraphs": [definition]})


def test_what_sets_a_strength_from_outside_a_subgraph_sets_it_still():
    saved = with_a_strength_from_outside()
    result = convert(saved)
    assert result.converted and not result.left
    (definition,) = result.made["definitions"]["subgraphs"]
    check_links(definition)
    before, after = prompt_of(saved), prompt_of(result.made)
    assert seen_by(after) == seen_by(before)
    shown = next(node for node in result.made["nodes"] if node["id"] == 5)["properties"]["proxyWidgets"]
    rows_here = {str(node["id"]) for node in definition["nodes"] if node["type"] == "FoundryLoRA"}
    assert shown[0] == ["-1", "strength"] and shown[1][0] in rows_here and shown[1][1] == "lora_name"


def test_bends_of_links_that_go_are_forgotten():
    saved = sampled(lora(base(), 2, 1), 2).saved()
    bends = [{"id": 1, "pos": [0, 0], "linkIds": [1, 2]}, {"id": 2, "pos": [0, 0], "linkIds": [1]}]
    saved["extra"] = {"reroutes": bends,
                      "linkExtensions": [{"id": 1, "parentId": 1}, {"id": 2, "parentId": 1}]}  # fmt: skip
    made = convert(saved).made
    assert [bend["linkIds"] for bend in made["extra"]["reroutes"]] == [[2]]
    assert [each["id"] for each in made["extra"]["linkExtensions"]] == [2]
