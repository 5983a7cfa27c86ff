"""Where what people told us is kept: in a folder that lasts, by the convention of the platform."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import lora_foundry
import pytest
from lora_foundry.loaders.disk import home


def test_what_must_last_is_in_the_folder_that_was_named(tmp_path, monkeypatch):
    monkeypatch.setenv(home.VARIABLE, str(tmp_path / "named"))
    home.set_home(tmp_path / "host")
    try:
        assert home.data_home() == home.home() == tmp_path / "named"
        monkeypatch.delenv(home.VARIABLE)
        assert home.data_home() == home.home() == tmp_path / "host"
    finally:
        home.set_home(None)
    assert not list(tmp_path.iterdir())


def test_without_a_name_it_is_no_cache_and_not_the_pack(monkeypatch):
    monkeypatch.delenv(home.VARIABLE)
    assert home.data_home().name == "lora-foundry" and home.data_home() != home.home()
    assert Path(lora_foundry.__file__).parent not in (home.data_home(), *home.data_home().parents)


@pytest.mark.parametrize(
    ("platform", "environment", "expected"),
    [
        ("linux", {}, "~/.local/share"),
        ("linux", {"XDG_DATA_HOME": "/xdg", "XDG_CACHE_HOME": "/cache"}, "/xdg"),
        ("linux", {"XDG_DATA_HOME": "relative"}, "~/.local/share"),
        ("freebsd", {}, "~/.local/share"),
        ("darwin", {"XDG_DATA_HOME": "/xdg"}, "~/Library/Application Support"),
        ("win32", {"APPDATA": "C:/roaming", "LOCALAPPDATA": "C:/local"}, "C:/roaming"),
        ("win32", {}, "~/AppData/Roaming"),
    ],
)
def test_data_folder_follows_the_platform(platform, environment, expected):
    assert home._user_folder(home._DATA, platform, environment) == Path(expected).expanduser()


def test_user_without_a_home_has_no_data_folder(monkeypatch):
    def homeless():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv(home.VARIABLE)
    monkeypatch.setattr(Path, "home", homeless)
    assert not home.keep(home.data_home() / "a", "text") and home.recall(home.data_home() / "a") == ""


def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "hashes.jsonl")
    assert home.recall(tmp_path / "hashes.jsonl") == "" == home.recall(tmp_path)


@pytest.mark.parametrize(
    ("error", "kept"), [(errno.EINVAL, True), (errno.ENOTSUP, True), (errno.ENOSYS, True), (errno.EIO, False)]
)
def test_a_drive_that_cannot_sync_keeps_what_must_last_and_a_broken_one_does_not(error, kept, tmp_path, monkeypatch):
    """Some network drives answer so to every sync: nobody could save a stack there."""

    def refuse(handle: int) -> None:
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(os, "fsync", refuse)
    place = tmp_path / "stack.json"
    assert home.keep(place, "[]", lasting=True) is kept
    assert place.exists() is kept and [path.name for path in tmp_path.iterdir()] == ["stack.json"] * kept
