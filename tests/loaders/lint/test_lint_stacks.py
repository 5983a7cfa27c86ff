"""What the lint sees in a workflow: stacks, strengths and the settings of samplers."""

from __future__ import annotations

import json

import pytest
from community_graphs import ORDINARY
from lint_parts import MISTAKEN_BY_NAME, QWEN, of_prompt, stacks_of, verdicts
from lora_foundry.loaders.lint.lint import lint
from lora_foundry.loaders.workflows.sampling import ends
from sketches import LIGHTNING_8, Sketch


def test_two_samplers_of_one_model_are_one_stack():
    (stack,) = lint(of_prompt(ORDINARY["hires_fix"]())).stacks
    assert [(each.steps, each.cfg) for each in stack.sampling] == [(25, 7.0), (None, 7.0)]


def test_two_models_are_two_stacks():
    stacks = lint(of_prompt(ORDINARY["wan_high_low"]())).stacks
    assert ["high" in stack.base for stack in stacks] == [True, False]
    assert [len(stack.items) for stack in stacks] == [1, 1] and all(stack.native for stack in stacks)


def test_a_chain_of_loaders_lies_in_the_order_it_runs():
    (stack,) = stacks_of(ORDINARY["sdxl_three_loras"]())
    assert [name for name, *_ in stack[1]] == [
        "add-detail-xl.safetensors", "pixel-art-xl.safetensors", "SDXL/ral-dissolve.safetensors"
    ]  # fmt: skip


def test_rows_of_our_own_nodes():
    g = Sketch()
    base = g("FoundryLoadBase", base_name=QWEN)
    more = g("FoundryLoRA", lora_name="b.safetensors", strength_model=0.5, enabled=True)
    more = g("FoundryLoRA", lora_name="off.safetensors", strength_model=0.5, enabled=False, lora_stack=more)
    fused = g("FoundryFuseBaseLoRA", model=base, lora_name="a.safetensors", strength=1.0, lora_stack=more)
    rows = [{"path": "x.safetensors", "strength": 0.7}, {"path": "y.safetensors", "on": False}]
    text = g("FoundryLoRAStack", loras=json.dumps(rows), lora_stack=g("FoundryLoRA", lora_name="w.safetensors"))
    g("FoundrySaveModel", model=g("FoundryStackLoRAs", model=fused, lora_stack=text))
    (stack,) = stacks_of(g)
    assert stack == (QWEN, [
        ("a.safetensors", "fuse", 1.0, "4"), ("b.safetensors", "fuse", 0.5, "4"),
        ("w.safetensors", "stack", 1.0, "7"), ("x.safetensors", "stack", 0.7, "7"),
    ])  # fmt: skip


def test_a_row_with_solo_is_alone_in_its_own_list():
    g = Sketch()
    rows = [{"path": "x.safetensors"}, {"path": "y.safetensors", "solo": True}]
    text = g("FoundryLoRAStack", loras=json.dumps(rows), lora_stack=g("FoundryLoRA", lora_name="w.safetensors"))
    model = g("FoundryLoadBase", base_name=QWEN)
    g("FoundrySaveModel", model=g("FoundryStackLoRAs", model=model, lora_stack=text))
    (stack,) = stacks_of(g)
    assert [name for name, *_ in stack[1]] == ["w.safetensors", "y.safetensors"]


@pytest.mark.parametrize(("kind", "names"), [
    ("Efficient Loader", ["own", "b", "c"]), ("easy fullLoader", ["b", "c", "own"]),
])  # fmt: skip
def test_which_comes_first_of_its_own_and_those_wired_in(kind, names):
    g = Sketch()
    more = g("FoundryLoRA", lora_name="c", lora_stack=g("FoundryLoRA", lora_name="b"))
    wired = {"lora_stack" if kind == "Efficient Loader" else "optional_lora_stack": more}
    g.sample(g(kind, ckpt_name="a.safetensors", lora_name="own", lora_model_strength=1.0, **wired), g("CLIPLoader"))
    assert [name for name, *_ in stacks_of(g)[0][1]] == names


def test_loras_the_wan_wrapper_does_not_merge():
    g = MISTAKEN_BY_NAME["lora_merged_into_fp8"]()
    g.prompt["2"]["inputs"]["merge_loras"] = g.prompt["1"]["inputs"]["merge_loras"] = False
    assert verdicts(lint(of_prompt(g))) == []


def test_settings_in_a_pipe_are_those_of_the_sampler():
    (stack,) = lint(of_prompt(ORDINARY["easy_use"]())).stacks
    assert [(each.steps, each.cfg, each.node) for each in stack.sampling] == [(8, 1.0, "4")]


NONE = "none: vanilla base"


@pytest.mark.parametrize(("names", "vanilla"), [
    ([], False), ([NONE], True), ([NONE, NONE], True), ([NONE, LIGHTNING_8], False), ([LIGHTNING_8, NONE], False),
])  # fmt: skip
def test_the_choice_to_fuse_nothing(names, vanilla):
    g = Sketch()
    model = g("FoundryLoadBase", base_name=QWEN)
    for name in names:
        model = g("FoundryFuseBaseLoRA", model=model, lora_name=name, strength=1.0, rounding="once")
    g("FoundrySaveModel", model=model)
    (stack,) = lint(of_prompt(g)).stacks
    assert stack.vanilla is vanilla and not stack.native


@pytest.mark.parametrize("inputs", [
    {"lora_name": {"content": "x.safetensors", "image": None}, "strength_model": 0.5},
    {"lora_name": "x.safetensors", "strength_model": 0.5},
    {"lora_name_1": "x.safetensors", "lora_strength_1": 0.5},
    {"lora_01": "x.safetensors", "strength_01": 0.5, "lora_02": "None", "strength_02": 1.0},
    {"lora_1_name": "x.safetensors", "lora_1_strength": 0.5, "toggle": True, "num_loras": 1, "mode": "simple"},
    {"loras": [{"lora_name": "x.safetensors", "strength": 0.5}]},
    {"row_1": {"on": True, "lora": "x.safetensors", "strength": 0.5}},
])  # fmt: skip
def test_a_lora_loader_nobody_heard_of(inputs):
    g = Sketch()
    model = g("Some Lora Loader", model=g.unet(QWEN), **inputs)
    g.sample(model, g("CLIPLoader"))
    assert stacks_of(g) == [(QWEN, [("x.safetensors", "stack", 0.5, "2")])]


def test_tags_of_a_text_loader():
    g = Sketch()
    tags = "<lora:a:0.5>, <lora:b:-1>"
    g.sample(g("LoRA Text Loader (LoraManager)", model=g.unet(QWEN), lora_syntax=tags), g("CLIPLoader"))
    assert [(name, strength) for name, _, strength, _ in stacks_of(g)[0][1]] == [("a", 0.5), ("b", -1.0)]


@pytest.mark.parametrize(("mode", "strength"), [("simple", 0.3), ("advanced", 0.6)])
@pytest.mark.parametrize("stacker", [
    ("LoRA Stacker", "input_mode", {"lora_count": 1, "lora_name_1": "x", "lora_wt_1": 0.3, "model_str_1": 0.6}),
    ("easy loraStack", "mode", {"toggle": True, "num_loras": 1, "lora_1_name": "x", "lora_1_strength": 0.3,
                                "lora_1_model_strength": 0.6}),
])  # fmt: skip
def test_the_strength_of_a_simple_row(stacker, mode, strength):
    g = Sketch()
    kind, switch, values = stacker
    g.sample(g("CR Apply LoRA Stack", model=g.unet(QWEN), lora_stack=g(kind, **{switch: mode}, **values)), g("CLIP"))
    assert [row[2] for row in stacks_of(g)[0][1]] == [strength]


@pytest.mark.parametrize(("strength", "counts"), [(0.3, 0.3), ("wired", 1.0)])
def test_a_strength_from_another_node(strength, counts):
    """What a node makes of others is only known at run time."""
    g = Sketch()
    value = g("PrimitiveFloat", value=0.3)
    value = value if strength != "wired" else g("Add", value=5.0, other=value)
    g.sample(g.lora(g.unet(QWEN), "x.safetensors", value), g("CLIPLoader"))
    assert [row[2] for row in stacks_of(g)[0][1]] == [counts]


def sampling_of(g):
    return [(end.sampling.steps, end.sampling.cfg) for end in ends(of_prompt(g)) if end.sampling]


@pytest.mark.parametrize(("inputs", "wanted"), [
    ({"steps": 8, "cfg": 1.0, "denoise": 1.0}, (8, 1.0)),
    ({"steps": 8, "cfg": 1.0, "denoise": 0.5}, (None, 1.0)),
    ({"steps": 8, "cfg": True, "denoise": 1.0}, (8, None)),
    ({"steps": ["gone", 0], "cfg": "x"}, (None, None)),
])  # fmt: skip
@pytest.mark.parametrize("kind", ["KSampler", "A sampler nobody heard of"])
def test_steps_and_cfg(kind, inputs, wanted):
    g = Sketch()
    g(kind, model=g.unet(QWEN), **inputs)
    assert sampling_of(g) == [wanted]


@pytest.mark.parametrize(("schedule", "wanted"), [
    (("BasicScheduler", {"steps": 8, "denoise": 1.0}), 8), (("BasicScheduler", {"steps": 8, "denoise": 0.5}), None),
    (("ManualSigmas", {"sigmas": "1.0, 0.5, 0"}), 2), (("Unknown", {}), None), (("KarrasScheduler", {"steps": 30}), 30),
])  # fmt: skip
def test_the_schedule_counts_before_it_is_split(schedule, wanted):
    g = Sketch()
    kind, values = schedule
    sigmas = g("FlipSigmas", sigmas=g("SplitSigmas", sigmas=g(kind, **values), step=3)(1))
    g("SamplerCustom", model=g.unet(QWEN), cfg=2.0, sigmas=sigmas)
    g("SamplerCustom", model=["1", 0], cfg=2.0, sigmas=g("ExtendIntermediateSigmas", sigmas=sigmas, steps=2))
    assert sampling_of(g) == [(wanted, 2.0), (None, 2.0)]


def test_what_trains_or_only_looks_is_no_sampler():
    g = Sketch()
    model = g.unet(QWEN)
    g("TrainLoraNode", model=model, steps=100)
    g("BasicScheduler", model=model, steps=8)
    g("Show model", model=model)
    assert sampling_of(g) == [] and [end.node for end in ends(of_prompt(g))] == ["2"]
