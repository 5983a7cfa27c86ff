"""The terminal command: what it prints where, which exit code it gives, and that it never leaves a mess."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from lora_foundry.cli import doctor, terminal
from lora_foundry.cli.demo import comfyui
from lora_foundry.cli.demo import files as demo_files
from lora_foundry.cli.main import _parser, main
from lora_foundry.loaders.bases.checkpoint import open_checkpoint
from lora_foundry.loaders.disk.small import save_small
from schemas import faults
from stack_documents import write

ROOT = Path(__file__).resolve().parents[2]

# --- wrong use --------------------------------------------------------------------------------------------------------
WRONG = [
    ["weld"],
    ["bake", "stack.json"],
    ["bake", "stack.json", "-o", "model.ckpt"],
    ["bake", "stack.json", "-o", "o.safetensors", "--quantize", "int4"],
    ["inspect"],
]


@pytest.mark.parametrize("arguments", WRONG, ids=" ".join)
def test_wrong_use_is_one_text_and_two(run, arguments):
    code, out, err = run(*arguments)
    assert (code, out) == (2, "") and err.startswith("[usage] ") and "See: lora-foundry" in err and err.count("\n") == 1


def test_wrong_use_in_json(run):
    code, out, err = run("weld", "--json")
    assert (code, err) == (2, "") and out["error"]["code"] == "usage" and out["findings"] == []


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["bake", "--help"], ["weld"]], ids=" ".join)
def test_help_and_wrong_use_need_no_torch(arguments):
    boot = f"import sys, runpy; runpy.run_path({str(ROOT / 'tests' / 'conftest.py')!r})\n"
    code = boot + f"sys.modules['torch'] = None\nfrom lora_foundry.cli.main import main; sys.exit(main({arguments!r}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == (2 if "weld" in arguments else 0) and "torch" not in done.stderr


def test_version(capsys):
    from lora_foundry import __version__

    with pytest.raises(SystemExit) as end:
        main(["--version"])
    assert end.value.code == 0 and capsys.readouterr().out == f"lora-foundry {__version__}\n"


# --- bake -------------------------------------------------------------------------------------------------------------
REPORT = {
    "out", "tensors", "touched", "quantized", "loras", "findings", "seconds", "bytes_read", "bytes_written",
    "peak_rss_bytes", "recipe_sha256",
}  # fmt: skip
LORA = {"path", "stage", "weight", "dialect", "modules", "matched", "unmatched", "gain"}


def test_bake_prints_one_object_and_writes_the_file(folder, run_cli):
    done = run_cli("bake", "stack.json", "-o", "out.safetensors", "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert set(report) >= REPORT and report["out"] == "out.safetensors" and report["findings"] == []
    assert (report["touched"], report["quantized"]) == (10, 10)
    assert all(set(lora) >= LORA and lora["matched"] == lora["modules"] == 10 for lora in report["loras"])
    assert [(lora["path"], lora["stage"]) for lora in report["loras"]] == [
        ("lightning.safetensors", "fuse"),
        ("style.safetensors", "stack"),
    ]
    assert all(abs(lora["gain"] - 1) < 0.1 for lora in report["loras"])
    assert report["bytes_written"] < (folder / "out.safetensors").stat().st_size
    assert report["bytes_read"] > 0 < report["peak_rss_bytes"]


def test_bake_without_json_is_a_table(folder, run):
    code, out, err = run("bake", "stack.json", "-o", "out.safetensors")
    assert (code, err) == (0, "") and "lightning.safetensors" in out and "10 of 10" in out and "out.safetensors" in out


def test_the_switches_win_over_the_document(folder, run):
    code, report, _ = run(
        "bake", "stack.json", "-o", "o.safetensors", "--quantize", "none", "--dtype", "fp16", "--json"
    )
    assert (code, report["quantized"]) == (0, 0)
    tensors = open_checkpoint(folder / "o.safetensors").tensors.values()
    assert {info.dtype for info in tensors} == {torch.float16}


def test_an_old_result_is_replaced(folder, run):
    (folder / "out.safetensors").write_bytes(b"old")
    assert run("bake", "stack.json", "-o", "out.safetensors")[0] == 0
    assert open_checkpoint(folder / "out.safetensors").quantized


@pytest.mark.parametrize("out", ["base", "lightning", "style", "off", "link"])
def test_an_input_is_never_the_result(folder, run, out):
    save_small(folder / "off.safetensors", {"x": torch.zeros(1)})
    (folder / "link.safetensors").symlink_to("base.safetensors")
    rows = [{"path": "style.safetensors"}, {"path": "off.safetensors", "on": False}]
    path = folder / "stack.json"
    path.write_text(json.dumps({"base": "base.safetensors", "fuse": ["lightning.safetensors"], "stack": rows}))
    before = (folder / f"{out}.safetensors").read_bytes()
    code, report, _ = run("bake", path, "-o", f"{out}.safetensors", "--json")
    assert code == 2 and "input of the document" in report["error"]["what"]
    assert (folder / f"{out}.safetensors").read_bytes() == before


def test_a_shard_of_the_base_is_never_the_result(folder, run, made):
    names = list(made["base"])
    for number, part in enumerate((names[:5], names[5:]), 1):
        save_small(folder / f"m-0000{number}-of-00002.safetensors", {name: made["base"][name] for name in part})
    path = write(folder, base="m-00001-of-00002", stack=["style"])
    code, report, _ = run("bake", path, "-o", "m-00002-of-00002.safetensors", "--json")
    assert code == 2 and report["error"]["code"] == "usage"
    assert run("bake", path, "-o", "out.safetensors")[0] == 0


FAULTS = {
    "broken": ("LF304", 1),
    "foreign": ("LF303", 1),
    "missing": ("file", 2),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_bad_input_stops_before_the_first_byte(folder, run, fault):
    code_expected = FAULTS[fault]
    (folder / "out.safetensors").write_bytes(b"old")
    before = set(folder.iterdir())
    code, report, _ = run("bake", write(folder, stack=["style", fault]), "-o", "out.safetensors", "--json")
    assert (report["error"]["code"], code) == code_expected and report["findings"][0]["severity"] == "error"
    assert (folder / "out.safetensors").read_bytes() == b"old" and set(folder.iterdir()) == before


def test_a_quantized_base_is_refused(folder, run):
    run("bake", "stack.json", "-o", "fp8.safetensors")
    code, report, _ = run("bake", write(folder, base="fp8", stack=["style"]), "-o", "out.safetensors", "--json")
    assert (code, report["error"]["code"]) == (1, "LF201")


def test_a_bake_that_would_change_nothing_is_refused(folder, run):
    code, _, err = run("bake", write(folder), "-o", "out.safetensors")
    assert code == 1 and "LF203" in err and not (folder / "out.safetensors").exists()
    assert run("bake", "stack.json", "-o", "out.safetensors", "--quantize", "fp8")[0] == 0


@pytest.mark.parametrize("as_json", [True, False])
def test_ctrl_c_leaves_the_old_file_and_no_other(folder, run, monkeypatch, as_json):
    (folder / "out.safetensors").write_bytes(b"old")
    before = set(folder.iterdir())
    monkeypatch.setattr(terminal.Bar, "__call__", interrupt_at(3))
    code, out, err = run("bake", "stack.json", "-o", "out.safetensors", *["--json"] * as_json)
    assert code == 130 and (out["error"]["code"] == "stopped" if as_json else err.count("\n") == 1)
    assert set(folder.iterdir()) == before and (folder / "out.safetensors").read_bytes() == b"old"


def interrupt_at(step: int):
    def call(self, done, total):
        if done == step:
            raise KeyboardInterrupt

    return call


# --- check ------------------------------------------------------------------------------------------------------------
def test_check_tells_every_row(folder, run):
    code, report, _ = run("check", write(folder, stack=["foreign", "broken", "partial", "style"]), "--json")
    assert (code, report["ok"]) == (1, False)
    assert {f["code"]: f["subject"] for f in report["findings"]} == {
        "LF303": "foreign.safetensors",
        "LF304": "broken.safetensors",
        "LF302": "partial.safetensors",
    }
    assert [lora["path"] for lora in report["loras"]] == [f"{n}.safetensors" for n in ("broken", "partial", "style")]
    assert report["base"]["family"] == "wan"


def test_check_tells_every_missing_file(folder, run):
    code, report, _ = run("check", write(folder, fuse=["gone"], stack=["stile", "style"]), "--json")
    assert (code, report["error"]["code"]) == (2, "file")
    assert [f["subject"] for f in report["findings"]] == ["gone.safetensors", "stile.safetensors"]
    assert "style.safetensors" in report["findings"][1]["fix"]


@pytest.mark.parametrize(("strict", "code"), [([], 0), (["--strict"], 1)])
def test_strict_stops_at_warnings(folder, run, strict, code):
    found, out, _ = run("check", write(folder, stack=["partial"]), *strict)
    assert found == code and "LF302 warning" in out and ("Stopped" in out) is bool(code)


def test_a_bad_document_is_bad_input(folder, run):
    (folder / "stack.yaml").write_text("base: [\n")
    code, report, _ = run("check", "stack.yaml", "--json")
    assert (code, report["error"]["code"]) == (2, "document") and "line" in report["error"]["what"]


# --- doctor, and the system's own errors ---------------------------------------------------------------------------
def test_doctor(run, monkeypatch, tmp_path):
    monkeypatch.setenv("COMFYUI_PATH", str(tmp_path))
    code, report, _ = run("doctor", "--json")
    assert faults(report, "doctor") == []
    checks = {check["name"]: check for check in report["checks"]}
    assert (code, report["ok"]) == (0, True) and checks["fp8 on this CPU"]["ok"] and not checks["ComfyUI"]["ok"]
    assert "OK: ready." in run("doctor")[1]


def test_doctor_finds_comfyui_and_does_not_import_it(monkeypatch, tmp_path, run):
    (tmp_path / "comfy").mkdir()
    (tmp_path / "main.py").write_text("raise SystemExit")
    (tmp_path / "comfyui_version.py").write_text('raise SystemExit\n__version__ = "9.8.7"\n')
    monkeypatch.setenv("COMFYUI_PATH", str(tmp_path))
    assert "9.8.7" in run("doctor")[1]


def test_doctor_names_what_is_missing(run, monkeypatch):
    monkeypatch.setattr(doctor, "PACKAGES", ("surely-not-there",))
    code, out, _ = run("doctor")
    assert code == 1 and "MISSING" in out and "pip install surely-not-there" in out


def test_demo_host_without_comfyui_says_what_to_install(run, monkeypatch):
    monkeypatch.delenv("COMFYUI_PATH", raising=False)
    monkeypatch.setattr(comfyui.importlib.util, "find_spec", lambda name: None)
    code, out, err = run("demo", "--host")
    assert (code, out) == (2, "") and "COMFYUI_PATH" in err and "tests/install.py host" in err


def test_what_the_system_refuses_is_one_sentence(folder, run):
    code, report, _ = run("demo", "--out", "base.safetensors", "--json")
    assert (code, report["error"]["code"]) == (2, "system") and "base.safetensors" in report["error"]["what"]


@pytest.mark.skipif(os.name == "nt", reason="pipes end differently there")
def test_a_reader_that_leaves_is_no_fault(folder):
    boot = f"import sys, runpy; runpy.run_path({str(ROOT / 'tests' / 'conftest.py')!r})\n"
    code = boot + "from lora_foundry.cli.main import main; sys.exit(main(['inspect', 'base.safetensors']))"
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run([sys.executable, "-c", code], stdout=writing, stderr=subprocess.PIPE, check=False, cwd=folder)
    os.close(writing)
    assert done.stderr == b""


# --- documents and old words -----------------------------------------------------------------------------------------
def test_the_document_of_the_demo_is_one_of_ours(folder, run):
    demo_files.document(folder, "demo", fuse="lightning")
    assert run("check", "demo.json")[0] == 2  # its files are not here, and it says so


@pytest.mark.parametrize(("words", "dest", "value", "told"), [
    (["demo", "--keep", "x"], "out", Path("x"), "--keep is called --out now"),
    (["demo", "--out", "x"], "out", Path("x"), ""),
    (["lineage", "weigh", "a", "--contains", "b", "--keep"], "record", True, "--keep is called --record now"),
    (["lineage", "weigh", "a", "--contains", "b", "--record"], "record", True, ""),
    (["lineage", "weigh", "a", "--contains", "b"], "record", False, ""),
    (["check", "a", "--policy", "training"], "policy", "match training", "'training' is spelled 'match training' now"),
    (["check", "a", "--policy", "accelerators"], "policy", "allow accelerators", "is spelled 'allow accelerators' now"),
    (["check", "a", "--policy", "match training"], "policy", "match training", ""),
    (["check", "a"], "policy", "allow accelerators", ""),
    (["bake", "a", "-o", "b.safetensors", "--matmul", "full"], "matmul", "full precision", "'full precision' now"),
    (["bake", "a", "-o", "b.safetensors", "--matmul", "full precision"], "matmul", "full precision", ""),
    (["bake", "a", "-o", "b.safetensors"], "matmul", "full precision", ""),
])  # fmt: skip
def test_old_words_still_work_and_say_the_new_one(capsys, words, dest, value, told):
    assert getattr(_parser().parse_args(words), dest) == value
    out, err = capsys.readouterr()
    assert out == "" and told in err and bool(told) is bool(err)
