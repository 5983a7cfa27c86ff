"""Small files to put on servers, and how tests ask for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lora_foundry.loaders.disk.small import serialised
from lora_foundry.loaders.remote.fetching import Fetched, fetch, states_of
from lora_foundry.loaders.remote.names import parse_remote
from lora_foundry.loaders.remote.objects import Asking

NAME = "s3://loras/style.safetensors"
PATH = "/loras/style.safetensors"  # the same on the fault server


def lora_bytes(seed: int = 0, rank: int = 4, width: int = 64) -> bytes:
    """A LoRA file of one module; larger by ``width``."""
    numbers = torch.Generator().manual_seed(seed)
    shapes = {"blocks.0.attn.to_q.lora_A.weight": (rank, width), "blocks.0.attn.to_q.lora_B.weight": (width, rank)}
    return serialised({name: torch.randn(shape, generator=numbers) for name, shape in shapes.items()})


def get(name: str = NAME, **asking: Any) -> Fetched:
    """The file of an address, as a plan asks for it."""
    return fetch(parse_remote(name), Asking(**asking))


def state_of(name: str = NAME) -> str:
    """What changes when a file elsewhere is replaced."""
    return states_of([parse_remote(name)], Asking())[parse_remote(name)]


def leftovers(home: Path) -> list[str]:
    """What lies in the cache beside finished files."""
    return sorted(path.name for path in (home / "remote" / "parts").glob("*"))
