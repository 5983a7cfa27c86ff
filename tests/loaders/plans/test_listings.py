"""Keys that people posted where a program would not take their LoRA: each goes to its weight, with its rows.

A row names the thread, the family of the base and the keys of one file as they stand there, braces for alternatives;
beneath them the weights of ComfyUI's model, each with its first row and the number of rows where a key is a part of it.
"""

from __future__ import annotations

import re

import pytest
import torch
from lora_foundry.engine.plan import Target
from lora_foundry.engine.tensors import TensorInfo
from lora_foundry.loaders.names.dialects import split
from lora_foundry.loaders.names.lookup import BaseNames
from planner_parts import a_base, layer, pair, refused, tiny

W = 8
ROWS = {  # of the weights that hold several layers; every other has W
    "qkv": 3 * W, "linear1": 7 * W, "to_kv": 2 * W, "img_mlp.0": 4 * W, "txt_mlp.0": 4 * W,
}  # fmt: skip
LISTINGS = [
    ("Realtime-LoRA 16", "z-image", "diffusion_model.layers.0.attention.{to_k,to_out.0}.lora_A.weight",
     "layers.0.attention.qkv:8+8 layers.0.attention.out"),
    ("ComfyUI 11487", "z-image",
     "lora_unet_layers_0_{attention_to_v,attention_to_out_0,feed_forward_w3}.lora_down.weight",
     "layers.0.attention.qkv:16+8 layers.0.attention.out layers.0.feed_forward.w3"),
    ("comfyui-lycoris 6", "z-image", "lycoris_noise_refiner_0_{adaLN_modulation_0,attention_to_q}.hada_w1_a",
     "noise_refiner.0.adaLN_modulation.0 noise_refiner.0.attention.qkv:0+8"),
    ("stable-diffusion.cpp 1630", "z-image", "diffusion_model.layers.0.{adaLN_modulation.0,attention.to_v}.lokr_w1",
     "layers.0.adaLN_modulation.0 layers.0.attention.qkv:16+8"),
    ("musubi-tuner 847", "z-image", "lora_unet_layers_0_attention_{out,qkv}.lora_down.weight",
     "layers.0.attention.out layers.0.attention.qkv"),
    ("diffusers 14080", "z-image",
     "lora_unet_{all_final_layer_2-1_linear,all_x_embedder_2-1,t_embedder_mlp_0}.lora_down.weight",
     "final_layer.linear x_embedder t_embedder.mlp.0"),
    ("diffusers 14080", "qwen-image",
     "lora_unet_{time_text_embed_timestep_embedder_linear_1,transformer_blocks_0_txt_mod_1,norm_out_linear}.lora_up.weight",
     "time_text_embed.timestep_embedder.linear_1 transformer_blocks.0.txt_mod.1 norm_out.linear"),
    ("stable-diffusion.cpp 1131", "qwen-image",
     "lora_unet_transformer_blocks_0_{attn_to_add_out,img_mlp_net_0_proj}.lokr_w1",
     "transformer_blocks.0.attn.to_add_out transformer_blocks.0.img_mlp.net.0.proj"),
    ("ComfyUI 7792", "hidream", "lycoris_double_stream_blocks_0_block_ff_i_experts_{0_w1,1_w2}.lokr_w2",
     "double_stream_blocks.0.block.ff_i.experts.0.w1 double_stream_blocks.0.block.ff_i.experts.1.w2"),
    ("ComfyUI 5417", "sd3", "lycoris_transformer_blocks_0_attn2_{to_k,to_out_0}.lokr_w1",
     "joint_blocks.0.x_block.attn2.qkv:8+8 joint_blocks.0.x_block.attn2.proj"),
    ("ComfyUI 8285", "wan", "lycoris_blocks_0_{attn1_to_out_0,attn2_to_v,ffn_net_0_proj,ffn_net_2}.lokr_w1",
     "blocks.0.self_attn.o blocks.0.cross_attn.v blocks.0.ffn.0 blocks.0.ffn.2"),
    ("WanVideoWrapper 1421", "wan", "base_model.model.blocks.0.{cross_attn.k_img,self_attn.q}.lora_A.weight",
     "blocks.0.cross_attn.k_img blocks.0.self_attn.q"),
    ("ChronoEdit 22", "wan", "blocks.0.{cross_attn.k_img,ffn.0}.lora_A.default.weight",
     "blocks.0.cross_attn.k_img blocks.0.ffn.0"),
    ("Wan2GP 288", "wan", "blocks.0.cross_attn.{k,o}.dora_scale", "blocks.0.cross_attn.k blocks.0.cross_attn.o"),
    ("OneTrainer 1431", "ernie-image", "transformer.layers.0.{self_attention.to_out.0,mlp.linear_fc2}.lora_down.weight",
     "layers.0.self_attention.to_out.0 layers.0.mlp.linear_fc2"),
    ("ComfyUI 4060", "auraflow", "transformer.single_transformer_blocks.1.attn.{to_k,to_q}.lora_A.weight",
     "single_layers.1.attn.w1k single_layers.1.attn.w1q"),
    ("InvokeAI 9515", "krea-2", "transformer.transformer_blocks.0.attn.{to_gate,to_k}.magnitude",
     "blocks.0.attn.gate blocks.0.attn.wk"),
    ("flux 473", "flux", "single_transformer_blocks.0.proj_out.lora_A.lora_1.weight", "single_blocks.0.linear2"),
    ("diffusers 10599", "flux", "lora_transformer_single_transformer_blocks_0_attn_{to_k,to_v}.lora_down.weight",
     "single_blocks.0.linear1:8+8 single_blocks.0.linear1:16+8"),
    ("SimpleTuner 682", "flux", "transformer.transformer_blocks.0.attn.add_{q,v}_proj.lora_A.weight",
     "double_blocks.0.txt_attn.qkv:0+8 double_blocks.0.txt_attn.qkv:16+8"),
    ("ComfyUI 4347", "flux",
     "transformer.base_model.model.{proj_out,single_transformer_blocks.0.proj_mlp,transformer_blocks.0.norm1.linear}.lora_A.weight",
     "final_layer.linear single_blocks.0.linear1:24+32 double_blocks.0.img_mod.lin"),
    ("nunchaku 265", "flux", "lora_unet_{img_in,txt_in}.lora_down.weight", "img_in txt_in"),
    ("diffusers 13137", "flux2", "double_blocks.0.{img_attn.qkv,txt_mlp.2}.lokr_w1",
     "double_blocks.0.img_attn.qkv double_blocks.0.txt_mlp.2"),
    ("DoRA dynamic 24", "flux2",
     "transformer.transformer_blocks.0.{ff.linear_out,ff_context.linear_in,attn.add_k_proj}.lora_magnitude_vector",
     "double_blocks.0.img_mlp.2 double_blocks.0.txt_mlp.0 double_blocks.0.txt_attn.qkv:8+8"),
    ("kohya_ss 307", "sd15", "lora_unet_down_blocks_0_{downsamplers_0_conv,resnets_0_time_emb_proj}.lora_down.weight",
     "input_blocks.3.0.op input_blocks.1.0.emb_layers.1"),
    ("sd-scripts 275", "sd15", "lora_unet_input_blocks_4_0_{emb_layers_1,skip_connection}.lora_down.weight",
     "input_blocks.4.0.emb_layers.1 input_blocks.4.0.skip_connection"),
    ("sliders 41", "sdxl", "lora_unet_up_blocks_1_{resnets_2_conv_shortcut,upsamplers_0_conv}.lora_down.weight",
     "output_blocks.5.0.skip_connection output_blocks.5.2.conv"),
    ("ComfyUI 8669", "omnigen2", "{context_refiner,layers}.0.attn.to_out.0.lora_A.default.weight",
     "context_refiner.0.attn.to_out.0 layers.0.attn.to_out.0"),
    ("musubi-tuner 1073", "minimax-h3", "diffusion_model.blocks.0.{attn.qkv_proj,adaln_proj.linear}.lora_A.weight",
     "blocks.0.attn.qkv_proj blocks.0.adaln_proj.linear"),
    ("ACE-Step, ComfyUI 12638", "ace-step-1.5", "lycoris_layers_0_{self_attn_k_proj,mlp_gate_proj}.lokr_w1",
     "decoder.layers.0.self_attn.k_proj decoder.layers.0.mlp.gate_proj"),
    ("ComfyUI 2831", "stable-cascade", "lora_prior_unet_down_blocks_0_0_channelwise_0.lora_down.weight",
     "down_blocks.0.0.channelwise.0"),
]  # fmt: skip


def alternatives(keys: str) -> list[str]:
    found = re.search(r"\{([^}]*)\}", keys)
    return [keys.replace(found[0], each) for each in found[1].split(",")] if found else [keys]


def matcher_of(family: str, *weights: str) -> BaseNames:
    rows = {each: next((rows for end, rows in ROWS.items() if each.endswith(end)), W) for each in weights}
    tensors = {f"{each}.weight": TensorInfo(each, torch.float32, (rows[each], W)) for each in weights}
    return BaseNames(tensors, family)


def module_of(key: str) -> str:
    part = split(key)
    assert part is not None, key
    return part.module


@pytest.mark.parametrize("listing", LISTINGS, ids=lambda listing: f"{listing[0]} {listing[1]}")
def test_posted_keys_go_to_their_weights(listing):
    _, family, keys, weights = listing
    wanted = [each.partition(":")[::2] for each in weights.split()]
    matcher = matcher_of(family, *(name for name, _ in wanted))
    for key, (name, rows) in zip(alternatives(keys), wanted, strict=True):
        part = (0, *map(int, rows.split("+"))) if rows else None
        assert matcher.find(module_of(key)) == (Target(f"{name}.weight", part),), key


def test_one_matrix_of_three_layers_goes_to_each_of_them():  # ComfyUI 16234
    weights = [f"txtfusion.refiner_blocks.1.attn.w{each}" for each in "qkv"]
    found = matcher_of("krea-2", *weights).find(module_of("lycoris_text_fusion_refiner_blocks_1_attn_to_qkv.lokr_w2"))
    assert [(each.weight, each.part) for each in found] == [
        (f"{weight}.weight", (0, start, W)) for weight, start in zip(weights, (0, W, 2 * W), strict=True)
    ]


@pytest.mark.parametrize(
    ("spelling", "weights", "modules"),
    [
        # openvino 4180
        ("lora_unet.{}", ("blocks.0.self_attn.q", "blocks.1.self_attn.k"), None),
        # HunyuanVideo-I2V 61
        ("Hunyuan_video_I2V_lora_{}", ("double_blocks.0.img_attn.qkv", "single_blocks.3.linear2"), "_"),
        # sd-scripts 1463: their names end so
        ("lora_unet_{}_", ("transformer_blocks.0.attn.to_q", "proj_out"), "_"),
    ],
)
def test_what_a_posted_file_has_around_its_names_is_taken_off(spelling, weights, modules):
    base = a_base({f"{each}.weight": (W, W) for each in weights})
    made = layer(base, tiny(*(pair(spelling.format(each.replace(".", modules or ".")), W, W) for each in weights)))
    assert made.coverage.matched == 2 and not made.coverage.unmatched


def test_a_lora_of_a_language_model_is_refused_by_its_names():  # LISA 116
    base = a_base({"layers.0.attention.qkv.weight": (3 * W, W), "layers.0.feed_forward.w1.weight": (W, W)})
    said = refused(base, tiny(pair("base_model.model.model.layers.0.mlp.gate_proj", W, W)), "LF301")
    assert "0 of 1 modules" in said and "model.layers.0.mlp.gate_proj" in said
