"""The store of lineage records: what is merged, what is refused, and that no record can do harm."""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
from pathlib import Path

import pytest
from lora_foundry.engine.errors import FoundryError
from lora_foundry.engine.json_lineage import MANY, NAME, QUOTE
from lora_foundry.engine.lineage import (
    BY_USER,
    DECLARED,
    DERIVED,
    GUESSED,
    UNKNOWN,
    Claim,
    Contained,
    Evidence,
    Ingredient,
)
from lora_foundry.loaders.disk import home, temps
from lora_foundry.loaders.lineage import store as lineages
from lora_foundry.loaders.lineage.record import Record, parse_record
from lora_foundry.loaders.lineage.store import damaged, declare, every, find_place, forget, load, read, retract, save
from record_parts import BASE, IDS, LIGHTNING, OTHER, STYLE, TENSORS, changed, claim, place, record_json


def test_declaration_comes_back_by_either_hash(pack_home):
    declare(IDS, "mine.safetensors", "qwen-image", trained_with=(LIGHTNING,), use_with=(), role="style", note="I know")
    for ids in (IDS, IDS[:1], IDS[1:], (f"tensors:{TENSORS}", f"sha256:{OTHER}")):
        (found,) = load(ids)
        assert (found.trained_with, found.use_with, found.role) == ((LIGHTNING,), (), "style")
        assert (found.evidence.level, found.evidence.source, found.evidence.quote) == (DECLARED, BY_USER, "I know")
        assert found.evidence.time.endswith("+00:00")
    assert load((f"sha256:{OTHER}",)) == load(()) == ()
    assert [path.name for path in (pack_home / "lineage").iterdir()] == [f"{TENSORS}.json"]


def test_every_field_survives_the_file():
    full = Claim(Evidence(DERIVED, "train.sh", "--lora_fused x", "2026-01-02T03:04:05+00:00"), (LIGHTNING, STYLE), (),
                 "style", (0.5, 0.75), True)  # fmt: skip
    record = Record(IDS, "mine.safetensors", "wan", (full, claim("log.txt", level=GUESSED)))
    assert save(record) == record == read(IDS)
    base = Record(BASE, "base.safetensors", "wan", (), (Contained(LIGHTNING, DERIVED, "its prompt"),))
    assert save(base) == base == read(BASE)
    assert list(every()) == [base, record]


def test_declaring_again_replaces_the_users_word_and_nothing_else():
    save(Record(IDS, "mine", None, (claim("train.sh", LIGHTNING),)))
    declare(IDS, "mine", trained_with=(STYLE,))
    declare(IDS, "mine", trained_with=())
    assert [(c.evidence.source, c.trained_with) for c in load(IDS)] == [(BY_USER, ()), ("train.sh", (LIGHTNING,))]


def test_all_claims_of_a_source_are_replaced_together():
    save(Record(IDS, "mine", None, (claim("log", LIGHTNING), claim("log", STYLE), claim("train.sh", STYLE))))
    save(Record(IDS, "mine", None, (claim("log"),)))
    assert [(c.evidence.source, c.trained_with) for c in load(IDS)] == [("train.sh", (STYLE,)), ("log", ())]


def test_a_base_is_told_apart_from_a_lora(pack_home):
    declare(BASE, "base.safetensors", contains=(LIGHTNING,))
    assert read(BASE).contains == (Contained(LIGHTNING, DECLARED, BY_USER),) and load(BASE) == ()
    assert lineages.has_bases() and place(pack_home, f"bases/{OTHER}").exists()
    assert forget(BASE) and not lineages.has_bases()


def test_forgetting_is_for_good(pack_home):
    declare(IDS, "mine", role="style")
    assert forget(IDS[:1]) and not forget(IDS) and load(IDS) == () and not place(pack_home).exists()


def test_the_user_can_take_back_their_word_and_no_other(pack_home):
    save(Record(IDS, "mine", None, (claim("train.sh", LIGHTNING),)))
    declare(IDS, "mine", trained_with=())
    assert [c.evidence.source for c in retract(IDS).claims] == [c.evidence.source for c in load(IDS)] == ["train.sh"]
    declare(BASE, "base", contains=(LIGHTNING,))
    assert retract(BASE) is None and not place(pack_home, f"bases/{OTHER}").exists()
    assert retract(BASE) is None and retract(IDS) == read(IDS)


def test_a_record_has_its_limit():
    many = [claim(f"source {number}") for number in range(MANY)]
    save(Record(IDS, "mine", None, tuple(many)))
    with pytest.raises(FoundryError, match="more than"):
        save(Record(IDS, "mine", None, (claim("one more"),)))
    assert len(load(IDS)) == MANY and not list(damaged())


def test_nothing_said_is_nothing_stored(pack_home):
    with pytest.raises(FoundryError, match="nothing was declared"):
        declare(IDS, "mine", note="hm")
    assert not pack_home.exists()


@pytest.mark.parametrize("ids", [(), IDS[:1], ("tensors:../../x",), (f"tensors:{'A' * 64}",), ("known:lightning",)])
def test_no_record_without_a_hash_to_file_it_under(ids, pack_home):
    with pytest.raises(FoundryError, match="hash|hex"):
        declare(ids, "mine", role="style")
    assert not pack_home.exists() and load(ids) == () and not forget(ids)


def test_no_id_leads_out_of_the_store(pack_home):
    declare(IDS, "mine", role="style")
    outside = pack_home / "outside.json"
    outside.write_text("precious")
    for id in ("tensors:../outside", f"base:{pack_home}/outside", f"tensors:{'A' * 64}", f"tensors:{TENSORS}0"):
        assert find_place((id,)) is None and load((id,)) == () and not forget((id,))
    assert outside.read_text() == "precious"


# --- what goes wrong on a disk


DAMAGE = {
    "half": '{"schema": 1, "id"',
    "empty": "",
    "no object": "[1]",
    "newer": '{"schema": 2, "id": {}}',
    "deep": "[" * 200_000,
    "huge": json.dumps(Record(IDS, "x").to_json()) + " " * (1 << 20),
    "not a number": '{"schema": NaN}',
    "of another file": json.dumps(Record((f"tensors:{OTHER}",), "x").to_json()),
}


@pytest.mark.parametrize("text", DAMAGE.values(), ids=DAMAGE)
def test_damaged_record_is_told_kept_and_can_be_forgotten(text, pack_home):
    declare(IDS, "mine", role="style")
    place(pack_home).write_text(text)
    (told,) = load(IDS)
    assert (told.evidence.level, told.trained_with, told.use_with) == (UNKNOWN, None, None)
    assert TENSORS in told.evidence.quote
    with pytest.raises(FoundryError, match=TENSORS) as error:
        declare(IDS, "mine", role="style")
    assert error.value.code == "lineage" and "orget" in error.value.fix
    assert place(pack_home).read_text() == text and list(every()) == [] and len(list(damaged())) == 1
    assert forget(IDS)
    declare(IDS, "mine", role="style")


def test_folder_that_cannot_be_written_to_is_an_error_that_says_so(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(home.VARIABLE, str(tmp_path / "file"))
    with pytest.raises(FoundryError, match="cannot be written") as error:
        declare(IDS, "mine", role="style")
    assert home.VARIABLE in error.value.fix and load(IDS) == ()


def test_readers_see_the_old_or_the_new_record(pack_home, monkeypatch):
    declare(IDS, "mine", role="style")

    def refuse(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", refuse)
        with pytest.raises(FoundryError):
            declare(IDS, "mine", role="repair")
    assert load(IDS)[0].role == "style" and len(list((pack_home / "lineage").iterdir())) == 1


def write_many(letter: str) -> None:
    for number in range(20):
        declare((f"tensors:{letter * 32}{number:032x}",), f"{letter}{number}", role="style")


@pytest.mark.skipif(sys.platform == "win32", reason="no fork")
def test_processes_write_different_records_at_once(pack_home):
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=write_many, args=(letter,), daemon=True) for letter in "abcd"]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0] * 4
    assert len(list(every())) == 80 and not list(damaged())
    assert all(path.suffix == ".json" for path in (pack_home / "lineage").iterdir())


def test_what_killed_writers_left_is_swept_up(pack_home):
    declare(IDS, "mine", role="style")
    left_over = pack_home / "lineage" / f".lora_foundry-{temps.HOST}-{2**30}-{temps._boot()}-1-1234.tmp"
    left_over.write_text("{")
    declare(IDS, "mine", role="repair")
    assert not left_over.exists() and len(load(IDS)) == 1


# --- what strangers write


FAULTS = [
    ("schema", 2), ("schema", None), ("id", []), ("id.tensor_sha256", "../../../etc/passwd"), ("id.sha256", "A" * 64),
    ("id.tensor_sha256", 7), ("name", None), ("name", ["x"]), ("family", 3), ("claims", {}), ("claims", ["x"]),
    ("claims", [record_json()["claims"][0]] * (MANY + 1)), ("claims.0.evidence", None),
    ("claims.0.evidence.level", "proven"), ("claims.0.evidence.source", {}), ("claims.0.role", "king"),
    ("claims.0.trained_with", "lightning"), ("claims.0.trained_with", [7]), ("claims.0.use_with", [{}]),
    ("claims.0.strength", [1]), ("claims.0.strength", 1), ("claims.0.strength", [True, 1]),
    ("claims.0.trained_with", [{"name": "x", "strength": 1e300}]),
    ("claims.0.trained_with", [{"name": "x", "strength": 10**400}]),
    ("claims.0.trained_with", [{"name": "x", "strength": float("nan")}]),
    ("claims.0.trained_with", [{"name": "x", "strength": float("inf")}]),
    ("claims.0.trained_with", [{"name": "x", "coverage": [1, -(10**9)]}]),
    ("claims.0.trained_with", [{"name": "x"}] * (MANY + 1)), ("claims.0.trained_with", [{"name": "x", "ids": [1]}]),
    ("contains", "x"), ("contains", [{"name": "x", "level": "proven"}]),
]  # fmt: skip


@pytest.mark.parametrize(("path", "value"), FAULTS, ids=[f"{path} {str(value)[:30]}" for path, value in FAULTS])
def test_faulty_record_is_refused_with_its_fault(path, value):
    with pytest.raises(FoundryError) as error:
        parse_record(changed(path, value), "in a.json")
    assert error.value.code == "lineage" and error.value.what.startswith("in a.json: ") and len(str(error.value)) < 700


def test_text_is_capped_and_cannot_steer_a_terminal():
    evil = "\x1b[2J<script>alert(1)</script>\u202e" + "x" * 5000
    data = changed("claims.0.evidence.quote", evil)
    data["name"] = data["claims"][0]["trained_with"][0]["name"] = evil
    record = parse_record(data, "x")
    texts = (record.name, record.claims[0].trained_with[0].name, record.claims[0].evidence.quote)
    for text, limit in zip(texts, (NAME, NAME, QUOTE), strict=True):
        assert text.isprintable() and len(text) <= limit and "<script>" in text
    assert parse_record(json.loads(json.dumps(record.to_json())), "x") == record  # escaped once, not again and again


def test_unknown_kinds_of_ids_and_keys_are_left_alone():
    data = changed("claims.0.trained_with", [{"name": "x", "ids": ["md5:1", "known:qwen-lightning"], "new": 1}])
    (ingredient,) = parse_record({**data, "future": {}}, "x").claims[0].trained_with
    assert ingredient == Ingredient("x", ("known:qwen-lightning",))


def test_what_is_no_file_among_the_records_is_told_and_not_waited_for(pack_home):
    place(pack_home).parent.mkdir(parents=True)
    os.mkfifo(place(pack_home))
    (fault,) = damaged()
    assert "not a regular file" in fault.what and list(every()) == [] and forget(IDS)


def test_a_record_that_cannot_be_written_is_not_called_unbelievable(pack_home):
    pack_home.mkdir(exist_ok=True)
    (pack_home / "lineage").write_text("in the way")
    with pytest.raises(FoundryError) as refused:
        declare(IDS, "x", trained_with=())
    assert "cannot be written" in refused.value.what and refused.value.why == "Nothing was written down."
