"""On a GPU: is it right, and how much of the bus does it use? One run of at most 8 minutes on a bare machine.

python benchmarks/device.py [--device cuda] [--gigabytes 10] [--minutes 8] [--smoke] [--write]

Every row is printed when it is measured, and with ``--write`` is in benchmarks/device.json and in the device's section
of benchmarks/RESULTS.md at once: a time limit leaves what was measured. Right first (device_checks.py), then rates:
GB/s count the bf16 bytes read, shapes are those of Qwen-Image blocks. The copy they are held against is that of the
same run: from ordinary host memory through the same page-locked pieces up, and half as much down, which is what a bake
to fp8 has to move. ``--smoke`` does everything once with tiny weights, also on a CPU.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from unittest.mock import patch

import torch
from common import Discard, Memory
from device_checks import CHECKS
from lora_foundry.cli.benchmark import run as strategies
from lora_foundry.engine import kernels
from lora_foundry.engine.bake import bake
from lora_foundry.engine.blueprint import blueprint
from lora_foundry.engine.devices import arithmetic_of
from lora_foundry.engine.finish import Finish
from lora_foundry.engine.memory import AUTO, available_bytes
from lora_foundry.engine.pipeline import Direct
from lora_foundry.engine.plan import STACK, Adapter, Base, Coverage, Layer, LoRAInfo, Patch, Plan, Target
from lora_foundry.engine.room import cargo_of, worked_on
from lora_foundry.engine.streams import Download, Upload
from lora_foundry.loaders.bakes.baking import bake_to_file
from lora_foundry.loaders.disk.source import FileSource
from lora_foundry.loaders.disk.writer import write_safetensors

RANK = 32
FORMATS = {"fp8": "float8_e4m3fn", "int8_convrot": "int8_convrot", "bf16": "none"}
HERE = Path(__file__).parent


@dataclass(frozen=True)
class Row:
    """One line: ``value`` and ``best`` in ``unit``, of the first run and of the best; ``share`` of the copy."""

    what: str
    value: float | str
    unit: str = ""
    best: float | None = None
    share: float | None = None
    peak_gb: float | None = None

    def markdown(self) -> str:
        """As a line of a table."""
        numbers = [self.value, self.best, self.share and f"{self.share:.0%}", self.peak_gb]
        cells = ("" if each is None else f"{each:.2f}" if isinstance(each, float) else str(each) for each in numbers)
        return f"| {self.what} | {' | '.join(cells)} | {self.unit} |"


class Rows:
    """The rows of a run; each is told at once."""

    def __init__(self, device: torch.device, write: bool, minutes: float) -> None:
        self.name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
        self._write, self._end, self.rows = write, time.monotonic() + 60 * minutes, list[Row]()
        self._title = f"{self.name}, torch {torch.__version__}, python benchmarks/device.py"

    @property
    def over(self) -> bool:
        """Whether the time is."""
        return time.monotonic() > self._end

    def add(self, row: Row) -> None:
        """Tell a row."""
        self.rows.append(row)
        print(row.markdown(), flush=True)
        if self._write:
            (HERE / "device.json").write_text(json.dumps([asdict(each) for each in self.rows], indent=1) + "\n")
            put_section(HERE / "RESULTS.md", self._title, self.section())

    def section(self) -> str:
        """All rows as a section of a document."""
        head = ["| what | first | best | of the copy | peak GB | unit |", "|---|--:|--:|--:|--:|---|"]
        return "\n".join([f"## {self._title}", "", *head, *(row.markdown() for row in self.rows), ""])


def put_section(path: Path, title: str, section: str) -> None:
    """The section in place of the one of this title, or at the end."""
    first, *parts = path.read_text(encoding="utf-8").split("\n## ")
    kept = [part for part in parts if not part.startswith(title)]
    path.write_text("\n## ".join([first.rstrip("\n") + "\n", *kept, section.removeprefix("## ")]), encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> list[Row]:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--gigabytes", type=float, default=10.0)
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args(arguments)
    device = torch.device(options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        sys.exit("there is no CUDA device here; on a CPU: python benchmarks/device.py --device cpu --smoke")
    rows = Rows(device, options.write, options.minutes)
    print(f"{rows.name}: {arithmetic_of(device, AUTO)}", flush=True)
    if device.type == "cuda":
        rows.add(Row("Triton kernels", kernels.why_not(device) or "right, and used"))
    for source in (
        checked(device, options.smoke),
        measured(device, options.gigabytes, options.smoke),
        steps(device, options.smoke),
    ):
        for row in source:
            rows.add(row)
            if rows.over:
                rows.add(Row("the time was over here", f"{options.minutes:g}", "minutes"))
                return rows.rows
    return rows.rows


def checked(device: torch.device, smoke: bool) -> Iterator[Row]:
    """Whether results are right, the same again, and whether cancelling and running out of memory end well."""
    for check in CHECKS:
        yield from (Row(what, value, unit) for what, value, unit in check(device, smoke))


def measured(device: torch.device, gigabytes: float, smoke: bool) -> Iterator[Row]:
    """Rates, against the copy."""
    weights = made(gigabytes, smoke)
    total = sum(weight.nbytes for weight in weights.values())
    plan = with_loras(Plan(Base("memory", None, Memory(weights))), 4)
    copy = timed(device, total, lambda: copied(plan, device))
    yield Row(f"copy of {total / 1e9:.2f} GB up and half down", copy[0], "GB/s", copy[1])
    for loras in (4, 1, 8):
        for name, format in FORMATS.items() if loras == 4 else (("fp8", FORMATS["fp8"]),):
            some = with_loras(Plan(Base("memory", None, Memory(weights))), loras)
            yield rate(f"host memory -> {name}, {loras} LoRAs", device, total, some, format, copy[1])
    yield from in_vram(device, weights, copy[1])
    with tempfile.TemporaryDirectory() as folder:
        yield from files(Path(folder), weights, device, total, copy[1])
    if device.type == "cuda":
        yield profiled(device, plan)


def made(gigabytes: float, smoke: bool) -> dict[str, torch.Tensor]:
    """Weights: one block of random numbers and its copies, at most a third of the free memory."""
    width = 256 if smoke else 3072
    shapes = {**dict.fromkeys("qkvo", (width, width)), "up": (4 * width, width), "down": (width, 4 * width)}
    block = {name: (torch.randn(shape) * 0.02).bfloat16() for name, shape in shapes.items()}
    size = sum(weight.nbytes for weight in block.values())
    wanted = 2 * size if smoke else min(gigabytes * 1e9, (available_bytes() or 8 << 30) / 3)
    blocks = max(1, int(wanted // size))
    return {f"blocks.{i}.{name}.weight": each.clone() for i in range(blocks) for name, each in block.items()}


def with_loras(plan: Plan, count: int) -> Plan:
    """LoRAs of rank 32 on every weight; weights of one shape share their factors."""
    for number in range(count):
        factors: dict[str, torch.Tensor] = {}
        patches = []
        for info in plan.base.source.tensors.values():
            up, down = (f"{part}{info.shape}" for part in ("up", "down"))
            if up not in factors:
                factors[up] = (torch.randn(info.shape[0], RANK) * 0.0002).bfloat16()
                factors[down] = (torch.randn(RANK, info.shape[1]) / RANK**0.5).bfloat16()
            adapter = Adapter(info.name, "lora", (("up", up), ("down", down)), RANK, info.shape)
            patches.append(Patch(adapter, Target(info.name)))
        told = LoRAInfo(f"{number}", f"{number:064x}", "down/up")
        coverage = Coverage(len(patches), len(patches))
        plan = plan.add(Layer(STACK, told, 0.5 + number, tuple(patches), coverage, factors=Memory(factors)))
    return plan


def copied(plan: Plan, device: torch.device) -> None:
    """What a bake to fp8 has to move, with nothing done to it."""
    source = plan.base.source
    if device.type != "cuda":
        for name in source.tensors:
            source.read(name).clone().flatten()[: source.tensors[name].nbytes // 4].clone()
        return
    made = blueprint(plan, Finish("float8_e4m3fn", keep=()))
    upload, reader = Upload(device, source, cargo_of([worked_on(made)]), 3), Direct(source)
    download = Download(Discard(), device, max(info.nbytes for info in source.tensors.values()) // 2)
    for name in source.tensors:
        loaded = upload(reader, name)
        loaded.begin()
        download.write(name, loaded.tensor.view(torch.uint8).flatten()[: loaded.tensor.nbytes // 2])
        loaded.done()
    upload.close()


def timed(device: torch.device, total: int, job: Callable[[], object]) -> tuple[float, float]:
    """GB/s of the first run and of the best of three, from begin to end on the host and the device."""
    speeds = []
    for _ in range(3):
        begin = time.perf_counter()
        job()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        speeds.append(total / (time.perf_counter() - begin) / 1e9)
    return speeds[0], max(speeds)


def rate(what: str, device: torch.device, total: int, plan: Plan, format: str, copy: float) -> Row:
    """One bake, and the most device memory it took."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    finish = Finish(format, keep=()) if format != "none" else Finish()
    first, best = timed(device, total, lambda: bake(plan, finish, Discard(), device=device))
    peak = torch.cuda.max_memory_allocated(device) / 1e9 if device.type == "cuda" else None
    return Row(what, first, "GB/s", best, best / copy, peak)


def in_vram(device: torch.device, weights: dict[str, torch.Tensor], copy: float) -> Iterator[Row]:
    """From weights that lie on the device already: what is left when the bus is not in the way."""
    with suppress(torch.OutOfMemoryError):
        there = {name: weight.to(device) for name, weight in list(weights.items())[:60]}
        total = sum(weight.nbytes for weight in there.values())
        speed = timed(device, total, lambda: [weight.clone() for weight in there.values()])
        yield Row("copy within the device", speed[0], "GB/s", speed[1])
        plan = with_loras(Plan(Base("device", None, Memory(there))), 4)
        for name, format in FORMATS.items():
            yield rate(f"device memory -> {name}, 4 LoRAs", device, total, plan, format, copy)
        if device.type == "cuda" and not kernels.why_not(device):
            with patch.object(kernels, "why_not", lambda device: "to compare"):
                yield rate("device memory -> fp8 by torch alone", device, total, plan, FORMATS["fp8"], copy)


def files(
    folder: Path, weights: dict[str, torch.Tensor], device: torch.device, total: int, copy: float
) -> Iterator[Row]:
    """From a file to a file."""
    base = folder / "base.safetensors"
    with write_safetensors(base, list(Memory(weights).tensors.values()), {}) as sink:
        for name, weight in weights.items():
            sink.write(name, weight)
    plan = with_loras(Plan(Base("file", None, FileSource(base))), 4)
    finish = Finish("float8_e4m3fn", keep=())
    first, best = timed(device, total, lambda: bake_to_file(plan, finish, folder / "out.safetensors", device=device))
    yield Row("file -> fp8 file, 4 LoRAs", first, "GB/s", best, best / copy)


def profiled(device: torch.device, plan: Plan) -> Row:
    """Share of a bake's time that the host spends in calls that wait for the device."""
    from torch.profiler import ProfilerActivity, profile

    begin = time.perf_counter()
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as seen:
        bake(plan, Finish("float8_e4m3fn", keep=()), Discard(), device=device)
    seconds = time.perf_counter() - begin
    waits = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize")
    waited = {each.key: each.cpu_time_total / 1e6 for each in seen.key_averages() if each.key in waits}
    told = ", ".join(f"{name} {part / seconds:.0%}" for name, part in waited.items())
    return Row("time in waits, all threads (the reader's and the writer's are meant to wait)", told or "none")


def steps(device: torch.device, smoke: bool) -> Iterator[Row]:
    """First and further steps after each way to put LoRAs on, with a ComfyUI where one is found."""
    if smoke:
        return
    for each in strategies.run(device=device, steps=2)["rows"]:
        seconds = [f"{key} {each[key]:.2f}" for key in ("ready_s", "first_step_s", "step_s") if key in each]
        yield Row(f"steps after {each['name']}", ", ".join(seconds) or each["state"], "s")


if __name__ == "__main__":
    main()
