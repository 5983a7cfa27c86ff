"""Families that few LoRAs are for: names of diffusers find every weight with its rows, and the base has its name."""

from __future__ import annotations

import pytest
from lora_foundry.engine.plan import Target
from lora_foundry.loaders.bases.families import detect_base, detect_lora
from lora_foundry.loaders.names.blocks import block_of
from lora_foundry.loaders.names.lookup import BaseNames
from planner_parts import a_base, layer, pair, tiny

W = 8
SWAP = "swap_scale_shift"
Rows = tuple[int, int, int]
MOCHI = {
    "t5_yproj": (W, 5), "t5_y_embedder.to_kv": (2 * W, 5), "final_layer.mod": (2 * W, W),
    "blocks.0.attn.qkv_x": (3 * W, W), "blocks.0.attn.qkv_y": (3 * W, 4), "blocks.0.attn.proj_y": (4, W),
    "blocks.0.mlp_x.w1": (6 * W, W), "blocks.0.mlp_y.w2": (4, 6), "blocks.1.mod_y": (4, W),
    "blocks.0.attn.q_norm_y": (2,),
}  # fmt: skip
HUNYUAN_DIT = {
    "mlp_t5.0": (4 * W, 5), "extra_embedder.2": (W, W), "final_layer.adaLN_modulation.1": (2 * W, W),
    "pooler.c_proj": (W, 5), "blocks.0.attn1.Wqkv": (3 * W, W), "blocks.0.attn2.kv_proj": (2 * W, 5),
    "blocks.0.attn2.q_proj": (W, W), "blocks.0.default_modulation.1": (W, W), "blocks.0.norm1": (W,),
    "blocks.0.norm3": (W,), "blocks.0.attn1.q_norm": (2,),
}  # fmt: skip
COSMOS1 = {
    "x_embedder.proj.1": (W, 5), "affline_norm": (W,), "extra_pos_embedder.pos_emb_h": (3, W),
    "blocks.block0.blocks.0.block.attn.to_q.0": (W, W), "blocks.block0.blocks.0.block.attn.to_q.1": (2,),
    "blocks.block0.blocks.1.block.attn.to_v.0": (W, 5), "blocks.block0.blocks.1.block.attn.to_out.0": (W, W),
    "blocks.block0.blocks.2.block.layer1": (4 * W, W), "blocks.block0.blocks.2.adaLN_modulation.2": (3 * W, 4),
    "final_layer.adaLN_modulation.1": (4, W),
}  # fmt: skip
KANDINSKY6 = {
    "video_time_embeddings.in_layer": (W, 4), "video_text_transformer_blocks.0.self_attention.to_key": (W, W),
    "audio_text_transformer_blocks.0.feed_forward.in_layer": (4 * W, W), "audio_outLayer.out_layer": (5, W),
    "visual_blocks.0.videoT.cross_attention.to_query": (W, W), "visual_blocks.0.audioT.feed_forward.out_layer": (W, W),
    "visual_blocks.0.va_cross_attention.to_value": (W, 4), "visual_blocks.0.av_modulation.out_layer": (W, W),
}  # fmt: skip
KREA2 = {
    "txtfusion.projector": (1, 12), "blocks.0.attn.wq": (W, W), "blocks.0.prenorm.scale": (W,),
    "blocks.0.attn.qknorm.knorm.scale": (2,), "txtfusion.refiner_blocks.1.postnorm.scale": (W,),
    "txtfusion.layerwise_blocks.0.attn.qknorm.qnorm.scale": (2,), "txtmlp.0.scale": (W,), "last.norm.scale": (W,),
    "last.modulation.lin": (2, W),
}  # fmt: skip
ACE_STEP = {
    "decoder.layers.0.cross_attn.k_proj": (W, W), "decoder.layers.0.self_attn.o_proj": (W, W),
    "decoder.layers.0.self_attn.q_norm": (2,), "decoder.proj_in.1": (W, 5, 2),
    "encoder.lyric_encoder.layers.0.self_attn.q_proj": (W, W),
}  # fmt: skip
FAMILIES = {
    "mochi": MOCHI, "hunyuan-dit": HUNYUAN_DIT, "cosmos": COSMOS1, "kandinsky-6": KANDINSKY6, "krea-2": KREA2,
    "ace-step-1.5": ACE_STEP,
}  # fmt: skip

# (family, diffusers' name, ComfyUI's, rows of it, how they are put in order)
NAMES: list[tuple[str, str, str, Rows | None, str | None]] = [
    ("mochi", "transformer_blocks.0.attn1.to_v", "blocks.0.attn.qkv_x", (0, 2 * W, W), None),
    ("mochi", "transformer_blocks.0.attn1.add_k_proj", "blocks.0.attn.qkv_y", (0, W, W), None),
    ("mochi", "transformer_blocks.0.attn1.to_add_out", "blocks.0.attn.proj_y", None, None),
    ("mochi", "transformer_blocks.0.attn1.norm_added_q", "blocks.0.attn.q_norm_y", None, None),
    ("mochi", "transformer_blocks.0.ff.net.0.proj", "blocks.0.mlp_x.w1", None, SWAP),
    ("mochi", "transformer_blocks.0.ff_context.net.2", "blocks.0.mlp_y.w2", None, None),
    ("mochi", "transformer_blocks.1.norm1_context.linear_1", "blocks.1.mod_y", None, None),
    ("mochi", "norm_out.linear", "final_layer.mod", None, SWAP),
    ("mochi", "time_embed.pooler.to_kv", "t5_y_embedder.to_kv", None, None),
    ("hunyuan-dit", "blocks.0.attn1.to_k", "blocks.0.attn1.Wqkv", (0, W, W), None),
    ("hunyuan-dit", "blocks.0.attn2.to_v", "blocks.0.attn2.kv_proj", (0, W, W), None),
    ("hunyuan-dit", "blocks.0.attn2.to_q", "blocks.0.attn2.q_proj", None, None),
    ("hunyuan-dit", "blocks.0.norm1.linear", "blocks.0.default_modulation.1", None, None),
    ("hunyuan-dit", "blocks.0.norm1.norm", "blocks.0.norm1", None, None),
    ("hunyuan-dit", "text_embedder.linear_1", "mlp_t5.0", None, None),
    ("hunyuan-dit", "time_extra_emb.pooler.c_proj", "pooler.c_proj", None, None),
    ("hunyuan-dit", "norm_out.linear", "final_layer.adaLN_modulation.1", None, SWAP),
    ("cosmos", "transformer_blocks.0.attn1.to_q", "blocks.block0.blocks.0.block.attn.to_q.0", None, None),
    ("cosmos", "transformer_blocks.0.attn1.norm_q", "blocks.block0.blocks.0.block.attn.to_q.1", None, None),
    ("cosmos", "transformer_blocks.0.attn2.to_out.0", "blocks.block0.blocks.1.block.attn.to_out.0", None, None),
    ("cosmos", "transformer_blocks.0.ff.net.0.proj", "blocks.block0.blocks.2.block.layer1", None, None),
    ("cosmos", "transformer_blocks.0.norm3.linear_2", "blocks.block0.blocks.2.adaLN_modulation.2", None, None),
    ("cosmos", "learnable_pos_embed.pos_emb_h", "extra_pos_embedder.pos_emb_h", None, None),
    ("cosmos", "time_embed.norm", "affline_norm", None, None),
    ("kandinsky-6", "visual_transformer_blocks.0.video_dec_block.cross_attention.to_query",
     "visual_blocks.0.videoT.cross_attention.to_query", None, None),
    ("kandinsky-6", "visual_transformer_blocks.0.audio_dec_block.feed_forward.net.2",
     "visual_blocks.0.audioT.feed_forward.out_layer", None, None),
    ("kandinsky-6", "visual_transformer_blocks.0.av_modulation.out_layer", "visual_blocks.0.av_modulation.out_layer",
     None, None),
    ("kandinsky-6", "video_text_transformer_blocks.0.attn.to_key",
     "video_text_transformer_blocks.0.self_attention.to_key", None, None),
    ("kandinsky-6", "video_time_embeddings.timestep_embedder.linear_1", "video_time_embeddings.in_layer", None, None),
    ("krea-2", "transformer_blocks.0.norm1", "blocks.0.prenorm.scale", None, None),
    ("krea-2", "transformer_blocks.0.attn.norm_k", "blocks.0.attn.qknorm.knorm.scale", None, None),
    ("krea-2", "text_fusion.refiner_blocks.1.norm2", "txtfusion.refiner_blocks.1.postnorm.scale", None, None),
    ("krea-2", "text_fusion.layerwise_blocks.0.attn.norm_q", "txtfusion.layerwise_blocks.0.attn.qknorm.qnorm.scale",
     None, None),
    ("krea-2", "txt_in.norm", "txtmlp.0.scale", None, None),
    ("krea-2", "final_layer.scale_shift_table", "last.modulation.lin", None, None),
    ("ace-step-1.5", "layers.0.cross_attn.to_k", "decoder.layers.0.cross_attn.k_proj", None, None),
    ("ace-step-1.5", "layers.0.self_attn.to_out.0", "decoder.layers.0.self_attn.o_proj", None, None),
    ("ace-step-1.5", "layers.0.self_attn.norm_q", "decoder.layers.0.self_attn.q_norm", None, None),
    ("ace-step-1.5", "proj_in_conv", "decoder.proj_in.1", None, None),
]  # fmt: skip
NO_WEIGHT = ("scale", "lin", "pos_emb_h")  # last words of parameters


def stored(name: str) -> str:
    """The tensor of a module in ComfyUI's file."""
    return name if name.endswith(NO_WEIGHT) else f"{name}.weight"


@pytest.mark.parametrize(("family", "theirs", "ours", "rows", "order"), NAMES, ids=[f"{n[0]} {n[1]}" for n in NAMES])
@pytest.mark.parametrize("spelling", ["transformer.{}", "base_model.model.{}", "lycoris_{flat}", "{}"])
def test_a_name_of_diffusers_means_these_rows(spelling, family, theirs, ours, rows, order):
    tensors = a_base({stored(name): shape for name, shape in FAMILIES[family].items()}).source.tensors
    names = BaseNames(tensors, family)
    found = names.find(spelling.format(theirs, flat=theirs.replace(".", "_")))
    assert found == (Target(stored(ours), rows, order),)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_base_has_its_name(family):
    assert (
        detect_base(a_base({stored(name): shape for name, shape in FAMILIES[family].items()}).source.tensors) == family
    )


@pytest.mark.parametrize(
    ("family", "names"),
    [
        ("mochi", ["time_embed.pooler.to_q", "time_embed.caption_proj", "transformer_blocks.0.attn1.to_q"]),
        ("hunyuan-dit", ["time_extra_emb.pooler.q_proj", "text_embedder.linear_1", "blocks.0.attn1.to_q"]),
        ("kandinsky-6", ["visual_transformer_blocks.0.va_cross_attention.to_key"]),
        ("prism", ["fusion_blocks.0.video_block.self_attn.q", "video_dit_2.blocks.0.self_attn.q"]),
        ("sensenova-u1.5", ["fm_modules.vision_model_mot_gen.embeddings.patch_embedding",
                            "language_model.model.layers.0.self_attn.q_proj_mot_gen"]),
        ("yue2", ["model.layers.0.self_attn.qkv_proj", "vae2llm", "llm2vae", "latent_pos_embed.pe"]),
        ("ming-image", ["__ming_image__", "cap_embedder.1", "layers.0.attention.qkv"]),
    ],
)  # fmt: skip
def test_newer_models_and_files_of_diffusers_have_their_names(family, names):
    assert detect_base(a_base({f"{name}.weight": (3840, 3840) for name in names}).source.tensors) == family


@pytest.mark.parametrize(
    ("module", "family"),
    [
        ("diffusion_model.blocks.3.attn.qkv_y", "mochi"), ("blocks.3.mlp_x.w2", "mochi"),
        ("lora_unet_blocks_3_attn1_Wqkv", "hunyuan-dit"), ("base_model.model.blocks.0.attn2.kv_proj", "hunyuan-dit"),
        ("diffusion_model.blocks.block3.blocks.1.block.attn.to_q.0", "cosmos"),
        ("transformer.visual_transformer_blocks.2.audio_dec_block.self_attention.to_query", "kandinsky-6"),
        ("diffusion_model.fusion_blocks.2.audio_block.ffn.0", "prism"),
        ("language_model.model.layers.0.mlp_mot_gen.gate_proj", "sensenova-u1.5"),
        ("transformer.visual_transformer_blocks.2.self_attention.to_query", None),  # of Kandinsky 5, by its base alone
    ],
)  # fmt: skip
def test_a_lora_tells_its_family_by_names_that_no_other_has(module, family):
    assert detect_lora({module: (W, W)}) == family


def test_a_lora_of_mochi_in_diffusers_names_is_laid_as_a_whole():
    base = a_base({f"{name}.weight": shape for name, shape in MOCHI.items()})
    modules = [pair(f"transformer.transformer_blocks.0.attn1.{part}", W, W) for part in ("to_q", "to_k", "to_v")]
    made = layer(base, tiny(*modules))
    assert made.coverage.matched == 3 and not made.coverage.unmatched
    assert [finding.text for finding in made.findings] == ["LF305.none"]


@pytest.mark.parametrize(
    ("family", "weight", "block"),
    [("cosmos", "blocks.block7.blocks.0.block.attn.to_q.0.weight", "block.7"),
     ("mochi", "blocks.7.mod_x.weight", "block.7"),
     ("kandinsky-6", "visual_blocks.3.videoT.self_attention.to_key.weight", "visual.3")],
)  # fmt: skip
def test_blocks(family, weight, block):
    assert block_of(weight, family) == block
