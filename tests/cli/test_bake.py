"""What ``bake`` promises beside its result: early refusals, names as written, its own memory, a quiet terminal."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from lora_foundry.cli import bake
from lora_foundry.loaders.bakes import baking
from lora_foundry.loaders.bases.checkpoint import open_checkpoint
from lora_foundry.loaders.disk.process import PROCESS
from lora_foundry.loaders.disk.small import save_small
from lora_foundry.loaders.loras.file import LoRAFile
from safetensors.torch import load_file
from stack_documents import write

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("out", ["nowhere/out.safetensors", "folder.safetensors"])
def test_a_name_that_cannot_be_written_is_told_before_the_loras_are_read(folder, run, out):
    (folder / "folder.safetensors").mkdir()
    code, report, _ = run("bake", write(folder, stack=["broken"]), "-o", out, "--json")
    assert (code, report["error"]["code"]) == (2, "file") and "folder" in report["error"]["what"]


def test_a_lora_of_zeros_is_baked_and_told(folder, run, made):
    """The first checkpoint of a training: a comparison of checkpoints must not stop there."""
    save_small(folder / "style.safetensors", {name: tensor * 0 for name, tensor in made["style"].items()})
    write(folder, stack=["style"])
    code, report, _ = run("bake", "stack.json", "-o", "out.safetensors", "--json")
    (told,) = (finding for finding in report["findings"] if finding["text"] == "LF302.zeros")
    assert code == 0 and told["severity"] == "warning" and "changes nothing" in told["why"]
    base, out = (load_file(folder / f"{name}.safetensors") for name in ("base", "out"))
    assert base.keys() == out.keys() and all(torch.equal(base[name], out[name]) for name in base)


def test_a_bake_that_changed_nothing_is_refused(folder, run, made):
    save_small(folder / "style.safetensors", {name: tensor * 1e-5 for name, tensor in made["style"].items()})
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


def test_a_chosen_format_is_told_with_the_reason(folder, run):
    asked = ("-o", "out.safetensors", "--quantize", "auto")
    code, report, _ = run("bake", write(folder, stack=["style"]), *asked, "--json")
    assert code == 0 and report["chosen"].startswith("auto: float8_e4m3fn, which every ComfyUI") and report["quantized"]
    recipe = json.loads(open_checkpoint(folder / "out.safetensors").metadata["lora_foundry"])["recipe"]
    assert recipe["finish"]["format"] == "float8_e4m3fn"
    code, out, _ = run("bake", write(folder, stack=["style"]), *asked)
    assert code == 0 and report["chosen"] in out


def test_peak_memory_is_that_of_the_bake_alone(folder):
    """It is not that of the larger program which started it."""
    conftest = str(ROOT / "tests" / "conftest.py")
    boot = f"import runpy; runpy.run_path({conftest!r}); from lora_foundry.cli.main import main; "
    bake = [sys.executable, "-c", boot + "main()", "bake", "stack.json", "-o", "out.safetensors", "--json"]
    parent = f"import subprocess; large = b'x' * 1_000_000_000; subprocess.run({bake!r}, check=True)"
    done = subprocess.run([sys.executable, "-c", parent], capture_output=True, text=True, check=True, cwd=folder)
    assert 50_000_000 < json.loads(done.stdout)["peak_rss_bytes"] < 1_000_000_000


def test_names_from_files_cannot_steer_the_terminal(folder, run):
    (folder / "base.safetensors").rename(folder / "\x1b[31mbase.safetensors")
    code, out, _ = run("check", write(folder, base="\x1b[31mbase", stack=["style"]))
    assert code == 0 and "\x1b" not in out and "kept" not in out
    assert "\x1b" not in run("inspect", "\x1b[31mbase.safetensors")[1]


def test_several_documents_go_into_a_folder_and_read_the_base_once(folder, run):
    (folder / "results").mkdir()
    write(folder, stack=["style"]).rename(folder / "a.json")
    write(folder, stack=["lightning"]).rename(folder / "b.json")
    code, report, _ = run("bake", "a.json", "b.json", "-o", "results", "--json")
    assert code == 0 and [result["out"] for result in report["results"]] == [
        str(Path("results") / "a.safetensors"), str(Path("results") / "b.safetensors")
    ]  # fmt: skip
    assert all((folder / result["out"]).is_file() for result in report["results"])
    code, report, _ = run("bake", "a.json", "b.json", "-o", "one.safetensors", "--json")
    assert (code, report["error"]["code"]) == (2, "usage") and "2 documents" in report["error"]["what"]


def test_the_same_command_again_does_nothing_and_another_strength_little(folder, run):
    command = ("bake", write(folder, stack=["style"]), "-o", "out.safetensors")
    _, first, _ = run(*command, "--json")
    _, again, _ = run(*command, "--json")
    assert (first["state"], again["state"], again["bytes_read"]) == ("made", "unchanged", 0)
    assert again["recipe_sha256"] == first["recipe_sha256"] and again["loras"] == first["loras"]
    assert run(*command)[1].count("unchanged") == 1
    assert run(*command, "--fresh", "--json")[1]["state"] == "made"
    document = json.loads((folder / "stack.json").read_text())
    document["stack"] = [{"path": "style.safetensors", "strength": 0.5}]
    (folder / "stack.json").write_text(json.dumps(document))
    _, changed, _ = run(*command, "--json")
    assert changed["state"] == "made" and 0 < changed["reused"] < changed["tensors"]


def test_a_cache_serves_another_file(folder, run):
    document = write(folder, stack=["style"])
    for out, state in (("a.safetensors", "made"), ("b.safetensors", "from the cache")):
        _, report, _ = run("bake", document, "-o", out, "--cache", "cache", "--json")
        assert report["state"] == state
    assert (folder / "a.safetensors").read_bytes() == (folder / "b.safetensors").read_bytes()
    code, report, _ = run(
        "bake", document, "-o", "c.safetensors", "--cache", "cache", "--max-shard-size", "1MB", "--json"
    )
    assert (code, report["error"]["code"]) == (2, "usage")
    code, report, _ = run("bake", document, "-o", "d.safetensors", "--cache", "x", "--cache-size", "1kB", "--json")
    assert (code, report["error"]["code"]) == (2, "cache") and not (folder / "d.safetensors").exists()


def test_an_error_budget_and_every_layer_are_in_the_report(folder, run):
    command = ("bake", write(folder, stack=["style"]), "--quantize", "fp8")
    _, plain, _ = run(*command, "-o", "a.safetensors", "--json")
    _, held, _ = run(*command, "-o", "b.safetensors", "--max-error", "0.02", "--json")
    assert plain["budget"] is None and len(plain["layers"]) == plain["quantized"]
    assert all(layer["sqnr_db"] > 25 for layer in plain["layers"].values())
    assert held["relative_error"] <= 0.02 < held["budget"]["error_without"] and held["budget"]["kept"]
    assert "stay in high precision for" in run(*command, "-o", "b.safetensors", "--max-error", "0.02")[1]
    code, report, _ = run(*command, "-o", "c.safetensors", "--max-error", "2", "--json")
    assert (code, report["error"]["code"]) == (2, "usage")


@pytest.mark.parametrize("options", [["--memory", "low"], ["--memory", "lowest"], ["--no-mmap"], ["--matmul", "fp8"]])
def test_how_it_is_made_does_not_change_the_weights(folder, run, options):
    document = write(folder, stack=["style"])
    for out, more in (("a.safetensors", []), ("b.safetensors", options)):
        assert run("bake", document, "-o", out, "--quantize", "fp8", *more)[0] == 0
    one, two = (open_checkpoint(folder / f"{name}.safetensors") for name in "ab")
    for name in one.tensors:
        left, right = one.read(name).reshape(-1).view(torch.uint8), two.read(name).reshape(-1).view(torch.uint8)
        assert (left != right).double().mean() < 1e-4


def test_shards_and_a_device_that_is_not_there(folder, run, monkeypatch):
    monkeypatch.setattr(bake, "LEAST_SHARD", 1)  # the model is tiny
    document = write(folder, stack=["style"])
    code, report, _ = run("bake", document, "-o", "out.safetensors", "--max-shard-size", "500kB", "--json")
    assert code == 0 and len(report["files"]) > 1 and (folder / "out.safetensors.index.json").is_file()
    code, report, _ = run("bake", document, "-o", "o.safetensors", "--device", "cuda:99", "--json")
    assert (code, report["error"]["code"]) == (2, "usage") and "cuda:99" in report["error"]["what"]


def test_shards_do_not_replace_those_of_the_base(folder, run, monkeypatch):
    monkeypatch.setattr(bake, "LEAST_SHARD", 1)  # the model is tiny
    part = ("--max-shard-size", "500kB", "--json")
    _, made, _ = run("bake", write(folder, stack=["style"]), "-o", "model.safetensors", *part)
    document = write(folder, base=Path(made["files"][0]).stem, stack=["lightning"])
    before = {path.name: path.read_bytes() for path in folder.glob("model*")}
    code, report, _ = run("bake", document, "-o", "model.safetensors", *part)
    assert (code, report["error"]["code"]) == (2, "usage") and "input" in report["error"]["what"]
    assert {path.name: path.read_bytes() for path in folder.glob("model*")} == before
    assert run("bake", document, "-o", "other.safetensors", *part)[0] == 0


def test_a_quantized_base_is_taken_when_the_command_line_says_so(folder, run):
    run("bake", write(folder, stack=["style"]), "-o", "fp8.safetensors", "--quantize", "fp8")
    document = write(folder, base="fp8", stack=["lightning"])
    code, report, _ = run("bake", document, "-o", "out.safetensors", "--json")
    assert (code, report["error"]["code"]) == (1, "LF201")
    code, report, _ = run("bake", document, "-o", "out.safetensors", "--on-quantized-base", "dequantize", "--json")
    assert code == 0 and [finding["code"] for finding in report["findings"]] == ["LF201"]
    assert report["loras"][0]["gain"] == pytest.approx(1.0, abs=0.05)


def test_a_sound_lora_is_read_through_once_and_a_damaged_one_never_passes(folder, run, monkeypatch):
    reads = []
    real = LoRAFile.verify
    monkeypatch.setattr(LoRAFile, "verify", lambda self: reads.append(self.label) or real(self))
    PROCESS.files.clear()
    document = write(folder, stack=["style"])
    for _ in range(2):
        assert run("check", document)[0] == 0
    PROCESS.files.clear()  # another process
    assert run("check", document)[0] == 0 and reads == ["style.safetensors"]
    document = write(folder, stack=["broken"])
    for _ in range(2):
        assert run("check", document)[0] == 1
    assert reads == ["style.safetensors", "broken.safetensors", "broken.safetensors"]


def test_a_reproducible_result_has_its_arithmetic_in_the_recipe_by_document_or_option(folder, run):
    plain = run("bake", write(folder, stack=["style"]), "-o", "plain.safetensors", "--json")[1]
    option = run("bake", "stack.json", "-o", "option.safetensors", "--json", "--reproducible")[1]
    document = run("bake", write(folder, stack=["style"], reproducible=True), "-o", "document.safetensors", "--json")[1]
    assert option["recipe_sha256"] == document["recipe_sha256"] != plain["recipe_sha256"]
    assert option["arithmetic"] == plain["arithmetic"]
    told = json.loads(open_checkpoint(folder / "option.safetensors").metadata["lora_foundry"])
    assert told["arithmetic"] == told["recipe"]["finish"]["arithmetic"] == plain["arithmetic"]
    assert (
        "arithmetic"
        not in json.loads(open_checkpoint(folder / "plain.safetensors").metadata["lora_foundry"])["recipe"]["finish"]
    )


SAID = {
    (): ("lowest", torch.float16),
    ("--memory", "low"): ("low", torch.float16),
    ("--dtype", "fp32"): ("lowest", torch.float32),
}


@pytest.mark.parametrize("options", SAID)
def test_ai_toolkits_words_count_unless_the_command_line_says_otherwise(folder, run, monkeypatch, options):
    memory, dtype = SAID[options]
    seen = []
    make = baking.bake_files
    monkeypatch.setattr(baking, "bake_files", lambda requests, how, bar: seen.append(how) or make(requests, how, bar))
    block = {"name_or_path": "base.safetensors", "arch": "wan21:14b", "dtype": "fp16", "low_vram": True}
    config = {"model": {**block, "lora_path": "style.safetensors", "lora_weight": 0.8, "quantize": False}}
    (folder / "job.json").write_text(json.dumps(config))
    code, report, _ = run("bake", "job.json", "-o", "out.safetensors", "--json", *options)
    assert code == 0 and seen[0].memory == memory and report["loras"][0]["weight"] == 0.8
    assert {info.dtype for info in open_checkpoint(folder / "out.safetensors").tensors.values()} == {dtype}


def test_a_base_of_another_arch_is_refused(folder, run):
    config = {"model": {"name_or_path": "base.safetensors", "is_flux": True, "lora_path": "style.safetensors"}}
    (folder / "job.json").write_text(json.dumps(config))
    code, report, _ = run("bake", "job.json", "-o", "out.safetensors", "--json")
    assert (code, report["error"]["code"]) == (2, "document") and "flux" in report["error"]["what"]
