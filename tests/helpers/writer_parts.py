"""Small files of every kind of tensor, written by the streamed writer."""

from __future__ import annotations

from pathlib import Path

import torch
from lora_foundry.engine.tensors import TensorInfo
from lora_foundry.loaders.disk.writer import write_safetensors

TENSORS = {
    "a": torch.arange(15.0).reshape(3, 5).to(torch.float8_e4m3fn),
    "a_scale": torch.tensor(0.25),
    "b": torch.arange(6, dtype=torch.bfloat16).reshape(2, 3),
    "none": torch.empty(0, 4),
    "wide": torch.arange(3, dtype=torch.float64),
}


def infos(tensors: dict[str, torch.Tensor]) -> list[TensorInfo]:
    return [TensorInfo(name, tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()]


def write(path: Path, tensors: dict[str, torch.Tensor] = TENSORS, metadata: dict[str, str] | None = None) -> None:
    with write_safetensors(path, infos(tensors), metadata or {}) as sink:
        for name, tensor in tensors.items():
            sink.write(name, tensor)


def same(left: torch.Tensor, right: torch.Tensor) -> bool:
    return left.dtype == right.dtype and left.shape == right.shape and left.tolist() == right.tolist()


def assert_untouched(target: Path) -> None:
    assert target.read_bytes() == b"old"
    assert [entry.name for entry in target.parent.iterdir()] == [target.name]
