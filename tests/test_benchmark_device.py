"""benchmarks/device.py runs from begin to end: on a CPU, and on a pretended GPU, where all that it checks is right."""

from __future__ import annotations

import sys

import pytest
from pretended_cuda import pretended_cuda
from sources import ROOT


@pytest.fixture
def benchmark(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import device

    yield device
    for name in ("device", "device_checks", "common"):
        sys.modules.pop(name, None)


def told(rows):
    wrong = [row.what for row in rows if "WRONG" in str(row.value)]
    return {row.what: row for row in rows}, wrong


@pytest.mark.cpu
def test_it_runs_on_a_cpu(benchmark, capsys):
    rows, wrong = told(benchmark.main(["--device", "cpu", "--smoke"]))
    assert not wrong
    assert rows["bakes of one plan: different results"].value == 1
    assert rows["host memory -> fp8, 4 LoRAs"].best > 0
    assert len(capsys.readouterr().out.splitlines()) == len(rows) + 1


def test_it_runs_on_a_pretended_gpu_and_finds_it_right(benchmark):
    with pretended_cuda():
        benchmark.profiled = lambda device, plan: benchmark.Row("waits", "not here")
        rows, wrong = told(benchmark.main(["--device", "cuda", "--smoke"]))
    assert not wrong
    assert "no room: numbers unlike the CPU's, in fp32 on the CPU" in " ".join(rows) or "bf16" in " ".join(rows)
    assert rows["device memory -> fp8, 4 LoRAs"].share > 0


def test_rows_stand_in_the_document_at_once(benchmark, tmp_path, monkeypatch):
    monkeypatch.setattr(benchmark, "HERE", tmp_path)
    (tmp_path / "RESULTS.md").write_text("# Results\n\nWords.\n\n## A card, torch 1\n\nold\n", encoding="utf-8")
    rows = benchmark.Rows(benchmark.torch.device("cpu"), True, 1.0)
    for value in (1.0, 2.0):
        rows.add(benchmark.Row("copy", value, "GB/s", 3.0, 0.5))
        text = (tmp_path / "RESULTS.md").read_text(encoding="utf-8")
        assert text.count("## CPU, torch") == 1
        assert text.count("| copy |") == int(value)
        assert "## A card, torch 1\n\nold" in text
