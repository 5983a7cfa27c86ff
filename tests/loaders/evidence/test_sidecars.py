"""Sidecars: strengths are recommendations, hashes are claims, a base's name is no training."""

from __future__ import annotations

import hashlib
import json

import pytest
from lora_foundry.engine.lineage import DECLARED, GUESSED, Contained, Ingredient
from lora_foundry.loaders.evidence.sidecars import contained_from_fusion_metadata, read_json


def manager(tips: object, sha256: object = "a" * 64):
    text = tips if isinstance(tips, str) else json.dumps(tips)
    return read_json(json.dumps({"base_model": "SDXL Lightning", "sha256": sha256, "usage_tips": text}), "x")


@pytest.mark.parametrize(
    ("tips", "strength"),
    [
        ({"strength": 0.8}, (0.8, 0.8)),
        ({"strength": "0.8"}, (0.8, 0.8)),
        ({"strength_min": 0.6, "strength_max": 1, "strength": 0.8}, (0.6, 1.0)),
        ({"strengthMin": 1.2, "strengthMax": 0.4}, (0.4, 1.2)),
        ({"strength_range": "0.6 - 0.9"}, (0.6, 0.9)),
        ({"strengthMin": 0.5}, (0.5, 0.5)),
    ],
)
def test_lora_manager_strengths(tips, strength):
    (statement,) = manager(tips)
    assert statement.claim.strength == strength
    assert statement.claim.trained_with is None and statement.claim.evidence.level == GUESSED
    assert statement.sha256 == "a" * 64


@pytest.mark.parametrize(
    "tips", ["", "{}", "[1]", "{", *({"strength": junk} for junk in (None, "x", 0, 1e9, [1], True))]
)
def test_no_strength_no_claim(tips):
    assert manager(tips) == []


def test_hashes_of_sidecars_are_checked():
    assert manager({"strength": 1}, "A" * 64)[0].sha256 == "a" * 64
    for junk in (None, 5, "a" * 63, hashlib.sha256(b"").hexdigest()):
        assert manager({"strength": 1}, junk)[0].sha256 == ""


def test_a1111_weight():
    (statement,) = read_json('{"preferred weight": 0.7, "notes": "use with Lightning"}', "x.json")
    assert statement.claim.strength == (0.7, 0.7) and statement.claim.trained_with is None
    assert read_json('{"preferred weight": 0}', "x.json") == []


@pytest.mark.parametrize(
    "entries",
    [{"baseModel": "SDXL Lightning"}, {"baseModel": "ZImageTurbo", "files": []}, {"model": {"type": "LORA"}}, {}],
)
def test_a_base_model_is_no_role_and_no_training(entries):
    assert read_json(json.dumps(entries), "x.civitai.info") == []


def fusion(folder, **changes):
    entries = {
        "base_model": "Qwen/Qwen-Image-Edit", "lora_path": "./m/L.safetensors", "lora_alpha": 1.0,
        "target_model": "dit", "num_updated_tensors": 720, "save_precision": "bf16", "is_lightning_lora": True,
        "saved_files": [["transformer", "./o/transformer.safetensors"], ["vae", "o\\vae.safetensors"]],
    }  # fmt: skip
    (folder / "fusion_metadata.json").write_text(json.dumps({**entries, **changes}))


def test_fusion_metadata(tmp_path):
    base = tmp_path / "transformer.safetensors"
    base.write_bytes(b"")
    assert contained_from_fusion_metadata(base) == ()
    fusion(tmp_path)
    inside = (Contained(Ingredient("./m/L.safetensors", strength=1.0), DECLARED, "fusion_metadata.json"),)
    assert contained_from_fusion_metadata(base) == contained_from_fusion_metadata(tmp_path) == inside
    other = tmp_path / "other.safetensors"
    other.write_bytes(b"")
    assert contained_from_fusion_metadata(other) == ()
    fusion(tmp_path, num_updated_tensors=0)
    assert contained_from_fusion_metadata(base) == ()
    fusion(tmp_path, num_updated_tensors=None)  # its loader for standard files counts nothing
    assert contained_from_fusion_metadata(base) == inside
    for junk in (b"[]", b"{", b"\xff", b"[" * 100_000, b" " * 2_000_000):
        (tmp_path / "fusion_metadata.json").write_bytes(junk)
        assert contained_from_fusion_metadata(base) == ()
