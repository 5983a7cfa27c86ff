"""Single LoRAs moved between the stages: what the models get is told by the referee, in every form."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from applied_loras import seen_by, what
from drawn_prompts import drawn, folded, prompt_of
from lora_foundry.engine.fixes import fix_actions
from lora_foundry.loaders.converting.fixing import apply_fixes
from lora_foundry.loaders.disk.small import save_small
from sketches import LIGHTNING_8, Sketch

FORMS = {"prompt": copy.deepcopy, "canvas": drawn, "subgraph": lambda prompt: folded(drawn(prompt))}
every_form = pytest.mark.parametrize("form", FORMS)
QUANTIZE = {"format": "float8_e4m3fn", "matmul": "full precision", "keep_high_precision": "auto"}


def stages(rows: list, fused: str = "", after: bool = False, native: bool = False) -> Sketch:
    """Our stages; a native loader before the fusion, or after the quantizer."""
    g, base = Sketch(), "qwen_image_bf16.safetensors"
    model = g.lora(g.unet(base), "ink.safetensors", 0.6) if native else g("FoundryLoadBase", base_name=base)
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


@every_form
def test_one_that_two_loras_need_is_fused_once(form):
    rows = [{"path": name, "strength": 0.6} for name in ("ink.safetensors", "film.safetensors")]
    saved = FORMS[form](stages(rows).prompt)
    node = next(key for key, each in prompt_of(saved).items() if each["class_type"] == "FoundryLoRAStack")
    made, done, _ = apply_fixes(saved, [{"action": "fuse", "node": node, "lora": LIGHTNING_8} for _ in rows])
    assert len(done) == 2 and [name for name, _ in of_sampler(prompt_of(made))].count(LIGHTNING_8[:-12]) == 1


def two_models(*lists) -> Sketch:
    """Two of our stacks on bases of their own, with one list for both where one is given."""
    g = Sketch()
    nodes = [make(g) for make in lists]
    for number in range(2):
        model = g("FoundryLoadBase", base_name="qwen_image_bf16.safetensors")
        listed = {"lora_stack": nodes[min(number, len(nodes) - 1)]}
        g.sample(g("FoundryApply", model=g("FoundryStackLoRAs", model=model, **listed)), g("CLIPLoader"), 8, 1.0)
    return g


def listed(*rows):
    return lambda g: g("FoundryLoRAStack", loras=json.dumps(rows))


ROW = {"path": LIGHTNING_8, "strength": 0.8}
NODE = {"lora_name": LIGHTNING_8, "strength_model": 0.8, "strength_clip": 0.8, "enabled": True}
KEPT = {
    "the text comes by wire": [
        lambda g: g("FoundryLoRAStack", loras=g("PrimitiveString", value=json.dumps([ROW]))),
        listed(),
    ],
    "the strength comes by wire": [
        lambda g: g("FoundryLoRA", **{**NODE, "strength_model": g("SomeSlider")}),
        listed(),
    ],
    "the switch comes by wire": [
        lambda g: g("FoundryLoRA", **{**NODE, "enabled": g("PrimitiveBoolean", value=True)}),
        listed(),
    ],
    "it acts by block": [listed({**ROW, "blocks": "double=1,single=0.5"}), listed()],
    "by block, a node": [lambda g: g("FoundryLoRA", **NODE, blocks="double=1,single=0.5"), listed()],
    "the list is another pack's": [
        lambda g: g("CR LoRA Stack", switch_1="On", lora_name_1=LIGHTNING_8, model_weight_1=0.8, clip_weight_1=0.8),
        listed(),
    ],
    "another model has the same list": [listed(ROW)],
}


@pytest.mark.parametrize("why", KEPT)
def test_a_base_lora_that_cannot_be_taken_out_of_the_stack_is_not_fused_as_well(why):
    g = two_models(*KEPT[why])
    stack = next(key for key, each in g.prompt.items() if each["class_type"] == "FoundryStackLoRAs")
    kept = copy.deepcopy(g.prompt)
    made, done, _ = apply_fixes(g.prompt, [{"action": "fuse", "node": stack, "lora": LIGHTNING_8}])
    assert not done and made == kept


@pytest.mark.parametrize("action", ["fuse", "remove"])
def test_rows_whose_subgraph_shows_them_outside_stay(action):
    """The value outside counts: changed inside the subgraph, nothing would have been taken out."""
    saved = folded(drawn(stages([ROW]).prompt))
    nodes, host = saved["definitions"]["subgraphs"][0]["nodes"], saved["nodes"][0]
    node = next(str(each["id"]) for each in nodes if each["type"] == "FoundryLoRAStack")
    host["properties"]["proxyWidgets"], host["widgets_values"] = [[node, "loras"]], [json.dumps([ROW])]
    made, done, _ = apply_fixes(saved, [{"action": action, "node": f"900:{node}", "lora": LIGHTNING_8}])
    assert not done and made == saved


@pytest.mark.parametrize(
    ("rows", "strength", "left"),
    [
        ([{**ROW, "strength": 0.3, "on": False}, ROW], 0.8, 1),
        ([{**ROW, "strength": 0.5}, {**ROW, "strength": 0.25}], 0.75, 0),
        ([{**ROW, "on": False}], 1.0, 1),
    ],
)
def test_what_is_fused_is_what_the_rows_that_are_on_came_to(rows, strength, left):
    made, done = fixed("prompt", stages(rows), "fuse", "FoundryStackLoRAs", LIGHTNING_8)
    nodes = {each["class_type"]: each["inputs"] for each in made.values()}
    assert done and nodes["FoundryFuseBaseLoRA"]["strength"] == strength
    assert len(json.loads(nodes["FoundryLoRAStack"]["loras"])) == left


def test_a_free_fuse_node_that_serves_another_model_too_stays_free():
    g = Sketch()
    below = g("FoundryLoadBase", base_name="qwen_image_bf16.safetensors")
    below = g("FoundryFuseBaseLoRA", model=below, lora_name="none: vanilla base", strength=1.0, rounding="once")
    for _ in range(2):
        model = g("FoundryStackLoRAs", model=below, lora_stack=g("FoundryLoRAStack", loras="[]"))
        g.sample(g("FoundryApply", model=model), g("CLIPLoader"), 8, 1.0)
    made, done, _ = apply_fixes(g.prompt, [{"action": "fuse", "node": "4", "lora": LIGHTNING_8}])
    models = [what(made, each["inputs"]["model"]).loras for each in made.values() if each["class_type"] == "KSampler"]
    assert done and [[pair for pair in each if pair[0] != "none: vanilla base"] for each in models] == [
        [(LIGHTNING_8.removesuffix(".safetensors"), 1.0)],
        [],
    ]


def test_a_row_that_other_models_have_too_is_not_removed():
    g = two_models(listed(ROW))
    assert not apply_fixes(g.prompt, [{"action": "remove", "node": "1", "lora": LIGHTNING_8}])[1]
    g = two_models(listed(ROW), listed(ROW))
    made, done, _ = apply_fixes(g.prompt, [{"action": "remove", "node": "1", "lora": LIGHTNING_8}])
    assert done and [made[key]["inputs"]["loras"] for key in "12"] == ["[]", json.dumps([ROW])]


def test_a_row_beside_one_with_solo_is_not_taken_out_and_none_is_put_among_them():
    """Without it the others would be heard; beside it what comes would not."""
    rows = [{"path": LIGHTNING_8, "strength": 0.9, "solo": True}, {"path": "other.safetensors", "strength": 0.5}]
    g = stages(rows, after=True)
    made, done = fixed("prompt", g, "fuse", "FoundryStackLoRAs", LIGHTNING_8)
    assert not done and made == g.prompt
    made, done = fixed("prompt", g, "stack", "LoraLoaderModelOnly", "ink.safetensors")
    assert done and of_sampler(made) == of_sampler(g.prompt)
    assert json.dumps(rows) in [each["inputs"].get("loras") for each in made.values()]


@pytest.mark.parametrize("after", [True, False])
@pytest.mark.parametrize("beside", ["KSampler", "BasicScheduler"])
def test_a_native_loader_beside_which_somebody_samples_stays_where_it_is(after, beside):
    """A scheduler asks a model for its noise levels alone: it may have any."""
    g = stages([], after=after, native=not after)
    (loader,) = [key for key, each in g.prompt.items() if each["class_type"] == "LoraLoaderModelOnly"]
    between = g.prompt[loader]["inputs"]["model"] if after else [loader, 0]
    g(beside, model=between)
    made, done, _ = apply_fixes(g.prompt, [{"action": "stack", "node": loader, "lora": "ink.safetensors"}])
    assert bool(done) == (loader not in made) == (beside == "BasicScheduler")


def test_an_input_that_a_file_does_not_have_is_added():
    """Nothing is wired there, and some files leave such inputs out."""
    g = Sketch()
    model = g("FoundryStackLoRAs", model=g("FoundryLoadBase", base_name="a.safetensors"))
    g.sample(g.lora(g("FoundryApply", model=model), "ink.safetensors", 0.6), g("CLIPLoader"))
    saved = drawn(g.prompt)
    node = next(each for each in saved["nodes"] if each["type"] == "FoundryStackLoRAs")
    node["inputs"] = [each for each in node["inputs"] if each["name"] == "model"]
    made, done, _ = apply_fixes(saved, [{"action": "stack", "node": "4", "lora": "ink.safetensors"}])
    assert done and of_sampler(prompt_of(made)) == [("ink", 0.6)]


def test_a_loader_moves_into_a_list_of_its_own_where_another_model_has_the_list_too():
    g = two_models(listed(ROW))
    apply, (sampler, _) = (next(key for key, each in g.prompt.items() if each["class_type"] == "FoundryApply"),
                           [key for key, each in g.prompt.items() if each["class_type"] == "KSampler"])  # fmt: skip
    loader = g.lora([apply, 0], "ink.safetensors", 0.6)
    g.prompt[sampler]["inputs"]["model"] = loader
    before = seen_by(g.prompt)
    made, done, _ = apply_fixes(g.prompt, [{"action": "stack", "node": loader[0], "lora": "ink.safetensors"}])
    assert done and loader[0] not in made and seen_by(made) == before


@pytest.mark.parametrize(("takes", "told"), [("nobody", 0.0), ("the encoder", None), ("both", "stays")])
def test_a_loader_that_moves_changes_no_clip(takes, told):
    """Of a loader whose CLIP nobody took the row is at 0 there; where others take the stack's CLIP it stays."""
    g = Sketch()
    base = g("FoundryLoadCheckpoint", ckpt_name="a.safetensors")
    stack = g("FoundryStackLoRAs", model=base, clip=base(1), lora_stack=g("FoundryLoRAStack", loras="[]"))
    model = g("FoundryApply", model=stack)
    loader = g.lora(model, "ink.safetensors", 0.6, "LoraLoader", clip=stack(1), strength_clip=0.6)
    g.sample(loader, loader(1) if takes != "nobody" else stack(1))
    if takes == "both":
        g.text(stack(1))
    made, done, _ = apply_fixes(g.prompt, [{"action": "stack", "node": loader[0], "lora": "ink.safetensors"}])
    if told == "stays":
        assert not done and made == g.prompt
        return
    clip = {} if told is None else {"clip_strength": told}
    assert json.loads(made["2"]["inputs"]["loras"]) == [{"path": "ink.safetensors", "strength": 0.6, **clip}]


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
    for late in ("after_quantize", "after_format", "after_smoothed"):
        assert fix_actions(f"LF201.{late}", "7", outside) == [
            {"action": "stack", "node": "7", "lora": "ink.safetensors"}
        ]


def with_clip(rows: list, node: dict | None = None) -> Sketch:
    """Our stages with a CLIP whose prompt is encoded; the rows in a LoRA Stack, or one in a LoRA node."""
    g = Sketch()
    base = g("FoundryLoadCheckpoint", ckpt_name="sdxl.safetensors")
    listed = g("FoundryLoRA", **node) if node else g("FoundryLoRAStack", loras=json.dumps(rows))
    model = g("FoundryStackLoRAs", model=base, lora_stack=listed, clip=base(1))
    g.sample(g("FoundryApply", model=model, how="patches"), model(1), 8, 1.0)
    return g


def clip_of_sampler(prompt: dict) -> list:
    (encoder, *_) = [node["inputs"] for node in prompt.values() if node["class_type"] == "CLIPTextEncode"]
    return [row for row in what(prompt, encoder["clip"]).loras if row[1]]


@every_form
@pytest.mark.parametrize(
    ("rows", "clip"),
    [([{"path": LIGHTNING_8, "strength": 0.9}], 0.9), ([{"path": LIGHTNING_8, "weight": 0.9, "clip_weight": 0.4}], 0.4),
     ([LIGHTNING_8], 1.0), ([{"path": LIGHTNING_8, "strength": 0.9, "clip_strength": 0.0}], 0.0)],
    ids=["one for both", "of its own", "a name", "none"],
)  # fmt: skip
def test_what_a_fused_lora_does_to_the_clip_stays(form, rows, clip):
    """It went with the row: 1 Fuse Base LoRA has no CLIP."""
    made, done = fixed(form, with_clip([*rows, {"path": "ink.safetensors", "strength": 0.6}]), "fuse",
                       "FoundryStackLoRAs", LIGHTNING_8)  # fmt: skip
    name = LIGHTNING_8.removesuffix(".safetensors")
    assert done and clip_of_sampler(made) == [*([(name, clip)] if clip else []), ("ink", 0.6)]
    assert [row for row in of_sampler(made) if row[1]] == [(name, 1.0 if rows == [LIGHTNING_8] else 0.9), ("ink", 0.6)]
    (fuse,) = [node["inputs"] for node in made.values() if node["class_type"] == "FoundryFuseBaseLoRA"]
    assert fuse["lora_name"] == LIGHTNING_8


@every_form
@pytest.mark.parametrize("clip", [0.4, 0.0])
def test_so_does_that_of_a_lora_node(form, clip):
    node = {"lora_name": LIGHTNING_8, "strength_model": 0.9, "strength_clip": clip, "enabled": True}
    made, done = fixed(form, with_clip([], node), "fuse", "FoundryStackLoRAs", LIGHTNING_8)
    (left,) = [each["inputs"] for each in made.values() if each["class_type"] == "FoundryLoRA"]
    assert done and (left["enabled"], left["strength_model"]) == ((True, 0.0) if clip else (False, 0.9))
    assert sum(strength for _, strength in of_sampler(made)) == 0.9


def test_a_file_without_text_encoder_parts_leaves_no_row(tmp_path):
    factors = {"diffusion_model.blocks.0.q.lora_down.weight": torch.ones(2, 4),
               "diffusion_model.blocks.0.q.lora_up.weight": torch.ones(4, 2)}  # fmt: skip
    save_small(tmp_path / LIGHTNING_8, factors)
    prompt = with_clip([{"path": LIGHTNING_8, "strength": 0.9}]).prompt
    fix = {"action": "fuse", "node": "3", "lora": LIGHTNING_8}
    made, done, _ = apply_fixes(prompt, [fix], lambda kind, name: tmp_path / name if kind == "loras" else None)
    assert done and made["2"]["inputs"]["loras"] == "[]"
