"""A file that a save replaces."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """A file with something else in it."""
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"old")
    return path
