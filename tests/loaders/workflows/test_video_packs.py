"""Wan's video models in packs of their own: loaders, LoRA nodes and samplers as the browser saves them."""

from __future__ import annotations

from typing import Any

import pytest
from drawings import Drawing, base
from lint_parts import FILE, of_prompt, told
from lora_foundry.loaders.lint.lint import lint
from lora_foundry.loaders.workflows.lora_kinds import HIGH, LOW
from lora_foundry.loaders.workflows.node_values import written_loras
from lora_foundry.loaders.workflows.reading import graph_of
from sketches import Sketch

# --- WanVideoWrapper and its relatives


def wan(loras: Drawing, source: int = 2, output: int = 0) -> Drawing:
    values = ["wan.safetensors", "bf16", "disabled", "offload_device", "sdpa"]
    loras.add(1, "WanVideoModelLoader", "lora:WANVIDLORA", "WANVIDEOMODEL", widgets_values=values)
    return loras.wire(source, output, 1, "lora")


def wan_lora() -> Drawing:
    return Drawing().add(
        2, "WanVideoLoraSelect", "prev_lora:WANVIDLORA", "WANVIDLORA", widgets_values=[FILE, 0.7, False, True]
    )


def test_the_sampler_whose_schedule_is_a_node():
    drawing = wan(wan_lora()).add(
        5, "WanVideoSchedulerv2", "sigmas:SIGMAS", "WANVIDEOSCHEDULER", widgets_values=["unipc", 6, 5.0, 0, -1]
    )
    drawing.add(
        9,
        "WanVideoSamplerv2",
        "model:WANVIDEOMODEL scheduler:WANVIDEOSCHEDULER",
        "LATENT",
        widgets_values=[6, 42, "fixed", True],
    )
    assert told(drawing.wire(1, 0, 9, 0).wire(5, 0, 9, 1)) == ([([(FILE, 0.7)], (6, 6.0))], [])


def test_the_settings_of_a_sampler_are_where_the_model_goes():
    values = [30, 6.0, 12, 0, "fixed", True, "unipc", 0, 1, False, "comfy"]
    drawing = wan(wan_lora()).add(
        8, "WanVideoSamplerSettings", "model:WANVIDEOMODEL", "SAMPLER_ARGS", widgets_values=values
    )
    drawing.add(9, "WanVideoSamplerFromSettings", "sampler_inputs:SAMPLER_ARGS", "LATENT").wire(1, 0, 8, 0).wire(
        8, 0, 9, 0
    )
    assert told(drawing) == ([([(FILE, 0.7)], (30, 6.0))], [])


def test_several_loras_of_one_node_without_names():
    values = ["a.safetensors", 0.5, "none", 1, "b.safetensors", 0.25, "none", 1, "none", 1, False, True]
    drawing = wan(
        Drawing().add(2, "WanVideoLoraSelectMulti", "prev_lora:WANVIDLORA", "WANVIDLORA", widgets_values=values)
    )
    drawing.add(
        9, "WanVideoSampler", "model:WANVIDEOMODEL", "LATENT", widgets_values=[30, 6.0, 5, 1, "fixed", True, "unipc"]
    )
    assert told(drawing.wire(1, 0, 9, 0)) == ([([("a.safetensors", 0.5), ("b.safetensors", 0.25)], (30, 6.0))], [])


ROW = {"on": True, "lora": "a_high.safetensors", "strength": 0.8, "strengthTwo": None, "is_low": True,
       "low_variant_name": "a_low.safetensors", "low_strength": 0.6}  # fmt: skip


def test_rows_for_high_and_low_noise_go_to_their_models():
    """The second output carries the second model with the second file; a row without one goes onto both."""
    rows = [
        {},
        {"type": "header"},
        ROW,
        {"on": True, "lora": "both.safetensors", "strength": 0.5},
        {**ROW, "on": False},
    ]
    drawing = base().add(3, "UNETLoader", "", "MODEL", widgets_values=["low.safetensors", "default"])
    drawing.add(2, "PowerLoraLoaderV2", "model:MODEL model_low:MODEL", "MODEL MODEL CLIP", widgets_values=rows)
    drawing.wire(1, 0, 2, 0).wire(3, 0, 2, 1)
    for identity, output in ((8, 0), (9, 1)):
        drawing.add(
            identity, "KSampler", "model:MODEL", "LATENT", widgets_values=[1, "fixed", 8, 1.0, "euler", "simple", 1.0]
        )
        drawing.wire(2, output, identity, 0)
    result = lint(graph_of(drawing.saved()))
    assert [(stack.base, [(item.name, item.strength) for item in stack.items]) for stack in result.stacks] == [
        ("base.safetensors", [("a_high.safetensors", 0.8), ("both.safetensors", 0.5)]),
        ("low.safetensors", [("a_low.safetensors", 0.6), ("both.safetensors", 0.5)]),
    ]


NEWER = {**ROW, "low_active": True, "use_for_both": False, "low_only": False, "high_only": False}
PLAIN = {**NEWER, "is_low": False}  # no second file
MODES = {  # what goes onto the model of high noise, then that of low noise: by the loader, and by the wrapper's list
    "variant": (NEWER, [("a_high", 0.8)], [("a_low", 0.6)], [("a_low", 0.6)]),
    "variant off": ({**NEWER, "low_active": False}, [("a_high", 0.8)], [], []),
    "no word": (PLAIN, [("a_high", 0.8)], [], []),
    "high only": ({**PLAIN, "high_only": True}, [("a_high", 0.8)], [], []),
    "both": ({**PLAIN, "use_for_both": True}, [("a_high", 0.8)], [("a_high", 0.8)], [("a_high", 0.6)]),
    "low only": ({**PLAIN, "low_only": True}, [], [("a_high", 0.8)], [("a_high", 0.6)]),
}


@pytest.mark.parametrize("mode", MODES)
def test_rows_of_newer_versions_say_which_models_are_meant(mode):
    row, high, low, listed = MODES[mode]
    for kind, wanted in (("PowerLoraLoaderV2", [low, high]), ("WanVideoPowerLoraLoader", [listed, high])):
        g = Sketch()
        g(kind, model=g.unet("high.safetensors"), model_low=g.unet("low.safetensors"), lora_1=row)
        named = written_loras(of_prompt(g).nodes["3"])
        for half, rows in zip((LOW, HIGH), wanted, strict=True):
            found = [
                (each.name.removesuffix(".safetensors"), each.strength) for each in named if each.half in ("", half)
            ]
            assert found == rows, kind


@pytest.mark.parametrize("output,name", [(0, "a_high.safetensors"), (1, "a_low.safetensors")])
def test_lists_for_high_and_low_noise(output, name):
    drawing = Drawing().add(
        2, "WanVideoPowerLoraLoader", "prev_lora:WANVIDLORA", "WANVIDLORA WANVIDLORA", widgets_values=[ROW]
    )
    drawing = wan(drawing, 2, output)
    drawing.add(9, "WanVideoSampler", "model:WANVIDEOMODEL", "LATENT", widgets_values=[4, 1.0, 5, 1, "fixed"])
    assert [loras for loras, _ in told(drawing.wire(1, 0, 9, 0))[0]] == [[(name, 0.8 if output == 0 else 0.6)]]


def test_three_models_of_one_sampler_in_a_prompt():
    g = Sketch()
    base, low = g.unet("high.safetensors"), g.lora(g.unet("low.safetensors"), "l.safetensors")
    g("TripleKSamplerWan22LightningAdvanced", base_high=base, lightning_high=g.lora(base, "h.safetensors"),
      lightning_low=low, base_steps=-1, base_cfg=3.5, lightning_steps=6, lightning_cfg=1.0)  # fmt: skip
    rows = [(stack.base, [item.ingredient.name for item in stack.items], stack.sampling[0].steps) for stack in
            lint(of_prompt(g)).stacks]  # fmt: skip
    assert rows == [
        ("high.safetensors", [], None), ("high.safetensors", ["h.safetensors"], 6),
        ("low.safetensors", ["l.safetensors"], 6),
    ]  # fmt: skip


def test_a_sampler_of_two_models_judges_each_for_certain():
    """Each with its own CFG; both come in by an input of their own, so neither is only possible."""
    g = Sketch()
    high, low = (
        g.lora(g.unet(f"{half}.safetensors", dtype), f"{half}_lora.safetensors")
        for half, dtype in (("high", "default"), ("low", "fp8_e4m3fn"))
    )
    g(
        "WanMoeKSampler",
        model_high_noise=high,
        model_low_noise=low,
        boundary=0.875,
        steps=20,
        cfg_high_noise=4.0,
        cfg_low_noise=3.0,
    )
    result = lint(of_prompt(g))
    assert [(stack.base, stack.sampling[0].steps, stack.sampling[0].cfg) for stack in result.stacks] == [
        ("high.safetensors", 20, 4.0), ("low.safetensors", 20, 3.0)
    ]  # fmt: skip
    assert [(finding.severity, finding.text) for finding in result.findings] == [("warning", "LF201.native")]


# --- VideoX-Fun


def fun(kind: str, values: list[Any], sampler: str, sampled: list[Any]) -> Drawing:
    drawing = Drawing().add(
        1,
        "LoadWanFunModel",
        "",
        "FunModels",
        widgets_values=["Wan2.1-Fun", "Control", "model_cpu_offload", "x.yaml", "bf16"],
    )
    drawing.add(2, kind, "funmodels:FunModels", "FunModels", widgets_values=values).wire(1, 0, 2, 0)
    return drawing.add(9, sampler, "funmodels:FunModels", "IMAGE", widgets_values=sampled).wire(2, 0, 9, 0)


def test_video_x_fun():
    sampled = [81, 832, 480, False, 43, "fixed", 50, 6.0, "Flow", 5]
    drawing = fun("LoadWanFunLora", [FILE, 0.7, False], "WanFunT2VSampler", sampled)
    assert told(drawing) == ([([(FILE, 0.7)], (50, 6.0))], [])


def test_a_pipeline_of_two_models_is_two_stacks():
    """Its LoRA for high noise and that for low noise are no two accelerators of one model."""
    names = [f"Wan2.2-T2V-A14B-4steps-lora-rank64-Seko-V1.1_{half}_noise_model.safetensors" for half in ("low", "high")]
    sampled = [81, 832, 480, False, 43, "fixed", 4, 1.0, "Flow", 5, 0.875]
    rows, findings = told(fun("LoadWan2_2Lora", [*names, 1.0, False], "Wan2_2T2VSampler", sampled))
    assert rows == [([(names[1], 1.0)], (4, 1.0)), ([(names[0], 1.0)], (4, 1.0))] and findings == []
