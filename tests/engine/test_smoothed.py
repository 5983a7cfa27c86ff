"""nvfp4 with ``pre_quant_scale``: what a host computes with is nearer by outputs, and no LoRA may be put on top."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from calibrated_plans import SHAPE, K, Q, known, plan
from disk_fakes import File, on_disk
from fakes import Collected, same_all
from lora_foundry.engine import gemm, repair
from lora_foundry.engine.bake import bake
from lora_foundry.engine.blueprint import blueprint
from lora_foundry.engine.errors import FoundryError
from lora_foundry.engine.finish import Finish
from lora_foundry.engine.formats import FORMATS, quantize
from lora_foundry.engine.memory import AUTO, LOW, LOWEST
from lora_foundry.engine.smoothed import PRE_QUANT_SCALE, SMOOTHED

P = Q.removesuffix("weight") + PRE_QUANT_SCALE


def as_host(sink, inputs: torch.Tensor) -> torch.Tensor:
    """What ComfyUI makes of inputs: it multiplies them, and knows nothing else of the scale."""
    parts = [sink.values[Q.removesuffix("weight") + part] for part, _, _ in FORMATS["nvfp4"].beside(SHAPE)]
    stored = FORMATS["nvfp4"].decode(sink.values[Q], FORMATS["nvfp4"].read_scales(parts, SHAPE))
    return (inputs * sink.values[P].to(inputs.dtype)) @ stored.double().T


def test_outputs_are_nearer_and_the_report_says_how_near():
    calibration, sink = known(), Collected()
    report = bake(plan(), Finish("nvfp4", calibration=calibration, pre_quant_scale=True), sink)
    guided = bake(plan(), Finish("nvfp4", calibration=calibration), Collected())
    held = calibration.inputs(Q).held.double()
    weight = plan().base.source.values[Q].double()
    up, down = (tensor.double() for tensor in plan().layers[0].factors.values.values())
    exact = held @ (weight + up @ down).T
    off = float((as_host(sink, held) - exact).norm() / exact.norm())
    assert report.layers[Q] == pytest.approx(off, rel=1e-3)
    assert 100 * guided.layers[Q] == pytest.approx(4.6, rel=0.02) and 100 * off == pytest.approx(3.2, rel=0.02)
    assert report.layers[K] == guided.layers[K] and report.gains == [pytest.approx(1.0, abs=0.05)]
    scale = sink.values[P]
    assert (scale.shape, scale.dtype) == ((SHAPE[1],), torch.bfloat16)
    assert float(scale.double().log().mean()) == pytest.approx(0.0, abs=1e-2)
    assert K.removesuffix("weight") + PRE_QUANT_SCALE not in sink.values  # nothing is known of its inputs
    on_top = (held * scale.double()) @ (up @ down).T  # of a LoRA that a loader adds to the stored weight
    effect = held @ (up @ down).T
    assert float((on_top - effect).norm() / effect.norm()) == pytest.approx(0.66, abs=0.01)


def test_to_the_nearest_it_is_nearer_too():
    """A few loud inputs decide what comes out: 8.4 % to the nearest, and the weights alone are further off."""
    inputs, weight = known().inputs(Q), plan().base.source.values[Q].to(torch.float32)
    off = {}
    for format in (FORMATS["nvfp4"], SMOOTHED.of(inputs.gram)):
        codes, scale = quantize(weight, format)
        error = (format.decode(codes, scale) - weight).double()
        off[type(format).__name__] = float((error @ inputs.held.double().T).norm())
    assert off["Smoothed"] < 0.8 * off["NVFP4"]


def test_loud_inputs_get_a_small_scale_and_silent_ones_no_huge_one():
    gram = torch.diag(torch.tensor([100.0, 1.0, 1.0, 0.0]))
    p = SMOOTHED.of(gram).smooth
    assert p[0] < p[1] == p[2] < p[3] and torch.isfinite(p).all()
    assert float(p[1] / p[0]) == pytest.approx(10**0.5, rel=0.01)
    assert torch.equal(SMOOTHED.of(torch.zeros(4, 4)).smooth, torch.ones(4))


@pytest.mark.parametrize(("width", "size"), [(8, 8), (8, 4), (10, 4)])
def test_the_gram_matrix_of_scaled_inputs(width, size):
    x = torch.randn(50, width, generator=torch.Generator().manual_seed(1))

    def blocks(inputs: torch.Tensor) -> torch.Tensor:
        found, whole = torch.zeros(width, size), inputs.T @ inputs / len(inputs)
        for first in range(0, width, size):
            part = whole[first : first + size, first : first + size]
            found[first : first + size, : part.shape[1]] = part
        return found

    format = SMOOTHED.of(blocks(x))
    torch.testing.assert_close(format.smoothed(blocks(x)), blocks(x * format.smooth))


def test_every_memory_mode_gives_the_same_bytes(monkeypatch, machine):
    monkeypatch.setattr(gemm, "fast_bf16", lambda device_type: False)
    monkeypatch.setattr(repair, "CHUNK", SHAPE[1] * 130)
    results = []
    for memory in (AUTO, LOW, LOWEST):
        sink = File()
        finish = Finish("nvfp4", calibration=known(), pre_quant_scale=True)
        results.append((sink.values, bake(on_disk(plan()), finish, sink, memory=memory)))
    for values, report in results[1:]:
        assert same_all(values, results[0][0]) and report.layers == pytest.approx(results[0][1].layers)


def test_the_record_says_that_no_lora_may_be_put_on_top():
    plain, even = (
        blueprint(plan(), Finish("nvfp4", calibration=known(), pre_quant_scale=asked)) for asked in (False, True)
    )
    told = json.loads(even.file_metadata("fp32")["lora_foundry"])
    assert told["no_lora_on_top"] == PRE_QUANT_SCALE and told["recipe"]["finish"]["pre_quant_scale"] is True
    assert "no_lora_on_top" not in json.loads(plain.file_metadata("fp32")["lora_foundry"])
    assert even.recipe_sha256 != plain.recipe_sha256 and even.keys[Q] != plain.keys[Q] and even.keys[K] == plain.keys[K]
    sink = Collected()
    bake(plan(), even.finish, sink)
    assert [entry.name for entry in even.entries] == list(sink.values)


@pytest.mark.parametrize(
    "finish",
    [
        Finish("nvfp4", pre_quant_scale=True),
        Finish("w4a8", calibration=known(), pre_quant_scale=True),
        Finish("nvfp4", calibration=replace(known(), sets={}), pre_quant_scale=True),
    ],
)
def test_it_needs_nvfp4_and_known_inputs(finish):
    with pytest.raises(FoundryError, match="pre_quant_scale needs nvfp4 and a calibration"):
        blueprint(plan(), finish)
