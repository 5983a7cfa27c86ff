"""Which node does what to a model, as tables: one row a kind of node, facts about ComfyUI and other packs, no code.

A kind that is in no table is judged by its inputs: one with a model input passes the model on, one that is called a
LoRA loader and names a LoRA applies it, one with ``cfg`` and ``steps`` samples. What is not understood stays silent.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

FUSE_NODE, STACK_NODE, VALIDATOR_NODE = "FoundryFuseBaseLoRA", "FoundryStackLoRAs", "FoundryStackValidator"
QUANTIZE_NODE, APPLY_NODE, SAVE_NODE = "FoundryQuantizeFP8", "FoundryApply", "FoundrySaveModel"
LIST_ENDS = ("FoundryMergeLoRAs", "FoundryLoRAConflicts")  # a list of LoRAs is used up there, without a model
EXTRACT_NODE = "FoundryExtractLoRA"
STAGES = {  # our stages, and what is missing without one
    FUSE_NODE: "its base LoRA is not fused",
    STACK_NODE: "its LoRAs are not applied",
    VALIDATOR_NODE: "nothing is checked there",
    QUANTIZE_NODE: "the model is not quantized",
    APPLY_NODE: "its plan is not made into a MODEL",
    SAVE_NODE: "nothing is saved",
}
OUR_LOADERS = ("FoundryLoadBase", "FoundryLoadCheckpoint")
GGUF = "GGUF"
LORAS, MODELS, CHECKPOINTS = "loras", "diffusion_models", "checkpoints"  # folders, as ComfyUI names them


@dataclass(frozen=True)
class Loader:
    """A node that brings a model in. ``name`` is its file's input, ``folders`` where files of that name lie.

    ``dtype`` is the input that may ask for 8 bits; ``quantized`` how everything it loads is stored. ``beside``: LoRAs
    stay apart from its quantized weights, so they lose nothing there; ``scaled_beside``: from scaled fp8 and GGUF only.
    """

    name: str
    folders: tuple[str, ...] = ()
    dtype: str = ""
    quantized: str = ""
    beside: bool = False
    scaled_beside: bool = False


@dataclass(frozen=True)
class Sampler:
    """A node that samples: the inputs that say steps and CFG, and how much noise it starts from.

    A schedule wired in comes before its own steps. ``cfgs``, and ``lengths`` where the steps differ too, are those of a
    node with several models, as ``PAIRS`` has them.
    """

    steps: str = "steps"
    cfg: str = "cfg"
    denoise: str = "denoise"
    cfgs: tuple[str, ...] = ()
    lengths: tuple[str, ...] = ()


@dataclass(frozen=True)
class Switch:
    """A node that hands one of several things on, those whose inputs fit ``inputs``.

    ``selector`` is the input that says which, by number (``{}``) or as (false, true). Without one the first wired in
    is taken.
    """

    inputs: str
    selector: str = ""
    chosen: str | tuple[str, str] = ""


FUN_LOADERS = (  # of VideoX-Fun: they load a folder of models, in the form of its own
    *("LoadCogVideoXFunModel", "LoadFlux2Model", "LoadQwenImageModel", "LoadZImageModel", "LoadWanModel"),
    *("LoadWanFunModel", "LoadWan2_2Model", "LoadWan2_2FunModel", "LoadWan2_2VaceFunModel"),
)
LOADERS = {
    "FoundryLoadBase": Loader("base_name", (MODELS, CHECKPOINTS)),
    "FoundryLoadCheckpoint": Loader("ckpt_name", (CHECKPOINTS,)),
    "UNETLoader": Loader("unet_name", (MODELS,), dtype="weight_dtype"),
    "CheckpointLoaderSimple": Loader("ckpt_name", (CHECKPOINTS,)),
    "CheckpointLoader": Loader("ckpt_name", (CHECKPOINTS,)),
    "CheckpointLoader|pysssss": Loader("ckpt_name", (CHECKPOINTS,)),
    "CheckpointLoaderNF4": Loader("ckpt_name", quantized="NF4"),
    "unCLIPCheckpointLoader": Loader("ckpt_name", (CHECKPOINTS,)),
    "ImageOnlyCheckpointLoader": Loader("ckpt_name", (CHECKPOINTS,)),
    "DiffusersLoader": Loader("model_path"),
    "DiffusionModelLoaderKJ": Loader("model_name", (MODELS,), dtype="weight_dtype"),
    "UnetLoaderGGUF": Loader("unet_name", quantized=GGUF, beside=True),
    "UnetLoaderGGUFAdvanced": Loader("unet_name", quantized=GGUF, beside=True),
    "UnetLoaderGGUFDisTorchMultiGPU": Loader("unet_name", quantized=GGUF, beside=True),
    "LoaderGGUF": Loader("gguf_name", quantized=GGUF, beside=True),
    "NunchakuFluxDiTLoader": Loader("model_path", quantized="Nunchaku 4-bit", beside=True),
    "NunchakuQwenImageDiTLoader": Loader("model_name", quantized="Nunchaku 4-bit", beside=True),
    "NunchakuZImageDiTLoader": Loader("model_name", quantized="Nunchaku 4-bit", beside=True),
    "WanVideoModelLoader": Loader("model", (MODELS,), dtype="quantization", scaled_beside=True),
    "HyVideoModelLoader": Loader("model", (MODELS,), dtype="quantization"),
    **dict.fromkeys(FUN_LOADERS, Loader("model", dtype="GPU_memory_mode")),
    "LowVRAMCheckpointLoader": Loader("ckpt_name", (CHECKPOINTS,)),
    "Efficient Loader": Loader("ckpt_name", (CHECKPOINTS,)),
    "Eff. Loader SDXL": Loader("base_ckpt_name", (CHECKPOINTS,)),
    "easy fullLoader": Loader("ckpt_name", (CHECKPOINTS,)),
    "easy a1111Loader": Loader("ckpt_name", (CHECKPOINTS,)),
    "easy comfyLoader": Loader("ckpt_name", (CHECKPOINTS,)),
    "easy fluxLoader": Loader("ckpt_name", (CHECKPOINTS,)),
    "easy hunyuanDiTLoader": Loader("ckpt_name", (CHECKPOINTS,)),
    "easy pixArtLoader": Loader("ckpt_name", (CHECKPOINTS,)),
    "easy kolorsLoader": Loader("unet_name", (MODELS,)),
    "easy cascadeLoader": Loader("stage_c"),
    "Checkpoint Loader (LoraManager)": Loader("ckpt_name", (CHECKPOINTS,)),
    "Unet Loader (LoraManager)": Loader("unet_name", (MODELS,), dtype="weight_dtype"),
}
UNKNOWN_LOADER = Loader("", dtype="weight_dtype")
# What loaders that are in no table call their file.
FILE_INPUTS = ("unet_name", "ckpt_name", "model_name", "base_name", "diffusion_model", "model_path", "model")

EASY_SAMPLERS = (
    *("easy kSamplerCustom", "easy kSamplerTiled", "easy kSamplerLayerDiffusion", "easy kSamplerDownscaleUnet"),
    *("easy kSamplerInpainting", "easy kSamplerSDTurbo", "easy fullCascadeKSampler", "easy cascadeKSampler"),
)
LTX_SAMPLERS = (  # they sample piece by piece, with the guider and the schedule wired in
    *("LTXVBaseSampler", "LTXVExtendSampler", "LTXVInContextSampler", "LTXVLoopingSampler"),
    *("LTXVAVLoopingSampler", "LTXVNormalizingSampler", "LTXVTiledSampler"),
)
FUN_V2V = ("CogVideoXFunV2VSampler", "WanFunV2VSampler", "Wan2_2FunV2VSampler")  # its other samplers: steps and cfg
TRIPLES = (  # Wan 2.2: the high-noise model twice, as it is and distilled, then the low-noise one
    *("TripleKSamplerWan22Lightning", "TripleKSamplerWan22LightningAdvanced"),
    *("TripleWVSampler", "TripleWVSamplerAdvanced"),
)
PAIRS: dict[
    str, tuple[str, ...]
] = {  # nodes with several models: the inputs they come in by, as the outputs they leave
    "PowerLoraLoaderV2": ("model", "model_low"),
    "WanMoeKSampler": ("model_high_noise", "model_low_noise"),
    "WanMoeKSamplerAdvanced": ("model_high_noise", "model_low_noise"),
    "WanVideoPowerLoraLoader": ("prev_lora", ""),
    **dict.fromkeys(TRIPLES, ("base_high", "lightning_high", "lightning_low")),
}
SAMPLERS = {
    "KSampler": Sampler(),
    "KSamplerAdvanced": Sampler(denoise=""),  # its steps are those of the whole schedule, whatever part it does
    "SamplerCustom": Sampler(steps="", denoise=""),
    "SamplerCustomAdvanced": Sampler(steps="", cfg="", denoise=""),
    "KSampler (Efficient)": Sampler(),
    "KSampler Adv. (Efficient)": Sampler(denoise=""),
    "KSampler SDXL (Eff.)": Sampler(denoise=""),
    "KSampler //Inspire": Sampler(),
    "ImpactKSamplerBasicPipe": Sampler(),
    "FaceDetailer": Sampler(),
    **dict.fromkeys(("DetailerForEach", "DetailerForEachDebug", "DetailerForEachAutoRetry"), Sampler()),
    "KSamplerProvider": Sampler(),
    "KSamplerAdvancedProvider": Sampler(steps="", denoise=""),  # whoever takes it says the steps
    "UltimateSDUpscale": Sampler(),
    "UltimateSDUpscaleNoUpscale": Sampler(),
    "easy kSampler": Sampler(),
    "easy fullkSampler": Sampler(),
    **dict.fromkeys(EASY_SAMPLERS, Sampler()),
    "WanVideoSampler": Sampler(denoise="denoise_strength"),
    "WanVideoSamplerv2": Sampler(steps="", denoise=""),
    "WanVideoSamplerSettings": Sampler(denoise="denoise_strength"),
    "WanVideoDiffusionForcingSampler": Sampler(denoise="denoise_strength"),
    "WanMoeKSampler": Sampler(cfgs=("cfg_high_noise", "cfg_low_noise")),
    "WanMoeKSamplerAdvanced": Sampler(denoise="", cfgs=("cfg_high_noise", "cfg_low_noise")),
    **dict.fromkeys(
        TRIPLES,
        Sampler(
            denoise="",
            cfgs=("base_cfg", "lightning_cfg", "lightning_cfg"),
            lengths=("", "lightning_steps", "lightning_steps"),
        ),
    ),
    "ClownsharKSampler_Beta": Sampler(),
    "SharkSampler_Beta": Sampler(),
    "ClownsharkChainsampler_Beta": Sampler(steps="", denoise=""),  # it goes on with the schedule of the one before
    "SharkChainsampler_Beta": Sampler(steps="", denoise=""),
    "LanPaint_KSampler": Sampler(),
    "LanPaint_KSamplerAdvanced": Sampler(denoise=""),
    "LanPaint_SamplerCustom": Sampler(steps="", denoise=""),
    "LanPaint_SamplerCustomAdvanced": Sampler(steps="", cfg="", denoise=""),
    **dict.fromkeys(LTX_SAMPLERS, Sampler(steps="", cfg="", denoise="")),
    **dict.fromkeys(FUN_V2V, Sampler(denoise="denoise_strength")),
    "HyVideoSampler": Sampler(cfg="", denoise="denoise_strength"),  # its guidance is the one that is distilled in
}
PRE_SAMPLERS = (  # settings in a pipe
    *("easy preSampling", "easy preSamplingAdvanced", "easy preSamplingDynamicCFG", "easy preSamplingNoiseIn"),
    *("easy preSamplingCustom", "easy preSamplingSdTurbo", "easy preSamplingCascade", "easy preSamplingLayerDiffusion"),
)
GUIDERS: dict[str, str | float] = {  # what they guide with: an input, or a number where they know no negative
    "BasicGuider": 1.0,
    "CFGGuider": "cfg",
    "DualCFGGuider": "cfg_conds",
    "PerpNegGuider": "cfg",
    "APGGuider": "cfg_scale",
}
SCHEDULES = ("sigmas", "scheduler")  # the inputs a schedule is wired in by
SCHEDULERS = ("BasicScheduler", "SDTurboScheduler")  # they ask a model for its noise levels alone
SCHEDULE_EDITORS = ("ExtendIntermediateSigmas",)  # their ``steps`` are not those of the schedule
SAVERS = ("CheckpointSave", "ModelSave", SAVE_NODE)
TRAINERS = ("TrainLoraNode",)
TRAINING = re.compile(r"train", re.IGNORECASE)  # what a node is called that makes a LoRA, and brings none
SWITCHES = {
    "Any Switch (rgthree)": Switch(r"any_\d+"),
    "ImpactSwitch": Switch(r"input\d+", "select", "input{}"),
    "ImpactConditionalBranch": Switch(r"tt_value|ff_value", "cond", ("ff_value", "tt_value")),
    "ComfySwitchNode": Switch(r"on_true|on_false", "switch", ("on_false", "on_true")),
    "LazySwitchKJ": Switch(r"on_true|on_false", "switch", ("on_false", "on_true")),
    "CR Model Input Switch": Switch(r"model\d+", "Input", "model{}"),
    "easy anythingIndexSwitch": Switch(r"value\d+", "index", "value{}"),
    "easy ifElse": Switch(r"on_true|on_false", "boolean", ("on_false", "on_true")),
    "InversionDemoLazySwitch": Switch(r"on_true|on_false", "switch", ("on_false", "on_true")),
    "Switch any [Crystools]": Switch(r"on_true|on_false", "boolean", ("on_false", "on_true")),
    "Switch model [Crystools]": Switch(r"on_true|on_false", "boolean", ("on_false", "on_true")),
}
CONVERTERS = {  # nodes that hand one value on in another type: kind -> the input it comes in by
    "CM_FloatToInt": "a",
    "CM_IntToFloat": "a",
    "ComfyNumberConvert": "value",
    "LTXFloatToInt": "a",
    "PreviewAny": "source",
    "easy convertAnything": "*",
}
HELD = (
    "value",
    "Value",
    "int",
    "float",
    "boolean",
    "number",
    "string",
    "text",
    "prompt",
)  # what holders of one value call it
MERGES = re.compile(r"merge|blend|ModelAdd|ModelSubtract", re.IGNORECASE)  # what comes out has no one stack below

# Inputs a model comes in by where the form of the workflow does not tell types, and the types where it does.
MODEL_INPUT = re.compile(
    r"(optional_|base_|refiner_|high_|low_)?(model|unet|diffusion_model)(_?(\d+|[ab]|high|low|high_noise|low_noise"
    r"|opt|override|c|negative))?|(base|lightning)_(high|low)|funmodels|cogvideoxfun_model|transformer(_2)?"
)
CARRIER_INPUT = re.compile(
    r"guider|(optional_|base_|refiner_)?(pipe|basic_pipe|detailer_pipe|sdxl_tuple|base_ctx|ctx|context|pipe_line)(_opt)?"
)
STACK_INPUT = re.compile(r"(optional_)?lora_stack(_\w+)?|prev_lora|loras?")
MODEL_TYPES = frozenset(
    (
        "MODEL",
        "WANVIDEOMODEL",
        "HYVIDEOMODEL",
        "FUNMODELS",
        "TRANSFORMERMODEL",
        "FOUNDRY_BASE",
        "FOUNDRY_FUSED",
        "FOUNDRY_STACKED",
        "FOUNDRY_QUANTIZED",
    )
)
CARRIER_TYPES = frozenset(("GUIDER", "PIPE_LINE", "BASIC_PIPE", "DETAILER_PIPE", "SDXL_TUPLE", "RGTHREE_CONTEXT"))
STACK_TYPES = frozenset(("LORA_STACK", "WANVIDLORA", "HYVIDLORA"))
# Inputs that bring no model and no LoRA, where the form of the workflow does not tell types.
OTHER_INPUT = re.compile(
    r"\w*(clip|vae|text|prompt|positive|negative|conditioning|string|image|latent|mask|seed|noise)\w*|samples|sigmas"
)
FILE_ENDINGS = (".safetensors", ".sft", ".pt", ".pth", ".ckpt", ".bin")
# Names of files that say their weights are quantized: a guess, never more.
FP8 = re.compile(r"fp8|float8|e4m3fn|e5m2", re.IGNORECASE)
SCALED = re.compile(r"scaled|fp8[_-]?mixed", re.IGNORECASE)
HIGH_BITS = re.compile(r"(?<![a-z0-9])(bf16|fp16|f16|fp32)(?![0-9])", re.IGNORECASE)
LOW_BITS = re.compile(r"(?<![a-z0-9])(fp8|float8|e4m3fn|e5m2|nvfp4|mxfp8|int8|int4|nf4|svdq)(?![0-9])", re.IGNORECASE)
