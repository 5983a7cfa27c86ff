"""FP8 codes and scales against a table of the format's own values, and which weights stay in high precision."""

from __future__ import annotations

import pytest
import torch
from fakes import FP8_VALUES, bits, noise, reference_fp8
from lora_foundry.engine.codes import Format
from lora_foundry.engine.errors import FoundryError
from lora_foundry.engine.formats import DEFAULT, finite_amax, quantize
from lora_foundry.engine.formats import FORMATS as BY_NAME
from lora_foundry.engine.quantize import check_patterns, is_quantizable, keeps, parse_keep
from lora_foundry.engine.tensors import TensorInfo

FORMATS = [torch.float8_e4m3fn, torch.float8_e5m2]
BY_DTYPE = {each.dtype: each for each in BY_NAME.values() if type(each) is Format}


@pytest.mark.parametrize("dtype", FORMATS)
def test_the_table_of_the_tests_is_the_format(dtype):
    """The reference is worth something: every finite code decodes to the value the table gives it."""
    table = FP8_VALUES[dtype]
    codes = torch.arange(len(table), dtype=torch.uint8).view(dtype)
    assert torch.equal(codes.to(torch.float64), table)
    assert float(table[-1]) == BY_DTYPE[dtype].largest


@pytest.mark.parametrize("dtype", FORMATS)
@pytest.mark.parametrize(
    ("shape", "rms", "heavy"), [((512, 512), 0.02, False), ((256, 512), 30.0, True), ((64, 64), 1e-9, True)]
)
def test_codes_and_scale_are_the_float64_ones(dtype, shape, rms, heavy):
    weight = noise(shape, rms, 4, torch.float32)
    if heavy:
        weight = weight * (1 + weight.square() / rms**2)
    codes, scale = quantize(weight, BY_DTYPE[dtype])
    want, exact_scale = reference_fp8(weight.double(), dtype)
    assert codes.dtype == dtype and codes.shape == weight.shape
    assert scale.dtype == torch.float32 and scale.shape == ()
    assert abs(float(scale) / exact_scale - 1) < 1e-6
    assert float((bits(codes) != want).double().mean()) <= 1e-3
    torch.testing.assert_close(
        BY_DTYPE[dtype].decode(codes, scale), codes.to(torch.float32) * float(scale), rtol=0, atol=0
    )


@pytest.mark.parametrize("dtype", FORMATS)
def test_the_largest_weight_becomes_the_largest_code(dtype):
    for seed in range(50):
        weight = noise((8, 8), 10.0 ** (seed % 9 - 4), seed, torch.float32)
        codes, _ = quantize(weight, BY_DTYPE[dtype])
        assert float(codes.to(torch.float32).abs().max()) == BY_DTYPE[dtype].largest


def test_all_zero_weight_has_scale_one():
    codes, scale = quantize(torch.zeros(16, 16), DEFAULT)
    assert float(scale) == 1.0 and not bits(codes).any()


def test_an_empty_weight_is_no_accident():
    codes, scale = quantize(torch.zeros(0, 16), DEFAULT)
    assert codes.shape == (0, 16) and float(scale) == 1.0


@pytest.mark.parametrize("dtype", FORMATS)
@pytest.mark.parametrize("ulps", [1, 100, 448, 600, 667, 700, 1000, 80_000])
def test_weights_near_the_smallest_float_give_no_nan(dtype, ulps):
    """amax / 448 rounds to a subnormal far off, and amax / scale leaves the format."""
    weight = torch.tensor([[ulps, -ulps // 2]], dtype=torch.int32).abs().view(torch.float32)
    codes, scale = quantize(weight, BY_DTYPE[dtype])
    assert torch.isfinite(codes.to(torch.float32)).all() and float(scale) > 0
    assert torch.isfinite(BY_DTYPE[dtype].decode(codes, scale)).all()


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_non_finite_is_refused_by_name(bad):
    weight = torch.zeros(16, 16)
    weight[3, 4] = weight[5, 6] = bad
    with pytest.raises(FoundryError, match=r"blocks\.0\.q\.weight would hold 2 NaN or Inf of 256") as error:
        quantize(weight, DEFAULT, "blocks.0.q.weight")
    assert error.value.code == "LF304" and error.value.fix


def test_finite_amax_looks_at_both_ends():
    assert float(finite_amax(torch.tensor([[1.0, -3.0]]), "w")) == 3.0
    assert float(finite_amax(torch.tensor([[4.0, -3.0]]), "w")) == 4.0
    assert float(DEFAULT.scale_of(torch.tensor(448.0))) == 1.0


def chosen(name, family, patterns=("auto",), shape=(64, 64), dtype=torch.bfloat16, linears=None):
    return is_quantizable(TensorInfo(name, dtype, shape), family, patterns, linears)


FAMILY_NAMES = {
    "flux": (
        ["double_blocks.0.img_attn.qkv", "double_blocks.18.txt_mlp.2", "single_blocks.37.linear1",
         "single_blocks.0.linear2"],
        ["img_in", "txt_in", "time_in.in_layer", "vector_in.out_layer", "guidance_in.in_layer", "final_layer.linear",
         "final_layer.adaLN_modulation.1", "double_blocks.0.img_mod.lin", "single_blocks.0.modulation.lin",
         "double_blocks.0.img_attn.norm.query_norm"],
    ),
    "flux2": (
        ["double_blocks.0.img_attn.qkv", "single_blocks.3.linear1"],
        ["double_stream_modulation_img.lin", "single_stream_modulation.lin", "time_in.in_layer", "img_in",
         "final_layer.linear"],
    ),
    "chroma": (
        ["double_blocks.0.txt_attn.proj", "single_blocks.0.linear2"],
        ["distilled_guidance_layer.layers.0.in_layer", "img_in", "txt_in", "final_layer.linear"],
    ),
    "hunyuan-video": (
        ["double_blocks.0.img_attn.qkv", "double_blocks.3.txt_mlp.fc1", "single_blocks.0.linear1"],
        ["double_blocks.0.img_mod.linear", "single_blocks.0.modulation.linear",
         "txt_in.individual_token_refiner.blocks.0.mlp.0",
         "vector_in.in_layer", "final_layer.linear"],
    ),
    "qwen-image": (
        ["transformer_blocks.0.attn.to_q", "transformer_blocks.0.attn.add_k_proj",
         "transformer_blocks.59.img_mlp.net.0.proj",
         "transformer_blocks.1.img_mod.1", "transformer_blocks.0.txt_mod.1", "transformer_blocks.10.img_mod.1"],
        ["img_in", "txt_in", "txt_norm", "norm_out.linear", "proj_out", "time_text_embed.timestep_embedder.linear_1",
         "transformer_blocks.0.img_mod.1", "transformer_blocks.0.attn.norm_added_k"],
    ),
    "wan": (
        ["blocks.0.self_attn.q", "blocks.39.cross_attn.o", "blocks.0.cross_attn.k_img", "blocks.5.ffn.0",
         "blocks.5.ffn.2"],
        ["head.head", "time_embedding.0", "time_projection.1", "text_embedding.0", "img_emb.proj.1",
         "blocks.0.self_attn.norm_q",
         "patch_embedding"],
    ),
    "z-image": (
        ["layers.0.attention.qkv", "layers.29.feed_forward.w1", "noise_refiner.0.attention.out",
         "context_refiner.1.feed_forward.w2"],
        ["layers.0.adaLN_modulation.0", "x_embedder", "cap_embedder.1", "t_embedder.mlp.0", "final_layer.linear",
         "layers.0.attention_norm1"],
    ),
    "lumina2": (["layers.0.attention.qkv"], ["cap_embedder.1", "layers.0.adaLN_modulation.1"]),
    "sd3": (
        ["joint_blocks.0.x_block.attn.qkv", "joint_blocks.23.context_block.mlp.fc1"],
        ["joint_blocks.0.x_block.adaLN_modulation.1", "x_embedder.proj", "context_embedder", "y_embedder.mlp.0",
         "final_layer.linear"],
    ),
    "sdxl": (
        ["input_blocks.4.1.transformer_blocks.0.attn1.to_q", "middle_block.1.transformer_blocks.9.attn2.to_out.0",
         "output_blocks.0.1.transformer_blocks.0.ff.net.0.proj", "output_blocks.0.1.transformer_blocks.0.ff.net.2"],
        ["time_embed.0", "label_emb.0.0", "input_blocks.4.0.emb_layers.1", "input_blocks.4.1.proj_in",
         "input_blocks.4.1.proj_out"],
    ),
    "sd15": (["input_blocks.1.1.transformer_blocks.0.attn2.to_k"], ["time_embed.2", "input_blocks.1.1.proj_in"]),
    "kandinsky-5": (
        ["visual_transformer_blocks.0.self_attention.to_query", "text_transformer_blocks.1.feed_forward.in_layer"],
        ["visual_transformer_blocks.0.visual_modulation.out_layer", "time_embeddings.in_layer", "out_layer.out_layer"],
    ),
    "cogvideox": (["blocks.0.q", "blocks.0.ff_proj"], ["blocks.0.norm1.linear", "patch_embed.text_proj", "proj_out"]),
    "mochi": (["blocks.0.attn.qkv_x", "blocks.0.mlp_y.w1"], ["blocks.0.mod_x", "final_layer.mod", "t5_yproj"]),
    "cosmos": (
        ["blocks.block0.blocks.0.block.attn.to_q.0", "blocks.block0.blocks.2.block.layer1"],
        ["blocks.block0.blocks.0.adaLN_modulation.1", "blocks.block0.blocks.0.block.attn.to_q.1", "x_embedder.proj.1"],
    ),
    "kandinsky-6": (
        ["visual_blocks.0.audioT.feed_forward.in_layer", "video_text_transformer_blocks.0.self_attention.to_key"],
        ["visual_blocks.0.va_modulation.out_layer", "audio_embeddings.in_layer"],
    ),
    "hunyuan-dit": (["blocks.0.attn1.Wqkv", "blocks.30.skip_linear"], ["blocks.0.default_modulation.1", "mlp_t5.0"]),
    "pixart": (["blocks.0.attn.qkv"], ["t_block.1", "y_embedder.y_proj.fc1"]),
    "auraflow": (["double_layers.0.mlpX.c_fc1"], ["double_layers.0.modX.1", "single_layers.0.modCX.1", "modF.1"]),
    # no publisher states a list for these two: the general rule
    "hidream": (
        ["double_stream_blocks.0.block.attn1.to_q_t", "double_stream_blocks.1.block.ff_i.experts.0.w1"],
        ["double_stream_blocks.0.block.adaLN_modulation.1", "caption_projection.0.linear", "x_embedder.proj",
         "t_embedder.timestep_embedder.linear_1", "final_layer.linear"],
    ),
    "ernie-image": (
        ["layers.0.self_attention.to_q", "layers.0.mlp.linear_fc2"],
        ["adaLN_modulation.1", "time_embedding.linear_1", "text_proj", "final_linear"],
    ),
    None: (
        ["blocks.3.attn.qkv", "layers.0.mlp.fc1", "transformer_block.1.attn.to_out.0"],
        ["patch_embed.proj", "time_mlp.0", "final_layer.linear", "head.weight", "blocks.0.modulation.lin", "img_in"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("family", FAMILY_NAMES, ids=str)
def test_auto_keeps_what_the_family_keeps(family):
    quantized, kept = FAMILY_NAMES[family]
    assert [name for name in quantized if not chosen(f"{name}.weight", family)] == []
    assert [name for name in kept if chosen(f"{name}.weight", family)] == []


@pytest.mark.parametrize(("shape", "ok"), [
    ((16, 16), True), ((3072, 12288), True), ((24, 16), False), ((16, 40), False), ((64,), False),
    ((16, 16, 1, 1), False),
    ((16, 16, 16), False), ((0, 16), False), ((), False),
])  # fmt: skip
def test_only_2d_weights_divisible_by_16(shape, ok):
    assert chosen("blocks.0.self_attn.q.weight", "wan", shape=shape) is ok


def test_only_float_weights():
    assert not chosen("blocks.0.self_attn.q.weight", "wan", dtype=torch.int32)
    assert not chosen("blocks.0.self_attn.q.bias", "wan") and not chosen("blocks.0.modulation", "wan")
    assert not chosen("blocks.0.q.weight_scale", "wan", ()) and chosen("blocks.0.q.weight", "wan", ())


def test_linears_of_the_host_restrict_and_never_widen():
    names = frozenset({"blocks.0.self_attn.q.weight", "head.head.weight"})
    assert chosen("blocks.0.self_attn.q.weight", "wan", linears=names)
    assert not chosen("blocks.0.self_attn.k.weight", "wan", linears=names)
    assert not chosen("head.head.weight", "wan", linears=names)


def test_keep_patterns():
    assert parse_keep(" auto, *.ffn.2 ,,") == ("auto", "*.ffn.2") and parse_keep("") == ()
    assert keeps("blocks.0.ffn.2.weight", "wan", ("auto", "*.ffn.2"))
    assert not keeps("blocks.0.ffn.0.weight", "wan", ("auto", "*.ffn.2"))
    assert keeps("blocks.1.ffn.0.weight", "wan", ("blocks.1.*ffn",)) and not keeps(
        "blocks.2.ffn.0.weight", "wan", ("blocks.1.*ffn",)
    )
    assert not keeps("head.head.weight", "wan", ())  # without auto the family's list is off
    assert not keeps("blocksX0.q.weight", "wan", ("blocks.0",))  # a dot is a dot


@pytest.mark.parametrize(("pattern", "kept"), [
    ("blocks.1", "blocks.1.ffn.2"),
    ("blocks.1.", "blocks.1.ffn.2"),
    ("blocks.1*", "blocks.1.ffn.2 blocks.10.ffn.2"),
    ("ffn", "blocks.1.ffn.2 blocks.10.ffn.2 blocks.2.ffn.0"),
    ("*.ffn.2", "blocks.1.ffn.2 blocks.10.ffn.2"),
    ("ffn.0", "blocks.2.ffn.0"),
    ("f*n.0", "blocks.2.ffn.0"),
    ("blocks.2.ffn.0.weight", "blocks.2.ffn.0"),
    ("block", ""), ("locks.1", ""), ("fn", ""), (".", ""), ("ffn*blocks", ""), ("ffn*ffn", ""),
])  # fmt: skip
def test_a_pattern_is_whole_dotted_parts(pattern, kept):
    """``blocks.1`` once kept blocks.10 to blocks.19 too; only a star does that."""
    layers = ("blocks.1.ffn.2", "blocks.10.ffn.2", "blocks.2.ffn.0")
    assert [layer for layer in layers if keeps(f"{layer}.weight", "wan", (pattern,))] == kept.split()


@pytest.mark.parametrize(("pattern", "near"), [
    ("blocks.3", "Did you mean blocks.2 or blocks.1"),
    ("*.fnn.2", "Did you mean ffn.2"),
    ("head", "A layer of it is blocks.1.ffn.2."),
    ("block", "Did you mean blocks"),
])  # fmt: skip
def test_a_pattern_that_hits_nothing_is_refused(pattern, near):
    names = ("blocks.1.ffn.2.weight", "blocks.2.ffn.2.weight", "blocks.2.ffn.2.bias")
    check_patterns(("auto", "blocks.1", "*"), names)
    with pytest.raises(FoundryError, match=r"\[usage\] No layer is called ") as caught:
        check_patterns(("auto", pattern), names)
    assert near in caught.value.fix and f"'{pattern}'" in caught.value.what
    check_patterns(("auto",), ())
