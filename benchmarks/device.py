"""On a GPU: is it right, and how much of the bus does it use? One run of at most 8 minutes on a bare machine.

pip install -q torch safetensors numpy einops pyyaml && python benchmarks/device.py --write
python benchmarks/device.py [--device cuda] [--gigabytes 10] [--minutes 8] [--smoke] [--write [FOLDER]]

The pack need not be installed. Every row is printed when it is measured, and with ``--write`` is in device.json and in
the device's section of RESULTS.md (in benchmarks/, or in FOLDER) at once: a time limit leaves what was measured. What
goes wrong is a row too, and the next one comes. Right first (device_checks.py), in half of the time, then rates:
GB/s count the bf16 bytes read, shapes are those of Qwen-Image blocks. The copy they are held against is that of the
same run: from ordinary host memory through the same page-locked pieces up, and half as much down, which is what a bake
to fp8 has to move; with weights on the device, a copy there. ``--smoke`` does everything once with tiny weights, also
on a CPU.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from functools import partial
from pathlib import Path

import pack_here as pack_here  # first: it makes the rest importable
import torch
from common import Discard, Memory
from device_checks import CHECKS, Check, ends_a_process
from device_profile import profiled, variants
from device_rows import Row, Rows, Source
from lora_foundry.cli.benchmark import run as strategies
from lora_foundry.engine import kernels
from lora_foundry.engine.bake import bake
from lora_foundry.engine.blueprint import blueprint
from lora_foundry.engine.devices import arithmetic_of
from lora_foundry.engine.finish import Finish
from lora_foundry.engine.memory import AUTO, available_bytes
from lora_foundry.engine.pipeline import Direct, Read, WriteBehind, read_in_order
from lora_foundry.engine.plan import STACK, Adapter, Base, Coverage, Layer, LoRAInfo, Patch, Plan, Target
from lora_foundry.engine.room import cargo_of, worked_on
from lora_foundry.engine.streams import Download, Upload
from lora_foundry.engine.tensors import Nowhere, TensorSink
from lora_foundry.loaders.bakes.baking import bake_to_file
from lora_foundry.loaders.disk.source import FileSource
from lora_foundry.loaders.disk.writer import write_safetensors

RANK = 32
FORMATS = {"fp8": "float8_e4m3fn", "int8_convrot": "int8_convrot", "bf16": "none"}
HERE = Path(__file__).parent
RIGHT, CHECKING, RATES = 0.35, 0.5, 0.9  # of the time: until then results are compared, checked, then rates are taken


def main(arguments: Sequence[str] | None = None) -> list[Row]:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--gigabytes", type=float, default=10.0)
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--write", nargs="?", type=Path, const=HERE, metavar="FOLDER")
    options = parser.parse_args(arguments)
    device = torch.device(options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        sys.exit("there is no CUDA device here; on a CPU: python benchmarks/device.py --device cpu --smoke")
    if options.write is not None:
        options.write.mkdir(parents=True, exist_ok=True)
    rows = Rows(device, options.write, options.minutes)
    begin = time.perf_counter()
    if device.type == "cuda" and (ending := ends_a_process(device)):
        os.environ[kernels.SETTING] = "0"
        rows.add(Row("Triton kernels: WRONG, a process does not outlive them", ending))
    print(f"{rows.name}: {arithmetic_of(device, AUTO)}", flush=True)
    if device.type == "cuda":
        for what, why_not in (("kernels", kernels.why_not), ("rotations", kernels.why_no_rotation)):
            said = why_not(device) or "right, and used"
            rows.add(Row(f"Triton {what}: {said}", time.perf_counter() - begin, "s to compile and check"))
    for check in CHECKS:
        until = RIGHT if check is CHECKS[0] else CHECKING  # the long one leaves time for the others
        rows.take(check.__name__, partial(checked, check, device, options.smoke), until)
    for name, source in Rates(device, options.gigabytes, options.smoke).sources():
        rows.take(name, source, RATES)
    if not options.smoke:
        rows.take("steps", partial(steps, device), 1.0)
    return rows.rows


def checked(check: Check, device: torch.device, smoke: bool) -> Iterator[Row]:
    """Whether results are right, the same again, and whether cancelling and running out of memory end well."""
    return (Row(what, value, unit) for what, value, unit in check(device, smoke))


class Rates:
    """GB/s of copies and bakes, each kind of row by itself."""

    def __init__(self, device: torch.device, gigabytes: float, smoke: bool) -> None:
        self.device, self._gigabytes, self._smoke = device, gigabytes, smoke
        self._weights, self._copy = dict[str, torch.Tensor](), 0.0

    def sources(self) -> Iterator[tuple[str, Source]]:
        """(name, rows) in the order in which they are worth most."""
        if self.device.type == "cuda":
            yield "bus", self.bus
        yield "copy", self.copy
        for loras, name in ((4, "fp8"), (4, "bf16"), (4, "int8_convrot"), (1, "fp8"), (8, "fp8")):
            yield f"host memory -> {name}", partial(self.from_host, loras, name)
        yield "device memory", self.in_vram
        yield "files", self.files
        if self.device.type == "cuda":
            yield "page-locked memory", self.from_pinned
        yield "profile", lambda: profiled(self.device, with_loras(self.plan(self._some()), 4))
        yield "variants", self.in_other_ways

    def plan(self, weights: dict[str, torch.Tensor]) -> Plan:
        """One on these weights, without LoRAs."""
        return Plan(Base("memory", None, Memory(weights)))

    def bus(self) -> Iterator[Row]:
        """What the bus does with page-locked memory, and the host with ordinary one."""
        size = 1 << 20 if self._smoke else 1 << 28
        ordinary = torch.ones(size, dtype=torch.uint8)
        host = torch.empty(size, dtype=torch.uint8, pin_memory=True)
        there = torch.empty(size, dtype=torch.uint8, device=self.device)
        for what, to, of in (
            ("ordinary -> page-locked memory", host, ordinary),
            ("bus up", there, host),
            ("bus down", host, there),
        ):
            first, best = timed(self.device, 4 * size, partial(copy_often, to, of, 4))
            yield Row(what, first, "GB/s", best)

    def copy(self) -> Iterator[Row]:
        """The weights up and half as much down, with nothing done to them."""
        self._weights = made(self._gigabytes, self._smoke)
        plan = with_loras(self.plan(self._weights), 4)
        first, self._copy = timed(self.device, self.total, lambda: copied(plan, self.device))
        yield Row(f"copy of {self.total / 1e9:.2f} GB up and half down", first, "GB/s", self._copy)

    @property
    def total(self) -> int:
        """Bytes of all weights."""
        return sum(weight.nbytes for weight in self._weights.values())

    def from_host(self, loras: int, name: str) -> Iterator[Row]:
        """A bake of weights in ordinary memory."""
        some = with_loras(self.plan(self._weights), loras)
        what = f"host memory -> {name}, {loras} LoRAs"
        yield rate(what, self.device, self.total, some, FORMATS[name], self._copy)

    def from_pinned(self) -> Iterator[Row]:
        """The same of weights in page-locked memory."""
        pinned = {
            name: torch.empty(weight.shape, dtype=weight.dtype, pin_memory=True).copy_(weight)
            for name, weight in self._some().items()
        }
        total = sum(weight.nbytes for weight in pinned.values())
        some = with_loras(self.plan(pinned), 4)
        yield rate("page-locked memory -> fp8, 4 LoRAs", self.device, total, some, FORMATS["fp8"], self._copy)

    def in_vram(self) -> Iterator[Row]:
        """From weights that lie on the device already and stay there: what is left when the bus is not in the way."""
        with suppress(torch.OutOfMemoryError):
            there = {name: weight.to(self.device) for name, weight in self._some().items()}
            total = sum(weight.nbytes for weight in there.values())
            speed = timed(self.device, total, lambda: [weight.clone() for weight in there.values()])
            yield Row("copy within the device", speed[0], "GB/s", speed[1])
            plan = with_loras(self.plan(there), 4)
            for name, format in FORMATS.items():
                what = f"device memory -> {name}, 4 LoRAs"
                yield rate(what, self.device, total, plan, format, speed[1], Nowhere())

    def in_other_ways(self) -> Iterator[Row]:
        """The same by torch alone, and with blocks of other sizes."""
        with suppress(torch.OutOfMemoryError):
            there = {name: weight.to(self.device) for name, weight in self._some().items()}
            total = sum(weight.nbytes for weight in there.values())
            copy = timed(self.device, total, lambda: [weight.clone() for weight in there.values()])[1]
            plan = with_loras(self.plan(there), 4)
            for name in FORMATS:
                what = f"device memory -> {name}, 4 LoRAs"
                each = partial(self._rate_there, what, total, plan, FORMATS[name], copy)
                yield from variants(self.device, each, blocks=name == "fp8")

    def _rate_there(self, what: str, total: int, plan: Plan, format: str, copy: float, how: str) -> Row:
        return rate(f"{what}, {how}", self.device, total, plan, format, copy, Nowhere())

    def _some(self) -> dict[str, torch.Tensor]:
        """A few of the weights."""
        return dict(list(self._weights.items())[:60])

    def files(self) -> Iterator[Row]:
        """From a file to a file: large weights, and small ones of one shape, which are worked on together."""
        size, count = (64, 12) if self._smoke else (640, 1200)
        one = (torch.randn(size, size) * 0.02).bfloat16()
        small = {f"blocks.{number}.to_q.weight": one.clone() for number in range(count)}
        for what, weights in ((f"small weights ({size} x {size})", small), ("large weights", self._weights)):
            with tempfile.TemporaryDirectory() as folder:
                base, out = Path(folder) / "base.safetensors", Path(folder) / "out.safetensors"
                with write_safetensors(base, list(Memory(weights).tensors.values()), {}) as sink:
                    for name, weight in weights.items():
                        sink.write(name, weight)
                plan = with_loras(Plan(Base("file", None, FileSource(base))), 4)
                job = partial(bake_to_file, plan, Finish("float8_e4m3fn", keep=()), out, device=self.device)
                first, best = timed(self.device, sum(weight.nbytes for weight in weights.values()), job)
            yield Row(f"file of {what} -> fp8 file, 4 LoRAs", first, "GB/s", best, best / self._copy)


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
    wanted = blueprint(plan, Finish("float8_e4m3fn", keep=()))
    upload, reader = Upload(device, source, cargo_of([worked_on(wanted)]), 3), Direct(source)
    download = Download(Discard(), device, max(info.nbytes for info in source.tensors.values()) // 2)
    reads = (Read(reader, name, upload) for name in source.tensors)
    with WriteBehind(download) as outlet, closing(read_in_order(reads)) as stream:
        for name, loaded in zip(source.tensors, stream, strict=True):
            loaded.begin()
            half = loaded.tensor.view(torch.uint8).flatten()[: loaded.tensor.nbytes // 2]
            outlet.write(name, outlet.buffer(half.shape, half.dtype, device).copy_(half))
            loaded.done()
    upload.close()


def copy_often(to: torch.Tensor, of: torch.Tensor, count: int) -> None:
    """Copy so many times."""
    for _ in range(count):
        to.copy_(of, non_blocking=True)


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


def rate(
    what: str, device: torch.device, total: int, plan: Plan, format: str, copy: float, sink: TensorSink | None = None
) -> Row:
    """One bake, and the most device memory it took."""
    there: TensorSink = Discard() if sink is None else sink
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    finish = Finish(format, keep=()) if format != "none" else Finish()
    first, best = timed(device, total, lambda: bake(plan, finish, there, device=device))
    peak = torch.cuda.max_memory_allocated(device) / 1e9 if device.type == "cuda" else None
    return Row(what, first, "GB/s", best, best / copy, peak)


def steps(device: torch.device) -> Iterator[Row]:
    """First and further steps after each way to put LoRAs on, with a ComfyUI where one is found."""
    for each in strategies.run(device=device, steps=2)["rows"]:
        seconds = [f"{key} {each[key]:.2f}" for key in ("ready_s", "first_step_s", "step_s") if key in each]
        yield Row(f"steps after {each['name']}", ", ".join(seconds) or each["state"], "s")


if __name__ == "__main__":
    main()
