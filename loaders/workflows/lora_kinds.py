"""Which nodes name LoRAs and how they write them into their inputs: one row a kind of node.

``node_kinds.py`` has every other kind. A LoRA node that is in no table is read by the layouts of ``ANY_ROWS``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from .node_kinds import FUSE_NODE, STACK_NODE

HALVES = HIGH, LOW = "high", "low"  # noise: the two models of Wan 2.2, and LoRAs that are for one of them
# What loaders and stackers hold where nothing is chosen.
NO_LORA = ("", "none", "[none]", "none: vanilla base")
OFF = (False, None, 0, "off", "false", "disable", "disabled")  # a switch beside a LoRA, in lower case


@dataclass(frozen=True)
class RowInputs:
    """How a node writes LoRAs into its inputs; ``{}`` stands for the number of a row.

    The first of ``strengths`` that is there counts; ``clips`` are those on the text encoders, where a node has them
    apart. ``switch`` turns a row (or the node) off, ``count`` says how many
    rows count, ``simple`` is the strength that counts while the input named first in it says "simple". ``when`` is an
    input and what it must say for any row to count, ``pick`` the input that says which one row does. ``half`` is the
    noise that these LoRAs are for, in nodes that hold both models.
    """

    name: str
    strengths: tuple[str, ...] = ()
    switch: str = ""
    count: str = ""
    simple: tuple[str, str] = ("", "")
    when: tuple[str, str] = ("", "")
    pick: str = ""
    half: str = ""
    clips: tuple[str, ...] = ()


@dataclass(frozen=True)
class LoraNode:
    """A node that names LoRAs. ``beside``: it keeps them apart from the weights. ``loose``: names without folder or
    ending will do. ``text``: the input that holds JSON rows of ours, or ``<lora:name:strength>`` tags. ``own_first``:
    what it names itself comes before the list wired in. ``variants``: a row may name a second file, for low noise; the
    first is then for high noise, as the first output is; ``apart``: rows without a second file are so too.
    """

    rows: tuple[RowInputs, ...] = ()
    beside: bool = False
    loose: bool = False
    text: str = ""
    own_first: bool = False
    variants: bool = False
    apart: bool = False


_ONE = RowInputs(
    "lora_name",
    ("strength_model", "lora_strength", "lora_model_strength", "model_weight", "strength"),
    clips=("strength_clip", "lora_clip_strength", "clip_weight"),
)
_RGTHREE = RowInputs("lora_{}", ("strength_{}",))
_NUMBERED = RowInputs(
    "lora_name_{}",
    ("model_str_{}", "model_weight_{}", "lora_strength_{}", "strength_{}", "lora_wt_{}"),
    clips=("clip_str_{}", "clip_weight_{}"),
)
_EFFICIENCY = RowInputs(
    "lora_name_{}", ("model_str_{}", "lora_wt_{}"), "", "lora_count", ("input_mode", "lora_wt_{}"),
    clips=("clip_str_{}",),
)  # fmt: skip
_EASY = RowInputs(
    "lora_{}_name", ("lora_{}_model_strength", "lora_{}_strength"), "toggle", "num_loras", ("mode", "lora_{}_strength"),
    clips=("lora_{}_clip_strength",),
)  # fmt: skip
_DYNAMIC = RowInputs(
    "lora_name_{}", ("model_strength_{}", "strength_{}"), "", "lora_count", ("settings_visibility", "strength_{}"),
    ("input_mode", "dropdown"), clips=("clip_strength_{}",),
)  # fmt: skip
_EASY_PICKED = RowInputs("lora_{}_name", ("lora_strength",), "toggle", pick="select")
_FUN = LoraNode((_ONE,))
_FUN_PAIR = LoraNode((replace(_ONE, half=LOW), RowInputs("lora_high_name", ("strength_model",), half=HIGH)))
ANY_ROWS = (_ONE, _NUMBERED, _EASY, _RGTHREE)  # of LoRA nodes that are in no table
LORA_NODES = {
    "LoraLoader": LoraNode((_ONE,)),
    "LoraLoaderModelOnly": LoraNode((_ONE,)),
    "LoraLoader|pysssss": LoraNode((_ONE,)),
    "LoadLoraModel": LoraNode(),  # rows as lists or dotted names, which every node may have
    "LTXICLoRALoaderModelOnly": LoraNode((_ONE,)),
    "LTXVQ8LoraModelLoader": LoraNode((_ONE,)),
    "LoraLoaderBypass": LoraNode((_ONE,), beside=True),
    "LoraLoaderBypassModelOnly": LoraNode((_ONE,), beside=True),
    "Power Lora Loader (rgthree)": LoraNode(loose=True),  # rows as mappings
    "Lora Loader Stack (rgthree)": LoraNode((_RGTHREE,)),
    "PowerLoraLoaderV2": LoraNode(loose=True, variants=True),
    "WanVideoPowerLoraLoader": LoraNode(variants=True, apart=True),
    "LoRAStackDynamic": LoraNode(
        (_DYNAMIC, replace(_DYNAMIC, name="lora_name_text_{}", when=("input_mode", "text"))), loose=True
    ),
    "CR Load LoRA": LoraNode((RowInputs("lora_name", ("strength_model",), "switch", clips=("strength_clip",)),)),
    "CR LoRA Stack": LoraNode(
        (RowInputs("lora_name_{}", ("model_weight_{}",), "switch_{}", clips=("clip_weight_{}",)),)
    ),
    "CR Apply LoRA Stack": LoraNode(),
    "LoRA Stacker": LoraNode((_EFFICIENCY,)),
    "Efficient Loader": LoraNode((_ONE,), own_first=True),
    "Eff. Loader SDXL": LoraNode(),
    "easy fullLoader": LoraNode((_ONE,)),
    "easy a1111Loader": LoraNode((_ONE,)),
    "easy comfyLoader": LoraNode((_ONE,)),
    "easy fluxLoader": LoraNode((_ONE,)),
    **dict.fromkeys(("easy hunyuanDiTLoader", "easy kolorsLoader", "easy pixArtLoader"), LoraNode((_ONE,))),
    "easy cascadeLoader": LoraNode((_ONE,)),
    "easy loraSwitcher": LoraNode((_EASY_PICKED,)),
    **dict.fromkeys(("easy loraStack", "ttN pipeLoraStack"), LoraNode((_EASY,))),
    "easy loraStackApply": LoraNode(),
    "MiniMaxH3TurboLoRA": LoraNode((_ONE,)),
    "Lora Loader (LoraManager)": LoraNode(loose=True),
    "Lora Stacker (LoraManager)": LoraNode(loose=True),
    "LoRA Text Loader (LoraManager)": LoraNode(loose=True, text="lora_syntax"),
    "WanVideo Lora Select (LoraManager)": LoraNode(loose=True),
    **dict.fromkeys(("PCLazyLoraLoader", "PCLazyLoraLoaderAdvanced"), LoraNode(loose=True, text="text")),
    "NunchakuFluxLoraLoader": LoraNode((_ONE,), beside=True),
    "NunchakuFluxLoraStack": LoraNode((_NUMBERED,), beside=True),
    "NunchakuQwenImageLoraLoader": LoraNode((_ONE,), beside=True),
    "NunchakuQwenImageLoraStack": LoraNode((_NUMBERED,), beside=True),
    "WanVideoLoraSelect": LoraNode((RowInputs("lora", ("strength",)),)),
    "WanVideoLoraSelectByName": LoraNode((_ONE,), loose=True),
    "WanVideoLoraSelectMulti": LoraNode((_RGTHREE,)),
    "WanVideoSetLoRAs": LoraNode(beside=True),
    "HyVideoLoraSelect": LoraNode((RowInputs("lora", ("strength",)),)),
    **dict.fromkeys(("LoadCogVideoXFunLora", "LoadFlux2Lora", "LoadQwenImageLora", "LoadZImageLora"), _FUN),
    **dict.fromkeys(("LoadWanLora", "LoadWanFunLora"), _FUN),
    **dict.fromkeys(("LoadWan2_2Lora", "LoadWan2_2FunLora"), _FUN_PAIR),
    "FoundryLoRA": LoraNode((RowInputs("lora_name", ("strength_model",), "enabled", clips=("strength_clip",)),)),
    "FoundryLoRAStack": LoraNode(text="loras"),
    "FoundryMergeLoRAs": LoraNode(),  # what it merged is the list wired in
    "FoundryLoRAConflicts": LoraNode(),
    FUSE_NODE: LoraNode((RowInputs("lora_name", ("strength",)),), own_first=True),
    STACK_NODE: LoraNode(),
}
# LoRAs of text encoders and of motion modules, and nodes that only tell of one: none of these changes a model.
NO_MODEL_LORAS = (
    "LoadLoraTextEncoder",
    "ADE_AnimateDiffLoRALoader",
    "LoraSave",
    "SaveLoRA",
    "LoraModelLoader",
    "GetICLoRAParameters",
)
NO_MODEL_TYPES = ("MOTION_LORA", "LORA_MODEL")
MAX_ROWS = 60  # numbered rows looked for: the widest stacker has 50
