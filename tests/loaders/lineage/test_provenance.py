"""What is known of a LoRA: every source is heard, none is believed beyond what it can know."""

from __future__ import annotations

import json
import os
import shutil
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from lora_foundry.engine.errors import FoundryError
from lora_foundry.engine.lineage import (  # fmt: skip
    BY_USER,
    DECLARED,
    DERIVED,
    GUESSED,
    LINEAGE_KEY,
    SAME,
    UNKNOWN,
    Claim,
    Evidence,
    Ingredient,
)
from lora_foundry.loaders.disk import stamping
from lora_foundry.loaders.disk.header import read_header
from lora_foundry.loaders.disk.stamping import stamp
from lora_foundry.loaders.lineage import provenance
from lora_foundry.loaders.lineage.fingerprints import lora_fingerprint
from lora_foundry.loaders.lineage.identity import identify_file
from lora_foundry.loaders.lineage.provenance import lineage_of, lineage_of_lora
from lora_foundry.loaders.lineage.record import Record
from lora_foundry.loaders.lineage.store import declare, forget, save
from lora_foundry.loaders.loras.file import LoRAFile, open_lora
from provenance_parts import KNOWN, KNOWN_ID, LIGHTNING
from safetensors.torch import save_file

TENSORS = {"blocks.0.q.lora_A.weight": torch.ones(2, 8), "blocks.0.q.lora_B.weight": torch.ones(8, 2)}


def a_lora(path: Path, metadata: dict[str, str] | None = None, value: float = 1.0) -> Path:
    save_file({name: tensor * value for name, tensor in TENSORS.items()}, path, metadata)
    old(path)
    return path


def old(path: Path) -> None:
    """As if written ten seconds ago: caches trust such a file."""
    then = time.time_ns() - 10_000_000_000
    os.utime(path, ns=(then, then))


@pytest.fixture
def lora(tmp_path) -> Path:
    (tmp_path / "loras").mkdir()
    return a_lora(tmp_path / "loras" / "mine.safetensors")


def record(path: Path, *trained_with: Ingredient, level: str = DECLARED, source: str = BY_USER) -> str:
    claim = Claim(Evidence(level, source, "quote"), trained_with)
    return json.dumps(Record(identify_file(path).ids, "theirs.safetensors", None, (claim,)).to_json())


def told(path: Path) -> list[tuple]:
    return [(c.evidence.level, c.evidence.source, c.trained_with) for c in lineage_of(path).claims]


# --- the sources of a LoRA


def test_an_ordinary_lora_has_ids_and_nobody_says_anything(lora):
    lineage = lineage_of(lora)
    assert lineage.ids == identify_file(lora).ids and len(lineage.ids) == 2
    assert (lineage.claims, lineage.accelerator, lineage.trained, lineage.role) == ((), None, None, (UNKNOWN, UNKNOWN))


def test_every_source_is_heard_the_user_first(lora):
    stamp(lora, lora, {"ss_sd_model_name": f"{KNOWN}.safetensors", LINEAGE_KEY: record(lora, source="trainer")})
    (lora.parent / "mine.sh").write_text("train.py --lora_fused lightning.safetensors --output_path out/mine")
    save(Record(identify_file(lora).ids, "mine", None, (Claim(Evidence(DERIVED, "probe"), ()),)))
    declare(identify_file(lora).ids, "mine", trained_with=(LIGHTNING,))
    found = told(lora)
    assert [(level, source) for level, source, _ in found] == [
        (DECLARED, BY_USER), (DERIVED, "probe"), (DECLARED, "its header: trainer"), (DECLARED, "mine.sh"),
        (GUESSED, "'ss_sd_model_name' in its metadata"),
    ]  # fmt: skip
    assert found[0][2] == (LIGHTNING,) and found[3][2][0].name == "lightning.safetensors"
    assert lineage_of(lora).trained.evidence.source == BY_USER


def test_what_a_later_source_repeats_is_told_once(lora, tmp_path):
    declare(identify_file(lora).ids, "mine", trained_with=(LIGHTNING,), note="quote")
    before = lineage_of(lora).claims
    kept = Record(lineage_of(lora).ids, "mine", None, before)
    stamp(lora, lora, {LINEAGE_KEY: json.dumps(kept.to_json())})
    assert lineage_of(lora).claims == before
    forget(identify_file(lora).ids)
    assert told(lora) == [(DECLARED, f"its header: {BY_USER}", (LIGHTNING,))]


def test_editing_metadata_leaves_the_record_in_force(lora, tmp_path):
    declare(identify_file(lora).ids, "mine", trained_with=())
    other = tmp_path / "renamed.safetensors"
    stamp(lora, other, {"ss_tag_frequency": "{}"})
    assert identify_file(other).sha256 != identify_file(lora).sha256
    assert told(other) == [(DECLARED, BY_USER, ())]


@pytest.mark.parametrize(("level", "believed"), [(DECLARED, GUESSED), (DERIVED, GUESSED), (UNKNOWN, UNKNOWN)])
def test_a_record_copied_from_another_file_is_a_guess(level, believed, lora):
    other = a_lora(lora.parent / "resized.safetensors", {LINEAGE_KEY: record(lora, LIGHTNING, level=level)}, value=2.0)
    ((got, source, trained_with),) = told(other)
    assert (got, trained_with) == (believed, (LIGHTNING,)) and "of another file, theirs.safetensors" in source
    own = lora.parent / "own.safetensors"
    stamp(lora, own, {LINEAGE_KEY: record(lora, LIGHTNING, level=level)})
    assert told(own)[0][:2] == (level, f"its header: {BY_USER}")


def test_a_record_without_a_hash_is_a_guess(lora):
    text = json.dumps({"schema": 1, "id": {}, "name": "x", "claims": json.loads(record(lora))["claims"]})
    stamp(lora, lora, {LINEAGE_KEY: text})
    assert told(lora)[0][:2] == (GUESSED, f"a record in its header that is of no certain file: {BY_USER}")


@pytest.mark.parametrize("name", ["mine.safetensors.lineage.json", "mine.lineage.json"])
def test_a_record_beside_a_file_is_trusted_as_one_in_its_header(name, lora):
    assert told(lora) == []
    beside = lora.with_name(name)
    beside.write_text(record(lora, LIGHTNING, source="trainer"))
    assert told(lora) == [(DECLARED, "its lineage file: trainer", (LIGHTNING,))]
    other = a_lora(lora.parent / "other.safetensors", value=3.0)
    beside.write_text(record(other, LIGHTNING, source="trainer"))
    ((level, source, _),) = told(lora)
    assert level == GUESSED and "a record in its lineage file that is of another file" in source
    beside.write_text(HUGE)
    assert told(lora)[0][:2] == (UNKNOWN, "the record in its lineage file is not used")
    beside.unlink()
    beside.mkdir()  # and not even a file
    assert told(lora) == []


def test_what_a_record_beside_it_and_the_store_say_is_told_once(lora):
    declare(identify_file(lora).ids, "mine", trained_with=(LIGHTNING,))
    kept = Record(lineage_of(lora).ids, "mine", None, lineage_of(lora).claims)
    lora.with_suffix(".lineage.json").write_text(json.dumps(kept.to_json()))
    assert told(lora) == [(DECLARED, BY_USER, (LIGHTNING,))]


def test_the_config_that_onetrainer_puts_into_a_file_is_read(lora):
    config = {"training_method": "LORA", "base_model_name": "models/sdxl_lightning_4step.safetensors"}
    stamp(lora, lora, {"ot_config": json.dumps(config)})
    ((level, source, (base,)),) = told(lora)
    assert (level, source, base.name) == (GUESSED, "'ot_config' in its metadata", config["base_model_name"])
    for harmless in (json.dumps({**config, "base_model_name": "sdxl.safetensors"}), "{", "[1]", "[" * 90_000, HUGE):
        stamp(lora, lora, {"ot_config": harmless})
        assert told(lora) == []


HUGE = '{"schema": 1, "id": {}, "name": "x"}' + " " * (1 << 20)
DAMAGE = {"half": "{", "list": "[]", "null": "null", "newer": '{"schema": 9}', "deep": "[" * 100_000, "huge": HUGE}


@pytest.mark.parametrize("text", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_record_in_a_header_is_told_and_harmless(text, lora):
    stamp(lora, lora, {LINEAGE_KEY: text})
    ((level, source, trained_with),) = told(lora)
    assert (level, trained_with) == (UNKNOWN, None) and "header" in source
    assert 0 < len(lineage_of(lora).claims[0].evidence.quote) < 500


def test_markup_in_a_header_stays_text(lora):
    evil = "<img src=x onerror=alert(1)>\x1b[31m" + "y" * 10_000
    data = json.loads(record(lora, Ingredient("x")))
    data["claims"][0]["evidence"]["quote"] = data["claims"][0]["trained_with"][0]["name"] = evil
    stamp(lora, lora, {LINEAGE_KEY: json.dumps(data)})
    (claim,) = lineage_of(lora).claims
    for text in (claim.evidence.quote, claim.trained_with[0].name):
        assert text.isprintable() and text.startswith("<img") and len(text) <= 1000


def test_a_damaged_record_in_the_store_is_told(lora, pack_home):
    declare(identify_file(lora).ids, "mine", trained_with=())
    (file,) = (pack_home / "lineage").iterdir()
    file.write_text("{")
    assert told(lora)[0][0] == UNKNOWN and lineage_of(lora).trained is None


TRAINING = [
    ({"ss_sd_model_name": f"{KNOWN}.safetensors"}, KNOWN_ID),
    ({"ss_sd_model_name": "qwen_image_edit_2511_fp8_e4m3fn_scaled_lightning.safetensors"}, ""),
    ({"ss_training_comment": f"v2. Trained on {KNOWN}, 3000 steps."}, KNOWN_ID),
    ({"modelspec.description": f"trained on top of {KNOWN}"}, KNOWN_ID),
]
SILENT = [
    {"ss_sd_model_name": "qwen_image_bf16.safetensors"},
    {"ss_sd_model_name": "z_image_turbo_bf16.safetensors"},
    {"ss_sd_model_name": ""},
    {"ss_training_comment": f"use with {KNOWN}"},
    {"ss_training_comment": f"not trained on {KNOWN}"},
    {"ss_training_comment": "trained on pictures of lightning, turbo cars"},
    {"ss_training_comment": "trained on " + "lightning " * 5000},
    {"ss_output_name": "lightning_effect"},
]


@pytest.mark.parametrize(("metadata", "known"), TRAINING, ids=[next(iter(m.values()))[:40] for m, _ in TRAINING])
def test_training_metadata_that_names_an_accelerator_is_a_guess(metadata, known, lora):
    stamp(lora, lora, metadata)
    ((level, source, (named,)),) = told(lora)
    assert (level, next(iter(metadata)) in source) == (GUESSED, True)
    assert named.ids == ((known,) if known else ())


@pytest.mark.parametrize("metadata", SILENT, ids=[str(next(iter(m.values())))[:40] for m in SILENT])
def test_other_training_metadata_says_nothing(metadata, lora):
    stamp(lora, lora, metadata)
    assert told(lora) == []


def test_two_spellings_of_a_known_lora_are_the_same(lora):
    declare(identify_file(lora).ids, "mine", trained_with=(Ingredient(f"lora/{KNOWN}-bf16.safetensors"),))
    (named,) = lineage_of(lora).trained.trained_with
    assert KNOWN_ID in named.ids and named.compare(Ingredient("x", (KNOWN_ID,))) == SAME


# --- the registry


def test_an_accelerator_is_recognised_by_its_name_and_its_folder(tmp_path):
    assert lineage_of(a_lora(tmp_path / f"{KNOWN}.safetensors")).accelerator.level == GUESSED
    folder = tmp_path / "Qwen-Image-2.1-Lightning"
    folder.mkdir()
    assert lineage_of(a_lora(folder / "pytorch_lora_weights.safetensors")).accelerator.id == "qwen-image-2.1-lightning"


def test_a_re_saved_accelerator_is_recognised_by_what_it_does(lora, tmp_path, pack_home):
    prints = [lora_fingerprint(open_lora(lora)).to_json()]
    entry = {"id": KNOWN_ID.partition(":")[2], "tensor_sha256": [identify_file(lora).tensor_sha256]}
    document = {"schema": 1, "entries": [{**entry, "fingerprints": prints}]}
    (pack_home / "accelerators.json").write_text(json.dumps(document))
    assert lineage_of(lora).accelerator.level == DERIVED
    again = tmp_path / "other_name.safetensors"
    save_file({name: tensor.to(torch.float64) for name, tensor in TENSORS.items()}, again)
    assert lineage_of(again).accelerator.id == KNOWN_ID.partition(":")[2]
    assert lineage_of(again).accelerator.level == DERIVED
    assert lineage_of(a_lora(tmp_path / "twice.safetensors", value=2.0)).accelerator is None
    assert lineage_of(a_lora(tmp_path / f"{KNOWN}.safetensors", value=2.0)).accelerator.level == GUESSED


def test_a_broken_registry_is_told_and_stops_nothing(lora, pack_home):
    declare(identify_file(lora).ids, "mine", trained_with=(Ingredient(KNOWN),))
    (pack_home / "accelerators.json").write_text("{")
    lineage = lineage_of(lora)
    (named,) = lineage.trained.trained_with  # with the id of its built-in entry, which is used all the same
    assert lineage.accelerator is None and named.name == KNOWN and named.ids
    assert [c.evidence.level for c in lineage.claims] == [DECLARED, UNKNOWN]
    assert "accelerators.json" in lineage.claims[1].evidence.quote


# --- how often anything is done


def test_it_is_collected_once_until_something_changes(lora, monkeypatch, pack_home):
    opened = []
    monkeypatch.setattr(provenance, "open_lora", lambda path: opened.append(path) or open_lora(path))
    first = lineage_of(lora)
    assert lineage_of(lora) is first and lineage_of_lora(open_lora(lora)) is first and len(opened) == 1
    changes = [
        lambda: declare(identify_file(lora).ids, "mine", role="style"),
        lambda: declare(identify_file(lora).ids, "mine", trained_with=(LIGHTNING,), role="quality"),
        lambda: forget(identify_file(lora).ids),
        lambda: (lora.parent / "mine.sh").write_text("train.py --lora_fused a.safetensors --output_path out/mine"),
        lambda: (pack_home / "accelerators.json").write_text("{"),
        lambda: stamp(lora, lora, {"ss_sd_model_name": KNOWN}),
    ]
    last = first
    for count, change in enumerate(changes, 2):
        change()
        now = lineage_of(lora)
        assert now != last and len(opened) == count
        last = now


def test_an_open_lora_and_its_file_have_one_lineage(lora):
    declare(identify_file(lora).ids, "mine", trained_with=())
    other = lineage_of(a_lora(lora.with_name("b.safetensors"), value=3))
    assert lineage_of_lora(open_lora(lora)) == lineage_of(lora) != other


def test_a_lora_that_is_no_file_has_what_its_metadata_says(lora):
    in_memory = LoRAFile(open_lora(lora).source, "memory", "", {"ss_sd_model_name": KNOWN})
    lineage = lineage_of_lora(in_memory)
    assert lineage.ids == () and [c.evidence.level for c in lineage.claims] == [GUESSED]


def test_a_file_that_cannot_be_used_has_a_lineage_all_the_same(tmp_path):
    path = tmp_path / "ia3.safetensors"
    save_file({"blocks.0.q.on_input": torch.ones(1), "blocks.0.q.weight": torch.ones(4)}, path)
    with pytest.raises(FoundryError):
        open_lora(path)
    declare(identify_file(path).ids, "ia3", role="style")
    assert lineage_of(path).role == ("style", DECLARED)


def test_a_missing_or_damaged_file_is_an_error(tmp_path):
    (tmp_path / "damaged.safetensors").write_bytes(b"\x05\0\0\0\0\0\0\0{")
    for name in ("missing", "damaged"):
        with pytest.raises(FoundryError) as error:
            lineage_of(tmp_path / f"{name}.safetensors")
        assert error.value.code == "file"


# --- stamping


def test_stamping_changes_the_header_and_no_tensor(lora, tmp_path):
    before, out = lora.read_bytes(), tmp_path / "out.safetensors"
    stamp(lora, out, {"a": "ä\n", "b": "2"})
    stamp(out, out, {"b": "3"})
    assert lora.read_bytes() == before and read_header(out).metadata == {"a": "ä\n", "b": "3"}
    assert identify_file(out).tensor_sha256 == identify_file(lora).tensor_sha256
    assert read_header(out).tensors == read_header(lora).tensors
    assert all(begin % 8 == 0 for begin, _ in list(read_header(out).offsets.values())[:1])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["loras", "out.safetensors"]


def test_stamping_that_fails_leaves_everything_as_it_was(lora, tmp_path, monkeypatch):
    out = tmp_path / "out.safetensors"
    out.write_bytes(b"old")

    def refuse(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(FoundryError, match="could not be written"):
        patch.setattr(shutil, "copyfileobj", refuse)
        stamp(lora, out, {"a": "1"})
    assert out.read_bytes() == b"old" and len(list(tmp_path.iterdir())) == 2
    with pytest.raises(FoundryError):
        stamp(lora, tmp_path / "out.txt", {})
    monkeypatch.setattr(stamping, "read_header", lambda path: replace(read_header(path), mtime_ns=1))
    with pytest.raises(FoundryError, match="changed"):
        stamp(lora, out, {"a": "1"})
    assert out.read_bytes() == b"old"
