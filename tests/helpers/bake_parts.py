"""How tests bake one plan into a file, and what is in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from lora_foundry.engine.finish import Finish
from lora_foundry.engine.plan import Plan
from lora_foundry.loaders.bakes.baking import BakeOptions, BakeResult, FileRequest, bake_files, resolve
from lora_foundry.loaders.bases.checkpoint import open_checkpoint
from lora_foundry.loaders.documents.document import parse_document
from lora_foundry.loaders.plans.planner import plan_document

FP8 = Finish("float8_e4m3fn")


def planned(folder: Path, rows: Sequence[dict[str, Any]], base: str = "base.safetensors") -> Plan:
    """A stack on a base, of the files of a folder."""
    return plan_document(replace(parse_document({"base": base, "stack": list(rows)}, "test"), folder=folder))


def bake(plan: Plan, out: Path, finish: Finish = FP8, **how: Any) -> BakeResult:
    """One plan into one file, or its shards; ``how``: fields of ``BakeOptions``."""
    (baked,) = bake_files([FileRequest(resolve(plan, finish), out)], BakeOptions(**how))
    return baked


def content(path: Path) -> dict[str, torch.Tensor]:
    """Every tensor of a file or of shards."""
    source = open_checkpoint(path)
    return {name: source.read(name) for name in sorted(source.tensors)}
