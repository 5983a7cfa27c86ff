"""More ordinary workflows, of packs and families that ``community_graphs`` does not have: none may raise an alarm."""

from __future__ import annotations

from collections.abc import Callable

from sketches import LIGHTNING_8, Sketch


def flux_kontext() -> Sketch:
    g = Sketch()
    clip = g("DualCLIPLoader", clip_name1="clip_l.safetensors", clip_name2="t5xxl_fp16.safetensors", type="flux")
    model = g.lora(g.unet("flux1-kontext-dev.safetensors"), "kontext_relight.safetensors", 0.9)
    image = g("FluxKontextImageScale", image=g("ImageStitch", image1=g("LoadImage", image="a.png")))
    latent = g("VAEEncode", pixels=image, vae=g("VAELoader", vae_name="ae.safetensors"))
    reference = g("ReferenceLatent", conditioning=g.text(clip), latent=latent)
    guided = g("FluxGuidance", conditioning=reference, guidance=2.5)
    g.save(g.sample(model, clip, 20, 1.0, latent, positive=guided), g("VAELoader", vae_name="ae.safetensors"))
    return g


def chroma() -> Sketch:
    g = Sketch()
    model = g("ModelSamplingAuraFlow", model=g.unet("Chroma1-HD.safetensors"), shift=1.0)
    sigmas = g("BetaSamplingScheduler", model=model, steps=26, alpha=0.45, beta=0.45)
    guider = g("CFGGuider", model=g.lora(model, "chroma_painterly.safetensors", 0.7), cfg=3.8)
    g("SamplerCustomAdvanced", noise=g("RandomNoise", noise_seed=1), guider=guider, sampler=g("KSamplerSelect"),
      sigmas=sigmas, latent_image=g("EmptySD3LatentImage"))  # fmt: skip
    return g


def sd35_skip_layers() -> Sketch:
    g = Sketch()
    base = g("CheckpointLoaderSimple", ckpt_name="sd3.5_medium.safetensors")
    clip = g("TripleCLIPLoader", clip_name1="clip_g.safetensors", clip_name2="clip_l.safetensors", clip_name3="t5.sft")
    model = g.lora(g("ModelSamplingSD3", model=base, shift=3.0), "sd35m_photo.safetensors", 0.8)
    model = g("SkipLayerGuidanceSD3", model=model, layers="7, 8, 9", scale=3.0, start_percent=0.01, end_percent=0.15)
    g.save(g.sample(model, clip, 28, 5.0), base(2))
    return g


def hunyuan_video() -> Sketch:
    g = Sketch()
    model = g.lora(g.unet("hunyuan_video_t2v_720p_bf16.safetensors"), "hyvid_orbit.safetensors", 0.8)
    clip = g("DualCLIPLoader", clip_name1="clip_l.safetensors", clip_name2="llava_llama3.safetensors")
    sampling = g("ModelSamplingSD3", model=model, shift=7.0)
    guider = g("BasicGuider", model=sampling, conditioning=g("FluxGuidance", conditioning=g.text(clip), guidance=6.0))
    latent = g("EmptyHunyuanLatentVideo", width=848, height=480, length=73)
    out = g("SamplerCustomAdvanced", noise=g("RandomNoise", noise_seed=1), guider=guider, latent_image=latent,
            sampler=g("KSamplerSelect"), sigmas=g("BasicScheduler", model=sampling, steps=20, denoise=1.0))  # fmt: skip
    g("VAEDecodeTiled", samples=out, vae=g("VAELoader"))
    return g


def hunyuan_wrapper() -> Sketch:
    g = Sketch()
    loras = g("HyVideoLoraSelect", lora="hyvid_orbit.safetensors", strength=0.8)
    model = g("HyVideoModelLoader", model="hunyuan_video_720_fp8_e4m3fn.safetensors", base_precision="bf16", lora=loras,
              quantization="fp8_e4m3fn", compile_args=g("HyVideoTorchCompileSettings"))  # fmt: skip
    g("HyVideoSampler", model=model, hyvid_embeds=g("HyVideoTextEncode"), steps=30, embedded_guidance_scale=6.0)
    return g


def ltx_stg() -> Sketch:
    g = Sketch()
    base = g("CheckpointLoaderSimple", ckpt_name="ltx-video-2b-v0.9.5.safetensors")
    model = g("LTXVApplySTG", model=g.lora(base, "ltx_squish.safetensors", 1.0), block_indices="14, 19")
    conditioned = g("LTXVConditioning", positive=g.text(base(1)), negative=g.text(base(1)), frame_rate=25)
    guider = g("STGGuider", model=model, positive=conditioned, negative=conditioned(1), cfg=3.0, stg=1.0, rescale=0.7)
    g("SamplerCustomAdvanced", guider=guider, sigmas=g("LTXVScheduler", steps=30, max_shift=2.05, base_shift=0.95),
      noise=g("RandomNoise"), sampler=g("KSamplerSelect"), latent_image=g("EmptyLTXVLatentVideo"))  # fmt: skip
    return g


def wan_vace() -> Sketch:
    g = Sketch()
    vace = g("WanVideoVACEModelSelect", vace_model="Wan2_1-VACE_module_14B_bf16.safetensors")
    model = g("WanVideoModelLoader", model="Wan2_1-T2V-14B_fp16.safetensors", base_precision="fp16",
              quantization="disabled", vace_model=vace, block_swap_args=g("WanVideoBlockSwap"))  # fmt: skip
    embeds = g("WanVideoVACEEncode", vae=g("WanVideoVAELoader"), width=832, height=480)
    g("WanVideoSampler", model=model, image_embeds=embeds, steps=25, cfg=6.0, shift=8.0, denoise_strength=1.0)
    return g


def wan_vace_native() -> Sketch:
    g = Sketch()
    model = g.lora(g.unet("wan2.1_vace_14B_fp16.safetensors"), "wan_arcane_style.safetensors", 0.9)
    model = g("ModelSamplingSD3", model=g("UNetTemporalAttentionMultiply", model=model), shift=8.0)
    vace = g("WanVaceToVideo", positive=g.text(g("CLIPLoader")), vae=g("VAELoader"), strength=1.0)
    trimmed = g("TrimVideoLatent", samples=g.sample(model, g("CLIPLoader"), 20, 6.0, vace(2)), trim_amount=vace(3))
    g.save(trimmed, g("VAELoader"))
    return g


def animatediff_lcm() -> Sketch:
    """AnimateDiff's own accelerator: a motion module beside an LCM LoRA, at the steps and CFG of LCM."""
    g = Sketch()
    base = g("CheckpointLoaderSimple", ckpt_name="dreamshaper_8.safetensors")
    model = g.lora(base, "lcm-lora-sdv1-5.safetensors", 1.0, "LoraLoader", clip=base(1), strength_clip=1.0)
    motion = g("ADE_LoadAnimateDiffModel", model_name="AnimateLCM_sd15_t2v.ckpt")
    motion_lora = g("ADE_AnimateDiffLoRALoader", lora_name="v2_lora_ZoomIn.ckpt", strength=0.8)
    applied = g("ADE_ApplyAnimateDiffModelSimple", motion_model=motion, motion_lora=motion_lora)
    model_out = g("ADE_UseEvolvedSampling", model=model, m_models=applied, beta_schedule="lcm >> sqrt_linear")
    g.save(g.sample(model_out, model(1), 8, 1.5, sampler_name="lcm"), base(2))
    return g


def instant_id() -> Sketch:
    g = Sketch()
    base = g("CheckpointLoaderSimple", ckpt_name="albedobaseXL_v21.safetensors")
    model = g.lora(base, "film_grain_xl.safetensors", 0.4)
    applied = g("ApplyInstantID", instantid=g("InstantIDModelLoader", instantid_file="ip-adapter.bin"), model=model,
                insightface=g("InstantIDFaceAnalysis"), control_net=g("ControlNetLoader"), positive=g.text(base(1)),
                image=g("LoadImage", image="me.png"), weight=0.8)  # fmt: skip
    g.save(g.sample(applied, base(1), 30, 4.5, positive=applied(1), negative=applied(2)), base(2))
    return g


def regional() -> Sketch:
    """A LoRA for each region, as hooks on the conditioning: no LoRA on the model."""
    g = Sketch()
    base = g("CheckpointLoaderSimple", ckpt_name="sd_xl_base_1.0.safetensors")
    hook = g("CreateHookLora", lora_name="pixel-art-xl.safetensors", strength_model=1.0, strength_clip=1.0)
    other = g("CreateHookLora", lora_name="lcm-lora-sdxl.safetensors", strength_model=0.3, strength_clip=1.0)
    clip = g("SetClipHooks", clip=base(1), hooks=g("CombineHooks2", hooks_A=hook, hooks_B=other))
    masked = g("PairConditioningSetProperties", positive_NEW=g.text(clip), negative_NEW=g.text(clip), hooks=hook)
    g.save(g.sample(base, base(1), 30, 6.5, positive=masked, negative=masked(1)), base(2))
    return g


def regional_attention() -> Sketch:
    g = Sketch()
    base = g("CheckpointLoaderSimple", ckpt_name="dreamshaper_8.safetensors")
    region = g("AttentionCouple|cgem156", model=base, base_mask=g("SolidMask"), cond_1=g.text(base(1)))
    g.save(g.sample(region, base(1), 25, 7.0), base(2))
    return g


def detailer_pipe() -> Sketch:
    """Impact's detailer with a model of its own in a pipe, at its own steps."""
    g = Sketch()
    base = g("CheckpointLoaderSimple", ckpt_name="ponyDiffusionV6XL.safetensors")
    model = g.lora(base, "dmd2_sdxl_4step_lora_fp16.safetensors", 1.0)
    latent = g.sample(model, base(1), 4, 1.0, sampler_name="lcm")
    pipe = g("ToDetailerPipe", model=base, clip=base(1), vae=base(2), positive=g.text(base(1)),
             bbox_detector=g("UltralyticsDetectorProvider", model_name="bbox/face_yolov8m.pt"), wildcard="",
             **{"Select to add LoRA": "Select the LoRA to add to the text"})  # fmt: skip
    g("FaceDetailerPipe", image=g("VAEDecode", samples=latent, vae=base(2)), detailer_pipe=pipe, steps=20, cfg=7.0,
      denoise=0.4, guide_size=512)  # fmt: skip
    return g


def ultimate_upscale_lightning() -> Sketch:
    g = Sketch()
    base = g("CheckpointLoaderSimple", ckpt_name="juggernautXL_lightning.safetensors")
    image = g("VAEDecode", samples=g.sample(base, base(1), 6, 2.0), vae=base(2))
    g("UltimateSDUpscale", image=image, model=base, positive=g.text(base(1)), upscale_by=2.0, steps=6, cfg=2.0,
      denoise=0.25, upscale_model=g("UpscaleModelLoader", model_name="4x-UltraSharp.pth"))  # fmt: skip
    return g


def flux_krea() -> Sketch:
    g = Sketch()
    clip = g("DualCLIPLoader", clip_name1="clip_l.safetensors", clip_name2="t5xxl_fp16.safetensors", type="flux")
    model = g.lora(g.unet("flux1-krea-dev_bf16.safetensors"), "krea_film.safetensors", 0.7)
    model = g("PathchSageAttentionKJ", model=model, sage_attention="auto")
    g.save(g.sample(model, clip, 20, 1.0), g("VAELoader", vae_name="ae.safetensors"))
    return g


def block_weights() -> Sketch:
    """Inspire's LoRA by blocks: the list of block weights is no list of LoRAs."""
    g = Sketch()
    base = g("CheckpointLoaderSimple", ckpt_name="sd_xl_base_1.0.safetensors")
    model = g("LoraLoaderBlockWeight //Inspire", model=base, clip=base(1), category_filter="All",
              lora_name="pixel-art-xl.safetensors", strength_model=0.9, strength_clip=0.9, inverse=False, seed=0, A=4.0,
              B=1.0, preset="Preset", block_vector="1,0,0,0,1,1,1,1,1,1,1,1", bypass=False)  # fmt: skip
    g.save(g.sample(model, model(1), 28, 6.0), base(2))
    return g


def caches_and_compile() -> Sketch:
    g = Sketch()
    model = g.lora(g.unet("flux1-dev.safetensors"), "flux_realism_lora.safetensors", 0.8)
    model = g("TeaCache", model=model, model_type="flux", rel_l1_thresh=0.4, start_percent=0.0, end_percent=1.0)
    model = g("TorchCompileModelFluxAdvanced", model=g("ApplyFBCacheOnModel", model=model), backend="inductor")
    g.save(g.sample(model, g("DualCLIPLoader"), 25, 1.0), g("VAELoader"))
    return g


def prompt_tags() -> Sketch:
    """Tags in a prompt: only nodes that read them load anything; a plain text encoder does not."""
    g = Sketch()
    base = g("CheckpointLoaderSimple", ckpt_name="sd_xl_base_1.0.safetensors")
    text = "a lighthouse <lora:lcm-lora-sdxl:1> <lora:sdxl_lightning_4step_lora:1>"
    plain = g("CLIPTextEncode", text=text, clip=base(1))
    g.save(g.sample(base, base(1), 30, 7.0, positive=plain), base(2))
    return g


def wildcards() -> Sketch:
    g = Sketch()
    base = g("CheckpointLoaderSimple", ckpt_name="sd_xl_base_1.0.safetensors")
    model = g("ImpactWildcardEncode", model=base, clip=base(1), wildcard_text="", mode="populate", seed=1,
              populated_text="a lighthouse <lora:pixel-art-xl:0.8>",
              **{"Select to add LoRA": "Select the LoRA to add to the text"})  # fmt: skip
    g.save(g.sample(model, model(1), 28, 6.0, positive=model(2)), base(2))
    return g


def merge_by_blocks() -> Sketch:
    g = Sketch()
    first, second = (g("CheckpointLoaderSimple", ckpt_name=f"{name}.safetensors") for name in ("a", "b"))
    turbo = g("ModelMergeSubtract", model1=g.unet("sdxl_turbo.safetensors"), model2=first, multiplier=1.0)
    merged = g("ModelMergeAdd", model1=g("ModelMergeSDXL", model1=first, model2=second), model2=turbo)
    g.save(g.sample(merged, first(1), 4, 1.0), first(2))
    return g


def sdxl_turbo() -> Sketch:
    g = Sketch()
    base = g("CheckpointLoaderSimple", ckpt_name="sd_xl_turbo_1.0_fp16.safetensors")
    g("SamplerCustom", model=base, add_noise=True, noise_seed=1, cfg=1.0, positive=g.text(base(1)),
      sampler=g("KSamplerSelect"), sigmas=g("SDTurboScheduler", model=base, steps=1, denoise=1.0),
      latent_image=g("EmptyLatentImage"))  # fmt: skip
    return g


def xy_plot() -> Sketch:
    """Efficiency's plot tries several steps: the loader's LoRA is sampled in many ways, none of them the only one."""
    g = Sketch()
    base = g("Efficient Loader", ckpt_name="dreamshaper_8.safetensors", lora_name="None", lora_model_strength=1.0)
    plot = g("XY Plot", dependencies=base(7), X=g("XY Input: Steps", batch_count=3, first_step=10, last_step=30))
    g("KSampler (Efficient)", model=base, seed=1, steps=20, cfg=7.0, denoise=1.0, script=plot)
    return g


def sequences() -> Sketch:
    """Two halves in one model by steps: whatever comes out of an unknown node is that node's business."""
    g = Sketch()
    model = g("SomeSchedule", a=g.lora(g.unet("qwen_image_bf16.safetensors"), LIGHTNING_8), b=g.unet("other.sft"))
    g.save(g.sample(model, g("CLIPLoader"), 30, 4.0), g("VAELoader"))
    return g


PACKS: dict[str, Callable[[], Sketch]] = {
    function.__name__: function
    for function in (
        flux_kontext, chroma, sd35_skip_layers, hunyuan_video, ltx_stg, wan_vace, wan_vace_native,
        animatediff_lcm, instant_id, regional_attention, detailer_pipe, ultimate_upscale_lightning, flux_krea,
        block_weights, caches_and_compile, prompt_tags, wildcards, merge_by_blocks, sdxl_turbo, xy_plot,
    )
}  # fmt: skip
# Where LoRAs are not followed, or lose something: function -> (severity, text) of each finding.
TOLD: dict[Callable[[], Sketch], list[tuple[str, str]]] = {
    hunyuan_wrapper: [("warning", "LF201.native")],  # the wrapper casts to fp8 first and patches then
    regional: [("note", "LF108.lost")],  # hooks change a model for some conditionings only
    sequences: [("note", "LF108.lost")],
}
