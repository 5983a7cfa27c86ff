"""Single LoRAs moved between the stages: what the models get is told by the referee, in every form."""

from __future__ import annotations

import copy
import json

import pytest
from applied_loras import seen_by, what
from drawn_prompts import drawn, folded, prompt_of
from lora_foundry.engine.fixes import fix_actions
from lora_foundry.loaders.converting.fixing import apply_fixes
from sketches import LIGHTNING_8, Sketch

FORMS = {"prompt": copy.deepcopy, "canvas": drawn, "subgraph": lambda prompt: folded(drawn(prompt))}
every_form = pytest.mark.parametrize("form", FORMS)
QUANTIZE = {"format": "float8_e4m3fn", "matmul": "full precision", "keep_high_precision": "auto"}


def stages(rows: list, fused: str = "", after: bool = False, native: bool = False) -> Sketch:
    """Our stages; a native loader before the fusion, or after the quantizer."""
    g = Sketch()
    model = (
        g.unet("qwen_image_bf16.safetensors")
        if native
        else g("FoundryLoadBase", base_name="qwen_image_bf16.safetensors")
    )
    if native:
        model = g.lora(model, "ink.safetensors", 0.6)
    if fused:
        model = g("FoundryFuseBaseLoRA", model=model, lora_name=fused, strength=1.0, rounding="once")
    listed = g("FoundryLoRAStack", loras=json.dumps(rows))
    model = g("FoundryQuantizeFP8", model=g("FoundryStackLoRAs", model=model, lora_stack=listed), **QUANTIZE)
    g.sample(g.lora(model, "ink.safetensors", 0.6) if after else model, g("CLIPLoader"), 8, 1.0)
    return g


def fixed(form: str, g: Sketch, action: str, kind: str, lora: str) -> tuple[dict, list]:
    saved = FORMS[form](g.prompt)
    node = next(key for key, each in prompt_of(saved).items() if each["class_type"] == kind)
    kept = copy.deepcopy(saved)
    made, done, _ = apply_fixes(saved, [{"action": action, "node": node, "lora": lora}])
    assert saved == kept
    return prompt_of(made), done


def of_sampler(prompt: dict) -> list:
    (sampler,) = [node["inputs"] for node in prompt.values() if node["class_type"] == "KSampler"]
    return what(prompt, sampler["model"]).loras


def kinds(prompt: dict) -> list[str]:
    return [node["class_type"] for node in prompt.values()]


@every_form
def test_a_needed_base_lora_gets_a_node_of_its_own_below_the_stack(form):
    made, done = fixed(
        form, stages([{"path": "ink.safetensors", "strength": 0.6}]), "fuse", "FoundryLoRAStack", LIGHTNING_8
    )
    assert done and of_sampler(made) == [(LIGHTNING_8.removesuffix(".safetensors"), 1.0), ("ink", 0.6)]
    assert kinds(made).count("FoundryFuseBaseLoRA") == 1


@every_form
def test_where_none_was_chosen_it_is_chosen_there(form):
    made, done = fixed(form, stages([], "none: vanilla base"), "fuse", "FoundryLoRAStack", LIGHTNING_8)
    (node,) = [each["inputs"] for each in made.values() if each["class_type"] == "FoundryFuseBaseLoRA"]
    assert done and (node["lora_name"], node["strength"]) == (LIGHTNING_8, 1.0)


@every_form
def test_one_that_is_stacked_goes_from_there_to_the_fusion_with_its_strength(form):
    rows = [{"path": "ink.safetensors", "strength": 0.6, "blocks": "double=1"}, {"path": LIGHTNING_8, "strength": 0.9}]
    made, done = fixed(form, stages(rows), "fuse", "FoundryStackLoRAs", LIGHTNING_8)
    assert done and of_sampler(made) == [(LIGHTNING_8.removesuffix(".safetensors"), 0.9), ("ink", 0.6)]
    (left,) = [
        json.loads(each["inputs"]["loras"]) for each in made.values() if each["class_type"] == "FoundryLoRAStack"
    ]
    assert left == rows[:1]


@every_form
@pytest.mark.parametrize("kind", ["FoundryLoRAStack", "FoundryFuseBaseLoRA"])
def test_what_is_inside_the_base_already_is_removed(form, kind):
    rows = [{"path": "ink.safetensors", "strength": 0.6}, {"path": "film.safetensors", "strength": 0.3}]
    lora = "ink.safetensors" if kind == "FoundryLoRAStack" else LIGHTNING_8
    made, done = fixed(form, stages(rows, LIGHTNING_8), "remove", kind, lora)
    names = [name for name, _ in of_sampler(made)]
    assert done and lora.removesuffix(".safetensors") not in names and "film" in names and len(names) == 2


@every_form
@pytest.mark.parametrize("after", [True, False])
def test_a_native_loader_outside_the_stages_moves_into_the_stack(form, after):
    g = stages([{"path": "film.safetensors", "strength": 0.3}], LIGHTNING_8, after, not after)
    before = sorted(of_sampler(prompt_of(FORMS[form](g.prompt))))
    made, done = fixed(form, g, "stack", "LoraLoaderModelOnly", "ink.safetensors")
    assert done and sorted(of_sampler(made)) == before and "LoraLoaderModelOnly" not in kinds(made)
    (rows,) = [
        json.loads(each["inputs"]["loras"]) for each in made.values() if each["class_type"] == "FoundryLoRAStack"
    ]
    assert rows[1] == {"path": "ink.safetensors", "strength": 0.6, "clip_strength": 0.0}


def test_where_there_is_no_stack_nothing_is_changed():
    g = Sketch()
    g.sample(g.lora(g.unet("a.safetensors"), "ink.safetensors"), g("CLIPLoader"))
    for action in ("fuse", "stack"):
        made, done, _ = apply_fixes(g.prompt, [{"action": action, "node": "2", "lora": "ink.safetensors"}])
        assert not done and made == g.prompt
    assert seen_by(g.prompt)


def test_findings_name_these_fixes():
    needs = {"base_lora": LIGHTNING_8, "lora": "ink.safetensors"}
    assert fix_actions("LF102.missing", "4", needs) == [{"action": "fuse", "node": "4", "lora": LIGHTNING_8}]
    assert fix_actions("LF102.missing", "4", {**needs, "base_lora": "a Lightning"}) == []  # no file to take
    assert fix_actions("LF105.contained", "4", needs) == [{"action": "remove", "node": "4", "lora": "ink.safetensors"}]
    outside = {"loras": "ink.safetensors", "at": "7", "quantized": "6"}
    assert fix_actions("LF201.after_quantize", "7", outside) == [
        {"action": "stack", "node": "7", "lora": "ink.safetensors"}
    ]
