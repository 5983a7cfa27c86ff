"""The smallest model of every class that ComfyUI (0.3.75 to 0.33) has: what its networks are built from.

Names, and which rows are meant, do not depend on the size. Where a network has no sizes of its own choice, or sensible
ones by default, it is built at its real size: nothing is computed, and there is no memory behind a weight.
"""

from __future__ import annotations

from typing import Any

Settings = dict[str, Any]

FLUX: Settings = {
    "image_model": "flux", "in_channels": 16, "out_channels": 16, "vec_in_dim": 64, "context_in_dim": 64,
    "hidden_size": 128, "mlp_ratio": 4.0, "num_heads": 1, "depth": 2, "depth_single_blocks": 2,
    "axes_dim": [16, 56, 56], "theta": 10000, "patch_size": 2, "qkv_bias": True, "guidance_embed": True,
}  # fmt: skip
UNET: Settings = {
    "image_size": 32, "in_channels": 4, "out_channels": 4, "model_channels": 64, "use_spatial_transformer": True,
    "legacy": False, "use_checkpoint": False, "context_dim": 64, "transformer_depth_middle": 1,
}  # fmt: skip
WAN: Settings = {
    "image_model": "wan2.1", "model_type": "i2v", "dim": 128, "ffn_dim": 128, "num_heads": 1, "num_layers": 2,
    "in_dim": 36, "out_dim": 16, "patch_size": (1, 2, 2), "freq_dim": 256, "window_size": (-1, -1), "qk_norm": True,
    "cross_attn_norm": True, "eps": 1e-6,
}  # fmt: skip
LUMINA: Settings = {
    "image_model": "lumina2", "patch_size": 2, "in_channels": 16, "dim": 128, "cap_feat_dim": 64, "n_layers": 1,
    "qk_norm": True, "n_heads": 1, "n_kv_heads": 1, "axes_dims": [32, 48, 48], "axes_lens": [300, 512, 512],
    "rope_theta": 256.0, "ffn_dim_multiplier": 2.0,
}  # fmt: skip
CHROMA: Settings = {name: value for name, value in FLUX.items() if name not in ("vec_in_dim", "guidance_embed")}
EMBEDDER: Settings = {"target": "torch.nn.Linear", "params": {"in_features": 96, "out_features": 128}}

# Family -> the host's class and the smallest model of it: names and which rows are meant do not depend on the size.
MODELS: dict[str, tuple[str, Settings]] = {
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

UNET15, UNETXL = MODELS["sd15"][1], MODELS["sdxl"][1]
UNET20: Settings = {**UNET15, "use_linear_in_transformer": True}
CLASSES: Settings = {"num_classes": "sequential"}
SVD: Settings = {
    **UNET20, **CLASSES, "in_channels": 8, "extra_ff_mix_layer": True, "use_spatial_context": True,
    "merge_strategy": "learned_with_images", "merge_factor": 0.0, "video_kernel_size": [3, 1, 1],
    "use_temporal_resblock": True, "use_temporal_attention": True, "disable_temporal_crossattention": False,
}  # fmt: skip
ONE_A_LEVEL: Settings = {**UNETXL, "num_res_blocks": [1] * 3}
TEXT_TO_VIDEO: Settings = {**WAN, "model_type": "t2v", "in_dim": 16}
HUNYUAN: Settings = {**MODELS["hunyuan-video"][1], "vision_in_dim": None, "meanflow_sum": False}
HUNYUAN15: Settings = {
    **HUNYUAN, "vec_in_dim": None, "byt5": True, "use_cond_type_embedding": True, "vision_in_dim": 1152,
    "meanflow_sum": True, "depth_single_blocks": 0,
}  # fmt: skip
COSMOS: Settings = {
    "max_img_h": 240, "max_img_w": 240, "max_frames": 128, "in_channels": 16, "out_channels": 16, "patch_spatial": 2,
    "patch_temporal": 1, "model_channels": 128, "concat_padding_mask": True, "pos_emb_cls": "rope3d",
    "pos_emb_interpolation": "crop", "use_adaln_lora": True, "adaln_lora_dim": 16, "num_blocks": 2, "num_heads": 1,
}  # fmt: skip
COSMOS1: Settings = {
    **COSMOS, "image_model": "cosmos", "block_config": "FA-CA-MLP", "pos_emb_learnable": False,
    "block_x_format": "THWBD", "affline_emb_norm": True, "extra_per_block_abs_pos_emb": True,
    "extra_per_block_abs_pos_emb_type": "learnable",
}  # fmt: skip
COSMOS2: Settings = {
    **COSMOS, "image_model": "cosmos_predict2", "crossattn_emb_channels": 64, "pos_emb_learnable": True, "min_fps": 1,
    "max_fps": 30, "extra_per_block_abs_pos_emb": False,
}  # fmt: skip
HYDIT: Settings = {"depth": 4, "hidden_size": 128, "num_heads": 2}
HUNYUAN3D: Settings = {
    "image_model": "hunyuan3d2", "in_channels": 64, "context_in_dim": 64, "hidden_size": 128, "mlp_ratio": 4.0,
    "num_heads": 1, "depth": 2, "depth_single_blocks": 2, "qkv_bias": True, "guidance_embed": True,
}  # fmt: skip
STABLE_AUDIO: Settings = {
    "audio_model": "dit1.0", "global_cond_dim": 64, "project_cond_tokens": False, "embed_dim": 128, "depth": 2,
    "num_heads": 2, "io_channels": 64, "input_concat_dim": 0, "cond_token_dim": 64,
}  # fmt: skip
COGVIDEO: Settings = {
    "image_model": "cogvideox", "num_attention_heads": 2, "attention_head_dim": 64, "time_embed_dim": 32,
    "num_layers": 2, "in_channels": 16, "patch_size": 2, "text_embed_dim": 64,
    "use_rotary_positional_embeddings": True, "use_learned_positional_embeddings": False,
}  # fmt: skip
KANDINSKY: Settings = {
    "image_model": "kandinsky5", "model_dim": 128, "axes_dims": [16, 24, 24], "time_dim": 64, "ff_dim": 256,
    "visual_embed_dim": 132, "num_text_blocks": 2, "num_visual_blocks": 2,
}  # fmt: skip
OMNIGEN2: Settings = {
    "image_model": "omnigen2", "axes_dim_rope": [40, 40, 40], "axes_lens": [1024, 1664, 1664],
    "ffn_dim_multiplier": None, "hidden_size": 240, "in_channels": 16, "multiple_of": 16, "norm_eps": 1e-5,
    "num_attention_heads": 2, "num_kv_heads": 1, "num_layers": 2, "num_refiner_layers": 2, "out_channels": None,
    "patch_size": 2, "text_feat_dim": 64, "timestep_scale": 1000.0,
}  # fmt: skip
ACE_STEP: Settings = {
    "audio_model": "ace", "attention_head_dim": 64, "in_channels": 8, "inner_dim": 128, "max_height": 16,
    "max_position": 32768, "max_width": 32768, "mlp_ratio": 2.5, "num_attention_heads": 2, "num_layers": 2,
    "out_channels": 8, "patch_size": [16, 1], "rope_theta": 1000000.0, "speaker_embedding_dim": 64,
    "text_embedding_dim": 64, "ssl_encoder_depths": [8, 8], "ssl_latent_dims": [64, 64],
    "ssl_names": ["mert", "m-hubert"], "lyric_encoder_vocab_size": 100, "lyric_hidden_size": 64,
}  # fmt: skip
ACE_STEP15: Settings = {
    "audio_model": "ace1.5", "hidden_size": 256, "intermediate_size": 256, "num_heads": 2, "encoder_hidden_size": 256,
    "encoder_num_heads": 2, "encoder_intermediate_size": 256, "num_dit_layers": 2,
}  # fmt: skip
HIDREAM: Settings = {
    "image_model": "hidream", "attention_head_dim": 64, "axes_dims_rope": [32, 16, 16], "caption_channels": [64, 64],
    "max_resolution": [128, 128], "in_channels": 16, "llama_layers": [0, 1, 2], "num_attention_heads": 2,
    "num_routed_experts": 2, "num_activated_experts": 1, "num_layers": 1, "num_single_layers": 1, "out_channels": 16,
    "patch_size": 2, "text_emb_dim": 64,
}  # fmt: skip
MOCHI: Settings = {
    "image_model": "mochi_preview", "depth": 2, "patch_size": 2, "num_heads": 24, "hidden_size_x": 3072,
    "hidden_size_y": 1536, "mlp_ratio_x": 4.0, "mlp_ratio_y": 4.0, "in_channels": 12, "qk_norm": True,
    "qkv_bias": False, "use_t5": True, "t5_feat_dim": 64, "t5_token_length": 16, "attend_to_padding": False,
}  # fmt: skip
RADIANCE: Settings = {
    **MODELS["chroma"][1], "image_model": "chroma_radiance", "in_channels": 3, "out_channels": 3, "patch_size": 16,
    "nerf_hidden_size": 64, "nerf_mlp_ratio": 4, "nerf_depth": 4, "nerf_max_freqs": 8, "nerf_tile_size": 512,
    "nerf_final_head_type": "conv", "nerf_embedder_dtype": None, "use_x0": False, "use_sequential_txt_ids": False,
}  # fmt: skip
CASCADE_B: Settings = {
    "c_hidden": [32, 64, 64, 64], "nhead": [-1, -1, 1, 1], "blocks": [[1] * 4] * 2, "block_repeat": [[1] * 4] * 2,
}  # fmt: skip
PIXEL: Settings = {"in_channels": 3, "decoder_in_channels": 12, "decoder_hidden_size": 32, "decoder_num_res_blocks": 1}
SHORT: Settings = {"num_layers": 2}

# The host's class -> what is added to what it knows itself (``unet_config``): every class but those of ``MODELS``.
OTHERS: dict[str, Settings] = {
    "LotusD": {**UNET20, **CLASSES, "adm_in_channels": 4, "num_heads": 8}, "SD20": UNET20,
    "SD21UnclipL": {**UNET20, **CLASSES, "adm_in_channels": 1536},
    "SD21UnclipH": {**UNET20, **CLASSES, "adm_in_channels": 2048},
    "SD_X4Upscaler": {**UNET20, "in_channels": 7, "num_classes": 1000},
    "Stable_Zero123": {**UNET15, "in_channels": 8}, "SD15_instructpix2pix": {**UNET15, "in_channels": 8},
    "SDXL_instructpix2pix": {**UNETXL, "in_channels": 8},
    "SDXLRefiner": {
        **UNETXL, "num_res_blocks": [2] * 4, "channel_mult": [1] * 4, "transformer_depth": [0, 0, 2, 2, 2, 2, 0, 0],
        "transformer_depth_output": [0, 0, 0, 2, 2, 2, 2, 2, 2, 0, 0, 0],
    },
    "SSD1B": {**UNETXL, "transformer_depth_middle": -1},
    "Segmind_Vega": {**UNETXL, "transformer_depth": [0, 0, 1, 1, 2, 2], "transformer_depth_middle": -1,
                     "transformer_depth_output": [0, 0, 0, 1, 1, 1, 2, 2, 2]},
    "KOALA_700M": {**ONE_A_LEVEL, "transformer_depth": [0, 2, 5], "transformer_depth_output": [0, 0, 2, 2, 5, 5],
                   "transformer_depth_middle": -2},
    "KOALA_1B": {**ONE_A_LEVEL, "transformer_depth": [0, 2, 6], "transformer_depth_output": [0, 0, 2, 2, 6, 6],
                 "transformer_depth_middle": 6},
    "SVD_img2vid": {**SVD, "adm_in_channels": 768}, "SV3D_u": {**SVD, "adm_in_channels": 256},
    "SV3D_p": {**SVD, "adm_in_channels": 1280},
    "Stable_Cascade_C": {"c_cond": 64, "c_hidden": [64, 64], "nhead": [1, 1], "blocks": [[1, 1], [1, 1]]},
    "Stable_Cascade_B": CASCADE_B, "StableAudio": STABLE_AUDIO,
    "StableAudio3": {**STABLE_AUDIO, "global_cond_type": "adaLN", "timestep_features_type": "expo"},
    "PixArtSigma": {**MODELS["pixart"][1], "image_model": "pixart_sigma", "micro_condition": False},
    "HunyuanDiT": HYDIT, "HunyuanDiT1": {**HYDIT, "size_cond": True, "use_style_cond": True},
    "FluxInpaint": {**FLUX, "in_channels": 96}, "FluxSchnell": {**FLUX, "guidance_embed": False},
    "LongCatImage": {**FLUX, "guidance_embed": False, "vec_in_dim": None, "context_in_dim": 3584},
    "ChromaRadiance": RADIANCE, "GenmoMochi": MOCHI,
    "LTXV": {"num_layers": 2, "attention_head_dim": 4, "cross_attention_dim": 64}, "LTXAV": SHORT, "MiniMaxH3": SHORT,
    "HunyuanVideoI2V": {**HUNYUAN, "in_channels": 33}, "HunyuanVideoSkyreelsI2V": {**HUNYUAN, "in_channels": 32},
    "HunyuanVideo15": HUNYUAN15, "HunyuanVideo15_SR_Distilled": {**HUNYUAN15, "in_channels": 98},
    "HunyuanImage21": {**HUNYUAN, "vec_in_dim": None, "byt5": True, "axes_dim": [64, 64], "patch_size": [1, 1]},
    "HunyuanImage21Refiner": {**HUNYUAN, "vec_in_dim": None, "patch_size": [1, 1, 1]},
    "CosmosT2V": COSMOS1, "CosmosI2V": {**COSMOS1, "in_channels": 17}, "CosmosT2IPredict2": COSMOS2,
    "CosmosI2VPredict2": {**COSMOS2, "in_channels": 17}, "Anima": {**COSMOS2, "image_model": "anima"},
    "ZImagePixelSpace": {**MODELS["z-image"][1], **PIXEL, "image_model": "zimage_pixel", "decoder_max_freqs": 2},
    "PixelDiTT2I": {}, "Trellis2": {"resolution": 32, "init_txt_model": True, "txt_only": False},
    "PiD": {"lq_hidden_dim": 32, "lq_interval": 7, "lq_latent_channels": 16, "latent_spatial_down_factor": 8},
    "WAN21_T2V": TEXT_TO_VIDEO, "WAN21_CausalAR_T2V": TEXT_TO_VIDEO,
    "WAN22_T2V": {**TEXT_TO_VIDEO, "in_dim": 48, "out_dim": 48},
    "WAN21_FunControl2V": {**WAN, "in_dim": 48, "in_dim_ref_conv": 16},
    "WAN21_Vace": {**TEXT_TO_VIDEO, "model_type": "vace", "vace_in_dim": 96, "vace_layers": 2},
    **{kind: {**TEXT_TO_VIDEO, "model_type": word, "in_dim": channels} for kind, word, channels in (
        ("WAN21_Camera", "camera", 32), ("WAN22_Camera", "camera_2.2", 36), ("WAN22_S2V", "s2v", 16),
        ("WAN21_HuMo", "humo", 16), ("WAN22_Animate", "animate", 16), ("WAN_Animate2", "animate2", 16),
        ("WAN21_FlowRVS", "flow_rvs", 16), ("WAN21_SCAIL", "scail", 16), ("WAN21_SCAIL2", "scail2", 16),
        ("WAN22_WanDancer", "wandancer", 36),
    )},
    "Hunyuan3Dv2": HUNYUAN3D, "Hunyuan3Dv2mini": {**HUNYUAN3D, "guidance_embed": False},
    "Hunyuan3Dv2_1": {"in_channels": 64, "context_dim": 64, "hidden_size": 128, "mlp_ratio": 4.0, "num_heads": 1,
                      "depth": 3, "qkv_bias": False, "guidance_cond_proj_dim": None},
    "TripoSplat": {}, "HiDream": HIDREAM, "HiDreamO1": {}, "ACEStep": ACE_STEP, "ACEStep15": ACE_STEP15,
    "SeedVR2": {"vid_dim": 2560, "heads": 20, "num_layers": 32, "mlp_type": "swiglu", "norm_eps": 1e-5},
    "MiniMaxMusic3": {}, "Omnigen2": OMNIGEN2, "MageFlow": {"in_channels": 128, "num_layers": 2},
    "Boogu": {"num_layers": 2, "num_double_stream_layers": 2, "num_refiner_layers": 2}, "JoyImage": SHORT,
    "Ideogram4": SHORT, "Krea2": {"layers": 2}, "Lens": SHORT, "Kandinsky5": KANDINSKY,
    "Kandinsky5Image": {**KANDINSKY, "model_dim": 2560, "visual_embed_dim": 64, "axes_dims": [32, 48, 48]},
    "ErnieImage": SHORT, "CogVideoX_T2V": COGVIDEO, "CogVideoX_I2V": {**COGVIDEO, "in_channels": 32},
    "CogVideoX_Inpaint": {**COGVIDEO, "in_channels": 48},
    # of ComfyUI 0.38, whose classes were read and not built
    "MingImage": {**MODELS["z-image"][1], "image_model": "ming_image", "masked_pad_multiple": 32}, "SenseNovaU15": {},
    "YuE2": {"config": {"num_hidden_layers": 2}}, "Kandinsky6": {"num_visual_blocks": 1, "num_text_blocks": 1},
    "Prism": {"video_layers": 2, "audio_layers": 1}, "QwenImage21": SHORT,
}  # fmt: skip
# Classes that are no diffusion models, or whose constructor wants a checkpoint: nobody trains LoRAs for them.
NO_LORAS = {"RT_DETR_v4": "detects", "SAM3": "segments", "SAM31": "segments", "DepthAnything3": "measures depth"}
