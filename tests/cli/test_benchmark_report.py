"""What a benchmark says: numbers, messages without folders, winners only where times mean something."""

from __future__ import annotations

import re
from types import SimpleNamespace

import pytest
import torch
from lora_foundry.cli.benchmark import machine as benchmark_machine
from lora_foundry.cli.benchmark import process as benchmark_process
from lora_foundry.cli.benchmark.chart import svg
from lora_foundry.cli.benchmark.report import findings, markdown, markdown_table, seconds

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    "text, shown",
    [
        ("/home/me/models/base.safetensors is gone", "base.safetensors is gone"),
        (r"C:\Users\me\base.safetensors is gone", "base.safetensors is gone"),
        (
            "[file] 'a/b.safetensors' (looked for /x/y/b.safetensors).",
            "[file] 'a/b.safetensors' (looked for b.safetensors).",
        ),
        ("1/2 of 10 MB/s", "1/2 of 10 MB/s"),
    ],
)
def test_messages_lose_their_folders(text, shown):
    assert benchmark_process.without_folders(text) == shown


def test_numbers_have_three_digits():
    assert [seconds(value) for value in (0.0012, 0.123, 1.0, 12.34, 123.4)] == [
        "1.20 ms", "123 ms", "1.00 s", "12.3 s", "123 s"
    ]  # fmt: skip
    assert markdown_table(["a", "b"], [["x", "1"], ["longer", "22"]]).splitlines() == [
        "| a      |  b |", "|--------|---:|", "| x      |  1 |", "| longer | 22 |"
    ]  # fmt: skip


def row(name: str, step: float, gain: float = 1.0, cpu: float = 9.0):
    gains, times = [{"lora": "x", "gain": gain}], {"first_step_s": 1.0, "step_s": step, "step_cpu_s": cpu}
    told = {"strategy": name, "name": name, "state": "measured", "weight_error": 0.1, "memory_bytes": 10}
    return {**told, "gains": gains, **times}


IDLE = {"load": 0.1, "cores": 2, "device": "cpu"}


def test_the_best_is_named_with_those_as_good():
    rows = [row("lossy", 0.1, gain=0.5), row("slow", 3.0), row("quick", 2.0), row("as quick", 2.1)]
    first, step, memory = (f["text"] for f in findings(rows, IDLE) if f["kind"] == "best")
    assert first == "Soonest first step: slow, 1.00 s; no clear difference: quick, as quick."
    assert step == "Fastest step: quick, 2.00 s; no clear difference: as quick."
    assert memory.startswith("Least memory: slow, 10 bytes")


def test_a_busy_machine_names_no_winner_in_time():
    waited, streamed = row("slow", 3.0, cpu=2.0), row("low_memory", 3.0, cpu=2.0)
    for rows, machine in (([waited], IDLE), ([row("slow", 3.0)], IDLE | {"load": 3.0})):
        *_, memory, busy = findings(rows, machine)
        assert (
            busy["kind"] == "busy" and memory["text"].startswith("Least memory") and len(findings(rows, machine)) == 2
        )
    for rows, machine in (([streamed], IDLE), ([waited], IDLE | {"device": "a GPU"}), ([], IDLE | {"load": None})):
        assert "busy" not in [f["kind"] for f in findings(rows, machine)]


def test_what_is_multiplied_natively_is_multiplied_so(monkeypatch):
    cuda = SimpleNamespace(type="cuda")
    assert benchmark_machine.multiplied_in(cuda, torch.float16) == torch.float16
    assert benchmark_machine.multiplied_in(cuda, torch.float32) == torch.bfloat16
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert benchmark_machine.multiplied_in(CPU, torch.bfloat16) == torch.float32


def a_format(name: str, error: float, gain: float | None = 1.0):
    errors = {"weight_error": error, "output_error": error, "calibrated_output_error": error / 2}
    return {"format": name, "bytes": 0.56, "gain": gain, "seconds": 45.0, "calibrated_seconds": 90.0, **errors}


def a_result(**more):
    model = {"name": "x", "weights": 1, "bytes": 2, "matrices": 1, "loras": [], "tokens": 4}
    machine = {**IDLE, "cpu": "c", "threads": 2, "torch": "2", "os": "o"}
    rows = [row("lossy", 0.1, gain=0.5), row("whole", 0.2) | {"ours": True}]
    rows = [{"ours": False, "does": "", "device_memory_bytes": None, **each} for each in rows]
    return {"model": model, "machine": machine, "rows": rows, "findings": [], "definitions": {}, "formats": [], **more}


def test_the_formats_are_a_table_and_a_panel_of_their_own():
    told = a_result(formats=[a_format("nvfp4", 0.0814), a_format("w4a8", 0.0714, None)])
    written, picture = markdown(told), svg(told)
    assert "| nvfp4  |         0.56 |        8.14% |        8.14% |         4.07% |     45 s |      100% |" in written
    assert "| w4a8 " in written and "The formats" not in markdown(a_result())
    assert (
        picture.count("100% is right") == 2 and len(re.findall(">100%<", picture)) == 2
    )  # and none where none is known
    assert "Formats, fused first" in picture and "4.07%" in picture and "Formats" not in svg(a_result())
    assert int(re.search(r'height="(\d+)"', picture)[1]) > int(re.search(r'height="(\d+)"', svg(a_result()))[1])


def test_a_row_has_one_colour_in_every_column_and_columns_say_what_is_better():
    """Its red for a lost LoRA too: another colour in another column would look like another order."""
    bars = re.findall(r'<rect class="(\w+)" x="(\d+)" y="(\d+)" width="[\d.]+" height="15"', svg(a_result()))
    by_row: dict[str, set[str]] = {}
    for colour, _, y in bars:
        by_row.setdefault(y, set()).add(colour)
    assert list(by_row.values()) == [{"lost"}, {"ours"}]
    assert svg(a_result()).count("lower is better") == 4 and "100% is right" in svg(a_result())
