"""Bakes on a pretended CUDA device into files: one thread writes each, and the bytes are those of the CPU's fp32."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import torch
from fakes import a_layer, a_plan, noise, random_delta
from lora_foundry.engine import gemm, rows
from lora_foundry.engine.finish import Finish
from lora_foundry.engine.memory import AUTO, LOW, LOWEST
from lora_foundry.loaders.bakes.baking import BakeOptions, FileRequest, bake_files, resolve
from lora_foundry.loaders.disk.writer import FileSink
from pretended_cuda import CUDA, pretended_cuda

NAMES = [f"blocks.{i}.self_attn.q.weight" for i in range(6)]
FORMATS = ("none", "float8_e4m3fn", "int8_convrot")


def plan():
    values = {name: noise((128, 256), 0.02, i) for i, name in enumerate(NAMES)}
    return a_plan(values, a_layer([random_delta(name, (128, 256), 4, 0.002, i) for i, name in enumerate(NAMES)]))


def baked(path: Path, format: str, memory: str, device: torch.device | None = None) -> bytes:
    wanted = resolve(plan(), Finish(format, keep=()))
    bake_files([FileRequest(wanted, path)], BakeOptions(device, memory, records=False))
    return path.read_bytes()


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("memory", [AUTO, LOW, LOWEST])
def test_one_thread_writes_a_file_and_its_bytes_are_right(format, memory, tmp_path, monkeypatch):
    monkeypatch.setattr(gemm, "fast_bf16", lambda device_type: False)
    monkeypatch.setattr(rows, "BLOCK", 64 * 256)  # two blocks a weight
    wanted = baked(tmp_path / "cpu.safetensors", format, LOWEST)
    threads, put = set(), FileSink.put

    def watched(self, data, offset):
        if offset:  # the header is written before the bake
            threads.add(threading.current_thread().name)
        put(self, data, offset)

    monkeypatch.setattr(FileSink, "put", watched)
    with pretended_cuda() as machine:
        machine.delay = (0.0, 0.002)
        got = baked(tmp_path / "cuda.safetensors", format, memory, CUDA)
    assert len(threads) == 1
    assert weights_of(got) == weights_of(wanted)


def weights_of(file: bytes) -> bytes:
    """What comes after the header, which names the arithmetic."""
    return file[8 + int.from_bytes(file[:8], "little") :]
