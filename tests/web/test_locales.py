"""The names that people read: the same in every language's files, and found by what people type."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import Any

import pytest

LANGUAGES = ["de", "ja", "zh"]
TRANSLATED = re.compile(r"LF(?:10|20|30|40)\d\.|convert\.")  # what a check of a workflow says, and its conversion
ENGLISH = re.compile(r"LF304\.")  # damaged and unfit files in all their kinds
PERCENT = re.compile(r"\d+(?:\.\d+)?%")
TYPED = ["lightning", "turbo", "merge lora", "power lora", "fp8", "trigger", "weights"]


def leaves(data: dict[str, Any], way: tuple[str, ...] = ()) -> dict[tuple[str, ...], str]:
    """Each text of a locale file by the keys on the way to it."""
    found = {}
    for key, value in data.items():
        found |= leaves(value, (*way, key)) if isinstance(value, dict) else {(*way, key): value}
    return found


def texts(root: Path, language: str, name: str) -> dict[tuple[str, ...], str]:
    return leaves(json.loads((root / "locales" / language / f"{name}.json").read_text(encoding="utf-8")))


@pytest.mark.parametrize("name", ["nodeDefs", "commands", "settings"])
@pytest.mark.parametrize("language", LANGUAGES)
def test_every_language_says_what_english_says(root: Path, language: str, name: str) -> None:
    english, other = texts(root, "en", name), texts(root, language, name)
    assert list(other) == list(english) and all(other.values())


@pytest.mark.parametrize("name", ["nodeDefs", "commands", "settings"])
@pytest.mark.parametrize("language", ["en", *LANGUAGES])
def test_no_text_holds_what_the_frontend_reads_as_a_command(root: Path, language: str, name: str) -> None:
    """Braces, @ and | are blanks, links and plurals there: such a text comes out empty or broken."""
    assert not [text for text in texts(root, language, name).values() if set(text) & set("{}@|")]


def test_commands_and_settings_are_those_that_are_registered(root: Path) -> None:
    source = (root / "web" / "foundry.js").read_text(encoding="utf-8")
    for name, block in (("commands", r"commands: \[(.*?)\n  \],"), ("settings", r"settings: \[(.*?)\n  \],")):
        ids = re.findall(r'\bid: "([\w.]+)"', re.search(block, source, re.DOTALL)[1])
        assert {way[0] for way in texts(root, "en", name)} == {each.replace(".", "_") for each in ids}
    english = texts(root, "en", "commands") | texts(root, "en", "settings")
    assert all(f'"{text}"' in source for text in english.values())


def words_of_nodes(root: Path) -> dict[str, tuple[list[str], str]]:
    """Node class -> (its aliases, its name and description in English)."""
    english = json.loads((root / "locales" / "en" / "nodeDefs.json").read_text(encoding="utf-8"))
    found = {}
    for path in (root / "nodes").glob("*.py"):
        for kind in ast.parse(path.read_text(encoding="utf-8")).body:
            if not isinstance(kind, ast.ClassDef) or kind.name not in english:
                continue
            values = {
                target.id: line.value
                for line in kind.body
                if isinstance(line, ast.Assign)
                for target in line.targets
                if isinstance(target, ast.Name)
            }
            told = english[kind.name]
            aliases = ast.literal_eval(values["SEARCH_ALIASES"])
            found[kind.name] = (aliases, f"{told['display_name']} {told['description']}".lower())
    assert found.keys() == english.keys()
    return found


@pytest.mark.parametrize("typed", TYPED)
def test_what_people_type_finds_us_where_the_host_has_aliases_and_in_descriptions(root: Path, typed: str) -> None:
    nodes = words_of_nodes(root).values()
    assert any(typed in alias for aliases, _ in nodes for alias in aliases)
    assert any(typed in text for _, text in nodes)


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_word_of_the_page_is_translated_with_its_blanks(root: Path, language: str) -> None:
    """Findings that are not translated yet stay English; nothing is there that English does not have."""
    english, other = texts(root, "en", "main"), texts(root, language, "main")

    def words(told: dict[tuple[str, ...], str]) -> list[tuple[str, ...]]:
        return [way for way in told if way[1] == "ui"]

    assert words(other) == words(english) and all(other.values()) and set(other) <= set(english)
    blanks = re.compile(r"\{\w+\}")
    assert [way for way in other if way[1] != "ui"] == [way for way in english if way in other and way[1] != "ui"]
    assert not [way for way, text in other.items() if set(blanks.findall(text)) != set(blanks.findall(english[way]))]


@pytest.mark.parametrize("language", LANGUAGES)
def test_what_a_check_of_a_workflow_says_is_translated_whole_with_its_numbers(root: Path, language: str) -> None:
    """A new sentence of these codes needs all languages; the others may stay English."""
    english, other = texts(root, "en", "main"), texts(root, language, "main")
    wanted = [way for way, text in english.items() if TRANSLATED.match(way[2]) and not ENGLISH.match(way[2]) and text]
    assert len(wanted) > 300 and not [way for way in wanted if way not in other]
    numbers = {way: sorted(PERCENT.findall(english[way])) for way in wanted}
    assert not [way for way in wanted if sorted(PERCENT.findall(other[way])) != numbers[way]]
    assert not [way for way in wanted if other[way] == english[way] and way[3] != "seen"]
