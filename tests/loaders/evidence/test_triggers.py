"""Trigger words: from a LoRA's own metadata and from what the tools people use keep beside it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from lora_foundry.loaders.evidence.triggers import trigger_words


@pytest.fixture
def beside(tmp_path):
    """Writes a file beside a LoRA, and gives the LoRA's path, which need not be there."""

    def write(name: str, data: object) -> Path:
        (tmp_path / name).write_text(data if isinstance(data, str) else json.dumps(data), encoding="utf-8")
        return tmp_path / "ink.safetensors"

    return write


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ({"modelspec.trigger_phrase": " ink wash,  on paper ,"}, ("ink wash", "on paper")),
        ({"trigger_words": '["ohwx", "a photo\\nof ohwx"]'}, ("ohwx", "a photo of ohwx")),
        ({"ss_trigger_words": "ohwx", "trigger_word": "ohwx, man"}, ("ohwx", "man")),
        ({"trigger_words": "[not json"}, ("[not json",)),
        ({"ss_tag_frequency": '{"x": {"tree": 9}}', "trigger_words": " , "}, ()),
        ({"trigger_words": "a" * 500 + ", b"}, ("b",)),
    ],
)
def test_the_metadata_tells(metadata, words):
    assert trigger_words(None, metadata) == words


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("ink.metadata.json", {"civitai": {"trainedWords": ["ink wash", "a, b"]}}, ("ink wash", "a", "b")),
        ("ink.civitai.info", {"trainedWords": ["ink"]}, ("ink",)),
        ("ink.cm-info.json", {"TrainedWords": ["ink"]}, ("ink",)),
        ("ink.json", {"activation text": "ink, wash", "notes": "none"}, ("ink", "wash")),
        (
            "ink.safetensors.rgthree-info.json",
            {"trainedWords": [{"word": "ink", "civitai": True}, {"word": "1girl", "metadata": True, "count": 9}]},
            ("ink",),
        ),
        ("ink.json", {"activation text": [1, None, {"word": ["x"]}, ["a"], "ink"]}, ("ink",)),
        ("ink.metadata.json", {"civitai": None, "trainedWords": 3}, ()),
        ("ink.json", "[" * 5000, ()),
        ("ink.json", '"ink"', ()),
        ("other.json", {"activation text": "of another LoRA"}, ()),
    ],
)
def test_sidecars_tell(beside, name, data, words):
    assert trigger_words(beside(name, data), {}) == words


def test_each_word_once_those_of_the_file_first(beside):
    beside("ink.json", {"activation text": "wash, ink"})
    path = beside("ink.civitai.info", {"trainedWords": ["paper", "ink"]})
    assert trigger_words(path, {"trigger_words": "ink"}) == ("ink", "paper", "wash")


def test_a_flood_is_cut(beside):
    path = beside("ink.civitai.info", {"trainedWords": [f"w{at}" for at in range(5000)]})
    assert len(trigger_words(path, {"trigger_words": ",".join(f"v{at}" for at in range(5000))})) == 64
    path = beside("large.json", {"activation text": "ink", "more": "x" * 1_100_000}).with_name("large.safetensors")
    assert trigger_words(path, {}) == ()


def test_what_no_prompt_can_hold_is_left_out(beside):
    """Half a character ends a run in the tokenizer, and a terminal obeys its escapes."""
    told = {"civitai": {"trainedWords": ["a\ud800b", "x\x1b[31mred\0", "\u202eknird", "日本 水彩", "👩‍🎨", "\ud800"]}}
    words = trigger_words(beside("ink.metadata.json", told), {"trigger_words": "ink\x07"})
    assert words == ("ink", "a b", "x [31mred", "knird", "日本 水彩", "👩‍🎨")
