"""What a finish announces: tensors, dtypes, and the header other programs read."""

from __future__ import annotations

import json

import pytest
import torch
from fakes import Collected, a_layer, a_plan, noise, random_delta
from lora_foundry.engine.bake import bake
from lora_foundry.engine.blueprint import blueprint, recipe_sha256
from lora_foundry.engine.errors import FoundryError
from lora_foundry.engine.finish import (
    FP8_MATMUL,
    FULL_PRECISION,
    Finish,
    layer_marker,
    layer_settings,
    marker_name,
    scale_name,
)
from lora_foundry.engine.tensors import TensorInfo

FP8 = Finish("float8_e4m3fn")


def wan(dtype=torch.bfloat16):
    """A tiny Wan: linears, a norm, a bias, a modulation, a convolution, an odd width, an integer buffer."""
    shapes = {
        "patch_embedding.weight": (32, 4, 1, 2, 2), "time_embedding.0.weight": (32, 32),
        "blocks.0.self_attn.q.weight": (32, 32),
        "blocks.0.self_attn.q.bias": (32,), "blocks.0.self_attn.norm_q.weight": (32,),
        "blocks.0.modulation": (1, 6, 32),
        "blocks.0.ffn.0.weight": (48, 32), "blocks.0.ffn.2.weight": (32, 48), "blocks.0.odd.weight": (32, 24),
        "head.head.weight": (16, 32),
    }  # fmt: skip
    values = {name: noise(shape, 0.02, seed, dtype) for seed, (name, shape) in enumerate(shapes.items())}
    return {**values, "steps": torch.arange(4), "freqs": torch.ones(4, dtype=torch.float32)}


QUANTIZED = ["blocks.0.self_attn.q.weight", "blocks.0.ffn.0.weight", "blocks.0.ffn.2.weight"]


def a_wan(*deltas, dtype=torch.bfloat16):
    return a_plan(wan(dtype), *([a_layer(deltas)] if deltas else []), family="wan")


@pytest.mark.parametrize("finish", [
    Finish(), Finish("none", torch.bfloat16), Finish("none", torch.float16), Finish("none", torch.float32), FP8,
    Finish("float8_e4m3fn", torch.float16), Finish("float8_e4m3fn", keep=()),
    Finish("float8_e4m3fn", keep=("auto", "ffn")),
    Finish("float8_e4m3fn", linears=frozenset(QUANTIZED[:2])),
], ids=lambda finish: f"{finish.format}, {finish.dtype}, {finish.keep}, {len(finish.linears or ())}")  # fmt: skip
def test_a_bake_writes_exactly_what_was_announced(finish):
    plan = a_wan(
        random_delta(QUANTIZED[0], (32, 32), 4, 0.001, 1), random_delta("head.head.weight", (16, 32), 4, 0.001, 2)
    )
    sink = Collected()
    report = bake(plan, finish, sink)
    assert sink.infos() == blueprint(plan, finish).entries
    assert report.bytes_written == sum(info.nbytes for info in blueprint(plan, finish).entries)
    assert report.quantized == len(blueprint(plan, finish).quantized)


def test_every_scale_follows_its_weight():
    names = [info.name for info in blueprint(a_wan(), FP8).entries]
    for weight in QUANTIZED:
        assert names[names.index(weight) + 1] == weight.removesuffix("weight") + "weight_scale" == scale_name(weight)
    assert len(names) == len(wan()) + len(QUANTIZED)
    chosen = {info.name: info for info in blueprint(a_wan(), FP8).entries}
    assert chosen[QUANTIZED[0]].dtype == torch.float8_e4m3fn
    assert chosen[scale_name(QUANTIZED[0])] == TensorInfo("blocks.0.self_attn.q.weight_scale", torch.float32, ())


def test_only_a_trailing_weight_makes_the_scale_name():
    assert scale_name("weight_proj.weight") == "weight_proj.weight_scale"


@pytest.mark.parametrize("dtype", [None, torch.float16, torch.float32])
def test_dtype_is_for_floats_that_are_not_quantized(dtype):
    infos = {info.name: info for info in blueprint(a_wan(), Finish("float8_e4m3fn", dtype)).entries}
    assert infos["head.head.weight"].dtype == (dtype or torch.bfloat16)
    assert infos["freqs"].dtype == (dtype or torch.float32)
    assert infos["steps"].dtype == torch.int64
    (x,) = blueprint(a_plan({"x": torch.ones(1, dtype=torch.bool)}), Finish("none", torch.float32)).entries
    assert x.dtype == torch.bool


@pytest.mark.parametrize(("finish", "names"), [
    (FP8, QUANTIZED),
    (Finish("float8_e4m3fn", keep=("auto", "*.ffn.2")), QUANTIZED[:2]),
    (Finish("float8_e4m3fn", keep=("ffn",)), ["time_embedding.0.weight", QUANTIZED[0], "head.head.weight"]),
    (Finish("float8_e4m3fn", linears=frozenset({QUANTIZED[2], "blocks.0.odd.weight"})), [QUANTIZED[2]]),
    (Finish(), []),
])  # fmt: skip
def test_quantized_names_in_file_order(finish, names):
    assert list(blueprint(a_wan(), finish).quantized) == names


def test_quantizing_nothing_is_an_error():
    with pytest.raises(FoundryError, match=r"LF202.*keep = auto, blocks"):
        blueprint(a_wan(), Finish("float8_e4m3fn", keep=("auto", "blocks")))
    with pytest.raises(FoundryError, match=r"usage.*'blocks\.77'"):
        blueprint(a_wan(), Finish("float8_e4m3fn", keep=("auto", "blocks.77")))


@pytest.mark.parametrize(("name", "sides"), [("int8_convrot", "16 x 256"), ("w4a8", "16 x 256"), ("mxfp8", "32 x 32")])
def test_a_format_that_takes_no_layer_for_its_size_says_so(name, sides):
    """It told people to keep fewer layers."""
    plan = a_plan({"blocks.0.q.weight": noise((48, 144), 0.02, 1), "blocks.1.q.weight": noise((48, 144), 0.02, 2)})
    assert len(blueprint(plan, Finish("nvfp4")).quantized) == 2
    told = rf"LF202. None of the 2 layers .* as {name}\. .* of whole {sides}; 'blocks.0.q.weight' is 48 x 144"
    with pytest.raises(FoundryError, match=told):
        blueprint(plan, Finish(name))
    with pytest.raises(FoundryError, match=r"LF202. No layer .* keep = auto, blocks"):
        blueprint(plan, Finish(name, keep=("auto", "blocks")))


@pytest.mark.parametrize("name", ["fp8", "int8_tensorwise", "FLOAT8_E4M3FN", ""])
def test_an_unknown_format_is_named(name):
    with pytest.raises(FoundryError, match="Unknown quantization format.*Use none or float8_e4m3fn"):
        blueprint(a_wan(), Finish(name))


@pytest.mark.parametrize(("matmul", "entry"), [
    (FULL_PRECISION, {"format": "float8_e4m3fn", "full_precision_matrix_mult": True}),
    (FP8_MATMUL, {"format": "float8_e4m3fn"}),
])  # fmt: skip
def test_header_names_layers_as_the_tensors_are_named(matmul, entry):
    data = blueprint(a_wan(), Finish("float8_e4m3fn", matmul=matmul)).quantization_metadata
    assert set(data) == {"_quantization_metadata"}
    content = json.loads(data["_quantization_metadata"])
    assert list(content["layers"]) == [name.removesuffix(".weight") for name in QUANTIZED]
    assert all(value == entry for value in content["layers"].values())
    assert content["format_version"] == "1.0"


ROTATED = {"format": "int8_tensorwise", "convrot": True, "convrot_groupsize": 256}
WIDE = ["blocks.0.q.weight", "blocks.0.ffn.weight"]


def a_wide_wan():
    """Two Linears of 256 columns and one of 32: too few to be rotated."""
    shapes = {WIDE[0]: (32, 256), "blocks.0.k.weight": (32, 32), WIDE[1]: (16, 512), "blocks.0.q.bias": (32,)}
    return a_plan({name: noise(shape, 0.02, 1) for name, shape in shapes.items()}, family="wan")


@pytest.mark.parametrize(("name", "matmul", "settings"), [
    ("float8_e5m2", FULL_PRECISION, {"format": "float8_e5m2", "full_precision_matrix_mult": True}),
    ("float8_e5m2", FP8_MATMUL, {"format": "float8_e5m2"}),
    ("int8_convrot", FULL_PRECISION, ROTATED),
    ("int8_convrot", FP8_MATMUL, ROTATED),
])  # fmt: skip
def test_newer_formats_say_the_same_in_the_header_and_beside_each_weight(name, matmul, settings):
    finish = Finish(name, matmul=matmul)
    marker = layer_marker(finish)
    assert layer_settings(finish) == json.loads(marker.numpy().tobytes()) == settings
    layers = json.loads(blueprint(a_wide_wan(), finish).quantization_metadata["_quantization_metadata"])["layers"]
    assert layers == {layer.removesuffix(".weight"): settings for layer in blueprint(a_wide_wan(), finish).quantized}


def test_the_first_format_has_no_marker():
    """A marker alone loads on 0.3.75 and is wrong; what it reads is the header."""
    assert layer_marker(FP8) is None and layer_marker(Finish()) is None and layer_settings(Finish()) == {}


def test_int8_outputs_have_row_scales_and_markers_and_leave_out_what_does_not_fit():
    finish = Finish("int8_convrot")
    assert list(blueprint(a_wide_wan(), finish).quantized) == WIDE
    size = tuple(layer_marker(finish).shape)
    assert list(blueprint(a_wide_wan(), finish).entries) == [
        TensorInfo(WIDE[0], torch.int8, (32, 256)),
        TensorInfo("blocks.0.q.weight_scale", torch.float32, (32, 1)),
        TensorInfo("blocks.0.q.comfy_quant", torch.uint8, size),
        TensorInfo("blocks.0.k.weight", torch.bfloat16, (32, 32)),
        TensorInfo(WIDE[1], torch.int8, (16, 512)),
        TensorInfo("blocks.0.ffn.weight_scale", torch.float32, (16, 1)),
        TensorInfo("blocks.0.ffn.comfy_quant", torch.uint8, size),
        TensorInfo("blocks.0.q.bias", torch.bfloat16, (32,)),
    ]
    assert marker_name("weight_in.weight") == "weight_in.comfy_quant"


def test_names_kept_by_a_budget_are_kept_and_the_budget_is_recorded():
    finish = Finish("float8_e4m3fn", keep_names=frozenset(QUANTIZED[1:]), max_error=0.02)
    assert list(blueprint(a_wan(), finish).quantized) == QUANTIZED[:1]
    assert finish.settings() == {**FP8.settings(), "max_error": 0.02}
    with pytest.raises(FoundryError, match="LF202"):
        blueprint(a_wan(), Finish("float8_e4m3fn", keep_names=frozenset(QUANTIZED)))


def test_settings_of_the_first_format_are_what_recipes_have_always_held():
    wanted = {"format": "float8_e4m3fn", "dtype": None, "matmul": "full precision", "keep": ["auto"]}
    assert FP8.settings() == wanted and list(FP8.settings()) == list(wanted)


def test_no_quantization_no_entry():
    assert blueprint(a_wan(), Finish("none", torch.bfloat16)).quantization_metadata == {}


def test_file_metadata_is_text_and_carries_the_recipe():
    wanted = blueprint(a_wan(), FP8, {"fingerprint": "f" * 8})
    data = wanted.file_metadata("fp32 on the CPU")
    assert all(isinstance(key, str) and isinstance(value, str) for key, value in data.items())
    assert data["format"] == "pt" and "_quantization_metadata" in data
    record = json.loads(data["lora_foundry"])
    assert record["recipe_sha256"] == recipe_sha256(record["recipe"]) == wanted.recipe_sha256
    assert record["recipe"] == wanted.recipe and record["recipe"]["base"]["fingerprint"] == "f" * 8
    assert record["recipe"]["finish"]["format"] == "float8_e4m3fn"


def test_settings_are_plain_data():
    settings = Finish("float8_e4m3fn", torch.bfloat16, FP8_MATMUL, ("auto", "x")).settings()
    assert settings == {"format": "float8_e4m3fn", "dtype": "bfloat16", "matmul": "fp8", "keep": ["auto", "x"]}
    assert json.loads(json.dumps(Finish().settings()))["dtype"] is None


def test_a_single_number_is_a_setting_and_keeps_its_dtype():
    values = {"blocks.0.self_attn.q.weight": torch.zeros(16, 16), "edm_vpred.sigma_min": torch.tensor(0.002)}
    entries = {entry.name: entry.dtype for entry in blueprint(a_plan(values), Finish("none", torch.bfloat16)).entries}
    assert entries == {"blocks.0.self_attn.q.weight": torch.bfloat16, "edm_vpred.sigma_min": torch.float32}
