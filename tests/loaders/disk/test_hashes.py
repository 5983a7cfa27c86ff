"""Hashes of files: right, taken once, kept across processes, and never those of another state of the file."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from fakes import Cancelled
from hash_parts import settle
from lora_foundry.engine.errors import FoundryError
from lora_foundry.loaders.disk import hashes, home
from lora_foundry.loaders.disk.hashes import CHUNK, FORMER, STORE, file_hashes, file_sha256
from lora_foundry.loaders.disk.home import seal
from lora_foundry.loaders.disk.process import PROCESS
from lora_foundry.loaders.disk.store import key_of


@pytest.fixture
def lora(tmp_path) -> Path:
    path = tmp_path / "löra.safetensors"
    path.write_bytes(b"weights" * 100_000)
    return settle(path)


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def key(path: Path) -> str:
    state = path.stat()
    return key_of(str(path), state.st_size, state.st_mtime_ns, state.st_ino)


def forget() -> None:
    PROCESS.files.clear()


def entries(pack_home: Path) -> list[Path]:
    return list((pack_home / STORE.folder).iterdir())


def read_again(path: Path, ask=file_sha256) -> bool:
    """Whether asking for the hash reads the file."""
    real, seen = hashes._hash, []
    hashes._hash = lambda *arguments: seen.append(arguments) or real(*arguments)
    try:
        ask(path)
    finally:
        hashes._hash = real
    return bool(seen)


def test_hash_is_of_the_whole_file_and_taken_once(lora, pack_home):
    assert file_sha256(lora) == sha256(lora)
    assert not read_again(lora)
    forget()
    assert not read_again(lora)
    assert file_sha256(lora) == sha256(lora)
    assert [entry.name for entry in pack_home.iterdir()] == [STORE.folder] and len(entries(pack_home)) == 1


def test_relative_and_absolute_names_are_one_file(lora, monkeypatch):
    file_sha256(lora)
    monkeypatch.chdir(lora.parent)
    assert not read_again(Path(lora.name))


@pytest.mark.parametrize("known", ["memory", "disk"])
@pytest.mark.parametrize("change", ["size", "time", "inode"])
def test_changed_file_is_read_again(change, known, lora):
    file_sha256(lora)
    state = lora.stat()
    if change == "inode":
        other = lora.with_name("other")
        other.write_bytes(b"WEIGHTS" * 100_000)
        os.utime(other, ns=(state.st_atime_ns, state.st_mtime_ns))
        other.replace(lora)
    else:
        with lora.open("r+b" if change == "time" else "ab") as file:
            file.write(b"X")
        os.utime(lora, ns=(state.st_atime_ns, state.st_mtime_ns + (change == "time")))
    if known == "disk":
        forget()
    assert file_sha256(lora) == sha256(lora)


def test_change_that_restores_size_time_and_inode_is_not_seen(lora):
    """The limit of the method, stated in the module."""
    before, state = file_sha256(lora), lora.stat()
    with lora.open("r+b") as file:
        file.write(b"X")
    os.utime(lora, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert file_sha256(lora) == before != sha256(lora)


@pytest.mark.parametrize("age", [0, 1, -60], ids=["now", "1 s", "in the future"])
def test_hash_of_a_file_just_written_is_not_kept(age, lora, pack_home):
    """It may change within one tick of the file system's clock and look the same."""
    settle(lora, age)
    assert file_sha256(lora) == sha256(lora)
    assert not pack_home.exists()
    assert read_again(lora)


def test_file_that_changes_while_it_is_hashed_is_refused(lora, monkeypatch):
    real = hashlib.sha256

    def append(*arguments):
        with lora.open("ab") as file:
            file.write(b"more")
        return real(*arguments)

    monkeypatch.setattr(hashlib, "sha256", append)
    with pytest.raises(FoundryError, match="changed during read"):
        file_sha256(lora)
    monkeypatch.undo()
    assert file_sha256(lora) == sha256(lora)


def test_every_kind_of_damage_costs_a_reading_and_nothing_else(lora, pack_home):
    file_sha256(lora)
    (path,) = entries(pack_home)
    line = path.read_text()
    digit = line.index(sha256(lora))
    other_digit = "0" if line[digit] != "0" else "1"
    for damaged in (
        "",
        "\n",
        line[:-1],
        line[: len(line) // 2],
        line[:digit] + other_digit + line[digit + 1 :],
        "[" * 100_000,
        json.dumps([1]),
        seal([]),
        seal({}),
        seal(json.loads(line.partition(" ")[2])) + " ",
        line.partition(" ")[2],
        "\0" * 1000,
    ):
        path.write_text(damaged)
        forget()
        assert file_sha256(lora) == sha256(lora), damaged[:80]
        forget()
        assert not read_again(lora), damaged[:80]
    path.write_bytes(b"\xff\xfe" * 1000)
    forget()
    assert file_sha256(lora) == sha256(lora)


def test_half_an_entry_of_a_killed_writer_touches_no_other(lora, pack_home, tmp_path):
    file_sha256(lora)
    (path,) = entries(pack_home)
    path.write_text(path.read_text()[:-30])
    other = tmp_path / "other"
    other.write_bytes(b"other")
    settle(other)
    file_sha256(other)
    forget()
    assert not read_again(other)
    assert read_again(lora)


def test_the_oldest_hashes_go(tmp_path, pack_home, monkeypatch):
    monkeypatch.setattr(hashes, "STORE", replace(STORE, most=8))
    files = [tmp_path / str(i) for i in range(20)]
    for file in files:
        file.write_bytes(file.name.encode())
        file_sha256(settle(file))
    assert len(entries(pack_home)) <= 8
    forget()
    assert not read_again(files[-1])
    assert read_again(files[0])


@pytest.mark.parametrize("obstacle", ["file", "folder of that name", "no parent"])
def test_home_that_cannot_be_written_to_stops_nothing(obstacle, lora, tmp_path, monkeypatch):
    place = tmp_path / "home"
    if obstacle == "folder of that name":
        (place / STORE.folder / f"{key(lora)}.json").mkdir(parents=True)
        (place / FORMER).mkdir()
    else:
        place.write_text("a file")
    monkeypatch.setenv(home.VARIABLE, str(place / "deeper" if obstacle == "no parent" else place))
    assert file_sha256(lora) == sha256(lora)
    assert not read_again(lora)


def _hash_all(paths: list[Path]) -> None:
    for path in paths:
        file_sha256(path)


@pytest.mark.skipif(sys.platform == "win32", reason="no fork")
def test_several_processes_write_down_their_hashes_at_once(tmp_path, pack_home):
    files = [tmp_path / f"{i}.safetensors" for i in range(80)]
    for file in files:
        file.write_bytes(file.name.encode())
        settle(file)
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_hash_all, args=(files[i::4],), daemon=True) for i in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0] * 4
    assert not any(read_again(file) for file in files)
    assert all(file_sha256(file) == sha256(file) for file in files)


# --- the second hash: of the bytes after the header


HEADER = json.dumps({"__metadata__": {"a": "b"}}).encode()


def tensors_file(path: Path, data: bytes, header: bytes = HEADER) -> Path:
    path.write_bytes(len(header).to_bytes(8, "little") + header + data)
    return settle(path)


@pytest.mark.parametrize("size", [0, 1, 1000, CHUNK - 8 - len(HEADER), CHUNK, 3 * CHUNK + 5])
@pytest.mark.parametrize("suffix", ["safetensors", "sft"])
def test_both_hashes_come_from_one_pass(size, suffix, tmp_path):
    data = bytes(range(251)) * (size // 251 + 1)
    path = tensors_file(tmp_path / f"a.{suffix}", data[:size])
    assert file_sha256(path) == sha256(path)
    assert not read_again(path, file_hashes)
    forget()
    assert not read_again(path, file_hashes)
    assert file_hashes(path) == (sha256(path), hashlib.sha256(data[:size]).hexdigest())


def test_header_longer_than_a_piece(tmp_path):
    header = b"{" + b" " * (2 * CHUNK) + b"}"
    path = tensors_file(tmp_path / "a.safetensors", b"data", header)
    assert file_hashes(path).tensors == hashlib.sha256(b"data").hexdigest()


@pytest.mark.parametrize("content", [b"", b"1234567", b"weights" * 1000, (99).to_bytes(8, "little") + b"{}"])
def test_other_files_have_one_hash_and_are_read_once(content, tmp_path):
    path = tmp_path / "a.safetensors"
    path.write_bytes(content)
    assert file_hashes(settle(path)) == (sha256(path), "")
    forget()
    assert not read_again(path, file_hashes)


def test_lines_of_an_older_version_still_answer(tmp_path, pack_home):
    """They hold one hash: enough for it, and the other costs one reading."""
    path = tensors_file(tmp_path / "a.safetensors", b"data")
    state = path.stat()
    pack_home.mkdir()
    old = seal([str(path), state.st_size, state.st_mtime_ns, state.st_ino, sha256(path)])
    (pack_home / FORMER).write_text(f"\n{old}\n{old[:-9]}\n{seal([1])}\n{seal({})}")
    assert not read_again(path)
    assert not (pack_home / FORMER).exists()
    assert read_again(path, file_hashes)
    forget()
    assert not read_again(path, file_hashes)
    assert file_hashes(path) == (sha256(path), hashlib.sha256(b"data").hexdigest())


def test_progress_is_told_in_bytes_and_an_error_ends_it(tmp_path):
    path = tensors_file(tmp_path / "a.safetensors", b"x" * (2 * CHUNK))
    size, steps = path.stat().st_size, []

    def stop(done, total):
        raise Cancelled

    with pytest.raises(Cancelled):
        file_hashes(path, stop)
    file_hashes(path, lambda *step: steps.append(step))
    assert steps == [(CHUNK, size), (2 * CHUNK, size), (size, size)]
    file_hashes(path, stop)  # known by now: nothing is read


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes")
def test_a_pipe_in_place_of_what_an_older_version_wrote_down_stops_nothing(lora, pack_home):
    pack_home.mkdir()
    (pack_home / STORE.folder).mkdir()
    for path in (pack_home / FORMER, pack_home / STORE.folder / f"{key(lora)}.json"):
        os.mkfifo(path)
    assert file_sha256(lora) == sha256(lora)
    assert not read_again(lora)


def test_user_without_a_home_has_no_records(lora, monkeypatch):
    def homeless():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv(home.VARIABLE)
    monkeypatch.setattr(Path, "home", homeless)
    assert not home.keep(home.home() / "a", "text")
    assert home.recall(home.home() / "a") == ""
    assert file_sha256(lora) == sha256(lora)
