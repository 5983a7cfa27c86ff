"""The benchmark's arithmetic against float64, its table, its files, and what it does when something goes wrong.

No time is asserted: what is measured on a busy machine is the machine's business.
"""

from __future__ import annotations

import json
import platform
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from lora_foundry.cli.benchmark import chart as benchmark_chart
from lora_foundry.cli.benchmark import child as benchmark_child
from lora_foundry.cli.benchmark import process as benchmark_process
from lora_foundry.cli.benchmark import run as benchmark
from lora_foundry.cli.benchmark.strategies import matrices
from lora_foundry.cli.benchmark.table import STRATEGIES, sizes
from lora_foundry.cli.main import main
from lora_foundry.engine import gain
from lora_foundry.engine.errors import FoundryError
from schemas import faults

CPU = torch.device("cpu")
APART = ("quantize_lora", "low_memory_fused")  # another's order and ours
ORDER = ["0", "1", "2", "2b", "3", "4", "5", "6", "7"]


@pytest.fixture(scope="module")
def measured(bench):
    """Strategy -> (weight error, gain of each LoRA), each measured over all weights."""
    torch.manual_seed(0)
    told = {key: benchmark_child.quality(bench, strategy.load(bench)) for key, strategy in STRATEGIES.items()}
    return {key: (row["weight_error"], [gain["gain"] for gain in row["gains"]]) for key, row in told.items()}


@pytest.fixture(scope="module")
def result(small, tmp_path_factory):
    """(what the real benchmark gives, the folder it wrote to); a process takes seconds to begin: two have their own."""
    out, real = tmp_path_factory.mktemp("out") / "new", benchmark_process.measure

    def measure(job):
        return real(job) if job["strategy"] in APART else benchmark_child.measure(json.loads(json.dumps(job)))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(benchmark_process, "measure", measure)
        return benchmark.run(tokens=4, steps=2, out=out), out


# --- the arithmetic ---------------------------------------------------------------------------------------------------


def test_each_order_keeps_what_it_should(measured):
    error, gains = measured["base"]
    assert all(abs(gain) < 0.01 for gain in gains), "nothing of them is there but their own likeness"
    assert 0.015 < error < 0.02, "and the error is the LoRAs themselves: three of 1 %"
    for key in ("standard", "fused", "lora_quantize", "fused_quantized", "low_memory", "low_memory_fused"):
        assert all(abs(gain - 1) < 0.03 for gain in measured[key][1]), key
    assert all(abs(gain - 1) < 0.05 for gain in measured["quantize_lora"][1])
    assert all(gain < 0.7 for gain in measured["quantize_lora_nearest"][1])


def test_each_order_has_the_error_of_its_rounding(measured):
    errors = {key: error for key, (error, _) in measured.items()}
    assert errors["standard"] == pytest.approx(errors["fused"], rel=1e-3)
    assert errors["fused"] < 0.002 and errors["low_memory"] < 1e-6, "this test multiplies in fp32: nothing is rounded"
    best = errors["fused_quantized"]
    assert 0.02 < best < 0.03 and errors["low_memory_fused"] == best
    assert 1.004 * best < errors["lora_quantize"] < 1.03 * best, (
        "a little worse: rounded to bf16 before, once for each LoRA"
    )
    assert 1.05 * best < errors["quantize_lora_nearest"] < errors["quantize_lora"]
    assert errors["quantize_lora"] > 1.3 * best


def test_the_measure_is_that_of_the_whole_weights(bench, monkeypatch):
    """Error and gain worked out here over whole weights in float64; sampled, they stay near."""
    plan, used = bench.plan, dict(STRATEGIES["quantize_lora_nearest"].load(bench)())
    noise = signal = 0.0
    first = plan.layers[0]
    aligned = energy = 0.0
    for name, pairs in plan.by_weight().items():
        exact = bench.read(name).double()
        for layer, patch in pairs:
            parts = {role: layer.factors.read(part).double() for role, part in patch.adapter.parts}
            delta = layer.strength * patch.adapter.scale * parts["up"] @ parts["down"]
            exact = exact + delta
            if layer is first:
                mine = delta
        wrong = used[name].double() - exact
        noise, signal = noise + wrong.square().sum(), signal + exact.square().sum()
        aligned, energy = aligned + (wrong * mine).sum(), energy + mine.square().sum()
    told = benchmark_child.quality(bench, lambda: iter(used.items()))
    assert told["weight_error"] == pytest.approx(float((noise / signal).sqrt()), rel=1e-6)
    assert told["gains"][0]["gain"] == pytest.approx(float(1 + aligned / energy), rel=1e-6)
    monkeypatch.setattr(gain, "WHOLE_WEIGHT", 0)
    monkeypatch.setattr(gain, "SAMPLE", 1)
    sampled = benchmark_child.quality(bench, lambda: iter(used.items()))
    assert sampled != told and sampled["weight_error"] == pytest.approx(told["weight_error"], rel=0.05)


def test_a_step_multiplies_every_matrix_once(bench, monkeypatch):
    seen = []
    monkeypatch.setattr(benchmark_child, "linear", lambda inputs, weight: seen.append((*inputs.shape, *weight.shape)))
    benchmark_child.step(STRATEGIES["low_memory"].load(bench), {}, 3)
    expected = [(info.shape[0], torch.Size(info.shape[1:]).numel()) for info in matrices(bench.plan)]
    assert [(out, width) for _, _, out, width in seen] == expected and len(expected) == 27
    assert all(tokens == 3 and width == inn for tokens, width, _, inn in seen)


# --- the whole thing --------------------------------------------------------------------------------------------------


def test_the_table_has_every_strategy(result):
    told, _ = result
    assert told["ok"], told["findings"]
    assert [row["name"].split()[0] for row in told["rows"]] == ORDER
    for row in told["rows"]:
        assert row["state"] == "measured" and row["memory_bytes"] >= 0 and row["device_memory_bytes"] is None
        assert 0 < row["ready_s"] < row["first_step_s"] or row["strategy"] == "low_memory"
        assert row["step_s"] > 0 and len(row["gains"]) == 3 and row["does"]
        assert f"| {row['name']} " in benchmark.text(told)
    assert {"lost effect"} == {f["kind"] for f in told["findings"] if f["strategy"] == "quantize_lora_nearest"} - {
        "more error"
    }
    assert "more error" in {f["kind"] for f in told["findings"] if f["strategy"] == "quantize_lora"}
    assert "not the time of a picture" in benchmark.text(told)


def test_the_files_are_complete_and_nothing_else_is_left(result):
    told, out = result
    assert sorted(path.name for path in out.iterdir()) == sorted(benchmark.NAMES)
    assert json.loads((out / "benchmark.json").read_text()) == {k: v for k, v in told.items() if k != "out"}
    assert faults(told, "benchmark") == faults(told, "benchmark", "benchmark") == []
    assert (out / "benchmark.md").read_text().count("\n| ") == 1 + len(ORDER)
    picture = ET.fromstring((out / "benchmark.svg").read_text())
    assert picture.tag == "{http://www.w3.org/2000/svg}svg"
    said = "".join(picture.itertext())
    assert all(row["name"] in said for row in told["rows"])
    assert not [node for node in picture.iter() if node.tag.endswith(("script", "image", "a", "use"))]


def test_results_can_be_shown_to_others(result):
    _, out = result
    written = "".join((out / name).read_text() for name in benchmark.NAMES)
    assert str(out) not in written and out.parent.name not in written
    assert platform.node() not in written or platform.node() in ("cpu", "Linux")
    assert not [line for line in written.splitlines() if str(Path.home()) in line or "/tmp" in line]


def test_old_results_are_replaced_together_or_not_at_all(result, tmp_path, monkeypatch):
    told, _ = result
    for name in (*benchmark.NAMES, "mine.txt"):
        (tmp_path / name).write_text("old")

    def torn(told):
        raise KeyboardInterrupt

    monkeypatch.setattr(benchmark, "svg", torn)
    with pytest.raises(KeyboardInterrupt):
        benchmark.write(told, tmp_path)
    assert {path.read_text() for path in tmp_path.iterdir()} == {"old"}
    monkeypatch.undo()
    benchmark.write(told, tmp_path)
    assert (tmp_path / "mine.txt").read_text() == "old" and len(list(tmp_path.iterdir())) == 4
    assert "old" not in [(tmp_path / name).read_text() for name in benchmark.NAMES]


def test_wrong_use_is_told_before_anything_is_measured(tmp_path, monkeypatch):
    monkeypatch.setattr(benchmark_process, "measure", lambda job: pytest.fail("nothing may run"))
    (tmp_path / "file").write_text("")
    (tmp_path / "blocked" / "benchmark.md").mkdir(parents=True)
    for options in (
        {"tokens": 0},
        {"steps": 0},
        {"out": tmp_path / "file"},
        {"out": tmp_path / "blocked"},
        {"document": tmp_path / "missing.yaml"},
    ):
        with pytest.raises(FoundryError):
            benchmark.run(**options)


@pytest.mark.parametrize("device", ["tpu", "cuda:99", "cuda:", "cuda:x", "cpu:0", ""])
def test_a_device_that_is_not_there_is_told_before_anything_is_measured(device, monkeypatch, capsys):
    monkeypatch.setattr(benchmark, "run", lambda *_: pytest.fail("nothing may run"))
    assert main(["benchmark", "--device", device]) == 2
    assert f"There is no device '{device}' here" in capsys.readouterr().err


def test_a_document_without_loras_is_refused(bench, tmp_path):
    path = tmp_path / "alone.json"
    path.write_text(json.dumps({"base": str(bench.work / "base.safetensors"), "stack": []}))
    with pytest.raises(FoundryError, match="nothing to compare"):
        benchmark.run(path)


def test_other_kinds_of_adapters_are_refused(bench, monkeypatch):
    layer = bench.plan.layers[0]
    patch = layer.patches[0]
    dora = replace(patch, adapter=replace(patch.adapter, parts=(*patch.adapter.parts, ("magnitude", "x"))))
    plan = replace(bench.plan, layers=(replace(layer, patches=(dora,)),))
    monkeypatch.setattr(benchmark, "plan_document", lambda _: plan)
    with pytest.raises(FoundryError, match="more than a plain LoRA"):
        benchmark.run(bench.work / "stack.json")


# --- failures ---------------------------------------------------------------------------------------------------------


def test_a_strategy_that_fails_is_a_row_with_its_sentence(bench, monkeypatch):
    def failing(given):
        (bench.work / "gone").unlink(missing_ok=True)
        return real({**given, "document": str(bench.work / "gone" / "stack.json")})

    real = benchmark_process.measure
    monkeypatch.setattr(benchmark_process, "measure", failing)
    monkeypatch.setattr(benchmark, "STRATEGIES", {"fused": STRATEGIES["fused"]})
    told = benchmark.run(bench.work / "stack.json")
    (row,) = told["rows"]
    assert not told["ok"] and row["state"] == "failed" and "stack.json" in row["sentence"]
    assert faults(told, "benchmark") == []
    assert str(bench.work) not in json.dumps(told), "results are shown to others"
    assert row["sentence"] in benchmark.text(told) and "| 4 fused" in benchmark.text(told)
    ET.fromstring(benchmark_chart.svg(told))


def test_what_does_not_fit_is_not_tried(bench, monkeypatch):
    need = sizes(bench.plan)
    whole = sum(STRATEGIES["standard"].needs(need))
    monkeypatch.setattr(benchmark_child, "free_memory", lambda: whole - 1)
    assert "does not fit" in benchmark_child.too_large(STRATEGIES["standard"], need, CPU)
    assert benchmark_child.too_large(STRATEGIES["low_memory_fused"], need, CPU) == ""
    for free in (whole, None):
        monkeypatch.setattr(benchmark_child, "free_memory", lambda free=free: free)
        assert benchmark_child.too_large(STRATEGIES["standard"], need, CPU) == ""
    monkeypatch.setattr(benchmark_child, "free_memory", lambda: 1)
    monkeypatch.setattr(benchmark_child, "_run", lambda *_: pytest.fail("it must not be tried"))
    monkeypatch.setattr(benchmark_process, "measure", benchmark_child.measure)
    told = benchmark.run(bench.work / "stack.json")
    assert told["ok"] and {row["state"] for row in told["rows"]} == {"does not fit"}
    assert faults(told, "benchmark") == []
    assert len([f for f in told["findings"] if f["kind"] == "does not fit"]) == len(ORDER)
    assert "of memory and 1 bytes are free" in benchmark.text(told)
    ET.fromstring(benchmark_chart.svg(told))


def test_a_gpu_and_the_machine_are_counted_apart(bench, monkeypatch):
    need, cuda = sizes(bench.plan), SimpleNamespace(type="cuda")
    there, here = STRATEGIES["standard"].needs(need)
    for free_there, free_here, lacking in (
        (there, here, ""),
        (there - 1, here, "GPU memory"),
        (there, here - 1, "of memory"),
    ):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _, free=free_there: (free, free))
        monkeypatch.setattr(benchmark_child, "free_memory", lambda free=free_here: free)
        said = benchmark_child.too_large(STRATEGIES["standard"], need, cuda)
        assert lacking in said and bool(lacking) == bool(said)


def test_the_sizes_come_from_the_headers(bench):
    told = sizes(bench.plan)
    infos = {info.name: info for info in matrices(bench.plan)}
    assert told.base == sum(info.nbytes for info in infos.values())
    assert told.touched == 2 * told.touched_fp8 == sum(infos[name].nbytes for name in bench.plan.by_weight())
    assert told.base - told.fp8 == told.touched_fp8, "LoRAs and fp8 are on the same weights"
    for strategy in ("standard", "fused"):
        assert STRATEGIES[strategy].needs(told)[0] > told.base
    assert STRATEGIES["standard"].needs(told)[1] > told.touched, "the originals are kept"
    assert STRATEGIES["low_memory_fused"].needs(told)[0] == 4 * told.largest, "nothing stays"
    assert told.largest == 4 * max(torch.Size(info.shape).numel() for info in infos.values())
