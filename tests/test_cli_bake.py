"""What ``bake`` promises beside its result: early refusals, names as written, its own memory, a quiet terminal."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import test_cli
from lora_foundry.demo_files import save
from lora_foundry.loaders.checkpoints import open_checkpoint
from test_cli import ROOT, write

made, folder, run = test_cli.made, test_cli.folder, test_cli.run


@pytest.mark.parametrize("out", ["nowhere/out.safetensors", "folder.safetensors"])
def test_a_name_that_cannot_be_written_is_told_before_the_loras_are_read(folder, run, out):
    (folder / "folder.safetensors").mkdir()
    code, report, _ = run("bake", write(folder, stack=["broken"]), "-o", out, "--json")
    assert (code, report["error"]["code"]) == (2, "file") and "folder" in report["error"]["what"]


@pytest.mark.parametrize("factor", [0.0, 1e-5], ids=["all zeros", "too weak for bf16"])
def test_a_bake_that_changed_nothing_is_refused(folder, run, made, factor):
    save(folder / "style.safetensors", {name: tensor * factor for name, tensor in made["style"].items()})
    write(folder, stack=["style"])
    code, report, _ = run("bake", "stack.json", "-o", "out.safetensors", "--json")
    assert (code, report["error"]["code"]) == (1, "LF203") and not (folder / "out.safetensors").exists()


def test_the_report_names_a_lora_as_the_document_does(folder, run):
    (folder / "loras").mkdir()
    (folder / "style.safetensors").rename(folder / "loras" / "style.safetensors")
    code, report, _ = run("bake", write(folder, stack=["loras/style"]), "-o", "out.safetensors", "--json")
    assert (code, [lora["path"] for lora in report["loras"]]) == (0, ["loras/style.safetensors"])
    recipe = json.loads(open_checkpoint(folder / "out.safetensors").metadata["lora_foundry"])["recipe"]
    assert recipe["layers"][0]["lora"] == "style.safetensors"  # no folder of the user goes into a file to be shared


def test_peak_memory_is_that_of_the_bake_alone(folder):
    """It is not that of the larger program which started it."""
    boot = f"import runpy; runpy.run_path({str(ROOT / 'tests' / 'conftest.py')!r}); from lora_foundry.cli import main; "
    bake = [sys.executable, "-c", boot + "main()", "bake", "stack.json", "-o", "out.safetensors", "--json"]
    parent = f"import subprocess; large = b'x' * 1_000_000_000; subprocess.run({bake!r}, check=True)"
    done = subprocess.run([sys.executable, "-c", parent], capture_output=True, text=True, check=True, cwd=folder)
    assert 50_000_000 < json.loads(done.stdout)["peak_rss_bytes"] < 1_000_000_000


def test_names_from_files_cannot_steer_the_terminal(folder, run):
    (folder / "base.safetensors").rename(folder / "\x1b[31mbase.safetensors")
    code, out, _ = run("check", write(folder, base="\x1b[31mbase", stack=["style"]))
    assert code == 0 and "\x1b" not in out and "kept" not in out
    assert "\x1b" not in run("inspect", "\x1b[31mbase.safetensors")[1]
