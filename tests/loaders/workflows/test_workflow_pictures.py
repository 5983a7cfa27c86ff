"""Workflows inside pictures: every way ComfyUI writes them, pictures without one, cut off and damaged."""

from __future__ import annotations

import json
import struct
import zlib
from pathlib import Path
from typing import Any

import pytest
from drawings import Drawing, base, lora, sampled
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lora_foundry.engine.errors import FoundryError
from lora_foundry.loaders.workflows.graph import BYPASSED, MUTED, Graph
from lora_foundry.loaders.workflows.images import MAX_TEXT, embedded
from lora_foundry.loaders.workflows.reading import graph_of, read_workflow
from pngs import chunk, png


def text_chunk(style: str, name: str, text: str) -> bytes:
    key, data = name.encode(), text.encode()
    return {
        "tEXt": chunk(b"tEXt", key + b"\0" + data),
        "comf": chunk(b"comf", key + b"\0" + data),
        "zTXt": chunk(b"zTXt", key + b"\0\0" + zlib.compress(data)),
        "iTXt": chunk(b"iTXt", key + b"\0\0\0\0\0" + data),
        "iTXt packed": chunk(b"iTXt", key + b"\0\1\0en\0wort\0" + zlib.compress(data)),
    }[style]


STYLES = ("tEXt", "comf", "zTXt", "iTXt", "iTXt packed")


def exif(order: str, *texts: str) -> bytes:
    """TIFF with one text field each: Model, Make, and on downwards, as ComfyUI numbers them."""
    start = 8 + 2 + 12 * len(texts) + 4
    fields, data = b"", b""
    for number, text in enumerate(texts):
        value = text.encode() + b"\0"
        fields += struct.pack(f"{order}HHII", 0x0110 - number, 2, len(value), start + len(data))
        data += value
    head = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, 8)
    return head + struct.pack(f"{order}H", len(texts)) + fields + b"\0" * 4 + data


def webp(data: bytes) -> bytes:
    body = b"WEBP" + b"VP8X" + struct.pack("<I", 9) + b"\0" * 10 + b"EXIF" + struct.pack("<I", len(data)) + data
    return b"RIFF" + struct.pack("<I", len(body)) + body


def jpeg(data: bytes) -> bytes:
    data = b"Exif\0\0" + data
    return b"\xff\xd8\xff\xe0\x00\x04JF\xff\xe1" + struct.pack(">H", len(data) + 2) + data + b"\xff\xda\x00\x02"


@pytest.fixture
def picture(tmp_path):
    def write(content: bytes) -> Path:
        path = tmp_path / "picture.png"
        path.write_bytes(content)
        return path

    return write


SMALL = sampled(lora(base(), 2, 1, title="Stil ü"), 2).saved()
SMALL_PROMPT = {
    "1": {"class_type": "UNETLoader", "inputs": {"unet_name": "ran.safetensors"}},
    "2": {"class_type": "LoraLoaderModelOnly", "inputs": {"model": ["1", 0]}},
    "9": {"class_type": "KSampler", "inputs": {"model": ["2", 0], "steps": 4}},
}


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("where", ["before", "after"])
def test_workflows_in_png(style, where, picture):
    text = text_chunk(style, "workflow", json.dumps(SMALL, ensure_ascii=False))
    path = picture(png(text) if where == "before" else png(after=text))
    assert read_workflow(path) == graph_of(SMALL)


def test_latin_1_in_png(picture):
    text = json.dumps(SMALL, ensure_ascii=False).encode("latin-1")
    path = picture(png(chunk(b"tEXt", b"workflow\0" + text)))
    assert read_workflow(path).nodes["2"].title == "Stil ü"


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("wrap", [webp, jpeg])
def test_workflows_in_exif(wrap, order, picture):
    texts = ("prompt:" + json.dumps(SMALL_PROMPT), "workflow:" + json.dumps(SMALL), "Canon: EOS")
    path = picture(wrap(exif(order, *texts)))
    assert embedded(path) == {"prompt": json.dumps(SMALL_PROMPT), "workflow": json.dumps(SMALL)}
    assert read_workflow(path).nodes["9"].values == {"steps": 4}


def in_png(prompt: Any, saved: Any) -> bytes:
    return png(text_chunk("tEXt", "prompt", json.dumps(prompt)), text_chunk("tEXt", "workflow", json.dumps(saved)))


def test_what_ran_and_what_stood_idle_beside_it(picture):
    saved = sampled(lora(lora(base(), 2, 1), 3, 2), 3).mode(3, 4).saved()
    graph = read_workflow(picture(in_png(SMALL_PROMPT, saved)))
    assert graph.nodes["1"].values == {"unet_name": "ran.safetensors"}  # the prompt's, not the drawing's
    assert graph.nodes["3"].mode == BYPASSED and graph.nodes["3"].links == {"model": ("2", 0)}
    assert graph.nodes["9"].links == {"model": ("2", 0)} and graph.nodes["9"].inputs == {"model": "MODEL"}


def test_a_mute_is_seen_beside_the_prompt(picture):
    saved = sampled(lora(base(), 2, 1), 2).mode(2, 2).saved()
    prompt = {"1": SMALL_PROMPT["1"], "9": {"class_type": "KSampler", "inputs": {"steps": 4}}}
    graph = read_workflow(picture(in_png(prompt, saved)))
    assert graph.nodes["2"].mode == MUTED and graph.nodes["9"].lost == {"model": "2"}


def test_what_did_not_run_stays_out(picture):
    """A run of one branch: the other one is neither there nor linked to, what is switched off is."""
    saved = lora(sampled(lora(base(), 2, 1), 2).add(5, "UNETLoader", "", "MODEL"), 6, 5, mode=4).saved()
    graph = read_workflow(picture(in_png(SMALL_PROMPT, saved)))
    assert graph.nodes.keys() == {"1", "2", "9", "6"} and not graph.nodes["6"].links


def test_what_ran_is_not_lost(picture):
    """Where a pack rewired the graph while queueing, its wire counts."""
    saved = sampled(lora(base(), 2, 1), 2).mode(2, 2).saved()
    prompt = {"1": SMALL_PROMPT["1"], "9": {"class_type": "KSampler", "inputs": {"model": ["1", 0]}}}
    node = read_workflow(picture(in_png(prompt, saved))).nodes["9"]
    assert node.links == {"model": ("1", 0)} and not node.lost


@pytest.mark.parametrize("saved", [{"nodes": [], "links": []}, base().add(2, "Other").saved(), "words", None, [1, 2]])
def test_a_drawing_of_something_else_is_left_out(saved, picture):
    assert read_workflow(picture(in_png(SMALL_PROMPT, saved))) == graph_of(SMALL_PROMPT)


def test_a_drawing_without_end_is_left_out(picture):
    saved = Drawing().add(1, "s").saved(definitions={"subgraphs": [Drawing().add(1, "s").definition("s")]})
    assert read_workflow(picture(in_png(SMALL_PROMPT, saved))) == graph_of(SMALL_PROMPT)


@pytest.mark.parametrize("text", [b"", text_chunk("tEXt", "prompt", "a cat"), text_chunk("tEXt", "parameters", "{}")])
def test_a_picture_without_a_workflow(text, picture):
    with pytest.raises(FoundryError, match="picture that holds none") as caught:
        read_workflow(picture(png(text)))
    assert caught.value.code == "workflow"


def bad_crc() -> bytes:
    text = bytearray(text_chunk("tEXt", "workflow", json.dumps(SMALL)))
    text[20] ^= 1
    return png(bytes(text))


DAMAGED = {
    "the checksum of a text is wrong": bad_crc(),
    "it is cut off": png(text_chunk("tEXt", "workflow", json.dumps(SMALL)))[:80],
    "larger than 32 MB": png(chunk(b"zTXt", b"workflow\0\0" + zlib.compress(b"0" * (MAX_TEXT + 1)))),
    "a packed text is cut off": png(chunk(b"zTXt", b"workflow\0\0" + zlib.compress(b"0" * 5000)[:-6])),
    "incorrect header check": png(chunk(b"zTXt", b"workflow\0\0nonsense")),
    "EXIF data cannot be read": webp(b"nonsense"),
    "requires a buffer": jpeg(b"II*\0\xff\xff\xff\x00"),
}


@pytest.mark.parametrize("what", DAMAGED)
def test_damaged_pictures_are_told(what, picture):
    with pytest.raises(FoundryError, match=what) as caught:
        read_workflow(picture(DAMAGED[what]))
    assert caught.value.code == "workflow" and "picture.png" in str(caught.value)


def test_a_text_that_claims_to_be_huge(picture):
    content = png()[:-12] + struct.pack(">I", 2**31) + b"tEXtprompt\0"
    with pytest.raises(FoundryError, match="larger than 32 MB"):
        read_workflow(picture(content))


@pytest.mark.parametrize("whole", [in_png(SMALL_PROMPT, SMALL), webp(exif("<", "workflow:" + json.dumps(SMALL))),
                                   jpeg(exif(">", "workflow:" + json.dumps(SMALL)))])  # fmt: skip
def test_pictures_cut_anywhere(whole, tmp_path):
    path = tmp_path / "cut.png"
    for end in range(0, len(whole), 7):
        path.write_bytes(whole[:end])
        try:
            assert read_workflow(path).nodes.keys() == {"1", "2", "9"}
        except FoundryError as error:
            assert error.code == "workflow"


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_pictures_with_any_byte_changed(data, tmp_path):
    wholes = [in_png(SMALL_PROMPT, SMALL), webp(exif("<", "workflow:{}", "prompt:{}"))]
    whole = bytearray(data.draw(st.sampled_from(wholes)))
    for _ in range(data.draw(st.integers(1, 5))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / "changed.png"
    path.write_bytes(bytes(whole))
    try:
        assert isinstance(read_workflow(path), Graph)
    except FoundryError as error:
        assert error.code == "workflow"
