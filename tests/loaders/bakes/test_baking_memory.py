"""What a bake holds does not grow with the file: a base six times as large, in layers of one size."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

ROOT = Path(__file__).resolve().parents[3]
WIDTH, RANK = 1024, 8
MEASURE = """
import runpy, sys
runpy.run_path(sys.argv[1])
from lora_foundry.cli.main import main
main(["bake", "stack.json", "-o", "out.safetensors", "--quantize", "nvfp4", "--json"])
"""


def peak(folder: Path, blocks: int) -> tuple[int, int]:
    """(peak RSS, bytes of the base) of a bake with LoRAs on every layer, in a process of its own."""
    generator = torch.Generator().manual_seed(0)
    weight = (torch.randn(WIDTH, WIDTH, generator=generator) * 0.02).bfloat16()
    down, up = torch.randn(RANK, WIDTH, generator=generator), torch.randn(WIDTH, RANK, generator=generator) * 1e-4
    names = [f"blocks.{number}.q" for number in range(blocks)]
    save_file({f"{name}.weight": weight.roll(number) for number, name in enumerate(names)}, folder / "base.safetensors")
    factors = {
        f"{name}.lora_{part}.weight": each.clone() for name in names for part, each in (("up", up), ("down", down))
    }
    save_file(factors, folder / "lora.safetensors")
    document = {"base": "base.safetensors", "stack": [{"path": "lora.safetensors", "strength": 1.0}]}
    (folder / "stack.json").write_text(json.dumps(document))
    command = [sys.executable, "-c", MEASURE, str(ROOT / "tests" / "conftest.py")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["quantized"] == blocks
    return report["peak_rss_bytes"], (folder / "base.safetensors").stat().st_size


@pytest.mark.posix
def test_the_peak_is_that_of_a_few_weights(tmp_path):
    folders = [tmp_path / name for name in ("small", "large")]
    for folder in folders:
        folder.mkdir()
    (small, little), (large, much) = (peak(folder, blocks) for folder, blocks in zip(folders, (8, 48), strict=True))
    assert large - small < 0.25 * (much - little)
