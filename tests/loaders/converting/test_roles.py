"""What is fused is what the rows call an accelerator: one function tells the badge, `inspect` and the conversion."""

from __future__ import annotations

import pytest
import torch
from lora_foundry.engine.lineage import Ingredient
from lora_foundry.loaders.converting.convert import convert
from lora_foundry.loaders.lineage.identity import identify_file
from lora_foundry.loaders.lineage.provenance import lineage_of
from lora_foundry.loaders.lineage.store import declare
from lora_foundry.loaders.lint.model_folders import ModelFolders
from lora_foundry.loaders.plans.describe import describe
from lora_foundry.loaders.plans.rows import row_facts
from safetensors.torch import save_file
from sketches import LIGHTNING_8, Sketch

WAN, STYLE = "wan2.1_t2v_14B_bf16.safetensors", "ink.safetensors"
PAIR = {"diffusion_model.blocks.0.self_attn.q.lora_down.weight": torch.zeros(2, 8),
        "diffusion_model.blocks.0.self_attn.q.lora_up.weight": torch.zeros(8, 2)}  # fmt: skip
CALLED = ("wan_lightning.safetensors", "my-8steps.safetensors", "speed/wan_lightning.sft", LIGHTNING_8)
OTHERS = ("portrait.safetensors", "lightning/portrait.safetensors", "depth_control.safetensors", "training_adapter.sft")


@pytest.fixture
def loras(tmp_path):
    """Writes a LoRA of a name into models/loras."""

    def write(name, metadata=None):
        path = tmp_path / "loras" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(PAIR, path, metadata)
        return path

    write(STYLE)
    return write


def converted(name: str, find=None) -> tuple[list[str], list[str]]:
    """(what is fused, what is stacked) of a chain of a style and this LoRA."""
    g = Sketch()
    g.sample(g.lora(g.lora(g.unet(WAN), STYLE, 0.8), name), g("CLIPLoader"), 4, 1.0)
    (told,) = convert(g.prompt, find, lineage_of).converted
    return [each["path"] for each in told["fused"]], [each["path"] for each in told["stacked"]]


@pytest.mark.parametrize("name", [*CALLED, *OTHERS])
def test_every_badged_accelerator_is_fused_and_nothing_else(tmp_path, loras, name):
    path = loras(name)
    badge = row_facts(path)["role"]
    assert badge == describe(path)["role"] == row_facts(path, None, lineage_of(path))["role"]
    assert (badge == "accelerator") == (name in CALLED)
    assert converted(name, ModelFolders([tmp_path])) == (([name], [STYLE]) if name in CALLED else ([], [STYLE, name]))


@pytest.mark.parametrize("name", [*CALLED, *OTHERS])
def test_without_its_file_the_name_decides_as_much(name):
    assert converted(name)[0] == ([name] if name in CALLED else [])


def test_what_its_metadata_says_counts_as_on_the_badge(tmp_path, loras):
    name = "plain_name.safetensors"
    path = loras(name, {"ss_output_name": "wan_turbo_v3"})
    assert row_facts(path)["role"] == "accelerator"
    assert converted(name, ModelFolders([tmp_path]))[0] == [name] and converted(name)[0] == []


def test_what_a_person_declares_comes_before_a_name(tmp_path, loras):
    name = "lightning_glow.safetensors"
    path = loras(name)
    assert converted(name, ModelFolders([tmp_path]))[0] == [name]
    declare(identify_file(path).ids, name, trained_with=(Ingredient("x.st"),), role="style")
    assert row_facts(path, None, lineage_of(path))["role"] == "style"
    assert converted(name, ModelFolders([tmp_path])) == ([], [STYLE, name])


def test_a_damaged_file_is_judged_by_its_name(tmp_path, loras):
    name = "wan_lightning.safetensors"
    loras(name).write_bytes(b"no safetensors at all")
    assert converted(name, ModelFolders([tmp_path]))[0] == [name]
