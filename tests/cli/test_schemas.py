"""The JSON that leaves is as docs/*.schema.json say, and those say what the types in engine/json_*.py do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_type_hints

import pytest
from lora_foundry.engine import json_bake, json_batch, json_demo, json_lineage, json_merge, json_types, json_verbs
from lora_foundry.engine.findings import EVIDENCE, SEVERITIES, Finding
from lora_foundry.engine.lineage import ROLES, Ingredient
from lora_foundry.engine.plan import FUSE, MATCH_TRAINING, ONCE, STACK
from lora_foundry.engine.report import CHECK_SCHEMA, SCHEMA
from lora_foundry.engine.texts.say import TEXTS
from lora_foundry.loaders.bakes.baking import CACHED, MADE, UNCHANGED
from lora_foundry.loaders.disk.header import read_header
from lora_foundry.loaders.lint.lint import lint
from lora_foundry.loaders.workflows.reading import graph_of
from make_schemas import DOCS, SCHEMAS, part_name, schema
from schemas import faults
from stack_documents import write


def test_the_schemas_are_those_of_the_types():
    for name in SCHEMAS:
        written = (DOCS / f"{name}.schema.json").read_text(encoding="utf-8")
        assert written == schema(name), "run: python tests/helpers/make_schemas.py"
    assert {path.name for path in DOCS.glob("*.schema.json")} == {f"{name}.schema.json" for name in SCHEMAS}


def test_every_type_of_json_is_in_a_schema():
    """One that is in none is documented nowhere; a part of another type is where that is."""
    parts = {part: form for name in SCHEMAS for part, form in json.loads(schema(name))["$defs"].items()}
    held = [form["properties"].keys() for form in parts.values()]
    for module in (json_types, json_bake, json_batch, json_demo, json_lineage, json_merge, json_verbs):
        for name, kind in vars(module).items():
            if name.endswith("JSON") and part_name(name) not in parts:
                assert any(get_type_hints(kind).keys() <= keys for keys in held), name


def choices(kind: type, key: str) -> tuple[object, ...]:
    """What a key of a type may be."""
    hint = get_type_hints(kind, include_extras=True)[key]
    return dict(each for each in hint.__metadata__ if isinstance(each, tuple))["enum"]


def test_choices_are_those_of_the_code():
    assert choices(json_types.FindingJSON, "severity") == SEVERITIES
    assert choices(json_types.FindingJSON, "evidence") == EVIDENCE == choices(json_lineage.AcceleratorJSON, "level")
    assert choices(json_types.PlannedJSON, "stage") == (FUSE, STACK)
    assert choices(json_types.PlannedJSON, "rounding") == (ONCE, MATCH_TRAINING)
    assert choices(json_lineage.AcceleratorJSON, "role") == ROLES
    assert choices(json_bake.BakeJSON, "state") == (MADE, UNCHANGED, CACHED)
    parts = json.loads(schema("findings"))["$defs"]
    assert [parts[part]["properties"]["schema"] for part in ("report", "lint")] == [
        {"const": SCHEMA}, {"const": CHECK_SCHEMA}
    ]  # fmt: skip


def header(path: str) -> dict:
    return json.loads(read_header(Path(path)).metadata["lora_foundry"])


@pytest.mark.parametrize("format", ["fp8", "float8_e5m2", "none"])
def test_a_bake_and_its_recipe(folder, run, format):
    write(folder, fuse=["lightning"], stack=["style", "partial"], rounding="match training")
    bake = ("bake", "stack.json", "-o", "out.safetensors", "--json", "--quantize", format)
    code, told, _ = run(*bake)
    assert code == 0 and told["findings"] and faults(told, "bake") == faults(told, "bake", "bake") == []
    again = run(*bake)[1]
    assert (told["state"], again["state"]) == ("made", "unchanged") and faults(again, "bake", "bake") == []
    assert faults(header("out.safetensors"), "bake") == faults(header("out.safetensors"), "bake", "header") == []


def test_a_bake_with_all_that_only_some_have(folder, run):
    """A budget, block weights, a base that was dequantized, several documents at once."""
    write(folder, stack=["style"], quantize="fp8")
    told = run("bake", "stack.json", "-o", "low.safetensors", "--max-error", "0.02", "--json")[1]
    assert told["budget"]["kept"] and told["files"] and faults(told, "bake", "bake") == []
    path = write(folder)
    rows = {"stack": [{"path": "style.safetensors", "blocks": "blocks.0=0.5"}]}
    path.write_text(json.dumps({**json.loads(path.read_text()), **rows}))
    assert run("bake", path, "-o", "fp8.safetensors", "--quantize", "fp8")[0] == 0
    write(folder, "fp8", stack=["style"], name="twice.json", on_quantized_base="dequantize")
    (folder / "outs").mkdir()
    code, told, _ = run("bake", path, "twice.json", "-o", "outs", "--json")
    assert code == 0 and faults(told, "bake") == faults(told, "bake", "results") == []
    made = [header(f"outs/{name}.safetensors") for name in ("stack", "twice")]
    assert "blocks" in made[0]["recipe"]["layers"][0] and "dequantized" in made[1]["recipe"]["base"]
    assert [faults(each, "bake", "header") for each in made] == [[], []]


def test_a_key_that_no_type_names_is_a_fault(folder, run):
    """The schemas are open for later versions; what this one writes is named in them."""
    told = run("check", write(folder, stack=["style"]), "--json")[1]
    assert faults(told, "findings", "document") == []
    told["loras"][0]["more"] = 1
    assert faults(told, "findings", "document") == ["document.loras.0: no key 'more'"]


def test_findings_are_as_documented(folder, run):
    _, report, _ = run("check", write(folder, fuse=["lightning"], stack=["style", "partial"]), "--json")
    assert report["findings"] and faults(report, "findings") == faults(report, "findings", "document") == []
    _, failure, _ = run("check", write(folder, stack=["nowhere"]), "--json")
    assert faults(failure, "findings") == []
    assert TEXTS
    for key, text in TEXTS.items():
        finding = Finding(key.partition(".")[0], text.severity or "note", "seen", text=key)
        assert faults(finding.to_json(), "findings", "finding") == []


def test_a_lint_is_as_documented():
    prompt = {
        "1": {"class_type": "UNETLoader", "inputs": {"unet_name": "a.safetensors", "weight_dtype": "fp8_e4m3fn"}},
        "2": {"class_type": "LoraLoaderModelOnly",
              "inputs": {"model": ["1", 0], "lora_name": "b.safetensors", "strength_model": 1.0}},
        "3": {"class_type": "KSampler", "inputs": {"model": ["2", 0], "steps": 20, "cfg": 4.0, "denoise": 1.0}},
    }  # fmt: skip
    found = lint(graph_of(prompt)).to_json()
    assert found["stacks"] and found["findings"]
    assert faults(found, "findings") == faults(found, "findings", "lint") == []


SPOILED = [
    ("findings", "finding", {"code": "XX1"}), ("findings", "finding", {"severity": "fatal"}),
    ("findings", "finding", {"evidence": "proven"}), ("findings", "finding", {"extra": 1}),
    ("findings", "finding", {"values": {"n": 1}}), ("findings", "finding", {"seen": ""}),
    ("lineage", "ingredient", {"ids": ["sha256:x"]}), ("lineage", "ingredient", {"strength": "1"}),
    ("lineage", "ingredient", {"strength": True}), ("lineage", "ingredient", {"coverage": [1]}),
    ("lineage", "ingredient", {"name": "x" * 301}), ("lineage", "ingredient", {"strength": -1e9}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "part", "change"), SPOILED, ids=lambda value: str(value)[:24])
def test_the_schemas_refuse_what_is_wrong(name, part, change):
    good = {"finding": Finding("LF101", "error", "seen"), "ingredient": Ingredient("x", (), 1.0)}[part].to_json()
    assert faults(good, name, part) == [] != faults({**good, **change}, name, part)
