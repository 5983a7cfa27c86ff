"""The picture of a LoRA: beside it or in its header; nothing but pictures comes out."""

from __future__ import annotations

import base64
import os

import pytest
import torch
from lora_foundry.engine.errors import FoundryError
from lora_foundry.loaders.disk.header import read_header
from lora_foundry.loaders.loras.previews import MAX_IMAGE, find_preview, media_type, picture_beside
from safetensors.torch import save_file

PNG, JPEG, WEBP = b"\x89PNG\r\n\x1a\n...", b"\xff\xd8\xff\xe0...", b"RIFF....WEBPVP8 "


@pytest.fixture
def lora(tmp_path):
    """Writes a LoRA, with a thumbnail in its header where one is given."""

    def write(thumbnail=None):
        path = tmp_path / "ink.v2.safetensors"
        save_file({"a": torch.zeros(1)}, path, {"modelspec.thumbnail": thumbnail} if thumbnail else None)
        return path

    return write


def found(path):
    return find_preview(path, read_header(path).metadata)


def embedded(data):
    return "data:image/jpeg;base64," + base64.b64encode(data).decode()


@pytest.mark.parametrize(("name", "data", "kind"), [
    ("ink.v2.preview.png", PNG, "image/png"), ("ink.v2.jpeg", JPEG, "image/jpeg"), ("ink.v2.webp", WEBP, "image/webp"),
    ("ink.v2.png", WEBP, "image/webp"),
])  # fmt: skip
def test_a_file_beside_it(lora, tmp_path, name, data, kind):
    (tmp_path / name).write_bytes(data)
    assert found(lora(embedded(JPEG))).read() == (data, kind)


def test_the_one_in_its_header(lora):
    assert found(lora(embedded(JPEG))).read() == (JPEG, "image/jpeg")
    assert found(lora()) is None and found(lora("https://somewhere/a.png")) is None


@pytest.mark.parametrize("thumbnail", [
    "data:image/png;base64,!!", "data:image/svg+xml,<svg/>", embedded(b"<svg onload=x>"), "data:image/png;base64,",
    "data:image/png;base64,é",
])  # fmt: skip
def test_what_is_no_picture_is_none(lora, thumbnail):
    with pytest.raises(FoundryError, match="no PNG, JPEG or WebP"):
        found(lora(thumbnail)).read()


def test_a_file_that_says_it_is_a_picture_is_looked_at(lora, tmp_path):
    (tmp_path / "ink.v2.png").write_bytes(b"<html><script>")
    with pytest.raises(FoundryError, match=r"ink\.v2\.png is no PNG"):
        found(lora()).read()
    (tmp_path / "ink.v2.png").write_bytes(PNG + b"x" * MAX_IMAGE)
    with pytest.raises(FoundryError, match="larger than 4 MiB"):
        found(lora()).read()


def test_no_picture_is_beside_itself(tmp_path):
    picture = tmp_path / "ink.png"
    picture.write_bytes(PNG)
    assert picture_beside(picture) is None and picture_beside(tmp_path / "ink.safetensors").path == picture


def test_one_that_is_no_file_is_passed_over(lora, tmp_path):
    (tmp_path / "ink.v2.preview.png").mkdir()
    os.mkfifo(tmp_path / "ink.v2.png")
    (tmp_path / "ink.v2.jpg").write_bytes(JPEG)
    assert found(lora()).read() == (JPEG, "image/jpeg")


def test_its_state_changes_with_the_file(lora, tmp_path):
    picture, path = tmp_path / "ink.v2.png", lora()
    picture.write_bytes(PNG)
    before = found(path).state
    assert found(path).state == before
    picture.write_bytes(PNG + b"!")
    assert found(path).state != before


def test_media_types():
    assert [media_type(each) for each in (PNG, JPEG, WEBP, b"", b"GIF89a", b"RIFF....AVI ")] == [
        "image/png", "image/jpeg", "image/webp", "", "", "",
    ]  # fmt: skip
