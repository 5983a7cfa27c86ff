"""Stack documents and rows: what they mean."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import yaml
from document_parts import OURS, parse
from lora_foundry.engine.errors import FoundryError
from lora_foundry.engine.plan import MATCH_TRAINING, ONCE
from lora_foundry.loaders.documents.document import Document, Row, parse_rows

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


def test_a_document_says_whether_its_result_is_reproducible():
    assert parse("base: a").reproducible is False
    assert parse("base: a\nreproducible: true").reproducible is True
    with pytest.raises(FoundryError, match=r"reproducible is 'yes please'.*Use true or false"):
        parse("base: a\nreproducible: yes please")


@pytest.mark.parametrize(
    ("rows", "on"),
    [
        ([{"solo": True}, {}, {"on": False}], [True, False, False]),
        ([{"solo": True}, {}, {"solo": True}], [True, False, True]),
        ([{"solo": True, "on": False}, {}], [False, True]),
        ([{"solo": True, "on": False}, {"solo": True}, {}], [False, True, False]),
        ([{"solo": False}, {}], [True, True]),
    ],
)
def test_where_a_row_that_is_on_has_solo_the_others_are_off(rows, on):
    named = [{"path": f"{at}", **row} for at, row in enumerate(rows)]
    for text in (json.dumps(named), json.dumps({"lora_paths": named}), named):
        assert [row.on for row in parse_rows(text, "loras")] == on
    document = parse(yaml.safe_dump({"fuse": ["base"], "stack": named}))
    assert [row.on for row in document.stack] == on and document.fuse[0].on  # each list for itself
