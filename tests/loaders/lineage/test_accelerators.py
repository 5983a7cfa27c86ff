"""Known accelerators: recognised for sure by hash and fingerprint, guessed by exact names, and nothing else is one."""

from __future__ import annotations

import json
import math
import re

import pytest
import torch
from lora_foundry.engine.lineage import ROLES, Lineage, plain_name
from lora_foundry.engine.plan import Adapter
from lora_foundry.loaders.bases.signatures import BASE_SIGNATURES
from lora_foundry.loaders.disk.home import data_home
from lora_foundry.loaders.lineage.accelerators import recognise, recognise_fingerprint
from lora_foundry.loaders.lineage.identity import NOTHING, identify_file
from lora_foundry.loaders.lineage.registry import BUILT_IN, FILE, registry, registry_fault
from lora_foundry.validator.fingerprint import Fingerprint
from safetensors.torch import save_file

ONE, TWO = "1" * 64, "2" * 64
NEW = {  # families that show no signature of their own yet
    *("anima", "fibo", "longcat-video", "ltx-2", "ltxv", "minimax-h3"),
}
NAMES = {  # as publishers and the usual conversions name their files -> the id in the registry
    "Qwen-Image-Lightning-8steps-V1.0.safetensors": "qwen-image-lightning-8steps-v1.0",
    "Wan_2_1_T2V_14B_480p_rCM_lora_average_rank_83_bf16.safetensors": "wan2.1-rcm-t2v",
    "Wan2_2_5B_FastWanFullAttn_lora_rank_128_bf16.safetensors": "fastwan-2.2-5b",
    "Wan2.2-T2V-A14B-4steps-lora-250928/low_noise_model.safetensors": "wan2.2-lightning-t2v-250928-low",
    "ltx-2-19b-distilled-lora-384.safetensors": "ltx-2-distilled",
    "ltx-2-19b-distilled-lora-resized_dynamic_fro095_avg_rank_242_bf16.safetensors": "ltx-2-distilled",
    "ltx-2-19b-distilled-lora_resized_dynamic_fro09_avg_rank_175_fp8.safetensors": "ltx-2-distilled",
    "LTX2.3_DMD_reshaped_r256.safetensors": "ltx-2.3-dmd",
    "boogu_image_turbo_lora_rank_128_bf16.safetensors": "boogu-image-turbo",
    "ltx-2.3-22b-distilled-lora-384.safetensors": "ltx-2.3-distilled",
    "ltx-2.3-22b-distilled-lora-384-1.1.safetensors": "ltx-2.3-distilled",
    "ltx_2.3_22b_distilled_1.1_lora_dynamic_fro09_avg_rank_111_bf16.safetensors": "ltx-2.3-distilled",
    "ltx-2.3-22b-distilled-lora-1.1_fro90_ceil72_condsafe.safetensors": "ltx-2.3-distilled",
    "minimax_h3_turbo_v4_step600_ema.safetensors": "minimax-h3-turbo-v4",
    "minimax_h3_turbo_v4_step600_ema_pruned_comfyui.safetensors": "minimax-h3-turbo-v4",
    "minimax_h3_turbo_v4_step600_comfyui_T8-convert.safetensors": "minimax-h3-turbo-v4",
    "lcm_lora_v1-5.safetensors": "lcm-lora-sdv1-5",
    "ltxv-13b-0.9.7-distilled-lora128.safetensors": "ltxv-13b-0.9.7-distilled",
    "Flux_2-Turbo-LoRA_comfyui.safetensors": "flux.2-dev-turbo",
    "Flux2TurboComfyv2.safetensors": "flux.2-dev-turbo",
    "anima-turbo-lora-v0.2.safetensors": "anima-turbo",
    "FireRed-Image-Edit-1.0-Lightning-8steps-v1.0.safetensors": "firered-image-edit-lightning-8steps",
    "FireRed-Image-Edit-1.1-Lightning-8steps-v1.0.safetensors": "firered-image-edit-lightning-8steps",
    "Wuli-Qwen-Image-2512-Turbo-LoRA-2steps-V1.0-bf16.safetensors": "qwen-image-2512-turbo-wuli-2steps",
    "Wuli-Qwen-Image-2512-Turbo-LoRA-4steps-V3.0.safetensors": "qwen-image-2512-turbo-wuli-4steps",
    "chronoedit_distill_lora.safetensors": "chronoedit-distill",
    "LongCat_TI2V_comfy_distill_lora_alpha64_bf16.safetensors": "longcat-video-distill",
    "LongCat_distill_lora_alpha64_bf16.safetensors": "longcat-video-distill",
    "LongCat-Video/lora/cfg_step_lora.safetensors": "longcat-video-distill",
    "minimax_h3_fl2v_turbo_8step_v1.0_comfyui_bf16.safetensors": "minimax-h3-fl2v-turbo-8step",
    "minimax_h3_ref2v_turbo_4step_v0.1_comfyui_bf16.safetensors": "minimax-h3-ref2v-turbo-4step",
    "minimax_h3_fl2v_turbo_4step_v1.0_768p_comfyui_bf16.safetensors": "minimax-h3-fl2v-turbo-4step",
    "minimax_h3_fl2v_turbo_4step_v0.1_768p_sla_comfyui_bf16.safetensors": "minimax-h3-fl2v-turbo-4step",
    "minimax_h3_fl2v_lightx2v_turbo_4step_v0.1_comfy_resized_avg_rank_21.safetensors": "minimax-h3-fl2v-turbo-4step",
    "Wan2_1_self_forcing_dmd_1_3B_lora_rank_32_fp16.safetensors": "wan2.1-self-forcing-dmd-1.3b",
    "Qwen-Image-fp8-e4m3fn-Lightning-4steps-V1.0-fp32.safetensors": "qwen-image-fp8-lightning-4steps-v1.0",
    "Qwen-Image-fp8-e4m3fn-Lightning-8steps-V1.0-bf16.safetensors": "qwen-image-fp8-lightning-8steps-v1.0",
    "Z-Image-Fun-Lora-Distill-8-Steps-2602-ComfyUI.safetensors": "z-image-fun-distill-8steps",
    "hunyuanvideo1.5_t2v_480p_lightx2v_4step_lora_rank_32_bf16.safetensors": "hunyuanvideo1.5-lightx2v-4step",
    "fibo_2.0_turbo_lora_avg_rank_270_bf16.safetensors": "fibo-2.0-turbo",
    "lightx2v_T2V_14B_cfg_step_distill_v2_lora_rank64_bf16_.safetensors": "wan2.1-lightx2v-t2v-v2",
    "Qwen-Image-Lightning-8steps-V1.0_.safetensors": "qwen-image-lightning-8steps-v1.0",
    "Qwen-Image-Lightning-8steps-V1.1-bf16.safetensors": "qwen-image-lightning-8steps-v1.1",
    "qwen/Qwen-Image-Lightning-4steps-V1.0-bf16.safetensors": "qwen-image-lightning-4steps-v1.0",
    "Qwen-Image-Lightning-4steps-V2.0.safetensors": "qwen-image-lightning-4steps-v2.0",
    "Qwen-Image-Lightning-4steps-V1.0 (1).safetensors": "qwen-image-lightning-4steps-v1.0",
    "Qwen-Image-Edit-Lightning-4steps-V1.0-bf16.safetensors": "qwen-image-edit-lightning-4steps-v1.0",
    "Qwen-Image-Edit-2509-Lightning-8steps-V1.0-fp32.safetensors": "qwen-image-edit-2509-lightning-8steps-v1.0",
    "Qwen-Image-Edit-2511-Lightning-4steps-V1.0-bf16.safetensors": "qwen-image-edit-2511-lightning-4steps-v1.0",
    "Qwen-Image-2512-Lightning-4steps-V1.0-fp32.safetensors": "qwen-image-2512-lightning-4steps-v1.0",
    "Qwen-Image-2.1-Lightning/pytorch_lora_weights.safetensors": "qwen-image-2.1-lightning",
    "Wan2.2-T2V-A14B-4steps-lora-rank64-Seko-V2.0/high_noise_model.safetensors": "wan2.2-lightning-t2v-seko-v2.0-high",
    r"Wan2.2-I2V-A14B-4steps-lora-rank64-Seko-V1\low_noise_model.safetensors": "wan2.2-lightning-i2v-seko-v1-low",
    "Wan2.2-T2V-A14B-4steps-lora-rank64-Seko-V2.0_high_noise.safetensors": "wan2.2-lightning-t2v-seko-v2.0-high",
    "Wan2.2-Lightning_I2V-A14B-4steps-lora_LOW_fp16.safetensors": "wan2.2-lightning-i2v-seko-v1-low",
    "Wan2.2-Lightning_T2V-v1.1-A14B-4steps-lora_HIGH_fp16.safetensors": "wan2.2-lightning-t2v-seko-v1.1-high",
    "Wan22_A14B_T2V_HIGH_Lightning_4steps_lora_250928_rank128_fp16.safetensors": "wan2.2-lightning-t2v-250928-high",
    "wan2.2_t2v_lightx2v_4steps_lora_v1.1_high_noise.safetensors": "wan2.2-lightning-t2v-seko-v1.1-high",
    "wan2.2_i2v_lightx2v_4steps_lora_v1_low_noise.safetensors": "wan2.2-lightning-i2v-seko-v1-low",
    "wan2.2_i2v_A14b_low_noise_lora_rank64_lightx2v_4step_1022.safetensors": "wan2.2-distill-i2v-1022-low",
    "wan2.2_t2v_A14b_high_noise_lora_rank64_lightx2v_4step_1217.safetensors": "wan2.2-distill-t2v-1217-high",
    "Wan_2_2_I2V_A14B_HIGH_lightx2v_4step_lora_260412_rank_64_fp16.safetensors": "wan2.2-distill-i2v-260412-high",
    "Wan_2_2_I2V_A14B_HIGH_lightx2v_MoE_distill_lora_rank_64_bf16.safetensors": "wan2.2-moe-distill-i2v-high",
    "wan2.1_t2v_14b_lora_rank64_lightx2v_4step.safetensors": "wan2.1-distill-t2v",
    "Wan21_T2V_14B_lightx2v_cfg_step_distill_lora_rank32.safetensors": "wan2.1-lightx2v-t2v-v1",
    r"WAN\Image\Wan21_T2V_14B_Lightx2V_CFG_Step_Distill_Lora_Rank_64.safetensors": "wan2.1-lightx2v-t2v-v1",
    "Wan21_I2V_14B_lightx2v_cfg_step_distill_lora_rank64_fixed.safetensors": "wan2.1-lightx2v-i2v-v1",
    "Wan2.1_I2V_14B_lightx2v_cfg_step_distill_lora_rank64.safetensors": "wan2.1-lightx2v-i2v-v1",
    "Wan22_5B_FastWanFullAttn_Lora_Rank_128_bf16.safetensors": "fastwan-2.2-5b",
    "Wan22_TI2V_5B_Turbo_lora_rank_64_fp16.safetensors": "wan2.2-ti2v-5b-turbo",
    "Wan2_1_CausVid_14B_T2V_lora_rank32_v2.safetensors": "wan2.1-causvid-14b-v2",
    "flux1-turbo-alpha.safetensors": "flux.1-turbo-alpha",
    "lightx2v_T2V_14B_cfg_step_distill_v2_lora_rank64_bf16.safetensors": "wan2.1-lightx2v-t2v-v2",
    "lightx2v_I2V_14B_480p_cfg_step_distill_rank256_bf16.safetensors": "wan2.1-lightx2v-i2v-480p",
    "lightx2v_14B_T2V_cfg_step_distill_lora_adaptive_rank_quantile_0.15_bf16": "wan2.1-lightx2v-t2v-adaptive",
    "Wan21_CausVid_14B_T2V_lora_rank32.safetensors": "wan2.1-causvid-14b-v1",
    "Wan21_CausVid_14B_T2V_lora_rank32_v1_5_no_first_block.safetensors": "wan2.1-causvid-14b-v1.5",
    "Wan21_CausVid_bidirect2_T2V_1_3B_lora_rank32.safetensors": "wan2.1-causvid-1.3b",
    "Wan21_AccVid_I2V_480P_14B_lora_rank32_fp16.safetensors": "wan2.1-accvid-i2v",
    "FastWan_T2V_14B_480p_lora_rank_128_bf16.safetensors": "fastwan-t2v-14b",
    "Wan2.1_I2V_14B_FusionX_LoRA.safetensors": "wan2.1-fusionx-i2v",
    "Hyper-FLUX.1-dev-8steps-lora.safetensors": "hyper-flux.1-dev-8steps",
    "Hyper-FLUX.1-dev-16steps-lora-fp16.safetensors": "hyper-flux.1-dev-16steps",
    "Hyper-SD3-8steps-CFG-lora.safetensors": "hyper-sd3-8steps-cfg",
    "Hyper-SDXL-1step-lora.safetensors": "hyper-sdxl-1step", "Hyper-SDXL-8steps-lora.safetensors": "hyper-sdxl-8steps",
    "Hyper-SDXL-8steps-CFG-lora.safetensors": "hyper-sdxl-8steps-cfg",
    "Hyper-SD15-12steps-CFG-lora.safetensors": "hyper-sd15-12steps-cfg",
    "sdxl_lightning_4step_lora.safetensors": "sdxl-lightning-4step",
    "lcm-lora-sdv1-5.safetensors": "lcm-lora-sdv1-5", "lcm-lora-sdxl.safetensors": "lcm-lora-sdxl",
    "lcm-lora-ssd-1b/pytorch_lora_weights.safetensors": "lcm-lora-ssd-1b",
    "dmd2_sdxl_4step_lora_fp16.safetensors": "dmd2-sdxl-4step",
    "FLUX.1-Turbo-Alpha.safetensors": "flux.1-turbo-alpha",
    "FLUX.1-Turbo-Alpha/diffusion_pytorch_model.safetensors": "flux.1-turbo-alpha",
    "dreamo_cfg_distill.safetensors": "dreamo-cfg-distill",
    "DreamO/dreamo_cfg_distill_comfyui.safetensors": "dreamo-cfg-distill",
    "srpo_128_base_oficial_model_fp16.safetensors": "srpo-flux.1-dev",
    "srpo_32_base_RockerBOO_model_fp16.safetensors": "srpo-flux.1-dev",
    "srpo_256_base_oficial_model_fp16_lora.safetensors": "srpo-flux.1-dev",
    "FLUX.1-dev_tdd_adv_lora_weights.safetensors": "tdd-flux.1-dev-adv",
    "sdxl_tdd_lora_weights.safetensors": "tdd-sdxl",
    "pcm_sdxl_normalcfg_4step_converted.safetensors": "pcm-sdxl-normalcfg-4step",
    "pcm_sd15_smallcfg_2step_converted_fp16.safetensors": "pcm-sd15-smallcfg-2step",
    "pcm_deterministic_4step_shift3.safetensors": "pcm-deterministic-4step-shift3-sd3",
    "zimage_turbo_training_adapter_v2.safetensors": "zimage-turbo-training-adapter-v2",
    "FLUX.1-schnell-training-adapter/pytorch_lora_weights.safetensors": "flux.1-schnell-training-adapter",
    "z_image_turbo_distill_patch_lora_bf16.safetensors": "z-image-turbo-distillpatch",
    "Z-Image-Turbo-DistillPatch/model.safetensors": "z-image-turbo-distillpatch",
}  # fmt: skip
OTHERS = [
    "lightning_effect", "lightning", "lightning/my_style", "Lightning-Strike-V1.0", "turbo_car_style", "turbo",
    "lora_zimage_mychar_turbo_beta01", "hyperrealistic", "hyper-detail-sdxl", "8steps_tutorial_style", "my_8steps",
    "lcm_dreamscape", "dreamshaper_lcm_v8", "sdxl_lightning_4step", "sdxl_lightning_4step_unet", "LCM", "dmd2",
    "Qwen-Image-Lightning-4steps-V1.0-mycharacter", "my-Qwen-Image-Lightning-4steps-V1.0", "qwen_lightning_style",
    "Qwen-Image-Lightning-16steps-V1.0", "Qwen-Image-Lightning-4steps-V9.9", "pytorch_lora_weights", "model",
    "diffusion_pytorch_model", "high_noise_model", "someone/high_noise_model", "adapter_model", "training_adapter",
    "Wan21_T2V_14B_MoviiGen_lora_rank32_fp16", "WanAnimate_relight_lora_fp16", "Wan21_PusaV1_LoRA_14B_rank512_bf16",
    "Wan2.2-Fun-A14B-InP-LOW-HPS2.1_resized_dynamic_avg_rank_15_bf16", "seko", "FLUX.1-Turbo", "flash", "distill",
    "anima_turbo_style", "minimax_h3_turbo", "ltx-2-19b-distilled", "FLUX.2-dev-Turbo-remix", "cfg_step_lora",
    "Qwen-Image-fp8-e4m3fn", "z-image-fun-lora-distill-8-steps-mystyle",
    "dreamo", "dreamo_comfyui", "dreamo_quality_lora_pos_comfyui", "my_srpo", "SRPO", "flux.1-dev-SRPO-bf16",
    "causvid_dancer", "fast-wan-cars", "hyper_flux_neon", "FLUX.1-dev-Turbo-Alpha-remix", "tdd", "pcm", "",
    "Wan2.2_I2V_LightX2V_2step_high_noise", "Hyper-FLUX.1-dev-8steps-lora-merged-with-mine",
]  # fmt: skip


def wan(**more):
    entry = {"id": "mine", "name": "My turbo", "publisher": "me", "family": "wan", "source": "me"}
    return {**entry, "match": ["my-turbo"], **more}


def write(*entries, text: str | None = None):
    path = data_home() / FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text if text is not None else json.dumps({"schema": 1, "entries": entries}), encoding="utf-8")
    return path


# --- names


@pytest.mark.parametrize("name", NAMES)
def test_published_names_are_guessed_and_quoted(name):
    found = recognise(name)
    assert found is not None and (found.id, found.level) == (NAMES[name], "guessed")
    assert found.why == f"its file name is '{name}'" or "\\" in name


@pytest.mark.parametrize("name", OTHERS)
def test_other_names_are_nothing(name):
    assert recognise(name) is None and recognise(f"{name}.safetensors") is None


def test_no_published_name_is_that_of_two_entries():
    for name, id in NAMES.items():
        forms = plain_name(name), "/".join(map(plain_name, re.split(r"[\\/]", name)[-2:]))
        assert [e.id for e in registry() if any(p.fullmatch(form) for p in e.match for form in forms)] == [id]


def test_a_published_title_in_the_metadata_counts_when_the_file_was_renamed():
    found = recognise("renamed.safetensors", metadata={"ss_output_name": "Hyper-SDXL-4steps-lora"})
    assert found is not None and found.id == "hyper-sdxl-4steps" and "'ss_output_name'" in found.why
    told = {"ss_output_name": "my_style", "ss_training_comment": "for Hyper-SDXL-4steps-lora", "name": "x" * 100_000}
    assert recognise("renamed.safetensors", metadata=told) is None


def test_numbers_of_the_publisher():
    hyper = recognise("Hyper-FLUX.1-dev-8steps-lora.safetensors")
    assert hyper is not None and hyper.strength[0] <= 0.125 <= hyper.strength[1]
    assert (hyper.steps, hyper.cfg, hyper.role) == ((8, 8), None, "accelerator")
    lightning = recognise("Qwen-Image-Lightning-4steps-V1.0.safetensors")
    assert lightning is not None and (lightning.strength, lightning.steps, lightning.cfg) == ((1, 1), (4, 4), (1, 1))
    lcm = recognise("lcm-lora-sdxl")
    assert lcm is not None and (lcm.strength, lcm.steps, lcm.cfg) == (None, (2, 8), (1, 2))


def test_roles_other_than_accelerators():
    adapter, patch = recognise("zimage_turbo_training_adapter_v1"), recognise("z_image_turbo_distill_patch_lora_bf16")
    assert adapter is not None and patch is not None
    assert (adapter.role, patch.role) == ("training adapter", "repair")
    assert Lineage(accelerator=adapter).role == ("training adapter", "guessed")


# --- structure


def lightning(blocks=60, rank=64, alpha=8.0, prefix=""):
    modules = [f"{prefix}transformer_blocks.{i}.attn.to_{j}" for i in range(blocks) for j in range(12)]
    return tuple(Adapter(module, "lora", (), rank, (8, 8), alpha) for module in modules)


def test_the_structure_of_qwen_lightning_tells_the_kind_and_no_version():
    found = recognise("renamed", adapters=lightning())
    assert found is not None and (found.id, found.level, found.steps) == ("", "guessed", (4, 8))
    assert "720 modules of rank 64 and alpha 8" in found.why


@pytest.mark.parametrize(
    "other", [(), lightning(59), lightning(61), lightning(rank=32), lightning(alpha=64.0), lightning(prefix="x.")],
    ids=["none", "less", "more", "rank", "alpha", "prefix"],
)  # fmt: skip
def test_other_structures_tell_nothing(other):
    assert recognise("renamed", adapters=other) is None


def test_a_name_without_a_version_tells_the_kind_only():
    found = recognise("Qwen-Image-Lightning-4steps.safetensors")
    assert found is not None and (found.id, found.steps) == ("", (4, 4))


# --- hashes and fingerprints


def test_hash_beats_every_name():
    write(wan(sha256=[ONE], tensor_sha256=[TWO]))
    for ids, word in ((("sha256:" + ONE,), "it has the sha256"), (("sha256:" + TWO, "tensors:" + TWO), "its tensors")):
        found = recognise("Qwen-Image-Lightning-4steps-V1.0.safetensors", ids)
        assert found is not None and (found.id, found.level) == ("mine", "derived")
        assert word in found.why and ids[-1][-64:][:12] in found.why
    assert recognise("other", ("sha256:" + TWO, "tensors:" + ONE)) is None


def mark(scale=1.0):
    return Fingerprint({(4, 4): ((scale, 0.5 * scale, 0.25 * scale, 0.1 * scale, scale),)})


def test_a_fingerprint_recognises():
    assert recognise_fingerprint(mark()) is None
    write(wan(fingerprints=[mark().to_json()]))
    found = recognise_fingerprint(mark(1.001))
    assert found is not None and (found.id, found.level) == ("mine", "derived") and "within 1 %" in found.why
    assert recognise_fingerprint(mark(1.1)) is None


# --- what ships


def test_built_in_entries_are_complete_and_honest():
    entries = registry()
    known = {signature.family for signature in BASE_SIGNATURES} | NEW
    assert len(entries) > 100 and len({entry.id for entry in entries}) == len(entries)
    for entry in entries:
        assert entry.family in known and entry.role in ROLES and entry.source, entry.id
        assert "://" not in entry.source and (entry.generic or entry.match), entry.id
        for pattern in entry.match:  # they fit what plain_name makes, nothing loose
            assert re.fullmatch(r"[a-z0-9().?|\\d+/*:-]+", pattern.pattern) and ".*" not in pattern.pattern, entry.id
        told = re.search(r"-(\d+)-?steps?", entry.id)
        if told and entry.steps and entry.role == "accelerator":
            assert entry.steps[0] <= int(told[1]) <= entry.steps[1], entry.id


def test_the_data_lies_beside_the_module():
    assert BUILT_IN.is_file() and BUILT_IN.parent.name == "lineage"


# --- the user's own


def test_users_entries_come_first_and_extend_built_in_ones():
    write(wan(match=["lcm-lora-sdxl"]), {"id": "dmd2-sdxl-4step", "cfg": [1, 2], "match": ["my-dmd"], "sha256": [ONE]})
    ours, own, old = (recognise(name) for name in ("lcm-lora-sdxl", "my_dmd", "dmd2_sdxl_4step_lora"))
    assert ours is not None and ours.id == "mine"
    assert own is not None and (own.id, own.cfg, own.steps) == ("dmd2-sdxl-4step", (1, 2), (4, 4))
    assert old is not None and old.id == own.id
    assert len({entry.id for entry in registry()}) == len(registry())


def test_a_changed_file_counts_at_once():
    path = write(wan())
    assert recognise("my_turbo") is not None
    path.unlink()
    assert recognise("my_turbo") is None


BROKEN = {
    "no JSON": ("{", "is no JSON"), "another form": ("[]", '"schema": 1'),
    "another schema": ('{"schema": 2, "entries": []}', '"schema": 1'),
    "no list": ('{"schema": 1, "entries": {}}', "'entries'"), "deep": ("[" * 100_000, "is no JSON"),
    "no name": ([wan(name=None)], "'name' of entry 'mine'"), "no id": ([{"name": "x"}], "'id' of entry 1"),
    "unknown key": ([wan(setps=[4, 4])], "'setps' of entry 'mine'"), "unknown role": ([wan(role="fast")], "'role'"),
    "bad pattern": ([wan(match=["("])], "'match' of entry 'mine'"), "one number": ([wan(steps=4)], "'steps'"),
    "half a step": ([wan(steps=[4, 4.5])], "'steps'"), "no step": ([wan(steps=[0, 4])], "'steps'"),
    "wrong way round": ([wan(cfg=[2, 1])], "'cfg'"),
    "truth": ([wan(strength=[True, True])], "'strength'"), "short hash": ([wan(sha256=["abc"])], "'sha256'"),
    "hash of nothing": ([wan(tensor_sha256=[NOTHING])], "'tensor_sha256'"), "twice": ([wan(), wan()], "two of its"),
    "fingerprint": ([wan(fingerprints=[{"version": 9}])], "'fingerprints'"), "generic": ([wan(generic=1)], "'generic'"),
    "generic with a hash": ([wan(generic=True, sha256=[ONE])], "of one version each"),
    "structure": ([wan(structure={"modules": 1})], "'structure'"), "not a number": ([wan(cfg=["1", "2"])], "'cfg'"),
    "endless number": ([wan(structure={"names": "a", "rank": 1, "alpha": 1, "modules": math.inf})], "'structure'"),
    "large number": ([wan(structure={"names": "a", "rank": 1, "alpha": 10**400, "modules": 1})], "'structure'"),
    "many times": ([wan(match=["a{99999999999}"])], "'match'"), "deep pattern": ([wan(match=["(" * 3000])], "'match'"),
    "large mark": ([wan(fingerprints=[{"version": 1, "shapes": {"1x1": [[10**400] * 5]}}])], "'fingerprints'"),
}  # fmt: skip


@pytest.mark.parametrize("how", BROKEN)
def test_a_broken_file_is_told_in_one_sentence(how):
    content, said = BROKEN[how]
    path = write(text=content) if isinstance(content, str) else write(*content)
    error = registry_fault()
    assert error is not None and error.code == "registry" and error.fix
    assert said in str(error) and FILE in str(error) and str(path.parent) in str(error)
    assert recognise("lcm-lora-sdxl") is not None  # the built-in entries are used all the same


@pytest.mark.parametrize("text", ["", " \n"])
def test_an_empty_file_is_none(text):
    write(text=text)
    assert recognise("lcm-lora-sdxl") is not None


# --- what the user wrote down


def test_a_renamed_file_is_recognised_for_sure_by_what_was_written_down(tmp_path):
    path = tmp_path / "whatever.safetensors"
    save_file({"a.lora_up.weight": torch.ones(2, 2)}, path)
    identity = identify_file(path)
    known = {"id": "dmd2-sdxl-4step", "sha256": [ONE], "tensor_sha256": [identity.tensor_sha256]}
    write({**known, "fingerprints": [mark().to_json()]}, {"id": "lcm-lora-sdxl", "sha256": [TWO]})
    found = recognise(path.name, identity.ids)
    assert found is not None and (found.id, found.level) == ("dmd2-sdxl-4step", "derived")
    again = recognise_fingerprint(mark())
    assert again is not None and again.id == found.id
    assert [recognise("x", (f"sha256:{each}",)).id for each in (ONE, TWO)] == ["dmd2-sdxl-4step", "lcm-lora-sdxl"]
