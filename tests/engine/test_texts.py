"""The texts of findings: documented codes, whole sentences, blanks that are filled, and the file translators see."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from string import Formatter

import pytest
from lora_foundry.engine.findings import SEVERITIES
from lora_foundry.engine.texts.say import TEXTS, say
from make_locales import FILE, english

ROOT = Path(__file__).resolve().parents[2]
TABLES = [f"engine/texts/lf{hundred}.py" for hundred in (1, 2, 3, 4)]
KEY = re.compile(r"LF\d{3}\.\w+")
FIELDS = {"severity", "evidence", "subject", "node"}  # what ``say`` takes for itself
ROOMS = ("engine", "validator", "loaders", "nodes", "cli")
SOURCES = [path for folder in ROOMS for path in (ROOT / folder).rglob("*.py")]
TREES = {path.relative_to(ROOT).as_posix(): ast.parse(path.read_text(encoding="utf-8")) for path in SOURCES}
every_text = pytest.mark.parametrize("key", TEXTS)


def parts_of(key: str) -> tuple[str, str, str]:
    return TEXTS[key].seen, TEXTS[key].why, TEXTS[key].fix


def blanks_of(key: str) -> set[str]:
    return {name for part in parts_of(key) for _, name, *_ in Formatter().parse(part) if name is not None}


def keys_in(tree: ast.AST) -> set[str]:
    """Every key a source writes out, wherever it stands."""
    texts = (node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str))
    return {text for text in texts if KEY.fullmatch(text)}


def test_every_key_is_a_code_that_the_documents_explain():
    messages = (ROOT / "docs" / "messages.md").read_text(encoding="utf-8")
    explained = set(re.findall(r"^\| (LF\d{3}) \|", messages, re.M))
    assert all(map(KEY.fullmatch, TEXTS)) and {key.partition(".")[0] for key in TEXTS} <= explained


@every_text
def test_a_text_is_made_of_whole_sentences(key):
    assert TEXTS[key].severity in SEVERITIES
    for name, part in zip(("seen", "why", "fix"), parts_of(key), strict=True):
        assert part or name != "seen"
        assert not part or part.endswith((".", "?"))
        assert part == part.strip() and "  " not in part and part[:1] in (part[:1].upper(), "{")


@every_text
def test_blanks_are_plain_names(key):
    """No index, no format, nothing that ``say`` takes for itself; and no @ or |, which mean much to translators."""
    for part in parts_of(key):
        assert not set("@|") & set(part)
        for _, name, form, conversion in Formatter().parse(part):
            assert name is None or (name.isidentifier() and not form and not conversion and name not in FIELDS)


def test_texts_and_their_users_are_the_same():
    used = set().union(*(keys_in(tree) for name, tree in TREES.items() if name not in TABLES))
    assert used == set(TEXTS)


def test_no_key_is_written_twice():
    written = [
        node.value
        for name in TABLES
        for dictionary in ast.walk(TREES[name])
        if isinstance(dictionary, ast.Dict)
        for node in dictionary.keys
        if isinstance(node, ast.Constant)
    ]
    assert len(written) == len(set(written)) == len(TEXTS)


def plain_calls():
    """(file, key, names given) of every ``say`` that writes out its key and all of its values."""
    for name, tree in TREES.items():
        for call in ast.walk(tree):
            if not isinstance(call, ast.Call) or ast.unparse(call.func) != "say" or not call.args:
                continue
            given = [keyword.arg for keyword in call.keywords]
            if None not in given:
                yield from ((name, key, set(given)) for key in keys_in(call.args[0]))


def test_who_says_something_fills_its_blanks():
    """Calls with ``**values`` are shown to do so by the tables of stacks and graphs, which go through every text."""
    calls = list(plain_calls())
    assert len(calls) >= 5
    assert not [(name, key) for name, key, given in calls if given - FIELDS != blanks_of(key)]


def test_say_fills_in_and_remembers():
    about = {"severity": "note", "evidence": "guessed", "subject": "a", "node": "3"}
    finding = say("LF105.twice", lora="{x}", first=1, second="2", **about)
    assert finding.seen == "{x} is fused twice: at 1 and at 2."
    assert (finding.code, finding.severity, finding.evidence, finding.subject, finding.node) == (
        "LF105", "note", "guessed", "a", "3",
    )  # fmt: skip
    assert (finding.text, dict(finding.values)) == ("LF105.twice", {"lora": "{x}", "first": "1", "second": "2"})
    assert say("LF105.twice", lora="a", first=1, second=2).severity == "error"


@pytest.mark.parametrize(("key", "values"), [("LF105.nothing", {}), ("LF105.twice", {"lora": "a"})])
def test_say_refuses_what_is_not_there(key, values):
    with pytest.raises(KeyError):
        say(key, **values)


def test_the_file_for_translators_is_up_to_date():
    assert FILE.read_text(encoding="utf-8") == english(), "run: python tests/helpers/make_locales.py"
