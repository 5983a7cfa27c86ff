"""Workflows with native LoRA loaders of every kind that is converted, as prompts in API form."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import community_graphs as ordinary
import community_kinds as kinds
import community_packs as packs
import tool_graphs as tools
from sketches import HIGH, LIGHTNING_8, LOW, Sketch

SDXL, LIGHTNING = "sd_xl_base_1.0.safetensors", "sdxl_lightning_8step_lora.safetensors"


def fp8_cast() -> Sketch:
    g = Sketch()
    model = g.lora(g.unet("flux1-dev.safetensors", "fp8_e4m3fn"), "flux_realism_lora.safetensors", 0.8)
    g.save(g.sample(g.lora(model, "FLUX.1-Turbo-Alpha.safetensors"), g("DualCLIPLoader"), 8, 1.0), g("VAELoader"))
    return g


def fp8_fast_beside() -> Sketch:
    """The same loader for a sampler without LoRAs."""
    g = Sketch()
    base = g.unet("flux1-dev.safetensors", "fp8_e4m3fn_fast")
    first = g.sample(base, g("DualCLIPLoader"), 20, 1.0)
    g.sample(g.lora(base, "flux_realism_lora.safetensors", 0.8), g("DualCLIPLoader"), 20, 1.0, first)
    return g


def fp8_sampling_first() -> Sketch:
    g = Sketch()
    model = g("ModelSamplingFlux", model=g.unet("flux1-dev.safetensors", "fp8_e5m2"), max_shift=1.15)
    g.sample(g.lora(model, "flux_realism_lora.safetensors", 0.8), g("DualCLIPLoader"), 20, 1.0)
    return g


def sampling_among() -> Sketch:
    g = Sketch()
    model = g.lora(g.unet("qwen_image_bf16.safetensors"), LIGHTNING_8)
    model = g("CFGNorm", model=g("ModelSamplingAuraFlow", model=model, shift=3.1), strength=1.0)
    g.sample(g.lora(model, "ink.safetensors", 0.6), g("CLIPLoader"), 8, 1.0)
    return g


def sampling_first() -> Sketch:
    g = Sketch()
    model = g("ModelSamplingAuraFlow", model=g.unet("qwen_image_bf16.safetensors"), shift=3.1)
    sigmas = g("BasicScheduler", model=model, steps=8, denoise=1.0)
    g("SamplerCustom", model=g.lora(model, "ink.safetensors", 0.6), sigmas=sigmas, cfg=1.0)
    return g


def branches() -> Sketch:
    g = Sketch()
    base = g("CheckpointLoaderSimple", ckpt_name=SDXL)
    shared = g.lora(base, "detail.safetensors", 0.5, "LoraLoader", clip=base(1), strength_clip=0.4)
    g.sample(shared, shared(1), 20, 6.0)
    more = g.lora(shared, "ink.safetensors", 0.7, "LoraLoader", clip=shared(1), strength_clip=0.2)
    g.save(g.sample(more, more(1), 20, 6.0), base(2))
    return g


def clip_strengths() -> Sketch:
    """A loader whose CLIP is not used for all: the model-only one adds nothing to it."""
    g = Sketch()
    base = g("CheckpointLoaderSimple", ckpt_name=SDXL)
    model = g.lora(base, "detail.safetensors", 0.5, "LoraLoader", clip=base(1), strength_clip=0.9)
    over = g.lora(model, "ink.safetensors", 0.7)
    over = g.lora(over, "only_words.safetensors", 0.0, "LoraLoader", clip=model(1), strength_clip=0.3)
    g.save(g.sample(over, over(1), 20, 6.0), base(2))
    return g


def clip_of_the_first() -> Sketch:
    g = Sketch()
    base = g("CheckpointLoaderSimple", ckpt_name=SDXL)
    first = g.lora(base, "detail.safetensors", 0.5, "LoraLoader", clip=base(1), strength_clip=0.9)
    second = g.lora(first, "ink.safetensors", 0.7, "LoraLoader", clip=first(1), strength_clip=0.6)
    g.save(g.sample(second, first(1), 20, 6.0), base(2))
    return g


def clip_skip_first() -> Sketch:
    g = Sketch()
    base = g("CheckpointLoaderSimple", ckpt_name=SDXL)
    clip = g("CLIPSetLastLayer", clip=base(1), stop_at_clip_layer=-2)
    model = g.lora(base, "detail.safetensors", 0.5, "LoraLoader", clip=clip, strength_clip=0.9)
    g.save(g.sample(model, model(1), 20, 6.0), base(2))
    return g


def pysssss() -> Sketch:
    g = Sketch()
    base = g("CheckpointLoaderSimple", ckpt_name=SDXL)
    name = {"content": "detail.safetensors", "image": None}
    model = g("LoraLoader|pysssss", model=base, clip=base(1), lora_name=name, strength_model=0.5, strength_clip=0.25)
    g.save(g.sample(model, model(1), 20, 6.0), base(2))
    return g


def rgthree_two_strengths() -> Sketch:
    g = Sketch()
    base = g("CheckpointLoaderSimple", ckpt_name=SDXL)
    rows = {
        "lora_1": {"on": True, "lora": "detail.safetensors", "strength": 0.5, "strengthTwo": 0.1},
        "lora_2": {"on": False, "lora": "ink.safetensors", "strength": 0.7, "strengthTwo": None},
        "lora_3": {"on": True, "lora": LIGHTNING, "strength": 1, "strengthTwo": 0},
    }
    model = g("Power Lora Loader (rgthree)", model=base, clip=base(1), **rows)
    g.save(g.sample(model, model(1), 8, 1.0), base(2))
    return g


def rgthree_model_only() -> Sketch:
    g = Sketch()
    rows = {"lora_1": {"on": True, "lora": "ink.safetensors", "strength": 0.7}}
    model = g("Power Lora Loader (rgthree)", model=g.unet("qwen_image_bf16.safetensors"), **rows)
    g.sample(model, g("CLIPLoader"), 20, 4.0)
    return g


def rgthree_stack() -> Sketch:
    g = Sketch()
    base = g("CheckpointLoaderSimple", ckpt_name=SDXL)
    rows = {"lora_01": "detail.safetensors", "strength_01": 0.5, "lora_02": "None", "strength_02": 1.0,
            "lora_03": LIGHTNING, "strength_03": 1.0, "lora_04": "ink.safetensors", "strength_04": 0.25}  # fmt: skip
    model = g("Lora Loader Stack (rgthree)", model=base, clip=base(1), **rows)
    g.save(g.sample(model, model(1), 8, 1.0), base(2))
    return g


def cr_load() -> Sketch:
    g = Sketch()
    base = g("CheckpointLoaderSimple", ckpt_name=SDXL)
    model, clip = base, base(1)
    for switch, name, strength in (("On", "detail.safetensors", 0.5), ("Off", "ink.safetensors", 0.7)):
        model = g("CR Load LoRA", model=model, clip=clip, switch=switch, lora_name=name, strength_model=strength,
                  strength_clip=0.3)  # fmt: skip
        clip = model(1)
    g.save(g.sample(model, clip, 20, 6.0), base(2))
    return g


def cr_two_stackers() -> Sketch:
    g = Sketch()
    base = g("CheckpointLoaderSimple", ckpt_name=SDXL)
    stacks = None
    for names in (("detail", "ink"), ("grain", "light")):
        row: dict[str, Any] = {}
        for number, name in enumerate(names, 1):
            row |= {f"switch_{number}": "On", f"lora_name_{number}": f"{name}.safetensors"}
            row |= {f"model_weight_{number}": 0.1 * number, f"clip_weight_{number}": 0.5}
        stacks = g("CR LoRA Stack", **row, **({"lora_stack": stacks} if stacks else {}))
    model = g("CR Apply LoRA Stack", model=base, clip=base(1), lora_stack=stacks)
    g.save(g.sample(model, model(1), 20, 6.0), base(2))
    return g


def shared_stacker() -> Sketch:
    """One list on the two models of Wan."""
    g = Sketch()
    row = {"switch_1": "On", "lora_name_1": "film.safetensors", "model_weight_1": 0.6, "clip_weight_1": 0.6}
    stack = g("CR LoRA Stack", **row)
    models = []
    for half, lora in (("high", HIGH), ("low", LOW)):
        model = g.lora(g.unet(f"wan2.2_i2v_{half}_noise_14B_fp16.safetensors"), lora)
        models.append(g("CR Apply LoRA Stack", model=model, lora_stack=stack))
    g.half(models[1], 2, 4, latent=g.half(models[0], 0, 2))
    return g


def easy_apply() -> Sketch:
    g = Sketch()
    base = g("CheckpointLoaderSimple", ckpt_name=SDXL)
    rows = {"toggle": True, "mode": "advanced", "num_loras": 2, "lora_1_name": "detail.safetensors",
            "lora_1_strength": 1.0, "lora_1_model_strength": 0.5, "lora_1_clip_strength": 0.25,
            "lora_2_name": LIGHTNING, "lora_2_strength": 1.0, "lora_2_model_strength": 1.0,
            "lora_2_clip_strength": 0.0, "lora_3_name": "left_over.safetensors", "lora_3_strength": 1.0}  # fmt: skip
    stack = g("easy loraStack", **rows)
    model = g("easy loraStackApply", model=base, optional_clip=base(1), lora_stack=stack)
    g.save(g.sample(model, model(1), 8, 1.0), base(2))
    return g


def efficiency_stacker() -> Sketch:
    g = Sketch()
    base = g("CheckpointLoaderSimple", ckpt_name=SDXL)
    rows = {"input_mode": "advanced", "lora_count": 1, "lora_name_1": "detail.safetensors", "lora_wt_1": 1.0,
            "model_str_1": 0.5, "clip_str_1": 0.25, "lora_name_2": "left_over.safetensors",
            "model_str_2": 1.0}  # fmt: skip
    model = g("CR Apply LoRA Stack", model=base, clip=base(1), lora_stack=g("LoRA Stacker", **rows))
    g.save(g.sample(model, model(1), 20, 6.0), base(2))
    return g


def lora_manager_stacker() -> Sketch:
    g = Sketch()
    base = g("CheckpointLoaderSimple", ckpt_name=SDXL)
    rows = [{"name": "detail", "strength": "0.5", "active": True, "clipStrength": "0.25"}]
    stack = g("Lora Stacker (LoraManager)", text="<lora:detail:0.5>", loras={"__value__": rows})
    rows = [{"name": "ink", "strength": 0.7, "active": True, "clipStrength": 0.7}]
    model = g("Lora Loader (LoraManager)", model=base, clip=base(1), text="", loras={"__value__": rows},
              lora_stack=stack)  # fmt: skip
    g.save(g.sample(model, model(1), 20, 6.0), base(2))
    return g


def lora_manager_text() -> Sketch:
    g = Sketch()
    base = g("CheckpointLoaderSimple", ckpt_name=SDXL)
    text = "<lora:detail:0.5:0.25> <lora:ink:0.7>"
    model = g("LoRA Text Loader (LoraManager)", model=base, clip=base(1), lora_syntax=text)
    g.save(g.sample(model, model(1), 20, 6.0), base(2))
    return g


def wired_strength() -> Sketch:
    """One slider for two LoRAs, one of them an accelerator; and a name that only the run knows."""
    g = Sketch()
    base, slider = g.unet("qwen_image_bf16.safetensors"), g("SomeSlider")
    model = g.lora(base, LIGHTNING_8, slider)
    model = g.lora(g.lora(model, "ink.safetensors", slider), "film.safetensors", 0.3)
    model = g("LoraLoaderModelOnly", model=model, lora_name=g("PickAName"), strength_model=0.5)
    g.sample(model, g("CLIPLoader"), 8, 1.0)
    return g


def wired_clip_strength() -> Sketch:
    """An accelerator whose strength on the CLIP comes by wire."""
    g = Sketch()
    base = g("CheckpointLoaderSimple", ckpt_name=SDXL)
    model = g.lora(base, LIGHTNING, 1.0, "LoraLoader", clip=base(1), strength_clip=g("SomeSlider"))
    g.save(g.sample(model, model(1), 8, 1.0), base(2))
    return g


def wired_and_shared() -> Sketch:
    """Two models that have a LoRA in common, whose strength comes by wire."""
    g = Sketch()
    base = g("CheckpointLoaderSimple", ckpt_name=SDXL)
    shared = g.lora(base, "detail.safetensors", g("SomeSlider"))
    g.sample(shared, base(1), 20, 6.0)
    g.sample(g.lora(shared, "ink.safetensors", 0.7), base(1), 20, 6.0)
    return g


CONVERTIBLE: dict[str, Callable[[], Sketch]] = {
    function.__name__: function
    for function in (
        ordinary.sdxl_three_loras, ordinary.sdxl_with_refiner, ordinary.flux_dev_lora, ordinary.flux_turbo_alpha,
        ordinary.qwen_lightning, ordinary.qwen_edit, ordinary.qwen_style_then_lightning, ordinary.wan_high_low,
        ordinary.wan_three_samplers, ordinary.z_image_turbo, kinds.wan_moe, tools.hires_fix, tools.hires_fix_lightning,
        tools.controlnet, tools.ipadapter, tools.lcm, tools.hyper_sd, tools.rgthree_power, tools.cr_lora_stack,
        tools.lora_manager, tools.core_rows, tools.upscaling, tools.inpainting, tools.face_detailer,
        tools.ltx_manual_sigmas, tools.switched, tools.training, packs.flux_kontext, packs.chroma,
        packs.sd35_skip_layers, packs.hunyuan_video, packs.ltx_stg, packs.wan_vace_native, packs.animatediff_lcm,
        packs.instant_id, packs.detailer_pipe, packs.flux_krea, packs.caches_and_compile, fp8_cast, fp8_fast_beside,
        fp8_sampling_first, sampling_among, sampling_first, branches, clip_strengths, clip_of_the_first,
        clip_skip_first, pysssss, rgthree_two_strengths, rgthree_model_only, rgthree_stack, cr_load, cr_two_stackers,
        shared_stacker, easy_apply, efficiency_stacker, lora_manager_stacker, lora_manager_text, wired_strength,
        wired_clip_strength, wired_and_shared,
    )
}  # fmt: skip
