"""The texts of findings: documented codes, whole sentences, blanks that are filled, and the file translators see."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from string import Formatter

import pytest
from lora_foundry.engine.findings import SEVERITIES
from lora_foundry.engine.texts.phrases import PHRASES
from lora_foundry.engine.texts.say import TEXTS, refuse, say, say_of
from make_locales import FILE, english

ROOT = Path(__file__).resolve().parents[2]
TABLES = [
    f"engine/texts/{path.name}"
    for path in sorted((ROOT / "engine" / "texts").glob("*.py"))
    if path.name not in ("__init__.py", "phrases.py", "say.py")
]
SPEAKERS = {
    "say": set(),
    "refuse": set(),
    "say_of": {"lora"},
    "say_about": {"lora"},
    "self._say": {"lora"},
    "self.refuse": {"lora"},
}  # and what each fills
SPEAKERS |= {"file_error": {"file"}, **dict.fromkeys(("document_error", "lineage_error", "evidence_error"), {"where"})}
SPEAKERS |= {"builder.refuse": {"lora"}, "builder.fit": {"lora", "tensors"}}
KEY = re.compile(r"(?:LF\d{3}|[a-z]+)\.\w+")
JOINTS = re.compile(r" (?=is\b|says\b|that is|of another|of no |the sha256)|, (?=and other)")  # of phrases put together
FIELDS = {"severity", "evidence", "subject", "node"}  # what ``say`` takes for itself
ROOMS = ("engine", "validator", "loaders", "nodes", "cli")
SOURCES = [path for folder in ROOMS for path in (ROOT / folder).rglob("*.py")]
TREES = {path.relative_to(ROOT).as_posix(): ast.parse(path.read_text(encoding="utf-8")) for path in SOURCES}
SAID = {
    node.value
    for name, tree in TREES.items()
    if not name.startswith("engine/texts/")
    for node in ast.walk(tree)
    if isinstance(node, ast.Constant) and isinstance(node.value, str)
}
every_text = pytest.mark.parametrize("key", TEXTS)


def parts_of(key: str) -> tuple[str, str, str]:
    return TEXTS[key].seen, TEXTS[key].why, TEXTS[key].fix


def blanks_of(key: str) -> set[str]:
    return {name for part in parts_of(key) for _, name, *_ in Formatter().parse(part) if name is not None}


def keys_in(tree: ast.AST) -> set[str]:
    """Every key a source writes out, wherever it stands."""
    texts = (node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str))
    return {text for text in texts if re.fullmatch(r"LF\d{3}\.\w+", text) or text in TEXTS}


def test_every_key_is_a_code_that_the_documents_explain():
    messages = (ROOT / "docs" / "messages.md").read_text(encoding="utf-8")
    explained = {word for first in re.findall(r"^\| ([^|]*) \|", messages, re.M) for word in re.findall(r"\w+", first)}
    assert all(map(KEY.fullmatch, TEXTS)) and {key.partition(".")[0] for key in TEXTS} <= explained


@every_text
def test_a_text_is_made_of_whole_sentences(key):
    assert TEXTS[key].severity in SEVERITIES
    for name, part in zip(("seen", "why", "fix"), parts_of(key), strict=True):
        assert part or name != "seen"
        assert not part or part.endswith((".", "?")) or part == "{log}", "the end of a log is as it is"
        starts = part[:1] in (part[:1].upper(), "{") or part.startswith(
            ("max_error ", "blocks: ")
        )  # the name of a setting
        assert starts and part == part.strip() and "  " not in part


@every_text
def test_blanks_are_plain_names(key):
    """No index, no format, nothing that ``say`` takes for itself; and no @ or |, which mean much to translators."""
    for part in parts_of(key):
        assert not set("@|") & set(part)
        for _, name, form, conversion in Formatter().parse(part):
            assert name is None or (name.isidentifier() and not form and not conversion and name not in FIELDS)


def test_texts_and_their_users_are_the_same():
    used = set().union(*(keys_in(tree) for name, tree in TREES.items() if name not in TABLES))
    calls = [call for tree in TREES.values() for call in ast.walk(tree) if isinstance(call, ast.Call)]
    refused = [call.args[0] for call in calls if ast.unparse(call.func) == "refuse"]
    assert used == set(TEXTS) >= {key.value for key in refused if isinstance(key, ast.Constant)}


# Errors told again with more around them: the sentence itself is that of a table.
AGAIN = {"loaders/evidence/reading.py", "loaders/lineage/store.py"}


def test_errors_are_made_of_the_tables():
    """``refuse`` makes them; a sentence in the code could not be translated, nor found by its key."""
    made = {
        name for name, tree in TREES.items() for call in ast.walk(tree)
        if isinstance(call, ast.Call) and ast.unparse(call.func) == "FoundryError"
    }  # fmt: skip
    assert made == AGAIN


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
    """(file, key, names given) of every call that writes out its key and all of its values."""
    for name, tree in TREES.items():
        for call in ast.walk(tree):
            if not isinstance(call, ast.Call) or (speaker := ast.unparse(call.func)) not in SPEAKERS:
                continue
            given = [keyword.arg for keyword in call.keywords]
            keys = set().union(*map(keys_in, call.args))
            if None not in given:
                yield from ((name, key, {*given, *SPEAKERS[speaker]}) for key in keys)


def test_who_says_something_fills_its_blanks():
    """Calls with ``**values`` are shown to do so by the tables of stacks and graphs, which go through every text."""
    calls = list(plain_calls())
    codes = {key[:3] for _, key, _ in calls if key.startswith("LF")}
    assert len(calls) >= 50 and codes == {
        "LF1",
        "LF2",
        "LF3",
        "LF4",
        "LF5",
    }
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


def test_refuse_makes_an_error_that_is_the_same_finding():
    error = refuse("LF304.strength", lora="a", strength=float("nan"))
    assert str(error) == "[LF304] a: the strength is nan. Give a number such as 0.8."
    assert error.finding("a") == say_of("a", "LF304.strength", strength="nan")
    assert refuse("LF302.twice", lora="a", count=1, modules="b").finding().severity == "error"


def test_no_code_has_its_sentence_elsewhere():
    """A bare code beside other arguments is how a finding or an error was once made on the spot."""
    made = [
        (name, call.lineno)
        for name, tree in TREES.items()
        for call in ast.walk(tree)
        if isinstance(call, ast.Call)
        for first in call.args[:1]
        if isinstance(first, ast.Constant) and re.match(r"LF\d{3}(?!\.)", str(first.value))
    ]
    assert not made, "say it with a key of engine/texts"


def test_the_engine_has_no_sentence_of_its_own():
    made = [
        (name, call.lineno)
        for name, tree in TREES.items()
        for call in ast.walk(tree)
        if name.startswith("engine/") and isinstance(call, ast.Call) and ast.unparse(call.func) == "FoundryError"
    ]
    assert not made, "refuse it with a key of engine/texts"


@pytest.mark.parametrize(("key", "values"), [("LF105.nothing", {}), ("LF105.twice", {"lora": "a"})])
def test_say_refuses_what_is_not_there(key, values):
    with pytest.raises(KeyError):
        say(key, **values)


def test_the_file_for_translators_is_up_to_date():
    assert FILE.read_text(encoding="utf-8") == english(), "run: python tests/helpers/make_locales.py"


@pytest.mark.parametrize("key", PHRASES)
def test_a_phrase_is_still_said(key):
    """Its words stand in a source, blanks apart: a translation is found by them."""
    whole = re.findall(r"[a-z][^{}]*[a-z0-9]", re.sub(r"\{\w+\}", "{}", PHRASES[key]))
    words = [part for text in whole for part in JOINTS.split(text)]
    assert words and not [part for part in words if not any(part in text for text in SAID)]
