"""Quantized bases as plain weights: every form against float64, and a fingerprint for each."""

from __future__ import annotations

import json

import pytest
import torch
from dequantize_parts import (
    COLUMNS,
    E4M3,
    FORMS,
    PLAIN,
    ROWS,
    Form,
    Q,
    dequantized,
    every_form,
    of_form,
    original,
    save,
    settings_of,
)
from fakes import Tensors, same
from lora_foundry.engine.blueprint import blueprint
from lora_foundry.engine.finish import Finish
from lora_foundry.engine.plan import Base, Plan
from lora_foundry.loaders.bases.checkpoint import open_checkpoint
from lora_foundry.loaders.bases.dequantize import Dequantized, opened
from lora_foundry.loaders.disk.source import base_fingerprint


@pytest.mark.parametrize("prefix", ["", "model.diffusion_model."])
@every_form
def test_a_weight_is_codes_times_scale_in_fp32(form, prefix, tmp_path):
    base = of_form(tmp_path, form, prefix)
    assert base.quantized == form.told
    assert list(base.tensors) == [f"{Q}.weight", *PLAIN] or set(base.tensors) == {f"{Q}.weight", *PLAIN}
    read = base.read(f"{Q}.weight")
    assert read.dtype == torch.float32 and read.shape == (ROWS, COLUMNS) and read.is_contiguous()
    # one product in fp32; a rotation sums `group` of them
    assert (read - form.exact).abs().max() <= (1e-5 if form.group else 6e-8) * form.exact.abs().max()
    assert (read - original()).norm() / original().norm() < 0.07
    for name, tensor in PLAIN.items():
        assert same(base.read(name), tensor) and base.tensors[name].dtype == tensor.dtype


@pytest.mark.parametrize("mmap", [None, False])
@every_form
def test_a_reader_gives_the_same_whole_and_by_rows(form, mmap, tmp_path):
    base = of_form(tmp_path, form)
    with base.reader(mmap) as reader:
        assert reader.transient
        for name in base.tensors:
            assert same(reader.read(name), base.read(name))
            rows = [reader.read_rows(name, row, row + 3).clone() for row in range(0, 12, 3)]
            assert torch.equal(torch.cat(rows), base.read(name)[:12])


def test_the_last_two_tensors_of_a_reader_are_valid(tmp_path):
    with of_form(tmp_path, FORMS["int8 per row"]).reader() as reader:
        kept = torch.cat([reader.read_rows(f"{Q}.weight", row, row + 1) for row in range(2)])
        assert torch.equal(kept, reader.read(f"{Q}.weight")[:2])


@pytest.mark.parametrize(
    ("others", "dtype"),
    [
        ({}, torch.bfloat16),
        ({"a.bias": torch.ones(64, dtype=torch.float16)}, torch.float16),
        ({"a.bias": torch.ones(64, dtype=torch.float16), "b.bias": torch.ones(65).bfloat16()}, torch.bfloat16),
        ({"a.bias": torch.ones(64)}, torch.bfloat16),  # fp32 norms do not make an fp8 model an fp32 one
        ({f"{Q}.scale_input": torch.ones(1).half()}, torch.bfloat16),
    ],
)
def test_weights_are_declared_in_the_half_precision_of_the_file(others, dtype, tmp_path):
    codes = {f"{Q}.weight": original().to(E4M3), f"{Q}.bias": torch.ones(ROWS).to(E4M3)}
    base = dequantized(tmp_path, {**codes, **others})
    assert {base.tensors[name].dtype for name in codes} == {dtype}
    assert {base.read(name).dtype for name in codes} == {torch.float32}


def test_plain_fp8_may_be_everywhere(tmp_path):
    """A cast model holds norms, biases, convolutions and single numbers in fp8 too."""
    shapes = {
        "norm.weight": (8,),
        "conv.weight": (4, 3, 2, 2),
        "modulation": (1, 6, 8),
        "one": (),
        "no.weight": (0, 4),
    }
    tensors = {name: torch.full(shape, 0.4).to(E4M3) for name, shape in shapes.items()}
    base = dequantized(tmp_path, tensors)
    assert {name: info.shape for name, info in base.tensors.items()} == shapes
    for name, tensor in tensors.items():
        assert torch.equal(base.read(name), tensor.float()) and base.tensors[name].dtype == torch.bfloat16


def test_only_what_belongs_to_a_weight_is_left_out(tmp_path):
    alone = {"sampler.input_scale": torch.ones(3), "gate.weight_scale": torch.ones(3)}
    base = dequantized(tmp_path, {**FORMS["scaled fp8"].tensors, **alone})
    assert set(base.tensors) == {f"{Q}.weight", *PLAIN, *alone}


def test_a_weight_of_full_precision_may_have_a_scale(tmp_path):
    weight = {"a.weight": torch.full((4, 4), 3.0).bfloat16(), "a.scale_weight": torch.tensor(0.5)}
    base = dequantized(tmp_path, {**FORMS["scaled fp8"].tensors, **weight})
    assert torch.equal(base.read("a.weight"), torch.full((4, 4), 1.5))


def test_what_the_header_says_of_a_text_encoder_does_not_count(tmp_path):
    form = FORMS["header, settings"]
    header = {**form.header, "text_model.layers.0.q": {"format": "nvfp4"}}
    base = dequantized(tmp_path, form.tensors, {"_quantization_metadata": json.dumps({"layers": header}), "a": "b"})
    assert base.metadata == {"a": "b"}


def test_the_header_may_describe_any_layer_under_its_longer_name(tmp_path):
    form = FORMS["int8 convrot"]
    told = {f"model.diffusion_model.{Q}": {"format": "int8_tensorwise", "convrot": True}}  # 256 where nothing is said
    headed = Form(form.codes, form.scale, {f"{Q}.weight_scale": form.parts[f"{Q}.weight_scale"]}, told, group=256)
    (tmp_path / "marked").mkdir()
    base = of_form(tmp_path, headed)
    assert base.quantized == ("int8 with weight_scale (_quantization_metadata): int8_tensorwise per row with convrot")
    assert same(base.read(f"{Q}.weight"), of_form(tmp_path / "marked", form).read(f"{Q}.weight"))


def test_a_file_that_is_not_quantized_stays_what_it_is(tmp_path):
    source = open_checkpoint(save(tmp_path / "a.safetensors", PLAIN))
    assert opened(source, "dequantize") is source
    quantized = open_checkpoint(save(tmp_path / "b.safetensors", FORMS["plain fp8"].tensors))
    assert opened(quantized) is quantized and isinstance(opened(quantized, "dequantize"), Dequantized)


# --- the fingerprint


def test_the_fingerprint_depends_on_codes_scales_and_settings(tmp_path):
    first = FORMS["int8 convrot"]
    codes, scale = first.codes.clone(), first.parts[f"{Q}.weight_scale"].clone()
    codes[3, 3] += 1
    scale[17] *= 1.0001
    parts = first.parts
    turned = {**parts, f"{Q}.comfy_quant": settings_of(format="int8_tensorwise", convrot=True, convrot_groupsize=64)}
    variants = [
        first,
        Form(codes, parts=parts),
        Form(first.codes, parts={**parts, f"{Q}.weight_scale": scale}),
        Form(first.codes, parts=turned),
        FORMS["int8 per row"],
        FORMS["plain fp8"],
        FORMS["scaled fp8"],
    ]
    prints = []
    for number, form in enumerate(variants):
        (tmp_path / str(number)).mkdir()
        prints.append(base_fingerprint(of_form(tmp_path / str(number), form)))
    assert len(set(prints)) == len(prints)
    (tmp_path / "again").mkdir()
    assert base_fingerprint(of_form(tmp_path / "again", first, "model.diffusion_model.")) == prints[0]


def test_a_dequantized_base_is_not_the_base_it_came_from(tmp_path):
    base = of_form(tmp_path, FORMS["plain fp8"])
    plain = {name: base.read(name).to(info.dtype) for name, info in base.tensors.items()}
    assert base_fingerprint(base) != base_fingerprint(open_checkpoint(save(tmp_path / "plain.safetensors", plain)))
    assert base_fingerprint(base) != base_fingerprint(base.source)


def test_only_the_recipe_of_a_dequantized_base_says_so():
    plain, quantized = (
        blueprint(Plan(Base("a", None, Tensors({}), **more)), Finish(), {"fingerprint": "f"}).recipe["base"]
        for more in ({}, {"quantized": "fp8", "dequantized": True})
    )
    assert plain == {"name": "a", "fingerprint": "f", "family": None}
    assert quantized == {**plain, "dequantized": "fp8"}
