"""On a GPU: a bake of random weights from host memory and from a file, against the copy bandwidth of the same run.

python benchmarks/device.py [gigabytes] [device]     default: 20 GB (or what fits into free memory), cuda

Shapes are those of Qwen-Image blocks, four LoRAs of rank 32. GB/s count the bf16 bytes read. ``copy`` is pinned host
memory to the device and half as much back, which is what a bake to fp8 has to move; the target is 60 % of it. Prints a
Markdown section; with ``--write`` it replaces the one of this device in benchmarks/RESULTS.md.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from common import Discard, Memory
from lora_foundry.engine.bake import bake
from lora_foundry.engine.finish import Finish
from lora_foundry.engine.memory import available_bytes
from lora_foundry.engine.plan import STACK, Adapter, Base, Coverage, Layer, LoRAInfo, Patch, Plan, Target
from lora_foundry.engine.tensors import TensorInfo
from lora_foundry.loaders.bakes.baking import bake_to_file
from lora_foundry.loaders.disk.source import FileSource
from lora_foundry.loaders.disk.writer import write_safetensors

WIDTH, RANK, LORAS = 3072, 32, 4
BLOCK = {"q": (WIDTH, WIDTH), "k": (WIDTH, WIDTH), "v": (WIDTH, WIDTH), "o": (WIDTH, WIDTH)}
BLOCK |= {"up": (4 * WIDTH, WIDTH), "down": (WIDTH, 4 * WIDTH)}
BLOCK_BYTES = sum(2 * rows * columns for rows, columns in BLOCK.values())
RESULTS = Path(__file__).parent / "RESULTS.md"


def main() -> None:
    """Measure and print."""
    arguments = [argument for argument in sys.argv[1:] if not argument.startswith("--")]
    device = torch.device(arguments[1] if len(arguments) > 1 else "cuda")
    if device.type == "cuda" and not torch.cuda.is_available():
        sys.exit("there is no CUDA device here; on a CPU: python benchmarks/device.py 1 cpu")
    wanted = float(arguments[0]) * 1e9 if arguments else 20e9
    blocks = max(1, int(min(wanted, (available_bytes() or 8e9) / 3) // BLOCK_BYTES))
    weights = {f"blocks.{i}.{name}.weight": random(shape) for i in range(blocks) for name, shape in BLOCK.items()}
    total = sum(weight.nbytes for weight in weights.values())
    plan = with_loras(Plan(Base("memory", None, Memory(weights))))
    rows = [("copy up and half down", copy_rate(device, total))]
    for name, finish in (("fp8", Finish("float8_e4m3fn", keep=())), ("int8_convrot", Finish("int8_convrot", keep=()))):
        job = partial(bake, plan, finish, Discard(), device=device)
        rows.append((f"memory -> {name}", rate(device, total, job)))
    with tempfile.TemporaryDirectory() as folder:
        rows.append(("file -> fp8 file", file_rate(Path(folder), weights, device, total)))
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    best = rows[0][1]
    lines = [f"## {name}, torch {torch.__version__}, {total / 1e9:.1f} GB bf16, {LORAS} LoRAs of rank {RANK}", ""]
    lines += ["| what | GB/s | of the copy |", "|---|--:|--:|"]
    lines += [f"| {what} | {value:.1f} | {value / best:.0%} |" for what, value in rows]
    if device.type == "cuda":
        lines.append(f"\npeak device memory {torch.cuda.max_memory_allocated(device) / 1e9:.2f} GB")
    text = "\n".join(lines) + "\n"
    print(text)
    if "--write" in sys.argv:
        others = RESULTS.read_text(encoding="utf-8").split("\n## ") if RESULTS.exists() else ["# Results\n"]
        kept = [part for part in others[1:] if not part.startswith(f"{name}, ")]
        RESULTS.write_text("\n## ".join([others[0], *kept, text.removeprefix("## ")]), encoding="utf-8")


def random(shape: tuple[int, ...]) -> torch.Tensor:
    """bf16 numbers of rms 0.02."""
    return (torch.randn(shape) * 0.02).bfloat16()


def with_loras(plan: Plan) -> Plan:
    """Four LoRAs on every weight; weights of one shape share their factors."""
    for number in range(LORAS):
        factors: dict[str, torch.Tensor] = {}
        patches = []
        for info in plan.base.source.tensors.values():
            up, down = (f"{part}{info.shape}" for part in ("up", "down"))
            if up not in factors:
                factors[up] = (torch.randn(info.shape[0], RANK) * 0.0002).bfloat16()
                factors[down] = (torch.randn(RANK, info.shape[1]) / RANK**0.5).bfloat16()
            adapter = Adapter(info.name, "lora", (("up", up), ("down", down)), RANK, info.shape)
            patches.append(Patch(adapter, Target(info.name)))
        count = len(patches)
        told = LoRAInfo(f"{number}", f"{number:064x}", "down/up")
        plan = plan.add(Layer(STACK, told, 1.0, tuple(patches), Coverage(count, count), factors=Memory(factors)))
    return plan


def rate(device: torch.device, total: int, job: Callable[[], object]) -> float:
    """GB/s of the better of two runs."""
    best = float("inf")
    for _ in range(2):
        start = time.perf_counter()
        job()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - start)
    return total / best / 1e9


def copy_rate(device: torch.device, total: int) -> float:
    """Pinned memory to the device and half as much back at the same time, in pieces of 75 MB."""
    size = 75 << 20
    pin = device.type == "cuda"
    up, down = (
        torch.empty(size, dtype=torch.uint8, pin_memory=pin),
        torch.empty(size // 2, dtype=torch.uint8, pin_memory=pin),
    )
    there = torch.empty(size, dtype=torch.uint8, device=device)
    streams = [torch.cuda.Stream(device) for _ in range(2 if pin else 0)]  # type: ignore[no-untyped-call]

    def job() -> None:
        for _ in range(max(1, total // size)):
            if pin:
                with torch.cuda.stream(streams[0]):
                    there.copy_(up, non_blocking=True)
                with torch.cuda.stream(streams[1]):
                    down.copy_(there[: size // 2], non_blocking=True)
            else:
                there.copy_(up)
                down.copy_(there[: size // 2])

    return rate(device, total, job)


def file_rate(folder: Path, weights: dict[str, torch.Tensor], device: torch.device, total: int) -> float:
    """The same from a file to a file."""
    infos = [TensorInfo(name, weight.dtype, tuple(weight.shape)) for name, weight in weights.items()]
    with write_safetensors(folder / "base.safetensors", infos, {}) as sink:
        for name, weight in weights.items():
            sink.write(name, weight)
    plan = with_loras(Plan(Base("file", None, FileSource(folder / "base.safetensors"))))
    finish = Finish("float8_e4m3fn", keep=())
    return rate(device, total, lambda: bake_to_file(plan, finish, folder / "out.safetensors", device=device))


if __name__ == "__main__":
    main()
