"""Other writers on one folder: another machine, another container, a file system without locks, a number used again."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from lora_foundry.engine.errors import FoundryError
from lora_foundry.loaders.bases.checkpoint import open_checkpoint
from lora_foundry.loaders.disk import locks, reading, temps
from lora_foundry.loaders.disk.process import PROCESS
from safetensors.torch import load_file, save_file
from sources import ROOT

pytestmark = [pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL"), pytest.mark.timeout(60)]
OTHERS = {  # whose it is: host, pid, boot and namespace, start
    "another machine of the same name": (temps.HOST, 1, "abcdefabcdef_1", "5"),
    "another machine": ("elsewhere", 1, "abcdefabcdef_1", "5"),
    "another container": (temps.HOST, 1, f"{temps._boot().split('_')[0]}_1", "5"),
    "a number that is ours now": (temps.HOST, os.getpid(), temps._boot(), "5"),
    "a process that nobody knows": (temps.HOST, 99_999_999, temps._boot(), "5"),
}
HOLDER = """
import runpy, sys, time
runpy.run_path(sys.argv[1])
from pathlib import Path
from lora_foundry.loaders.disk import temps
temps._owner = lambda pid: sys.argv[3]
with temps.temporary(Path(sys.argv[2])) as path:
    path.write_text("half")
    print("half", flush=True)
    time.sleep(60)
"""


NAMESPACES = {  # how a real one is entered, where this system lets us
    "another container": ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child", "--mount-proc"],
    "a host of another name": [
        *("unshare", "--user", "--map-root-user", "--uts", "sh", "-c", 'hostname elsewhere && exec "$@"', "sh"),
    ],
    "a container on a host of another name": [
        *("unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child", "--mount-proc", "--uts"),
        *("sh", "-c", 'hostname elsewhere && exec "$@"', "sh"),
    ],
}
WRITER = """
import runpy, sys
runpy.run_path(sys.argv[1])
from pathlib import Path
import torch
from lora_foundry.engine.tensors import TensorInfo
from lora_foundry.loaders.disk import temps
from lora_foundry.loaders.disk.writer import write_safetensors
temps._owner = (lambda pid: sys.argv[3]) if sys.argv[3] else temps._owner
print(temps.owner(), flush=True)
for value in range(40):
    with write_safetensors(Path(sys.argv[2]), [TensorInfo("a", torch.float32, (64,))], {}) as sink:
        temps.sweep(Path(sys.argv[2]).parent)
        sink.write("a", torch.full((64,), float(value)))
"""


def entered(kind: str) -> list[str]:
    """What a command begins with to run there; nothing where the system forbids it: then a name stands for it."""
    way = NAMESPACES[kind]
    tried = subprocess.run([*way, "true"], capture_output=True, check=False) if shutil.which("unshare") else None
    return way if tried is not None and tried.returncode == 0 else []


def owner(name: str) -> str:
    return "-".join(map(str, OTHERS[name]))


def left(folder: Path, name: str, age: float = 0.0) -> Path:
    """What a process of that name left under a hidden name, and no lock."""
    path = folder / f".lora_foundry-{owner(name)}-kept0.tmp"
    path.write_text("half")
    os.utime(path, (time.time() - age,) * 2)
    return path


@pytest.mark.parametrize("name", OTHERS)
def test_the_live_temp_of(name, tmp_path):
    """A sweep once went by the number of a process, which another machine and container know too."""
    arguments = [str(ROOT / "tests" / "conftest.py"), str(tmp_path), owner(name)]
    child = subprocess.Popen([sys.executable, "-c", HOLDER, *arguments], stdout=subprocess.PIPE)
    assert child.stdout.readline() == b"half\n"
    there = set(tmp_path.iterdir())
    assert len(there) == 2  # the file and the lock
    temps.sweep(tmp_path)
    assert set(tmp_path.iterdir()) == there
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    temps.sweep(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", NAMESPACES)
def test_the_live_temp_of_what_really_is(kind, tmp_path):
    way = entered(kind)
    arguments = [str(ROOT / "tests" / "conftest.py"), str(tmp_path), "" if way else owner("another container")]
    code = HOLDER.replace("temps._owner =", "if sys.argv[3]: temps._owner =")
    child = subprocess.Popen([*way, sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE)
    assert child.stdout.readline() == b"half\n"
    there = set(tmp_path.iterdir())
    assert len(there) == 2 and not any(temps.owner() in path.name for path in there)
    temps.sweep(tmp_path)
    assert set(tmp_path.iterdir()) == there
    child.kill()
    assert child.stdout.read() == b""  # not before all of that namespace are gone
    child.wait()
    child.stdout.close()
    temps.sweep(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", NAMESPACES)
def test_two_of_them_write_one_file_again_and_again(kind, tmp_path):
    """Each sweeps while the other writes; in containers both are process 1 of a machine of one name."""
    way, path = entered(kind), tmp_path / "model.safetensors"
    names = ["", ""] if way else [owner("another container"), owner("another machine")]
    common = [sys.executable, "-c", WRITER, str(ROOT / "tests" / "conftest.py"), str(path)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    children = [subprocess.Popen([*way, *common, name], **pipes) for name in names]
    said = [child.communicate(timeout=60) for child in children]
    assert [child.returncode for child in children] == [0, 0], said
    assert len({out for out, _ in said}) == 2
    assert [each.name for each in tmp_path.iterdir()] == [path.name]
    assert float(load_file(path)["a"].unique()) == 39.0


@pytest.mark.posix
@pytest.mark.parametrize(("name", "gone"), [
    ("another machine of the same name", False), ("another machine", False), ("another container", False),
    ("a number that is ours now", True), ("a process that nobody knows", True),
])  # fmt: skip
def test_where_there_are_no_locks(name, gone, tmp_path, monkeypatch):
    """Boot, namespace and start of the process decide, and else only two days of silence."""
    monkeypatch.setattr(temps, "try_lock", lambda handle: None)
    young, old = left(tmp_path, name), tmp_path / f".lora_foundry-{owner(name)}-older.tmp"
    (tmp_path / temps.lock_name(owner(name))).touch()
    temps.sweep(tmp_path)
    assert young.exists() is not gone
    for path in (young, old):
        path.write_text("half")
        os.utime(path, (time.time() - temps.FORGOTTEN - 60,) * 2)
    temps.sweep(tmp_path)
    assert not young.exists() and not old.exists()


@pytest.mark.parametrize(("local", "gone"), [(True, True), (False, False)])
def test_a_network_drive_whose_locks_other_machines_do_not_see(local, gone, tmp_path, monkeypatch):
    monkeypatch.setattr(temps, "is_local", lambda folder: local)
    path = left(tmp_path, "another machine")
    (tmp_path / temps.lock_name(owner("another machine"))).touch()  # nobody holds it, as far as this machine knows
    temps.sweep(tmp_path)
    assert path.exists() is not gone


def test_what_an_older_version_left_goes_by_age_alone(tmp_path):
    young, old = (tmp_path / f".lora_foundry-{temps.HOST}-1-{token}.tmp" for token in ("young", "old"))
    for path, age in ((young, 60), (old, temps.FORGOTTEN + 60)):
        path.write_text("half")
        os.utime(path, (time.time() - age,) * 2)
    temps.sweep(tmp_path)
    assert young.exists() and not old.exists()


def test_a_lock_ends_with_its_last_user_and_is_never_shared(tmp_path):
    lock = tmp_path / temps.lock_name(temps.owner())
    with temps.claimed(tmp_path), temps.temporary(tmp_path) as path:
        path.touch()
        handle = os.open(lock, os.O_RDWR)
        assert locks.try_lock(handle) is False
        os.close(handle)
    assert list(tmp_path.iterdir()) == [] and PROCESS.claims == {}


def test_a_lock_that_was_taken_away_in_its_first_moment_is_made_again(tmp_path, monkeypatch):
    path, seen = tmp_path / "a.lock", []

    def stolen(handle):
        seen.append(handle)
        if len(seen) == 1:
            path.unlink()  # by a sweep between making and locking
        return locks_try(handle)

    locks_try = locks.try_lock
    monkeypatch.setattr(locks, "try_lock", stolen)
    handle = locks.take(path)
    assert handle is not None and os.path.samestat(os.fstat(handle), path.stat()) and len(seen) == 2
    os.close(handle)


def test_a_folder_that_takes_no_lock_is_written_to_all_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "try_lock", lambda handle: None)
    with temps.temporary(tmp_path) as path:
        path.touch()
        temps.sweep(tmp_path)
        assert path.exists()
    assert not path.exists()


def test_a_base_that_is_cut_in_place_is_read_plainly_where_that_is_asked_for(tmp_path, monkeypatch):
    """Mapped it would end the process with SIGBUS; read plainly it is one sentence."""
    path = tmp_path / "base.safetensors"
    save_file({"blocks.0.q.weight": torch.ones(512, 512), "blocks.1.q.weight": torch.ones(512, 512)}, path)
    mapped = []
    real = reading._Mapped.open
    monkeypatch.setattr(reading._Mapped, "open", lambda header, must: mapped.append(header) or real(header, must))
    monkeypatch.setattr(reading, "may_map", lambda path: True)
    with open_checkpoint(path).reader() as reader:
        reader.read("blocks.0.q.weight")
    assert len(mapped) == 1
    with (
        pytest.raises(FoundryError, match="changed during read"),
        open_checkpoint(path, mapped=False).reader() as reader,
    ):
        reader.read("blocks.0.q.weight")
        os.truncate(path, path.stat().st_size - 600_000)
        reader.read("blocks.1.q.weight")
    assert len(mapped) == 1
