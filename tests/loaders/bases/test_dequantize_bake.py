"""A bake from every form of a quantized base, and what is said of it."""

from __future__ import annotations

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
    save,
)
from fakes import Collected, a_layer, random_delta, same
from lora_foundry.engine.bake import bake
from lora_foundry.engine.errors import FoundryError
from lora_foundry.engine.finish import Finish
from lora_foundry.engine.formats import FORMATS, quantize
from lora_foundry.engine.guard import already_quantized, raise_first
from lora_foundry.engine.plan import FUSE, MATCH_TRAINING, Base, Plan
from lora_foundry.loaders.bases.checkpoint import open_checkpoint
from lora_foundry.validator.rules import check


@pytest.mark.parametrize(
    ("name", "loss"),
    [
        ("scaled fp8", "about 2.65%"), ("plain fp8", "about 3.3%"), ("scaled fp8 e5m2", "about 5.3%"),
        ("int8 per tensor", "1.2% to 3.4%"), ("int8 per row", "0.9% to 1.4%"), ("int8 convrot", "about 0.9%"),
    ],
)  # fmt: skip
def test_a_dequantized_base_is_a_note_with_what_is_typically_lost(name, loss, tmp_path):
    source = of_form(tmp_path, FORMS[name])
    plan = Plan(Base("base.safetensors", None, source, source.quantized, dequantized=True))
    (finding,) = check(plan)
    assert (finding.code, finding.severity, finding.evidence) == ("LF201", "note", "declared")
    assert FORMS[name].told in finding.seen and "dequantized, fused, and quantized again" in finding.seen
    assert loss in finding.why and "typical" in finding.why
    raise_first(already_quantized(plan), strict=True)


# --- a bake


def a_plan(source, family=None, strength=1.0, **more) -> Plan:
    """A LoRA of 1 % of the weight's rms on ``blocks.0.q``."""
    layer = a_layer([random_delta(f"{Q}.weight", (ROWS, COLUMNS), 8, 0.0002, 5)], strength=strength, **more)
    return Plan(Base("base.safetensors", family, source, source.quantized, dequantized=True), (layer,))


def wanted(plan: Plan, form: Form) -> torch.Tensor:
    factors = plan.layers[0].factors
    up, down = (factors.values[name].double() for _, name in plan.layers[0].patches[0].adapter.parts)
    return form.exact + up @ down


@pytest.mark.parametrize("format", ["float8_e4m3fn", "int8_convrot"])
@every_form
def test_fused_and_quantized_again_every_lora_is_kept(form, format, tmp_path):
    """Also onto the very grid the base lies on, where rounding to the nearest would lose two thirds of this LoRA."""
    plan, sink = a_plan(of_form(tmp_path, form)), Collected()
    report = bake(plan, Finish(format), sink)
    assert report.quantized == 1 and abs(report.gains[0] - 1) < 0.1  # 12288 weights: the noise of rounding is 5 %
    kind, scale = FORMATS[format], sink.values[f"{Q}.weight_scale"]
    got, exact = kind.decode(sink.values[f"{Q}.weight"], scale).double(), wanted(plan, form)
    error = (got - exact).norm() / exact.norm()
    assert error == pytest.approx(report.relative_error, rel=1e-3)
    assert error < (0.04 if kind.dtype == E4M3 else 0.015)
    assert not any(name.endswith(("scale_weight", "scale_input", "input_scale")) for name in sink.values)


def test_a_weight_that_no_lora_touches_keeps_its_codes(tmp_path):
    form, sink = FORMS["scaled fp8"], Collected()
    other = {"blocks.1.q.weight": form.codes.clone(), "blocks.1.q.scale_weight": form.scale.clone()}
    bake(a_plan(dequantized(tmp_path, {**form.tensors, **other})), Finish("float8_e4m3fn"), sink)
    assert same(sink.values["blocks.1.q.weight"], form.codes)
    assert not same(sink.values["blocks.0.q.weight"], form.codes)


def test_a_weight_that_no_lora_touches_is_rounded_to_the_nearest(tmp_path):
    form, sink = FORMS["plain fp8"], Collected()
    base = dequantized(tmp_path, {**form.tensors, "blocks.1.q.weight": form.codes.clone()})
    bake(a_plan(base), Finish("float8_e4m3fn"), sink)
    nearest, _ = quantize(base.read("blocks.1.q.weight"), FORMATS["float8_e4m3fn"])
    assert same(sink.values["blocks.1.q.weight"], nearest)


@every_form
def test_fused_and_rounded_once_to_bf16(form, tmp_path):
    plan, sink = a_plan(of_form(tmp_path, form)), Collected()
    report = bake(plan, Finish(), sink)
    assert sink.values[f"{Q}.weight"].dtype == torch.bfloat16
    exact = wanted(plan, form)
    assert (sink.values[f"{Q}.weight"].double() - exact).norm() / exact.norm() < 0.002
    assert abs(report.gains[0] - 1) < 0.01
    assert all(same(sink.values[name], tensor) for name, tensor in PLAIN.items())


def test_what_no_lora_touches_is_rounded_to_the_declared_dtype(tmp_path):
    form, sink = FORMS["scaled fp8"], Collected()
    untouched = {"blocks.1.q.weight": form.codes.clone(), "blocks.1.q.scale_weight": form.scale.clone()}
    bake(a_plan(dequantized(tmp_path, {**form.tensors, **untouched})), Finish(), sink)
    assert sink.values["blocks.1.q.weight"].dtype == torch.bfloat16
    assert same(sink.values["blocks.1.q.weight"], form.exact.float().bfloat16())


def test_matching_the_training_starts_from_bf16(tmp_path):
    form, sink = FORMS["int8 per row"], Collected()
    bake(a_plan(of_form(tmp_path, form), stage=FUSE, rounding=MATCH_TRAINING), Finish(), sink)
    exact = wanted(a_plan(of_form(tmp_path, form)), form)
    assert (sink.values[f"{Q}.weight"].double() - exact).norm() / exact.norm() < 0.004


@pytest.mark.parametrize("memory", ["low", "lowest"])
def test_little_memory_gives_the_same_bits(memory, tmp_path):
    plan = a_plan(of_form(tmp_path, FORMS["int8 convrot"]))
    first, second = Collected(), Collected()
    bake(plan, Finish("float8_e4m3fn"), first)
    bake(plan, Finish("float8_e4m3fn"), second, memory=memory)
    assert all(same(second.values[name], value) for name, value in first.values.items())


def test_a_quantized_base_that_nobody_asked_to_dequantize_is_refused(tmp_path):
    source = open_checkpoint(save(tmp_path / "a.safetensors", FORMS["scaled fp8"].tensors))
    plan = Plan(Base("a.safetensors", None, source, source.quantized))
    with pytest.raises(FoundryError, match=r"already quantized.*on_quantized_base: dequantize"):
        bake(plan, Finish(), Collected())
