"""Bakes on a pretended CUDA device into files: one thread writes each, and the bytes are those of the CPU's fp32."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest
import torch
from bake_parts import bake
from fakes import a_layer, a_plan, noise, random_delta
from lora_foundry.engine import gemm, rows
from lora_foundry.engine.devices import arithmetic_of
from lora_foundry.engine.finish import Finish
from lora_foundry.engine.memory import AUTO, LOW, LOWEST
from lora_foundry.engine.plan import Plan
from lora_foundry.loaders.bakes.baking import MADE, UNCHANGED, BakeResult
from lora_foundry.loaders.bakes.records import load_record
from lora_foundry.loaders.disk.source import FileSource
from lora_foundry.loaders.disk.writer import FileSink
from pretended_cuda import CUDA, pretended_cuda

NAMES = [f"blocks.{i}.self_attn.q.weight" for i in range(6)]
FORMATS = ("none", "float8_e4m3fn", "int8_convrot")


def plan(strength: float = 1.0) -> Plan:
    values = {name: noise((128, 256), 0.02, i) for i, name in enumerate(NAMES)} | {"norm.weight": torch.ones(64)}
    deltas = [random_delta(name, (128, 256), 4, 0.002, i) for i, name in enumerate(NAMES)]
    first, rest = a_layer(deltas[:2], strength, name="first"), a_layer(deltas[2:], name="rest")
    return a_plan(values, first, rest, family="wan")


def baked(path: Path, format: str, memory: str, device: torch.device | None = None) -> bytes:
    bake(plan(), path, Finish(format, keep=()), device=device, memory=memory, records=False)
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


def told(path: Path, key: str) -> str:
    return json.loads(FileSource(path).metadata["lora_foundry"])[key]


def once(path: Path, finish: Finish, device: torch.device | None = None, strength: float = 1.0) -> BakeResult:
    return bake(plan(strength), path, finish, device=device)


@pytest.mark.parametrize("format", FORMATS)
def test_a_bake_remade_in_part_is_never_of_two_arithmetics(format, tmp_path, monkeypatch):
    finish, out, fresh = Finish(format, keep=()), tmp_path / "out.safetensors", tmp_path / "fresh.safetensors"
    here = once(out, finish).report.arithmetic
    with pretended_cuda():
        whole = once(out, finish, CUDA)
        assert (whole.state, whole.report.arithmetic, told(out, "arithmetic")) == (UNCHANGED, here, here)
        part = once(out, finish, CUDA, 0.5)
        once(fresh, finish, CUDA, 0.5)
    assert part.report.reused == 1  # the norm, which nothing touches
    assert part.report.arithmetic == told(out, "arithmetic") == "fp32 on Pretended" != here
    assert weights_of(out.read_bytes()) == weights_of(fresh.read_bytes())
    assert load_record(out).arithmetic == "fp32 on Pretended"


def test_a_reproducible_bake_on_another_device_is_another_result(tmp_path):
    out, before = tmp_path / "out.safetensors", []
    for device in (None, CUDA):
        with pretended_cuda():
            finish = Finish("float8_e4m3fn", keep=(), arithmetic=arithmetic_of(device, AUTO))
            made = once(out, finish, device)
            assert made.state == MADE
            assert once(out, finish, device).state == UNCHANGED
            before.append(made.sha256)
    assert len(set(before)) == 2
