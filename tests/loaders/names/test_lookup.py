"""Module names of files find the weights of a base: exact, flat, prefixed, and in every naming of the family."""

from __future__ import annotations

import pytest
from fixtures_bases import DIFFUSERS, NATIVE
from fixtures_dialects import FIXTURES
from lora_foundry.engine.plan import Target
from lora_foundry.loaders.names.dialects import split
from lora_foundry.loaders.names.lookup import (
    MAX_SPELLINGS,
    BaseNames,
    bare,
    candidates,
    host_spellings,
    host_text_spellings,
    is_text_encoder,
)
from samples import BASES, DIALECTS, DIFFUSERS_BASES, ShapeSource


def base(shapes, family=None):
    return BaseNames(ShapeSource(shapes).tensors, family)


def weight(names, module):
    """The one whole weight a module goes to."""
    (target,) = names.find(module)
    assert target == Target(target.weight)
    return target.weight


PREFIXES = ("", "diffusion_model.", "model.diffusion_model.", "transformer.", "base_model.model.", "pipe.dit.", "unet.")
TEXT_ENCODER = (
    "lora_te_text_model_x",
    "lora_te1_x",
    "lora_text_encoder_2_x",
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
    assert weight(names, prefix + module) == module + ".weight"
    assert bare(prefix + module) == module


@pytest.mark.parametrize("prefix", ["lora_unet_", "lora_unet__", "lora_transformer_", "lycoris_"])
def test_flat_names_with_any_prefix(prefix):
    names = base(BASES["qwen-image"])
    found = weight(names, prefix + "transformer_blocks_0_img_mlp_net_0_proj")
    assert found == "transformer_blocks.0.img_mlp.net.0.proj.weight"


def test_words_with_underscores_are_looked_up_not_split():
    names = base({"a.img_attn.qkv_b.weight": (2, 2)})
    assert weight(names, "lora_unet_a_img_attn_qkv_b") == "a.img_attn.qkv_b.weight"


def test_one_word_or_two():
    """diffusion-pipe writes HunyuanVideo's own ``img_attn_qkv`` where ComfyUI has ``img_attn.qkv``."""
    found = weight(base(BASES["hunyuan-video"]), "transformer.double_blocks.0.img_attn_qkv")
    assert found == "double_blocks.0.img_attn.qkv.weight"


def test_two_weights_of_one_flat_name_match_neither():
    names = base({"a_b.c.weight": (2, 2), "a.b_c.weight": (2, 2)})
    assert names.find("lora_unet_a_b_c") == ()
    assert weight(names, "a.b_c") == "a.b_c.weight"


def test_exact_name_wins_over_a_stripped_one():
    names = base({"transformer.blocks.0.q.weight": (2, 2), "blocks.0.q.weight": (2, 2)})
    assert weight(names, "transformer.blocks.0.q") == "transformer.blocks.0.q.weight"


def test_an_own_name_wins_over_another_spelling_of_a_different_weight():
    for own in ("transformer_blocks.0.attn.to_q.weight", "transformer_blocks.0.attn_to_q.weight"):
        names = base({**NATIVE["flux"], own: (2, 2)}, "flux")
        assert weight(names, "lora_unet_transformer_blocks_0_attn_to_q") == own


def test_a_parameter_without_suffix_is_a_target():
    names = base(BASES["wan"])
    assert weight(names, "diffusion_model.blocks.0.modulation") == "blocks.0.modulation"
    assert names.find("nothing.like.it") == names.find("lora_unet_") == names.find("") == ()


@pytest.mark.parametrize("module", ["diffusion_model.blocks.0.ffn.0.bias", "lora_unet_blocks_0_ffn_0.bias"])
def test_a_bias_is_found_beside_its_weight(module):
    names = base(NATIVE["wan"], "wan")
    assert weight(names, module) == "blocks.0.ffn.0.bias"
    assert names.find("blocks.0.self_attn.norm_q.bias") == () and names.find(".bias") == ()


def test_the_bias_of_a_part_has_its_rows():
    (target,) = base(NATIVE["flux"], "flux").find("transformer.transformer_blocks.0.attn.to_k.bias")
    assert target == Target("double_blocks.0.img_attn.qkv.bias", (0, 3072, 3072))
    targets = base(DIFFUSERS["flux"], "flux").find("lora_unet_double_blocks_0_img_attn_qkv.bias")
    assert [t.weight.split(".")[-2:] for t in targets] == [[f"to_{part}", "bias"] for part in "qkv"]


def modules_of(shapes):
    """What the dialects' table says a file speaks of, the diffusion model's modules only."""
    parts = [part for part in map(split, shapes) if part]
    return [part.target for part in parts if not is_text_encoder(part.module)]


@pytest.mark.parametrize("bases", [NATIVE, DIFFUSERS], ids=["native base", "diffusers base"])
@pytest.mark.parametrize("fixture", FIXTURES)
def test_every_module_of_every_dialect_finds_rows_of_its_shape(fixture, bases):
    """Both ways: names of diffusers, of ComfyUI and of the trainers, on a base in either naming."""
    family, shapes = FIXTURES[fixture]
    names, tensors = base(bases[family], family), bases[family]
    modules = modules_of(shapes)
    assert modules
    for module in modules:
        targets = names.find(module)
        assert targets, module
        assert all(target.weight in tensors for target in targets)
        out = next((shape[0] for name, shape in shapes.items() if name in factors_out(module)), None)
        rows = [(target.slice or (0, 0, tensors[target.weight][0]))[2] for target in targets]
        assert out is None or sum(rows) == out, module


def factors_out(module):
    """Names of the factor whose first size is that of the weight."""
    return [module + end for end in (".lora_up.weight", ".lora_B.weight", ".lora_B.default.weight", ".up.weight")]


def test_attention_processor_names_on_a_diffusers_base():
    names = base(DIFFUSERS_BASES["sd15"])
    assert all(names.find(adapter) for adapter in ("unet." + m for m in DIALECTS["diffusers sd15 processors"].modules))


def test_candidates_start_with_the_name_itself_and_repeat_none():
    found = list(candidates("base_model.model.model.diffusion_model.blocks.0.q"))
    assert found[0] == "base_model.model.model.diffusion_model.blocks.0.q" and "blocks.0.q" in found
    assert len(found) == len(set(found))
    assert len(list(candidates("transformer." * 1000 + "q"))) <= MAX_SPELLINGS


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


FC1 = "text_model.encoder.layers.0.mlp.fc1"


@pytest.mark.parametrize(
    ("module", "key"),
    [
        ("text_encoder." + FC1, "lora_te1_text_model_encoder_layers_0_mlp_fc1"),
        ("lora_te_text_model_encoder_layers_0_mlp_fc1", "lora_te1_text_model_encoder_layers_0_mlp_fc1"),
        ("base_model.model." + FC1, "lora_te_text_model_encoder_layers_0_mlp_fc1"),  # raw PEFT on a CLIP
        ("clip_l.transformer." + FC1, "lora_te1_text_model_encoder_layers_0_mlp_fc1"),
        ("te2." + FC1, "lora_te2_text_model_encoder_layers_0_mlp_fc1"),
        ("clip_g." + FC1, "lora_te2_text_model_encoder_layers_0_mlp_fc1"),
        (
            "text_encoder_2.encoder.block.0.layer.0.SelfAttention.q",  # T5 of FLUX as diffusers numbers it
            "lora_te2_encoder_block_0_layer_0_SelfAttention_q",
        ),
        ("text_encoder_3.encoder.block.0.layer.0.SelfAttention.q", "lora_te3_encoder_block_0_layer_0_SelfAttention_q"),
    ],
)
def test_text_encoder_modules_reach_a_key_the_host_knows(module, key):
    spelled = list(host_text_spellings(module))
    assert spelled[0] == module and key in spelled
    assert list(host_text_spellings("blocks.0.q")) == ["blocks.0.q"]


@pytest.mark.parametrize(
    "module", ["te2." + FC1, "clip_g." + FC1, "text_encoder_3.encoder.block.0.layer.0.Attention.q"]
)
def test_only_the_first_text_encoder_goes_by_a_name_without_number(module):
    assert not any(name.startswith("lora_te_") for name in host_text_spellings(module))
