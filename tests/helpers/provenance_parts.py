"""A known accelerator, as metadata name it."""

from __future__ import annotations

from pathlib import Path

from lora_foundry.cli.demo import tiny
from lora_foundry.engine.lineage import (  # fmt: skip
    Ingredient,
)
from safetensors.torch import save_file

KNOWN = "Qwen-Image-Lightning-8steps-V1.1"
KNOWN_ID = "known:qwen-image-lightning-8steps-v1.1"
LIGHTNING = Ingredient("some-lightning.safetensors", ("sha256:" + "c" * 64,), 1.0)


BASE = tiny.state_dict("wan", width=64)


def a_base(path: Path, metadata: dict[str, str] | None = None) -> Path:
    save_file(BASE, path, metadata)
    return path
