"""Names for ``widgets_values``: a saved workflow often holds the values of a node's widgets without their names.

Since frontend 1.16 every widget has a socket that names it, but "Export" and pictures drop the sockets nothing is wired
to. So the nodes whose values are read here are listed with their widgets, in the order the classes declare them and
as far as all versions agree: a list may be shorter or longer than the values.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from .node_kinds import FUN_LOADERS, LOADERS

Named = tuple[dict[str, Any], tuple[Any, ...]]  # values by name, values nobody has a name for

# What the frontend puts behind a seed without the class knowing it: "control after generate".
SEED, CONTROLS = "seed", ("fixed", "increment", "decrement", "randomize")
ROWS = (
    "Power Lora Loader (rgthree)",
    "PowerLoraLoaderV2",
    "WanVideoPowerLoraLoader",
)  # widgets are rows {"on", "lora", "strength"}, sent as lora_1, lora_2, ...


# Of the samplers of VideoX-Fun, what follows steps and CFG.
_FUN = "scheduler shift teacache_threshold enable_teacache num_skip_start_steps teacache_offload cfg_skip_ratio"


def _numbered(names: str, count: int, style: str = "{}_{}", first: int = 1) -> tuple[str, ...]:
    return tuple(style.format(name, number) for number in range(first, count + first) for name in names.split())


def _easy_rows(rows: int) -> tuple[str, ...]:
    parts = ("name", "strength", "model_strength", "clip_strength")
    return ("toggle", "mode", "num_loras", *(f"lora_{row}_{part}" for row in range(1, rows + 1) for part in parts))


_NATIVE = {
    # loaders
    "CheckpointLoader": "config_name ckpt_name",
    "CheckpointLoaderSimple": "ckpt_name",
    "DiffusersLoader": "model_path",
    "ImageOnlyCheckpointLoader": "ckpt_name",
    "UNETLoader": "unet_name weight_dtype",
    "unCLIPCheckpointLoader": "ckpt_name",
    # LoRAs
    "CreateHookLora": "lora_name strength_model strength_clip",
    "CreateHookLoraModelOnly": "lora_name strength_model",
    "LoraLoader": "lora_name strength_model strength_clip",
    "LoraLoaderBypass": "lora_name strength_model strength_clip",
    "LoraLoaderBypassModelOnly": "lora_name strength_model",
    "LoraLoaderModelOnly": "lora_name strength_model",
    # sampling
    "AlignYourStepsScheduler": "model_type steps denoise",
    "BasicScheduler": "scheduler steps denoise",
    "BetaSamplingScheduler": "steps alpha beta",
    "CFGGuider": "cfg",
    "DualCFGGuider": "cfg_conds cfg_cond2_negative style",
    "ExponentialScheduler": "steps sigma_max sigma_min",
    "Flux2Scheduler": "steps width height",
    "GITSScheduler": "coeff steps denoise",
    "KarrasScheduler": "steps sigma_max sigma_min rho",
    "KSampler": "seed steps cfg sampler_name scheduler denoise",
    "KSamplerAdvanced": "add_noise noise_seed steps cfg sampler_name scheduler start_at_step end_at_step"
    " return_with_leftover_noise",
    "LaplaceScheduler": "steps sigma_max sigma_min mu beta",
    "LTXVScheduler": "steps max_shift base_shift stretch terminal",
    "OptimalStepsScheduler": "model_type steps denoise",
    "PerpNegGuider": "cfg neg_scale",
    "PolyexponentialScheduler": "steps sigma_max sigma_min rho",
    "SamplerCustom": "add_noise noise_seed cfg",
    "SDTurboScheduler": "steps denoise",
    "ManualSigmas": "sigmas",
    "DualModelGuider": "cfg",
    "VPScheduler": "steps beta_d beta_min eps_s",
    # one value for whatever is wired to it
    "ComfySwitchNode": "switch",
    "PrimitiveBoolean": "value",
    "PrimitiveFloat": "value",
    "PrimitiveInt": "value",
    "PrimitiveString": "value",
    "PrimitiveStringMultiline": "value",
}
_OURS = {
    "FoundryFuseBaseLoRA": "lora_name strength rounding allow_partial",
    "FoundryLoadBase": "base_name on_quantized_base no_mmap",
    "FoundryLoadCheckpoint": "ckpt_name on_quantized_base no_mmap",
    "FoundryLoRA": "lora_name strength_model strength_clip enabled blocks",
    "FoundryLoRAStack": "loras",
    "FoundryQuantizeFP8": "format matmul keep_high_precision max_error memory keep reproducible calibration "
    "pre_quant_scale",
    "FoundryStackValidator": "policy strict",
}
_OTHER_PACKS = {
    "CheckpointLoader|pysssss": "ckpt_name",
    "CheckpointLoaderNF4": "ckpt_name",
    "CR Load LoRA": "switch lora_name strength_model strength_clip",
    "MiniMaxH3TurboLoRA": "lora_name strength low_vram",
    "DiffusionModelLoaderKJ": "model_name weight_dtype",
    "ClownsharKSampler_Beta": "eta sampler_name scheduler steps steps_to_run denoise cfg seed sampler_mode bongmath",
    "ClownsharkChainsampler_Beta": "eta sampler_name steps_to_run cfg sampler_mode bongmath",
    "SharkChainsampler_Beta": "steps_to_run cfg sampler_mode",
    "SharkSampler_Beta": "scheduler steps steps_to_run denoise cfg seed sampler_mode",
    "Efficient Loader": "ckpt_name vae_name clip_skip lora_name lora_model_strength lora_clip_strength",
    "HyVideoLoraSelect": "lora strength",
    "HyVideoSampler": "width height num_frames steps embedded_guidance_scale flow_shift seed",
    "HyVideoModelLoader": "model base_precision quantization load_device attention_mode",
    "KSamplerAdvancedProvider": "cfg sampler_name scheduler",
    "KSamplerProvider": "seed steps cfg sampler_name scheduler denoise",
    "LanPaint_KSampler": "seed steps cfg sampler_name scheduler denoise",
    "LanPaint_KSamplerAdvanced": "add_noise noise_seed steps cfg sampler_name scheduler start_at_step end_at_step",
    "LanPaint_SamplerCustom": "add_noise noise_seed cfg",
    "LowVRAMCheckpointLoader": "ckpt_name",
    "LTXICLoRALoaderModelOnly": "lora_name strength_model",
    "LTXVQ8LoraModelLoader": "lora_name strength_model",
    "LoraLoader|pysssss": "lora_name strength_model strength_clip",
    "NunchakuFluxDiTLoader": "model_path",
    "NunchakuFluxLoraLoader": "lora_name lora_strength",
    "NunchakuQwenImageDiTLoader": "model_name",
    "UltimateSDUpscale": "upscale_by seed steps cfg sampler_name scheduler denoise",
    "UnetLoaderGGUF": "unet_name",
    "UnetLoaderGGUFAdvanced": "unet_name dequant_dtype patch_dtype patch_on_device",
    "STGGuiderNode": "cfg stg rescale",
    "APGGuider": "cfg_scale eta norm_threshold momentum_coefficient",
    "WanMoeKSampler": "boundary seed steps cfg_high_noise cfg_low_noise sampler_name scheduler sigma_shift",
    "WanMoeKSamplerAdvanced": "boundary add_noise noise_seed steps cfg_high_noise cfg_low_noise sampler_name scheduler",
    "TripleKSamplerWan22Lightning": "seed sigma_shift base_cfg lightning_start lightning_steps sampler_name scheduler",
    "TripleKSamplerWan22LightningAdvanced": "seed sigma_shift base_quality_threshold base_steps base_cfg base_sampler "
    "base_scheduler lightning_start lightning_steps lightning_cfg lightning_sampler lightning_scheduler",
    "TripleWVSamplerAdvanced": "seed sigma_shift base_quality_threshold base_steps base_cfg base_scheduler "
    "lightning_start lightning_steps lightning_cfg lightning_scheduler",
    "WanVideoSamplerv2": "cfg seed force_offload",
    "WanVideoSamplerSettings": "steps cfg shift seed force_offload scheduler riflex_freq_index denoise_strength",
    "WanVideoScheduler": "scheduler steps shift start_step end_step",
    "WanVideoSchedulerv2": "scheduler steps shift start_step end_step",
    "WanVideoLoraSelect": "lora strength low_mem_load merge_loras",
    "WanVideoModelLoader": "model base_precision quantization load_device attention_mode",
    "WanVideoSampler": "steps cfg shift seed force_offload scheduler riflex_freq_index denoise_strength",
    # switches, and holders of one value
    "CR Model Input Switch": "Input",
    "ImpactConditionalBranch": "cond",
    "ImpactSwitch": "select",
    "InversionDemoLazySwitch": "switch",
    "LazySwitchKJ": "switch",
    "easy anythingIndexSwitch": "index",
    **dict.fromkeys(("Switch any [Crystools]", "Switch model [Crystools]", "easy ifElse"), "boolean"),
    **dict.fromkeys(
        ("BOOLConstant", "FloatConstant", "INTConstant", "easy boolean", "easy float", "easy int"), "value"
    ),
    # Easy-Use
    "easy a1111Loader": "ckpt_name vae_name clip_skip lora_name lora_model_strength lora_clip_strength",
    "easy cascadeLoader": "stage_c stage_b stage_a clip_name lora_name lora_model_strength lora_clip_strength",
    "easy comfyLoader": "ckpt_name vae_name clip_skip lora_name lora_model_strength lora_clip_strength",
    "easy fluxLoader": "ckpt_name vae_name lora_name lora_model_strength lora_clip_strength",
    "easy fullLoader": "ckpt_name config_name vae_name clip_skip lora_name lora_model_strength lora_clip_strength",
    "easy fullkSampler": "steps cfg sampler_name scheduler denoise",
    "easy hunyuanDiTLoader": "ckpt_name vae_name lora_name lora_model_strength lora_clip_strength",
    "easy kolorsLoader": "unet_name vae_name chatglm3_name lora_name lora_model_strength lora_clip_strength",
    "easy preSampling": "steps cfg sampler_name scheduler denoise",
    "easy preSamplingAdvanced": "steps cfg sampler_name scheduler start_at_step end_at_step add_noise",
    "easy preSamplingNoiseIn": "factor steps cfg sampler_name scheduler denoise",
    # VideoX-Fun
    "CogVideoXFunInpaintSampler": "video_length base_resolution seed steps cfg scheduler",
    "CogVideoXFunT2VSampler": "video_length width height is_image seed steps cfg scheduler",
    "CogVideoXFunV2VSampler": "video_length base_resolution seed steps cfg denoise_strength scheduler",
    **dict.fromkeys(("Flux2ControlSampler", "Flux2T2ISampler"), "width height seed steps cfg scheduler shift"),
    **dict.fromkeys(("ZImageControlSampler", "ZImageT2ISampler"), "width height seed steps cfg scheduler shift"),
    **dict.fromkeys(
        ("QwenImageControlSampler", "QwenImageEditPlusSampler", "QwenImageEditSampler", "QwenImageT2VSampler"),
        f"width height seed steps cfg {_FUN}",
    ),
    **dict.fromkeys(("WanFunT2VSampler", "WanT2VSampler"), f"video_length width height is_image seed steps cfg {_FUN}"),
    **dict.fromkeys(
        ("Wan2_2FunT2VSampler", "Wan2_2T2VSampler"), "video_length width height is_image seed steps cfg scheduler shift"
    ),
    **dict.fromkeys(("WanFunInpaintSampler", "WanI2VSampler"), f"video_length base_resolution seed steps cfg {_FUN}"),
    **dict.fromkeys(
        ("Wan2_2FunInpaintSampler", "Wan2_2I2VSampler", "Wan2_2VaceFunSampler"),
        "video_length base_resolution seed steps cfg scheduler shift boundary",
    ),
    **dict.fromkeys(
        ("Wan2_2FunV2VSampler", "WanFunV2VSampler"),
        "video_length base_resolution seed steps cfg denoise_strength scheduler shift",
    ),
    **dict.fromkeys(FUN_LOADERS, "model"),
    "LoadCogVideoXFunModel": "model model_type GPU_memory_mode precision",
    **dict.fromkeys(("LoadWanFunModel", "LoadWan2_2FunModel"), "model model_type GPU_memory_mode config precision"),
    **dict.fromkeys(
        ("LoadWanModel", "LoadWan2_2Model", "LoadWan2_2VaceFunModel"), "model GPU_memory_mode config precision"
    ),
    **dict.fromkeys(("LoadFlux2Model", "LoadQwenImageModel", "LoadZImageModel"), "model GPU_memory_mode precision"),
    **dict.fromkeys(
        (
            "LoadCogVideoXFunLora",
            "LoadFlux2Lora",
            "LoadQwenImageLora",
            "LoadZImageLora",
            "LoadWanLora",
            "LoadWanFunLora",
        ),
        "lora_name strength_model lora_cache",
    ),
    **dict.fromkeys(("LoadWan2_2Lora", "LoadWan2_2FunLora"), "lora_name lora_high_name strength_model lora_cache"),
}


ORDERS: Mapping[str, tuple[str, ...]] = {
    **{kind: (loader.name,) for kind, loader in LOADERS.items()},  # of those that are not below the first is the file
    **{kind: tuple(names.split()) for kind, names in {**_NATIVE, **_OURS, **_OTHER_PACKS}.items()},
    "CR LoRA Stack": _numbered("switch lora_name model_weight clip_weight", 3),
    "Lora Loader Stack (rgthree)": _numbered("lora strength", 4, "{}_0{}"),
    "WanVideoLoraSelectMulti": (
        *_numbered("lora strength", 5, "{}_{}", 0),
        *("low_mem_load", "merge_loras"),
    ),
    "easy loraStack": _easy_rows(10),
    "ttN pipeLoraStack": _easy_rows(20),
    "easy loraSwitcher": (
        *("toggle", "select", "num_loras", "lora_strength"),
        *(f"lora_{row}_name" for row in range(1, 51)),
    ),
    "LoRAStackDynamic": (
        *("settings_visibility", "input_mode", "lora_count"),
        *_numbered("lora_name lora_name_text strength model_strength clip_strength conflict_mode key_filter", 10),
    ),
    "LoRA Stacker": ("input_mode", "lora_count", *_numbered("lora_name lora_wt model_str clip_str", 49)),
}


def named_values(kind: str, sockets: Sequence[str], saved: object) -> Named:
    """``widgets_values`` of a node by name, and the values without a name.

    ``sockets`` are the names of the widget sockets the file kept. ``saved`` is the list of values, or their mapping
    where a pack stores them by name; anything else is no values.
    """
    if isinstance(saved, Mapping):
        return {str(name): value for name, value in saved.items()}, ()
    if not isinstance(saved, list):
        return {}, ()
    if kind in ROWS:
        rows = [row for row in saved if isinstance(row, Mapping) and "lora" in row]
        return {f"lora_{number}": row for number, row in enumerate(rows, 1)}, ()
    values, rest, complete = _paired(sockets, saved)
    if sockets and complete:
        return values, rest
    values, rest, _ = _paired(ORDERS.get(kind, ()), saved)
    return values, rest


def _paired(names: Sequence[str], values: list[Any]) -> tuple[dict[str, Any], tuple[Any, ...], bool]:
    """Values by name, the rest, and whether names and values came out even."""
    found: dict[str, Any] = {}
    left = deque(values)
    for name in names:
        if not left:
            break
        found[name] = left.popleft()
        if SEED in name and left and left[0] in CONTROLS:
            left.popleft()
    return found, tuple(left), not left and len(found) == len(names)
