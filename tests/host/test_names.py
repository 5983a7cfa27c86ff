"""Our rules against the host's own key map: the same weight and the same rows for every name it knows."""

from __future__ import annotations

import pytest
from fixtures_dialects import FIXTURES
from lora_foundry.loaders.names.dialects import split
from lora_foundry.loaders.names.lookup import is_text_encoder

FLUX = {
    "image_model": "flux", "in_channels": 16, "out_channels": 16, "vec_in_dim": 64, "context_in_dim": 64,
    "hidden_size": 128, "mlp_ratio": 4.0, "num_heads": 1, "depth": 2, "depth_single_blocks": 2,
    "axes_dim": [16, 56, 56], "theta": 10000, "patch_size": 2, "qkv_bias": True, "guidance_embed": True,
}  # fmt: skip
UNET = {
    "image_size": 32, "in_channels": 4, "out_channels": 4, "model_channels": 64, "use_spatial_transformer": True,
    "legacy": False, "use_checkpoint": False, "context_dim": 64, "transformer_depth_middle": 1,
}  # fmt: skip
WAN = {
    "image_model": "wan2.1", "model_type": "i2v", "dim": 128, "ffn_dim": 128, "num_heads": 1, "num_layers": 2,
    "in_dim": 36, "out_dim": 16, "patch_size": (1, 2, 2), "freq_dim": 256, "window_size": (-1, -1), "qk_norm": True,
    "cross_attn_norm": True, "eps": 1e-6,
}  # fmt: skip
LUMINA = {
    "image_model": "lumina2", "patch_size": 2, "in_channels": 16, "dim": 128, "cap_feat_dim": 64, "n_layers": 1,
    "qk_norm": True, "n_heads": 1, "n_kv_heads": 1, "axes_dims": [32, 48, 48], "axes_lens": [300, 512, 512],
    "rope_theta": 256.0, "ffn_dim_multiplier": 2.0,
}  # fmt: skip
CHROMA = {name: value for name, value in FLUX.items() if name not in ("vec_in_dim", "guidance_embed")}
EMBEDDER = {"target": "torch.nn.Linear", "params": {"in_features": 96, "out_features": 128}}

# Family -> the host's class and the smallest model of it: names and which rows are meant do not depend on the size.
MODELS = {
    "sd15": ("SD15", {
        **UNET, "num_res_blocks": [2] * 4, "channel_mult": [1] * 4, "transformer_depth": [1] * 6 + [0] * 2,
        "transformer_depth_output": [1] * 9 + [0] * 3, "use_linear_in_transformer": False, "adm_in_channels": None,
    }),
    "sdxl": ("SDXL", {
        **UNET, "num_res_blocks": [2] * 3, "channel_mult": [1] * 3, "transformer_depth": [0, 0, 2, 2, 3, 3],
        "transformer_depth_output": [0, 0, 0, 2, 2, 2, 3, 3, 3], "use_linear_in_transformer": True,
        "num_classes": "sequential", "adm_in_channels": 2816,
    }),
    "sd3": ("SD3", {
        "in_channels": 16, "out_channels": 16, "depth": 2, "input_size": None, "patch_size": 2,
        "pos_embed_scaling_factor": None, "pos_embed_max_size": 192, "adm_in_channels": 64, "qkv_bias": True,
        "context_embedder_config": EMBEDDER, "qk_norm": "rms", "x_block_self_attn_layers": [0],
    }),
    "flux": ("Flux", FLUX),
    "flux2": ("Flux2", {
        **FLUX, "image_model": "flux2", "in_channels": 128, "out_channels": 128, "vec_in_dim": None, "mlp_ratio": 3.0,
        "axes_dim": [32] * 4, "theta": 2000, "patch_size": 1, "qkv_bias": False, "global_modulation": True,
        "mlp_silu_act": True, "ops_bias": False,
    }),
    "chroma": ("Chroma", {
        **CHROMA, "image_model": "chroma", "in_channels": 64, "out_channels": 64, "in_dim": 64, "out_dim": 128,
        "hidden_dim": 64, "n_layers": 2,
    }),
    "wan": ("WAN21_I2V", WAN),
    "hunyuan-video": ("HunyuanVideo", {
        **FLUX, "image_model": "hunyuan_video", "patch_size": [1, 2, 2], "use_cond_type_embedding": False,
        "byt5": False, "meanflow": False,
    }),
    "qwen-image": ("QwenImage", {
        "image_model": "qwen_image", "in_channels": 64, "num_layers": 1, "num_attention_heads": 1,
        "attention_head_dim": 128, "joint_attention_dim": 64,
    }),
    "z-image": ("ZImage", {**LUMINA, "z_image_modulation": True, "time_scale": 1000.0}),
    "pixart": ("PixArtAlpha", {
        "image_model": "pixart_alpha", "input_size": 8, "patch_size": 2, "in_channels": 4, "hidden_size": 128,
        "depth": 2, "num_heads": 2, "mlp_ratio": 4.0, "caption_channels": 64, "model_max_length": 16,
        "pe_interpolation": 1,
    }),
    "auraflow": ("AuraFlow", {
        "dim": 128, "n_layers": 3, "n_double_layers": 1, "n_heads": 2, "global_conddim": 128, "cond_seq_dim": 64,
        "max_seq": 64,
    }),
    "lumina2": ("Lumina2", {**LUMINA, "dim": 192, "n_heads": 6, "n_kv_heads": 2, "axes_dims": [8, 12, 12]}),
}  # fmt: skip
# Names the host maps to rows that a weight of the family does not have, and that no file has: ours differ on purpose.
READS_DIFFUSERS = ("sd3", "flux", "qwen-image")  # families whose diffusers names the host knows too
HOST_IS_WRONG = {"lumina2": ("attention_to_k", "attention_to_v"), "flux2": ("proj_mlp",)}


def matched(family, kind, config, modules):
    """Of a model of the host's: how our rules differ from its key map, and which modules neither of both finds.

    (names the host knows, [(name, the host's target, ours)], [module that is not found on the host path],
    {dialect: names that a file we write has and the host's map has not})
    """
    import dataclasses

    import comfy.lora
    import comfy.supported_models
    import torch
    from comfy.ldm.chroma.model import ChromaParams
    from comfy.ldm.flux.model import FluxParams
    from comfy.ldm.hunyuan_video.model import HunyuanVideoParams
    from lora_foundry.engine.tensors import TensorInfo
    from lora_foundry.loaders.names.lookup import BaseNames
    from lora_foundry.loaders.names.outgoing import DIALECTS, Outgoing
    from lora_foundry.nodes import host
    from lora_foundry.nodes.sources import HostMatcher

    parameters = {"Flux": FluxParams, "Flux2": FluxParams, "Chroma": ChromaParams, "HunyuanVideo": HunyuanVideoParams}
    if kind in parameters:  # newer hosts want fields that older ones do not know
        fields = {field.name for field in dataclasses.fields(parameters[kind])}
        later = {"txt_ids_dims": [], "vec_in_dim": None, "vision_in_dim": None, "meanflow_sum": False}
        config = {**config, **{name: value for name, value in later.items() if name in fields and name not in config}}
    made = getattr(comfy.supported_models, kind)(config)
    made.set_inference_dtype(torch.float32, None)
    model = made.get_model({}, "", device="meta")
    key_map = comfy.lora.model_lora_keys_unet(model, {})
    tensors = {
        name: TensorInfo(name, torch.bfloat16, tuple(value.shape))
        for name, value in model.diffusion_model.state_dict().items()
    }
    ours, path = BaseNames(tensors, family), HostMatcher(key_map, tensors, family)

    def plain(target):
        whole = target.slice is None or tuple(target.slice) == (0, 0, tensors[target.weight].shape[0])
        return [target.weight, None if whole else list(target.slice), target.transform, target.part]

    known = {name: host.target_of(entry) for name, entry in key_map.items()}
    known = {name: target for name, target in known.items() if target and target.weight in tensors}
    pairs = [(name, [plain(target)], [*map(plain, ours.find(name))]) for name, target in known.items()]
    differ = [pair for pair in pairs if pair[1] != pair[2]]
    weights = [name for name in tensors if name.endswith(".weight")]
    names = {dialect: Outgoing(tensors, family, dialect) for dialect in DIALECTS}
    units = {each: [unit.name for name in weights for unit in names[each].units(name)] for each in DIALECTS}
    unknown = {dialect: [name for name in found if name not in key_map] for dialect, found in units.items()}
    return len(pairs), differ, [module for module in modules if not path.find(module)], unknown


# Classes of the host whose network has the names of another one above.
SAME_NAMES = {
    "sd15": ("SD15_instructpix2pix", "LotusD", "SD20", "SD21UnclipL", "SD21UnclipH", "SD_X4Upscaler", "Stable_Zero123"),
    "sdxl": ("SDXL_instructpix2pix", "SDXLRefiner", "SSD1B", "Segmind_Vega", "KOALA_700M", "KOALA_1B"),
    "flux": ("FluxInpaint", "FluxSchnell"),
    "chroma": ("ChromaRadiance",),
    "pixart": ("PixArtSigma",),
    "wan": ("WAN21_T2V", "WAN21_FunControl2V", "WAN21_Vace", "WAN21_Camera", "WAN22_Camera", "WAN22_S2V", "WAN21_HuMo",
            "WAN22_Animate", "WAN22_T2V"),
    "hunyuan-video": ("HunyuanVideoI2V", "HunyuanVideoSkyreelsI2V", "HunyuanVideo15", "HunyuanVideo15_SR_Distilled",
                      "HunyuanImage21", "HunyuanImage21Refiner"),
}  # fmt: skip
# Classes whose LoRAs are named as the network is: no table of ours or of the host's is needed beside the prefixes.
OWN_NAMES = {
    "Stable_Cascade_C": "kohya with lora_prior_unet_", "Stable_Cascade_B": "kohya", "StableAudio": "no LoRAs known",
    "SVD_img2vid": "no LoRAs known", "SV3D_u": "no LoRAs known", "SV3D_p": "no LoRAs known",
    "HunyuanDiT": "official, base_model.model.", "HunyuanDiT1": "official, base_model.model.", "GenmoMochi": "official",
    "LTXV": "diffusers names are its own", "CosmosT2V": "official", "CosmosI2V": "official",
    "CosmosT2IPredict2": "official", "CosmosI2VPredict2": "official", "Hunyuan3Dv2": "no LoRAs known",
    "Hunyuan3Dv2_1": "no LoRAs known", "Hunyuan3Dv2mini": "no LoRAs known", "HiDream": "diffusers names are its own",
    "ACEStep": "official", "Omnigen2": "diffusers names are its own",
}  # fmt: skip
PREFIXES = ("{name}", "diffusion_model.{name}", "transformer.{name}", "base_model.model.{name}", "lora_unet_{flat}",
            "lycoris_{flat}", "lora_transformer_{flat}")  # fmt: skip


def test_every_model_class_of_the_host_is_compared_or_listed(inprocess):
    """A class that a newer host brings is known to this test, or listed here with the reason why not."""
    known = {kind for kind, _ in MODELS.values()} | {kind for kinds in SAME_NAMES.values() for kind in kinds}
    assert not known & OWN_NAMES.keys()
    classes, missing = inprocess(spelled, PREFIXES)
    assert set(classes) == known | OWN_NAMES.keys()
    assert missing == []


def spelled(prefixes):
    """(the names of the host's model classes, [spelling of a name as in the network itself that we do not find])"""
    import comfy.supported_models
    import torch
    from lora_foundry.engine.tensors import TensorInfo
    from lora_foundry.loaders.names.lookup import BaseNames

    names = ("blocks.0.self_attn.q_proj", "layers.3.attn.to_out.0", "transformer_blocks.1.ff.net.0.proj",
             "double_stream_blocks.1.block.ff_i.experts.0.w1", "down_blocks.0.2.attention.attn.in_proj")  # fmt: skip
    ours = BaseNames({f"{name}.weight": TensorInfo(f"{name}.weight", torch.bfloat16, (8, 8)) for name in names})
    tried = [each.format(name=name, flat=name.replace(".", "_")) for name in names for each in prefixes]
    classes = [kind.__name__ for kind in comfy.supported_models.models]
    return classes, [module for module in tried if not ours.find(module)]


def modules_of(family):
    """Every module of the dialects' fixtures of a family."""
    files = [shapes for name, shapes in FIXTURES.values() if name == family]
    parts = [part for shapes in files for part in map(split, shapes) if part]
    return sorted({part.target for part in parts if not is_text_encoder(part.module)})


@pytest.mark.parametrize("family", MODELS)
def test_rules_agree_with_the_hosts_key_map(inprocess, family):
    """Every name the host knows means the same to us, and every dialect's modules are found with its map."""
    kind, config = MODELS[family]
    count, differ, missing, unknown = inprocess(matched, family, kind, config, modules_of(family))
    wrong = HOST_IS_WRONG.get(family, ())
    assert count > 50 and [pair for pair in differ if not pair[0].replace(".", "_").endswith(wrong)] == []
    assert missing == []
    assert unknown["comfyui"] == unknown["kohya"] == [], "files we write, by the host's own loader"
    assert family not in READS_DIFFUSERS or unknown["diffusers"] == []
