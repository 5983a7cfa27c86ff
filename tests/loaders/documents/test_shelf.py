"""Stacks kept under a name: documents in the user's folder, and nothing outside of it."""

from __future__ import annotations

import json

import pytest
from lora_foundry.engine.errors import FoundryError
from lora_foundry.loaders.documents.document import load_document
from lora_foundry.loaders.documents.shelf import delete_stack, load_stack, save_stack, stack_names, stacks_folder

ROWS = ["plain.safetensors", {"path": "Tinte/größe.safetensors", "strength": 0.7, "solo": True, "blocks": "double=1"}]


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("LORA_FOUNDRY_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def test_what_is_saved_is_loaded_and_is_a_document():
    assert stack_names() == []
    path = save_stack("my portraits", ROWS)
    save_stack("b", [])
    assert stack_names() == ["b", "my portraits"] and load_stack("my portraits") == ROWS and load_stack("b") == []
    assert [row.on for row in load_document(path).stack] == [False, True]


def test_nothing_is_replaced_unasked():
    path = save_stack("a", ROWS)
    with pytest.raises(FoundryError, match="There is a saved stack 'a' already"):
        save_stack("a", [])
    assert load_stack("a") == ROWS
    assert save_stack("a", [], replace=True) == path and load_stack("a") == []


@pytest.mark.parametrize("name", ["", "../a", "a/b", "a\\b", "c:", ".hidden", "con", "a\0b", "x" * 300, "a.", "nul.x"])
def test_a_name_is_nothing_but_a_name(name, home):
    for act in (lambda: save_stack(name, ROWS), lambda: load_stack(name), lambda: delete_stack(name)):
        with pytest.raises(FoundryError, match="A stack cannot be called"):
            act()
    assert not home.exists() or not list(home.rglob("*.json"))


@pytest.mark.parametrize("rows", [[3], [{"strength": 1}], [{"path": "a", "strenght": 1}], ["a"] * 501])
def test_what_are_no_rows_is_not_kept(rows):
    with pytest.raises(FoundryError):
        save_stack("a", rows)
    assert stack_names() == []


def test_any_stack_document_of_the_folder_is_read_and_a_broken_one_told():
    save_stack("a", [])
    (stacks_folder() / "kit.json").write_text(
        json.dumps({"model": {"name_or_path": "x", "lora_path": "ink", "lora_weight": 0.5}})
    )
    assert load_stack("kit") == [{"path": "ink", "strength": 0.5}]
    (stacks_folder() / "broken.json").write_text('{"stack": [')
    with pytest.raises(FoundryError, match=r"broken\.json: line 1"):
        load_stack("broken")
    with pytest.raises(FoundryError, match="no saved stack 'gone'.*a, broken, kit"):
        load_stack("gone")


def test_half_a_character_is_kept_as_json_names_it():
    rows = [{"path": "x\ud800é"}, {"path": "größe", "blocks": "\udfff"}]
    save_stack("a", rows)
    assert load_stack("a") == rows


def test_rows_that_nothing_could_read_again_replace_nothing():
    save_stack("a", ROWS)
    with pytest.raises(FoundryError, match="larger than"):
        save_stack("a", [{"path": "x" * 4000}] * 300, replace=True)
    assert load_stack("a") == ROWS


def test_one_stack_goes_and_the_others_stay(tmp_path):
    kept = tmp_path / "kept.json"
    kept.write_text("{}")
    for name in ("a", "b"):
        save_stack(name, ROWS)
    (stacks_folder() / "linked.json").symlink_to(kept)
    (stacks_folder() / "folder.json").mkdir()
    delete_stack("a")
    delete_stack("linked")
    assert stack_names() == ["b", "folder"] and load_stack("b") == ROWS and kept.exists()
    for name in ("a", "folder", "gone"):
        with pytest.raises(FoundryError, match=f"no saved stack '{name}'"):
            delete_stack(name)
