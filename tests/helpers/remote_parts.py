"""Small files to put on servers."""

from __future__ import annotations

import torch
from lora_foundry.loaders.disk.small import serialised


def lora_bytes(seed: int = 0, rank: int = 4, width: int = 64) -> bytes:
    """A LoRA file of one module; larger by ``width``."""
    numbers = torch.Generator().manual_seed(seed)
    shapes = {"blocks.0.attn.to_q.lora_A.weight": (rank, width), "blocks.0.attn.to_q.lora_B.weight": (width, rank)}
    return serialised({name: torch.randn(shape, generator=numbers) for name, shape in shapes.items()})
