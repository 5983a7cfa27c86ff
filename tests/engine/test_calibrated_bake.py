"""A bake that knows the inputs of its weights: judged by outputs, and the same in every memory mode."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from calibrated_plans import SHAPE, K, Q, known, plan
from disk_fakes import File, on_disk
from fakes import Collected, same_all
from lora_foundry.engine import gemm, repair
from lora_foundry.engine.bake import bake
from lora_foundry.engine.blueprint import blueprint
from lora_foundry.engine.budget import hold_budgets
from lora_foundry.engine.calibration import Range
from lora_foundry.engine.errors import FoundryError
from lora_foundry.engine.finish import FP8_MATMUL, Finish
from lora_foundry.engine.formats import DEFAULT, FORMATS
from lora_foundry.engine.gain import Measure
from lora_foundry.engine.memory import AUTO, LOW, LOWEST
from lora_foundry.engine.report import bake_sentence
from pretended_cuda import CUDA

every = pytest.mark.parametrize("name", FORMATS)


def stored(sink, name: str) -> torch.Tensor:
    format = FORMATS[name]
    parts = [sink.values[Q.removesuffix("weight") + part] for part, _, _ in format.beside(SHAPE)]
    return format.decode(sink.values[Q], format.read_scales(parts, SHAPE))


@every
def test_the_output_error_is_the_one_that_is_reported(name):
    calibration, sink = known(), Collected()
    report = bake(plan(), Finish(name, calibration=calibration), sink)
    plain = bake(plan(), Finish(name), Collected())
    held = calibration.inputs(Q).held.double()
    weight = plan().base.source.values[Q].double()
    up, down = (tensor.double() for tensor in plan().layers[0].factors.values.values())
    exact = weight + up @ down
    off = float(((stored(sink, name).double() - exact) @ held.T).norm() / (exact @ held.T).norm())
    assert report.layers[Q] == pytest.approx(off, rel=1e-3)
    assert report.measures[Q].by_outputs and not report.measures[K].by_outputs
    assert report.by_outputs == report.to_json()["by_outputs"] == 1
    assert report.layers[Q] < plain.layers[Q] and report.layers[K] == plain.layers[K]
    assert "outputs of 1 weights and the others off by" in bake_sentence(report)
    assert report.gains == [pytest.approx(1.0, abs=0.05)]


@pytest.mark.parametrize("name", ["float8_e4m3fn", "int8_convrot", "nvfp4"])
def test_every_memory_mode_and_device_gives_the_same_bytes(name, monkeypatch, machine):
    monkeypatch.setattr(gemm, "fast_bf16", lambda device_type: False)
    monkeypatch.setattr(repair, "CHUNK", SHAPE[1] * 130)  # several parts, and not those of the sum
    results = []
    for memory, device in ((AUTO, None), (LOW, None), (LOWEST, None), (AUTO, CUDA)):
        sink = File()
        report = bake(on_disk(plan()), Finish(name, calibration=known()), sink, device=device, memory=memory)
        results.append((sink.values, report))
    for values, report in results[1:]:
        assert same_all(values, results[0][0])
        assert report.layers == pytest.approx(results[0][1].layers) and "CPU" in report.arithmetic


def test_a_budget_goes_by_outputs():
    finish = Finish("w4a8", calibration=known(Q, K), max_error=0.04)
    plain = replace(finish, calibration=None)
    ((_, cost),) = hold_budgets([blueprint(plan(), finish)])
    assert cost.error_without < 0.04 and not cost.kept
    with pytest.raises(FoundryError, match="LF204"):
        hold_budgets([blueprint(plan(), plain)])


def test_recipe_and_keys_tell_calibrations_apart():
    plain, one = blueprint(plan(), Finish("nvfp4")), blueprint(plan(), Finish("nvfp4", calibration=known()))
    other = blueprint(plan(), Finish("nvfp4", calibration=replace(known(), identity="1" * 64)))
    assert len({each.recipe_sha256 for each in (plain, one, other)}) == 3
    assert len({each.keys[Q] for each in (plain, one, other)}) == 3
    assert plain.keys[K] == one.keys[K] == other.keys[K]  # nothing is known of its inputs
    assert plain.recipe["finish"].get("calibration") is None and one.recipe["finish"]["calibration"] == "0" * 64


def test_inputs_get_a_scale_only_where_a_host_rounds_them_and_must():
    loud = {Q: Range(4480.0, 30.0, 100), K: Range(10.0, 1.0, 100)}
    calibration = known(ranges=loud)
    for finish in (Finish(DEFAULT.name, calibration=calibration), Finish("nvfp4", matmul=FP8_MATMUL)):
        assert not any("input_scale" in entry.name for entry in blueprint(plan(), finish).entries)
    sink = Collected()
    finish = Finish(DEFAULT.name, matmul=FP8_MATMUL, calibration=calibration)
    bake(plan(), finish, sink)
    scales = {name: value for name, value in sink.values.items() if name.endswith("input_scale")}
    assert list(scales) == [Q.removesuffix("weight") + "input_scale"]
    (scale,) = scales.values()
    assert scale.shape == () and scale.dtype == torch.float32 and scale.item() == pytest.approx(11.0)
    assert [entry.name for entry in blueprint(plan(), finish).entries] == list(sink.values)


def test_few_tokens_aside_judge_nothing():
    report = bake(plan(), Finish("nvfp4", calibration=known(held=4)), Collected())
    assert report.by_outputs == 0 and report.layers[Q] > 0.08


def test_a_calibration_without_a_format_has_no_use():
    with pytest.raises(FoundryError, match="A calibration needs a quantized format"):
        blueprint(plan(), Finish(calibration=known()))


def test_a_measure_keeps_how_it_was_taken():
    measured = Measure(1.0, 2.0, by_outputs=True)
    assert Measure.from_json(measured.to_json()) == measured
    assert "by_outputs" not in Measure(1.0, 2.0).to_json()
