"""Samplers, LoRA nodes and wires of other packs as the browser saves them: values without names, typed sockets."""

from __future__ import annotations

from typing import Any

import pytest
from drawings import Drawing, base, sampled
from lint_parts import FILE, told
from lora_foundry.loaders.lint.lint import lint
from lora_foundry.loaders.workflows.node_kinds import LOADERS
from lora_foundry.loaders.workflows.reading import graph_of
from lora_foundry.loaders.workflows.widget_names import ORDERS

SAMPLERS = {
    "ClownsharKSampler_Beta": [0.5, "res_2s", "beta57", 30, -1, 1.0, 5.5, 0, "fixed", "standard", True],
    "SharkSampler_Beta": ["beta57", 30, -1, 1.0, 5.5, 0, "fixed", "standard"],
    "LanPaint_KSampler": [0, "fixed", 30, 5.5, "euler", "karras", 1.0, 5, "Image First"],
    "LanPaint_KSamplerAdvanced": ["enable", 0, "fixed", 30, 5.5, "euler", "karras", 0, 10000, "disable", 5],
}


SWITCHES = {
    "ComfySwitchNode": ("switch", [True]),
    "InversionDemoLazySwitch": ("switch", [True]),
    "LazySwitchKJ": ("switch", [True]),
    "easy ifElse": ("boolean", [True]),
    "Switch any [Crystools]": ("boolean", [True]),
}


@pytest.mark.parametrize("kind", SWITCHES)
@pytest.mark.parametrize("on", [True, False])
def test_switches_by_the_order_of_their_values(kind, on):
    """Of a model: what it is set to is on, and what is off plays no part."""
    drawing = lora(base()).add(3, kind, "on_true:* on_false:*", "*", widgets_values=[on])
    drawing.wire(2, 0, 3, "on_true").wire(1, 0, 3, "on_false")
    drawing.add(9, "KSampler", "model:MODEL", "LATENT", widgets_values=[1, "fixed", 8, 1.0, "euler", "simple", 1.0])
    assert told(drawing.wire(3, 0, 9, 0)) == ([([(FILE, 0.7)] if on else [], (8, 1.0))], [])


@pytest.mark.parametrize("kind", LOADERS)
def test_every_loader_names_its_file_without_names_of_widgets(kind):
    """As an older frontend saves it; an empty name was told as "On a GGUF base (: GGUF)"."""
    values = ["model.gguf" if name == LOADERS[kind].name else name for name in ORDERS[kind]]
    drawing = lora(Drawing().add(1, kind, "", "MODEL", widgets_values=values))
    assert [stack.base for stack in lint(graph_of(sampled(drawing, 2).saved())).stacks] == ["model.gguf"]


@pytest.mark.parametrize("select,base_name", [(1, "base.safetensors"), (2, "low.safetensors")])
def test_a_switch_between_the_two_models_of_one_node(select, base_name):
    """Both inputs lead to one node: which of its outputs is handed on tells which model."""
    drawing = base().add(3, "UNETLoader", "", "MODEL", widgets_values=["low.safetensors", "default"])
    drawing.add(2, "PowerLoraLoaderV2", "model:MODEL model_low:MODEL", "MODEL MODEL CLIP", widgets_values=[])
    drawing.wire(1, 0, 2, 0).wire(3, 0, 2, 1)
    drawing.add(4, "ImpactSwitch", "input1:MODEL input2:MODEL", "MODEL", widgets_values=[select, False])
    drawing.wire(2, 0, 4, 0).wire(2, 1, 4, 1)
    drawing.add(9, "KSampler", "model:MODEL", "LATENT", widgets_values=[1, "fixed", 8, 1.0, "euler", "simple", 1.0])
    result = lint(graph_of(drawing.wire(4, 0, 9, 0).saved()))
    assert [stack.base for stack in result.stacks] == [base_name]


def test_two_models_by_the_order_of_the_values():
    values = [0.875, "enable", 1, "fixed", 20, 4.0, 3.0, "euler", "simple"]
    drawing = base().add(3, "UNETLoader", "", "MODEL", widgets_values=["low.safetensors", "default"])
    drawing.add(
        9, "WanMoeKSamplerAdvanced", "model_high_noise:MODEL model_low_noise:MODEL", "LATENT", widgets_values=values
    )
    assert told(drawing.wire(1, 0, 9, 0).wire(3, 0, 9, 1))[0] == [([], (20, 4.0)), ([], (20, 3.0))]


@pytest.mark.parametrize(
    ("kind", "values", "cfgs"),
    [
        ("TripleKSamplerWan22Lightning", [42, "fixed", 5, 3.5, 1, 8, "euler", "simple", "T2V boundary"],
         (3.5, None, None)),
        ("TripleKSamplerWan22LightningAdvanced",
         [0, "fixed", 8, 20, -1, 3.5, "euler", "simple", 2, 8, 1, "lcm", "simple"],
         (3.5, 1.0, 1.0)),
    ],
)  # fmt: skip
def test_three_models_of_one_sampler(kind, values, cfgs):
    """The high-noise model as it is, the same distilled, and the low-noise one: each with its own LoRAs."""
    drawing = lora(base()).add(3, "UNETLoader", "", "MODEL", widgets_values=["low.safetensors", "default"])
    drawing.add(4, "LoraLoaderModelOnly", "model:MODEL", "MODEL", widgets_values=["low_lora.safetensors", 0.9])
    drawing.add(9, kind, "base_high:MODEL lightning_high:MODEL lightning_low:MODEL", "LATENT", widgets_values=values)
    drawing.wire(3, 0, 4, 0).wire(1, 0, 9, 0).wire(2, 0, 9, 1).wire(4, 0, 9, 2)
    assert told(drawing) == ([
        ([], (None, cfgs[0])), ([(FILE, 0.7)], (8, cfgs[1])), ([("low_lora.safetensors", 0.9)], (8, cfgs[2])),
    ], [])  # fmt: skip


@pytest.mark.parametrize("kind", SAMPLERS)
def test_samplers_by_the_order_of_their_values(kind):
    drawing = lora(base()).add(9, kind, "model:MODEL", "LATENT", widgets_values=SAMPLERS[kind]).wire(2, 0, 9, 0)
    assert told(drawing) == ([([(FILE, 0.7)], (30, 5.5))], [])


def lora(drawing: Drawing) -> Drawing:
    return drawing.add(2, "LoraLoaderModelOnly", "model:MODEL", "MODEL", widgets_values=[FILE, 0.7]).wire(1, 0, 2, 0)


@pytest.mark.parametrize("kind,values", [
    ("ClownsharkChainsampler_Beta", [0.5, "res_3m", -1, 5.5, "resample", True]),
    ("SharkChainsampler_Beta", [-1, 5.5, "resample"]),
    ("LanPaint_SamplerCustom", [True, 1, "fixed", 5.5, 5]),
])  # fmt: skip
def test_samplers_whose_steps_are_elsewhere(kind, values):
    drawing = lora(base()).add(9, kind, "model:MODEL sigmas:SIGMAS", "LATENT", widgets_values=values).wire(2, 0, 9, 0)
    assert told(drawing)[0] == [([(FILE, 0.7)], (None, 5.5))]
    drawing.add(8, "ManualSigmas", "", "SIGMAS", widgets_values=["1.0, 0.75, 0.5, 0.25, 0.0"]).wire(8, 0, 9, "sigmas")
    assert told(drawing)[0] == [([(FILE, 0.7)], (4, 5.5))]


def test_a_schedule_wired_in_comes_before_the_steps_of_the_sampler():
    values = SAMPLERS["ClownsharKSampler_Beta"]
    drawing = lora(base()).add(
        9, "ClownsharKSampler_Beta", "model:MODEL sigmas:SIGMAS", "LATENT", widgets_values=values
    )
    drawing.wire(2, 0, 9, 0).add(8, "BetaSamplingScheduler", "", "SIGMAS", widgets_values=[12, 0.6, 0.6])
    assert told(drawing.wire(8, 0, 9, "sigmas"))[0] == [([(FILE, 0.7)], (12, 5.5))]


def test_a_cfg_by_channel_is_not_judged():
    values = [0.5, "res_2s", "beta57", 30, -1, 1.0, -5.5, 0, "fixed", "standard", True]
    drawing = lora(base()).add(9, "ClownsharKSampler_Beta", "model:MODEL", "LATENT", widgets_values=values)
    assert told(drawing.wire(2, 0, 9, 0))[0] == [([(FILE, 0.7)], (30, None))]


@pytest.mark.parametrize(
    "kind", ["LTXVLoopingSampler", "LTXVTiledSampler", "LTXVBaseSampler", "LanPaint_SamplerCustomAdvanced"]
)
def test_samplers_with_guider_and_schedule(kind):
    drawing = lora(base()).add(5, "CFGGuider", "model:MODEL", "GUIDER", widgets_values=[3.0]).wire(2, 0, 5, 0)
    drawing.add(6, "LTXVScheduler", "", "SIGMAS", widgets_values=[20, 2.05, 0.95, True, 0.1])
    drawing.add(9, kind, "model:MODEL guider:GUIDER sigmas:SIGMAS", "LATENT", widgets_values=[56, 24])
    drawing.wire(2, 0, 9, "model").wire(5, 0, 9, "guider").wire(6, 0, 9, "sigmas")
    assert told(drawing) == ([([(FILE, 0.7)], (20, 3.0))], [])


# --- stackers


def stacked(kind: str, values: list[Any]):
    drawing = base().add(2, kind, "lora_stack:LORA_STACK", "LORA_STACK", widgets_values=values)
    drawing.add(3, "CR Apply LoRA Stack", "model:MODEL lora_stack:LORA_STACK", "MODEL").wire(1, 0, 3, 0).wire(
        2, 0, 3, 1
    )
    drawing.add(9, "KSampler", "model:MODEL", "LATENT", widgets_values=[1, "fixed", 20, 5.0, "euler", "simple", 1.0])
    ((loras, _),), findings = told(drawing.wire(3, 0, 9, 0))
    assert findings == []
    return loras


def slots(first: str, second: str) -> list[Any]:
    return [part for name in (first, second) for part in (name, f"text {name}", 0.5, 0.25, 1.0, "all", "all")]


@pytest.mark.parametrize("mode,inputs,wanted", [
    ("simple", "dropdown", [("a", 0.5)]),
    ("advanced", "dropdown", [("a", 0.25)]),
    ("advanced", "text", [("text a", 0.25)]),
])  # fmt: skip
def test_the_dynamic_stack(mode, inputs, wanted):
    assert stacked("LoRAStackDynamic", [mode, inputs, 1, *slots("a", "b")]) == wanted


def test_easy_stacks():
    rows = [part for name in ("a", "b", "None") for part in (name, 0.5, 0.25, 1.0)]
    assert stacked("easy loraStack", [True, "simple", 3, *rows]) == [("a", 0.5), ("b", 0.5)]
    assert stacked("easy loraStack", [True, "advanced", 1, *rows]) == [("a", 0.25)]
    assert stacked("easy loraStack", [False, "simple", 3, *rows]) == []
    assert stacked("easy loraSwitcher", [True, 2, 3, 0.4, "a", "b", "c"]) == [("b", 0.4)]


# --- wires that cg-use-everywhere drew


def everywhere(**more: Any) -> Drawing:
    drawing = base().add(2, "LoraLoaderModelOnly", "model:MODEL", "MODEL", widgets_values=[FILE, 0.7])
    drawing.add(9, "KSampler", "model:MODEL", "LATENT", widgets_values=[1, "fixed", 8, 1.0, "euler", "simple", 1.0])
    return drawing.wire(2, 0, 9, 0).add(4, "Anything Everywhere", "anything:MODEL", "").wire(1, 0, 4, 0)


LINK = {"downstream": 2, "downstream_slot": 0, "upstream": "1", "upstream_slot": 0, "controller": 4, "type": "MODEL"}


def test_wires_that_are_only_noted_are_followed():
    result = lint(graph_of(everywhere().saved(extra={"ue_links": [LINK]})))
    assert [(stack.base, len(stack.items)) for stack in result.stacks] == [("base.safetensors", 1)]


@pytest.mark.parametrize("link", [
    {}, None, {**LINK, "downstream": 99}, {**LINK, "downstream_slot": 7}, {**LINK, "upstream": None},
    {**LINK, "upstream_slot": -1}, {**LINK, "downstream_slot": "x"},
])  # fmt: skip
def test_odd_notes_are_left_alone(link):
    result = lint(graph_of(everywhere().saved(extra={"ue_links": [link]})))
    assert [stack.base for stack in result.stacks] == [""]


def test_a_wire_that_is_there_wins_over_a_noted_one():
    drawing = (
        everywhere().add(5, "UNETLoader", "", "MODEL", widgets_values=["other.safetensors", "default"]).wire(5, 0, 2, 0)
    )
    result = lint(graph_of(drawing.saved(extra={"ue_links": [LINK]})))
    assert [stack.base for stack in result.stacks] == ["other.safetensors"]
