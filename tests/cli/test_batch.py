"""``lora-foundry batch``: 20 documents over two bases by processes, again, stopped, killed, refused."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from batch_parts import (
    Inline,
    Murdered,
    contents,
    hidden,
    make_documents,
    make_models,
    states,
    unit,
    write_document,
)
from conftest import ROOT
from lora_foundry.cli.workers import processes
from lora_foundry.cli.workers.loop import Ended, Step
from lora_foundry.cli.workers.processes import Processes
from schemas import faults

BOOT = (
    f"import runpy; runpy.run_path({str(ROOT / 'tests' / 'conftest.py')!r}); from lora_foundry.cli.main import main; "
)


@pytest.fixture(scope="module")
def baked(tmp_path_factory, session_home):
    """(a folder with 20 documents, what each becomes by ``bake``)."""
    folder = tmp_path_factory.mktemp("baked")
    make_models(folder)
    documents = make_documents(folder)
    (folder / "wanted").mkdir()
    code = BOOT + "import sys; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, "bake", *map(str, documents), "-o", str(folder / "wanted")]
    subprocess.run(command, check=True, capture_output=True)
    return folder, contents(folder / "wanted")


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """Both models and three documents, as the current folder."""
    make_models(tmp_path)
    make_documents(tmp_path, 3)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def inline(monkeypatch):
    monkeypatch.setattr(processes, "Processes", Inline)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize("workers", [1, 2])
def test_the_bytes_of_bake_and_nothing_to_do_the_second_time(baked, run, run_cli, tmp_path, workers):
    folder, wanted = baked
    command = ("batch", *sorted(folder.glob("d*.json")), "-o", tmp_path / "out", "--workers", workers, "--json")
    code, told, _ = run(*command)
    assert code == 0 and told["ok"] and told["counts"] == {"made": 20, "unchanged": 0, "failed": 0}
    assert contents(tmp_path / "out") == wanted and len(wanted) == 20
    assert faults(told, "batch", "batch") == [] and not hidden(tmp_path / "out")
    manifest = json.loads(Path(told["manifest"]).read_text())
    assert manifest["results"] == told["results"] and faults(manifest, "batch", "manifest") == []
    if workers == 2:
        before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}
        again = run_cli(*command)
        told = json.loads(again.stdout)
        assert (again.returncode, told["counts"]) == (0, {"made": 0, "unchanged": 20, "failed": 0})
        assert (
            told["seconds"] < 1 and {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")} == before
        )


def test_nothing_to_do_imports_no_torch(folder, run, inline):
    assert run("batch", *sorted(folder.glob("d*.json")), "-o", "out")[0] == 0
    code = (
        BOOT + "import sys; code = main(['batch', 'd00.json', 'd01.json', 'd02.json', '-o', 'out']); "
        "sys.exit(code or 9 * ('torch' in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "0 made, 3 unchanged, 0 failed" in done.stdout, done.stderr


def test_only_what_is_missing_or_changed_is_made_again(folder, run, inline):
    documents = sorted(folder.glob("d*.json"))
    command = ("batch", *documents, "-o", "out", "--workers", 2, "--json")
    run(*command)
    whole = contents(folder / "out")
    (folder / "out" / "d00.safetensors").unlink()
    with (folder / "out" / "d01.safetensors").open("r+b") as file:
        file.truncate(100)
    told = run(*command)[1]
    assert states(told) == {"d00": "made", "d01": "made", "d02": "unchanged"} and contents(folder / "out") == whole
    write_document(folder, "d02", strength=0.1)
    told = run(*command)[1]
    assert states(told) == {"d00": "unchanged", "d01": "unchanged", "d02": "made"}
    assert run(*command, "--dtype", "fp16")[1]["counts"]["made"] == 3
    assert run(*command, "--dtype", "fp16", "--fresh")[1]["counts"]["made"] == 3
    os.utime(folder / "a.safetensors", (1, 1))  # it says the same: planned again, not made
    told = run(*command, "--dtype", "fp16")[1]
    assert told["counts"] == {"made": 0, "unchanged": 3, "failed": 0}
    assert {each["state"] for each in json.loads(Path(told["manifest"]).read_text())["results"]} == {"made"}
    (folder / "adapter_config.json").write_text(json.dumps({"r": 4, "lora_alpha": 8}))
    assert run(*command, "--dtype", "fp16", "--dry-run")[1]["unchanged"] == []


def test_a_bad_document_fails_alone_and_is_tried_again(folder, run, inline):
    (folder / "broken.json").write_text("{")
    write_document(folder, "lost", lora="nowhere")
    documents = ("d00.json", "broken.json", "lost.json", "d01.json", "absent.json")
    code, told, _ = run("batch", *documents, "-o", "out", "--json")
    assert code == 1 and not told["ok"] and told["counts"] == {"made": 2, "unchanged": 0, "failed": 3}
    assert list(states(told)) == [name.removesuffix(".json") for name in documents]
    assert faults(told, "batch", "batch") == []
    code, out, _ = run("batch", *documents, "-o", "out")
    assert code == 1 and "lost: [file]" in out and "absent: [file]" in out and "\n0 made, 2 unchanged, 3 failed" in out
    write_document(folder, "lost")
    told = run("batch", *documents[:4], "-o", "out", "--json")[1]
    assert states(told) == {"d00": "unchanged", "broken": "failed", "lost": "made", "d01": "unchanged"}
    assert list(states(told)) == ["d00", "broken", "lost", "d01"]


def test_a_dry_run_does_nothing(folder, run, inline):
    (folder / "broken.json").write_text("{")
    run("batch", "d00.json", "-o", "out")
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    command = ("batch", *sorted(folder.glob("*.json")), "-o", "out", "--workers", 2, "--dry-run")
    code, told, _ = run(*command, "--json")
    assert code == 1 and faults(told, "batch", "dry_run") == []
    assert sorted(unit["documents"] for unit in told["units"]) == [["d01"], ["d02"]] and told["unchanged"] == ["d00"]
    assert [each["name"] for each in told["failed"]] == ["broken"]
    code, out, _ = run(*command)
    assert "2 to make in 2 passes, 1 unchanged, 1 unreadable; nothing was done" in out
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    assert run("batch", "d01.json", "-o", "other", "--dry-run")[0] == 0 and not (folder / "other").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("d00.json", "sub/d00.json", "-o", "out"), "both be written to d00.safetensors"),
        (("d00.json", "-o", "one.safetensors"), "is a file"),
        (("one.json", "-o", "."), "would take the place of a file"),
        (("d00.json", "-o", "s3://bucket/out.safetensors"), "is a file: name the folder"),
        (("d00.json", "-o", "hf://owner/repo/"), "cannot be written to"),
        (("d00.json", "-o", "https://host/out/"), "cannot be written to"),
        (("d00.json", "-o", "s3://user:pw@bucket/out"), "holds a user name or a password"),
        (("d00.json", "-o", "out", "--workers", "0"), "no number from 1 to 1000"),
        (("d00.json", "-o", "out", "--device", "cuda:99"), "cuda:99"),
        (("d00.json", "-o", "out", "--workers", "2", "--ray", "local"), "not allowed with"),
        (("d00.json", "-o", "out", "--ray", "auto"), "variable of the environment"),
    ],
)
def test_what_is_refused_before_anything_is_done(folder, run, words, said):
    write_document(folder, "one")
    (folder / "sub").mkdir()
    make_documents(folder / "sub", 1)
    code, told, _ = run("batch", *words, "--json")
    assert code == 2 and said in told["error"]["what"] and not (folder / "out").exists()
    assert not (folder / "s3:").exists()


def test_without_ray_the_line_that_installs_it_is_named(folder, run, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)  # as where it is not installed
    code, told, _ = run("batch", "d00.json", "-o", "out", "--ray", "local", "--json")
    assert (code, told["error"]["code"]) == (2, "ray") and "lora-foundry[ray]" in told["error"]["fix"]
    assert not (folder / "out").exists()


def test_no_result_takes_the_place_of_what_a_finished_document_reads(folder, run, inline):
    """It would be told as unchanged, though what it is made of is not."""
    write_document(folder, "low", quantize="none")
    assert run("batch", "low.json", "-o", "out", "--json")[0] == 0
    write_document(folder, "top", base="out/low")
    assert run("batch", "top.json", "-o", "out", "--json")[0] == 0
    before = contents(folder / "out")
    write_document(folder, "low", strength=0.5, quantize="none")
    code, told, _ = run("batch", "low.json", "top.json", "-o", "out", "--json")
    assert code == 2 and "low.safetensors would take the place" in told["error"]["what"]
    assert contents(folder / "out") == before


class Talking(Processes):
    """Its processes say something of their own, as libraries do."""

    def start(self, unit, tell):
        with pytest.MonkeyPatch.context() as patch:
            words = "import sys; sys.stdin.readline(); print('hello from a library'); print(3, 'x'); print(1, 2)"
            patch.setattr(processes, "interpreter", lambda module: [sys.executable, "-c", words])
            super().start(unit, tell)


def test_what_else_a_worker_says_does_not_hold_up_the_batch(tmp_path):
    told, runner = queue.SimpleQueue(), Talking(1, 1)
    one = unit(tmp_path, write_document(tmp_path, "a"))
    runner.start(one, told.put)
    assert told.get(timeout=30) == Step(one, 1, 2) and told.get(timeout=30) == Ended(one)
    runner.stop()


@pytest.mark.parametrize(("threads", "environment", "wanted"), [(3, "5", 3), (None, "5", 5), (3, None, 3)])
def test_the_threads_that_were_asked_for_are_those_of_a_worker(tmp_path, monkeypatch, threads, environment, wanted):
    if environment is None:
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    else:
        monkeypatch.setenv("OMP_NUM_THREADS", environment)
    words = "import os, sys; sys.stdin.readline(); print(os.environ['OMP_NUM_THREADS'], 9)"
    monkeypatch.setattr(processes, "interpreter", lambda module: [sys.executable, "-c", words])
    told, runner = queue.SimpleQueue(), Processes(1, threads)
    one = unit(tmp_path, write_document(tmp_path, "a"))
    runner.start(one, told.put)
    assert told.get(timeout=30) == Step(one, wanted, 9) and told.get(timeout=30) == Ended(one)
    runner.stop()


def test_a_killed_worker_loses_nothing(baked, run, tmp_path, monkeypatch):
    folder, wanted = baked
    monkeypatch.setattr(processes, "Processes", Murdered)
    monkeypatch.setattr(Murdered, "victims", 1)
    code, told, _ = run("batch", *sorted(folder.glob("d*.json")), "-o", tmp_path / "out", "--workers", 2, "--json")
    assert Murdered.victims == 0
    assert code == 0 and told["counts"] == {"made": 20, "unchanged": 0, "failed": 0}
    assert contents(tmp_path / "out") == wanted and not hidden(tmp_path / "out")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_stopped_batch_leaves_nothing_half_and_goes_on_later(baked, run, inline, tmp_path, number):
    """Also when it is killed itself: its workers end with it, and the next run sweeps up."""
    folder, wanted = baked
    out = tmp_path / "out"
    out.mkdir()
    code = (
        BOOT
        + "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); sys.exit(main(sys.argv[1:]))"
    )
    documents = sorted(folder.glob("d*.json"))
    command = [sys.executable, "-c", code, "batch", *map(str, documents), "-o", str(out), "--workers", "2", "--json"]
    batch = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not hidden(out):
        assert time.monotonic() < deadline and batch.poll() is None
        time.sleep(0.01)
    children = [
        int(name)
        for task in Path(f"/proc/{batch.pid}/task").iterdir()
        for name in (task / "children").read_text().split()
    ]
    batch.send_signal(number)
    said = batch.communicate(timeout=60)[0]
    while any(alive(pid) for pid in children):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert children and batch.returncode in (130, 143, -9)
    if number != signal.SIGKILL:
        assert json.loads(said)["error"]["code"] == "stopped"
    assert not hidden(out) and all(wanted[name] == data for name, data in contents(out).items())
    told = run("batch", *documents, "-o", out, "--workers", 2, "--json")[1]
    assert told["ok"] and contents(out) == wanted and not hidden(out)
