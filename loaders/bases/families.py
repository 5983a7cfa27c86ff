"""Which family and variant of models a base or a LoRA belongs to, from names and shapes: tables, first match wins.

Patterns are regular expressions with two short forms: ``.`` is a separator (a dot or an underscore, so flat names fit
too), ``#`` a number. They are searched in names without prefixes and without ``.weight``. Ratios of sizes are preferred
to sizes, so that models of any width are told apart; where names and shapes do not tell, the family is None.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from ...engine.tensors import TensorInfo
from ..names.lookup import bare
from ..names.tables import HUNYUANS

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Size:
    """A condition on the first weight whose name fits: its size or ratio ``measure`` is one of ``values``."""

    pattern: str
    measure: str
    values: tuple[float, ...]


@dataclass(frozen=True)
class Signature:
    """A family shows itself by names that must all be there, names that must not, and sizes that must all hold."""

    family: str
    needs: tuple[str, ...]
    never: tuple[str, ...] = ()
    sizes: tuple[Size, ...] = ()


UNET = "^(input_blocks|output_blocks|middle_block|down_blocks|up_blocks|mid_block)."
CONTEXT = "attn2.to_[kv]$"  # SD: the cross attention reads the text encoder, whose width is the version
FLUX = "^(double_blocks|single_blocks|single_transformer_blocks).#."
FLUX2 = "^(double_stream_modulation|single_stream_modulation)"
# one matrix for attention and MLP, as diffusers names it: FLUX.1 may be written so, too
STREAM_IN = "^single_transformer_blocks.#.attn.to_qkv_mlp_proj$"
STREAM_OUT = "^single_transformer_blocks.#.attn.to_out$"
GATED_IN = "^transformer_blocks.#.ff(_context)?.linear_in$"
GATED_OUT = "^transformer_blocks.#.ff(_context)?.linear_out$"
MLP_IN = "^transformer_blocks.#.ff(_context)?.net.0.proj$"
QWEN = "^transformer_blocks.#.(img|txt)_(mlp|mod)."
SINGLES = "^single(_transformer)?_blocks"
SECOND_LINEAR = "^(single_blocks.#.linear2|single_transformer_blocks.#.proj_out)$"
BOTH_STREAMS = "^transformer_blocks.#.(ff_context.|attn.(add_[qkv]_proj|to_add_out)$)"
STREAMS_WIDTH = "^(double_blocks.#.(img|txt)_(attn.qkv|attn.proj|mlp.0)|single_blocks.#.linear1)$"
LUMINA = "^(layers|noise_refiner|context_refiner).#.(attention|feed_forward|adaLN_modulation)."
LUMINA_MODULATION = "^(layers|noise_refiner).#.adaLN_modulation.1$"  # Z-Image has .0
LUMINA_WIDTH = "^(layers|noise_refiner|context_refiner).#.attention.(qkv|to_[qkv]|out|to_out.0)$"

BASE_SIGNATURES = (
    Signature("hunyuan-video-1.5", ("^vision_in.", "^byt5_in.", "^double_blocks.#.")),
    Signature("hunyuan-image-2.1", ("^byt5_in.", "^double_blocks.#.", "^txt_in.individual_token_refiner.")),
    Signature("hunyuan-video-1.5", ("^image_embedder.linear_1$", "^context_embedder_2.")),
    Signature("hunyuan-image-2.1", ("^time_guidance_embed.", "^context_embedder.token_refiner.")),
    Signature("omnigen2", ("^ref_image_patch_embedder$", "^layers.#.attn.to_q$")),
    Signature("boogu", ("^double_stream_layers.#.img_instruct_attn.",)),
    Signature("krea-2", ("^(txtfusion|text_fusion).projector$",)),
    Signature("minimax-h3", ("^(video_patch_proj|proj_in)$", "^audio_(patch_proj|proj_in)$", "^token_refiner.")),
    Signature("ernie-image", ("^layers.#.mlp.linear_fc2$", "^layers.#.self_attention.to_q$")),
    Signature("ideogram-4", ("^embed_image_indicator$", "^layers.#.attention.")),
    Signature("hidream-o1", ("^t_embedder1.mlp.0$", "^x_embedder.proj1$")),
    Signature("hunyuan-dit", ("^mlp_t5.0$", "^blocks.#.attn1.")),
    Signature("hunyuan-dit", ("^time_extra_emb.", "^text_embedder.linear_1$", "^blocks.#.attn1.")),
    Signature("joyimage", ("^double_blocks.#.attn.img_attn_qkv$",)),
    Signature("lens", ("^transformer_blocks.#.img_mlp.w1$", "^txt_norm(.0)?$")),
    Signature("qwen-image-2.1", ("^txt_in.in_layer$", "^transformer_blocks.#.img_mlp.(gate_up|gate_layer)$")),
    Signature("mage-flow", ("^txt_norm$", QWEN), sizes=(Size("^txt_in$", "in", (2560,)),)),
    Signature("ovis-image", ("^double_blocks.#.img_mlp.gate_proj$", "^txt_norm$")),
    Signature("ovis-image", ("^context_embedder_norm$", "^single_transformer_blocks.#.")),
    Signature("pixart", ("^t_block.1$", "^blocks.#.cross_attn.kv_linear$")),
    Signature("pixart", ("^adaln_single.linear$", "^pos_embed.proj$", "^transformer_blocks.#.attn2.to_q$")),
    Signature("auraflow", ("^(double_layers|joint_transformer_blocks).#.", "^(cond_seq_linear|context_embedder)$")),
    Signature("stable-cascade", ("^(clip_txt_pooled_mapper|clip_txt_mapper|effnet_mapper.0)$", "^down_blocks.#.#.")),
    Signature("ace-step-1.5", ("^decoder.layers.#.cross_attn.", "^encoder.lyric_encoder.")),
    Signature("ace-step-1.5", ("^proj_in_conv$", "^layers.#.cross_attn.to_q$")),
    Signature("ace-step", ("^lyric_encoder.", "^transformer_blocks.#.")),
    Signature("ltx-2", ("^transformer_blocks.#.(audio_attn1|audio_to_video_attn).",)),
    Signature("ltx-video", ("^patchify_proj$", "^transformer_blocks.#.attn1.to_q$")),
    Signature("ltx-video", ("^proj_in$", "^time_embed.linear$", "^transformer_blocks.#.attn1.to_q$")),
    Signature("hidream", ("^double_stream_blocks.#.block.attn1?.",)),
    Signature("anima", ("^llm_adapter.", "^blocks.#.adaln_modulation_self_attn.#$")),
    Signature("cosmos-predict2", ("^blocks.#.adaln_modulation_self_attn.#$",)),
    Signature("cosmos-predict2", ("^time_embed.t_embedder.", "^transformer_blocks.#.norm1.linear_1$")),
    Signature("cosmos", ("^blocks.block#.blocks.#.",)),
    Signature("kandinsky-6", ("^visual_(transformer_)?blocks.#.va_cross_attention.",)),
    Signature("kandinsky-5", ("^visual_transformer_blocks.#.", "^text_transformer_blocks.#.")),
    Signature("cogvideox", ("^patch_embed.text_proj$", "^(transformer_)?blocks.#.norm1.linear$")),
    Signature("mochi", ("^t5_yproj$", "^blocks.#.attn.qkv_[xy]$")),
    Signature("mochi", ("^time_embed.pooler.", "^time_embed.caption_proj$")),
    Signature("prism", ("^fusion_blocks.#.(video|audio)_block.", "^video_dit_2.")),
    Signature("sensenova-u1.5", ("^fm_modules.vision_model_mot_gen.", "self_attn.q_proj_mot_gen$")),
    Signature("yue2", ("^vae2llm$", "^llm2vae$", "^latent_pos_embed.pe$")),
    Signature("ming-image", ("^__ming_image__$", LUMINA)),
    Signature("hunyuan-3d", ("^latent_in$", "^cond_in$", "^double_blocks.#.")),
    Signature("flux2", ("^double_stream_modulation_img.(lin|linear)$",)),
    Signature("chroma", ("^distilled_guidance_layer.",)),
    Signature("hunyuan-video", ("^(txt_in.individual_token_refiner|context_embedder.token_refiner).",)),
    Signature("flux", (FLUX, "^(double_blocks|transformer_blocks).#.", "^(img_in|x_embedder)$")),
    Signature("sd3", ("^joint_blocks.#.(x_block|context_block).",)),
    Signature("sd3", ("^transformer_blocks.#.attn.add_q_proj$", "^pos_embed.proj$", "^context_embedder$")),
    Signature("qwen-image", ("^txt_norm$", QWEN)),
    Signature("wan", ("^head.modulation$", "^blocks.#.(self|cross)_attn.")),
    Signature("wan", ("^condition_embedder.", "^blocks.#.attn2.to_q$", "^scale_shift_table$")),
    Signature("lumina2", ("^cap_embedder.1$", LUMINA_MODULATION)),
    Signature("lumina2", ("^cap_embedder.1$", LUMINA), sizes=(Size(LUMINA_WIDTH, "in", (2304,)),)),
    Signature("lumina2", ("^time_caption_embed.caption_embedder.", "^layers.#.attn.to_q$")),
    Signature("z-image", ("^cap_embedder.1$", LUMINA)),
    Signature("svd", (UNET, CONTEXT, "time_(stack|mix)")),
    Signature("sd2", (UNET, CONTEXT), sizes=(Size(CONTEXT, "in", (1024,)),)),
    Signature("sdxl", (UNET, CONTEXT, "^(label_emb.0.0|add_embedding.linear_1)$")),
    Signature("sd15", (UNET, CONTEXT, "^(input_blocks.0.0|conv_in)$")),
)

LORA_SIGNATURES = (
    Signature("svd", (UNET, "time_(stack|mix)")),
    Signature("sdxl", (UNET,), sizes=(Size(CONTEXT, "in", (2048,)),)),
    Signature("sd2", (UNET,), sizes=(Size(CONTEXT, "in", (1024,)),)),
    Signature("sd15", (UNET,), sizes=(Size(CONTEXT, "in", (768,)),)),
    Signature("sdxl", (UNET, ".transformer_blocks.[1-9].")),
    Signature("sd15", ("^(input_blocks.[12].1|(input|output)_blocks.(9|1#)|down_blocks.0.attentions|up_blocks.3).",)),
    Signature("krea-2", ("^(blocks|txtfusion.(layerwise|refiner)_blocks).#.attn.w[qkvo]$",)),
    Signature(
        "krea-2", ("^(transformer_blocks|text_fusion.(layerwise|refiner)_blocks).#.(attn.to_gate|ff.(gate|up|down))$",)
    ),
    Signature("minimax-h3", ("^(token_refiner.)?blocks.#.attn.qkv_proj$",)),
    Signature("mochi", ("^blocks.#.(attn.(qkv|proj)_[xy]|mod_[xy]|mlp_[xy].w[12])$",)),
    Signature("hunyuan-dit", ("^blocks.#.(attn1.Wqkv|attn2.kv_proj|default_modulation.1|ff.net.(0.proj|2))$",)),
    Signature("hunyuan-dit", (), sizes=(Size("^blocks.#.attn1.to_[qkv]$", "in", (1408,)),)),
    Signature("cosmos", ("^blocks.block#.blocks.#.",)),
    Signature("kandinsky-6", ("^visual_(transformer_)?blocks.#.(va|av)_(cross_attention|modulation).",)),
    Signature("kandinsky-6", ("^visual_(transformer_)?blocks.#.(video|audio)(T|_dec_block).",)),
    Signature("prism", ("^fusion_blocks.#.(video|audio)_block.",)),
    Signature("sensenova-u1.5", ("_mot_gen$|_mot_gen.(gate|up|down)_proj$",)),
    Signature("ernie-image", ("^layers.#.(self_attention.to_[qkv]|mlp.linear_fc2)$",)),
    Signature("boogu", ("^(double|single)_stream_layers.#.",)),
    Signature("joyimage", ("^double_blocks.#.attn.(img|txt)_attn_(qkv|proj)$",)),
    Signature("lens", ("^transformer_blocks.#.((img|txt)_mlp.w[123]|attn.(img|txt)_qkv)$",)),
    Signature("qwen-image-2.1", ("^transformer_blocks.#.img_mlp.(gate_up|gate_layer)$",)),
    Signature("ovis-image", ("^double_blocks.#.(img|txt)_mlp.(gate|up|down)_proj$",)),
    Signature(
        "ideogram-4",
        ("^layers.#.attention.",),
        sizes=(Size("^layers.#.(attention.(o|to_q|to_out.0))$", "in", (4608,)),),
    ),
    Signature("flux2", (FLUX2,)),
    Signature("flux2", (), sizes=(Size(STREAM_IN, "out/in", (9,)),)),
    Signature("flux2", (), sizes=(Size(STREAM_OUT, "in/out", (4,)),)),
    Signature("flux2", (), sizes=(Size(GATED_IN, "out/in", (6,)),)),
    Signature("flux2", (), sizes=(Size(GATED_OUT, "in/out", (3,)),)),
    Signature("flux2", (FLUX,), sizes=(Size("^single_blocks.#.linear1$", "out/in", (9,)),)),
    Signature("flux2", (FLUX,), sizes=(Size("^single_blocks.#.linear2$", "in/out", (4,)),)),
    Signature("flux2", (FLUX,), sizes=(Size("^double_blocks.#.(img|txt)_mlp.0$", "out/in", (6,)),)),
    Signature("hunyuan-video", ("^txt_in.(individual_token_refiner|t_embedder|c_embedder|input_embedder).",)),
    Signature("hunyuan-video", ("^double_blocks.#.(img|txt)_(mlp.fc[12]|mod.linear)$",)),
    Signature("hunyuan-video", ("^single_blocks.#.modulation.linear$",)),
    # FLUX.1 has 19 and 38 blocks, HunyuanVideo 20 and 40, FLUX.2 8 and up to 48
    Signature("hunyuan-video", ("^(double_blocks.19|single(_transformer)?_blocks.3[89]).",), (f"{SINGLES}.4#.",)),
    Signature("hunyuan-video", ("^transformer_blocks.19.ff_context.",), sizes=(Size(MLP_IN, "in", (3072,)),)),
    Signature("hunyuan-video", ("^context_embedder.token_refiner.",)),
    Signature("chroma", ("^distilled_guidance_layer.",)),
    Signature("hunyuan-3d", (FLUX,), sizes=(Size(STREAMS_WIDTH, "in", (1024, 1536)),)),
    # attention of both streams alone may be of FLUX.1, FLUX.2 or HunyuanVideo
    Signature("flux", (FLUX,), sizes=(Size("^single_blocks.#.linear1$", "out/in", (7,)),)),
    Signature("flux", (FLUX,), sizes=(Size(SECOND_LINEAR, "in/out", (5,)),)),
    Signature("flux", (FLUX,), sizes=(Size("^double_blocks.#.(img|txt)_mlp.0$", "out/in", (4,)),)),
    Signature("flux", (FLUX,), sizes=(Size("^single_transformer_blocks.#.proj_mlp$", "out/in", (4,)),)),
    Signature("flux", ("^(double_blocks.#.(img|txt)_mod|single_blocks.#.modulation).lin$",)),
    Signature("flux", ("^single_transformer_blocks.#.norm.linear$",)),
    Signature("flux", ("^(double|single)_blocks.#.(processor.)?(qkv|proj)_lora[12]?$",)),
    Signature("flux", (), sizes=(Size(STREAM_IN, "out/in", (7,)),)),
    Signature("flux", (BOTH_STREAMS,), (".attn[12].",), (Size(MLP_IN, "in", (3072,)), Size(MLP_IN, "out/in", (4,)))),
    Signature("qwen-image", (), sizes=(Size(f"{QWEN[:-1]}.(1|net.0.proj)$", "in", (3072,)),)),
    Signature("qwen-image", (), sizes=(Size(f"{QWEN[:-1]}.net.2$", "out", (3072,)),)),
    Signature("sd3", ("^joint_blocks.#.(x_block|context_block).",)),
    # attention alone: FLUX.1 has 19 such blocks, HunyuanVideo 20, Qwen-Image 60
    Signature("qwen-image", (), sizes=(Size("^transformer_blocks.[2-5]#.attn.(to|add)_([qkv]|out)", "in", (3072,)),)),
    Signature("sd3", (), sizes=(Size("^transformer_blocks.#.attn.(to_[qkv]|add_[qkv]_proj)$", "in", (1536, 2432)),)),
    Signature("wan", ("^blocks.#.((self|cross)_attn.([qkvo]|[kv]_img)|ffn.[02])$",)),
    Signature("wan", ("^blocks.#.(attn[12].(to_[qkv]|to_out.0|add_[kv]_proj)|ffn.net.(0.proj|2))$",)),
    Signature("lumina2", (LUMINA_MODULATION,)),
    Signature("z-image", (LUMINA_MODULATION.replace("1$", "0$"),)),
    Signature("lumina2", (LUMINA,), sizes=(Size(LUMINA_WIDTH, "in", (2304,)),)),
    Signature("z-image", (LUMINA,), sizes=(Size(LUMINA_WIDTH, "in", (3840,)),)),
)

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
    """Whether both families are known and a LoRA of one is not meant for the other."""
    return None not in (base, lora) and base != lora and not any({base, lora} <= each for each in RELATED)


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
    """A size or ratio of the first weight whose name fits, or None."""
    shape = next((shape for name, shape in shapes.items() if len(shape) > 1 and pattern.search(name)), None)
    if shape is None or 0 in shape:
        return None
    return {"out": shape[0], "in": shape[1], "out/in": shape[0] / shape[1], "in/out": shape[1] / shape[0]}[measure]


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern.replace(".", "[._]").replace("#", r"\d+"), re.MULTILINE)
