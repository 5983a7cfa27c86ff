"""`inspect`: what a LoRA file tells of itself, with guesses marked as guesses."""

from __future__ import annotations

import json

import pytest
import torch
from fixtures_dialects import FIXTURES
from fixtures_parts import BESIDE, numbers, pair
from lora_foundry.cli.main import main
from lora_foundry.engine.lineage import BY_USER, Ingredient
from lora_foundry.loaders.lineage.identity import identify_file
from lora_foundry.loaders.lineage.store import declare
from lora_foundry.loaders.loras.file import LoRAFile
from lora_foundry.loaders.loras.roles import by_block, guess_role, tell_training
from lora_foundry.loaders.plans.describe import describe
from safetensors.torch import save_file
from samples import ShapeSource

ROLES = [
    ("Qwen-Image-Lightning-4steps-V1.0.safetensors", "accelerator"),
    ("FLUX.1-Turbo-Alpha.safetensors", "accelerator"), ("Hyper-FLUX.1-dev-8steps-lora.safetensors", "accelerator"),
    ("lcm-lora-sdxl.safetensors", "accelerator"), ("sdxl_dmd2_lora.safetensors", "accelerator"),
    ("wan/lightx2v_T2V_14B_cfg_step_distill_v2_lora_rank64_bf16.safetensors", "accelerator"),
    ("Wan21_CausVid_14B_T2V_lora_rank32.safetensors", "accelerator"), ("FastWan.safetensors", "accelerator"),
    ("zimage_turbo_training_adapter_v1.safetensors", "training adapter"),
    ("Z-Image-Turbo-DistillPatch.safetensors", "repair"), ("flux1-depth-dev-lora.safetensors", "control"),
    ("lightning/my_style.safetensors", "unknown"), ("watercolor_v3.safetensors", "unknown"),
    ("wan_lightning.safetensors", "accelerator"), ("sdxl-turbo-lora.safetensors", "accelerator"),
    ("pixel_art_z_image_turbo.safetensors", "unknown"), ("ZImageTurbo_anime.safetensors", "unknown"),
    ("Z-Image-Turbo_8steps_lora.safetensors", "accelerator"), ("lightning_bolt_style.safetensors", "unknown"),
    ("lightning_effect.safetensors", "unknown"),
    ("my_2000steps.safetensors", "unknown"), ("accident.safetensors", "unknown"), ("depths.safetensors", "unknown"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "role"), ROLES)
def test_a_role_by_name_is_a_guess_with_its_reason(name, role):
    guess = guess_role(name, {}, ())
    assert guess.role == role and guess.why
    assert guess.evidence == ("unknown" if role == "unknown" else "guessed")


def test_a_role_by_metadata_and_by_structure():
    assert guess_role("x.safetensors", {"ss_output_name": "qwen_4step"}, ()).role == "accelerator"
    assert "ss_output_name" in guess_role("x.safetensors", {"ss_output_name": "qwen_4step"}, ()).why
    distilled = LoRAFile(ShapeSource(FIXTURES["lightx2v_wan_step_distill_extracted"][1]), "x", "0" * 64)
    assert guess_role("x.safetensors", {}, distilled.adapters).role == "accelerator"
    assert guess_role("x.safetensors", {"modelspec.trigger_phrase": "ohwx"}, ()).role == "style"
    assert guess_role("turbo_car.safetensors", {"ss_tag_frequency": "{}"}, ()).role == "style"
    assert guess_role("car_4steps.safetensors", {"ss_tag_frequency": "{}"}, ()).role == "accelerator"


def test_what_the_metadata_tells():
    tags = json.dumps({"10_a": {"cat": 3, "dog": 9, "odd": "x"}, "b": {"cat": 7}, "c": 1})
    told = tell_training(
        {"ss_network_module": "networks.lora_wan", "ss_sd_model_name": "wan.st", "ss_tag_frequency": tags}
    )
    assert told == {"tool": "musubi-tuner", "base_model": "wan.st", "tags": ["cat", "dog", "odd"]}
    assert tell_training({"ss_network_module": "networks.lora"})["tool"] == "kohya sd-scripts"
    assert tell_training({"software": '{"name": "ai-toolkit"}', "ss_base_model_version": "flux2"}) == {
        "tool": "AI Toolkit", "base_model": "flux2",
    }  # fmt: skip
    assert tell_training({"ss_tag_frequency": "[" * 9999, "format": "pt"}) == {}
    assert tell_training({"ss_tag_frequency": "[1]", "ot_branch": "master"}) == {"tool": "OneTrainer"}


def test_modules_by_block():
    modules = ("lora_unet_double_blocks_0_img_attn_qkv", "lora_unet_double_blocks_11_img_mlp_0", "transformer.proj_out",
               "diffusion_model.single_blocks.3.linear1")  # fmt: skip
    assert by_block(modules) == {
        "double_blocks": {"blocks": 2, "modules": 2},
        "other": {"blocks": 1, "modules": 1},
        "single_blocks": {"blocks": 1, "modules": 1},
    }


@pytest.fixture
def mixed(tmp_path):
    tensors = {
        **pair("diffusion_model.blocks.0.self_attn.q"), **pair("diffusion_model.blocks.1.self_attn.q"),
        "diffusion_model.blocks.0.self_attn.q.alpha": torch.tensor(1.0),
        "diffusion_model.blocks.1.self_attn.q.alpha": torch.tensor(2.0),
        "diffusion_model.blocks.1.self_attn.q.dora_scale": numbers(1, 4),
        "diffusion_model.blocks.0.norm3.diff": numbers(6), "diffusion_model.blocks.0.norm3.diff_b": numbers(6),
        **{key.replace("m.", "diffusion_model.blocks.0.", 1): t for key, t in BESIDE["diff_m"][2].items()},
        "stray": numbers(1),
    }  # fmt: skip
    path = tmp_path / "Wan-4steps.safetensors"
    save_file(tensors, path, metadata={"ss_network_module": "networks.lora_wan", "trigger_words": "ohwx"})
    return path


def test_facts_of_a_lora(mixed):
    facts = describe(mixed)
    assert facts["kind"] == "lora" and (facts["dialect"], facts["layout"]) == ("down/up", "ModelTC")
    assert (facts["role"], facts["role_evidence"]) == ("accelerator", "guessed") and "4step" in facts["role_why"]
    assert (facts["family"], facts["tool"], facts["trigger_words"]) == ("wan", "musubi-tuner", "ohwx")
    assert (facts["rank"], facts["alpha"], facts["scale"]) == ([2, 2], [1.0, 2.0], [0.5, 1.0])
    assert facts["alpha_from"] == {"tensor": 2} and facts["unused"] == ["stray"]
    assert facts["adapters"] == {
        "lora": 1, "lora + magnitude": 1, "diff": 1, "diff of bias": 1, "diff of modulation": 1,
    }  # fmt: skip
    assert facts["modules"] == 5 and facts["blocks"] == {"blocks": {"blocks": 2, "modules": 5}}
    assert [finding["code"] for finding in facts["findings"]] == ["LF302"]
    assert (facts["lineage"]["claims"], facts["lineage"]["trained"]) == ([], None)
    json.dumps(facts)


def test_the_page_a_person_reads(mixed, capsys):
    assert main(["inspect", str(mixed)]) == 0
    page = capsys.readouterr().out
    for line in ("accelerator (guessed: its file name says '4step", "musubi-tuner", "ohwx", "5 in 2 blocks", "stray"):
        assert line in page
    assert "1 x lora + magnitude" in page and "{" not in page
    assert main(["inspect", str(mixed), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["role"] == "accelerator"


def test_what_is_known_better_than_by_signs_is_the_role(tmp_path, capsys):
    path = tmp_path / "turbo_car_4step.safetensors"
    save_file(pair("diffusion_model.blocks.0.self_attn.q"), path)
    assert describe(path)["role"] == "accelerator"
    declare(identify_file(path).ids, path.name, trained_with=(Ingredient("x.st"),), role="style")
    facts = describe(path)
    assert (facts["role"], facts["role_evidence"], facts["role_why"]) == ("style", "declared", BY_USER)
    assert facts["lineage"]["trained"] == 0 and facts["lineage"]["claims"][0]["trained_with"][0]["name"] == "x.st"
    assert main(["inspect", str(path)]) == 0
    assert "trained with x.st (declared: declared by the user)" in capsys.readouterr().out


def test_the_structure_of_lightning_is_the_registrys_to_know(tmp_path):
    modules = [f"transformer_blocks.{block}.attn.to_{part}" for block in range(60) for part in range(12)]
    tensors = {}
    for module in modules:
        tensors |= {f"{module}.lora_down.weight": torch.ones(64, 2), f"{module}.lora_up.weight": torch.ones(2, 64)}
        tensors |= {f"{module}.alpha": torch.tensor(8.0)}
    save_file(tensors, tmp_path / "x.safetensors")
    facts = describe(tmp_path / "x.safetensors")
    assert (facts["role"], facts["role_evidence"]) == ("accelerator", "guessed") and "720 modules" in facts["role_why"]


def test_a_lora_that_cannot_be_used_is_described_all_the_same(tmp_path):
    path = tmp_path / "a.safetensors"
    save_file({**pair(), "n.ia3_l": numbers(6)}, path)
    facts = describe(path)
    assert facts["lineage"]["ids"] == list(identify_file(path).ids)
    assert facts["dialect"] == "down/up" and facts["findings"][0]["severity"] == "error"
    assert "IA3" in facts["findings"][0]["seen"] and main(["inspect", str(path)]) == 1
