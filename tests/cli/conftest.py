"""A folder with small models, LoRAs and a stack document, and the command in this process."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from lora_foundry.cli.benchmark import child as benchmark_child
from lora_foundry.cli.benchmark import run as benchmark
from lora_foundry.cli.benchmark.strategies import FORMAT, Bench
from lora_foundry.cli.demo import tiny
from lora_foundry.cli.main import main
from lora_foundry.engine.plan import Plan
from lora_foundry.loaders.bakes.baking import bake_to_file
from lora_foundry.loaders.disk.small import save_small
from stack_documents import write

BLOCKS = {"modules": r"^blocks\.", "prefix": "diffusion_model."}


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> dict[str, dict[str, torch.Tensor]]:
    base = tiny.state_dict("wan", width=64)
    style = tiny.lora(base, rank=4, dialect="A/B", rms=0.05, seed=2, **BLOCKS)
    broken = {name: tensor.clone() for name, tensor in style.items()}
    next(iter(broken.values()))[0, 0] = float("nan")
    return {
        "base": base,
        "lightning": tiny.lora(base, rank=16, alpha=2, rms=0.05, seed=1, **BLOCKS),
        "style": style,
        "broken": broken,
        "partial": style | {"diffusion_model.blocks.9.q.lora_A.weight": torch.full((4, 64), 1e-4),
                            "diffusion_model.blocks.9.q.lora_B.weight": torch.full((64, 4), 1e-4)},
        "foreign": tiny.lora(tiny.shapes("flux", width=64), rank=4, modules="_blocks", prefix="diffusion_model."),
    }  # fmt: skip


@pytest.fixture
def folder(made, tmp_path, monkeypatch) -> Path:
    """A folder with the files and ``stack.json``, as the current one."""
    for name, tensors in made.items():
        save_small(tmp_path / f"{name}.safetensors", tensors)
    write(tmp_path, fuse=["lightning"], stack=["style"], quantize="fp8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(capsys):
    """``run("check", "stack.json")`` -> (exit code, stdout, stderr); with ``--json`` stdout is parsed."""

    def call(*args: object):
        code = main([str(arg) for arg in args])
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        return code, json.loads(out) if "--json" in args else out, err

    return call


@pytest.fixture(scope="module")
def small():
    """The benchmark's own tiny model, tinier."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(benchmark, "WIDTH", 128)
        patch.setattr(benchmark, "LAYERS", 2)
        yield


@pytest.fixture(scope="module")
def bench(small, tmp_path_factory) -> Bench:
    """That model with its LoRAs, planned, on the CPU in fp32."""
    folder = tmp_path_factory.mktemp("bench")
    plan = benchmark_child._planned(benchmark.make_files(folder))
    fp8_base = folder / "base_fp8.safetensors"
    bake_to_file(Plan(plan.base, vanilla=True), FORMAT, fp8_base)
    return Bench(plan, torch.device("cpu"), torch.float32, folder, fp8_base)
