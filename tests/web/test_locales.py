"""The names that people read: the same in every language's files, and found by what people type."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import Any

import pytest

LANGUAGES = ["de", "ja", "zh"]
ENGLISH = ("cli/", "loaders/batches/")  # what only they say is read in a terminal
KEY = re.compile(r'"((?:LF\d{3}|[a-z]+)\.\w+)"')
VERBS = {"Merge LoRAs", "Extract LoRA"}  # node names that are also what one does
STAGE = re.compile(r"(?<!\S)[123](?= [A-Z]\w)")
BLANKS = re.compile(r"\{\w+\}")
PERCENT = re.compile(r"\d+(?:[.,]\d+)?%")  # with the comma of German
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


def spoken_in_graphs(root: Path) -> set[str]:
    """Keys of texts that more than the command line says: they are written out where they are said."""
    found = set()
    for room in ("engine", "validator", "loaders", "nodes"):
        for path in (root / room).rglob("*.py"):
            name = path.relative_to(root).as_posix()
            if not name.startswith(("engine/texts/", *ENGLISH)):
                found |= set(KEY.findall(path.read_text(encoding="utf-8")))
    return found


@pytest.mark.parametrize("language", LANGUAGES)
def test_what_the_browser_can_meet_is_translated(root: Path, language: str) -> None:
    """Words of the page, findings, and errors that stop a run; a new sentence of them needs all languages."""
    english, other, spoken = texts(root, "en", "main"), texts(root, language, "main"), spoken_in_graphs(root)
    wanted = [way for way, text in english.items() if text and (way[1] != "findings" or way[2] in spoken)]
    assert len(wanted) > 1300 and not [way for way in wanted if way not in other]
    assert list(other) == [way for way in english if way in other] and all(other.values())


@pytest.mark.parametrize("language", LANGUAGES)
def test_translations_keep_blanks_and_numbers_and_are_no_copies(root: Path, language: str) -> None:
    english, other = texts(root, "en", "main"), texts(root, language, "main")

    def kept(text: str) -> tuple[list[str], list[str]]:
        return sorted(BLANKS.findall(text)), sorted(number.replace(",", ".") for number in PERCENT.findall(text))

    assert not [way for way, text in other.items() if kept(text) != kept(english[way])]
    copies = {
        way[2:]
        for way, text in other.items()
        if way[1] != "ui" and text == english[way] and re.search("[a-z]{3}", BLANKS.sub("", text))
    }
    assert not copies


@pytest.mark.parametrize("name", ["main", "nodeDefs"])
@pytest.mark.parametrize("language", LANGUAGES)
def test_nodes_have_the_names_that_stand_on_them(root: Path, language: str, name: str) -> None:
    """A stage by its number; a node whose whole name stands in English, by the name it has in that language."""

    def named(told: str) -> dict[str, str]:
        defs = json.loads((root / "locales" / told / "nodeDefs.json").read_text(encoding="utf-8"))
        return {kind: each["display_name"] for kind, each in defs.items()}

    english, other, (ours, theirs) = texts(root, "en", name), texts(root, language, name), map(named, ("en", language))
    assert not [way for way, text in other.items() if not set(STAGE.findall(english[way])) <= set(text)]
    long = [kind for kind in ours if " " in ours[kind] and ours[kind] not in VERBS]
    assert not [
        (way, kind)
        for way, text in other.items()
        for kind in long
        if ours[kind] in english[way] and theirs[kind] not in text
    ]
