"""Every fault of a stack document is one sentence with its position, whatever is read."""

from __future__ import annotations

import json

import pytest
from document_parts import parse
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lora_foundry.engine.errors import FoundryError
from lora_foundry.loaders.documents.document import Document, parse_rows

FAULTS = [
    ("stack: [a, b, {path: c, strength: abc}]", "stack row 3: strength is 'abc'"),
    ("stack: [{path: c, strength: .nan}]", "stack row 1: strength is 'nan'"),
    ("stack: [{path: c, strength: -.inf}]", "stack row 1: strength is '-inf'"),
    ("stack: [{path: c, strength: 1000000000.0}]", "Give a number from -10 to 10"),
    ("stack: [{path: c, strength: true}]", "stack row 1: strength is 'True'"),
    ("stack: [{path: c, strength: [1]}]", "stack row 1: strength is 'list'"),
    ("fuse: [{path: c, clip_strength: 11}]", "fuse row 1: clip_strength is '11'"),
    ("stack: [{strength: 1}]", "stack row 1: path is missing"),
    ("stack: [{path: '', strength: 1}]", "stack row 1: path: a file name was expected"),
    ("stack: [3]", "stack row 1: a path or settings were expected, not 3"),
    ("stack: [{path: a, strenght: 1}]", "stack row 1: unknown setting 'strenght'. Did you mean 'strength'?"),
    ("stack: [{path: a, weight: 1, strength: 1}]", "stack row 1: both 'strength' and 'weight' are given"),
    ("stack: [{path: a, on: 1}]", "stack row 1: on is '1'"),
    ("stack: [{path: a, solo: 'yes'}]", "stack row 1: solo is 'yes'"),
    ("stack: [{path: a, sole: true}]", "stack row 1: unknown setting 'sole'. Did you mean 'solo'?"),
    ("stack: [{path: a, blocks: [1, 0]}]", "stack row 1: blocks is 'list'. Write factors as text"),
    ("fuse: [{path: a, blocks: 0.5}]", "fuse row 1: blocks is '0.5'"),
    ("stack: a.safetensors", "a list of stack rows was expected, not a.safetensors"),
    ("stack: {path: a}", "a list of stack rows was expected, not dict"),
    ("lora_path: a\nlora_paths: [b]", "both 'lora_paths' and 'lora_path' are given"),
    ("model: {lora_path: a}\nstack: [b]", "both 'stack' and 'lora_path' are given"),
    ("model: {lora_path: a, lora_weight: 99}", "lora_path row 1: weight is '99'"),
    ("lora_weight: 1.0", "'lora_weight' is given without 'lora_path'"),
    ("base: a\nname_or_path: b", "both 'base' and 'name_or_path' are given"),
    ("model: {quantize: true}\nquantize: none", "'quantize' is given twice"),
    ("base: [a]", "base: a file name was expected"),
    ("base: 2024-01-01", "base: a file name was expected"),
    ('{"nodes": [], "links": [], "id": 3}', "it is a ComfyUI workflow and no stack document"),
    ('{"3": {"class_type": "KSampler", "inputs": {}}}', "it is a ComfyUI workflow and no stack document"),
    ("bsae: a", "unknown setting 'bsae'. Did you mean 'base'?"),
    ("model: {lora_pathz: [a]}", "unknown setting 'model: lora_pathz'. Did you mean 'lora_path'?"),
    ("model: 3", "model: settings were expected, not 3"),
    ("rounding: twice", "rounding is 'twice'. Use 'once' or 'match training'"),
    ("", "it is empty"),
    ("- a\n- b", "settings were expected, not list"),
    ("just words", "settings were expected, not just words"),
    ("base: a\nstack: [a\nquantize: x", "doc.yaml: line 3"),
    ("base: a\n\tstack: [a]", "line 2: found character"),
    ("base: a\nstack: [a]\nbase: b", "line 3: 'base' is listed twice"),
    ("base: !!python/object/apply:os.system [id]", "line 1: could not determine a constructor"),
    ("base: a\x07b", "special characters are not allowed"),
    ("? [a]\n: b", "unhashable key"),
    ("base: !!int ''", "holds a value that cannot be read"),
    ("base: 2024-99-99", "holds a value that cannot be read"),
    ("[" * 50_000, "nested too deeply"),
    ("- " * 50_000, "holds a value that cannot be read|nested"),
]


@pytest.mark.parametrize(("text", "says"), FAULTS, ids=[says[:40] for _, says in FAULTS])
def test_fault_is_one_sentence_with_its_position(text, says):
    with pytest.raises(FoundryError) as caught:
        parse(text)
    assert caught.value.code == "document"
    assert any(part in str(caught.value) for part in says.split("|"))
    assert str(caught.value).startswith("[document] doc.yaml: ")
    assert str(caught.value).isprintable()


def test_json_fault_has_its_line():
    with pytest.raises(FoundryError, match=r"doc\.json: line 2: Expecting"):
        parse('{"base": "a",\n "stack": }', "doc.json")
    with pytest.raises(FoundryError, match="'base' is listed twice"):
        parse('{"base": "a", "base": "b"}', "doc.json")


def doubling(line: str) -> str:
    """Fifteen lines, each naming the one before it nine times."""
    return "\n".join(line.format(this=f"k{i}", before=", ".join([f"*k{i - 1}"] * 9)) for i in range(1, 15))


BOMBS = {
    "aliases": "k0: &k0 [x, x]\n" + doubling("{this}: &{this} [{before}]"),
    "merges": "k0: &k0 {x: 1}\n" + doubling("{this}: &{this} {{<<: [{before}]}}"),
    "itself": "base: &a [*a]",
    "many values": "stack: [" + "a, " * 60_000 + "a]",
}
SAID = {"many values": "more than 20000 words and signs"}  # counted before they are values


@pytest.mark.timeout(60)  # a guard against hanging, no measurement
@pytest.mark.parametrize("name", BOMBS)
def test_bomb_is_refused(name):
    with pytest.raises(FoundryError, match=SAID.get(name, "more than 50000 values")):
        parse(BOMBS[name])


FUZZ = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just(10**400),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                ["path", "strength", "weight", "clip_strength", "on", "blocks"]
                + ["stack", "fuse", "model", "config", "process", "base"]
            )
            | st.text(max_size=4),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@FUZZ
@given(VALUES)
def test_any_data_gives_rows_in_range_or_one_error(data):
    for attempt in (data, json.dumps(data)):
        try:
            rows = parse_rows(attempt, "loras")
        except FoundryError as error:
            assert str(error).isprintable()
        else:
            assert all(-10 <= row.strength <= 10 and row.path for row in rows)


@FUZZ
@given(st.text(max_size=60) | st.text(alphabet="ab:[]{}-,&*!<>?|#'\"\n \t0.~", max_size=40))
def test_any_text_is_a_document_or_one_error(text):
    try:
        assert isinstance(parse(text), Document)
    except FoundryError as error:
        assert str(error).isprintable()
