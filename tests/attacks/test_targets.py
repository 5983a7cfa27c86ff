"""Names and targets that nothing should be written to, and ends that come from outside."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from lora_foundry.cli.main import main
from lora_foundry.engine.errors import FoundryError
from lora_foundry.engine.formats import FORMATS, require_device
from lora_foundry.loaders.disk import home, writer
from lora_foundry.loaders.disk.targets import (
    ADDED,
    LONG_PATH,
    LONGEST,
    SHORT_PATH,
    name_fault,
    path_fault,
    prefix_fault,
)
from lora_foundry.loaders.disk.writer import check_target
from lora_foundry.loaders.documents.paths import resolve_path
from planner_parts import pair
from safetensors.torch import save_file
from sources import ROOT

pytestmark = pytest.mark.timeout(120)
posix = pytest.mark.skipif(os.name == "nt", reason="POSIX")


@pytest.mark.parametrize(("prefix", "said"), [
    ("a\0b", "control"), ("a\nb", "control"), ("folder/\x1bb", "control"), ("\ud800", "surrogate"),
    ("x" * 300, "300 bytes"), ("a/" * 600, "characters"), ("ü" * 120, "240 bytes"),
])  # fmt: skip
def test_a_prefix_with(prefix, said):
    assert said in prefix_fault(prefix)


def test_an_ordinary_prefix():
    for prefix in ("diffusion_models/foundry", "a b", "ä/%date%", "x" * (LONGEST - ADDED), ""):
        assert prefix_fault(prefix) == "" == prefix_fault(prefix, windows=True)


@pytest.mark.parametrize("name", ["con", "NUL.safetensors", "lpt1.x", "a:b", "a?", "a|b", "x.", "x "])
def test_names_that_windows_reserves(name):
    assert name_fault(name, windows=True) and not name_fault(name, windows=False)


@posix
@pytest.mark.parametrize("kind", ["pipe", "device", "link", "dead link", "surrogate", "long"])
def test_a_target_that_is_a(kind, tmp_path):
    path = tmp_path / {"surrogate": "\udcff.safetensors", "long": "x" * 250 + ".safetensors"}.get(kind, "a.safetensors")
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path = tmp_path / "null.safetensors"
        path.symlink_to("/dev/null")
    elif "link" in kind:
        (tmp_path / "b.safetensors").touch() if kind == "link" else None
        path.symlink_to(tmp_path / "b.safetensors")
    before = set(tmp_path.iterdir())
    with pytest.raises(FoundryError, match=r"pipe or a device|is a link to|no possible name"):
        check_target(path)
    assert set(tmp_path.iterdir()) == before


@pytest.fixture
def stack(tmp_path) -> Path:
    """A folder with a model, a LoRA and ``stack.json``."""
    save_file({f"blocks.{i}.q.weight": torch.ones(16, 16) for i in range(3)}, tmp_path / "base.safetensors")
    save_file(pair("blocks.0.q", 16, 16), tmp_path / "style.safetensors")
    (tmp_path / "stack.json").write_text(json.dumps({"base": "base.safetensors", "stack": ["style.safetensors"]}))
    return tmp_path


@posix
def test_a_link_as_out_is_written_through(stack, monkeypatch):
    there = stack / "far"
    there.mkdir()
    (stack / "out.safetensors").symlink_to(there / "real.safetensors")
    monkeypatch.chdir(stack)
    assert main(["bake", "stack.json", "-o", "out.safetensors"]) == 0
    assert (stack / "out.safetensors").is_symlink() and (there / "real.safetensors").is_file()


@posix
def test_a_bake_whose_output_is_closed_has_succeeded(stack):
    done = subprocess.run(
        f"{shlex.quote(sys.executable)} lora_foundry.py bake {stack}/stack.json -o {stack}/b.safetensors >&-",
        shell=True, cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0 and "Traceback" not in done.stderr and (stack / "b.safetensors").is_file()


MAKES = {
    "bake": ("stack.json",), "merge": ("style.safetensors",), "resize": ("style.safetensors", "--rank", "1"),
}  # fmt: skip


@posix
@pytest.mark.parametrize("verb", MAKES)
def test_a_command_whose_reader_is_gone_has_succeeded(verb, stack, monkeypatch, capsys):
    monkeypatch.chdir(stack)
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as unread, contextlib.redirect_stdout(unread):
        assert main([verb, *MAKES[verb], "-o", "made.safetensors"]) == 0
    assert "Traceback" not in capsys.readouterr().err and (stack / "made.safetensors").is_file()


@posix
def test_a_program_whose_reader_is_gone_ends_without_a_word(stack):
    """The same where Python itself has still to close what nobody reads."""
    command = f"{shlex.quote(sys.executable)} lora_foundry.py merge {stack}/style.safetensors -o {stack}/o.safetensors"
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command} | true"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0 and "Traceback" not in done.stderr and (stack / "o.safetensors").is_file()


WAITS = """
import runpy, sys, time
runpy.run_path(sys.argv[1])
from lora_foundry.cli import terminal
from lora_foundry.cli.main import main
def wait(self, done, total):
    if done == 1:
        print("begun", flush=True)
        time.sleep(60)
terminal.Bar.__call__ = wait
sys.exit(main(["bake", "stack.json", "-o", "out.safetensors"]))
"""


@posix
@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_ended_by(name, stack):
    before = set(stack.iterdir())
    command = [sys.executable, "-c", WAITS, str(ROOT / "tests" / "conftest.py")]
    plain = functools.partial(signal.signal, signal.Signals[name], signal.SIG_DFL)  # a runner may ignore it
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    child = subprocess.Popen(command, cwd=stack, preexec_fn=plain, **pipes)
    assert child.stdout.readline() == "begun\n"
    child.send_signal(signal.Signals[name])
    _, err = child.communicate(timeout=60)
    assert child.returncode == 128 + signal.Signals[name] and f"Stopped by {name}." in err and "Traceback" not in err
    assert set(stack.iterdir()) == before


def test_a_record_that_another_program_holds_open_on_windows(tmp_path, monkeypatch):
    """292 of 300 writes were refused where readers hold files for some milliseconds."""
    path, attempts, real = tmp_path / "record.json", [], Path.replace

    def shared(self, target):
        attempts.append(time.perf_counter())
        if len(attempts) < 4:
            raise PermissionError(13, "The process cannot access the file")
        return real(self, target)

    monkeypatch.setattr(Path, "replace", shared)
    monkeypatch.setattr(home, "LOCKED_WHILE_OPEN", True)
    assert home.keep(path, "new") and path.read_text() == "new" and len(attempts) == 4


@pytest.mark.parametrize(("most", "long"), [(SHORT_PATH, True), (LONG_PATH, False)])
def test_a_path_too_long_for_windows(most, long, tmp_path, monkeypatch):
    """The hidden name of the unfinished file is longer than the name of the file: it was refused as "not found"."""
    folder = tmp_path / ("a" * 200)
    folder.mkdir()
    path = folder / "b.safetensors"
    check_target(path)
    monkeypatch.setattr(writer, "path_fault", functools.partial(path_fault, windows=True, most=most))
    assert not path_fault(path.with_name("c"), windows=False)
    if long:
        with pytest.raises(FoundryError, match=f"Windows takes {SHORT_PATH} here"):
            check_target(path)
    else:
        check_target(path)


@pytest.mark.posix
def test_a_target_that_is_locked_is_found_before_the_bake(tmp_path, monkeypatch):
    path = tmp_path / "a.safetensors"
    path.write_bytes(b"old")
    real = os.open

    def locked(name, *more, **how):
        if str(name) == str(path):
            raise PermissionError(13, "The process cannot access the file")
        return real(name, *more, **how)

    monkeypatch.setattr(os, "open", locked)
    check_target(path)
    monkeypatch.setattr(writer, "LOCKED_WHILE_OPEN", True)
    with pytest.raises(FoundryError, match="nothing else may hold the old file open"):
        check_target(path)


@pytest.mark.parametrize("kind", ["mps", "privateuseone"])
def test_fp8_where_the_device_has_none(kind):
    for name, format in FORMATS.items():
        if format.dtype.is_floating_point or name in ("nvfp4", "w4a8", "w6a8"):  # their scales
            with pytest.raises(FoundryError, match="has no fp8"):
                require_device(name, kind)
        else:
            require_device(name, kind)
        require_device(name, "cuda")


def test_a_document_in_utf_16(tmp_path):
    from lora_foundry.loaders.documents.document import load_document

    for coding in ("utf-16", "utf-16-be"):
        path = tmp_path / "stack.yaml"
        mark = b"\xfe\xff" if coding.endswith("be") else b""
        path.write_bytes(mark + "base: ä.safetensors\n".encode(coding))
        assert load_document(path).base == "ä.safetensors"


@pytest.mark.posix
@posix
@pytest.mark.parametrize("name", ["C:x.safetensors", r"\models\x.safetensors", r"C:\x", r"\\server\share\x"])
def test_a_path_of_a_windows_machine_here(name, tmp_path):
    with pytest.raises(FoundryError, match="is a path of a Windows machine"):
        resolve_path(name, tmp_path)


def test_the_launcher_works_without_an_installation(tmp_path):
    command = [sys.executable, "-I", str(ROOT / "lora_foundry.py"), "doctor", "--json"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert {check["name"] for check in json.loads(done.stdout)["checks"]} >= {"python", "torch"}, done.stderr


@pytest.mark.parametrize(("folder", "synced"), [
    ("/Users/me/Documents/ComfyUI/user", True), ("/home/me/Dropbox/ComfyUI", True), ("/me/OneDrive - Work/x", True),
    ("/Users/me/Library/Mobile Documents/x", True), ("/home/me/ComfyUI/user", False), ("/data/models", False),
])  # fmt: skip
def test_a_cache_of_fifty_gigabytes_in_a_synced_folder(folder, synced):
    assert home.is_synced(Path(folder)) is synced
