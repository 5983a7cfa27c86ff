"""Ordinary workflows by what they do and whose nodes do it: upscaling, control, loaders of other packs, switches.

Every function returns a prompt in API form.
"""

from __future__ import annotations

from sketches import LIGHTNING_4, LIGHTNING_8, Sketch


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
    """What lies in the two halves is no one stack: it is not judged, which is said; what comes after is."""
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
