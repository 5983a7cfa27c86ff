"""How LoRA files name their tensors, as tables: a new dialect is one row here and one fixture in the tests.

A tensor name is ``<prefix><module><suffix>``. The suffix says which part of which kind of adapter it is; a dialect is a
pair of suffixes. It says nothing about what the file is for: ``lora_down``/``lora_up`` is written by every
kohya-style trainer, not only by the publisher of Lightning. Who writes which prefix, module names and suffixes
together is the table of layouts.py.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

LORA, LOHA, LOKR, GLORA, OFT, DIFF, SET = "lora", "loha", "lokr", "glora", "oft", "diff", "set"
OFT_IN, BOFT_IN = "oft_in", "boft_in"
ATTACHED = "attached"  # the kind of a part that belongs to whatever adapter its module has
ALPHA, NORM_SCALE = "alpha", "norm_scale"  # parts that alone are no sign of an adapter: whole models have them too
SCALE_ENDINGS = (".scale_weight", ".weight_scale", "_scale", ".scale")  # of a factor's scale: behind its name, or stem
KEPT = "|"  # in a suffix: what stands before it stays in the module name


@dataclass(frozen=True)
class PairSuffix:
    """A dialect: the suffixes of the two factors of a LoRA. ``*`` stands for one adapter name, which has no dot."""

    dialect: str
    up: str
    down: str


@dataclass(frozen=True)
class Suffix:
    """One ending of a tensor name. ``*`` as the part takes what ``*`` in the text stands for.

    ``tensor`` is the tensor of the layer that it changes. An empty ``kind`` is no sign of an adapter.
    """

    text: str
    part: str
    kind: str = ""
    dialect: str = ""
    tensor: str = "weight"


@dataclass(frozen=True)
class Part:
    """A tensor name taken apart. ``adapter`` is the adapter name that PEFT writes into it, else empty."""

    name: str
    module: str
    part: str
    kind: str
    dialect: str
    adapter: str
    suffix: Suffix

    @property
    def target(self) -> str:
        """The module, or for other tensors than the weight the tensor itself: ``blocks.0.q.bias``."""
        return self.module if self.suffix.tensor == "weight" else f"{self.module}.{self.suffix.tensor}"


PAIR_SUFFIXES = (
    PairSuffix("down/up", ".lora_up.weight", ".lora_down.weight"),  # kohya, musubi, OneTrainer, lightx2v, LyCORIS
    PairSuffix("A/B", ".lora_B.weight", ".lora_A.weight"),  # PEFT state dict, diffusers, AI Toolkit
    PairSuffix("A/B named", ".lora_B.*.weight", ".lora_A.*.weight"),  # PEFT module names: DiffSynth writes "default"
    PairSuffix("A/B bare", ".lora_B", ".lora_A"),  # Mochi
    PairSuffix("lora.down/up", ".lora.up.weight", ".lora.down.weight"),  # diffusers before PEFT
    PairSuffix("XLabs", "_lora1|.up.weight", "_lora1|.down.weight"),  # double blocks, image stream
    PairSuffix("XLabs", "_lora2|.up.weight", "_lora2|.down.weight"),  # double blocks, text stream
    PairSuffix("XLabs", ".qkv_lora|.up.weight", ".qkv_lora|.down.weight"),  # single blocks
    PairSuffix("XLabs", ".proj_lora|.up.weight", ".proj_lora|.down.weight"),
    PairSuffix("processor", "_lora.up.weight", "_lora.down.weight"),  # diffusers attention processors
    PairSuffix("linear layer", ".lora_linear_layer.up.weight", ".lora_linear_layer.down.weight"),  # diffusers, CLIP
)

OTHER_PARTS = (
    Suffix(".alpha", ALPHA),
    Suffix("_norm|.scale", NORM_SCALE, tensor="scale"),  # BFL control LoRAs: the norms themselves
    Suffix(".lora_mid.weight", "mid", LORA, "down/up"),
    Suffix(".lora_B.bias", "up_bias", LORA, "A/B", "bias"),
    Suffix(".lora_B.*.bias", "up_bias", LORA, "A/B named", "bias"),
    Suffix(".lora_up.bias", "up_bias", LORA, "down/up", "bias"),
    Suffix(".dora_scale", "magnitude", ATTACHED),
    Suffix(".magnitude", "magnitude", ATTACHED),  # AI Toolkit: one number a row, as PEFT
    Suffix(".lora_magnitude_vector", "magnitude", ATTACHED),
    Suffix(".lora_magnitude_vector.weight", "magnitude", ATTACHED),
    Suffix(".lora_magnitude_vector.*.weight", "magnitude", ATTACHED),
    Suffix(".lora_magnitude_vector.*", "magnitude", ATTACHED),
    Suffix(".reshape_weight", "reshape", ATTACHED),
    Suffix(".hada_*", "*", LOHA),
    Suffix(".lokr_*", "*", LOKR),
    Suffix(".a1.weight", "a1", GLORA),
    Suffix(".a2.weight", "a2", GLORA),
    Suffix(".b1.weight", "b1", GLORA),
    Suffix(".b2.weight", "b2", GLORA),
    Suffix(".oft_blocks", "blocks", OFT),
    Suffix(".oft_blocks.*", "blocks", OFT),  # sd-scripts: one for each part of a fused layer
    Suffix(".rescale", "rescale", OFT),
    Suffix(".oft_R.weight", "turns", OFT_IN),  # PEFT, OneTrainer
    Suffix(".oft_R.*.weight", "turns", OFT_IN),
    Suffix(".boft_R", "turned", BOFT_IN),  # PEFT
    Suffix(".boft_R.*", "turned", BOFT_IN),
    Suffix(".boft_s", "sizes", BOFT_IN),
    Suffix(".boft_s.*", "sizes", BOFT_IN),
    Suffix(".diff", "diff", DIFF),
    Suffix(".diff_b", "diff", DIFF, tensor="bias"),
    Suffix(".diff_m", "diff", DIFF, tensor="modulation"),
    Suffix(".w_norm", "diff", DIFF),
    Suffix(".b_norm", "diff", DIFF, tensor="bias"),
    Suffix(".set_weight", "set", SET),
    Suffix(".modules_to_save.weight", "set", SET),  # PEFT: whole layers beside the pairs
    Suffix(".modules_to_save.bias", "set", SET, tensor="bias"),
    Suffix(".modules_to_save.*.weight", "set", SET),
    Suffix(".modules_to_save.*.bias", "set", SET, tensor="bias"),
    Suffix(".base_layer.bias", "set", SET, tensor="bias"),  # PEFT with bias="all" or "lora_only"
)
# A whole tensor under the base's own name, beside adapters of other layers: a layer that was trained whole.
WHOLE = (Suffix(".weight", "set", SET), Suffix(".bias", "set", SET, tensor="bias"))
FROZEN = (".base_layer.weight", ".original_module.weight", ".original_module.bias")  # PEFT: the layer beside its own
EMBEDDINGS = "bundle_emb."  # OneTrainer puts embeddings into the file

# Adapters that no builder knows: a file that has one is refused by this name.
UNSUPPORTED: tuple[Suffix, ...] = (
    Suffix(".on_input", "on_input", "IA3"),
    Suffix(".ia3_l", "l", "IA3"),
    Suffix(".ia3_l.*", "l", "IA3"),
    Suffix(".oft_*", "*", "OFT as an older PEFT stores it"),
    Suffix(".oft_*.weight", "*", "OFT as an older PEFT stores it"),
    Suffix(".lora_embedding_A", "down", "embedding LoRA"),
    Suffix(".lora_embedding_A.*", "down", "embedding LoRA"),
    Suffix(".lora_embedding_B", "up", "embedding LoRA"),
    Suffix(".lora_embedding_B.*", "up", "embedding LoRA"),
    Suffix(".lora_E", "e", "AdaLoRA"),
    Suffix(".lora_E.*", "e", "AdaLoRA"),
    Suffix(".bone_block", "block", "Bone"),
)
# What else PEFT has, by what it puts before the names of its parameters.
OF_PEFT = {
    "adamss": "AdaMSS", "beft": "BEFT", "c3a": "C3A", "deft": "DEFT", "delora": "DeLoRA", "fourierft": "FourierFT",
    "frod": "FRoD", "gralora": "GraLoRA", "hira": "HiRA", "hra": "HRA", "lily": "Lily", "miss": "MiSS",
    "osf": "OSF", "peanut": "PEANuT", "poly": "Poly", "psoft": "PSOFT", "pvera": "PVeRA", "randlora": "RandLoRA",
    "road": "RoAd", "shira": "SHiRA", "supertuning": "supertuning", "tinylora": "TinyLoRA", "unilora": "Uni-LoRA",
    "vblora": "VB-LoRA", "vera_lambda": "VeRA", "waveft": "WaveFT",
}  # fmt: skip
UNSUPPORTED += tuple(Suffix(f".{before}_*", "*", name) for before, name in OF_PEFT.items())
UNSUPPORTED += tuple(Suffix(f".{before}_*.weight", "*", name) for before, name in OF_PEFT.items())

PAIRED_PARTS = tuple(
    Suffix(text, part, LORA, row.dialect)
    for row in PAIR_SUFFIXES
    for text, part in ((row.up, "up"), (row.down, "down"))
)
SUFFIXES = PAIRED_PARTS + OTHER_PARTS + UNSUPPORTED

# What stands before a module name of the diffusion model, longest first. Prefixes may follow one another.
MODEL_PREFIXES = tuple(
    sorted(
        (
            "base_model.model.", "model.diffusion_model.", "diffusion_model.", "diffusion_model_", "model.",
            "transformer.", "unet.", "dit.", "pipe.dit.", "pipe.transformer.", "pipe.unet.", "lora_unet_",
            "lora_unet__", "lora_transformer_", "lycoris_", "oft_unet_", "net.", "module.", "lora_prior_unet_",
        ),
        key=len,
        reverse=True,
    )
)  # fmt: skip

TEXT_ENCODER_PREFIXES = (
    "lora_te_", "lora_te1_", "lora_te2_", "lora_te3_", "lora_prior_te_", "lora_text_encoder_", "text_encoder.",
    "text_encoder_2.", "text_encoder_3.", "text_encoders.", "te.", "te1.", "te2.", "te3.", "conditioner.",
    "cond_stage_model.", "text_model.", "clip_l.", "clip_g.", "t5xxl.",
)  # fmt: skip


def split(name: str) -> Part | None:
    """The module and part a tensor name speaks of, or None when no row of the table fits."""
    for suffix, kept, head, tail in _ENDINGS:
        if not name.endswith(tail):
            continue
        if not head:
            module, wild = name[: len(name) - len(tail)] + kept, ""
            fits = len(module) > len(kept)
        else:
            module, found, wild = name[: len(name) - len(tail)].rpartition(head)
            fits = bool(found and module and wild and "." not in wild)
        if fits:
            part, adapter = (wild, "") if suffix.part == "*" else (suffix.part, wild)
            return Part(name, module, part, suffix.kind, suffix.dialect, adapter, suffix)
    return None


def whole(name: str) -> Part | None:
    """A tensor named as a model names its own, taken for what replaces it; None for other names."""
    for suffix in WHOLE:
        if name.endswith(suffix.text) and len(name) > len(suffix.text):
            return Part(name, name.removesuffix(suffix.text), suffix.part, suffix.kind, "", "", suffix)
    return None


def _ending(suffix: Suffix) -> tuple[Suffix, str, str, str]:
    """(suffix, what of it stays in the module, what stands before ``*``, what a name must end with)."""
    before, star, after = suffix.text.partition("*")
    kept = suffix.text.partition(KEPT)[0] if KEPT in suffix.text else ""
    return (suffix, kept, before, after) if star else (suffix, kept, "", suffix.text.replace(KEPT, ""))


_ENDINGS = tuple(_ending(suffix) for suffix in SUFFIXES)


def identify(names: Iterable[str]) -> str:
    """The dialect of a file's tensor names, most used first where a file mixes several.

    For files without a pair of factors their kinds (``lokr``); ``unknown`` when no row fits.
    """
    parts = [part for part in map(split, names) if part and part.kind not in ("", ATTACHED)]
    counts = Counter(part.dialect for part in parts if part.dialect) or Counter(part.kind for part in parts)
    return " + ".join(dialect for dialect, _ in counts.most_common()) or "unknown"


def adapter_parts(names: Iterable[str]) -> list[str]:
    """The names that are parts of adapters, when they are most of a file; else nothing: a model has none of them.

    Alphas and scales stand beside parts of either kind of file and are not counted.
    """
    beside = (f".{ALPHA}", *SCALE_ENDINGS)
    counted = [name for name in names if name.endswith(".dora_scale") or not name.endswith(beside)]
    counted = [name for name in counted if not name.startswith(EMBEDDINGS) and not name.endswith(FROZEN)]
    parts = [name for name in counted if (part := split(name)) and part.kind]
    return parts if 2 * len(parts) > len(counted) else []
