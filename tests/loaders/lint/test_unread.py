"""A LoRA that was not followed is named with its node and where it is lost, and never makes an OK."""

from __future__ import annotations

import pytest
from drawings import Drawing, base, lora, sampled
from lint_parts import of_prompt, verdicts
from lora_foundry.loaders.lint.lint import lint
from lora_foundry.loaders.workflows.reading import graph_of
from sketches import LIGHTNING_8, Sketch

LOST, UNREAD = ("note", "LF108.lost"), ("note", "LF108.unread")


def drawn(kind: str = "MysterySampler", inputs: str = "model:MODEL", outputs: str = "LATENT", **more) -> Drawing:
    """base -> LoRA 2 -> a node of some kind, its output unwired."""
    drawing = lora(base(), 2, 1, title="Ink style")
    return drawing.add(9, kind, inputs, outputs, widgets_values=[30, 5.0], **more).wire(2, 0, 9, 0)


def of(drawing: Drawing):
    return lint(graph_of(drawing.saved()))


def test_a_sampler_nobody_knows_is_named_with_the_lora_that_goes_there():
    result = of(drawn())
    assert verdicts(result) == [LOST] and result.ok and not result.complete
    (finding,) = result.findings
    assert finding.subject == "style2.safetensors" and finding.node == "9" and finding.evidence == "derived"
    assert "Ink style (LoraLoaderModelOnly, node 2)" in finding.seen and "MysterySampler (node 9)" in finding.seen
    assert not lint(graph_of(drawn().saved()), strict=True).ok


def test_several_loras_on_one_way_are_told_once():
    drawing = lora(lora(base(), 2, 1), 3, 2).add(9, "MysterySampler", "model:MODEL", "LATENT").wire(3, 0, 9, 0)
    (finding,) = of(drawing).findings
    assert "style2.safetensors, style3.safetensors" in finding.seen


def test_the_way_may_lead_through_patches_guiders_and_inputs_of_any_name():
    drawing = lora(base(), 2, 1).add(4, "ModelSamplingSD3", "model:MODEL", "MODEL").wire(2, 0, 4, 0)
    drawing.add(5, "BasicGuider", "model:MODEL", "GUIDER").wire(4, 0, 5, 0)
    drawing.add(9, "MysteryLoop", "guide:GUIDER", "LATENT").wire(5, 0, 9, 0)
    (finding,) = of(drawing).findings
    assert finding.text == "LF108.lost" and "MysteryLoop (node 9)" in finding.seen
    g = Sketch()
    g("MysteryBatch", first=g.lora(g.unet("a.safetensors"), "x.safetensors"))
    assert verdicts(lint(of_prompt(g))) == [LOST]


def test_the_sampler_is_named_before_what_only_reads_the_model():
    drawing = drawn().add(8, "BasicScheduler", "model:MODEL", "SIGMAS").wire(2, 0, 8, 0)
    assert of(drawing).findings[0].node == "9"


SILENT = {
    "a known sampler": lambda: sampled(lora(base(), 2, 1), 2),
    "a LoRA that nothing takes": lambda: sampled(lora(base(), 2, 1), 1),
    "a chain that ends in a patch": lambda: (
        sampled(lora(base(), 2, 1), 1).add(4, "ModelSamplingSD3", "model:MODEL", "MODEL").wire(2, 0, 4, 0)
    ),
    "a muted LoRA": lambda: drawn().mode(2, 2),
    "a bypassed LoRA": lambda: drawn().mode(2, 4),
    "a muted sampler": lambda: drawn().mode(9, 2),
    "no LoRA": lambda: base().add(9, "MysterySampler", "model:MODEL", "LATENT").wire(1, 0, 9, 0),
    "only its text encoder": lambda: (
        base()
        .add(2, "LoraLoader", "model:MODEL clip:CLIP", "MODEL CLIP", widgets_values=["x.safetensors", 1.0, 1.0])
        .wire(1, 0, 2, 0)
        .add(3, "CLIPTextEncode", "clip:CLIP", "CONDITIONING", widgets_values=["a"])
        .wire(2, 1, 3, 0)
    ),
}


@pytest.mark.parametrize("name", SILENT)
def test_what_plays_no_part_is_not_told(name):
    assert verdicts(of(SILENT[name]())) == []


@pytest.mark.parametrize("strength,name", [(0.0, "x.safetensors"), (1.0, "None")])
def test_a_lora_that_does_nothing_is_not_told(strength, name):
    g = Sketch()
    g("MysterySampler", model=g.lora(g.unet("a.safetensors"), name, strength))
    assert verdicts(lint(of_prompt(g))) == []


def test_a_lora_that_a_switch_leaves_out_is_not_told():
    g = Sketch()
    plain = g.unet("a.safetensors")
    model = g("ComfySwitchNode", switch=False, on_false=plain, on_true=g.lora(plain, "x.safetensors"))
    g("MysterySampler", model=model)
    assert verdicts(lint(of_prompt(g))) == []


# --- nodes whose LoRAs cannot be read


def test_a_name_that_only_the_run_knows():
    g = Sketch()
    name = g("Random File", folder="loras")
    g.sample(g("LoraLoaderModelOnly", model=g.unet("a.safetensors"), lora_name=name, strength_model=1.0), ["1", 0])
    assert verdicts(lint(of_prompt(g))) == [UNREAD]
    assert not lint(of_prompt(g), strict=True).ok


def test_a_name_that_a_primitive_holds_is_read():
    g = Sketch()
    name = g("PrimitiveString", value="x.safetensors")
    g.sample(g("LoraLoaderModelOnly", model=g.unet("a.safetensors"), lora_name=name, strength_model=1.0), ["1", 0])
    result = lint(of_prompt(g))
    assert verdicts(result) == [] and result.stacks[0].items[0].name == "x.safetensors"


@pytest.mark.parametrize("values,told", [
    ([["deep/x.safetensors", 0.8]], [UNREAD]),
    ([["None", 0.8]], []),
    ([[0.8, 3]], [UNREAD]),
])  # fmt: skip
def test_a_stacker_nobody_knows_on_a_lora_wire(values, told):
    """Its values have no names: a wire for LoRAs carries it all the same."""
    drawing = base().add(2, "Mystery Stack", "", "LORA_STACK", widgets_values=values[0])
    drawing.add(3, "CR Apply LoRA Stack", "model:MODEL lora_stack:LORA_STACK", "MODEL").wire(1, 0, 3, 0).wire(
        2, 0, 3, 1
    )
    assert verdicts(of(sampled(drawing, 3))) == told


def test_a_list_of_loras_of_an_unknown_type():
    """What a loader of another pack does with a list of its own is not known, but the list is read."""
    drawing = Drawing().add(1, "FooLoraSelect", "", "FOOLORA", widgets_values=["x.safetensors", 1.0])
    drawing.add(2, "FooModelLoader", "foo_lora:FOOLORA", "FOOMODEL").wire(1, 0, 2, 0)
    drawing.add(3, "FooSampler", "model:FOOMODEL", "LATENT").wire(2, 0, 3, 0)
    assert verdicts(of(drawing)) == [UNREAD]


def test_an_input_nobody_knows_that_holds_a_file():
    g = Sketch()
    g.sample(g("Mystery LoRA", model=g.unet("a.safetensors"), weights="x.safetensors"), g("CLIPLoader"))
    assert verdicts(lint(of_prompt(g))) == [UNREAD]


def test_what_is_followed_is_complete():
    g = Sketch()
    g.sample(g.lora(g.unet("qwen_image_bf16.safetensors"), LIGHTNING_8), g("CLIPLoader"), 8, 1.0)
    assert lint(of_prompt(g)).complete


def test_a_scheduler_takes_the_noise_levels_of_a_model_and_nothing_of_its_loras():
    """A LoRA whose model goes nowhere else plays no part; what becomes of it there is known."""
    drawing = lora(base(), 2, 1).add(9, "BasicScheduler", "model:MODEL", "SIGMAS").wire(2, 0, 9, 0)
    assert verdicts(of(drawing)) == []


def test_a_node_that_trains_a_lora_brings_none():
    drawing = base().add(9, "MYPACK_SpeedLoraTraining", "model:MODEL", "MODEL", widgets_values=["base.safetensors"])
    drawing.wire(1, 0, 9, 0)
    assert verdicts(of(sampled(drawing, 9, identity=10))) == []


@pytest.mark.parametrize(("toggle", "mode", "names", "found"), [
    (False, "simple", ["x.safetensors"], []),
    (True, "simple", ["None", "None"], []),
    (True, "simple", ["x.safetensors", "None"], [("x.safetensors", 0.5)]),
    (True, "advanced", ["None", "x.safetensors"], [("x.safetensors", 0.7)]),
])  # fmt: skip
def test_the_stack_of_a_pipe_pack_is_read(toggle, mode, names, found):
    rows = [part for name in [*names, *["None"] * (20 - len(names))] for part in (name, 0.5, 0.7, 0.6)]
    drawing = base().add(7, "ttN pipeLoraStack", "", "PIPE_LINE LORA_STACK", widgets_values=[toggle, mode, 2, *rows])
    drawing.add(8, "CR Apply LoRA Stack", "model:MODEL lora_stack:LORA_STACK", "MODEL").wire(7, 1, 8, 1)
    result = of(sampled(drawing.wire(1, 0, 8, 0), 8))
    assert not verdicts(result)
    assert [(item.name, item.strength) for item in result.stacks[0].items] == found


def test_what_a_pack_of_one_model_loads_is_read():
    drawing = base().add(
        2, "MiniMaxH3TurboLoRA", "model:MODEL", "MODEL", widgets_values=["h3/turbo.safetensors", 0.8, False]
    )
    result = of(sampled(drawing.wire(1, 0, 2, 0), 2))
    assert not verdicts(result)
    assert [(item.name, item.strength) for item in result.stacks[0].items] == [("h3/turbo.safetensors", 0.8)]


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("PCLazyLoraLoader", {"text": "[<lora:ink:0.7>::0.5] a cat"}),
        ("MysteryLoraText", {"anything": "<lora:ink:0.7>"}),
    ],
)
def test_tags_in_the_text_of_a_node_are_read(kind, words):
    g = Sketch()
    g("KSampler", steps=20, cfg=7.0, model=g(kind, model=g.unet("a.safetensors"), **words))
    (stack,) = lint(of_prompt(g)).to_json()["stacks"]
    assert [(row["path"], row["weight"]) for row in stack["loras"]] == [("ink", 0.7)]


@pytest.mark.parametrize(
    ("source", "told"),
    [
        (("SeargePromptText", {"prompt": "<lora:ink:0.7>"}), []),
        (("MysteryWildcards", {"prompt": "", "seed": 3}), [UNREAD]),
    ],
)
def test_tags_in_a_text_that_is_wired_in(source, told):
    g = Sketch()
    text = g(source[0], **source[1], **({} if not told else {"more": g("Mystery")}))
    g("KSampler", steps=20, cfg=7.0, model=g("PCLazyLoraLoader", model=g.unet("a.safetensors"), text=text))
    assert verdicts(lint(of_prompt(g))) == told


def test_a_loader_of_a_pack_with_lora_in_its_name_is_a_base():
    g = Sketch()
    base = g("Checkpoint Loader (LoraManager)", ckpt_name="a.safetensors")
    g("KSampler", steps=20, cfg=7.0, model=g.lora(base, "x.safetensors"))
    assert verdicts(lint(of_prompt(g))) == []


@pytest.mark.parametrize(("strength", "told"), [(0.2, []), (0.3, []), (0.5, ["LF403.sampling"])])
def test_a_part_of_a_distillation_leaves_steps_and_cfg_to_the_model(strength, told):
    g = Sketch()
    distilled = g.lora(g.unet("ltx-2.3-22b-dev.safetensors"), "ltx-2.3-22b-distilled-lora-384.safetensors", strength)
    g("KSampler", steps=20, cfg=3.0, model=distilled)
    assert [text for _, text in verdicts(lint(of_prompt(g)))] == told
