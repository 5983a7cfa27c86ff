"""What lies in folders as one text: another one whenever something there is another."""

from __future__ import annotations

import os

import pytest
from lora_foundry.loaders.disk.changes import state_of


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "a.safetensors").write_bytes(b"a")
    (tmp_path / "below").mkdir()
    return tmp_path


def later(path, by: int = 1) -> None:
    state = path.stat()
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns + by))


CHANGES = {
    "comes": lambda folder: (folder / "a.png").write_bytes(b""),
    "goes": lambda folder: (folder / "a.safetensors").unlink(),
    "grows": lambda folder: (folder / "a.safetensors").write_bytes(b"more"),
    "written": lambda folder: later(folder / "a.safetensors"),
    "renamed": lambda folder: (folder / "a.safetensors").rename(folder / "b.safetensors"),
    "dead link": lambda folder: (folder / "dead.png").symlink_to(folder / "nowhere"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_every_change_of_a_file_is_another_state(folder, change):
    before = state_of([folder])
    assert state_of([folder, folder]) == before
    CHANGES[change](folder)
    assert state_of([folder]) != before


def test_what_is_below_does_not_count_and_files_count_alone(folder):
    before, alone = state_of([folder]), state_of([folder / "a.safetensors"])
    (folder / "below" / "b.safetensors").write_bytes(b"b")
    (folder / "other").mkdir()
    assert state_of([folder]) == before
    later(folder / "a.safetensors")
    assert state_of([folder / "a.safetensors"]) != alone


def test_what_is_not_there_or_no_file_counts_as_nothing(folder):
    os.mkfifo(folder / "pipe")
    assert state_of([folder / "gone", folder / "pipe"])
    assert state_of([folder / "gone"]) == str(folder / "gone")
