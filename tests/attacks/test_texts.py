"""Texts that take longer to read than to write: documents, lists in nodes, what trainers leave."""

from __future__ import annotations

import json
import re
from contextvars import copy_context

import pytest
from limits import calling, within
from lora_foundry.engine.errors import FoundryError
from lora_foundry.loaders.disk import text as text_module
from lora_foundry.loaders.disk.process import MOST_TOGETHER, PROMPT, Budget
from lora_foundry.loaders.disk.text import MAX_NODE_TEXT, MAX_TEXT, parse_text
from lora_foundry.loaders.documents.document import load_document, parse_rows
from lora_foundry.loaders.evidence.configs import read_readme, read_yaml

pytestmark = pytest.mark.timeout(120)  # a guard against hanging, no measurement

FLOODS = {  # what it begins with, and what it goes on with
    "a list of a": ("[", "a,"),
    "a list of texts": ("[", '["a" ,'),
    "a list of mappings": ("[", "{a: b},"),
    "lines": ("", "- a\n"),
    "keys": ("", "a: b\n"),
    "brackets": ("", "["),
    "braces": ("", "{a: "),
    "dashes": ("", "- "),
    "questions": ("", "? "),
    "anchors": ("", "&a "),
    "comments": ("", "# a\n"),
    "blank lines": ("", "\n"),
    "documents": ("", "---\n"),
    "one word": ("", "a"),
    "one quote": ('"', "a"),
    "escapes": ('"', "\\n"),
    "a literal": ("a: |\n", " a\n"),
    "tags": ("[", "!!int 1,"),
    "aliases": ("[&a a,", "*a,"),
}


def flood(name: str, size: int) -> str:
    """``size`` characters of a kind."""
    head, unit = FLOODS[name]
    return head + unit * ((size - len(head)) // len(unit))


@pytest.mark.parametrize("name", ["a list of a", "brackets", "blank lines", "one word", "a literal"])
def test_a_megabyte_of(name):
    with calling(25_000_000):
        try:
            parse_text(flood(name, MAX_TEXT), "loras")
        except FoundryError as error:
            assert error.code == "document" and len(str(error)) < 600  # noqa: PT017 (some are documents)


def test_brackets_in_brackets():
    """PyYAML looks at all open ones again for each token: 4 KB of them took more than a second."""
    assert parse_text("[" * 60 + "a" + "]" * 60, "loras")
    with pytest.raises(FoundryError, match="nested too deeply"):
        parse_text(("[" * 400 + "]" * 400 + ",") * 10, "loras")
    with pytest.raises(FoundryError, match="nested too deeply"):
        parse_text("- " * 5000, "loras")


@pytest.mark.parametrize("name", FLOODS)
def test_sixty_four_kilobytes_in_a_node_of(name):
    with calling(5_500_000):
        try:
            parse_rows(flood(name, MAX_NODE_TEXT), "loras")
        except FoundryError as error:
            assert error.code == "document"  # noqa: PT017


def test_a_node_text_of_a_megabyte():
    with within(0.1), pytest.raises(FoundryError, match="longer than 64000 characters"):
        parse_rows("[" + "a," * 500_000, "loras")


def test_a_document_may_be_a_megabyte(tmp_path):
    path = tmp_path / "stack.json"
    path.write_text(json.dumps({"base": "a", "stack": ["a" * 2000] * 490}))
    assert len(load_document(path).stack) == 490


@pytest.mark.parametrize("number", ["1:30", "190:20:30", "-1:1", "1:30.5", "010", "-010", "+07", "0_7", "00"])
def test_a_number_that_people_read_otherwise_is_text(number):
    """In base 60, or in base 8: a strength of 010 is meant as 10, or as 0.10, and never as 8."""
    assert parse_text(f"a: {number}", "loras") == {"a": number}
    with pytest.raises(FoundryError, match=re.escape(f"weight is '{number}'")):
        parse_rows(f"[{{path: a, weight: {number}}}]", "loras")


@pytest.mark.parametrize("tag", ["!!int", "!!float"])
def test_a_sexagesimal_of_a_megabyte(tag):
    with calling(4_500_000), pytest.raises(FoundryError, match="base 60"):
        parse_text(f"a: {tag} 1" + ":1" * 490_000, "loras")


@pytest.mark.parametrize("number", ["010", "-0_7", "+00"])
def test_no_number_in_base_8_is_named_as_one(number):
    with pytest.raises(FoundryError, match="base 8"):
        parse_text(f"a: !!int {number}", "loras")


@pytest.mark.parametrize(("text", "value"), [
    ("1", 1), ("-3", -3), ("0", 0), ("0x1F", 31), ("0b11", 3), ("1_000", 1000), ("1.5", 1.5),
    ("-1.e+3", -1e3), (".5", 0.5), ("1e3", "1e3"), ("on", True), ("~", None), ("1.2.3", "1.2.3"), ("0.7 ", 0.7),
    ("!!int 12", 12), ("!!float 1", 1.0), ("!!float 010", 10.0), ("089", "089"), ("00.5", 0.5),
])  # fmt: skip
def test_other_numbers_are_what_they_were(text, value):
    assert parse_text(f"a: {text}", "loras") == {"a": value}


def test_a_text_is_parsed_once_a_queue(monkeypatch):
    """Validation, IS_CHANGED and the run ask for the same rows."""
    asked = []
    monkeypatch.setattr(text_module, "_parse_yaml", lambda *given: asked.append(given) or ["x"])
    for _ in range(3):
        assert [row.path for row in parse_rows("- x # once", "loras")] == ["x"]
    assert len(asked) == 1


def test_hundreds_of_texts_in_one_prompt():
    """Each is within its limit, and together they took the server's own thread for minutes."""

    def check(prompt: Budget) -> int:
        PROMPT.set(prompt)
        refused = 0
        for number in range(300):
            try:
                parse_rows(f"# {number}\n" + "- a\n" * 500, "loras")
            except FoundryError as error:
                refused += 1
                assert f"more than {MOST_TOGETHER} words, signs and rows together" in str(error)  # noqa: PT017
        return refused

    prompt = Budget()
    with calling(6_000_000):
        refused = copy_context().run(check, prompt)
    assert 250 < refused < 300 and prompt.left < 0
    assert PROMPT.get() is None  # other requests, and the run itself, are not limited together
    assert len(parse_rows("# again\n" + "- a\n" * 500, "loras")) == 500


@pytest.mark.parametrize("read", [read_yaml, read_readme])
def test_evidence_of_a_hundred_thousand_characters(read):
    with calling(4_500_000):
        try:
            read("---\n" + flood("a list of a", 90_000), "config")
        except FoundryError as error:
            assert error.code in ("document", "evidence")  # noqa: PT017
