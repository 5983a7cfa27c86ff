"""A result is left alone only while document, options, every input and the result itself are as the record says."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from batch_parts import make_models, unit, write_document
from lora_foundry.loaders.bakes.wishes import Wishes
from lora_foundry.loaders.batches.places import Folder
from lora_foundry.loaders.batches.records import (
    States,
    Task,
    asked_of,
    blank_record,
    is_done,
    read_records,
    record_name,
    write_manifest,
)
from lora_foundry.loaders.batches.unit import work

CHANGES = {
    "nothing": lambda folder: None,
    "the document": lambda folder: write_document(folder, "doc", strength=0.9),
    "a LoRA": lambda folder: os.utime(folder / "a.safetensors", (1, 1)),
    "the base": lambda folder: os.utime(folder / "one.safetensors", (1, 1)),
    "a LoRA is gone": lambda folder: (folder / "b.safetensors").unlink(),
    "a config came": lambda folder: (folder / "adapter_config.json").write_text("{}"),
    "the result is gone": lambda folder: (folder / "out" / "doc.safetensors").unlink(),
    "the result was cut": lambda folder: os.truncate(folder / "out" / "doc.safetensors", 9),
    "the result was touched": lambda folder: os.utime(folder / "out" / "doc.safetensors", (1, 1)),
    "the record is gone": lambda folder: (folder / "out" / "records" / "doc.json").unlink(),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_a_record_holds_for(tmp_path, change):
    make_models(tmp_path)
    wanted = unit(tmp_path, write_document(tmp_path, "doc"))
    work(wanted)
    CHANGES[change](tmp_path)
    done = is_done(Folder(tmp_path / "out"), wanted.tasks[0], asked_of(wanted.wishes), States())
    assert (done is not None) == (change == "nothing")


def test_other_options_ask_for_another_result():
    plain = Wishes()
    others = [
        Wishes(quantize="fp8"),
        Wishes(dtype="fp16"),
        Wishes(keep="x"),
        Wishes(memory="low"),
        Wishes(max_error=0.1),
    ]
    assert len({asked_of(each) for each in (plain, *others)}) == 6 and asked_of(plain) == asked_of(Wishes())


def test_the_manifest_has_what_is_there(tmp_path):
    make_models(tmp_path)
    work(
        unit(tmp_path, *(write_document(tmp_path, name) for name in "cab"), write_document(tmp_path, "x", lora="lost"))
    )
    (tmp_path / "out" / "c.safetensors").unlink()
    out = Folder(tmp_path / "out")
    told = json.loads(Path(write_manifest(out)).read_text())
    assert [(each["name"], each["state"]) for each in told["results"]] == [
        ("a", "made"),
        ("b", "made"),
        ("x", "failed"),
    ]
    before = (tmp_path / "out" / "manifest.json").stat()
    assert Path(write_manifest(out)).stat() == before, "it says the same"


ODD = [None, 1, "x", [1], [[]], [{}], [{"path": 3}], {}, True]


@pytest.mark.parametrize("key", ["files", "inputs", "name"])
def test_a_record_of_another_form_is_none(tmp_path, key):
    """Whoever may write to the place can have written it."""
    place, record = Folder(tmp_path), {**blank_record(Task("doc", "doc.json"), "run", ""), "loras": []}
    for odd in ODD:
        place.write(record_name("doc"), json.dumps({**record, key: odd}))
        assert read_records(place, ["doc"]) == {"doc": None}
        assert json.loads(Path(write_manifest(place)).read_text())["results"] == []
        assert is_done(place, Task("doc", "doc.json"), "", States()) is None
