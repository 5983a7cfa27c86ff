"""The report: JSON for programs, sentences for people, both of the same facts."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from fakes import A_B, Collected, a_layer, a_plan, noise, random_delta
from lora_foundry.engine.bake import BakeReport, bake
from lora_foundry.engine.findings import Finding
from lora_foundry.engine.finish import Finish
from lora_foundry.engine.lineage import Claim, Contained, Evidence, Ingredient, Lineage
from lora_foundry.engine.plan import FUSE, MATCH_TRAINING, Coverage
from lora_foundry.engine.report import (
    bake_json,
    bake_sentence,
    layer_json,
    layer_sentence,
    layers_json,
    plan_json,
    plan_sentences,
)

W, V = "blocks.0.q.weight", "blocks.1.q.weight"
WARNING = Finding("LF302", "warning", "half matched", "why", "fix", subject="style.safetensors")


def light(**more):
    both = [random_delta(name, (64, 64), 16, 0.001, 1, 2.0) for name in (W, V)]
    return a_layer(both, 1.0, FUSE, "lightning.safetensors", **more)


def style(strength=0.7):
    layer = a_layer([random_delta(W, (64, 64), 4, 0.001, 2, a) for a in (None, 2.0)], strength)
    return replace(layer, coverage=Coverage(3, 2, (("blocks.9.q", "no weight of this name"),), 5))


def a_case(*layers):
    return a_plan({W: noise((64, 64), 0.02, 1), V: noise((64, 64), 0.02, 2)}, *layers, family="wan")


def test_a_lora_as_data():
    data = layer_json(style(), 0.98)
    assert data == {
        "path": "style.safetensors", "sha256": style().lora.sha256, "stage": "stack", "weight": 0.7, "rounding": "once",
        "dialect": "down/up", "family": None, "modules": 3, "matched": 2, "text_encoder": 5,
        "unmatched": [{"module": "blocks.9.q", "reason": "no weight of this name"}],
        "lost": 0.0, "scale": [pytest.approx(0.35), pytest.approx(0.7)], "gain": 0.98,
        "lineage": {"level": "unknown", "trained_with": None, "use_with": None, "role": "unknown", "accelerator": None},
    }  # fmt: skip


def test_gains_go_with_their_loras_and_may_be_missing():
    plan = a_case(light(), style())
    assert [row["gain"] for row in layers_json(plan)] == [None, None]
    assert [row["gain"] for row in layers_json(plan, [0.5])] == [0.5, None]
    assert [(row["path"], row["gain"]) for row in layers_json(plan, [None, 1.0])][1] == ("style.safetensors", 1.0)


def test_a_plan_as_data():
    data = json.loads(json.dumps(plan_json(a_case(light(), style()), [WARNING])))
    assert data["base"] == {"name": "base.safetensors", "family": "wan", "vanilla": False, "contains": []}
    assert data["schema"] == 1
    assert [row["stage"] for row in data["loras"]] == ["fuse", "stack"]
    assert data["findings"] == [WARNING.to_json()]


def test_a_bake_as_data_has_what_the_command_line_promises():
    plan = a_case(light(), style())
    report = bake(plan, Finish("float8_e4m3fn"), Collected())
    data = json.loads(json.dumps(bake_json(plan, [WARNING], report, "ab" * 32)))
    promised = "tensors touched quantized loras findings seconds bytes_read bytes_written peak_rss_bytes recipe_sha256"
    assert set(promised.split()) <= set(data)
    assert {"path", "stage", "weight", "dialect", "modules", "matched", "unmatched", "gain"} <= set(data["loras"][0])
    assert (data["tensors"], data["touched"], data["quantized"], data["recipe_sha256"]) == (2, 2, 2, "ab" * 32)
    assert [row["gain"] for row in data["loras"]] == report.gains and None not in report.gains
    assert "gains" not in data


def test_one_sentence_per_lora():
    assert layer_sentence(style(), 0.98765) == (
        "stacked style.safetensors x 0.7: 2 of 3 modules, effective scale 0.35 to 0.7, 98.8% of the effect kept"
    )
    assert layer_sentence(light()) == "fused lightning.safetensors x 1: 2 of 2 modules, effective scale 0.125"
    assert layer_sentence(light(rounding=MATCH_TRAINING)).endswith("effective scale 0.125, rounded as in training")


TURBO = Ingredient("turbo.safetensors")


@pytest.mark.parametrize(
    "trained, words",
    [((TURBO,), ", trained with turbo.safetensors (declared)"), ((), ", trained with no base LoRA (declared)")],
)
def test_what_is_known_of_the_training_is_told(trained, words):
    known = Lineage(claims=(Claim(Evidence("declared", "a person"), trained),))
    assert layer_sentence(replace(style(), lineage=known)).endswith(words)
    told = layer_json(replace(style(), lineage=known))["lineage"]
    assert (told["level"], told["trained_with"]) == ("declared", [each.name for each in trained])


def test_what_is_inside_the_base_is_told():
    plan = a_case(style())
    plan = replace(plan, base=replace(plan.base, contains=(Contained(TURBO, "derived", "a record"),)))
    assert plan_json(plan, [])["base"]["contains"] == ["turbo.safetensors"]
    assert "base base.safetensors (wan), turbo.safetensors inside" in plan_sentences(plan, [])


def test_the_scale_shown_is_the_scale_used():
    """The general trainer ignores alpha: 'match training' then really adds strength, not strength * alpha / rank."""
    general = light(rounding=MATCH_TRAINING, suffixes=A_B)
    assert layer_json(general)["scale"] == [1.0, 1.0]
    assert "effective scale 1, rounded as in training" in layer_sentence(general)


def test_a_lora_that_reaches_nothing_has_no_scale():
    empty = replace(style(), patches=())
    assert layer_json(empty)["scale"] is None and "effective scale" not in layer_sentence(empty)


def test_a_plan_in_sentences():
    plan = a_case(light(), style())
    lines = plan_sentences(plan, [WARNING], [1.0, None])
    assert lines[0] == "LF302 warning: half matched why fix" and lines[1] == "base base.safetensors (wan)"
    assert lines[2].endswith("100.0% of the effect kept") and "kept" not in lines[3] and len(lines) == 4
    assert plan_sentences(plan, [])[0] == "No findings."


def test_the_explicit_choice_of_no_base_lora_is_told():
    plan = replace(a_plan({W: torch.zeros(16, 16)}), vanilla=True)
    assert plan_sentences(plan, [])[1] == "base base.safetensors (unknown family), no base LoRA by choice"
    assert plan_json(plan, [])["base"]["vanilla"] is True


def test_a_bake_in_a_sentence():
    report = BakeReport(40, 12, 10, bytes_read=3_200_000, bytes_written=1_600_000, seconds=0.12)
    assert bake_sentence(report) == "12 of 40 tensors changed, 10 quantized, 3.2 MB read, 1.6 MB written, 0.1 s"
    report.relative_error = 0.0265
    assert "10 quantized, weights off by 2.65% (31.5 dB), 3.2 MB read" in bake_sentence(report)
