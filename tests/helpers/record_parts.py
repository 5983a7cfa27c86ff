"""Claims and records of one LoRA, and where they lie."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lora_foundry.engine.lineage import (
    DECLARED,
    Claim,
    Evidence,
    Ingredient,
)
from lora_foundry.loaders.lineage.record import Record

FILE, TENSORS, OTHER = "a" * 64, "b" * 64, "c" * 64
IDS = (f"sha256:{FILE}", f"tensors:{TENSORS}")
BASE = (f"base:{OTHER}",)
LIGHTNING = Ingredient("lightning-8steps.safetensors", (f"sha256:{OTHER}",), 1.0, "bfloat16", (360, 720))
STYLE = Ingredient("style.safetensors")


def claim(source: str, *trained_with: Ingredient, level: str = DECLARED, **more: Any) -> Claim:
    return Claim(Evidence(level, source), trained_with, **more)


def place(pack_home: Path, name: str = TENSORS) -> Path:
    return pack_home / "lineage" / f"{name}.json"


def record_json(**changes: Any) -> dict[str, Any]:
    return {**Record(IDS, "mine", "wan", (claim("train.sh", LIGHTNING),)).to_json(), **changes}


def changed(path: str, value: object) -> dict[str, Any]:
    """The record with one place changed: ``claims.0.role``."""
    data: dict[str, Any] = json.loads(json.dumps(record_json()))
    *way, last = path.split(".")
    inner: Any = data
    for step in way:
        inner = inner[int(step) if step.isdecimal() else step]
    inner[last] = value
    return data
