"""benchmarks/device.py runs from begin to end: on a CPU, and on a pretended GPU, where all that it checks is right."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from pretended_cuda import pretended_cuda
from sources import ROOT


@pytest.fixture
def benchmark(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import device

    yield device
    for name in ("device", "device_checks", "device_rows", "common", "pack_here"):
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


def test_rows_stand_in_the_document_at_once_and_a_fault_is_one(benchmark, tmp_path):
    (tmp_path / "RESULTS.md").write_text("# Results\n\nWords.\n\n## A card, torch 1\n\nold\n", encoding="utf-8")
    rows = benchmark.Rows(benchmark.torch.device("cpu"), tmp_path, 1.0)

    def source():
        for value in (1.0, 2.0):
            yield benchmark.Row("copy", value, "GB/s", 3.0, 0.5)
            text = (tmp_path / "RESULTS.md").read_text(encoding="utf-8")
            assert text.count("## CPU, torch") == 1
            assert text.count("| copy |") == int(value)
            assert "## A card, torch 1\n\nold" in text
        raise RuntimeError("CUDA error: an illegal | memory access\nmore")

    rows.take("copies", source, 1.0)
    rows.take("after it", lambda: iter([benchmark.Row("more", 1.0)]), 1.0)
    rows.take("late", source, -1.0)
    told = json.loads((tmp_path / "device.json").read_text())["rows"]
    assert [row["what"] for row in told][2:] == ["copies: WRONG, it failed", "more", "late: left out"]
    assert "RuntimeError: CUDA error: an illegal / memory access |" in (tmp_path / "RESULTS.md").read_text()


def test_the_document_is_made_where_there_is_none_and_time_ends_a_source(benchmark, tmp_path):
    rows = benchmark.Rows(benchmark.torch.device("cpu"), tmp_path, 1.0)
    rows.past = lambda share: len(rows.rows) > 1
    rows.take("copies", lambda: iter([benchmark.Row(f"{number}", 1.0) for number in range(5)]), 1.0)
    assert [row.what for row in rows.rows] == ["0", "1", "copies: stopped here"]
    assert "| copies: stopped here |" in (tmp_path / "RESULTS.md").read_text()


@pytest.mark.cpu
def test_it_needs_no_installation(tmp_path):
    """Another Python that has the packages and not the pack: it is run by its path, from anywhere."""
    script = ROOT / "benchmarks" / "device.py"
    code = (
        "import sys; from importlib import util; plain = util.find_spec;"
        "util.find_spec = lambda name, *more: None if name == 'lora_foundry' and name not in sys.modules"
        " else plain(name, *more);"
        f"sys.path.insert(0, {str(script.parent)!r}); import pack_here, device;"
        "print(device.bake.__module__, sys.modules['lora_foundry'].__file__, sep='\\n')"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["lora_foundry.engine.bake", str(ROOT / "__init__.py")]
