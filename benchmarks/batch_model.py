"""What a batch costs: a model of four numbers, measured here, and a simulation of the loop that a real run checks.

python benchmarks/batch_model.py [folder]            measures, fits, predicts two workers, runs them, compares
python benchmarks/batch_model.py --runs 3 [folder]   runs one worker and two in turn, three times, and compares
python benchmarks/batch_model.py --documents 1000 --bases 5 --gigabytes 24 --machines 10 --workers 2 [--network 1.25]
                                                     simulates alone, with the numbers below

A unit of n documents on a base of G GB takes  START + n * PLAN + G * (READ + n * DOCUMENT)  processor seconds with one
thread, and moves  G * (1 + n * OUT)  GB over the network where files lie on another machine.
"""

from __future__ import annotations

import argparse
import heapq
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from lora_foundry.cli.demo import tiny
from lora_foundry.engine.tensors import TensorInfo
from lora_foundry.loaders.batches.shares import parts_of
from lora_foundry.loaders.disk.small import save_small
from lora_foundry.loaders.disk.writer import write_safetensors

WIDTH, RANK = 1024, 16
SMALL, LARGE = 4, 16  # blocks of a base: 0.1 and 0.4 GB
COUNTS = (1, 6)  # documents of a unit that is measured


@dataclass(frozen=True)
class Costs:
    """Processor seconds: of a process, of a document's plan, of reading a GB once, of a document for each GB."""

    start: float
    plan: float
    read: float
    document: float
    out: float = 0.51  # GB that a document writes for each GB of a bf16 base in fp8

    def cpu(self, gigabytes: float, documents: int) -> float:
        """Processor seconds of a unit."""
        return self.start + documents * self.plan + gigabytes * (self.read + documents * self.document)

    def moved(self, gigabytes: float, documents: int) -> float:
        """GB of a unit that are read or written."""
        return gigabytes * (1 + documents * self.out)


# As benchmarks/RESULTS.md has them, from a machine that others used too: planning and reading are hidden by that.
HERE = Costs(start=3.4, plan=0.0, read=0.0, document=4.3)


@dataclass(frozen=True)
class Outcome:
    """The seconds of a batch until its last worker is through, its processor seconds, and the GB that were moved."""

    seconds: float
    cpu: float
    moved: float
    passes: int


def simulate(groups: Sequence[tuple[float, int]], workers: int, costs: Costs, network: float = 0.0) -> Outcome:
    """The loop over (GB of a base, documents on it); ``network``: GB/s of each worker, 0: files are on its own disks.

    Units are those of ``batch``, the largest first, each to the worker that is free first.
    """
    units = [
        (gigabytes, count * (i + 1) // number - count * i // number)
        for (gigabytes, count), number in zip(groups, parts_of(groups, workers), strict=True)
        for i in range(number)
    ]
    free = [0.0] * workers
    for unit in sorted(units, key=lambda unit: -unit[0] * unit[1]):
        busy = max(costs.cpu(*unit), costs.moved(*unit) / network if network else 0.0)
        heapq.heappush(free, heapq.heappop(free) + busy)
    cpu, moved = (sum(each(*unit) for unit in units) for each in (costs.cpu, costs.moved))
    return Outcome(max(free), cpu, moved, len(units))


# --- what is measured -------------------------------------------------------------------------------------------------


def make_files(folder: Path) -> None:
    """A small base, a large one, another small one, and two LoRAs for each."""
    for seed, (name, blocks) in enumerate((("small", SMALL), ("large", LARGE), ("other", SMALL))):
        block = {"q": (WIDTH, WIDTH), "k": (WIDTH, WIDTH), "v": (WIDTH, WIDTH), "o": (WIDTH, WIDTH)}
        block |= {"up": (4 * WIDTH, WIDTH), "down": (WIDTH, 4 * WIDTH)}
        shapes = {f"blocks.{i}.{part}.weight": shape for i in range(blocks) for part, shape in block.items()}
        generator = torch.Generator().manual_seed(seed)
        infos = [TensorInfo(key, torch.bfloat16, shape) for key, shape in shapes.items()]
        with write_safetensors(folder / f"{name}.safetensors", infos, {}) as sink:
            for info in infos:
                sink.write(info.name, (torch.randn(info.shape, generator=generator) * 0.02).bfloat16())
        for lora in (0, 1):
            tensors = tiny.lora(shapes, rank=RANK, alpha=RANK, prefix="diffusion_model.", seed=10 * seed + lora)
            save_small(folder / f"{name}_{lora}.safetensors", tensors)


def documents(folder: Path, base: str, count: int) -> list[Path]:
    """Documents on a base, each with both LoRAs at strengths of its own."""
    made = []
    for number in range(count):
        stack = [{"path": f"{base}_{lora}.safetensors", "strength": 0.5 + (number + lora) / 50} for lora in (0, 1)]
        made.append(folder / f"{base}{number:02}.json")
        made[-1].write_text(json.dumps({"base": f"{base}.safetensors", "stack": stack, "quantize": "fp8"}))
    return made


@contextmanager
def measured() -> Iterator[dict[str, float]]:
    """Seconds by the clock and processor seconds of the processes that the block waits for."""
    told: dict[str, float] = {}
    begun, used = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    yield told
    now = resource.getrusage(resource.RUSAGE_CHILDREN)
    told["seconds"] = time.perf_counter() - begun
    told["cpu"] = now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime


def batch(folder: Path, wanted: Sequence[Path], workers: int, *more: str) -> dict[str, float]:
    """A batch anew with one thread a worker."""
    words = [sys.executable, *sys.orig_argv[1 : len(sys.orig_argv) - len(sys.argv)], str(Path(__file__).resolve())]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "LORA_FOUNDRY_HOME": str(folder / "home")}
    command = [*words, "--command", "batch", *map(str, wanted), "-o", str(folder / "out"), "--workers", str(workers)]
    with measured() as told:
        subprocess.run(
            [*command, "--threads", "1", "--fresh", *more], env=environment, check=True, stdout=subprocess.DEVNULL
        )
    return told


def fit(folder: Path) -> tuple[Costs, float]:
    """The four numbers from four units: the small and the large base, with few and with many documents.

    What the command itself takes, which starts torch to read documents, is that of a dry run, and taken off.
    """
    command = min(batch(folder, documents(folder, "small", 1), 1, "--dry-run")["cpu"] for _ in range(2))
    print(f"the command itself: {command:.1f} CPU s")
    passes, rest = list[tuple[float, int, float]](), list[tuple[int, float]]()
    for base in ("small", "large"):
        gigabytes = (folder / f"{base}.safetensors").stat().st_size / 1e9
        for count in COUNTS:
            whole, inside = min(_measured(folder, base, count) for _ in range(2))
            print(
                f"{base}, {gigabytes:.2f} GB, {count} documents: {whole:.1f} CPU s, {inside:.1f} in the pass",
                flush=True,
            )
            passes.append((gigabytes, count, inside))
            rest.append((count, whole - command - inside))
    read, document = _least([(size, size * count) for size, count, _ in passes], [each[-1] for each in passes])
    start, plan = _least([(1.0, count) for count, _ in rest], [each[-1] for each in rest])
    return Costs(start, plan, read, document), command


def _measured(folder: Path, base: str, count: int) -> tuple[float, float]:
    """(processor seconds of a batch of one unit, those of its pass)."""
    wanted = documents(folder, base, count)
    whole = batch(folder, wanted, 1)["cpu"]
    record = json.loads((folder / "out" / "records" / f"{wanted[0].stem}.json").read_text())
    return whole, record["cpu_seconds"]


def _least(rows: Sequence[tuple[float, float]], seen: Sequence[float]) -> tuple[float, float]:
    """Two numbers of which none is negative, by least squares."""
    table, wanted = np.array(rows), np.array(seen)
    first, second = (float(each) for each in np.linalg.lstsq(table, wanted, rcond=None)[0])
    if first < 0:
        return 0.0, float(table[:, 1] @ wanted / (table[:, 1] @ table[:, 1]))
    if second < 0:
        return float(table[:, 0] @ wanted / (table[:, 0] @ table[:, 0])), 0.0
    return first, second


def compare_runs(folder: Path, runs: int) -> None:
    """20 documents over two bases by one worker and by two, in turn: the ratio of each pair, and their median."""
    wanted = [*documents(folder, "small", 10), *documents(folder, "other", 10)]
    ratios = []
    for _ in range(runs):
        one, two = (batch(folder, wanted, workers) for workers in (1, 2))
        ratios.append(two["seconds"] / one["seconds"])
        for workers, each in ((1, one), (2, two)):
            busy = each["cpu"] / each["seconds"]
            print(f"workers {workers}: {each['seconds']:.1f} s, {each['cpu']:.1f} CPU s ({busy:.2f} cores busy)")
        print(f"two for one: {ratios[-1]:.2f} (load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores)", flush=True)
    print(f"two for one, median of {runs}: {statistics.median(ratios):.2f} (asked: 0.65 where each has a core)")


def compare(folder: Path, costs: Costs, command: float) -> None:
    """20 documents over two bases by one worker and by two: what the model says, and what was seen."""
    wanted = [*documents(folder, "small", 10), *documents(folder, "other", 10)]
    gigabytes = (folder / "small.safetensors").stat().st_size / 1e9
    told = {workers: simulate([(gigabytes, 10)] * 2, workers, costs) for workers in (1, 2)}
    seen = {workers: batch(folder, wanted, workers) for workers in (1, 2)}
    for workers, model in told.items():
        run = seen[workers]
        print(f"{workers} workers, CPU s: {model.cpu + command:.1f} by the model, {run['cpu']:.1f} seen")
        print(f"{workers} workers, s: {model.seconds + command:.1f} by the model, {run['seconds']:.1f} seen")
    print(
        f"two for one: {(told[2].seconds + command) / (told[1].seconds + command):.2f} by the model, "
        f"{seen[2]['seconds'] / seen[1]['seconds']:.2f} seen (load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores)"
    )


def main() -> None:
    """Simulate what the options say, or measure, fit and compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path)
    for name, kind in (("documents", int), ("bases", int), ("gigabytes", float), ("machines", int), ("workers", int)):
        parser.add_argument(f"--{name}", type=kind, default=1)
    parser.add_argument("--runs", type=int, default=0, help="only run one worker and two, this often")
    parser.add_argument("--network", type=float, default=0.0, help="GB/s of a machine, shared by its workers")
    options = parser.parse_args()
    if options.documents > 1:
        groups = [(options.gigabytes, options.documents // options.bases)] * options.bases
        workers = options.machines * options.workers
        told = simulate(groups, workers, HERE, options.network / options.workers)
        print(
            f"{told.seconds / 3600:.2f} h, {told.cpu / 3600:.1f} CPU h, {told.moved / 1e3:.1f} TB moved, "
            f"{told.passes} passes by {workers} workers"
        )
        return
    with tempfile.TemporaryDirectory(prefix="lora_foundry_bench_", dir=options.folder) as name:
        make_files(Path(name))
        if options.runs:
            compare_runs(Path(name), options.runs)
            return
        costs, command = fit(Path(name))
        print(costs, flush=True)
        compare(Path(name), costs, command)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--command"]:
        from lora_foundry.cli.main import main as command

        sys.exit(command(sys.argv[2:]))
    main()
