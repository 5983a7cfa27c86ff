"""LoRA files as they are found: every tensor name and shape of one block, written as the rule its trainer follows.

``FIXTURES`` maps a name to (family, {tensor name: shape}); an alpha has the shape ``()``. Sources of the names are the
trainers' own code; the shapes are those of the real models.
"""

from __future__ import annotations

from collections.abc import Mapping

Shape = tuple[int, ...]
Shapes = dict[str, Shape]
Modules = Mapping[str, Shape]


def pairs(modules: Modules, rank: int, down: str, up: str, alpha: bool = False) -> Shapes:
    """Both factors of every module: ``modules`` maps a module to its weight's shape."""
    shapes: Shapes = {}
    for module, (out, inn, *kernel) in modules.items():
        shapes[module + down] = (rank, inn, *kernel)
        shapes[module + up] = (out, rank, *([1] * len(kernel)))
        if alpha:
            shapes[module + ".alpha"] = ()
    return shapes


def kohya(modules: Modules, rank: int, alpha: bool = True) -> Shapes:
    return pairs(modules, rank, ".lora_down.weight", ".lora_up.weight", alpha)


def peft(modules: Modules, rank: int, adapter: str = "") -> Shapes:
    return pairs(modules, rank, f".lora_A{adapter}.weight", f".lora_B{adapter}.weight")


def named(prefix: str, modules: Modules) -> Shapes:
    """The modules with a prefix; one that ends in "_" makes them flat."""
    return {prefix + (name.replace(".", "_") if prefix.endswith("_") else name): s for name, s in modules.items()}


def inside(block: str, modules: Modules) -> Shapes:
    return {f"{block}.{name}": shape for name, shape in modules.items()}


SD15_BLOCK = "down_blocks.0.attentions.0.transformer_blocks.0"
SDXL_BLOCK = "input_blocks.4.1.transformer_blocks.0"
SDXL_Q, SDXL_K, SDXL_V = (f"lora_unet_{SDXL_BLOCK}.attn1.to_{part}".replace(".", "_") for part in "qkv")
SDXL_CONV, SDXL_PROJ = "lora_unet_input_blocks_1_0_in_layers_2", "lora_unet_input_blocks_4_1_proj_in"
SDXL_CROSS = f"lora_unet_{SDXL_BLOCK}.attn2".replace(".", "_")
TE_FC1 = {"lora_te_text_model_encoder_layers_0_mlp_fc1": (3072, 768)}

QWEN_ATTENTION = ("add_k_proj", "add_q_proj", "add_v_proj", "to_add_out", "to_k", "to_out.0", "to_q", "to_v")
QWEN_MLP = {"net.0.proj": (12288, 3072), "net.2": (3072, 12288)}
QWEN = inside(
    "transformer_blocks.0",
    {
        **inside("attn", dict.fromkeys(QWEN_ATTENTION, (3072, 3072))),
        **inside("img_mlp", QWEN_MLP),
        **inside("txt_mlp", QWEN_MLP),
        "img_mod.1": (18432, 3072),
    },
)


def qwen(*parts: str) -> Shapes:
    return {f"transformer_blocks.0.{part}": QWEN[f"transformer_blocks.0.{part}"] for part in parts}


WAN = {
    "blocks.0.self_attn.q": (5120, 5120), "blocks.0.self_attn.k": (5120, 5120), "blocks.0.self_attn.o": (5120, 5120),
    "blocks.0.cross_attn.k": (5120, 5120), "blocks.0.cross_attn.v": (5120, 5120), "blocks.0.cross_attn.o": (5120, 5120),
    "blocks.0.ffn.0": (13824, 5120), "blocks.0.ffn.2": (5120, 13824),
}  # fmt: skip


def wan(*parts: str) -> Shapes:
    return {f"blocks.0.{part}": WAN[f"blocks.0.{part}"] for part in parts}


FLUX = {
    "double_blocks.0.img_attn.qkv": (9216, 3072), "double_blocks.0.img_attn.proj": (3072, 3072),
    "double_blocks.0.img_mlp.0": (12288, 3072), "double_blocks.0.img_mod.lin": (18432, 3072),
    "single_blocks.0.linear1": (21504, 3072), "single_blocks.0.linear2": (3072, 15360),
}  # fmt: skip
FLUX_NATIVE = {name: shape for name, shape in FLUX.items() if "mod" not in name and "mlp" not in name}
FLUX_DIFFUSERS = {
    **inside("single_transformer_blocks.0", {
        "attn.to_q": (3072, 3072), "attn.to_k": (3072, 3072), "attn.to_v": (3072, 3072),
        "norm.linear": (9216, 3072), "proj_mlp": (12288, 3072), "proj_out": (3072, 15360),
    }),
    **inside("transformer_blocks.0", {
        "attn.to_q": (3072, 3072), "attn.add_q_proj": (3072, 3072), "attn.to_out.0": (3072, 3072),
        "ff.net.0.proj": (12288, 3072), "norm1.linear": (18432, 3072),
    }),
}  # fmt: skip
FLUX_PEFT = {
    "single_transformer_blocks.0.attn.to_q": (3072, 3072), "single_transformer_blocks.0.proj_mlp": (12288, 3072),
    "transformer_blocks.0.attn.to_k": (3072, 3072), "proj_out": (64, 3072),
}  # fmt: skip
FLUX_CONTROL = {
    "img_in": (3072, 128), "single_blocks.0.linear1": (21504, 3072), "double_blocks.0.img_attn.qkv": (9216, 3072),
}  # fmt: skip
FLUX2 = {
    "double_blocks.0.img_attn.qkv": (18432, 6144), "double_blocks.0.img_attn.proj": (6144, 6144),
    "double_blocks.0.img_mlp.0": (36864, 6144),
    "single_blocks.0.linear1": (55296, 6144), "single_blocks.0.linear2": (6144, 24576),
}  # fmt: skip
Z_IMAGE = inside("layers.0", {
    "attention.to_q": (3840, 3840), "attention.to_k": (3840, 3840), "attention.to_v": (3840, 3840),
    "attention.to_out.0": (3840, 3840), "feed_forward.w1": (10240, 3840), "adaLN_modulation.0": (15360, 256),
})  # fmt: skip
ATTN1 = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1"
HUNYUAN = {"double_blocks.0.img_attn_qkv": (9216, 3072), "double_blocks.0.img_mlp.fc1": (12288, 3072)}

SDXL_LORA = {
    SDXL_PROJ: (640, 640), SDXL_Q: (640, 640), f"{SDXL_CROSS}_to_v": (640, 2048),
    f"lora_unet_{SDXL_BLOCK}.ff.net.2".replace(".", "_"): (640, 2560),
    "lora_te1_text_model_encoder_layers_0_self_attn_k_proj": (768, 768),
    "lora_te2_text_model_encoder_layers_0_mlp_fc2": (1280, 5120),
}  # fmt: skip
SD15_LORA = {
    "lora_unet_down_blocks_0_attentions_0_proj_in": (320, 320, 1, 1),
    **named("lora_unet_", inside(SD15_BLOCK, {
        "attn1.to_q": (320, 320), "attn2.to_k": (320, 768), "ff.net.0.proj": (2560, 320),
    })),
    **TE_FC1,
    "lora_te_text_model_encoder_layers_0_self_attn_q_proj": (768, 768),
}  # fmt: skip
SD15_LOCON = named("lora_unet_down_blocks_0_", {
    "resnets_0_conv1": (320, 320, 3, 3), "downsamplers_0_conv": (320, 320, 3, 3),
    "resnets_0_time_emb_proj": (320, 1280),
})  # fmt: skip
LOHA = {
    **{f"{SDXL_Q}.hada_w{i}_{side}": s for i in (1, 2) for side, s in (("a", (640, 8)), ("b", (8, 640)))},
    **{f"{SDXL_CONV}.hada_w{i}_{side}": (8, 320) for i in (1, 2) for side in "ab"},
    **{f"{SDXL_CONV}.hada_t{i}": (8, 8, 3, 3) for i in (1, 2)},
    f"{SDXL_Q}.alpha": (), f"{SDXL_CONV}.alpha": (),
}  # fmt: skip
LOKR = {
    f"{SDXL_Q}.lokr_w1": (8, 8), f"{SDXL_Q}.lokr_w2_a": (80, 16), f"{SDXL_Q}.lokr_w2_b": (16, 80),
    f"{SDXL_K}.lokr_w1": (8, 8), f"{SDXL_K}.lokr_w2": (80, 80),
    f"{SDXL_V}.lokr_w1_a": (8, 2), f"{SDXL_V}.lokr_w1_b": (2, 8),
    f"{SDXL_V}.lokr_w2_a": (80, 2), f"{SDXL_V}.lokr_w2_b": (2, 80),
    f"{SDXL_CONV}.lokr_w1": (8, 8), f"{SDXL_CONV}.lokr_t2": (4, 4, 3, 3),
    f"{SDXL_CONV}.lokr_w2_a": (4, 40), f"{SDXL_CONV}.lokr_w2_b": (4, 40),
    **{f"{module}.alpha": () for module in (SDXL_Q, SDXL_K, SDXL_V, SDXL_CONV)},
}  # fmt: skip
DORA = {
    **kohya({SDXL_Q: (640, 640), f"{SDXL_CROSS}_to_k": (640, 2048), SDXL_CONV: (320, 320, 3, 3)}, 16),
    f"{SDXL_Q}.dora_scale": (1, 640), f"{SDXL_CROSS}_to_k.dora_scale": (640, 1),
    f"{SDXL_CONV}.dora_scale": (1, 320, 1, 1),
}  # fmt: skip
NORM1 = f"lora_unet_{SDXL_BLOCK}.norm1".replace(".", "_")
MISC = {
    f"{SDXL_Q}.diff": (640, 640), f"{SDXL_PROJ}.diff": (640, 640), f"{SDXL_PROJ}.diff_b": (640,),
    f"{NORM1}.w_norm": (640,), f"{NORM1}.b_norm": (640,),
    f"{SDXL_K}.oft_blocks": (16, 40, 40), f"{SDXL_K}.alpha": (),
    f"{SDXL_V}.oft_blocks": (2, 16, 20, 20), f"{SDXL_V}.rescale": (640, 1),
    **{f"{SDXL_CROSS}_to_q.{part}{i}.weight": s for part in "ab" for i, s in ((1, (8, 640)), (2, (640, 8)))},
    f"{SDXL_CROSS}_to_q.alpha": (),
}  # fmt: skip
IA3 = {f"{SDXL_CROSS}_to_v.weight": (640,), f"{SDXL_CROSS}_to_v.on_input": ()}
STEP_DISTILL = named("diffusion_model.", {
    **kohya(wan("self_attn.q", "self_attn.k", "cross_attn.v", "ffn.0"), 32, alpha=False),
    **{f"blocks.0.{part}.diff_b": (5120,) for part in ("self_attn.q", "self_attn.k", "cross_attn.v", "norm3")},
    **{f"blocks.0.{part}.diff": (5120,) for part in ("self_attn.norm_q", "self_attn.norm_k", "norm3")},
    "blocks.0.ffn.0.diff_b": (13824,), "blocks.0.diff_m": (1, 6, 5120),
    "head.head.diff": (64, 5120), "head.head.diff_b": (64,), "time_projection.1.diff_b": (30720,),
})  # fmt: skip
CONTROL = {
    **peft(FLUX_CONTROL, 128), **peft({"final_layer.linear": (64, 3072)}, 64),
    "img_in.lora_B.bias": (3072,), "single_blocks.0.linear1.lora_B.bias": (21504,),
    "double_blocks.0.img_attn.qkv.lora_B.bias": (9216,), "final_layer.linear.lora_B.bias": (64,),
    "single_blocks.0.norm.key_norm.scale": (128,), "single_blocks.0.norm.query_norm.scale": (128,),
    "double_blocks.0.img_attn.norm.key_norm.scale": (128,),
}  # fmt: skip
PEFT_DORA = {
    **peft({f"transformer.transformer_blocks.0.attn.to_{part}": (3072, 3072) for part in "qk"}, 16),
    "transformer.transformer_blocks.0.attn.to_q.lora_magnitude_vector": (3072,),
    "transformer.transformer_blocks.0.attn.to_k.lora_magnitude_vector.weight": (3072,),
}
AI_TOOLKIT_DORA = {
    **peft({"diffusion_model.double_blocks.0.img_attn.proj": (3072, 3072),
            "diffusion_model.single_blocks.0.linear1": (21504, 3072)}, 16),
    "diffusion_model.double_blocks.0.img_attn.proj.magnitude": (3072,),
    "diffusion_model.single_blocks.0.linear1.magnitude": (21504,),
}  # fmt: skip
QWEN_LOKR = {
    "lycoris_transformer_blocks_0_attn_to_q.lokr_w1": (16, 16),
    "lycoris_transformer_blocks_0_attn_to_q.lokr_w2": (192, 192),
    "lycoris_transformer_blocks_0_attn_to_q.alpha": (),
    "lycoris_transformer_blocks_0_img_mlp_net_2.lokr_w1": (16, 16),
    "lycoris_transformer_blocks_0_img_mlp_net_2.lokr_w2_a": (192, 32),
    "lycoris_transformer_blocks_0_img_mlp_net_2.lokr_w2_b": (32, 768),
    "lycoris_transformer_blocks_0_img_mlp_net_2.alpha": (),
}
BROKEN = {  # the fork's exporter cut A along its columns: the information is there, the meaning is not
    name: (32, 1024) if "lora_A" in name else shape
    for name, shape in peft(qwen("attn.to_q", "attn.to_k", "attn.to_v"), 32, ".default").items()
}
MERGED = {
    "transformer_blocks.0.attn.to_qkv": (9216, 3072), "transformer_blocks.0.attn.add_qkv_proj": (9216, 3072),
    **qwen("attn.to_out.0", "img_mlp.net.2"),
}  # fmt: skip
DIFFSYNTH_QWEN = qwen(
    "attn.to_q", "attn.to_k", "attn.to_v", "attn.add_q_proj", "attn.to_out.0", "attn.to_add_out", "img_mlp.net.2",
    "img_mod.1",
)  # fmt: skip
MUSUBI_QWEN = qwen("attn.to_q", "attn.add_k_proj", "attn.to_out.0", "img_mlp.net.0.proj")
DIFFSYNTH_WAN = wan("self_attn.q", "self_attn.k", "self_attn.o", "cross_attn.v", "ffn.0", "ffn.2")
MUSUBI_WAN = wan("self_attn.q", "cross_attn.k", "cross_attn.o", "ffn.0", "ffn.2")
AITOOLKIT_FLUX = {**FLUX_NATIVE, "double_blocks.0.txt_mlp.0": (12288, 3072)}
WAN_DIFFUSERS = inside("blocks.0", {
    "attn1.to_q": (5120, 5120), "attn2.to_out.0": (5120, 5120), "ffn.net.0.proj": (13824, 5120),
})  # fmt: skip
FLUX2_DIFFUSERS = {
    **inside("single_transformer_blocks.0.attn", {"to_qkv_mlp_proj": (55296, 6144), "to_out": (6144, 24576)}),
    **inside("transformer_blocks.0", {
        "attn.to_q": (6144, 6144), "ff.linear_in": (36864, 6144), "ff.linear_out": (6144, 18432),
    }),
}  # fmt: skip
XLABS = {
    **inside("double_blocks.0.processor", {
        "qkv_lora1": (9216, 3072), "proj_lora1": (3072, 3072), "qkv_lora2": (9216, 3072), "proj_lora2": (3072, 3072),
    }),
}  # fmt: skip
XLABS_SINGLE = {
    "single_blocks.0.processor.qkv_lora": (9216, 3072),
    "single_blocks.0.processor.proj_lora": (3072, 15360),
}
SD3 = {
    "transformer_blocks.0.attn.to_q": (1536, 1536), "transformer_blocks.0.attn.add_k_proj": (1536, 1536),
    "transformer_blocks.0.ff.net.0.proj": (6144, 1536),
}  # fmt: skip

FIXTURES: dict[str, tuple[str, Shapes]] = {
    "kohya_sd15_lora": ("sd15", kohya(SD15_LORA, 32)),
    "kohya_sdxl_lora": ("sdxl", kohya(SDXL_LORA, 32)),
    "kohya_locon_conv3x3_sd15": ("sd15", kohya(SD15_LOCON, 8)),
    "lycoris_loha_sdxl": ("sdxl", LOHA),
    "lycoris_lokr_sdxl": ("sdxl", LOKR),
    "lycoris_dora_sdxl": ("sdxl", DORA),
    "lycoris_misc_sdxl": ("sdxl", {**MISC, **IA3}),
    "lightx2v_qwen_image_lightning": (
        "qwen-image", kohya({name: s for name, s in QWEN.items() if "_mod" not in name}, 64),
    ),
    "diffsynth_qwen_image": ("qwen-image", peft(DIFFSYNTH_QWEN, 32, ".default")),
    "seedfork_merged_qkv_qwen": ("qwen-image", peft(MERGED, 32, ".default")),
    "seedfork_merged_qkv_BROKEN_split": ("qwen-image", BROKEN),
    "diffsynth_wan": ("wan", peft(DIFFSYNTH_WAN, 32, ".default")),
    "musubi_wan": ("wan", kohya(named("lora_unet_", MUSUBI_WAN), 32)),
    "videox_fun_wan": ("wan", kohya(named("lora_unet__", wan("self_attn.q", "cross_attn.k", "ffn.0")), 64)),
    "lightx2v_wan_step_distill_extracted": ("wan", STEP_DISTILL),
    "aitoolkit_wan": ("wan", peft(named("diffusion_model.", wan("self_attn.q", "cross_attn.v", "ffn.0")), 32)),
    "kohya_flux": (
        "flux",
        kohya({**named("lora_unet_", FLUX), "lora_te1_text_model_encoder_layers_0_mlp_fc1": (3072, 768)}, 16),
    ),
    "diffusers_flux": ("flux", peft(named("transformer.", FLUX_DIFFUSERS), 32)),
    "peft_raw_flux": ("flux", peft(named("base_model.model.", FLUX_PEFT), 4)),
    "aitoolkit_flux_native": ("flux", peft(named("diffusion_model.", AITOOLKIT_FLUX), 16)),
    "aitoolkit_flux2": ("flux2", peft(named("diffusion_model.", FLUX2), 16)),
    "bfl_flux_control": ("flux", CONTROL),
    "aitoolkit_zimage": ("z-image", peft(named("diffusion_model.", Z_IMAGE), 32)),
    "musubi_zimage": (
        "z-image", kohya(named("lora_unet_", {n: s for n, s in Z_IMAGE.items() if "adaLN" not in n}), 32),
    ),
    "simpletuner_lycoris_qwen": ("qwen-image", QWEN_LOKR),
    "musubi_qwen": ("qwen-image", kohya(named("lora_unet_", MUSUBI_QWEN), 16)),
    "diffusers_attnprocs_sd15": ("sd15", {
        **pairs({f"{ATTN1}.processor.to_{p}": (320, 320) for p in ("q", "out")}, 4, "_lora.down.weight",
                "_lora.up.weight"),
        **pairs({"text_encoder.text_model.encoder.layers.0.self_attn.q_proj": (768, 768)}, 4,
                ".lora_linear_layer.down.weight", ".lora_linear_layer.up.weight"),
    }),
    "diffusers_peft_sd15": ("sd15", peft({f"{ATTN1}.to_{p}": (320, 320) for p in ("q", "k", "out.0")}, 4)),
    "peft_dora_flux": ("flux", PEFT_DORA),
    "aitoolkit_dora_flux": ("flux", AI_TOOLKIT_DORA),
    "diffusers_sd3": ("sd3", peft(named("transformer.", SD3), 16)),
    # Others that people have; names from the trainers named in each key, shapes from the models.
    "diffusers_wan": ("wan", peft(named("transformer.", WAN_DIFFUSERS), 32)),
    "diffusers_flux2": ("flux2", peft(named("transformer.", FLUX2_DIFFUSERS), 16)),
    "diffusion_pipe_hunyuan": ("hunyuan-video", peft(named("transformer.", HUNYUAN), 32)),
    "fal_kontext_flux": ("flux", peft(named("base_model.model.", FLUX_NATIVE), 16)),
    "xlabs_flux": ("flux", pairs({**XLABS, **XLABS_SINGLE}, 16, ".down.weight", ".up.weight")),
    "onetrainer_flux": ("flux", kohya(named("lora_transformer_", FLUX_DIFFUSERS), 16)),
    "peft_named_wan": ("wan", peft(named("base_model.model.", wan("self_attn.q", "ffn.0")), 16, ".style")),
}  # fmt: skip
