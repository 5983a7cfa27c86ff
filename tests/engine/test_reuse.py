"""Only what changed is made again; several results read the base once; less memory gives the same bits."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from disk_fakes import File, on_disk
from fakes import Collected, Tensors, a_layer, a_plan, noise, random_delta, same_all
from lora_foundry.engine import devices, gemm
from lora_foundry.engine.bake import bake, bake_all
from lora_foundry.engine.blueprint import blueprint
from lora_foundry.engine.errors import FoundryError
from lora_foundry.engine.finish import Finish
from lora_foundry.engine.job import BakeRequest
from lora_foundry.engine.memory import AUTO, LOW, LOWEST
from lora_foundry.engine.plan import FUSE, MATCH_TRAINING
from lora_foundry.engine.reuse import Previous

NAMES = [f"blocks.{i}.self_attn.q.weight" for i in range(6)]
HEAD, NORM = "head.head.weight", "blocks.0.norm_q.weight"
FORMATS = ("none", "float8_e4m3fn", "float8_e5m2", "int8_convrot")


def values(columns=256):
    weights = {name: noise((48, columns), 0.02, i) for i, name in enumerate(NAMES)}
    return {**weights, HEAD: noise((16, 64), 0.02, 9), NORM: torch.ones(64), "steps": torch.tensor(3)}


def lora(names, seed=1, strength=1.0, **more):
    deltas = [random_delta(name, (48, 256), 4, 0.002, seed + i) for i, name in enumerate(names)]
    return a_layer(deltas, strength, name=f"{seed}.safetensors", **more)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("rounding", ["once", MATCH_TRAINING])
def test_every_memory_mode_gives_the_same_bits_and_numbers(format, rounding):
    plan = a_plan(values(), lora(NAMES[:3], stage=FUSE, rounding=rounding), lora(NAMES[2:5], 40, 0.6), family="wan")
    finish = Finish(format)
    sink = Collected()
    report = bake(plan, finish, sink)
    for memory in (AUTO, LOW, LOWEST):
        file = File()
        again = bake(on_disk(plan), finish, file, memory=memory)
        ordered = {name: file.values[name] for name in sink.values}
        wrong = sum(
            int((ordered[n].view(torch.uint8) != t.view(torch.uint8)).sum()) for n, t in sink.values.items() if t.ndim
        )
        assert wrong <= 20, memory  # a block's sum may round differently in the last place than the whole weight's
        assert again.gains == pytest.approx(report.gains, abs=1e-3)
        assert again.relative_error == pytest.approx(report.relative_error, rel=1e-3)
        assert (again.tensors, again.touched, again.quantized) == (report.tensors, report.touched, report.quantized)
        assert (again.bytes_read, again.bytes_written) == (report.bytes_read, report.bytes_written)
        assert file.values.keys() == sink.values.keys()


@pytest.mark.cpu
def test_lowest_memory_never_reads_a_large_weight_whole():
    large = {NAMES[0]: noise((8192, 256), 0.02, 1)}
    plan = on_disk(a_plan(large, a_layer([random_delta(NAMES[0], (8192, 256), 4, 0.002, 1)])))
    for format in FORMATS:
        bake(plan, Finish(format, keep=()), File(), memory=LOWEST)
    assert plan.base.source.reads == []


def test_an_unknown_memory_setting_is_refused():
    with pytest.raises(FoundryError, match="Unknown memory setting 'least'"):
        bake(a_plan(values(), lora(NAMES)), Finish(), Collected(), memory="least")


def baked(plan, finish, previous=None):
    sink, wanted = Collected(), blueprint(plan, finish, {"fingerprint": "base"})
    (report,) = bake_all([BakeRequest(wanted, sink, previous)])
    return sink.values, report, Previous(wanted.keys, report.measures_json(), Tensors(sink.values), report.arithmetic)


def tensor_keys(plan, finish, fingerprint):
    return blueprint(plan, finish, {"fingerprint": fingerprint}).keys


@pytest.mark.parametrize("format", FORMATS)
def test_a_changed_strength_makes_only_its_tensors_again(format):
    finish = Finish(format)
    one, two, three = lora(NAMES[:3]), lora(NAMES[2:5], 40, 0.6), lora(NAMES[2:5], 40, 0.9)
    _, _, before = baked(a_plan(values(), one, two, family="wan"), finish)
    changed = a_plan(values(), three, one, family="wan")
    result, report, _ = baked(changed, finish, before)
    fresh, full, _ = baked(a_plan(values(), three, one, family="wan"), finish)
    assert same_all(result, fresh)
    assert report.reused == len(values()) - 3 and set(changed.base.source.reads) == set(NAMES[2:5])
    assert report.gains == pytest.approx(full.gains) and report.relative_error == pytest.approx(full.relative_error)
    assert report.layers == pytest.approx(full.layers) and report.touched == full.touched


def test_an_unchanged_plan_reads_nothing_of_the_base():
    plan = a_plan(values(), lora(NAMES), family="wan")
    _, first, before = baked(plan, Finish("float8_e4m3fn"))
    plan.base.source.reads.clear()
    _, report, _ = baked(plan, Finish("float8_e4m3fn"), before)
    assert plan.base.source.reads == [] and report.reused == report.tensors == first.tensors


def test_keys_change_with_everything_a_tensor_depends_on_and_with_nothing_else():
    one, two = lora(NAMES[:3]), lora(NAMES[2:5], 40, 0.6)
    plan, finish = a_plan(values(), one, two, family="wan"), Finish("float8_e4m3fn")
    keys = tensor_keys(plan, finish, "base")
    assert keys == tensor_keys(a_plan(values(), two, one, family="wan"), finish, "base")
    others = {
        "identity": tensor_keys(plan, finish, "other"),
        "format": tensor_keys(plan, Finish("float8_e5m2"), "base"),
        "strength": tensor_keys(a_plan(values(), lora(NAMES[:3], strength=0.99), two, family="wan"), finish, "base"),
        "lora": tensor_keys(a_plan(values(), lora(NAMES[:3], 2), two, family="wan"), finish, "base"),
        "rounding": tensor_keys(
            a_plan(values(), lora(NAMES[:3], stage=FUSE, rounding=MATCH_TRAINING), two, family="wan"), finish, "base"
        ),
        "keep": tensor_keys(plan, Finish("float8_e4m3fn", keep=("auto", NAMES[0])), "base"),
        "arithmetic": tensor_keys(plan, Finish("float8_e4m3fn", arithmetic="fp32 on the CPU"), "base"),
    }
    for what, other in others.items():
        assert other[NAMES[0]] != keys[NAMES[0]], what
    assert others["strength"][NAMES[3]] == keys[NAMES[3]] and others["keep"][NAMES[1]] == keys[NAMES[1]]


def test_a_result_that_does_not_hold_the_tensors_is_not_copied_from():
    plan, finish = a_plan(values(), lora(NAMES), family="wan"), Finish("float8_e4m3fn")
    result, _, before = baked(plan, finish)
    del before.source.tensors[f"{NAMES[0]}_scale"]
    again, report, _ = baked(plan, finish, before)
    assert same_all(again, result) and report.reused == report.tensors - 1


@pytest.mark.parametrize("format", ["none", "float8_e4m3fn", "int8_convrot"])
def test_sums_of_another_arithmetic_are_made_again_and_what_needs_no_sum_is_taken_over(format):
    plan, finish = a_plan(values(), lora(NAMES[:3]), family="wan"), Finish(format)
    result, first, before = baked(plan, finish)
    again, report, _ = baked(plan, finish, replace(before, arithmetic="fp32 on another device"))
    measured = sum(fate.is_measured for fate in blueprint(plan, finish).fates.values())
    assert same_all(again, result)
    assert report.reused == first.tensors - measured > 0
    assert report.arithmetic == first.arithmetic


@pytest.mark.cpu
def test_a_reproducible_result_is_refused_in_another_arithmetic():
    plan = a_plan(values(), lora(NAMES[:3]), family="wan")
    here = devices.arithmetic_of(None, AUTO)
    baked(plan, Finish("float8_e4m3fn", arithmetic=here))
    with pytest.raises(FoundryError, match=r"\[device\] .*on another device.* are taken in .*CPU"):
        baked(plan, Finish("float8_e4m3fn", arithmetic="fp32 on another device"))


@pytest.mark.cpu
def test_a_cpu_with_bf16_products_has_an_arithmetic_for_each_memory_mode(monkeypatch, machine):
    monkeypatch.setattr(gemm, "fast_bf16", lambda device_type: device_type == "cpu")
    assert len({devices.arithmetic_of(None, memory) for memory in (AUTO, LOW, LOWEST)}) == 3
    monkeypatch.setattr(gemm, "fast_bf16", lambda device_type: False)
    assert {devices.arithmetic_of(None, memory) for memory in (AUTO, LOW, LOWEST)} == {"fp32 on the CPU"}
    assert devices.arithmetic_of(torch.device("cuda"), AUTO) == "fp32 on Pretended"


def test_several_results_read_the_base_once():
    one, two = lora(NAMES[:3]), lora(NAMES[2:5], 40, 0.6)
    plans = [a_plan(values(), one, family="wan"), a_plan(values(), two, family="wan"), a_plan(values(), family="wan")]
    finishes = [Finish("float8_e4m3fn"), Finish("none"), Finish("int8_convrot")]
    sinks = [Collected() for _ in plans]
    reports = bake_all(
        [BakeRequest(blueprint(plan, end), to) for plan, end, to in zip(plans, finishes, sinks, strict=True)]
    )
    assert plans[0].base.source.reads == list(values()) and plans[1].base.source.reads == []
    for plan, finish, sink, report in zip(plans, finishes, sinks, reports, strict=True):
        alone = Collected()
        expected = bake(plan, finish, alone)
        assert same_all(sink.values, alone.values) and report.gains == expected.gains
