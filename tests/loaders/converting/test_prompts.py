"""Converting prompts: every LoRA arrives with its strengths, and whoever took a model or a CLIP gets the same one."""

from __future__ import annotations

import copy
import json

import pytest
from applied_loras import rows_of, seen_by
from convertible_graphs import CONVERTIBLE
from lora_foundry.loaders.converting.convert import Conversion, convert
from lora_foundry.loaders.converting.kinds import APPLIERS, FORMS

every_graph = pytest.mark.parametrize("name", CONVERTIBLE)


def converted(name: str) -> tuple[dict, Conversion]:
    prompt = CONVERTIBLE[name]().prompt
    return prompt, convert(copy.deepcopy(prompt))


def test_there_are_forty_graphs():
    assert len(CONVERTIBLE) >= 40


@every_graph
def test_whoever_took_a_model_or_a_clip_gets_the_same_one(name):
    before, result = converted(name)
    after = result.made
    told = {key: value for key, value in seen_by(before).items() if key[0] in after}
    assert result.converted and seen_by(after) == told


@every_graph
def test_nothing_native_is_left_and_all_else_is_as_it_was(name):
    before, result = converted(name)
    after = result.made
    assert not [node for node in after.values() if node["class_type"] in APPLIERS] and not result.left
    ours = {key for key, node in after.items() if node["class_type"] in FORMS}
    changed = {key for key in before.keys() & after.keys() if before[key] != after[key]} - ours
    for key in changed:  # nothing but where a model or a CLIP comes from
        old, new = before[key]["inputs"], after[key]["inputs"]
        assert {name for name in old if old[name] != new[name]} <= {
            name for name, value in new.items() if isinstance(value, list) and value[0] in ours | set(after)
        }
    assert set(after) - ours <= set(before)


@every_graph
def test_the_stages_stand_in_their_order(name):
    _, result = converted(name)
    stage = {"FoundryLoadBase": 0, "FoundryLoadCheckpoint": 0, "FoundryFuseBaseLoRA": 1, "FoundryStackLoRAs": 2,
             "FoundryStackValidator": 3, "FoundryApply": 4, "FoundryQuantizeFP8": 4}  # fmt: skip
    for node in result.made.values():
        if (mine := stage.get(node["class_type"])) is not None and "model" in node["inputs"]:
            below = result.made[node["inputs"]["model"][0]]["class_type"]
            assert stage.get(below, 0) < mine or (stage.get(below), mine) == (1, 1)


@every_graph
def test_it_is_told_what_became_of_every_lora(name):
    before, result = converted(name)
    told = {row["path"] for each in result.converted for row in (*each["fused"], *each["stacked"])}
    for node in before.values():
        for lora, *_ in rows_of(before, node) or ():
            assert any(lora in path for path in told) or lora.startswith("wired")
    assert json.loads(json.dumps(result.to_json()))["changed"]


def test_what_is_given_is_not_changed():
    prompt = CONVERTIBLE["branches"]().prompt
    kept = copy.deepcopy(prompt)
    convert(prompt)
    assert prompt == kept


def test_accelerators_are_fused_and_the_rest_is_one_stack_in_its_order():
    _, result = converted("qwen_style_then_lightning")
    (each,) = result.converted
    assert [row["path"] for row in each["fused"]] == ["Qwen-Image-Lightning-8steps-V1.0.safetensors"]
    (rows,) = [node["inputs"]["loras"] for node in result.made.values() if node["class_type"] == "FoundryLoRAStack"]
    assert json.loads(rows) == [{"path": "my_watercolor.safetensors", "strength": 0.8, "clip_strength": 0.0}]
    _, result = converted("sdxl_three_loras")
    paths = [row["path"] for row in result.converted[0]["stacked"]]
    assert paths == ["add-detail-xl.safetensors", "pixel-art-xl.safetensors", "SDXL/ral-dissolve.safetensors"]


def test_a_row_that_is_off_stays_one():
    _, result = converted("rgthree_power")
    stacked = {row["path"]: row["on"] for row in result.converted[0]["stacked"]}
    assert stacked["Hyper-SDXL-8steps-lora.safetensors"] is False and stacked["pixel-art-xl.safetensors"] is True


def test_a_loader_that_others_use_too_stays():
    before, result = converted("fp8_fast_beside")
    assert result.made["1"] == before["1"]
    assert "FoundryLoadBase" in {node["class_type"] for node in result.made.values()}
    _, result = converted("face_detailer")
    assert result.made["1"]["class_type"] == "CheckpointLoaderSimple"


def test_one_stacker_on_two_models_is_one_lora_stack():
    _, result = converted("shared_stacker")
    kinds = [node["class_type"] for node in result.made.values()]
    assert (
        kinds.count("FoundryLoRAStack") == 1 and kinds.count("FoundryStackLoRAs") == 2 and "CR LoRA Stack" not in kinds
    )


def test_a_wire_into_a_strength_is_kept():
    before, result = converted("wired_strength")
    slider = next(key for key, node in before.items() if node["class_type"] == "SomeSlider")
    taken = [(node["class_type"], name) for node in result.made.values() for name, value in node["inputs"].items()
             if value == [slider, 0]]  # fmt: skip
    assert taken == [("FoundryFuseBaseLoRA", "strength"), ("FoundryLoRA", "strength_model")]


def test_converting_again_changes_nothing():
    _, result = converted("branches")
    again = convert(result.made)
    assert not again.converted and again.made == result.made
