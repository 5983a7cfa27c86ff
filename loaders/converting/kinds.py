"""Which nodes can be taken apart and what is put in their place, as tables: facts about nodes, no code."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from ..workflows.node_kinds import APPLY_NODE, FUSE_NODE, QUANTIZE_NODE, STACK_NODE, VALIDATOR_NODE

LOAD_BASE, LOAD_CHECKPOINT = "FoundryLoadBase", "FoundryLoadCheckpoint"
ROW_NODE, LIST_NODE = "FoundryLoRA", "FoundryLoRAStack"
MODEL_OUT, CLIP_OUT = 0, 1  # of every node of ``APPLIERS`` and of 2 Stack LoRAs


@dataclass(frozen=True)
class Applier:
    """A node that puts LoRAs on a model and hands it on: its inputs for model, CLIP and a list of LoRAs.

    Its first output is the model, the second, where it takes a CLIP, the CLIP. ``held`` are inputs that say name and
    strengths of its one LoRA, and what our nodes call them: what is wired into those can be wired into ours.

    ``own`` are the inputs of its one LoRA, the name first, of a loader that brings the model itself and stays, without
    LoRAs; ``out`` is then its model, ``others`` are outputs that may be in use, ``encodes`` those of them that come
    from its CLIP, ``pipe`` one that carries all of it.
    """

    model: str = "model"
    clip: str = ""
    stack: str = ""
    held: tuple[tuple[str, str], ...] = ()
    own: tuple[str, ...] = ()
    out: int = MODEL_OUT
    others: tuple[int, ...] = ()
    encodes: tuple[int, ...] = ()
    pipe: int = -1


_ONE = (("lora_name", "lora_name"), ("strength_model", "strength_model"), ("strength_clip", "strength_clip"))
_OWN = ("lora_name", "lora_model_strength", "lora_clip_strength")
_EASY = Applier("", stack="optional_lora_stack", own=_OWN, out=1, others=(0, 2), encodes=(0,), pipe=0)
APPLIERS = {
    "LoraLoader": Applier(clip="clip", held=_ONE),
    "LoraLoaderModelOnly": Applier(held=_ONE[:2]),
    "LoadLoraModel": Applier(),
    "LoraLoader|pysssss": Applier(clip="clip"),
    "Power Lora Loader (rgthree)": Applier(clip="clip"),
    "Lora Loader Stack (rgthree)": Applier(clip="clip"),
    "CR Load LoRA": Applier(clip="clip"),
    "CR Apply LoRA Stack": Applier(clip="clip", stack="lora_stack"),
    "easy loraStackApply": Applier(clip="optional_clip", stack="lora_stack"),
    "Lora Loader (LoraManager)": Applier(clip="clip", stack="lora_stack"),
    "LoRA Text Loader (LoraManager)": Applier(clip="clip", stack="lora_stack"),
    "Efficient Loader": Applier("", stack="lora_stack", own=_OWN, others=(1, 2, 3, 4, 5), encodes=(1, 2, 5)),
    "easy fullLoader": replace(_EASY, others=(0, 2, 3, 4, 5, 6), encodes=(0, 3, 4, 5)),
    "easy a1111Loader": _EASY,
    "easy comfyLoader": _EASY,
}
# Nodes for two models, whose versions agree about what the first one gets: taken apart where there is no second.
SINGLES = {"PowerLoraLoaderV2": Applier(clip="clip")}
TAKEN_APART = {**APPLIERS, **SINGLES}
MODEL_ONLY = tuple(kind for kind, applier in APPLIERS.items() if not applier.clip and not applier.own)
# Nodes that hand a pipe on with the model in it untouched, and those that sample it, or a model that is wired in.
PIPED = ("easy preSampling", "easy preSamplingAdvanced")
PIPE_SAMPLERS = {"easy kSampler": "model"}
# Nodes that only write their LoRAs into a list, which can be read into rows of ours.
STACKERS = (
    *("CR LoRA Stack", "LoRA Stacker", "easy loraStack", "easy loraSwitcher", "LoRAStackDynamic"),
    *("Lora Stacker (LoraManager)",),
)
# Nodes that change how a model is run and none of its weights: LoRAs may be put on before them as well as after.
NEUTRAL = re.compile(
    r"ModelSampling\w+|CFGNorm|CFGZeroStar|RescaleCFG|FreeU(_V2)?|SkipLayerGuidance\w+|PerturbedAttentionGuidance"
    r"|PathchSageAttentionKJ|EpsilonScaling|DifferentialDiffusion|RenormCFG"
)
COMPILED = re.compile(r"compile", re.IGNORECASE)

# Native loaders that ours do the same as: kind -> (ours, the file's input here, the file's input there).
LOADERS = {
    "UNETLoader": (LOAD_BASE, "unet_name", "base_name"),
    "CheckpointLoaderSimple": (LOAD_CHECKPOINT, "ckpt_name", "ckpt_name"),
}
DTYPES = {  # what UNETLoader may be told -> format and matmul of 3 Quantize
    "fp8_e4m3fn": ("float8_e4m3fn", "full precision"),
    "fp8_e4m3fn_fast": ("float8_e4m3fn", "fp8"),
    "fp8_e5m2": ("float8_e4m3fn", "full precision"),  # no smaller, more exact, and loaded by every host
}


@dataclass(frozen=True)
class Form:
    """A node of ours as a canvas holds it: sockets and widgets as (name, type), outputs, and a size in pixels.

    ``defaults`` are the values of the widgets in their order. ``optional`` are inputs that a prompt may leave out.
    """

    sockets: tuple[tuple[str, str], ...]
    widgets: tuple[tuple[str, str], ...]
    defaults: tuple[object, ...]
    outputs: tuple[tuple[str, str], ...]
    size: tuple[float, float]
    optional: tuple[str, ...] = ()


_FUSABLE = "FOUNDRY_BASE,FOUNDRY_FUSED,MODEL"
_ANY = "FOUNDRY_BASE,FOUNDRY_FUSED,FOUNDRY_STACKED,MODEL"
_ROWS = (("LORA_STACK",) * 2, ("trigger_words", "STRING"))
_ON_QUANTIZED = (("on_quantized_base", "COMBO"), ("no_mmap", "BOOLEAN"))
FORMS = {
    LOAD_BASE: Form(
        (), (("base_name", "COMBO"), *_ON_QUANTIZED), ("", "refuse", False), (("FOUNDRY_BASE",) * 2,), (340, 130),
        ("on_quantized_base", "no_mmap"),
    ),
    LOAD_CHECKPOINT: Form(
        (), (("ckpt_name", "COMBO"), *_ON_QUANTIZED), ("", "refuse", False),
        (("FOUNDRY_BASE",) * 2, ("CLIP", "CLIP"), ("VAE", "VAE")), (340, 170),
        ("on_quantized_base", "no_mmap"),
    ),
    FUSE_NODE: Form(
        (("model", _FUSABLE), ("lora_stack", "LORA_STACK")),
        (("lora_name", "COMBO"), ("strength", "FLOAT"), ("rounding", "COMBO"), ("allow_partial", "BOOLEAN")),
        ("", 1.0, "once", False), (("FOUNDRY_FUSED",) * 2,), (340, 210), ("lora_stack", "allow_partial"),
    ),
    ROW_NODE: Form(
        (("lora_stack", "LORA_STACK"),),
        (("lora_name", "COMBO"), ("strength_model", "FLOAT"), ("strength_clip", "FLOAT"), ("enabled", "BOOLEAN"),
         ("blocks", "STRING")),
        ("", 1.0, 1.0, True, ""), _ROWS, (340, 210), ("lora_stack", "blocks"),
    ),
    LIST_NODE: Form(
        (("lora_stack", "LORA_STACK"),), (("loras", "STRING"),), ("[]",), _ROWS, (420, 280),
        ("lora_stack",),
    ),
    STACK_NODE: Form(
        (("model", _ANY), ("lora_stack", "LORA_STACK"), ("clip", "CLIP")), (("allow_partial", "BOOLEAN"),), (False,),
        (("FOUNDRY_STACKED",) * 2, ("CLIP", "CLIP")), (340, 150), ("clip", "allow_partial"),
    ),
    VALIDATOR_NODE: Form(
        (("model", _ANY),), (("policy", "COMBO"), ("strict", "BOOLEAN")), ("allow accelerators", False),
        (("FOUNDRY_STACKED",) * 2, ("report", "STRING"), ("ok", "BOOLEAN"), ("image", "IMAGE")), (340, 210),
    ),
    APPLY_NODE: Form(
        (("model", _ANY),),
        (("how", "COMBO"), ("memory", "COMBO"), ("keep", "COMBO"), ("reproducible", "BOOLEAN")),
        ("patches", "auto", "memory", False), (("MODEL", "MODEL"), ("report", "STRING"), ("image", "IMAGE")),
        (340, 220), ("memory", "keep", "reproducible"),
    ),
    QUANTIZE_NODE: Form(
        (("model", _ANY),),
        (("format", "COMBO"), ("matmul", "COMBO"), ("keep_high_precision", "STRING"), ("max_error", "FLOAT"),
         ("memory", "COMBO"), ("keep", "COMBO"), ("reproducible", "BOOLEAN"), ("calibration", "COMBO"),
         ("pre_quant_scale", "BOOLEAN")),
        ("float8_e4m3fn", "full precision", "auto", 0.0, "auto", "memory", False, "none", False),
        (("MODEL", "MODEL,FOUNDRY_QUANTIZED"), ("report", "STRING"), ("image", "IMAGE")), (340, 354),
        ("max_error", "memory", "keep", "reproducible", "calibration", "pre_quant_scale"),
    ),
}  # fmt: skip
