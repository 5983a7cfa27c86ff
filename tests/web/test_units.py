"""What the browser files compute, without a page: ``node --test`` on tests/web/*.test.mjs."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.mark.parametrize("file", sorted(HERE.glob("*.test.mjs")), ids=lambda path: path.name)
def test_unit(file: Path) -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("needs node 20 or newer")
    done = subprocess.run([node, "--test", str(file)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
