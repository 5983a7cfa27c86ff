"""Which family and variant of models a base or a LoRA belongs to, by the tables of ``signatures.py`` and those here.

Where names and shapes do not tell, the family is None; where they leave two, it is both: ``flux or hunyuan-video``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import product

from ...engine.tensors import TensorInfo
from ..names.lookup import bare
from ..names.tables import HUNYUANS
from .signatures import BASE_SIGNATURES, LORA_SIGNATURES, OR, Signature

Shape = tuple[int, ...]

# Families whose LoRAs are used on each other on purpose, as Chroma was made from FLUX.1 and keeps most of its layers;
# and those that names do not tell apart.
RELATED = tuple(
    frozenset(each) for each in (("flux", "chroma"), HUNYUANS, ("z-image", "ming-image"), ("qwen-image", "mage-flow"))
)


@dataclass(frozen=True)
class Trait:
    """One aspect of a family's variants, read off the first weight that fits: its size, or that it is there at all."""

    families: tuple[str, ...]
    aspect: str
    pattern: str
    measure: str = ""
    values: Mapping[float, str] | str = ""


IMAGE_TO_VIDEO = "image to video"
UNETS = ("sd15", "sd2", "sdxl")
IN = "^(input_blocks.0.0|conv_in)$"
FIRST = "^(img_in|x_embedder)$"
VIDEO_IN = "^(img_in.proj|x_embedder.proj)$"
WAN_IMAGE = "^(img_emb.|condition_embedder.image_embedder.)|.(k_img|v_img|norm_k_img|add_[kv]_proj|norm_added_k)$"
WAN_WIDTH = "^blocks.#.((self|cross)_attn.([qko]|k_img)|attn[12].(to_[qk]|to_out.0)|ffn.2|ffn.net.2)$"
SD3_WIDTH = "^(joint_blocks.#.x_block.attn.qkv|transformer_blocks.#.attn.to_[qkv])$"
FLUX2_WIDTH = "^(double_blocks.#.(img|txt)_attn.(qkv|proj)|transformer_blocks.#.attn.(to_[qkv]|to_out.0))$"

TRAITS = (
    Trait(UNETS, "task", IN, "in", {4: "text to image", 8: "edit", 9: "inpainting"}),
    Trait(("flux",), "task", FIRST, "in", {64: "text to image or Kontext", 128: "control", 384: "Fill"}),
    Trait(("wan",), "task", "^vace_(blocks|patch_embedding)", values="VACE"),
    Trait(("wan",), "task", WAN_IMAGE, values=IMAGE_TO_VIDEO),
    Trait(("wan",), "task", "^patch_embedding$", "in", {16: "text to video", 36: IMAGE_TO_VIDEO, 48: "text and image"}),
    Trait(("wan",), "version", WAN_IMAGE, values="2.1"),
    Trait(("wan",), "version", "^patch_embedding$", "in", {36: "2.2", 48: "2.2"}),
    Trait(("wan",), "size", WAN_WIDTH, "out", {1536: "1.3B", 3072: "5B", 5120: "14B"}),
    Trait(("hunyuan-video",), "task", VIDEO_IN, "in", {16: "text to video", 32: IMAGE_TO_VIDEO, 33: IMAGE_TO_VIDEO}),
    Trait(("sd3",), "size", SD3_WIDTH, "in", {1536: "medium", 2432: "large"}),
    Trait(("flux2",), "size", FLUX2_WIDTH, "in", {3072: "klein 4B", 4096: "klein 9B", 6144: "dev"}),
)


def detect_base(tensors: Mapping[str, TensorInfo]) -> str | None:
    """Family of a diffusion model by its bare tensor names and shapes, or None."""
    shapes = {name.removesuffix(".weight"): info.shape for name, info in tensors.items() if not name.endswith(".bias")}
    return _first(BASE_SIGNATURES, shapes)


def detect_lora(modules: Mapping[str, Shape]) -> str | None:
    """Family of a LoRA by its module names and the shapes of its deltas ``(out, in, ...)``, or None."""
    return _first(LORA_SIGNATURES, {bare(module): shape for module, shape in modules.items()})


def differ(base: str | None, lora: str | None) -> bool:
    """Whether both families are known and a LoRA of one, or of any that it may be of, is not meant for the other."""
    if base is None or lora is None:
        return False
    pairs = product(base.split(OR), lora.split(OR))
    return not any(one == other or any({one, other} <= each for each in RELATED) for one, other in pairs)


def common_family(families: Iterable[str | None]) -> str | None:
    """The family that all who show theirs may be of; None where they have none in common, or nobody shows it."""
    known = [family.split(OR) for family in families if family is not None]
    shared = [each for each in known[0] if all(each in other for other in known)] if known else []
    return OR.join(shared) or None


def family_of_names(family: str | None) -> str | None:
    """The family whose names are taken for a LoRA that may be of several: they are the same in all of these."""
    return None if family is None else family.partition(OR)[0]


def variant_of_base(tensors: Mapping[str, TensorInfo], family: str | None) -> dict[str, str]:
    """What names and shapes tell about a base within its family: aspect (task, size, version) -> value."""
    shapes = {name.removesuffix(".weight"): info.shape for name, info in tensors.items() if not name.endswith(".bias")}
    return _variant(family, shapes)


def variant_of_lora(modules: Mapping[str, Shape], family: str | None) -> dict[str, str]:
    """The same for a LoRA, from its modules and the shapes of their deltas; most tell nothing about some aspects."""
    return _variant(family, {bare(module): shape for module, shape in modules.items()})


def clashes(base: Mapping[str, str], lora: Mapping[str, str]) -> list[str]:
    """Aspects in which a LoRA is for another variant than the base, each as ``task: image to video, not ...``.

    A control or Fill LoRA widens the base it is put on, so it is no clash with the plain one.
    """
    both = [aspect for aspect in base if aspect in lora and base[aspect] != lora[aspect]]
    return [f"{aspect}: {lora[aspect]}, not {base[aspect]}" for aspect in both if lora[aspect] not in WIDENING]


WIDENING = ("control", "Fill")


def is_extra(module: str, base: str | None) -> bool:
    """Whether bases of a family may do without a module that LoRAs used on them on purpose are known to have."""
    return base in EXTRA and bool(_compiled(EXTRA[base]).search(bare(module)))


# Wan 2.2 has no image attention, Chroma none of FLUX.1's modulation layers, which it makes from the time step.
EXTRA = {
    "wan": WAN_IMAGE,
    "chroma": "^((double|single)_blocks.#.((img|txt)_mod|modulation).lin|"
    "(single_)?transformer_blocks.#.norm1?(_context)?.linear|(time|vector|guidance)_in.|time_text_embed.|final_layer.adaLN_modulation|norm_out.linear)",
}


def _variant(family: str | None, shapes: Mapping[str, Shape]) -> dict[str, str]:
    found: dict[str, str] = {}
    for trait in TRAITS:
        value = _value(trait, shapes) if family in trait.families else None
        if value is not None:
            found.setdefault(trait.aspect, value)
    return found


def _value(trait: Trait, shapes: Mapping[str, Shape]) -> str | None:
    pattern = _compiled(trait.pattern)
    if isinstance(trait.values, str):
        return trait.values if any(map(pattern.search, shapes)) else None
    measured = _measure(pattern, trait.measure, shapes)
    return None if measured is None else trait.values.get(measured)


def _first(signatures: tuple[Signature, ...], shapes: Mapping[str, Shape]) -> str | None:
    text = "\n".join(shapes)
    return next((signature.family for signature in signatures if _fits(signature, text, shapes)), None)


def _fits(signature: Signature, text: str, shapes: Mapping[str, Shape]) -> bool:
    return (
        all(_compiled(pattern).search(text) for pattern in signature.needs)
        and not any(_compiled(pattern).search(text) for pattern in signature.never)
        and all(_measure(_compiled(size.pattern), size.measure, shapes) in size.values for size in signature.sizes)
    )


def _measure(pattern: re.Pattern[str], measure: str, shapes: Mapping[str, Shape]) -> float | None:
    """A size or ratio of the first weight whose name fits, or None; or how many different beginnings fit."""
    if measure == "blocks":
        return len({found[0] for found in map(pattern.search, shapes) if found})
    shape = next((shape for name, shape in shapes.items() if len(shape) > 1 and pattern.search(name)), None)
    if shape is None or 0 in shape:
        return None
    ratios = {"out/in": shape[0] / shape[1], "in/out": shape[1] / shape[0]}
    return {"out": shape[0], "in": shape[1], "dims": len(shape), **ratios}[measure]


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern.replace(".", "[._]").replace("#", r"\d+"), re.MULTILINE)
