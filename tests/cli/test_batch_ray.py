"""``batch --ray``: 20 documents on a real Ray, in a network namespace of its own, for its ports are open to all."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from batch_parts import contents, hidden, make_documents, make_models
from conftest import ROOT
from lora_foundry.cli.workers import rays
from lora_foundry.cli.workers.loop import Ended, Step
from lora_foundry.loaders.bakes.wishes import Wishes
from lora_foundry.loaders.batches.unit import Unit

# Makes the loopback of a new namespace work, then becomes the program.
UP = """
import fcntl, os, socket, struct, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any:
    fcntl.ioctl(any, 0x8914, struct.pack("16sh14x", b"lo", 0x41))
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""
MAIN = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from lora_foundry.cli.main import main
sys.exit(main())
"""
APART = ("unshare", "--net", "--map-root-user")


@pytest.fixture(scope="module")
def confined(need):
    """The words that run a program of Python without any network."""
    need("ray", lambda: importlib.util.find_spec("ray") is not None)
    if sys.platform != "linux" or subprocess.run([*APART, "true"], capture_output=True, check=False).returncode:
        pytest.skip("needs network namespaces (Linux, unshare)")
    return [*APART, sys.executable, "-c", UP]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("ray")
    make_models(folder)
    make_documents(folder)
    (folder / "path").mkdir()
    (folder / "path" / "lora_foundry").symlink_to(ROOT)  # what an installation does, whatever this folder is called
    return folder


def test_what_a_task_refuses_comes_back_as_a_sentence():
    text = unit_of_text(version="0.0.1")
    assert "0.0.1" in rays._do(text) and rays._do(text).startswith("[batch]")


def test_what_else_a_task_ends_with_is_told_from_a_task_that_could_not_begin(monkeypatch):
    def work(unit):
        raise ZeroDivisionError("of a document")

    monkeypatch.setattr(rays, "work", work)
    with pytest.raises(rays.TaskFailed, match="ZeroDivisionError: of a document"):
        rays._do(Unit((), "out", Wishes(), "run").to_text())


def test_a_python_in_a_folder_with_a_blank_is_quoted():
    assert rays.python_of("/usr/bin/python3") == {}
    assert rays.python_of("/opt/my tools/python3") == {"py_executable": "'/opt/my tools/python3'"}


class Fault(Exception):
    """What Ray raises; the two below when a worker died of its task."""


class Crashed(Fault):
    pass


class Raised(Fault):
    """What a task raised, as Ray hands it on."""


class OfTask(Raised):
    cause = rays.TaskFailed("gone")


class OfImport(Raised):
    cause = ImportError("no pack")


@pytest.mark.parametrize(("error", "began"), [(Crashed, True), (OfTask, True), (OfImport, False), (Fault, False)])
def test_a_worker_that_dies_of_its_task_had_begun(error, began):
    """Else one document that kills every worker would end the batch as if no worker could begin."""

    def get(answer):
        raise error("gone")

    known = SimpleNamespace(RayError=Fault, RayTaskError=Raised, WorkerCrashedError=Crashed, OutOfMemoryError=Crashed)
    runner, told, one = rays.Rays.__new__(rays.Rays), [], Unit((), "out", Wishes(), "run")
    runner._ray = SimpleNamespace(get=get, exceptions=known)
    runner._follow("answer", one, told.append)
    assert told == [*([Step(one, 0, 1)] if began else []), Ended(one, "Ray says: gone")]


def test_those_faults_are_called_so_in_ray(need):
    need("ray", lambda: importlib.util.find_spec("ray") is not None)
    from ray import exceptions

    assert issubclass(exceptions.WorkerCrashedError, exceptions.RayError)
    assert issubclass(exceptions.OutOfMemoryError, exceptions.RayError)
    raised = exceptions.RayTaskError("_do", "", rays.TaskFailed("gone"))
    assert isinstance(raised, exceptions.RayError) and isinstance(raised.cause, rays.TaskFailed)


def unit_of_text(version: str) -> str:
    return replace(Unit((), "out", Wishes(), "run"), version=version).to_text()


def started(confined, folder, out):
    """The command, begun: two workers with a core each."""
    environment = {**os.environ, "PYTHONPATH": str(folder / "path"), "HOME": str(folder)}  # Ray puts a token there
    words = ["batch", *sorted(map(str, folder.glob("d*.json"))), "-o", str(out), "--ray", "local", "--threads", "1"]
    command = [*confined, "-c", MAIN, *words, "--json"]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True, cwd=folder)


def workers(folder: Path) -> list[int]:
    """The processes of this test's Ray that have a unit."""
    found = []
    for place in Path("/proc").iterdir():
        try:
            name = (place / "cmdline").read_bytes() if place.name.isdigit() else b""
            if name.startswith(b"ray::_do") and str(folder).encode() in (place / "environ").read_bytes():
                found.append(int(place.name))
        except OSError:
            continue
    return found


def wait_for(look):
    deadline = time.monotonic() + 120
    while not (found := look()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return found


@pytest.mark.timeout(400)
def test_the_bytes_of_a_bake_though_a_worker_is_killed(confined, folder, run, tmp_path):
    batch = started(confined, folder, tmp_path / "ray")
    os.kill(wait_for(lambda: workers(folder))[0], signal.SIGKILL)
    told = json.loads(batch.communicate(timeout=300)[0])
    assert told["counts"] == {"made": 20, "unchanged": 0, "failed": 0} and not hidden(tmp_path / "ray")
    (tmp_path / "bake").mkdir()
    assert run("bake", *sorted(folder.glob("d*.json")), "-o", tmp_path / "bake")[0] == 0
    assert contents(tmp_path / "ray") == contents(tmp_path / "bake")
    records = [json.loads(path.read_text()) for path in (tmp_path / "ray" / "records").iterdir()]
    assert len({record["worker"] for record in records}) >= 2


@pytest.mark.timeout(400)
def test_an_interrupt_ends_the_tasks_and_leaves_nothing_half(confined, folder, tmp_path):
    out = tmp_path / "out"
    batch = started(confined, folder, out)
    wait_for(lambda: out.is_dir() and hidden(out))
    batch.send_signal(signal.SIGINT)
    told = json.loads(batch.communicate(timeout=120)[0])
    assert batch.returncode == 130 and told["error"]["code"] == "stopped"
    assert not hidden(out) and not workers(folder)
