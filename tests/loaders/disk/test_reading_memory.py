"""What reading a file costs: the memory of a process that goes through one larger than what it may hold."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from attacks.files import pack
from attacks.files import tensor as entry

ROOT = Path(__file__).resolve().parents[3]

MEASURE = """
import runpy, sys
runpy.run_path(sys.argv[1])
import torch
from pathlib import Path
from lora_foundry.engine.memory import peak_rss_bytes
from lora_foundry.loaders.bases.checkpoint import FileSource
torch.ones(1000).sum()
source = FileSource(Path(sys.argv[2]))
before, total = peak_rss_bytes(), 0
with source.reader(sys.argv[3] == "True") as reader:
    for name in source.tensors:
        tensor = reader.read(name)
        tensor.max()
        total += tensor.nbytes
print(total, peak_rss_bytes() - before)
"""


@pytest.mark.posix
@pytest.mark.parametrize("mapped", [True, False])
def test_memory_stays_that_of_three_tensors(mapped, tmp_path):
    size, count = 20_000_000, 30
    path, conftest = tmp_path / "a.safetensors", ROOT / "tests" / "conftest.py"
    header = {f"t{i}": entry(i * size, (i + 1) * size, shape=[size // 4]) for i in range(count)}
    text = pack(json.loads(json.dumps(header)))
    path.write_bytes(text)
    os.truncate(path, len(text) + size * count)  # sparse: no disk is used
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(conftest), str(path), str(mapped)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    total, grown = map(int, done.stdout.split())
    assert total == size * count
    assert grown < 3 * size + 40_000_000
