"""The tables: every suffix is taken apart, every layout people have is recognised by a fixture of its own."""

from __future__ import annotations

import json

import pytest
from fixtures_dialects import FIXTURES
from lora_foundry.loaders.loras.layouts import LAYOUTS, dialect_table, layout
from lora_foundry.loaders.names.dialects import (
    LORA,
    OTHER_PARTS,
    PAIR_SUFFIXES,
    UNSUPPORTED,
    adapter_parts,
    identify,
    split,
)
from samples import BASES, DIALECTS


def whole(text: str, adapter: str) -> str:
    return "blocks.0.attn.q" + text.replace("|", "").replace("*", adapter)


@pytest.mark.parametrize("sample", DIALECTS)
def test_dialect_of_every_sample(sample):
    assert identify(DIALECTS[sample].source().tensors) == DIALECTS[sample].dialect


@pytest.mark.parametrize("row", PAIR_SUFFIXES, ids=lambda row: row.down)
def test_a_pair_is_split_into_module_and_part(row):
    for suffix, expected in ((row.up, "up"), (row.down, "down")):
        part = split(whole(suffix, "style_1"))
        kept = suffix.partition("|")[0] if "|" in suffix else ""
        assert (part.module, part.part, part.kind) == ("blocks.0.attn.q" + kept, expected, LORA)
        assert (part.dialect, part.adapter) == (row.dialect, "style_1" if "*" in suffix else "")


@pytest.mark.parametrize("row", [*OTHER_PARTS, *UNSUPPORTED], ids=lambda row: row.text)
def test_every_other_part_is_known_by_kind(row):
    part = split(whole(row.text, "w1_a"))
    kept = row.text.partition("|")[0] if "|" in row.text else ""
    assert (part.module, part.kind) == ("blocks.0.attn.q" + kept, row.kind)
    assert part.part == ("w1_a" if row.part == "*" else row.part)
    assert part.target == part.module + ("" if row.tensor == "weight" else f".{row.tensor}")


OTHER_NAMES = ("blocks.0.attn.q.weight", "blocks.0.norm.scale", "_norm.scale", "_lora1.down.weight")


@pytest.mark.parametrize("name", [*OTHER_NAMES, ".alpha", "alpha", "lora_up.weight", "x.lora_A.a.b.weight", ""])
def test_other_names_are_no_part(name):
    assert split(name) is None


def test_two_dialects_in_one_file_are_both_named():
    names = ["a.lora_up.weight", "a.lora_down.weight", "b.lora_A.weight", "b.lora_B.weight", "c.lora_up.weight"]
    assert identify(names) == "down/up + A/B"
    assert identify(["a.weight", "a.alpha", "a_norm.scale"]) == "unknown"
    assert identify(["a.lokr_w1", "a.lokr_w2", "b.diff", "a.alpha"]) == "lokr + diff"


@pytest.mark.parametrize("fixture", FIXTURES)
def test_adapter_files_are_told_from_models(fixture):
    assert adapter_parts(FIXTURES[fixture][1])


@pytest.mark.parametrize("base", BASES)
def test_models_are_told_from_adapter_files(base):
    assert not adapter_parts(BASES[base])


def test_alphas_and_scales_beside_parts_do_not_count():
    assert adapter_parts(["m.oft_blocks", "m.alpha"]) == ["m.oft_blocks"]
    codes = both("m", "down/up", "alpha", "lora_up.weight_scale", "lora_down.weight_scale")
    assert adapter_parts(codes) == codes[:2] and adapter_parts(["m.dora_scale", "m.alpha"]) == ["m.dora_scale"]
    assert not adapter_parts(["a.weight", "a.bias", "b.norm.key_norm.scale", "a.weight_scale", "c.alpha"])


# fixture -> layout; every layout must be here, so that a new row comes with a fixture
EXPECTED = {
    "kohya_sd15_lora": "kohya SD", "kohya_sdxl_lora": "kohya SDXL", "kohya_locon_conv3x3_sd15": "LoCon",
    "lycoris_loha_sdxl": "LyCORIS LoHa", "lycoris_lokr_sdxl": "LyCORIS LoKr", "lycoris_dora_sdxl": "DoRA",
    "lycoris_misc_sdxl": "LyCORIS OFT", "lightx2v_qwen_image_lightning": "Qwen-Image Lightning",
    "diffsynth_qwen_image": "DiffSynth", "seedfork_merged_qkv_qwen": "merged q/k/v",
    "seedfork_merged_qkv_BROKEN_split": "DiffSynth", "diffsynth_wan": "DiffSynth Wan", "musubi_wan": "musubi",
    "videox_fun_wan": "VideoX-Fun", "lightx2v_wan_step_distill_extracted": "extracted", "aitoolkit_wan": "AI Toolkit",
    "kohya_flux": "kohya Flux", "diffusers_flux": "diffusers", "peft_raw_flux": "PEFT",
    "aitoolkit_flux_native": "AI Toolkit", "aitoolkit_flux2": "AI Toolkit", "bfl_flux_control": "BFL control",
    "aitoolkit_zimage": "AI Toolkit", "musubi_zimage": "musubi Z-Image",
    "simpletuner_lycoris_qwen": "SimpleTuner LyCORIS", "musubi_qwen": "musubi",
    "diffusers_attnprocs_sd15": "attention processors", "diffusers_peft_sd15": "diffusers SD",
    "peft_dora_flux": "PEFT DoRA", "aitoolkit_dora_flux": "AI Toolkit",
    "diffusers_sd3": "diffusers", "diffusers_wan": "diffusers Wan",
    "diffusers_flux2": "diffusers Flux.2", "diffusion_pipe_hunyuan": "diffusion-pipe", "fal_kontext_flux": "fal",
    "xlabs_flux": "XLabs", "onetrainer_flux": "OneTrainer", "peft_named_wan": "PEFT",
}  # fmt: skip


def both(module: str, letters: str, *more: str) -> list[str]:
    down, up = {"down/up": ("lora_down", "lora_up"), "A/B": ("lora_A", "lora_B")}[letters]
    return [f"{module}.{ending}" for ending in (f"{down}.weight", f"{up}.weight", *more)]


SMALL = {
    "Tucker LoCon": both("lora_unet_up_blocks_0_resnets_0_conv1", "down/up", "lora_mid.weight", "alpha"),
    "LyCORIS GLoRA": [f"lora_unet_input_blocks_1_1_x.{part}.weight" for part in ("a1", "a2", "b1", "b2")],
    "LyCORIS full": ["lora_unet_input_blocks_1_1_x.diff", "lora_unet_input_blocks_1_1_x.diff_b"],
    "AI Toolkit LoKr": [f"diffusion_model.layers.0.attention.qkv.{part}" for part in ("lokr_w1", "lokr_w2", "alpha")],
    "ModelTC": both("diffusion_model.blocks.0.self_attn.q", "down/up", "alpha"),
    "ComfyUI down/up": both("diffusion_model.double_blocks.0.img_attn.qkv", "down/up"),
    "ComfyUI A/B with alpha": both("diffusion_model.double_blocks.0.img_attn.qkv", "A/B", "alpha"),
    "OneTrainer original": both("double_blocks.0.img_attn.qkv", "A/B", "alpha"),
    "bare A/B": ["blocks.0.attn_x.qkv_x.lora_A", "blocks.0.attn_x.qkv_x.lora_B"],
    "own names, A/B": both("double_blocks.0.img_attn.qkv", "A/B"),
    "own names, down/up": both("double_blocks.0.img_attn.qkv", "down/up"),
}


@pytest.mark.parametrize("fixture", FIXTURES)
def test_layout_of_every_fixture(fixture):
    assert layout(FIXTURES[fixture][1]).name == EXPECTED[fixture]


@pytest.mark.parametrize("name", SMALL)
def test_layout_of_small_fixtures(name):
    assert layout(SMALL[name]).name == name


def test_every_layout_has_a_fixture_and_a_name_of_its_own():
    names = [row.name for row in LAYOUTS]
    assert len(set(names)) == len(names)
    assert {*EXPECTED.values(), *SMALL} == set(names)


def test_text_encoder_names_and_strangers_have_no_layout():
    assert layout(both("lora_te1_text_model_encoder_layers_0_mlp_fc1", "down/up")) is None
    assert layout(["a.weight", "blocks.0.alpha"]) is None


def test_the_table_can_be_printed():
    table = json.loads(json.dumps(dialect_table()))
    assert [row["name"] for row in table] == [row.name for row in LAYOUTS]
    assert all(row["writers"] and row["alpha"] for row in table)
    assert {"name", "writers", "prefix", "modules", "marks", "alpha"} == set(table[0])
