"""LoRAs for the other noise, task or version than the base: by names, and by the base's own shapes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from lint_parts import of_prompt, verdicts
from lora_foundry.loaders.lint.lint import lint
from lora_foundry.loaders.lint.model_folders import ModelFolders
from lora_foundry.validator.named import IMAGE, TEXT, WAN_22, Variant, variant_by_name
from safetensors.torch import save_file
from sketches import HIGH, LOW, Sketch

NAMES = {
    "wan2.2_i2v_high_noise_14B_fp16.safetensors": ("high", IMAGE, WAN_22),
    "Wan2_2-T2V-A14B-LOW_fp8_e4m3fn_scaled_KJ.safetensors": ("low", TEXT, WAN_22),
    "wan22/i2v\\wan2.2-i2v-a14b-low-noise-Q4_K_M.gguf": ("low", IMAGE, WAN_22),
    "Wan2.2-T2V-A14B-4steps-lora-rank64-Seko-V1/high_noise_model.safetensors": ("high", TEXT, WAN_22),
    "wan2.2_t2v_lightx2v_4steps_lora_v1.1_low_noise.safetensors": ("low", TEXT, WAN_22),
    "wan2.2_s2v_14B_fp8_scaled.safetensors": ("", "", WAN_22),
    "wan2.2_fun_inpaint_high_noise_14B_fp8_scaled.safetensors": ("high", "", WAN_22),
    "wan2.2_ti2v_5B_fp16.safetensors": ("", "", WAN_22),
    "wan2.1_i2v_480p_14B_fp16.safetensors": ("", "", ""),
    "lightx2v_T2V_14B_cfg_step_distill_v2_lora_rank64_bf16.safetensors": ("", "", ""),
    "low_poly_style.safetensors": ("", "", ""),
    "high_quality_i2v.safetensors": ("", "", ""),
    "wan2.2_high_and_low.safetensors": ("", "", WAN_22),
    "qwen_image_fp8_e4m3fn.safetensors": ("", "", "Qwen-Image"),
    "qwen_image_edit_2509_bf16.safetensors": ("", "", "Qwen-Image-Edit-2509"),
    "Qwen-Image-2512-Lightning-4steps-V1.0-fp32.safetensors": ("", "", "Qwen-Image-2512"),
    "qwen_image_2.1_bf16.safetensors": ("", "", "Qwen-Image 2.1"),
    "qwen_image_layered_bf16.safetensors": ("", "", ""),
    "qwen_image_edit_2511_pruning.safetensors": ("", "", ""),
    "FireRed-Image-Edit-1.1-transformer.safetensors": ("", "", ""),
    "": ("", "", ""),
}


@pytest.mark.parametrize("name", NAMES)
def test_what_a_name_says(name):
    assert variant_by_name(name) == Variant(*NAMES[name])


def of(base: str, *loras: str, steps: int = 4, find: ModelFolders | None = None):
    g = Sketch()
    model = g.unet(base)
    for name in loras:
        model = g.lora(model, name)
    g.sample(model, g("CLIPLoader"), steps, 1.0)
    return verdicts(lint(of_prompt(g), find))


I2V_LOW, I2V_HIGH = (f"wan2.2_i2v_{half}_noise_14B_fp16.safetensors" for half in ("low", "high"))
T2V = "wan2.2_t2v_lightx2v_4steps_lora_v1.1_{}_noise.safetensors"
QUESTIONS = {
    (I2V_LOW, HIGH): ["LF104.noise"],
    (I2V_HIGH, LOW): ["LF104.noise"],
    (I2V_LOW, LOW): [],
    (I2V_LOW, T2V.format("low")): ["LF303.task"],
    (I2V_LOW, T2V.format("high")): ["LF104.noise", "LF303.task"],
    (I2V_LOW, "lightx2v_T2V_14B_cfg_step_distill_v2_lora_rank64_bf16.safetensors"): [],  # of 2.1, on purpose
    (I2V_LOW, "wan2.2_t2v_ink_style_low.safetensors"): ["LF303.task"],
    (I2V_LOW, "ink_style.safetensors"): [],
    ("wan2.2_s2v_14B_fp16.safetensors", T2V.format("high")): [],
    ("qwen_image_edit_2511_bf16.safetensors", "Qwen-Image-Edit-2509-Lightning-4steps-V1.0-bf16.safetensors"): [
        "LF104.version"
    ],
    ("qwen_image_2512_bf16.safetensors", "Qwen-Image-Lightning-4steps-V1.0.safetensors"): ["LF104.version"],
    ("qwen_image_2.1_bf16.safetensors", "Qwen-Image-Lightning-4steps-V1.0.safetensors"): ["LF104.version"],
    ("qwen_image_bf16.safetensors", "Qwen-Image-Lightning-4steps-V1.0.safetensors"): [],
    ("qwen_image_edit_2511_bf16.safetensors", "Qwen-Image-Edit-2509-Relight.safetensors"): [],  # a style
}


@pytest.mark.parametrize("pair", QUESTIONS, ids=lambda pair: f"{pair[1]} on {pair[0]}")
def test_what_contradicts_is_asked(pair):
    assert of(*pair) == [("question", text) for text in QUESTIONS[pair]]


def test_both_halves_of_a_pair_in_their_places_are_silent():
    g = Sketch()
    for base, name in ((I2V_HIGH, HIGH), (I2V_LOW, LOW)):
        g.half(g.lora(g.unet(base), name), 0, 2)
    assert verdicts(lint(of_prompt(g))) == []


@pytest.mark.parametrize("channels,told", [(36, ["LF303.task"]), (16, [])])
def test_the_shape_of_the_base_knows_better_than_its_name(tmp_path: Path, channels, told):
    """36 channels and no image encoder: Wan 2.2, from an image."""
    shapes = {"patch_embedding.weight": (64, channels, 1, 2, 2), "head.modulation": (1, 2, 64),
              "blocks.0.self_attn.q.weight": (64, 64), "blocks.0.cross_attn.q.weight": (64, 64)}  # fmt: skip
    name, lora = "renamed_wan2.2.safetensors", T2V.format("low")
    factors = {"blocks.0.self_attn.q.lora_down.weight": (2, 64), "blocks.0.self_attn.q.lora_up.weight": (64, 2)}
    for folder, file, made in (("diffusion_models", name, shapes), ("loras", lora, factors)):
        (tmp_path / folder).mkdir()
        save_file(
            {key: torch.zeros(shape, dtype=torch.bfloat16) for key, shape in made.items()}, tmp_path / folder / file
        )
    assert of(name, lora, find=ModelFolders([tmp_path])) == [("question", text) for text in told]


# --- fp8, and LoRAs that were distilled on it

FP8_LORA = "Qwen-Image-fp8-e4m3fn-Lightning-4steps-V1.0-fp32.safetensors"


@pytest.mark.parametrize("base,loras,wanted", [
    ("wan2.2_i2v_low_noise_14B_fp8_scaled.safetensors", [LOW], [("note", "LF201.named_scaled")]),
    ("qwen_image_edit_2511_fp8mixed.safetensors", ["ink.safetensors"], [("note", "LF201.named_scaled")]),
    ("qwen_image_fp8_e4m3fn.safetensors", ["ink.safetensors"], [("question", "LF201.named")]),
    ("qwen_image_int8_convrot.safetensors", ["ink.safetensors"], [("question", "LF201.named_other")]),
    ("qwen_image_fp8_e4m3fn.safetensors", [FP8_LORA], []),
    ("qwen_image_fp8_e4m3fn.safetensors", [FP8_LORA, "ink.safetensors"], [("question", "LF201.named")]),
    ("qwen_image_bf16.safetensors", [FP8_LORA], [("question", "LF104.weights")]),
    ("qwen_image.safetensors", [FP8_LORA], []),
])  # fmt: skip
def test_fp8_by_names(base, loras, wanted):
    assert of(base, *loras) == wanted


@pytest.mark.parametrize("dtype,wanted", [("fp8_e4m3fn", []), ("default", [("question", "LF104.weights")])])
def test_a_lora_distilled_on_fp8_where_the_loader_casts(dtype, wanted):
    g = Sketch()
    g.sample(g.lora(g.unet("qwen_image_bf16.safetensors", dtype), FP8_LORA), g("CLIPLoader"), 4, 1.0)
    assert verdicts(lint(of_prompt(g))) == wanted


@pytest.mark.parametrize("name,wanted", [
    ("wan2.2_t2v_low_noise_14B_fp8_scaled.safetensors", [("note", "LF201.named_scaled")]),
    ("wan2.2_t2v_low_noise_14B_fp16.safetensors", [("warning", "LF201.native")]),
    ("wan2.2_t2v_low_noise_14B_fp8_e4m3fn.safetensors", [("warning", "LF201.native")]),
])  # fmt: skip
def test_a_scaled_file_keeps_its_scales_whatever_dtype_is_asked_for(name, wanted):
    g = Sketch()
    g.sample(g.lora(g.unet(name, "fp8_e4m3fn_fast"), "ink.safetensors"), g("CLIPLoader"), 20, 4.0)
    assert verdicts(lint(of_prompt(g))) == wanted


@pytest.mark.parametrize("scales,text", [
    ({}, ("warning", "LF201.native")),
    ({"blocks.0.q.weight_scale": torch.ones(())}, ("note", "LF201.scaled")),
    ({"blocks.0.q.scale_weight": torch.ones(()), "scaled_fp8": torch.zeros(2)}, ("note", "LF201.scaled")),
])  # fmt: skip
def test_fp8_files_with_scales_keep_the_effect(tmp_path: Path, scales, text):
    base = {"blocks.0.q.weight": torch.zeros(8, 8).to(torch.float8_e4m3fn), **scales}
    factors = {"blocks.0.q.lora_down.weight": torch.zeros(2, 8), "blocks.0.q.lora_up.weight": torch.zeros(8, 2)}
    for folder, name, tensors in (("diffusion_models", "b.safetensors", base), ("loras", "ink.safetensors", factors)):
        (tmp_path / folder).mkdir()
        save_file(tensors, tmp_path / folder / name)
    assert of("b.safetensors", "ink.safetensors", find=ModelFolders([tmp_path])) == [text]


@pytest.mark.parametrize("sigmas,asked", [
    ("0.909375, 0.725, 0.421875, 0.0", []),
    (".909375, .725, 0", []),
    ("1.0, 0.725, 0.0", [("question", "LF403.steps")]),
    ("1., 0.99375, 0.9875, 0.98125, 0.975, 0.909375, 0.725, 0.421875, 0.0", []),
])  # fmt: skip
def test_a_listed_schedule_that_begins_in_the_middle_is_no_whole_one(sigmas, asked):
    """As in the second stage of LTX-2: three steps of eight, and no fewer than it is made for."""
    g = Sketch()
    model = g.lora(
        g("CheckpointLoaderSimple", ckpt_name="ltx-2-19b-dev.safetensors"), "ltx-2-19b-distilled-lora-384.safetensors"
    )
    g("SamplerCustomAdvanced", guider=g("CFGGuider", model=model, cfg=1.0), sigmas=g("ManualSigmas", sigmas=sigmas))
    assert verdicts(lint(of_prompt(g))) == asked
