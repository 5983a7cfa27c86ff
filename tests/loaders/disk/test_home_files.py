"""The pack's home: where it is, how a small file is written there, and what is swept out of it."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import lora_foundry
import pytest
from hash_parts import settle
from lora_foundry.loaders.disk import home, temps
from lora_foundry.loaders.disk.home import seal, unseal
from lora_foundry.loaders.documents.shelf import save_stack
from lora_foundry.loaders.lineage import store
from lora_foundry.loaders.lineage.exchange import export_to
from lora_foundry.loaders.lineage.record import Record
from record_parts import IDS, claim


def test_home_is_what_the_user_names_then_the_host_then_the_platform(tmp_path, monkeypatch):
    monkeypatch.setenv(home.VARIABLE, str(tmp_path / "named"))
    home.set_home(tmp_path / "host")
    try:
        assert home.home() == tmp_path / "named"
        monkeypatch.delenv(home.VARIABLE)
        assert home.home() == tmp_path / "host"
    finally:
        home.set_home(None)
    assert home.home().name == "lora-foundry"
    assert Path(lora_foundry.__file__).parent not in home.home().parents
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("platform", "environment", "expected"),
    [
        ("linux", {}, "~/.cache"),
        ("linux", {"XDG_CACHE_HOME": "/xdg"}, "/xdg"),
        ("linux", {"XDG_CACHE_HOME": "relative"}, "~/.cache"),
        ("darwin", {"XDG_CACHE_HOME": "/xdg"}, "~/Library/Caches"),
        ("win32", {"LOCALAPPDATA": "/local"}, "/local"),
        ("win32", {}, "~/AppData/Local"),
    ],
)
def test_home_follows_the_platform(platform, environment, expected):
    assert home._user_folder(home._CACHE, platform, environment) == Path(expected).expanduser()


def test_small_file_is_the_old_or_the_new_one(tmp_path, monkeypatch):
    path = tmp_path / "a" / "b.json"
    assert home.keep(path, "old")

    def refuse(*_):
        raise PermissionError

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", refuse)
        assert not home.keep(path, "new")
    assert home.recall(path) == "old"
    assert [entry.name for entry in path.parent.iterdir()] == ["b.json"]


@pytest.mark.parametrize("data", [None, [], {"a": [1, 2.5, "ü\ud800\n"]}, "x" * 100_000])
def test_sealed_line_comes_back_and_damage_does_not(data):
    line = seal(data)
    assert "\n" not in line
    assert line.isascii()
    assert unseal(line) == data
    assert unseal(line[:-1]) is None
    assert unseal(line + " ") is None
    assert unseal("0" * 8 + line[8:]) is None


# --- what killed processes leave


def left_over(folder: Path, host: str, pid: int, boot: str | None = None, start: str = "1") -> Path:
    path = folder / f".lora_foundry-{host}-{pid}-{temps._boot() if boot is None else boot}-{start}-kept0.tmp"
    path.mkdir()
    (path / "model.safetensors").write_bytes(b"half")
    return path


@pytest.mark.posix
def test_sweep_takes_what_is_nobodys(tmp_path):
    dead = left_over(tmp_path, temps.HOST, 999999999999999)
    earlier_life = left_over(tmp_path, temps.HOST, os.getpid())  # a container starts again under the same number
    forgotten = settle(left_over(tmp_path, "elsewhere", 1), temps.FORGOTTEN + 60)
    settle(forgotten / "model.safetensors", temps.FORGOTTEN + 60)
    elsewhere = left_over(tmp_path, "elsewhere", 2)
    parent = left_over(tmp_path, temps.HOST, os.getppid(), start=temps._start(os.getppid()))
    writers = temps.hidden(tmp_path)  # as the writer takes its names
    writers.touch()
    foreign = left_over(tmp_path, "a b", 1)
    with temps.temporary(tmp_path) as mine:
        mine.mkdir()
        temps.sweep(tmp_path)
        assert not any(path.exists() for path in (dead, earlier_life, forgotten))
        assert all(path.exists() for path in (elsewhere, parent, writers, foreign, mine))
    assert not mine.exists()
    temps.sweep(tmp_path / "missing")


def test_windows_goes_by_age_alone(tmp_path, monkeypatch):
    young, old = (left_over(tmp_path, temps.HOST, pid) for pid in (999999999999998, 999999999999999))
    settle(old / "model.safetensors", temps.FORGOTTEN + 60)
    settle(old, temps.FORGOTTEN + 60)
    monkeypatch.setattr(os, "kill", lambda *_: pytest.fail("signal 0 ends a process on Windows"))
    with monkeypatch.context() as patch:
        patch.setattr(temps.os, "name", "nt")
        temps.sweep(tmp_path)
    assert young.exists()
    assert not old.exists()


@pytest.mark.posix
@pytest.mark.skipif(os.name == "nt", reason="folders cannot be synced there")
@pytest.mark.parametrize("what", ["a record of the lineage", "a saved stack", "an export"])
def test_what_people_told_us_is_on_the_disk_before_it_takes_the_old_ones_place(what, tmp_path, monkeypatch):
    writes = {
        "a record of the lineage": lambda: store.write(Record(IDS, "x", "wan", (claim("train.sh"),))),
        "a saved stack": lambda: save_stack("mine", [{"path": "a.safetensors"}]),
        "an export": lambda: export_to(tmp_path / "out.json", []),
    }
    steps, sync, move = [], os.fsync, Path.replace

    def synced(handle: int) -> None:
        steps.append("folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "file")
        sync(handle)

    def moved(path: Path, target: Path) -> Path:
        steps.append("name")
        return move(path, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", moved)
    writes[what]()
    assert steps == ["file", "name", "folder"]
    steps.clear()
    assert home.keep(tmp_path / "again.json", "what can be made again")
    assert steps == ["name"]
