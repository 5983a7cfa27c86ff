"""Pictures made of text: chunks and EXIF fields that cost more to read than the picture to send."""

from __future__ import annotations

import json
import struct
import zlib

import pytest
from limits import holding, within
from lora_foundry.engine.errors import FoundryError
from lora_foundry.loaders.workflows.images import MAX_TEXTS, embedded
from lora_foundry.loaders.workflows.reading import MAX_VALUES, read_workflow
from pngs import SIGNATURE, chunk

pytestmark = pytest.mark.timeout(120)  # a guard against hanging, no measurement

GRAPH = json.dumps({"1": {"class_type": "KSampler", "inputs": {}}})


def exif(count: int, text: bytes, size: int | None = None) -> bytes:
    """EXIF with ``count`` fields that all point at the same text."""
    start = 10 + 12 * count
    field = struct.pack("<HHII", 0x010F, 2, len(text) if size is None else size, start)
    return b"II*\0" + struct.pack("<IH", 8, count) + field * count + text


def webp(data: bytes) -> bytes:
    return b"RIFF\0\0\0\0WEBP" + b"EXIF" + struct.pack("<I", len(data)) + data


def test_sixty_thousand_exif_fields_at_the_same_thirty_megabytes(tmp_path):
    path = tmp_path / "a.webp"
    path.write_bytes(webp(exif(60_000, b"x" * 31_000_000)))
    with within(1):
        assert embedded(path) == {}


@pytest.mark.parametrize("count", [17, 60_000])
def test_exif_fields_that_are_all_prompts(count, tmp_path):
    path = tmp_path / "a.webp"
    path.write_bytes(webp(exif(count, b"prompt:" + b" " * 8_000_000)))
    with within(1), holding(120), pytest.raises(FoundryError, match="holds more than 16 texts or 32 MB"):
        embedded(path)


def test_two_hundred_thousand_chunks_of_text(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(SIGNATURE + chunk(b"tEXt", b"comment\0hello") * 200_000)
    with within(0.5), pytest.raises(FoundryError, match="holds more than 1000 texts"):
        embedded(path)


def test_two_hundred_thousand_chunks_without_text(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(SIGNATURE + chunk(b"gAMA", b"") * 200_000)
    with within(2):
        assert embedded(path) == {}


def test_chunks_that_unpack_to_ten_gigabytes(tmp_path):
    """Texts of other names are never unpacked, and of ours only so many."""
    bomb = zlib.compress(bytes(30 * 2**20), 9)
    path = tmp_path / "a.png"
    path.write_bytes(SIGNATURE + chunk(b"zTXt", b"comment\0\0" + bomb) * 300)
    with within(1):
        assert embedded(path) == {}
    path.write_bytes(SIGNATURE + chunk(b"zTXt", b"prompt\0\0" + bomb) * 300)
    with within(2), holding(200), pytest.raises(FoundryError, match="holds more than"):
        embedded(path)


def test_a_jpeg_of_many_exif_segments(tmp_path):
    data = b"Exif\0\0" + exif(5000, b"x")
    segment = struct.pack(">BBH", 0xFF, 0xE1, len(data) + 2) + data
    path = tmp_path / "a.jpg"
    path.write_bytes(b"\xff\xd8" + segment * 500)
    with within(0.5):
        assert embedded(path) == {}


def test_a_picture_may_hold_both_texts_several_times(tmp_path):
    path = tmp_path / "a.png"
    texts = [chunk(b"tEXt", f"{name}\0{GRAPH}".encode()) for name in ("prompt", "workflow", "parameters")]
    path.write_bytes(SIGNATURE + b"".join(texts) * (MAX_TEXTS // 2))
    assert embedded(path) == {"prompt": GRAPH, "workflow": GRAPH}


def test_a_text_chunk_without_an_end(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(SIGNATURE + struct.pack(">I", 1000) + b"tEXtprompt\0abc")
    with pytest.raises(FoundryError, match="it is cut off"):
        embedded(path)
    path.write_bytes(SIGNATURE + struct.pack(">I", 1000) + b"tEXt")
    assert embedded(path) == {}


@pytest.mark.parametrize("unit", ["[],", '{"a":{}},', "1,"])
def test_json_of_millions_of_values(unit, tmp_path):
    """Thirty-two megabytes of brackets are more than a gigabyte of lists."""
    text = "[" + unit * (30_000_000 // len(unit)) + "1]"
    path = tmp_path / "a.json"
    path.write_text(text)
    with within(2), holding(150), pytest.raises(FoundryError, match=f"holds more than {MAX_VALUES} values"):
        read_workflow(path)
    picture = tmp_path / "a.png"
    picture.write_bytes(SIGNATURE + chunk(b"zTXt", b"prompt\0\0" + zlib.compress(text.encode(), 1)))
    with within(3), holding(200), pytest.raises(FoundryError, match="it is a picture that holds none"):
        read_workflow(picture)
