"""Titles: from what tools keep beside a LoRA, or from the begin of its header."""

from __future__ import annotations

import json
import os

import pytest
from lora_foundry.loaders.evidence.titles import MAX_HEAD, title_of

TITLE = "modelspec.title"


@pytest.fixture
def ink(tmp_path):
    return tmp_path / "ink.safetensors"


def write(path, metadata: dict[str, str]) -> None:
    text = json.dumps({"__metadata__": metadata, "a": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}})
    path.write_bytes(len(text.encode()).to_bytes(8, "little") + text.encode())


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("ink.civitai.info", {"name": "v2", "model": {"name": "Ink Wash"}}),
        ("ink.metadata.json", {"model_name": "Ink  Wash\n"}),
        ("ink.cm-info.json", {"ModelName": "Ink Wash"}),
        ("ink.safetensors.rgthree-info.json", {"name": "Ink Wash"}),
    ],
)
def test_a_file_beside_it_comes_first(ink, name, data):
    write(ink, {TITLE: "from the header"})
    assert title_of(ink) == "from the header"
    (ink.parent / name).write_text(json.dumps(data))
    assert title_of(ink) == "Ink Wash"


@pytest.mark.parametrize("text", ["", "[]", '{"model": 3}', '{"model": {"name": ["x"]}}', "{", "\xff", "9" * 2_000_000])
def test_a_file_that_tells_none_leaves_the_header(ink, text):
    write(ink, {"z": "1", TITLE: 'A "quoted" \u00e9'})
    (ink.parent / "ink.civitai.info").write_text(text, encoding="latin-1")
    assert title_of(ink) == 'A "quoted" \u00e9'


def test_what_only_looks_like_one_is_none(ink):
    write(ink, {"note": json.dumps({TITLE: "no"}), "long": "x"})
    assert title_of(ink) == ""
    ink.write_bytes(ink.read_bytes() + f',"{TITLE}": "behind the header"'.encode())
    assert title_of(ink) == ""
    write(ink, {"long": "x" * MAX_HEAD, TITLE: "too far"})
    assert title_of(ink) == ""
    write(ink, {TITLE: "\u202eevil\0" + "x" * 500})
    assert title_of(ink) == "evil " + "x" * 195


def test_nothing_is_raised_and_nothing_hangs(ink):
    assert title_of(ink) == ""
    os.mkfifo(ink)
    assert title_of(ink) == ""
    os.mkfifo(ink.parent / "ink.civitai.info")
    assert title_of(ink) == ""
