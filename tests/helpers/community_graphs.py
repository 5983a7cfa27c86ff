"""Ordinary workflows as people share them, rebuilt by hand, and the same with one mistake each.

Every function returns a prompt in API form. ``ORDINARY`` may give no warning and no error; ``ASKED`` lists the
findings of those where something is open; ``MISTAKEN`` lists what each mistake gives, and nothing else.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

EXAMPLES = Path(__file__).resolve().parents[2] / "example_workflows" / "api"
LIGHTNING_8 = "Qwen-Image-Lightning-8steps-V1.0.safetensors"
LIGHTNING_4 = "Qwen-Image-Lightning-4steps-V1.0.safetensors"
HIGH, LOW = (f"wan2.2_i2v_lightx2v_4steps_lora_v1_{half}_noise.safetensors" for half in ("high", "low"))


class Out(list[Any]):
    """The first output of a node as a link; called with a number, another output."""

    def __call__(self, slot: int) -> list[Any]:
        return [self[0], slot]


class Sketch:
    """A prompt that grows: calling it adds a node and gives back its output."""

    def __init__(self) -> None:
        self.prompt: dict[str, Any] = {}

    def __call__(self, kind: str, **inputs: Any) -> Out:
        self.prompt[str(len(self.prompt) + 1)] = {"class_type": kind, "inputs": inputs}
        return Out([str(len(self.prompt)), 0])

    def text(self, clip: Any) -> Out:
        return self("CLIPTextEncode", text="a lighthouse", clip=clip)

    def save(self, latent: Any, vae: Any) -> None:
        self("SaveImage", filename_prefix="x", images=self("VAEDecode", samples=latent, vae=vae))

    def sample(self, model: Any, clip: Any, steps: Any = 20, cfg: Any = 7.0, latent: Any = None, **more: Any) -> Out:
        latent = latent or self("EmptyLatentImage", width=1024, height=1024, batch_size=1)
        shared = {"positive": self.text(clip), "negative": self.text(clip), "latent_image": latent, "denoise": 1.0}
        settings = {"seed": 1, "sampler_name": "euler", "scheduler": "normal"}
        return self("KSampler", model=model, steps=steps, cfg=cfg, **{**shared, **settings, **more})

    def half(self, model: Any, start: int, end: int, steps: int = 4, cfg: float = 1.0, latent: Any = None) -> Out:
        """One of several samplers that share a schedule of ``steps``."""
        return self(
            "KSamplerAdvanced", model=model, steps=steps, cfg=cfg, start_at_step=start, end_at_step=end,
            add_noise="enable", noise_seed=1, sampler_name="euler", scheduler="simple", latent_image=latent,
            return_with_leftover_noise="enable",
        )  # fmt: skip

    def lora(self, model: Any, name: str, strength: Any = 1.0, kind: str = "LoraLoaderModelOnly", **more: Any) -> Out:
        return self(kind, model=model, lora_name=name, strength_model=strength, **more)

    def unet(self, name: str, dtype: str = "default") -> Out:
        return self("UNETLoader", unet_name=name, weight_dtype=dtype)


def sd15() -> Sketch:
    g = Sketch()
    base = g("CheckpointLoaderSimple", ckpt_name="v1-5-pruned-emaonly-fp16.safetensors")
    g.save(g.sample(base, base(1), 20, 8.0), base(2))
    return g


def sdxl_three_loras() -> Sketch:
    g = Sketch()
    base = g("CheckpointLoaderSimple", ckpt_name="sd_xl_base_1.0.safetensors")
    model, clip = base, base(1)
    for name, strength in (("add-detail-xl", 0.5), ("pixel-art-xl", 0.8), ("SDXL/ral-dissolve", 0.4)):
        model = g.lora(model, f"{name}.safetensors", strength, "LoraLoader", clip=clip, strength_clip=strength)
        clip = model(1)
    g.save(g.sample(model, clip, 28, 6.0), base(2))
    return g


def sdxl_with_refiner() -> Sketch:
    g = Sketch()
    base = g("CheckpointLoaderSimple", ckpt_name="sd_xl_base_1.0.safetensors")
    refiner = g("CheckpointLoaderSimple", ckpt_name="sd_xl_refiner_1.0.safetensors")
    first = g.half(g.lora(base, "add-detail-xl.safetensors", 0.6), 0, 20, 25, 7.5)
    g.save(g.half(refiner, 20, 10000, 25, 7.5, first), base(2))
    return g


def _custom(g: Sketch, model: Any, steps: Any, clip: Any, guider: str = "BasicGuider", **cfg: Any) -> Out:
    """SamplerCustomAdvanced with all that belongs to it."""
    guidance = g("FluxGuidance", conditioning=g.text(clip), guidance=3.5)
    return g(
        "SamplerCustomAdvanced", noise=g("RandomNoise", noise_seed=1), sampler=g("KSamplerSelect"),
        guider=g(guider, model=model, conditioning=guidance, **cfg), latent_image=g("EmptySD3LatentImage"),
        sigmas=g("BasicScheduler", model=model, scheduler="simple", steps=steps, denoise=1.0),
    )  # fmt: skip


def flux_dev_lora() -> Sketch:
    g = Sketch()
    clip = g("DualCLIPLoader", clip_name1="t5xxl_fp16.safetensors", clip_name2="clip_l.safetensors", type="flux")
    model = g.lora(g.unet("flux1-dev.safetensors"), "flux_realism_lora.safetensors", 0.8)
    model = g("ModelSamplingFlux", model=model, max_shift=1.15, base_shift=0.5, width=1024, height=1024)
    g.save(_custom(g, model, 20, clip), g("VAELoader", vae_name="ae.safetensors"))
    return g


def flux_turbo_alpha() -> Sketch:
    g = Sketch()
    clip = g("DualCLIPLoader", clip_name1="t5xxl_fp16.safetensors", clip_name2="clip_l.safetensors", type="flux")
    model = g.lora(g.unet("flux1-dev.safetensors"), "FLUX.1-Turbo-Alpha.safetensors", 1.0)
    g.save(_custom(g, model, g("PrimitiveInt", value=8), clip), g("VAELoader", vae_name="ae.safetensors"))
    return g


def flux_fp8_checkpoint() -> Sketch:
    g = Sketch()
    base = g("CheckpointLoaderSimple", ckpt_name="flux1-dev-fp8.safetensors")
    g.save(g.sample(base, base(1), 20, 1.0), base(2))
    return g


def flux_unet_fp8() -> Sketch:
    g = Sketch()
    g.save(g.sample(g.unet("flux1-dev.safetensors", "fp8_e4m3fn_fast"), g("DualCLIPLoader"), 20, 1.0), g("VAELoader"))
    return g


def flux_nunchaku() -> Sketch:
    g = Sketch()
    model = g("NunchakuFluxDiTLoader", model_path="svdq-int4_r32-flux.1-dev.safetensors", cache_threshold=0)
    model = g("NunchakuFluxLoraLoader", model=model, lora_name="FLUX.1-Turbo-Alpha.safetensors", lora_strength=1.0)
    model = g("NunchakuFluxLoraLoader", model=model, lora_name="ghibsky.safetensors", lora_strength=0.8)
    g.save(_custom(g, model, 8, g("DualCLIPLoader")), g("VAELoader"))
    return g


def flux_bypass_lora() -> Sketch:
    g = Sketch()
    model = g.unet("flux1-dev.safetensors", "fp8_e4m3fn")
    model = g.lora(model, "flux_realism_lora.safetensors", 0.8, "LoraLoaderBypassModelOnly")
    g.save(_custom(g, model, 20, g("DualCLIPLoader")), g("VAELoader"))
    return g


def qwen_lightning(lora: str = LIGHTNING_8, steps: Any = 8, cfg: Any = 1.0, dtype: str = "default") -> Sketch:
    g = Sketch()
    model = g.lora(g.unet("qwen_image_bf16.safetensors", dtype), lora)
    model = g("ModelSamplingAuraFlow", model=model, shift=3.1)
    g.save(g.sample(model, g("CLIPLoader", clip_name="qwen_2.5_vl_7b.safetensors"), steps, cfg), g("VAELoader"))
    return g


def qwen_edit() -> Sketch:
    g = Sketch()
    model = g.unet("qwen_image_edit_2509_bf16.safetensors")
    model = g.lora(model, "Qwen-Image-Edit-2509-Lightning-4steps-V1.0-bf16.safetensors")
    model = g("CFGNorm", model=g("ModelSamplingAuraFlow", model=model, shift=3.0), strength=1.0)
    image = g("LoadImage", image="room.png")
    latent = g("VAEEncode", pixels=image, vae=g("VAELoader", vae_name="qwen_image_vae.safetensors"))
    g.save(g.sample(model, g("CLIPLoader"), 4, 1.0, latent), g("VAELoader"))
    return g


def qwen_style_then_lightning() -> Sketch:
    g = Sketch()
    model = g.lora(g.unet("qwen_image_bf16.safetensors"), "my_watercolor.safetensors", 0.8)
    g.save(g.sample(g.lora(model, LIGHTNING_8), g("CLIPLoader"), 8, 1.0), g("VAELoader"))
    return g


def wan_high_low(base: str = "wan2.2_i2v_{}_noise_14B_fp16.safetensors", dtype: str = "default") -> Sketch:
    g = Sketch()
    high, low = (
        g("ModelSamplingSD3", model=g.lora(g.unet(base.format(half), dtype), lora), shift=5.0)
        for half, lora in (("high", HIGH), ("low", LOW))
    )
    images = g("WanImageToVideo", width=640, height=640, length=81)
    g.save(g.half(low, 2, 4, latent=g.half(high, 0, 2, latent=images(2))), g("VAELoader"))
    return g


def wan_template_fp8() -> Sketch:
    return wan_high_low("wan2.2_i2v_{}_noise_14B_fp8_scaled.safetensors")


def wan_three_samplers() -> Sketch:
    g = Sketch()
    high, low = (g.unet(f"wan2.2_t2v_{half}_noise_14B_fp16.safetensors") for half in ("high", "low"))
    first = g.half(high, 0, 2, 8, 3.5)
    style = "wan_t2v_film_look_{}.safetensors"
    second = g.half(g.lora(high, style.format("high")), 2, 4, 8, 1.0, first)
    g.save(g.half(g.lora(low, style.format("low")), 4, 8, 8, 1.0, second), g("VAELoader"))
    return g


def wan_i2v_gguf() -> Sketch:
    g = Sketch()
    model = g("UnetLoaderGGUF", unet_name="wan2.1-i2v-14b-480p-Q5_K_M.gguf")
    g.save(g.sample(g("ModelSamplingSD3", model=model, shift=8.0), g("CLIPLoaderGGUF"), 20, 6.0), g("VAELoader"))
    return g


def wan_gguf_lora() -> Sketch:
    g = Sketch()
    model = g.lora(g("UnetLoaderGGUF", unet_name="wan2.1-i2v-14b-480p-Q5_K_M.gguf"), "orbit_shot.safetensors", 0.9)
    g.save(g.sample(model, g("CLIPLoaderGGUF"), 20, 6.0), g("VAELoader"))
    return g


def wan_wrapper(quantization: str = "fp8_e4m3fn_scaled", steps: int = 4, cfg: float = 1.0) -> Sketch:
    g = Sketch()
    rank = "lightx2v_T2V_14B_cfg_step_distill_v2_lora_rank64_bf16.safetensors"
    loras = g("WanVideoLoraSelect", lora=rank, strength=1.0, low_mem_load=False, merge_loras=True)
    loras = g("WanVideoLoraSelect", lora="wan_film_look.safetensors", strength=0.7, prev_lora=loras)
    name = "Wan2_1-T2V-14B_fp16.safetensors"
    model = g("WanVideoModelLoader", model=name, base_precision="bf16", quantization=quantization, lora=loras)
    embeds = g("WanVideoTextEncode", positive_prompt="a lighthouse")
    g("WanVideoSampler", model=model, text_embeds=embeds, steps=steps, cfg=cfg, shift=5.0, denoise_strength=1.0)
    return g


def z_image_turbo() -> Sketch:
    g = Sketch()
    model = g.lora(g.unet("z_image_turbo_bf16.safetensors"), "pixel_art_style_z_image_turbo.safetensors", 0.8)
    model = g("ModelSamplingAuraFlow", model=model, shift=3.0)
    g.save(g.sample(model, g("CLIPLoader", clip_name="qwen_3_4b.safetensors"), 8, 1.0), g("VAELoader"))
    return g


def hires_fix() -> Sketch:
    g = Sketch()
    base = g("CheckpointLoaderSimple", ckpt_name="dreamshaper_8.safetensors")
    model = g.lora(base, "more_details.safetensors", 0.5, "LoraLoader", clip=base(1), strength_clip=0.5)
    first = g.sample(model, model(1), 25, 7.0)
    larger = g("LatentUpscaleBy", samples=first, upscale_method="nearest-exact", scale_by=1.5)
    g.save(g.sample(model, model(1), 15, 7.0, larger, denoise=0.5), base(2))
    return g


def hires_fix_lightning() -> Sketch:
    """Six of eight steps in the second pass: the end of a schedule is no other schedule."""
    g = Sketch()
    base = g("CheckpointLoaderSimple", ckpt_name="sd_xl_base_1.0.safetensors")
    model = g.lora(base, "sdxl_lightning_8step_lora.safetensors")
    first = g.sample(model, base(1), 8, 1.0)
    larger = g("LatentUpscaleBy", samples=first, upscale_method="bislerp", scale_by=1.5)
    g.save(g.sample(model, base(1), 5, 1.0, larger, denoise=0.6), base(2))
    return g


def controlnet() -> Sketch:
    g = Sketch()
    base = g("CheckpointLoaderSimple", ckpt_name="v1-5-pruned-emaonly.safetensors")
    net = g("ControlNetLoader", control_net_name="control_v11p_sd15_openpose.pth")
    positive = g("ControlNetApplyAdvanced", control_net=net, image=g("LoadImage", image="pose.png"), strength=1.0)
    model = g.lora(base, "clay_style.safetensors", 0.7, "LoraLoader", clip=base(1), strength_clip=0.7)
    g.save(g.sample(model, model(1), 20, 8.0, positive=positive, negative=positive(1)), base(2))
    return g


def ipadapter() -> Sketch:
    g = Sketch()
    base = g("CheckpointLoaderSimple", ckpt_name="juggernautXL_v9.safetensors")
    model = g.lora(base, "film_grain_xl.safetensors", 0.4, "LoraLoader", clip=base(1), strength_clip=0.4)
    adapted = g("IPAdapterUnifiedLoader", model=model, preset="PLUS (high strength)")
    model_out = g("IPAdapter", model=adapted, ipadapter=adapted(1), image=g("LoadImage", image="face.png"), weight=0.8)
    g.save(g.sample(g("FreeU_V2", model=model_out, b1=1.3), model(1), 30, 5.0), base(2))
    return g


def lcm() -> Sketch:
    g = Sketch()
    base = g("CheckpointLoaderSimple", ckpt_name="v1-5-pruned-emaonly.safetensors")
    model = g("ModelSamplingDiscrete", model=g.lora(base, "lcm-lora-sdv1-5.safetensors"), sampling="lcm", zsnr=False)
    g.save(g.sample(model, base(1), 6, 1.5, sampler_name="lcm", scheduler="sgm_uniform"), base(2))
    return g


def hyper_sd() -> Sketch:
    g = Sketch()
    base = g("CheckpointLoaderSimple", ckpt_name="sd_xl_base_1.0.safetensors")
    g.save(g.sample(g.lora(base, "Hyper-SDXL-8steps-lora.safetensors"), base(1), 8, 1.0), base(2))
    return g


def rgthree_power() -> Sketch:
    """A row that is off, and one that is at 0, are the other accelerators somebody tried."""
    g = Sketch()
    base = g("CheckpointLoaderSimple", ckpt_name="sd_xl_base_1.0.safetensors")
    rows = {
        "lora_1": {"on": True, "lora": "sdxl_lightning_8step_lora.safetensors", "strength": 1.0},
        "lora_2": {"on": False, "lora": "Hyper-SDXL-8steps-lora.safetensors", "strength": 1.0},
        "lora_3": {"on": True, "lora": "lcm-lora-sdxl.safetensors", "strength": 0},
        "lora_4": {"on": True, "lora": "pixel-art-xl.safetensors", "strength": 0.8, "strengthTwo": None},
        "lora_5": {"on": True, "lora": "None", "strength": 1},
    }
    extra = {"PowerLoraLoaderHeaderWidget": {"type": "PowerLoraLoaderHeaderWidget"}, "➕ Add Lora": ""}
    model = g("Power Lora Loader (rgthree)", model=base, clip=base(1), **rows, **extra)
    g.save(g.sample(model, model(1), 8, 1.0), base(2))
    return g


def cr_lora_stack() -> Sketch:
    g = Sketch()
    base = g("CheckpointLoaderSimple", ckpt_name="dreamshaper_8.safetensors")
    row = {"switch_1": "On", "lora_name_1": "more_details.safetensors", "model_weight_1": 0.6, "clip_weight_1": 0.6,
           "switch_2": "Off", "lora_name_2": "lcm-lora-sdv1-5.safetensors", "model_weight_2": 1.0,
           "switch_3": "On", "lora_name_3": "None", "model_weight_3": 1.0}  # fmt: skip
    model = g("CR Apply LoRA Stack", model=base, clip=base(1), lora_stack=g("CR LoRA Stack", **row))
    g.save(g.sample(model, model(1), 25, 7.0), base(2))
    return g


def easy_use() -> Sketch:
    """What is beyond ``num_loras`` is left over from an earlier edit."""
    g = Sketch()
    rows = {"toggle": True, "mode": "simple", "num_loras": 1, "lora_1_name": "Hyper-SDXL-8steps-lora.safetensors",
            "lora_1_strength": 1.0, "lora_2_name": "lcm-lora-sdxl.safetensors", "lora_2_strength": 1.0}  # fmt: skip
    pipe = g("easy fullLoader", ckpt_name="sd_xl_base_1.0.safetensors", lora_name="None", lora_model_strength=1.0,
             optional_lora_stack=g("easy loraStack", **rows))  # fmt: skip
    pipe = g("easy preSampling", pipe=pipe, steps=8, cfg=1.0, sampler_name="euler", denoise=1.0, seed=1)
    g("easy kSampler", pipe=pipe, image_output="Preview")
    return g


def efficiency() -> Sketch:
    g = Sketch()
    rows = {"input_mode": "advanced", "lora_count": 1, "lora_name_1": "clay_style.safetensors", "lora_wt_1": 1.0,
            "model_str_1": 0.7, "clip_str_1": 0.7, "lora_name_2": "lcm-lora-sdv1-5.safetensors",
            "model_str_2": 1.0}  # fmt: skip
    base = g("Efficient Loader", ckpt_name="dreamshaper_8.safetensors", vae_name="Baked VAE", lora_name="None",
             lora_model_strength=1.0, lora_stack=g("LoRA Stacker", **rows))  # fmt: skip
    g("KSampler (Efficient)", model=base, seed=1, steps=20, cfg=7.0, denoise=1.0, positive=base(1))
    return g


def lora_manager() -> Sketch:
    g = Sketch()
    rows = [{"name": "sdxl_lightning_4step_lora", "strength": "1", "active": False, "clipStrength": 1.0},
            {"name": "pixel-art-xl", "strength": 0.8, "active": True, "clipStrength": 0.8}]  # fmt: skip
    base = g("CheckpointLoaderSimple", ckpt_name="sd_xl_base_1.0.safetensors")
    model = g("Lora Loader (LoraManager)", model=base, clip=base(1), text="<lora:pixel-art-xl:0.8>",
              loras={"__value__": rows})  # fmt: skip
    g.save(g.sample(model, model(1), 28, 6.0), base(2))
    return g


def core_rows() -> Sketch:
    """The rows of the core's own loader of several LoRAs."""
    g = Sketch()
    rows = {"loras.0.lora_name": "pixel-art-xl.safetensors", "loras.0.strength": 0.8,
            "loras.1.lora_name": "lcm-lora-sdxl.safetensors", "loras.1.strength": 0.0}  # fmt: skip
    base = g("CheckpointLoaderSimple", ckpt_name="sd_xl_base_1.0.safetensors")
    g.save(g.sample(g("LoadLoraModel", model=base, **rows), base(1), 28, 6.0), base(2))
    return g


def upscaling() -> Sketch:
    g = Sketch()
    base = g("CheckpointLoaderSimple", ckpt_name="juggernautXL_v9.safetensors")
    frames = g("VHS_LoadVideo", video="in.mp4")
    larger = g("ImageUpscaleWithModel", upscale_model=g("UpscaleModelLoader", model_name="4x.pth"), image=frames)
    g("UltimateSDUpscale", image=larger, model=g.lora(base, "film_grain_xl.safetensors", 0.4), positive=g.text(base(1)),
      upscale_by=2.0, steps=20, cfg=6.0, denoise=0.2, upscale_model=g("UpscaleModelLoader"))  # fmt: skip
    return g


def inpainting() -> Sketch:
    g = Sketch()
    base = g("CheckpointLoaderSimple", ckpt_name="juggernautXL_v9.safetensors")
    model = g("DifferentialDiffusion", model=g.lora(base, "add-detail-xl.safetensors", 0.5))
    filled = g("InpaintModelConditioning", positive=g.text(base(1)), pixels=g("LoadImage", image="x.png"))
    g.save(g.sample(model, base(1), 30, 5.0, filled(2), positive=filled, negative=filled(1)), base(2))
    return g


def model_merge() -> Sketch:
    """What lies in the two halves is no one stack: nothing is said of it, and of what comes after only itself."""
    g = Sketch()
    first = g.lora(g("CheckpointLoaderSimple", ckpt_name="a.safetensors"), "sdxl_lightning_8step_lora.safetensors")
    base = g("CheckpointLoaderSimple", ckpt_name="b.safetensors")
    second = g.lora(base, "sdxl_lightning_8step_lora.safetensors")
    merged = g("ModelMergeSimple", model1=first, model2=second, ratio=0.5)
    g("CheckpointSave", model=merged, clip=base(1), vae=base(2), filename_prefix="merged")
    g.save(g.sample(g.lora(merged, "pixel-art-xl.safetensors", 0.8), base(1), 25, 6.0), base(2))
    return g


def face_detailer() -> Sketch:
    g = Sketch()
    base = g("CheckpointLoaderSimple", ckpt_name="dreamshaper_8.safetensors")
    model = g.lora(base, "lcm-lora-sdv1-5.safetensors")
    latent = g.sample(model, base(1), 6, 1.5, sampler_name="lcm")
    pipe = g("ToBasicPipe", model=base, clip=base(1), vae=base(2), positive=g.text(base(1)))
    inside = g("FromBasicPipe", basic_pipe=pipe)
    image = g("VAEDecode", samples=latent, vae=base(2))
    g("FaceDetailer", image=image, model=inside, clip=inside(1), steps=20, cfg=7.0, denoise=0.5)
    g("ImpactKSamplerBasicPipe", basic_pipe=pipe, steps=20, cfg=7.0, denoise=1.0, latent_image=latent)
    return g


def ltx_manual_sigmas() -> Sketch:
    g = Sketch()
    model = g.lora(g("CheckpointLoaderSimple", ckpt_name="ltx-2-19b-dev.safetensors"), "camera_dolly.safetensors", 0.8)
    sigmas = g("SplitSigmas", sigmas=g("ManualSigmas", sigmas="1.0, 0.99, 0.98, 0.9, 0.7, 0.4, 0.0"), step=3)
    g("SamplerCustomAdvanced", guider=g("CFGGuider", model=model, cfg=1.0), sigmas=sigmas, latent_image=g("Empty"))
    return g


def switched() -> Sketch:
    """Lightning with its settings, or none with others: three switches, of which only the run knows how they stand."""
    g = Sketch()
    plain, fast = g.unet("qwen_image_bf16.safetensors"), g("PrimitiveBoolean", value=True)
    model = g("ComfySwitchNode", switch=fast, on_true=g.lora(plain, LIGHTNING_8), on_false=plain)
    steps = g("ComfySwitchNode", switch=fast, on_true=8, on_false=40)
    g.save(g.sample(model, g("CLIPLoader"), steps, g("ComfySwitchNode", switch=fast, on_true=1.0)), g("VAELoader"))
    return g


def switched_off() -> Sketch:
    """A switch that is set: the Lightning it leaves out plays no part."""
    g = Sketch()
    plain = g.unet("qwen_image_bf16.safetensors")
    model = g("ImpactSwitch", select=2, input1=g.lora(plain, LIGHTNING_8), input2=plain)
    model = g("Any Switch (rgthree)", any_02=g.lora(plain, LIGHTNING_4), any_01=model)
    g.save(g.sample(model, g("CLIPLoader"), 40, 4.0), g("VAELoader"))
    return g


def training() -> Sketch:
    g = Sketch()
    base = g.unet("qwen_image_bf16.safetensors")
    model = g.lora(base, LIGHTNING_8)
    trained = g("TrainLoraNode", model=model, latents=g("Latents"), steps=1000, existing_lora="[None]")
    g("SaveLoRA", lora=trained(1), prefix="loras/mine")
    g.save(g.sample(g("LoraModelLoader", model=base, lora=trained(1), strength_model=1.0), g("CLIPLoader")), g("VAE"))
    return g


def example(name: str) -> Sketch:
    g = Sketch()
    g.prompt = json.loads((EXAMPLES / f"{name}.json").read_text(encoding="utf-8"))
    return g


ORDINARY: dict[str, Callable[[], Sketch]] = {
    function.__name__: function
    for function in (
        sd15, sdxl_three_loras, sdxl_with_refiner, flux_dev_lora, flux_turbo_alpha, flux_fp8_checkpoint, flux_unet_fp8,
        flux_nunchaku, flux_bypass_lora, qwen_lightning, qwen_edit, wan_high_low, wan_three_samplers, wan_i2v_gguf,
        wan_wrapper, z_image_turbo, hires_fix, hires_fix_lightning, controlnet, ipadapter, lcm, hyper_sd, rgthree_power,
        cr_lora_stack, easy_use, efficiency, lora_manager, core_rows, upscaling, inpainting, model_merge, face_detailer,
        ltx_manual_sigmas, switched, switched_off, training,
    )
}  # fmt: skip
ORDINARY |= {path.stem: partial(example, path.stem) for path in sorted(EXAMPLES.glob("*.json"))}

# Where something is open, or worth a line: function -> (severity, text) of each finding.
ASKED = {
    qwen_style_then_lightning: [("note", "LF101.after")],  # for LoRAs that add, the order changes a state, no number
    wan_gguf_lora: [("note", "LF201.gguf")],
    wan_template_fp8: [("question", "LF201.named")] * 2,  # only the name says fp8: the file is not here
}


def _ours(g: Sketch, model: Any, fuse: str = LIGHTNING_8, style: str = "style.safetensors") -> Out:
    """Our three stages on a model: fuse, stack, quantize."""
    fused = g("FoundryFuseBaseLoRA", model=model, lora_name=fuse, strength=1.0, rounding="once")
    row = g("FoundryLoRA", lora_name=style, strength_model=0.8, strength_clip=0.0, enabled=True)
    stacked = g("FoundryStackLoRAs", model=fused, lora_stack=row)
    return g("FoundryQuantizeFP8", model=stacked, format="float8_e4m3fn")


def native_lora_before_fusion() -> Sketch:
    g = Sketch()
    model = g.lora(g.unet("qwen_image_bf16.safetensors"), "my_watercolor.safetensors", 0.8)
    g.save(g.sample(_ours(g, g("ModelSamplingAuraFlow", model=model, shift=3.1)), g("CLIPLoader"), 8, 1.0), g("VAE"))
    return g


def stack_before_fusion() -> Sketch:
    g = Sketch()
    rows = g("FoundryLoRAStack", loras='[{"path": "style.safetensors", "weight": 0.8}]')
    stacked = g("FoundryStackLoRAs", model=g("FoundryLoadBase", base_name="wan.safetensors"), lora_stack=rows)
    again = g("FoundryApply", model=stacked, how="patches")
    g("FoundrySaveModel", model=g("FoundryFuseBaseLoRA", model=again, lora_name=LIGHTNING_8, strength=1.0))
    return g


def fp8_before_stages() -> Sketch:
    g = Sketch()
    model = _ours(g, g.unet("qwen_image_bf16.safetensors", "fp8_e4m3fn"))
    g.save(g.sample(model, g("CLIPLoader"), 8, 1.0), g("VAELoader"))
    return g


def quantized_twice() -> Sketch:
    g = Sketch()
    model = _ours(g, g("FoundryLoadBase", base_name="qwen_image_bf16.safetensors"))
    g("FoundrySaveModel", model=g("ModelSamplingAuraFlow", model=model, shift=3.1), filename_prefix="x")
    return g


def lora_after_quantize() -> Sketch:
    g = Sketch()
    model = _ours(g, g("FoundryLoadBase", base_name="qwen_image_bf16.safetensors"))
    g.save(g.sample(g.lora(model, "late.safetensors", 0.5), g("CLIPLoader"), 8, 1.0), g("VAELoader"))
    return g


def lora_on_fp8() -> Sketch:
    return qwen_lightning(dtype="fp8_e4m3fn")


def lora_merged_into_fp8() -> Sketch:
    return wan_wrapper("fp8_e4m3fn")


def two_accelerators() -> Sketch:
    g = Sketch()
    model = g.lora(g.lora(g.unet("qwen_image_bf16.safetensors"), LIGHTNING_8), LIGHTNING_4)
    g.save(g.sample(model, g("CLIPLoader"), 8, 1.0), g("VAELoader"))
    return g


def lightning_at_40_steps() -> Sketch:
    return qwen_lightning(LIGHTNING_4, 40, 4.0)


def lightning_at_8_of_4_steps() -> Sketch:
    return qwen_lightning(LIGHTNING_4, 8, 1.0)


def lightning_with_guidance() -> Sketch:
    g = Sketch()
    model = g.lora(g.unet("qwen_image_bf16.safetensors"), LIGHTNING_8)
    clip = g("CLIPLoader")
    g.save(_custom(g, model, 8, clip, "CFGGuider", cfg=4.0), g("VAELoader"))
    return g


def wan_half_with_lightning() -> Sketch:
    """Only the low noise half has its accelerator, and the schedule is that of the other half."""
    g = Sketch()
    high = g.unet("wan2.2_i2v_high_noise_14B_fp16.safetensors")
    low = g.lora(g.unet("wan2.2_i2v_low_noise_14B_fp16.safetensors"), LOW)
    g.save(g.half(low, 10, 20, 20, 3.5, g.half(high, 0, 10, 20, 3.5)), g("VAELoader"))
    return g


def fused_and_loaded_again() -> Sketch:
    g = Sketch()
    base = g("FoundryLoadBase", base_name="qwen_image_bf16.safetensors")
    fused = g("FoundryFuseBaseLoRA", model=base, lora_name=LIGHTNING_8, strength=1.0, rounding="once")
    model = g.lora(g("FoundryApply", model=fused, how="patches"), LIGHTNING_8)
    g.save(g.sample(model, g("CLIPLoader"), 8, 1.0), g("VAELoader"))
    return g


def adapter_left_in() -> Sketch:
    g = Sketch()
    model = g.lora(g.unet("z_image_turbo_bf16.safetensors"), "zimage_turbo_training_adapter_v1.safetensors")
    g.save(g.sample(g.lora(model, "me.safetensors", 0.9), g("CLIPLoader"), 8, 1.0), g("VAELoader"))
    return g


def damaged_list() -> Sketch:
    g = Sketch()
    base = g("FoundryLoadBase", base_name="qwen_image_bf16.safetensors")
    g("FoundryStackLoRAs", model=base, lora_stack=g("FoundryLoRAStack", loras='[{"path": "a", "wieght": 1}]'))
    return g


def named_fp8_before_stages() -> Sketch:
    g = Sketch()
    base = g("FoundryLoadBase", base_name="qwen_image_fp8_e4m3fn.safetensors")
    fused = g("FoundryFuseBaseLoRA", model=base, lora_name=LIGHTNING_8, strength=1.0, rounding="once")
    g("FoundrySaveModel", model=fused, format="float8_e4m3fn")
    return g


MISTAKEN = {
    native_lora_before_fusion: [("error", "LF101.lora_above")],
    stack_before_fusion: [("error", "LF101.stack_above")],
    fp8_before_stages: [("error", "LF201.before_stage")],
    quantized_twice: [("error", "LF201.before_stage")],
    lora_after_quantize: [("warning", "LF201.after_quantize")],
    lora_on_fp8: [("warning", "LF201.native")],
    lora_merged_into_fp8: [("warning", "LF201.native")],
    two_accelerators: [("question", "LF403.two")],
    lightning_at_40_steps: [("question", "LF403.sampling")],
    lightning_at_8_of_4_steps: [("question", "LF403.steps")],
    lightning_with_guidance: [("question", "LF403.cfg")],
    wan_half_with_lightning: [("question", "LF403.sampling")],
    fused_and_loaded_again: [("warning", "LF105.fused_and_stacked")],
    adapter_left_in: [("question", "LF106.adapter_guessed")],
    damaged_list: [("error", "")],
    named_fp8_before_stages: [("question", "LF201.named")],
}
