"""Merging: the QR core against a dense SVD, and three Qwen-Image-sized LoRAs of rank 32 into one file.

python benchmarks/merge.py [blocks] [folder]     default: 60 blocks, 720 modules, 1.3 GB of LoRAs, removed again

Rows: read the inputs and write as many bytes as the result has, synced | exact merge in bf16 and in fp32 | half the
size | another method. Each in a process of its own, the page cache warm, the better of two rounds.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import torch
from common import best_of, cpu_ms
from lora_foundry.engine.gemm import Product
from lora_foundry.engine.memory import peak_rss_bytes
from lora_foundry.engine.merge.core import truncated
from lora_foundry.engine.merge.deltas import Delta
from lora_foundry.engine.merge.ranks import Policy
from lora_foundry.engine.tensors import TensorInfo
from lora_foundry.loaders.disk.source import FileSource
from lora_foundry.loaders.disk.writer import write_safetensors
from lora_foundry.loaders.merges.matching import Wanted
from lora_foundry.loaders.merges.merging import Request, merge

RANK, WIDTH = 32, 3072
STRENGTHS = {"a": 1.0, "b": 0.7, "c": 0.35}
ROUNDS = 2
MODES = ("import", "read and write", "exact bf16", "exact fp32", "half the size", "tsv")
LAYERS: Mapping[str, tuple[int, int]] = {
    **dict.fromkeys((f"attn.{name}" for name in ("to_q", "to_k", "to_v", "to_out.0")), (WIDTH, WIDTH)),
    **dict.fromkeys(
        (f"attn.{name}" for name in ("add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")), (WIDTH, WIDTH)
    ),
    **{f"{side}_mlp.net.0.proj": (4 * WIDTH, WIDTH) for side in ("img", "txt")},
    **{f"{side}_mlp.net.2": (WIDTH, 4 * WIDTH) for side in ("img", "txt")},
}


def main() -> None:
    """Measure the core, make the files, run every mode in a process of its own, print the tables."""
    blocks = int(sys.argv[1]) if len(sys.argv) > 1 else 60
    print("\n".join(core_lines()))
    with tempfile.TemporaryDirectory(
        prefix="lora_foundry_bench_", dir=sys.argv[2] if len(sys.argv) > 2 else None
    ) as at:
        folder = Path(at)
        for seed, name in enumerate(STRENGTHS):
            make_lora(folder / f"{name}.safetensors", blocks, seed)
        seen = best_of(MODES, folder, ROUNDS)
    plain = seen["read and write"]
    print(f"\n{12 * blocks} modules, {torch.get_num_threads()} threads")
    print("| mode | wall s | CPU s | peak RSS GB | wall, of reading and writing | file GB | error |")
    print("|---|--:|--:|--:|--:|--:|--:|")
    for mode, row in seen.items():
        numbers = f"{row['wall']:.2f} | {row['cpu']:.2f} | {row['rss']:.2f} | {row['wall'] / plain['wall']:.2f}"
        print(f"| {mode} | {numbers} | {row['bytes'] / 1e9:.2f} | {row['error']:.2g} |")


def core_lines() -> list[str]:
    """The nearest rank 32 of three LoRAs of rank 32: through the core, and by an SVD of the dense sum."""
    random = torch.Generator().manual_seed(0)
    factors = [(torch.randn(WIDTH, RANK, generator=random), torch.randn(RANK, WIDTH, generator=random)) for _ in "abc"]
    delta = Delta((WIDTH, WIDTH), tuple(Product(up, down, 0.01) for up, down in factors))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    (core,) = cpu_ms(lambda: truncated(delta, RANK))
    whole = torch.cat([0.01 * up for up, _ in factors], 1) @ torch.cat([down for _, down in factors])
    (dense,) = cpu_ms(lambda: torch.linalg.svd(whole), rounds=1)
    torch.set_num_threads(threads)
    whole = whole.double()
    left, values, right = torch.linalg.svd(whole, full_matrices=False)
    best = float(((left[:, :RANK] * values[:RANK]) @ right[:RANK] - whole).norm() / whole.norm())
    got = float((delta_matrix(truncated(delta, RANK)) - whole).norm() / whole.norm())
    what = f"nearest rank {RANK} of 3 x {RANK} on {WIDTH} x {WIDTH}, one thread"
    return [
        f"{what}: core {core:.1f} ms, dense SVD {dense:.0f} ms",
        f"ratio {dense / core:.0f}; error {got:.8f}, of the dense optimum {best:.8f}",
    ]


def delta_matrix(delta: Delta) -> torch.Tensor:
    """A delta of one product in float64."""
    (product,) = delta.products
    return product.scale * product.up.double() @ product.down.double()


def make_lora(path: Path, blocks: int, seed: int) -> None:
    """A bf16 LoRA of random numbers on every layer of ``blocks`` blocks, in the names of diffusers."""
    random = torch.Generator().manual_seed(seed)
    pool = (torch.randn(4 * WIDTH * RANK + 4096, generator=random) * 0.02).bfloat16()
    entries = []
    for block in range(blocks):
        for layer, (rows, columns) in LAYERS.items():
            name = f"transformer_blocks.{block}.{layer}"
            entries.append(TensorInfo(f"{name}.lora_A.weight", torch.bfloat16, (RANK, columns)))
            entries.append(TensorInfo(f"{name}.lora_B.weight", torch.bfloat16, (rows, RANK)))
    with write_safetensors(path, entries, {}) as sink:
        for number, info in enumerate(entries):
            shift = number * 61 % 4096
            sink.write(info.name, pool[shift : shift + info.shape[0] * info.shape[1]].reshape(info.shape))


def run(mode: str, folder: Path) -> None:
    """One mode; the imports are done before the clock starts, the peak counts them."""
    out = folder / "out.safetensors"
    wall, cpu, error = time.perf_counter(), time.process_time(), 0.0
    if mode == "read and write":
        copy(folder, out)
    elif mode != "import":
        error = merged(mode, folder, out)
    numbers = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu, "error": error}
    size = out.stat().st_size if out.exists() else 0
    print(json.dumps({**numbers, "rss": peak_rss_bytes() / 1e9, "bytes": size}))


def merged(mode: str, folder: Path, out: Path) -> float:
    """The merge as the command line runs it."""
    loras = tuple(
        Wanted(f"{name}.safetensors", folder / f"{name}.safetensors", weight) for name, weight in STRENGTHS.items()
    )
    size = sum(wanted.path.stat().st_size for wanted in loras)
    dtype = "fp32" if mode == "exact fp32" else "bf16"
    method = mode if mode == "tsv" else "exact"
    policy = Policy("size", size // 2) if mode == "half the size" else None
    return merge(Request(loras, out, method=method, dtype=dtype, policy=policy)).proof["error"]


def copy(folder: Path, out: Path) -> None:
    """Read every number of the inputs, and write as many bytes as the merged bf16 file has."""
    sources = {name: FileSource(folder / f"{name}.safetensors") for name in STRENGTHS}
    infos = [
        TensorInfo(f"{name}.{info.name}", info.dtype, info.shape)
        for name, source in sources.items()
        for info in source.tensors.values()
    ]
    with write_safetensors(out, infos, {}) as sink:
        for info in infos:
            name, _, stored = info.name.partition(".")
            sink.write(info.name, sources[name].read(stored))


if __name__ == "__main__":
    if "--mode" in sys.argv:
        run(sys.argv[-2], Path(sys.argv[-1]))
    else:
        main()
