"""A base of random weights as a real file."""

from __future__ import annotations

from pathlib import Path

import pytest
from lora_foundry.engine.plan import Base
from lora_foundry.loaders.bases.checkpoint import open_checkpoint
from probe_parts import (
    save_base,
)


@pytest.fixture
def base(tmp_path: Path) -> Base:
    source = open_checkpoint(save_base(tmp_path / "base.safetensors"))
    return Base("base.safetensors", None, source)
