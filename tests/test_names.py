"""Module names of files find the weights of a base, without a table per family."""

from __future__ import annotations

import pytest
from lora_foundry.loaders.names import BaseNames, bare, candidates, host_spellings, is_text_encoder, naming
from samples import BASES, DIALECTS, DIFFUSERS_BASES, ShapeSource


def base(shapes):
    return BaseNames(ShapeSource(shapes).tensors)


PREFIXES = ("", "diffusion_model.", "model.diffusion_model.", "transformer.", "base_model.model.", "pipe.dit.", "unet.")
TEXT_ENCODER = (
    "lora_te_text_model_x",
    "lora_te1_x",
    "text_encoder.x",
    "te1.x",
    "base_model.model.text_model.encoder.x",
)


@pytest.mark.parametrize(
    "prefix", [*PREFIXES, "base_model.model.transformer.", "base_model.model.model.diffusion_model."]
)
@pytest.mark.parametrize("module", ["transformer_blocks.0.attn.to_out.0", "transformer_blocks.0.txt_mlp.net.2"])
def test_dotted_names_with_any_prefix(prefix, module):
    names = base(BASES["qwen-image"])
    assert names.find(prefix + module).weight == module + ".weight"
    assert bare(prefix + module) == module


@pytest.mark.parametrize("prefix", ["lora_unet_", "lora_unet__", "lora_transformer_", "lycoris_"])
def test_flat_names_with_any_prefix(prefix):
    names = base(BASES["qwen-image"])
    assert names.find(prefix + "transformer_blocks_0_img_mlp_net_0_proj").weight.endswith("img_mlp.net.0.proj.weight")


def test_words_with_underscores_are_looked_up_not_split():
    names = base({"a.img_attn.qkv_b.weight": (2, 2)})
    assert names.find("lora_unet_a_img_attn_qkv_b").weight == "a.img_attn.qkv_b.weight"


def test_one_word_or_two():
    """diffusion-pipe writes HunyuanVideo's own ``img_attn_qkv`` where ComfyUI has ``img_attn.qkv``."""
    found = base(BASES["hunyuan-video"]).find("transformer.double_blocks.0.img_attn_qkv")
    assert found.weight == "double_blocks.0.img_attn.qkv.weight"


def test_two_weights_of_one_flat_name_match_neither():
    names = base({"a_b.c.weight": (2, 2), "a.b_c.weight": (2, 2)})
    assert names.find("lora_unet_a_b_c") is None
    assert names.find("a.b_c").weight == "a.b_c.weight"


def test_exact_name_wins_over_a_stripped_one():
    names = base({"transformer.blocks.0.q.weight": (2, 2), "blocks.0.q.weight": (2, 2)})
    assert names.find("transformer.blocks.0.q").weight == "transformer.blocks.0.q.weight"


def test_bias_is_no_target_and_a_parameter_without_suffix_is():
    names = base(BASES["wan"])
    assert names.find("blocks.0.ffn.0.bias") is None
    assert names.find("diffusion_model.blocks.0.modulation").weight == "blocks.0.modulation"
    assert names.find("nothing.like.it") is None and names.find("lora_unet_") is None and names.find("") is None


def test_attention_processor_names_on_a_diffusers_base():
    names = base(DIFFUSERS_BASES["sd15"])
    assert all(names.find(adapter) for adapter in ("unet." + m for m in DIALECTS["diffusers sd15 processors"].modules))


def test_candidates_start_with_the_name_itself_and_repeat_none():
    found = list(candidates("base_model.model.model.diffusion_model.blocks.0.q"))
    assert found[0] == "base_model.model.model.diffusion_model.blocks.0.q" and "blocks.0.q" in found
    assert len(found) == len(set(found))


@pytest.mark.parametrize(
    ("module", "key"),
    [
        ("blocks.0.self_attn.q", "diffusion_model.blocks.0.self_attn.q"),  # DiffSynth Wan
        ("base_model.model.single_transformer_blocks.0.attn.to_q", "transformer.single_transformer_blocks.0.attn.to_q"),
        ("lora_unet_layers_0_attention_to_q", "lycoris_layers_0_attention_to_q"),  # musubi Z-Image
        ("lora_unet__blocks_0_ffn_0", "lora_unet_blocks_0_ffn_0"),  # VideoX-Fun
        ("unet.down_blocks.0.attentions.0.attn1.to_q", "lora_unet_down_blocks_0_attentions_0_attn1_to_q"),
        ("unet.down_blocks.0.attn1.to_out.0", "unet.down_blocks.0.attn1.processor.to_out"),
        ("unet.down_blocks.0.attn1.processor.to_out", "lora_unet_down_blocks_0_attn1_to_out_0"),
    ],
)
def test_host_spellings_reach_a_key_the_host_knows(module, key):
    spelled = list(host_spellings(module))
    assert spelled[0] == module and key in spelled and len(spelled) == len(set(spelled))


@pytest.mark.parametrize("module", [*TEXT_ENCODER, "lora_te3_x", "text_encoder_2.x", "conditioner.x"])
def test_text_encoder_modules(module):
    assert is_text_encoder(module)


@pytest.mark.parametrize("module", ["lora_unet_text_embedding_0", "text_embedding.0", "txt_in", "transformer.te_x"])
def test_other_modules_are_not_text_encoder(module):
    assert not is_text_encoder(module)


def test_naming():
    assert {naming(BASES[family]) for family in ("sd15", "sdxl", "flux", "wan", "z-image", "sd3")} == {"original"}
    assert {naming(shapes) for shapes in DIFFUSERS_BASES.values()} == {"diffusers"}
    assert naming(["lora_unet_down_blocks_0_resnets_0_conv1"]) == "diffusers"
    assert naming(["something"]) is None
