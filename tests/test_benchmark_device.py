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
    for name in ("device", "device_checks", "device_profile", "device_rows", "common", "pack_here"):
        sys.modules.pop(name, None)


def told(rows):
    wrong = [row for row in rows if "WRONG" in f"{row.what} {row.value}"]
    return {row.what: row for row in rows}, wrong


@pytest.mark.cpu
def test_it_runs_on_a_cpu(benchmark, capsys):
    rows, wrong = told(benchmark.main(["--device", "cpu", "--smoke"]))
    assert not wrong
    assert rows["bakes of one plan: different results"].value == 1
    assert rows["host memory -> fp8, 4 LoRAs"].best > 0
    assert len(capsys.readouterr().out.splitlines()) == len(rows) + 1


@pytest.fixture
def kernel(monkeypatch):
    """Torch in the place of the Triton kernels, which has their sizes of blocks."""
    from lora_foundry.engine import kernels
    from plain_kernels import Plain

    made = Plain()
    made.ROWS = made.COLUMNS = 64
    forget = [known.cache_clear for known in (kernels.why_not, kernels.why_no_rotation, kernels.left_out)]
    monkeypatch.setitem(sys.modules, "lora_foundry.engine.triton_kernels", made)
    monkeypatch.setattr(sys.modules["lora_foundry.engine"], "triton_kernels", made, raising=False)
    monkeypatch.setattr(kernels, "find_spec", lambda name: object())
    for each in forget:
        each()
    yield made
    for each in forget:
        each()


def test_the_kernels_are_compared_with_torch_and_in_other_blocks(benchmark, kernel):
    with pretended_cuda():
        rates = benchmark.Rates(benchmark.torch.device("cuda", 0), 1.0, True)
        list(rates.copy())
        told = [row.what for row in rates.in_other_ways()]
    alone = [f"device memory -> {name}, 4 LoRAs, by torch alone" for name in ("fp8", "int8_convrot", "bf16")]
    assert [what for what in told if what.endswith("alone")] == alone
    assert [what.partition("LoRAs, ")[2] for what in told if "blocks" in what] == [
        f"in blocks of {size}" for size in ("128 x 64", "64 x 128", "32 x 64")
    ]


def test_it_runs_on_a_pretended_gpu_and_finds_it_right(benchmark):
    with pretended_cuda():
        benchmark.ends_a_process = lambda device: ""
        benchmark.profiled = lambda device, plan: iter([benchmark.Row("waits", "not here")])
        rows, wrong = told(benchmark.main(["--device", "cuda", "--smoke"]))
    assert not wrong
    assert "no room: numbers unlike the CPU's, in fp32 on the CPU" in " ".join(rows) or "bf16" in " ".join(rows)
    assert rows["device memory -> fp8, 4 LoRAs"].share > 0


@pytest.mark.cpu
def test_scales_of_rows_that_are_off_by_a_bit_are_no_fault(benchmark):
    """They are 1 of 256 numbers: counted bit by bit a right int8 result of a GPU was called wrong."""
    from device_checks import Keep, differ

    torch = benchmark.torch
    one, other = Keep(), Keep()
    scale, codes = torch.rand(16, 1) + 1, torch.ones(16, 256, dtype=torch.int8)
    for kept, more in ((one, 1.0), (other, 1 + 2e-7)):
        kept.values = {"l.weight": codes, "l.weight_scale": scale * more}
    assert not torch.equal(one.values["l.weight_scale"], other.values["l.weight_scale"])
    assert differ(one, other) == 0
    other.values["l.weight_scale"] = scale * 1.001
    assert differ(one, other) > 1e-3
    other.values = {**one.values, "l.weight": codes + 1}
    assert differ(one, other) > 0.9


@pytest.mark.cpu
def test_kernels_that_end_a_process_are_found_in_one_of_their_own(benchmark):
    from device_checks import ends_a_process

    cpu = benchmark.torch.device("cpu")
    assert ends_a_process(cpu) == ""
    assert "RuntimeError: Expected one of cpu" in ends_a_process(
        type("Gone", (), {"__str__": lambda self: "nowhere"})()
    )
    assert "more than 0 s" in ends_a_process(cpu, 0.01)


def test_the_model_says_that_the_bus_is_the_limit(monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import device_model

    device_model.main([])
    head, _, *lines = capsys.readouterr().out.splitlines()
    told = [dict(zip(head.split(" | "), line.split(" | "), strict=True)) for line in lines]
    assert len(told) == len(device_model.WAYS) * len(device_model.CARDS)
    assert all(int(row["of the bus"].removesuffix("%")) >= 80 for row in told)
    assert all(float(row["bytes a number"]) <= 6 for row in told if "Triton" in row["| way"])
    slow = device_model.Card(25e9, 50e9, 40e12, 60e12)
    weight, way = device_model.Weight(12288, 3072, 4, 32), device_model.WAYS["fp8, Triton"]
    assert weight.moved(way) == pytest.approx(5.2, abs=0.05)
    assert weight.seconds(way, slow)["memory"] > weight.seconds(way, slow)["bus"]


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
