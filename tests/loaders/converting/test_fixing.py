"""The fixes of findings made in a workflow, in both forms: only what they name changes."""

from __future__ import annotations

import copy
import json

import pytest
from community_graphs import qwen_style_then_lightning
from drawn_prompts import drawn, folded, prompt_of
from lora_foundry.loaders.converting.fixing import apply_fixes, renamed
from lora_foundry.loaders.lint.lint import lint
from lora_foundry.loaders.workflows.reading import graph_of
from sketches import LIGHTNING_8, Sketch

FORMS = {"prompt": copy.deepcopy, "canvas": drawn, "subgraph": lambda prompt: folded(drawn(prompt))}
every_form = pytest.mark.parametrize("form", FORMS)


def fixes_of(saved) -> list:
    found = lint(graph_of(saved)).to_json()["findings"]
    return [fix for finding in found for fix in finding.get("fix_actions", ())]


def wrong_sampling() -> Sketch:
    g = Sketch()
    g.sample(g.lora(g.unet("qwen_image_bf16.safetensors"), LIGHTNING_8), g("CLIPLoader"), 3, 7.0)
    return g


@every_form
def test_steps_and_cfg_are_set(form):
    saved = FORMS[form](wrong_sampling().prompt)
    fixes = fixes_of(saved)
    made, done, _ = apply_fixes(saved, fixes)
    assert done == fixes and {fix["input"]: fix["value"] for fix in fixes} == {"steps": 8, "cfg": 1}
    (sampler,) = [node["inputs"] for node in prompt_of(made).values() if node["class_type"] == "KSampler"]
    assert (sampler["steps"], sampler["cfg"]) == (8, 1) and fixes_of(made) == []
    before, after = prompt_of(saved), prompt_of(made)
    assert {key for key in before if before[key] != after[key]} == {fixes[0]["node"]}


@every_form
def test_what_is_wired_is_not_set(form):
    g = Sketch()
    steps = g("PrimitiveInt", value=3)
    g.sample(g.lora(g.unet("qwen_image_bf16.safetensors"), LIGHTNING_8), g("CLIPLoader"), steps, 1.0)
    saved = FORMS[form](g.prompt)
    made, done, _ = apply_fixes(saved, fixes_of(saved))
    assert fixes_of(saved) and not done and made == saved


@every_form
def test_a_file_name_is_replaced_where_it_stands(form):
    g = Sketch()
    base = g.unet("qwen_image_bf16.safetensors")
    row = {"lora_1": {"on": True, "lora": "a\\old.safetensors", "strength": 0.7}}
    model = g.lora(g("Power Lora Loader (rgthree)", model=base, **row), "b.safetensors", 0.3)
    g.sample(model, g("CLIPLoader"))
    saved = FORMS[form](g.prompt)
    last = next(key for key, node in prompt_of(saved).items() if node["class_type"] == "LoraLoaderModelOnly")
    fix = {"action": "replace", "node": last, "from": "a/old.safetensors", "to": "new.safetensors"}
    made, done, _ = apply_fixes(saved, [fix])
    assert done == [fix] and '"new.safetensors"' in json.dumps(made) and "old.safetensors" not in json.dumps(made)
    assert json.dumps(made).count("b.safetensors") == json.dumps(saved).count("b.safetensors")


@every_form
def test_an_accelerator_on_top_is_converted(form):
    saved = FORMS[form](qwen_style_then_lightning().prompt)
    fixes = fixes_of(saved)
    made, done, conversion = apply_fixes(saved, fixes)
    assert [fix["action"] for fix in done] == ["convert"] and conversion is not None and conversion.converted
    assert "FoundryFuseBaseLoRA" in {node["class_type"] for node in prompt_of(made).values()} and fixes_of(made) == []


def test_a_name_in_rows_is_replaced_and_all_else_of_them_stays():
    rows = '[{"path": "a\\\\x.safetensors", "strength": 0.5, "mine": 1}, "y.safetensors"]'
    assert renamed("a/x.safetensors", "a\\x.safetensors", "z") == "z"
    assert renamed("my a/x.safetensors", "a/x.safetensors", "z") is None
    assert renamed('["y.safetensors"]', "y.safetensors", "z.safetensors") == '["z.safetensors"]'
    assert renamed(rows, "a/x.safetensors", "z") is None  # a key that is none of ours: the text is not understood
    assert renamed("[broken", "x", "z") is None and renamed(5, "x", "z") is None


def test_a_node_that_is_not_there_is_no_fix():
    saved = wrong_sampling().prompt
    made, done, _ = apply_fixes(saved, [{"action": "set", "node": "77", "input": "steps", "value": 8}])
    assert not done and made == saved


ROWS_AS_TEXT = {  # as in tests/web/fixes.test.mjs: the editor and the terminal write the same
    '["a/x.sft"]': '["N"]',
    '[\n  "a\\\\x.sft",\n  {"on":false, "path":"a/x.sft" ,"strength":1.0}\n]\n':
        '[\n  "N",\n  {"on":false, "path":"N" ,"strength":1.0}\n]\n',
    ' [{"path" : "a\\/x.sft"}, "b/a/x.sft", "\\u00e9"]': ' [{"path" : "N"}, "b/a/x.sft", "\\u00e9"]',
    '{"stack": [{"path": "a/x.sft"}]}': '{"stack": [{"path": "N"}]}',
    '["y.sft"]': None,
    '["a/x.sft", 1]': None,
    '- a/x.sft': None,
    '["a/x.sft"': None,
}  # fmt: skip


@pytest.mark.parametrize("text", ROWS_AS_TEXT)
def test_of_rows_as_text_only_the_name_changes(text):
    told = ROWS_AS_TEXT[text]
    assert renamed(text, "a/x.sft", "N") == told
    assert renamed(text, "a\\x.sft", 'É"\\') == (told and told.replace('"N"', '"É\\"\\\\"'))
