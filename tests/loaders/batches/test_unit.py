"""What a worker does: one pass over the base for all documents, each on record, a bad one alone."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest
from batch_parts import RUN, contents, hidden, make_documents, make_models, unit, write_document
from lora_foundry.cli.demo.formats import made_up_inputs
from lora_foundry.engine import bake
from lora_foundry.engine.calibration import Origin
from lora_foundry.engine.collect import Collector
from lora_foundry.engine.errors import FoundryError
from lora_foundry.loaders.bakes.baking import BakeOptions, FileRequest, bake_files, resolve
from lora_foundry.loaders.bakes.calibrations import save_calibration
from lora_foundry.loaders.bakes.wishes import Wishes
from lora_foundry.loaders.batches import unit as batch_unit
from lora_foundry.loaders.batches.places import Folder
from lora_foundry.loaders.batches.records import read_record
from lora_foundry.loaders.batches.unit import unit_of, work
from lora_foundry.loaders.disk import writer
from lora_foundry.loaders.disk.source import FileSource
from lora_foundry.loaders.documents.document import load_document
from lora_foundry.loaders.plans.planner import plan_document
from schemas import faults


@pytest.fixture
def folder(tmp_path) -> Path:
    make_models(tmp_path)
    return tmp_path


def records(folder: Path) -> dict[str, dict]:
    return {path.stem: json.loads(path.read_text()) for path in sorted((folder / "out" / "records").glob("*.json"))}


def test_the_results_are_those_of_a_bake_and_the_base_is_read_once(folder, monkeypatch):
    documents = make_documents(folder, 6)[::2]
    (folder / "alone").mkdir()
    for path in documents:
        document, wishes = load_document(path), Wishes()
        wanted = resolve(plan_document(document), wishes.finish(document, None, "auto"))
        bake_files([FileRequest(wanted, folder / "alone" / f"{path.stem}.safetensors")], BakeOptions(records=False))
    opened, real = [], bake.reader_of
    monkeypatch.setattr(bake, "reader_of", lambda source, mmap: opened.append(source.label) or real(source, mmap))
    work(unit(folder, *documents))
    assert contents(folder / "out") == contents(folder / "alone") and len(contents(folder / "out")) == 3
    assert opened == ["one.safetensors"]


def test_a_record_says_all_and_is_as_documented(folder):
    work(unit(folder, write_document(folder, "doc", quantize="fp8")))
    (record,) = records(folder).values()
    assert faults(record, "batch", "batch_record") == []
    assert record["state"] == "made" and record["run"] == RUN and record["together"] == 1
    inputs = {Path(each["path"]).name: each["size"] for each in record["inputs"]}
    assert inputs.keys() == {"one.safetensors", "a.safetensors", "b.safetensors", "adapter_config.json"}
    assert (
        inputs["adapter_config.json"] is None and inputs["a.safetensors"] == (folder / "a.safetensors").stat().st_size
    )
    assert [each["path"] for each in record["loras"]] == ["a.safetensors", "b.safetensors"]
    assert all(each["gain"] > 0.9 for each in record["loras"]) and record["relative_error"] < 0.05


def test_a_calibration_is_an_input_and_one_collected_anew_is_another(folder):
    base, known, recipes, written = folder / "one.safetensors", folder / "known.safetensors", [], []
    for number, tokens in enumerate((400, 800, None)):
        collected = Collector(256)
        for name, info in FileSource(base).tensors.items() if tokens else ():
            if name.startswith("blocks.") and len(info.shape) == 2:
                collected.add(name, made_up_inputs(info.shape[1], tokens)[0][None])
        if tokens:
            save_calibration(known, collected, Origin())
        work(unit(folder, write_document(folder, "doc", quantize="nvfp4"), run=str(number), calibration=str(known)))
        (record,) = records(folder).values()
        assert str(known) in [each["path"] for each in record["inputs"]]
        assert "LF205.unknown" in [each["text"] for each in record["findings"]]
        recipes.append(record["recipe_sha256"])
        written.append((folder / "out" / "doc.safetensors").stat().st_mtime_ns)
    assert recipes[0] != recipes[1] == recipes[2] and written[0] != written[1] == written[2]


BAD = {
    "missing LoRA": ({"lora": "nowhere"}, "file", "nowhere"),
    "missing base": ({"base": "nowhere"}, "file", "nowhere"),
    "damaged LoRA": ({"lora": "nan"}, "LF304", "nan"),
    "no keys": ({"stak": []}, "document", "stak"),
    "changes nothing": ({"strength": 0.0, "stack": [], "quantize": "none"}, "LF203", ""),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_document_fails_alone(folder, kind):
    settings, code, word = BAD[kind]
    documents = [
        write_document(folder, "good"),
        write_document(folder, "bad", **settings),
        write_document(folder, "last"),
    ]
    work(unit(folder, *documents))
    found = records(folder)
    assert {name: each["state"] for name, each in found.items()} == {"good": "made", "bad": "failed", "last": "made"}
    error = found["bad"]["error"]
    assert error["code"] == code and word in error["what"] and faults(found["bad"], "batch", "batch_record") == []
    assert list(contents(folder / "out")) == ["good.safetensors", "last.safetensors"] and not hidden(folder / "out")


def test_one_that_fails_in_the_pass_is_left_out_of_the_next(folder, monkeypatch):
    """Some faults show only when the base is read: then the others are baked again without it, in halves."""
    passes, real = [], batch_unit.bake_files

    def baked(requests, *more):
        passes.append([each.out.stem for each in requests])
        if "bad" in passes[-1]:
            raise FoundryError("LF204", "It cannot be held.")
        return real(requests, *more)

    monkeypatch.setattr(batch_unit, "bake_files", baked)
    first, second, third, fourth = make_documents(folder, 8)[::2]
    work(unit(folder, first, second, write_document(folder, "bad"), third, fourth))
    assert passes == [
        ["d00", "d02", "bad", "d04", "d06"],
        ["d00", "d02"],
        ["bad", "d04", "d06"],
        ["bad"],
        ["d04", "d06"],
    ]
    found = records(folder)
    assert {name for name, each in found.items() if each["state"] == "made"} == {"d00", "d02", "d04", "d06"}
    assert found["bad"]["error"]["code"] == "LF204" and [found[name]["together"] for name in ("d00", "d06")] == [2, 2]
    assert len(contents(folder / "out")) == 4 and not hidden(folder / "out")


def test_a_full_disk_is_a_sentence_on_record(folder, monkeypatch):
    def full(handle: int, size: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(writer, "reserve", full)
    work(unit(folder, *make_documents(folder, 4)[::2]))
    found = records(folder)
    assert all(each["state"] == "failed" and "No space left" in each["error"]["what"] for each in found.values())
    assert all("MB in" in each["error"]["fix"] for each in found.values())
    assert len(found) == 2 and not contents(folder / "out") and not hidden(folder / "out")


def test_a_record_that_cannot_be_written_ends_the_unit(folder):
    wanted = unit(folder, write_document(folder, "doc"))
    (folder / "out" / "records").write_text("a file where a folder is to be")
    with pytest.raises(FoundryError, match="doc.json could not be written") as caught:
        work(wanted)
    assert caught.value.code == "file"


def test_what_was_dealt_with_in_this_run_is_not_done_again(folder):
    """What a worker that died had finished stays."""
    documents = make_documents(folder, 6)[::2]
    work(unit(folder, documents[0]))
    before = (folder / "out" / "d00.safetensors").stat()
    work(unit(folder, *documents))
    assert (folder / "out" / "d00.safetensors").stat() == before and len(contents(folder / "out")) == 3


def test_a_touched_file_costs_a_plan_and_no_bake(folder):
    document = write_document(folder, "doc")
    work(unit(folder, document))
    first = records(folder)["doc"]
    before = (folder / "out" / "doc.safetensors").stat()
    os.utime(folder / "a.safetensors", (1, 1))
    document.write_text(document.read_text() + "\n")
    work(unit(folder, document, run="the next"))
    again = records(folder)["doc"]
    assert (folder / "out" / "doc.safetensors").stat() == before and again["run"] == "the next"
    assert again["inputs"] != first["inputs"] and again["document_sha256"] != first["document_sha256"]
    assert again["loras"] == first["loras"]
    work(unit(folder, write_document(folder, "doc", strength=0.3), run="the third"))
    assert (folder / "out" / "doc.safetensors").stat() != before


def test_a_unit_goes_through_text_and_not_to_another_version(folder):
    wanted = unit(folder, write_document(folder, "doc"), quantize="none", keep="auto")
    assert unit_of(wanted.to_text()) == wanted
    other = json.dumps({**json.loads(wanted.to_text()), "version": "0.0.1"})
    with pytest.raises(FoundryError, match=r"0\.0\.1"):
        unit_of(other)


def test_a_damaged_record_is_none(folder):
    work(unit(folder, write_document(folder, "doc")))
    place = folder / "out" / "records" / "doc.json"
    assert read_record(Folder(folder / "out"), "doc") is not None
    sound = place.read_text()
    others = {"schema": 9, "files": "x", "inputs": [1], "error": "no"}
    damaged = [json.dumps(json.loads(sound) | {key: value}) for key, value in others.items()]
    damaged += [json.dumps(json.loads(sound) | {"files": [{"size": 1}]})]
    for text in ("", "{", "[]", '{"schema": 1}', *damaged):
        place.write_text(text)
        assert read_record(Folder(folder / "out"), "doc") is None
