"""Stack documents: what they mean, and that every fault is one sentence with its position."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lora_foundry.engine.errors import FoundryError
from lora_foundry.engine.plan import MATCH_TRAINING, ONCE
from lora_foundry.loaders.disk import text as text_module
from lora_foundry.loaders.documents.document import Document, Row, load_document, parse_document, parse_rows
from lora_foundry.loaders.documents.paths import resolve_path

OURS = """
base: flux1-dev.safetensors
fuse:  [{path: lightning.safetensors, strength: 1.0}]
stack:
  - {path: style.safetensors, strength: 0.7, clip_strength: 0.5, on: false}
  - other.safetensors
quantize: fp8
rounding: match training
"""

AI_TOOLKIT_ONE = """
model:
  name_or_path: black-forest-labs/FLUX.1-dev
  is_flux: true
  quantize: true
  quantize_te: true
  dtype: float16
  arch: flux
  low_vram: true
  assistant_lora_path: training_adapter.safetensors
  lora_path: /path/to/your/lora.safetensors
  lora_weight: 0.5
  lora_paths: null
"""

AI_TOOLKIT_MANY = """
job: extension
config:
  name: "x"
  process:
    - type: sd_trainer
      training_folder: output
      model:
        name_or_path: FLUX.1-dev
        lora_paths:
          - path: /models/john.safetensors
            weight: 1
          - path: s3://my-bucket/loras/style.safetensors
            weight: 0.6
meta: {version: "1.0"}
"""


def parse(text: str, where: str = "doc.yaml") -> Document:
    return parse_document(text_module.parse_text(text, where), where)


def test_our_document():
    assert parse(OURS) == Document(
        base="flux1-dev.safetensors",
        fuse=(Row("lightning.safetensors", 1.0),),
        stack=(Row("style.safetensors", 0.7, 0.5, on=False), Row("other.safetensors")),
        quantize="fp8",
        rounding=MATCH_TRAINING,
    )


def test_json_says_the_same():
    data = yaml.safe_load(OURS.replace("on:", "'on':"))
    assert parse(json.dumps(data), "doc.json") == parse(OURS)


def test_ai_toolkit_model_block():
    document = parse(AI_TOOLKIT_ONE)
    assert document.base == "black-forest-labs/FLUX.1-dev"
    assert document.stack == (Row("/path/to/your/lora.safetensors", 0.5),)
    assert (document.quantize, document.rounding, document.fuse) == ("fp8", ONCE, ())


def test_whole_ai_toolkit_config():
    document = parse(AI_TOOLKIT_MANY)
    rows = (Row("/models/john.safetensors", 1.0), Row("s3://my-bucket/loras/style.safetensors", 0.6))
    assert (document.base, document.stack, document.quantize) == ("FLUX.1-dev", rows, "none")


def test_our_keys_may_stand_beside_a_model_block():
    document = parse("model: {name_or_path: a, is_flux: true}\nfuse: [l.safetensors]\n")
    assert (document.base, document.fuse) == ("a", (Row("l.safetensors"),))


@pytest.mark.parametrize(
    ("value", "quantize"),
    [
        ("true", "fp8"),
        ("fp8", "fp8"),
        ("FP8", "fp8"),
        ("false", "none"),
        ("none", "none"),
        ("null", "none"),
        ("Auto", "auto"),
        ("'no'", None),
        ("int8", None),
        ("1", None),
        ("[fp8]", None),
    ],
)
def test_quantize(value, quantize):
    if quantize:
        assert parse(f"quantize: {value}").quantize == quantize
    else:
        with pytest.raises(FoundryError, match="quantize is .*Use true, false, none, fp8, float8_e4m3fn"):
            parse(f"quantize: {value}")


@pytest.mark.parametrize("wanted", ["refuse", "dequantize"])
def test_what_happens_to_a_quantized_base(wanted):
    assert parse("base: a").on_quantized_base == "refuse"
    assert parse(f"base: a\non_quantized_base: {wanted}").on_quantized_base == wanted
    assert parse(f"model: {{name_or_path: a, on_quantized_base: {wanted}}}").on_quantized_base == wanted


@pytest.mark.parametrize("value", ["yes", "true", "[dequantize]", "Dequantize", "{a: b}", "1"])
def test_anything_else_for_a_quantized_base_is_one_error(value):
    with pytest.raises(FoundryError, match=r"on_quantized_base is .*Use 'refuse' or 'dequantize'"):
        parse(f"base: a\non_quantized_base: {value}")
    with pytest.raises(FoundryError, match="Did you mean 'on_quantized_base'"):
        parse("base: a\non_quantised_base: dequantize")


@pytest.mark.parametrize(
    ("text", "vanilla"), [("fuse: []", True), ("fuse: none", True), ("fuse: null", False), ("base: a", False)]
)
def test_fusing_nothing_is_a_choice_only_when_written(text, vanilla):
    assert parse(text).vanilla is vanilla


def test_anchors_and_merges_are_fine():
    document = parse("fuse: [&x {path: b, strength: 0.3}]\nstack: [{<<: *x, path: a}]")
    assert document.stack == (Row("a", 0.3),)


def test_old_names_of_a_strength_work_with_a_note():
    new = "fuse: [{path: a, strength: 0.3}]\nstack: [b, {path: c, strength: 0.5, clip_strength: 0}]"
    old = parse(new.replace("strength", "weight"))
    assert replace(old, notes=()) == parse(new)
    assert old.notes == ("'weight' is called 'strength' now.", "'clip_weight' is called 'clip_strength' now.")
    assert parse_rows([{"path": "a", "weight": 0.5}], "loras") == (Row("a", 0.5),)


def test_the_words_of_ai_toolkit_need_no_note():
    assert not any(parse(text).notes for text in (AI_TOOLKIT_ONE, AI_TOOLKIT_MANY, OURS))


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


def write(folder: Path, content: str | bytes, name: str = "doc.yaml") -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_file_knows_its_folder_and_may_begin_with_a_bom(tmp_path):
    path = write(tmp_path, "\ufeff" + OURS)
    assert load_document(path).folder == tmp_path
    assert load_document(path).base == "flux1-dev.safetensors"
    assert load_document(write(tmp_path, '\ufeff{"base": "a"}', "doc.json")).base == "a"


@pytest.mark.parametrize(
    ("content", "says"),
    [(b"# " + b"x" * 1_000_000, "larger than 1000000 bytes"), (b"base: \xff", "byte 6 is not UTF-8")],
)
def test_file_that_is_no_text_or_too_much_is_refused(content, says, tmp_path):
    with pytest.raises(FoundryError, match=says):
        load_document(write(tmp_path, content))


def test_weights_in_place_of_a_document_are_named_as_such(tmp_path):
    with pytest.raises(FoundryError, match="style.safetensors: it holds weights.*stack: "):
        load_document(write(tmp_path, bytes(100), "style.safetensors"))
    with pytest.raises(FoundryError, match="not a regular file. Name the file itself"):
        load_document(tmp_path)


def test_without_pyyaml_json_works_and_yaml_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(text_module, "yaml", None)
    assert load_document(write(tmp_path, '{"base": "a"}')).base == "a"
    with pytest.raises(FoundryError, match="pip install pyyaml"):
        load_document(write(tmp_path, OURS))
    with pytest.raises(FoundryError, match="line 1: Expecting"):
        load_document(write(tmp_path, '{"base": }'))


@pytest.mark.parametrize("rows", ["", "  \n", "[]", [], None, "null"])
def test_no_rows(rows):
    assert parse_rows(rows, "loras") == ()


def test_rows_as_json_list_or_document():
    rows = (Row("a", 0.7, 0.5, on=False, blocks="double=1, in=0"), Row("b"))
    data = [
        {"path": "a", "strength": 0.7, "clip_strength": 0.5, "on": False, "blocks": " double=1, in=0\n"},
        {"path": "b", "clip_strength": None},
    ]
    assert parse_rows(data, "loras") == rows
    assert parse_rows(json.dumps(data), "loras") == rows
    assert parse_rows(json.dumps({"stack": data}), "loras") == rows
    first = "{path: a, strength: 0.7, clip_strength: 0.5, on: false, blocks: 'double=1, in=0'}"
    assert parse_rows(f"stack:\n- {first}\n- b", "loras") == rows


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ('[{"path": "a"}, {"path": "b", "strength": NaN}]', "loras: row 2: strength is 'nan'"),
        ("a.safetensors", "list of rows"),
        ('[{"path": "a", "blocks": {"double": 1}}]', "row 1: blocks is 'dict'"),
        (json.dumps([{"path": "a", "blocks": "x" * 5000}]), "row 1: blocks is 'xxx"),
        ('[{"path": ', "loras: line 1"),
        (7, "list of rows"),
        ('{"fuse": ["a"], "stack": ["b"]}', "has 'fuse' rows"),
        ('{"strength": 1}', "unknown setting 'strength'"),
    ],
)
def test_faulty_rows(rows, says):
    with pytest.raises(FoundryError, match=says):
        parse_rows(rows, "loras")


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


def test_paths_start_at_the_document_with_either_slash(tmp_path):
    (tmp_path / "loras").mkdir()
    (tmp_path / "loras" / "a.safetensors").touch()
    for name in (
        "loras/a.safetensors",
        r"loras\a.safetensors",
        "./loras/a.safetensors",
        str(tmp_path / "loras" / "a.safetensors"),
    ):
        assert resolve_path(name, tmp_path).samefile(tmp_path / "loras" / "a.safetensors")
    assert resolve_path(r"..\x\a", Path("d"), lambda path: True) == Path("d/../x/a")
    assert resolve_path("a", None, lambda path: True) == Path("a")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("styel.safetensors", "'styel.safetensors' does not exist .*Did you mean style.safetensors"),
        ("nowhere/a", "folder .* does not exist either"),
        ("s3://bucket/a.safetensors", r"lora-foundry\[s3\]"),
        ("https://x/a.safetensors", "reads local files only"),
        (r"C:\models\a.safetensors", "Windows machine"),
        (r"\\server\share\a", "Windows machine"),
        ("x" * 300, "does not exist|too long"),
        ("a\x1b[2Jb", r"a\\x1b\[2Jb"),
        ("a\0b", r"a\\x00b"),
        ("~/a", "does not exist"),
    ],
)
def test_path_that_cannot_be_resolved_says_why(name, says, tmp_path):
    (tmp_path / "style.safetensors").touch()
    with pytest.raises(FoundryError, match=says) as caught:
        resolve_path(name, tmp_path)
    assert str(caught.value).isprintable()


def test_a_document_says_whether_its_result_is_reproducible():
    assert parse("base: a").reproducible is False
    assert parse("base: a\nreproducible: true").reproducible is True
    with pytest.raises(FoundryError, match=r"reproducible is 'yes please'.*Use true or false"):
        parse("base: a\nreproducible: yes please")
