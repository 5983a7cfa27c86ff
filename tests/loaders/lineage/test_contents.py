"""What is known to be inside a base: our own bakes, workflows, merge tools and people tell."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from lora_foundry.cli.demo import tiny
from lora_foundry.engine.blueprint import blueprint
from lora_foundry.engine.finish import Finish
from lora_foundry.engine.lineage import (  # fmt: skip
    BY_USER,
    DECLARED,
    DERIVED,
    GUESSED,
    LINEAGE_KEY,
    Contained,
)
from lora_foundry.engine.plan import FUSE, STACK, Base, Plan
from lora_foundry.loaders.bases.checkpoint import open_checkpoint
from lora_foundry.loaders.bases.dequantize import Dequantized
from lora_foundry.loaders.disk.header import read_header
from lora_foundry.loaders.disk.process import PROCESS
from lora_foundry.loaders.disk.source import base_fingerprint
from lora_foundry.loaders.lineage import contents
from lora_foundry.loaders.lineage.contents import OWN, RECIPE, WORKFLOW, base_ids, contained_in
from lora_foundry.loaders.lineage.identity import identify_file
from lora_foundry.loaders.lineage.store import declare
from lora_foundry.loaders.loras.file import open_lora
from lora_foundry.loaders.names.lookup import BaseNames
from lora_foundry.loaders.plans.planner import make_layer
from provenance_parts import BASE, KNOWN, KNOWN_ID, LIGHTNING, a_base
from safetensors.torch import save_file


def contained(path: Path) -> tuple[Contained, ...]:
    return contained_in(open_checkpoint(path))


def inside(path: Path) -> list[tuple]:
    return [(each.ingredient.name, each.ingredient.strength, each.level, each.source) for each in contained(path)]


@pytest.fixture
def base(tmp_path) -> Path:
    return a_base(tmp_path / "base.safetensors")


def made_by_us(tmp_path: Path, base: Path) -> dict[str, str]:
    """``__metadata__`` of a bake with one fused and one stacked LoRA, and one at strength 0."""
    model = open_checkpoint(base)
    plan = Plan(Base(base.name, "wan", model))
    for name, stage, strength in (("accelerate", FUSE, 1.0), ("style", STACK, 0.5), ("off", STACK, 0.0)):
        path = tmp_path / f"{name}.safetensors"
        save_file(tiny.lora(BASE, rank=2, modules=r"^blocks\.0\.self", prefix="diffusion_model.", seed=len(name)), path)
        plan = plan.add(make_layer(plan.base, open_lora(path), stage, strength, BaseNames(model.tensors, "wan")))
    return blueprint(plan, Finish(), {"fingerprint": base_fingerprint(model)}).file_metadata("fp32 on the CPU")


def test_a_base_of_unknown_origin_holds_nothing_known(base):
    assert contained(base) == ()


def test_what_we_baked_tells_what_is_inside(base, tmp_path):
    metadata = made_by_us(tmp_path, base)
    new = a_base(tmp_path / "new.safetensors", metadata)
    assert inside(new) == [("accelerate.safetensors", 1.0, DECLARED, OWN), ("style.safetensors", 0.5, DECLARED, OWN)]
    del metadata[LINEAGE_KEY]
    older = a_base(tmp_path / "older.safetensors", metadata)
    assert [name[:2] + name[3:] for name in inside(older)] == [
        ("accelerate.safetensors", 1.0, RECIPE), ("style.safetensors", 0.5, RECIPE)
    ]  # fmt: skip
    sha256 = identify_file(tmp_path / "accelerate.safetensors").ids[0]
    assert all(sha256 in contained(path)[0].ingredient.ids for path in (new, older))


def graph(*loras: tuple[str, float], kind: str = "CheckpointSave", extra: dict | None = None) -> dict[str, str]:
    """An embedded prompt: a checkpoint, LoRA loaders in a row, and what saved the model."""
    prompt = {"1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "a.safetensors"}}}
    for number, (name, strength) in enumerate(loras, 2):
        inputs = {"lora_name": name, "strength_model": strength, "strength_clip": 1.0, "model": [str(number - 1), 0]}
        prompt[str(number)] = {"class_type": "LoraLoader", "inputs": {**inputs, "clip": ["1", 1]}}
    prompt["90"] = {"class_type": kind, "inputs": {"model": [str(len(loras) + 1), 0], "filename_prefix": "x"}}
    return {"prompt": json.dumps({**prompt, **(extra or {})})}


def test_the_workflow_that_saved_a_checkpoint_tells_what_it_fused(tmp_path):
    path = a_base(tmp_path / "a.safetensors", graph((f"sub/{KNOWN}.safetensors", 1.0), ("style.safetensors", 0.7)))
    assert inside(path) == [
        (f"sub/{KNOWN}.safetensors", 1.0, DERIVED, WORKFLOW), ("style.safetensors", 0.7, DERIVED, WORKFLOW)
    ]  # fmt: skip
    found = contained(path)
    assert KNOWN_ID in found[0].ingredient.ids and found[0].accelerator.steps == (8, 8) and found[1].accelerator is None


def test_only_what_is_on_the_way_of_every_saved_model_counts(tmp_path):
    more = {"5": {"class_type": "ModelSave", "inputs": {"model": ["2", 0], "filename_prefix": "y"}}}
    path = a_base(tmp_path / "a.safetensors", graph(("both", 1.0), ("one", 1.0), extra=more))
    assert [name for name, *_ in inside(path)] == ["both"]
    sampled = a_base(tmp_path / "b.safetensors", graph(("a", 1.0), kind="KSampler"))
    assert inside(sampled) == []
    twice = a_base(tmp_path / "c.safetensors", graph(("a", 1.0), ("a", 0.5), ("off", 0.0)))
    assert [each[:2] for each in inside(twice)] == [("a", 1.5)]


def test_merge_tools_name_what_they_merged(tmp_path):
    path = a_base(tmp_path / "a.safetensors", {"modelspec.merged_from": f"base-model, {KNOWN} ,,"})
    assert [each[::2] for each in inside(path)] == [("base-model", GUESSED), (KNOWN, GUESSED)]
    assert contained(path)[1].ingredient.ids == (KNOWN_ID,)
    (tmp_path / "fused").mkdir()
    fused = a_base(tmp_path / "fused" / "m.safetensors")
    note = {"lora_path": "/x/lightning.safetensors", "lora_alpha": 1.0, "num_updated_tensors": 720}
    (tmp_path / "fused" / "fusion_metadata.json").write_text(json.dumps(note))
    assert [each[:3] for each in inside(fused)] == [("/x/lightning.safetensors", 1.0, DECLARED)]


def test_people_can_say_what_is_inside(base, tmp_path):
    declare(base_ids(open_checkpoint(base)), "base", contains=(LIGHTNING,))
    copy = a_base(tmp_path / "renamed.safetensors", {"other": "metadata"})
    assert contained(base) == contained(copy) == (Contained(LIGHTNING, DECLARED, BY_USER),)
    baked = a_base(tmp_path / "baked.safetensors", made_by_us(tmp_path, base))
    save_file({**BASE, "head.head.bias": BASE["head.head.bias"] + 1}, baked, read_header(baked).metadata)
    assert [each.source for each in contained(baked)] == [OWN, OWN, BY_USER]  # and it was baked from that base


def test_a_base_that_is_dequantized_is_known_all_the_same(tmp_path):
    layer, path = "blocks.0.self_attn.q", tmp_path / "quantized.safetensors"
    codes = {f"{layer}.weight": torch.ones(64, 64).to(torch.float8_e4m3fn), f"{layer}.weight_scale": torch.tensor(0.5)}
    save_file({**BASE, **codes}, path)
    model = open_checkpoint(path)
    declare(base_ids(model), "base", contains=(LIGHTNING,))
    PROCESS.files.clear()  # as in another process, where the dequantized one comes first
    assert contained_in(Dequantized(model)) == contained_in(model) != ()


def test_a_base_is_not_read_for_a_store_without_bases(base, monkeypatch):
    monkeypatch.setattr(contents, "base_fingerprint", lambda source: pytest.fail("read"))
    assert contained(base) == ()


@pytest.mark.parametrize("key", [LINEAGE_KEY, "lora_foundry", "prompt", "modelspec.merged_from"])
@pytest.mark.parametrize(
    "text",
    ["", "{", "null", "[]", '"x"', "[" * 100_000, '{"recipe": {"layers": 7, "base": 7}}', '{"contains": {"a": 1}}',
     '{"recipe": {"layers": [{"strength": 1, "lora": 7}, 7, {"strength": "x"}], "base": {"fingerprint": 7}}}',
     '{"contains": [{"name": "x", "strength": 1e999}]}', '{"1": {"class_type": "ModelSave", "inputs": 7}}'],
    ids=range(11),
)  # fmt: skip
def test_damaged_metadata_of_a_base_tells_nothing_certain(key, text, tmp_path, base):
    declare(base_ids(open_checkpoint(base)), "base", contains=(LIGHTNING,))
    path = a_base(tmp_path / "a.safetensors", {key: text})
    found = contained(path)
    assert found[-1] == Contained(LIGHTNING, DECLARED, BY_USER)
    assert {each.level for each in found[:-1]} <= {GUESSED}


def test_damage_in_the_store_hides_nothing_else(base, pack_home, tmp_path):
    declare(base_ids(open_checkpoint(base)), "base", contains=(LIGHTNING,))
    (file,) = (pack_home / "lineage" / "bases").iterdir()
    file.write_text("{")
    assert contained(base) == ()
    assert len(contained(a_base(tmp_path / "b.safetensors", graph(("x", 1.0))))) == 1
