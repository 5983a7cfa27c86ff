"""A name that is nearly that of a file that is there: LF306 with the fix that settles it, at every node that has it."""

from __future__ import annotations

import json

import pytest
import torch
from drawn_prompts import drawn, folded
from lora_foundry.loaders.converting.fixing import apply_fixes, renamed
from lora_foundry.loaders.lint.lint import Lint, lint
from lora_foundry.loaders.lint.model_folders import ModelFolders
from lora_foundry.loaders.workflows.reading import graph_of
from safetensors.torch import save_file
from sketches import Sketch

LORA = {"blocks.0.q.lora_down.weight": torch.zeros(2, 8), "blocks.0.q.lora_up.weight": torch.zeros(8, 2)}
BASE = {"blocks.0.q.weight": torch.zeros(8, 8, dtype=torch.bfloat16)}
STYLE, QWEN = "my_style.safetensors", "qwen_image.safetensors"
FORMS = {"prompt": lambda prompt: prompt, "canvas": drawn, "subgraph": lambda prompt: folded(drawn(prompt))}


def put(root, kind: str, name: str, tensors: dict) -> None:
    place = root / kind / name
    place.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, place)


def native(kind: str, **inputs) -> Sketch:
    g = Sketch()
    g.sample(g(kind, model=g.unet(QWEN), **inputs), g("CLIPLoader"))
    return g


def of_list(make) -> Sketch:
    g = Sketch()
    g.sample(g("CR Apply LoRA Stack", model=g.unet(QWEN), lora_stack=make(g)), g("CLIPLoader"))
    return g


def ours(rows: str = "", fused: str = "") -> Sketch:
    g = Sketch()
    model = g("FoundryLoadBase", base_name=QWEN)
    if fused:
        model = g("FoundryFuseBaseLoRA", model=model, lora_name=fused, strength=1.0)
    if rows:
        model = g("FoundryStackLoRAs", model=model, lora_stack=g("FoundryLoRAStack", loras=rows))
    g.sample(g("FoundryApply", model=model), g("CLIPLoader"))
    return g


def made(kind: str) -> Sketch:
    g = Sketch()
    g(kind, lora_stack=g("FoundryLoRA", lora_name=STYLE, strength_model=1.0))
    return g


def in_rows(name: str) -> Sketch:
    rows = [{"name": name, "strength": 1.0, "active": True}, {"name": "other", "strength": 0.0, "active": True}]
    return native("Lora Loader (LoraManager)", loras=rows, text="")


NAMING = {
    "loader": lambda: native("LoraLoaderModelOnly", lora_name=STYLE, strength_model=1.0),
    "power": lambda: native("Power Lora Loader (rgthree)", lora_1={"on": True, "lora": STYLE, "strength": 0.7}),
    "rows": lambda: in_rows("my_style"),
    "tags": lambda: native("LoRA Text Loader (LoraManager)", lora_syntax="<lora:other:0> <lora:my_style:0.7>"),
    "list": lambda: of_list(lambda g: g("CR LoRA Stack", switch_1="On", lora_name_1=STYLE, model_weight_1=1.0)),
    "stack": lambda: ours(json.dumps([{"path": STYLE, "strength": 0.8}])),
    "fuse": lambda: ours(fused=STYLE),
    "merge": lambda: made("FoundryMergeLoRAs"),
    "conflicts": lambda: made("FoundryLoRAConflicts"),
}
# Every node there is finds none of these by the name above, whatever it lets people leave out.
SPELLED = ("qwen/My_Style.safetensors", "my-style.safetensors", "my style.sft")


def checked(saved: object, root) -> Lint:
    return lint(graph_of(saved), ModelFolders([root]))


def settled(saved: object, root) -> object:
    """The workflow after the one fix of its one finding, which leaves nothing to be said."""
    (finding,) = checked(saved, root).findings
    (fix,) = finding.to_json()["fix_actions"]
    fixed, done, _ = apply_fixes(saved, [fix], ModelFolders([root]))
    assert finding.text == "LF306.near" and done == [fix]
    assert checked(fixed, root).findings == ()
    return fixed


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("naming", NAMING)
def test_every_node_that_names_a_lora_gets_the_fix(tmp_path, naming, form):
    put(tmp_path, "diffusion_models", QWEN, BASE)
    for number, there in enumerate(SPELLED):
        root = tmp_path / str(number)
        put(root, "diffusion_models", QWEN, BASE)
        put(root, "loras", there, LORA)
        settled(FORMS[form](NAMING[naming]().prompt), root)


def test_a_name_without_its_ending_is_replaced_by_one_without(tmp_path):
    put(tmp_path, "diffusion_models", QWEN, BASE)
    put(tmp_path, "loras", "qwen/My-Style.safetensors", LORA)
    fixed = json.dumps([settled(NAMING[key]().prompt, tmp_path) for key in ("rows", "tags")])
    assert '"name": "My-Style"' in fixed and "<lora:My-Style:0.7>" in fixed and "<lora:other:0>" in fixed


@pytest.mark.parametrize("there", ["qwen/my_style.safetensors", "my_style.sft"])
def test_what_a_node_finds_by_itself_is_not_missing(tmp_path, there):
    put(tmp_path, "diffusion_models", QWEN, BASE)
    put(tmp_path, "loras", there, LORA)
    for naming in ("power", "rows", "tags"):
        assert checked(NAMING[naming]().prompt, tmp_path).findings == ()


def test_of_several_near_names_the_nearest_is_offered(tmp_path):
    put(tmp_path, "diffusion_models", QWEN, BASE)
    for name in ("flux/MY_style.safetensors", "wan/my_style.safetensors", "qwen/new/my_style.safetensors"):
        put(tmp_path, "loras", name, LORA)
    saved = native("LoraLoaderModelOnly", lora_name="qwen\\my_style.safetensors", strength_model=1.0).prompt
    (finding,) = checked(saved, tmp_path).findings
    assert dict(finding.values)["near"] == "qwen/new/my_style.safetensors"


@pytest.mark.parametrize("form", FORMS)
def test_models_that_a_lora_is_extracted_from(tmp_path, form):
    put(tmp_path, "diffusion_models", QWEN, BASE)
    put(tmp_path, "checkpoints", "tuned/My-Tuned.safetensors", BASE)
    g = Sketch()
    g("FoundryExtractLoRA", tuned_name="my_tuned.safetensors", base_name=QWEN)
    assert "tuned/My-Tuned.safetensors" in json.dumps(settled(FORMS[form](g.prompt), tmp_path))


def test_a_lora_that_is_merged_is_followed_and_told_once(tmp_path):
    """One that is not there at all, in a list that goes into a merge and from there into a model."""
    put(tmp_path, "diffusion_models", QWEN, BASE)
    g = Sketch()
    merged = g("FoundryMergeLoRAs", lora_stack=g("FoundryLoRA", lora_name="gone.safetensors", strength_model=1.0))
    model = g("FoundryStackLoRAs", model=g("FoundryLoadBase", base_name=QWEN), lora_stack=merged)
    g.sample(g("FoundryApply", model=model), g("CLIPLoader"))
    assert [each.text for each in checked(g.prompt, tmp_path).findings] == ["LF306.missing"]
    assert [each.text for each in checked(made("FoundryMergeLoRAs").prompt, tmp_path).findings] == ["LF306.missing"]
    assert lint(graph_of(made("FoundryMergeLoRAs").prompt)).findings == ()  # no files are looked at, none is lost


@pytest.mark.parametrize("name", ["lora", "l", "0.7"])
def test_a_name_that_is_part_of_its_tag(name):
    assert renamed(f"a <lora:{name}:0.7> cat", name, "New") == "a <lora:New:0.7> cat"


def test_a_prompt_that_begins_with_a_bracket_is_no_list_of_rows():
    assert renamed("[cat:dog:0.5] <lora:My Lora:1>", "My Lora", "my_lora") == "[cat:dog:0.5] <lora:my_lora:1>"
