"""Every hostile file is refused with one FoundryError that names it, quickly and without touching a tensor."""

from __future__ import annotations

import os
import threading

import pytest
from attacks.files import ATTACKS, HARMLESS, write
from lora_foundry.engine.errors import FoundryError
from lora_foundry.loaders.bases.checkpoint import open_checkpoint
from lora_foundry.loaders.disk.hashes import file_sha256
from lora_foundry.loaders.disk.header import read_header
from lora_foundry.loaders.disk.source import FileSource
from lora_foundry.loaders.documents.document import load_document


@pytest.mark.timeout(60)  # a guard against hanging, no measurement
@pytest.mark.parametrize("name", ATTACKS)
def test_attack_is_refused(name, tmp_path):
    attack = ATTACKS[name]
    path = write(tmp_path, attack.content)
    with pytest.raises(FoundryError) as caught:
        read_header(path)
    assert caught.value.code == "file"
    assert attack.says in str(caught.value)
    assert "attack.safetensors" in str(caught.value)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize("name", HARMLESS)
def test_odd_but_valid_file_is_read(name, tmp_path):
    path = write(tmp_path, HARMLESS[name]())
    source = FileSource(path)
    for tensor, info in source.tensors.items():
        assert tuple(source.read(tensor).shape) == info.shape


@pytest.mark.parametrize("suffix", [".pt", ".ckpt", ".bin", ".pth", ".PKL"])
def test_pickle_by_name_is_refused_unopened(suffix, tmp_path):
    with pytest.raises(FoundryError, match="pickle file: refused, it could run code; convert it first"):
        read_header(write(tmp_path, b"anything", f"model{suffix}"))


@pytest.mark.parametrize("name", ["model.gguf", "model.safetensors.txt", "model"])
def test_other_names_are_refused(name, tmp_path):
    with pytest.raises(FoundryError, match="GGUF|by its name"):
        read_header(write(tmp_path, b"GGUF", name))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes on this system")
@pytest.mark.parametrize("kind", ["pipe", "folder", "device", "missing", "loop", "too long", "NUL"])
@pytest.mark.parametrize("read", [read_header, file_sha256, open_checkpoint, load_document])
def test_not_a_regular_file_never_hangs(kind, read, tmp_path):
    path = tmp_path / {"too long": "x" * 300, "NUL": "a\0b.safetensors"}.get(kind, "a.safetensors")
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "loop":
        path.symlink_to(path)
    caught = []

    def call():
        try:
            read(path)
        except FoundryError as error:
            caught.append(error)

    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(10)
    assert caught
    assert str(caught[0]).isprintable()


def test_header_bomb_costs_little_memory(tmp_path):
    tracemalloc = pytest.importorskip("tracemalloc")
    path = write(tmp_path, ATTACKS["header bomb"].content)
    tracemalloc.start()
    try:
        with pytest.raises(FoundryError):
            read_header(path)
        assert tracemalloc.get_traced_memory()[1] < 100e6
    finally:
        tracemalloc.stop()


def test_ansi_and_control_characters_stay_out_of_messages(tmp_path):
    from attacks.files import pack, tensor

    evil = "a\x1b[2J\n\u202eb"
    path = write(tmp_path, pack({evil: tensor(0, 9)}, bytes(9)), "ev\x1bil\n.safetensors")
    with pytest.raises(FoundryError) as caught:
        read_header(path)
    assert str(caught.value).isprintable()
    assert r"a\x1b[2J\n\u202eb" in str(caught.value)
