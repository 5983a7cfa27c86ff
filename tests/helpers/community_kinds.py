"""Ordinary workflows of kinds that were once read wrongly or not at all: none may raise an alarm."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sketches import HIGH, LIGHTNING_4, LIGHTNING_8, LOW, Out, Sketch

I2V = "wan2.2_i2v_{}_noise_14B_fp16.safetensors"
LTX = "ltx-2.3-22b-distilled-lora-384-1.1.safetensors"


def _qwen(g: Sketch, lora: str = LIGHTNING_8) -> Out:
    return g.lora(g.unet("qwen_image_bf16.safetensors"), lora)


def _sigmas(g: Sketch, guided: Any, sigmas: Any, kind: str = "SamplerCustomAdvanced", **more: Any) -> Out:
    """A sampler with a guider and a schedule."""
    return g(kind, guider=g("CFGGuider", model=guided, cfg=1.0), sigmas=sigmas, **more)


def official_switch_off() -> Sketch:
    """One boolean for model, steps and CFG, and it is off: the Lightning plays no part at 40 steps."""
    return _official(False)


def official_switch_on() -> Sketch:
    return _official(True)


def _official(on: bool) -> Sketch:
    g = Sketch()
    flag, plain = g("PrimitiveBoolean", value=on), g.unet("qwen_image_bf16.safetensors")
    model = g("ComfySwitchNode", switch=flag, on_false=plain, on_true=g.lora(plain, LIGHTNING_4))
    steps = g("ComfySwitchNode", switch=flag, on_false=g("PrimitiveInt", value=40), on_true=g("PrimitiveInt", value=4))
    g.sample(model, g("CLIPLoader"), steps, g("ComfySwitchNode", switch=flag, on_false=4.0, on_true=1.0))
    return g


def constants() -> Sketch:
    g = Sketch()
    g.sample(_qwen(g), g("CLIPLoader"), g("INTConstant", value=8), g("FloatConstant", value=1.0))
    return g


def lightning_at_twice_its_steps() -> Sketch:
    g = Sketch()
    g.sample(_qwen(g, LIGHTNING_4), g("CLIPLoader"), 8, 1.0)
    return g


def lightning_at_a_little_more_cfg() -> Sketch:
    g = Sketch()
    g.sample(_qwen(g), g("CLIPLoader"), 8, 1.12)
    return g


def clownshark() -> Sketch:
    g = Sketch()
    model = _qwen(g)
    first = g("ClownsharKSampler_Beta", model=model, steps=8, cfg=1.0, denoise=1.0, sampler_mode="standard")
    g("ClownsharkChainsampler_Beta", model=model, latent_image=first, steps_to_run=-1, cfg=1.0)
    return g


def lanpaint() -> Sketch:
    g = Sketch()
    g("LanPaint_KSampler", model=_qwen(g), steps=8, cfg=1.0, denoise=1.0, LanPaint_NumSteps=5)
    return g


def lanpaint_advanced() -> Sketch:
    g = Sketch()
    _sigmas(g, _qwen(g), g("BasicScheduler", steps=8, denoise=1.0), "LanPaint_SamplerCustomAdvanced")
    return g


def ltx_two_stages() -> Sketch:
    """Eight steps, and three that begin in the middle; at a strength of one half, as its publisher does."""
    g = Sketch()
    base = g("CheckpointLoaderSimple", ckpt_name="ltx-2.3-22b-dev.safetensors")
    model = g.lora(base, LTX, 0.5)
    _sigmas(g, model, g("ManualSigmas", sigmas="1., 0.99375, 0.9875, 0.98125, 0.975, 0.909375, 0.725, 0.421875, 0.0"))
    _sigmas(g, model, g("ManualSigmas", sigmas="0.909375, 0.725, 0.421875, 0.0"))
    return g


def ltx_looping() -> Sketch:
    g = Sketch()
    base = g("CheckpointLoaderSimple", ckpt_name="ltx-2-19b-dev.safetensors")
    model = g("LTXICLoRALoaderModelOnly", model=base, lora_name="ltx-2-19b-ic-lora-detailer.safetensors",
              strength_model=1.0)  # fmt: skip
    _sigmas(g, model, g("LTXVScheduler", steps=20), "LTXVLoopingSampler", model=model, temporal_tile_size=56)
    return g


def _wrapper(g: Sketch, lora: str, strength: float = 1.0) -> Out:
    loras = g("WanVideoLoraSelect", lora=lora, strength=strength, merge_loras=True)
    name = "Wan2_1-T2V-14B_fp16.safetensors"
    return g("WanVideoModelLoader", model=name, base_precision="fp16", quantization="disabled", lora=loras)


LIGHTX = "lightx2v_T2V_14B_cfg_step_distill_v2_lora_rank64_bf16.safetensors"


def wan_scheduler_node() -> Sketch:
    g = Sketch()
    schedule = g("WanVideoSchedulerv2", scheduler="dpm++_sde", steps=4, shift=5.0, start_step=0, end_step=-1)
    g("WanVideoSamplerv2", model=_wrapper(g, LIGHTX), cfg=1.0, seed=1, force_offload=True, scheduler=schedule)
    return g


def wan_settings_node() -> Sketch:
    g = Sketch()
    settings = g("WanVideoSamplerSettings", model=_wrapper(g, LIGHTX), steps=6, cfg=1.0, denoise_strength=1.0)
    g("WanVideoSamplerFromSettings", sampler_inputs=settings)
    return g


def wan_several_loras() -> Sketch:
    g = Sketch()
    loras = g("WanVideoLoraSelectMulti", lora_0=LIGHTX, strength_0=1.0, lora_1="film.safetensors", strength_1=0.6,
              lora_2="none", strength_2=1.0)  # fmt: skip
    model = g("WanVideoModelLoader", model="Wan2_1-T2V-14B_fp16.safetensors", quantization="disabled", lora=loras)
    g("WanVideoSampler", model=model, steps=6, cfg=1.0, denoise_strength=1.0)
    return g


def wan_moe() -> Sketch:
    g = Sketch()
    high, low = (g.lora(g.unet(I2V.format(half)), lora) for half, lora in (("high", HIGH), ("low", LOW)))
    g("WanMoeKSampler", model_high_noise=high, model_low_noise=low, boundary=0.9, steps=4, cfg_high_noise=1.0,
      cfg_low_noise=1.0, denoise=1.0)  # fmt: skip
    return g


def wan_rows_of_high_and_low() -> Sketch:
    g = Sketch()
    row = {"on": True, "lora": HIGH, "strength": 1.0, "is_low": True, "low_variant_name": LOW, "low_strength": 1.0}
    both = g("PowerLoraLoaderV2", model=g.unet(I2V.format("high")), model_low=g.unet(I2V.format("low")), lora_1=row)
    g.half(both(1), 2, 4, latent=g.half(both, 0, 2))
    return g


def wan_2_1_lightning_on_2_2() -> Sketch:
    """The T2V accelerator of 2.1 on both models of 2.2 I2V: practised on purpose."""
    g = Sketch()
    for half, strength in (("high", 3.0), ("low", 1.5)):
        g.half(g.lora(g.unet(I2V.format(half)), LIGHTX, strength), 0, 4, 8)
    return g


def wan_fun() -> Sketch:
    g = Sketch()
    models = g("LoadWan2_2Model", model="Wan2.2-I2V-A14B", GPU_memory_mode="model_cpu_offload", precision="bf16")
    models = g("LoadWan2_2Lora", funmodels=models, lora_name=LOW, lora_high_name=HIGH, strength_model=1.0)
    g("Wan2_2I2VSampler", funmodels=models, steps=4, cfg=1.0, shift=5)
    return g


def anima_turbo() -> Sketch:
    g = Sketch()
    g.sample(g.lora(g.unet("anima-base-v1.0.safetensors"), "anima-turbo-lora-v0.2.safetensors"), g("CLIP"), 10, 1.0)
    return g


def flux2_turbo() -> Sketch:
    g = Sketch()
    model = g.lora(g.unet("flux2_dev_bf16.safetensors"), "Flux_2-Turbo-LoRA_comfyui.safetensors")
    g("SamplerCustomAdvanced", guider=g("BasicGuider", model=model), sigmas=g("Flux2Scheduler", steps=8, width=1024))
    return g


def minimax_turbo() -> Sketch:
    g = Sketch()
    model = g.lora(
        g.unet("minimax_h3_fl2va_bf16.safetensors"), "minimax_h3_fl2v_turbo_8step_v1.0_comfyui_bf16.safetensors"
    )
    g.sample(model, g("CLIPLoader"), 8, 1.0)
    return g


def fp8_lightning_on_its_base() -> Sketch:
    g = Sketch()
    model = g.unet("qwen_image_fp8_e4m3fn.safetensors", "fp8_e4m3fn")
    model = g.lora(model, "Qwen-Image-fp8-e4m3fn-Lightning-4steps-V1.0-fp32.safetensors")
    g.sample(model, g("CLIPLoader"), 4, 1.0)
    return g


def dynamic_stack() -> Sketch:
    g = Sketch()
    rows = {"settings_visibility": "simple", "input_mode": "dropdown", "lora_count": 1, "lora_name_1": "ink.sft",
            "strength_1": 0.7, "lora_name_2": LIGHTNING_8, "strength_2": 1.0}  # fmt: skip
    model = g("CR Apply LoRA Stack", model=g.unet("a.safetensors"), lora_stack=g("LoRAStackDynamic", **rows))
    g.sample(model, g("CLIPLoader"), 28, 6.0)
    return g


def easy_switcher() -> Sketch:
    g = Sketch()
    rows = {"toggle": True, "select": 2, "num_loras": 2, "lora_strength": 0.8, "lora_1_name": "lcm-lora-sdxl.sft",
            "lora_2_name": "ink.safetensors"}  # fmt: skip
    pipe = g(
        "easy fullLoader",
        ckpt_name="sdxl.safetensors",
        lora_name="None",
        optional_lora_stack=g("easy loraSwitcher", **rows),
    )
    g("easy kSamplerTiled", pipe=g("easy preSamplingAdvanced", pipe=pipe, steps=28, cfg=6.0))
    return g


def hunyuan_wrapper_whole() -> Sketch:
    g = Sketch()
    loras = g("HyVideoLoraSelect", lora="hyvid_orbit.safetensors", strength=0.8)
    model = g("HyVideoModelLoader", model="hunyuan_video_720_bf16.safetensors", quantization="disabled", lora=loras)
    g("HyVideoSampler", model=model, steps=30, embedded_guidance_scale=6.0)
    return g


def text_encoder_lora() -> Sketch:
    """A LoRA for the text encoder only, beside a plain model."""
    g = Sketch()
    clip = g(
        "LoadLoraTextEncoder", clip=g("CLIPLoader"), **{"loras.0.lora_name": "te.safetensors", "loras.0.strength": 1.0}
    )
    g.sample(g.unet("a.safetensors"), clip, 20, 5.0)
    return g


KINDS: dict[str, Callable[[], Sketch]] = {
    function.__name__: function
    for function in (
        official_switch_off, official_switch_on, constants, lightning_at_twice_its_steps,
        lightning_at_a_little_more_cfg, clownshark, lanpaint, lanpaint_advanced, ltx_two_stages, ltx_looping,
        wan_scheduler_node, wan_settings_node, wan_several_loras, wan_moe, wan_rows_of_high_and_low,
        wan_2_1_lightning_on_2_2, wan_fun, anima_turbo, flux2_turbo, minimax_turbo, fp8_lightning_on_its_base,
        dynamic_stack, easy_switcher, hunyuan_wrapper_whole, text_encoder_lora,
    )
}  # fmt: skip
