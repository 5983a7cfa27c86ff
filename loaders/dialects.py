"""How LoRA files name their tensors, as tables: a new dialect is one row here and one fixture in the tests.

A tensor name is ``<prefix><module><suffix>``. The suffix says which part of which kind of adapter it is; a dialect is a
pair of suffixes. It says nothing about what the file is for: ``lora_down``/``lora_up`` is written by every
kohya-style trainer, not only by the publisher of Lightning.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

LORA = "lora"
ALPHA = "alpha"


@dataclass(frozen=True)
class PairSuffix:
    """A dialect: the suffixes of the two factors of a LoRA. ``*`` stands for one adapter name, which has no dot."""

    dialect: str
    up: str
    down: str


@dataclass(frozen=True)
class Suffix:
    """One ending of a tensor name. ``*`` as the part takes what ``*`` in the text stands for.

    An empty ``kind`` belongs to whatever adapter the module has.
    """

    text: str
    part: str
    kind: str = ""
    dialect: str = ""


@dataclass(frozen=True)
class Part:
    """A tensor name taken apart. ``adapter`` is the adapter name that PEFT writes into it, else empty."""

    name: str
    module: str
    part: str
    kind: str
    dialect: str
    adapter: str


PAIR_SUFFIXES = (
    PairSuffix("down/up", ".lora_up.weight", ".lora_down.weight"),  # kohya, musubi, OneTrainer, lightx2v, LyCORIS
    PairSuffix("A/B", ".lora_B.weight", ".lora_A.weight"),  # PEFT state dict, diffusers, AI Toolkit
    PairSuffix("A/B named", ".lora_B.*.weight", ".lora_A.*.weight"),  # PEFT module names: DiffSynth writes "default"
    PairSuffix("A/B bare", ".lora_B", ".lora_A"),  # Mochi
    PairSuffix("lora.down/up", ".lora.up.weight", ".lora.down.weight"),  # diffusers before PEFT
    PairSuffix("processor", "_lora.up.weight", "_lora.down.weight"),  # diffusers attention processors
    PairSuffix("linear layer", ".lora_linear_layer.up.weight", ".lora_linear_layer.down.weight"),  # diffusers, CLIP
)

OTHER_PARTS = (
    Suffix(".alpha", ALPHA),
    Suffix(".lora_mid.weight", "mid", "Tucker LoRA"),
    Suffix(".dora_scale", "dora_scale", "DoRA"),
    Suffix(".lora_magnitude_vector", "magnitude", "DoRA"),
    Suffix(".lora_magnitude_vector.*", "magnitude", "DoRA"),
    Suffix(".lora_magnitude_vector.*.weight", "magnitude", "DoRA"),
    Suffix(".lora_B.bias", "up_bias", "LoRA with a bias"),
    Suffix(".lora_B.*.bias", "up_bias", "LoRA with a bias"),
    Suffix(".lora_up.bias", "up_bias", "LoRA with a bias"),
    Suffix(".lora_embedding_A", "down", "embedding LoRA"),
    Suffix(".lora_embedding_A.*", "down", "embedding LoRA"),
    Suffix(".lora_embedding_B", "up", "embedding LoRA"),
    Suffix(".lora_embedding_B.*", "up", "embedding LoRA"),
    Suffix(".hada_*", "*", "LoHa"),
    Suffix(".lokr_*", "*", "LoKr"),
    Suffix(".oft_*", "*", "OFT/BOFT"),
    Suffix(".oft_*.weight", "*", "OFT/BOFT"),
    Suffix(".rescale", "rescale", "OFT/BOFT"),
    Suffix(".a1.weight", "a1", "GLoRA"),
    Suffix(".a2.weight", "a2", "GLoRA"),
    Suffix(".b1.weight", "b1", "GLoRA"),
    Suffix(".b2.weight", "b2", "GLoRA"),
    Suffix(".on_input", "on_input", "IA3"),
    Suffix(".diff", "diff", "full difference"),
    Suffix(".diff_b", "diff_b", "bias difference"),
    Suffix(".diff_m", "diff_m", "modulation difference"),
    Suffix(".w_norm", "diff", "norm difference"),
    Suffix(".b_norm", "diff_b", "norm difference"),
    Suffix(".set_weight", "set", "replaced weight"),
    Suffix(".reshape_weight", "reshape", "reshaped weight"),
)

PAIRED_PARTS = tuple(
    Suffix(text, part, LORA, row.dialect)
    for row in PAIR_SUFFIXES
    for text, part in ((row.up, "up"), (row.down, "down"))
)
SUFFIXES = PAIRED_PARTS + OTHER_PARTS

# What stands before a module name of the diffusion model, longest first. Prefixes may follow one another.
MODEL_PREFIXES = tuple(
    sorted(
        (
            "base_model.model.", "model.diffusion_model.", "diffusion_model.", "model.", "transformer.", "unet.",
            "dit.", "pipe.dit.", "pipe.transformer.", "pipe.unet.", "lora_unet_", "lora_unet__", "lora_transformer_",
            "lycoris_",
        ),
        key=len,
        reverse=True,
    )
)  # fmt: skip

TEXT_ENCODER_PREFIXES = (
    "lora_te_", "lora_te1_", "lora_te2_", "lora_te3_", "lora_prior_te_", "text_encoder.", "text_encoder_2.",
    "text_encoder_3.", "text_encoders.", "te.", "te1.", "te2.", "te3.", "conditioner.", "cond_stage_model.",
    "text_model.", "clip_l.", "clip_g.", "t5xxl.",
)  # fmt: skip


def split(name: str) -> Part | None:
    """The module and part a tensor name speaks of, or None when no row of the table fits."""
    for suffix in SUFFIXES:
        head, star, tail = suffix.text.partition("*")
        if not name.endswith(tail if star else head):
            continue
        module, found, wild = name[: len(name) - len(tail)].rpartition(head)
        if found and module and bool(wild) == bool(star) and "." not in wild:
            part, adapter = (wild, "") if suffix.part == "*" else (suffix.part, wild)
            return Part(name, module, part, suffix.kind, suffix.dialect, adapter)
    return None


def identify(names: Iterable[str]) -> str:
    """The dialect of a file's tensor names, most used first where a file mixes several; ``unknown`` when none fits."""
    parts = (split(name) for name in names)
    counts = Counter(part.dialect for part in parts if part and part.dialect)
    return " + ".join(dialect for dialect, _ in counts.most_common()) or "unknown"
