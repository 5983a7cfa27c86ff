"""File to file: a bf16 base with four LoRAs into one fp8 file; time, CPU time and peak memory, each in its own process.

python benchmarks/files.py [gigabytes] [folder]     default: 3 GB below the system's temporary folder, removed again

Rows: what people do (load_file, add each LoRA, quantize, save_file) | this bake, in its three memory modes and without
mmap | one of four strengths changed, of a LoRA that touches half the layers | nothing changed | the parts of the bake
alone: its GEMM, its cast, its copy. The page cache is warm; the better of two rounds counts.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from common import best_of
from lora_foundry.cli.demo import tiny
from lora_foundry.engine.finish import Finish
from lora_foundry.engine.formats import FORMATS
from lora_foundry.engine.memory import LOW, LOWEST, peak_rss_bytes
from lora_foundry.engine.tensors import TensorInfo
from lora_foundry.loaders.bakes.baking import BakeOptions, FileRequest, bake_files, resolve
from lora_foundry.loaders.disk.source import FileSource
from lora_foundry.loaders.disk.writer import write_safetensors
from lora_foundry.loaders.documents.document import parse_document
from lora_foundry.loaders.plans.planner import plan_document

RANK, WIDTH = 32, 3072
ROUNDS = 2  # the better one counts: in a virtual machine the first use of memory costs more than what is measured
LORAS = ("a", "b", "c", "half")
STRENGTHS = {"a": 1.0, "b": 0.8, "c": 0.6, "half": 0.7}
FORMAT = FORMATS["float8_e4m3fn"]
# Each runs in a process of its own; those after "bake" use its result.
MODES = ("naive", "bake", "unchanged", "changed", "no mmap", "low", "lowest", "gemm", "cast", "copy", "import")


def shapes(gigabytes: float) -> dict[str, tuple[int, ...]]:
    """Blocks of four square and two wide weights, as in a transformer of width 3072."""
    block = {"q": (WIDTH, WIDTH), "k": (WIDTH, WIDTH), "v": (WIDTH, WIDTH), "o": (WIDTH, WIDTH)}
    block |= {"up": (4 * WIDTH, WIDTH), "down": (WIDTH, 4 * WIDTH)}
    each = sum(2 * rows * columns for rows, columns in block.values())
    count = max(2, round(gigabytes * 1e9 / each))
    return {f"blocks.{i}.{name}.weight": shape for i in range(count) for name, shape in block.items()}


def make_files(folder: Path, gigabytes: float) -> None:
    """Base and LoRAs of random numbers; each LoRA is about 1 % of the weights."""
    wanted = shapes(gigabytes)
    generator = torch.Generator().manual_seed(0)
    numbers = (torch.randn(4 * WIDTH * WIDTH, generator=generator) * 0.02).bfloat16()
    entries = [TensorInfo(name, torch.bfloat16, shape) for name, shape in wanted.items()]
    with write_safetensors(folder / "base.safetensors", entries, {}) as sink:
        for i, info in enumerate(entries):
            rolled = numbers.roll(7919 * (i + 1))[: info.shape[0] * info.shape[1]]
            sink.write(info.name, rolled.reshape(info.shape))
    half = len({name.split(".")[1] for name in wanted}) // 2
    for seed, name in enumerate(LORAS):
        modules = {key: shape for key, shape in wanted.items() if name != "half" or int(key.split(".")[1]) < half}
        tensors = tiny.lora(modules, rank=RANK, alpha=RANK, prefix="diffusion_model.", seed=seed)
        infos = [TensorInfo(key, value.dtype, tuple(value.shape)) for key, value in tensors.items()]
        with write_safetensors(folder / f"{name}.safetensors", infos, {}) as sink:
            for key, value in tensors.items():
                sink.write(key, value)


def main() -> None:
    """Make the files, run every mode in a process of its own, print the table."""
    gigabytes = float(sys.argv[1]) if len(sys.argv) > 1 else 3.0
    where = Path(sys.argv[2]) if len(sys.argv) > 2 else None
    with tempfile.TemporaryDirectory(prefix="lora_foundry_bench_", dir=where) as name:
        folder = Path(name)
        make_files(folder, gigabytes)
        seen = best_of(MODES, folder, ROUNDS)
    bake, naive = seen["bake"], seen["naive"]
    parts = sum(seen[mode]["cpu"] for mode in ("gemm", "cast", "copy"))
    print(f"{bake['bytes'] / 1e9:.2f} GB, 4 LoRAs of rank {RANK}, {torch.get_num_threads()} threads")
    print("| mode | wall s | CPU s | peak RSS GB | CPU, relative to bake |\n|---|--:|--:|--:|--:|")
    for mode, row in seen.items():
        print(f"| {mode} | {row['wall']:.2f} | {row['cpu']:.2f} | {row['rss']:.2f} | {row['cpu'] / bake['cpu']:.2f} |")
    ratios = {
        "bake / naive, CPU (target 0.25)": bake["cpu"] / naive["cpu"],
        "bake / its parts, CPU (1.3)": bake["cpu"] / parts,
        "changed / bake, CPU (0.6)": seen["changed"]["cpu"] / bake["cpu"],
        "changed / bake, wall (0.6)": seen["changed"]["wall"] / bake["wall"],
        "unchanged / bake, CPU (0.02)": seen["unchanged"]["cpu"] / bake["cpu"],
    }
    print("\n".join(f"{what}: {ratio:.3f}" for what, ratio in ratios.items()))


def run(mode: str, folder: Path) -> None:
    """One mode; the imports are done before the clock starts, the peak counts them."""
    jobs: dict[str, Callable[[Path], int]] = {"naive": naive, "gemm": gemm, "cast": cast, "copy": copy}
    jobs["import"] = lambda folder: 0
    job = jobs.get(mode) or (lambda folder: ours(folder, mode))
    wall, cpu = time.perf_counter(), time.process_time()
    count = job(folder)
    numbers = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
    print(json.dumps({**numbers, "rss": peak_rss_bytes() / 1e9, "bytes": count}))


def ours(folder: Path, mode: str, format: str = FORMAT.name) -> int:
    """The bake as the command line runs it."""
    strengths = {**STRENGTHS, "half": 0.9} if mode == "changed" else STRENGTHS
    stack = [{"path": f"{name}.safetensors", "strength": strength} for name, strength in strengths.items()]
    document = parse_document({"base": str(folder / "base.safetensors"), "stack": stack}, "benchmark")
    plan = plan_document(type(document)(**{**vars(document), "folder": folder}))
    how = {"bake": BakeOptions(fresh=True), "no mmap": BakeOptions(mmap=False, fresh=True)}
    how |= {memory: BakeOptions(memory=memory, fresh=True) for memory in (LOW, LOWEST)}
    wanted = FileRequest(resolve(plan, Finish(format, keep=())), folder / "out.safetensors")
    (baked,) = bake_files([wanted], how.get(mode, BakeOptions()))
    assert baked.state == ("unchanged" if mode == "unchanged" else "made")
    assert bool(baked.report.reused) == (mode in ("unchanged", "changed"))
    return (folder / "base.safetensors").stat().st_size


def naive(folder: Path) -> int:
    """load_file, one LoRA after the other in fp32 and back to bf16, quantize from bf16, save_file."""
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "base.safetensors")
    for name, strength in STRENGTHS.items():
        lora = load_file(folder / f"{name}.safetensors")
        for key in [key for key in weights if f"diffusion_model.{key.removesuffix('.weight')}.alpha" in lora]:
            module = f"diffusion_model.{key.removesuffix('.weight')}"
            up, down = (lora[f"{module}.lora_{part}.weight"].float() for part in ("up", "down"))
            scale = strength * float(lora[f"{module}.alpha"]) / down.shape[0]
            weights[key] = (weights[key].float() + scale * (up @ down)).bfloat16()
    result = {}
    for key, weight in weights.items():
        step = weight.abs().amax().float() / FORMAT.largest
        result[key] = (weight.float() / step).to(FORMAT.dtype)
        result[f"{key}_scale"] = step
    save_file(result, folder / "naive.safetensors")
    return 0


def gemm(folder: Path) -> int:
    """The products alone, in the dtype the engine multiplies in: bf16 where that is native, else fp32."""
    from lora_foundry.engine.gemm import fast_bf16

    dtype = torch.bfloat16 if fast_bf16("cpu") else torch.float32
    half = FileSource(folder / "half.safetensors").tensors
    numbers = torch.empty(4 * WIDTH * WIDTH, dtype=dtype)
    for name, info in FileSource(folder / "base.safetensors").tensors.items():
        rank = RANK * (4 if f"diffusion_model.{name.removesuffix('.weight')}.alpha" in half else 3)
        up, down = torch.ones(info.shape[0], rank, dtype=dtype), torch.ones(rank, info.shape[1], dtype=dtype)
        torch.mm(up, down, out=numbers[: info.shape[0] * info.shape[1]].view(info.shape))
    return 0


def cast(folder: Path) -> int:
    """Each weight to fp32, its amax, and its codes; buffers are used again."""
    total, codes = torch.full((4 * WIDTH * WIDTH,), 0.01), torch.empty(4 * WIDTH * WIDTH, dtype=FORMAT.dtype)
    weight = torch.full((4 * WIDTH * WIDTH,), 0.01, dtype=torch.bfloat16)
    for info in FileSource(folder / "base.safetensors").tensors.values():
        count = info.shape[0] * info.shape[1]
        fp32 = total[:count].copy_(weight[:count]).view(info.shape)
        FORMAT.encode(fp32, FORMAT.scale_of(FORMAT.amax_of(fp32)), out=codes[:count].view(info.shape))
    return 0


def copy(folder: Path) -> int:
    """Read all of the base, and write as many bytes as the result has."""
    source, codes = FileSource(folder / "base.safetensors"), torch.zeros(4 * WIDTH * WIDTH, dtype=FORMAT.dtype)
    entries = [TensorInfo(info.name, FORMAT.dtype, info.shape) for info in source.tensors.values()]
    with source.reader() as reader, write_safetensors(folder / "copy.safetensors", entries, {}) as sink:
        for info in entries:
            reader.read(info.name).view(torch.int16)[::64].sum()
            sink.write(info.name, codes[: info.shape[0] * info.shape[1]].view(info.shape))
    return 0


if __name__ == "__main__":
    if "--mode" in sys.argv:
        run(sys.argv[-2], Path(sys.argv[-1]))
    else:
        main()
