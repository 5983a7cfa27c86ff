"""Lineage records from one machine to another: nothing is lost, nothing faulty comes in."""

from __future__ import annotations

import json

import pytest
from lora_foundry.engine.errors import FoundryError
from lora_foundry.engine.lineage import (
    BY_USER,
    DECLARED,
    GUESSED,
)
from lora_foundry.loaders.disk import home
from lora_foundry.loaders.lineage import exchange as lineage_exchange
from lora_foundry.loaders.lineage.exchange import export, export_to, import_from
from lora_foundry.loaders.lineage.record import Record, parse_record
from lora_foundry.loaders.lineage.store import declare, every, load, read, save
from record_parts import BASE, FILE, IDS, LIGHTNING, OTHER, STYLE, changed, claim, place, record_json


@pytest.fixture
def move(tmp_path, monkeypatch):
    """``move("b")``: from now on we are on the machine of that name."""

    def call(machine: str) -> None:
        monkeypatch.setenv(home.VARIABLE, str(tmp_path / "machines" / machine))

    call("a")
    return call


def test_export_travels_with_its_evidence(tmp_path, move):
    declare(IDS, "mine.safetensors", "wan", trained_with=(LIGHTNING,))
    save(Record(IDS, "mine.safetensors", None, (claim("name", level=GUESSED),)))
    declare(BASE, "base", contains=(LIGHTNING,))
    file = tmp_path / "all.json"
    assert export_to(file) == 2
    move("b")
    done = import_from(file)
    assert (done.new, done.updated, done.unchanged, done.refused) == (("base", "mine.safetensors"), (), (), ())
    sources = [(c.evidence.level, c.evidence.source) for c in load(IDS)]
    assert sources == [(DECLARED, f"imported from all.json: {BY_USER}"), (GUESSED, "imported from all.json: name")]
    assert load(IDS)[0].trained_with == (LIGHTNING,)
    assert read(BASE).contains[0].source == f"imported from all.json: {BY_USER}"


def test_importing_twice_and_importing_ones_own_changes_nothing(tmp_path, move):
    save(Record(IDS, "mine", None, (claim("log", LIGHTNING), claim("log", STYLE))))
    declare(BASE, "base", contains=(LIGHTNING,))
    file, back = tmp_path / "a.json", tmp_path / "b.json"
    export_to(file)
    before = list(every())
    assert import_from(file).unchanged == ("base", "mine") and list(every()) == before
    move("b")
    import_from(file)
    export_to(back)
    once = list(every())
    assert import_from(file).unchanged == import_from(back).unchanged == ("base", "mine") and list(every()) == once
    move("a")
    assert import_from(back).unchanged == ("base", "mine") and list(every()) == before


def test_a_source_names_the_last_file_alone(tmp_path, move):
    declare(IDS, "mine", trained_with=(LIGHTNING,))
    first, second = tmp_path / "a: b.json", tmp_path / "c.json"
    export_to(first)
    for machine, file in (("b", first), ("c", second)):
        move(machine)
        import_from(file)
        export_to(second)
    assert [c.evidence.source for c in load(IDS)] == [f"imported from c.json: {BY_USER}"]
    assert import_from(first).unchanged == ("mine",)


def test_import_of_a_file_again_takes_over_what_changed_in_it(tmp_path, move):
    declare(IDS, "mine", trained_with=(LIGHTNING,))
    file = tmp_path / "a.json"
    export_to(file)
    declare(IDS, "mine", trained_with=())
    newer = export()
    move("b")
    declare(IDS, "mine", role="style")
    assert import_from(file).updated == ("mine",)
    file.write_text(json.dumps(newer))
    assert import_from(file).updated == ("mine",)
    assert [(c.evidence.source, c.trained_with) for c in load(IDS)] == [
        (BY_USER, None), (f"imported from a.json: {BY_USER}", ())
    ]  # fmt: skip


def test_one_source_with_two_claims_keeps_both_when_one_is_new(tmp_path, move):
    save(Record(IDS, "mine", None, (claim("log", LIGHTNING),)))
    file = tmp_path / "a.json"
    export_to(file)
    both = export([Record(IDS, "mine", None, (claim("log", LIGHTNING), claim("log", STYLE)))])
    move("b")
    import_from(file)
    file.write_text(json.dumps(both))
    assert import_from(file).updated == ("mine",)
    assert [c.trained_with for c in load(IDS)] == [(LIGHTNING,), (STYLE,)]


def test_a_faulty_record_is_refused_and_the_others_come_in(tmp_path, move):
    faulty = [record_json(schema=9), "x", record_json(id={"sha256": FILE}), changed("claims.0.role", "king")]
    file = tmp_path / "a.json"
    file.write_text(json.dumps({"schema": 1, "records": [*faulty, record_json(), record_json(claims=[])]}))
    done = import_from(file)
    assert [name for name, _ in done.refused] == ["mine", "record 2", "mine", "mine"] and done.new == ("mine",)
    assert ["schema" in done.refused[0][1], "hash" in done.refused[2][1], "king" in done.refused[3][1]] == [True] * 3
    assert done.unchanged == ("mine",) and len(load(IDS)) == 1  # the second record of the same file adds nothing


def test_import_into_a_damaged_record_is_refused_and_leaves_it(tmp_path, move):
    declare(IDS, "mine", role="style")
    file = tmp_path / "a.json"
    export_to(file)
    move("b")
    damaged_file = place(home.data_home())
    damaged_file.parent.mkdir(parents=True)
    damaged_file.write_text("{")
    assert [name for name, _ in import_from(file).refused] == ["mine"] and damaged_file.read_text() == "{"


def test_nothing_is_written_before_all_is_checked(tmp_path, move, monkeypatch):
    file = tmp_path / "a.json"
    file.write_text(json.dumps({"schema": 1, "records": [record_json(), record_json(id={"tensor_sha256": OTHER})]}))
    checked = []
    monkeypatch.setattr(lineage_exchange, "parse_record", lambda *a: checked.append(list(every())) or parse_record(*a))
    assert len(import_from(file).new) == 2 and checked == [[], []]


def test_a_single_record_can_be_imported(tmp_path, move):
    file = tmp_path / "mine.lineage.json"
    file.write_text("\ufeff" + json.dumps(record_json()), encoding="utf-8")
    assert import_from(file).new == ("mine",) and load(IDS)[0].trained_with == (LIGHTNING,)


NO_EXPORT = {"empty": "", "list": "[]", "object": "{}", "text": "nonsense", "newer": '{"schema": 2, "records": []}',
             "huge": '{"schema": 1, "records": []}' + " " * 16_000_000}  # fmt: skip


@pytest.mark.parametrize("text", NO_EXPORT.values(), ids=NO_EXPORT)
def test_a_file_without_records_is_refused_as_a_whole(text, tmp_path, pack_home):
    file = tmp_path / "a.json"
    file.write_text(text)
    with pytest.raises(FoundryError) as error:
        import_from(file)
    assert error.value.code == "lineage" and "a.json" in error.value.what and not pack_home.exists()


def test_a_missing_file_and_a_folder_are_told(tmp_path):
    for name in ("nowhere.json", ""):
        with pytest.raises(FoundryError) as error:
            import_from(tmp_path / name)
        assert error.value.code == "file"
    (tmp_path / "file").write_text("")
    with pytest.raises(FoundryError, match="cannot be written"):
        export_to(tmp_path / "file" / "x.json")
