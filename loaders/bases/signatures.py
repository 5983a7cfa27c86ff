"""What shows which family a base or a LoRA is of: tables of names and sizes, the first row that fits wins.

Patterns are regular expressions with two short forms: ``.`` is a separator (a dot or an underscore, so flat names fit
too), ``#`` a number. They are searched in names without prefixes and without ``.weight``. Ratios of sizes are preferred
to sizes, so that models of any width are told apart.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

OR = " or "  # between the families that a LoRA may be of, where names and shapes do not tell them apart


@dataclass(frozen=True)
class Size:
    """A condition on the first weight whose name fits: its size or ratio ``measure`` is one of ``values``.

    ``dims`` is how many sizes it has, ``blocks`` how many different beginnings fit.
    """

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
NOT_SDXL = "^(input_blocks.[12].1|(input|output)_blocks.(9|1#)|down_blocks.0.attentions|up_blocks.3)."
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

# FLUX.1 and HunyuanVideo have these names and widths in common; attention of both streams alone may be FLUX.2's, too.
FLUX_OR_HUNYUAN = f"flux{OR}hunyuan-video"
SHARED = (
    Signature(FLUX_OR_HUNYUAN, (FLUX,), sizes=(Size("^single_blocks.#.linear1$", "out/in", (7,)),)),
    Signature(FLUX_OR_HUNYUAN, (FLUX,), sizes=(Size(SECOND_LINEAR, "in/out", (5,)),)),
    Signature(FLUX_OR_HUNYUAN, (FLUX,), sizes=(Size("^double_blocks.#.(img|txt)_mlp.0$", "out/in", (4,)),)),
    Signature(FLUX_OR_HUNYUAN, (FLUX,), sizes=(Size("^single_transformer_blocks.#.proj_mlp$", "out/in", (4,)),)),
    Signature(FLUX_OR_HUNYUAN, ("^(double_blocks.#.(img|txt)_mod|single_blocks.#.modulation).lin$",)),
    Signature(FLUX_OR_HUNYUAN, ("^single_transformer_blocks.#.norm.linear$",)),
    Signature(
        FLUX_OR_HUNYUAN, (BOTH_STREAMS,), (".attn[12].",), (Size(MLP_IN, "in", (3072,)), Size(MLP_IN, "out/in", (4,)))
    ),
)
# What only one of the two has: its input layers, or so many blocks of a kind and no more.
ONLY_FLUX = (
    (("^(img_in|txt_in|x_embedder|context_embedder)$",), ()),
    ((), (Size(f"{SINGLES}.#.", "blocks", (38,)),)),
    ((), (Size("^(double|transformer)_blocks.#.", "blocks", (19,)),)),
)
SURELY_FLUX = tuple(
    replace(each, family="flux", needs=(*each.needs, *names), sizes=(*each.sizes, *sizes))
    for each in SHARED
    for names, sizes in ONLY_FLUX
)

LORA_SIGNATURES = (
    Signature("svd", (UNET, "time_(stack|mix)")),
    Signature("sdxl", (UNET,), sizes=(Size(CONTEXT, "in", (2048,)),)),
    Signature("sd2", (UNET,), sizes=(Size(CONTEXT, "in", (1024,)),)),
    Signature("sd15", (UNET,), sizes=(Size(CONTEXT, "in", (768,)),)),
    Signature("sdxl", (UNET, ".transformer_blocks.[1-9].")),
    Signature("sd15", (NOT_SDXL,), sizes=(Size(".proj_(in|out)$", "dims", (4,)),)),  # a Linear in SD 2
    Signature(f"sd15{OR}sd2", (NOT_SDXL,)),
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
    Signature("flux", ("^(double|single)_blocks.#.(processor.)?(qkv|proj)_lora[12]?$",)),
    Signature("flux", (), sizes=(Size(STREAM_IN, "out/in", (7,)),)),
    *SURELY_FLUX,
    *SHARED,
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
