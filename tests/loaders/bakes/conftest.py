"""An empty bake cache."""

from __future__ import annotations

from pathlib import Path

import pytest
from cache_parts import LARGE
from lora_foundry.loaders.bakes.cache import BakeCache


@pytest.fixture
def cache(tmp_path: Path) -> BakeCache:
    return BakeCache(tmp_path / "cache", LARGE)
