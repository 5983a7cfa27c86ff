"""Families from names and shapes: real sizes, tiny sizes, and silence where nothing tells."""

from __future__ import annotations

import pytest
import torch
from fixtures_bases import DIFFUSERS, NATIVE, flux, flux2, sd3, wan
from fixtures_dialects import FIXTURES
from lora_foundry.cli.demo.tiny import SPECS, shapes
from lora_foundry.loaders.bases.families import (
    clashes,
    common_family,
    detect_base,
    detect_lora,
    differ,
    family_of_names,
    variant_of_base,
    variant_of_lora,
)
from lora_foundry.loaders.bases.signatures import FLUX_OR_HUNYUAN
from lora_foundry.loaders.loras.file import LoRAFile
from samples import BASES, DIALECTS, DIFFUSERS_BASES, ShapeSource

EITHER = FLUX_OR_HUNYUAN
BOTH = {"ff.net.0.proj": (12288, 3072), "attn.add_q_proj": (3072, 3072)}


@pytest.mark.parametrize("family", BASES)
def test_bases(family):
    assert detect_base(ShapeSource(BASES[family]).tensors) == family


@pytest.mark.parametrize("family", DIFFUSERS_BASES)
def test_bases_in_diffusers_naming(family):
    assert detect_base(ShapeSource(DIFFUSERS_BASES[family]).tensors) == family


@pytest.mark.parametrize("sample", [name for name, dialect in DIALECTS.items() if dialect.modules])
def test_loras(sample):
    dialect = DIALECTS[sample]
    assert detect_lora({dialect.prefix + module: shape for module, shape in dialect.modules.items()}) == dialect.family


@pytest.mark.parametrize(
    ("modules", "family"),
    [
        ({"diffusion_model.single_blocks.0.linear1": (896, 128)}, EITHER),  # tiny widths keep their ratios
        ({"diffusion_model.single_blocks.0.linear1": (1152, 128)}, "flux2"),
        ({"diffusion_model.double_blocks.0.img_mlp.0": (768, 128)}, "flux2"),
        ({"lora_unet_single_blocks_0_linear2": (128, 512)}, "flux2"),
        ({"lora_unet_double_blocks_0_img_attn_qkv": (9216, 3072)}, None),  # FLUX.1, klein 4B or HunyuanVideo
        ({"transformer.double_blocks.0.img_attn_qkv": (9216, 3072)}, None),
        ({"transformer.img_in.proj": (3072, 64)}, None),  # FLUX.1 in the OMI layout
        ({"transformer.transformer_blocks.0.attn.to_q": (6144, 6144)}, None),  # a width is no family
        ({"lora_unet_double_blocks_0_img_attn_qkv": (3072, 1024)}, "hunyuan-3d"),
        ({"layers.0.attention.to_q": (2560, 2560)}, None),  # other models have these names, too
        ({"layers.0.attention.to_q": (3840, 3840)}, "z-image"),
        ({"layers.3.attn.to_q": (2520, 2520), "layers.3.feed_forward.linear_1": (10240, 2520)}, None),
        ({"transformer_blocks.0.img_mlp.net.2": (3072, 12288)}, "qwen-image"),
        ({"transformer_blocks.0.img_mod.1": (12288, 2048)}, None),
        ({"lora_unet_double_blocks_19_img_mlp_0": (12288, 3072)}, "hunyuan-video"),
        ({"lora_unet_single_blocks_37_modulation_lin": (9216, 3072)}, EITHER),
        ({"lora_unet_distilled_guidance_layer_in_proj": (5120, 64)}, "chroma"),
        ({"lora_unet_input_blocks_1_1_proj_in": (32, 32, 1, 1)}, "sd15"),
        ({"lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q": (320, 320)}, "sd15 or sd2"),
        ({"lora_unet_down_blocks_0_attentions_0_proj_in": (320, 320)}, "sd15 or sd2"),
        ({"lora_unet_input_blocks_7_1_transformer_blocks_9_attn1_to_q": (64, 64)}, "sdxl"),
        ({"lora_unet_input_blocks_4_1_transformer_blocks_0_attn2_to_k": (640, 1024)}, "sd2"),
        ({"layers.0.attention.qkv": (3840, 2304)}, "lumina2"),
        (
            {"transformer.blocks.0.attn1.to_q": (5120, 5120), "transformer.blocks.0.ffn.net.0.proj": (13824, 5120)},
            "wan",
        ),
        ({"lora_unet_blocks_0_self_attn_q": (128, 128)}, "wan"),
        ({"transformer_blocks.0.txt_mod.1": (768, 128)}, None),
        ({"lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q": (640, 640)}, None),  # SD 1.x or SDXL
        ({"transformer_blocks.0.attn.to_q": (3072, 3072)}, None),  # FLUX.1 or Qwen-Image
        ({"lora_unet_transformer_blocks_20_attn_to_q": (3072, 3072)}, "qwen-image"),  # FLUX.1 has not so many
        ({"transformer.transformer_blocks.20.attn.to_q": (2432, 2432)}, "sd3"),
        ({"layers.0.self_attn.q_proj": (4096, 4096)}, None),  # a language model
        ({"single_transformer_blocks.0.attn.to_qkv_mlp_proj": (27648, 3072)}, "flux2"),
        ({"single_transformer_blocks.0.attn.to_qkv_mlp_proj": (21504, 3072)}, "flux"),  # one matrix, as FLUX.2 has it
        ({"single_transformer_blocks.3.attn.to_out": (6144, 24576)}, "flux2"),
        ({"transformer_blocks.0.ff.linear_in": (24576, 4096)}, "flux2"),
        ({"transformer_blocks.0.ff.linear_in": (8192, 1024)}, None),
        ({"lora_unet_single_blocks_39_linear1": (21504, 3072)}, "hunyuan-video"),
        ({f"single_transformer_blocks.{n}.norm": (6144, 6144) for n in (38, 47)}, None),  # FLUX.2 dev has 48
        ({"transformer_blocks.0.attn1.to_q": (3072, 3072),
          "transformer_blocks.0.ff.net.0.proj": (12288, 3072)}, None),  # CogVideoX 5B
        ({"transformer_blocks.0.ff.net.0.proj": (12288, 3072)}, None),
        ({"transformer_blocks.0.ff.net.0.proj": (12288, 3072),
          "transformer_blocks.0.attn.to_add_out": (3072, 3072)}, EITHER),
        ({f"lora_unet_single_blocks_{n}_linear2": (3072, 15360) for n in (7, 20)}, EITHER),  # a few are in both
        ({f"lora_unet_single_blocks_{n}_linear1": (21504, 3072) for n in range(38)}, "flux"),  # all that FLUX.1 has
        ({f"lora_unet_single_blocks_{n}_linear1": (21504, 3072) for n in range(40)}, "hunyuan-video"),
        ({f"diffusion_model.double_blocks.{n}.img_mlp.0": (12288, 3072) for n in range(19)}, "flux"),
        ({f"transformer.transformer_blocks.{n}.{layer}": shape for n in range(19) for layer, shape in BOTH.items()},
         "flux"),
        ({"single_blocks.3.linear1": (21504, 3072), "img_in": (3072, 64)}, "flux"),  # HunyuanVideo convolves its input
        ({"single_blocks.3.linear1": (21504, 3072), "img_in.proj": (3072, 16, 1, 2, 2)}, EITHER),
        ({f"transformer_blocks.{n}.ff_context.net.0.proj": (12288, 3072) for n in (0, 19)}, "hunyuan-video"),
        ({"blocks.0.attn1.to_q": (1408, 1408), "blocks.0.attn2.to_k": (1408, 1024)}, "hunyuan-dit"),
        ({"blocks.0.attn1.to_q": (512, 512), "blocks.0.ff.net.2": (512, 2048)}, "hunyuan-dit"),  # Wan has ffn
        ({"transformer_blocks.0.attn.img_qkv": (4608, 1536)}, "lens"),
        ({"lora_unet_layers_3_adaLN_modulation_1": (512, 128)}, "lumina2"),  # Z-Image has no activation before it
        ({"diffusion_model.noise_refiner.0.adaLN_modulation.0": (512, 128)}, "z-image"),
        ({}, None),
    ],
)  # fmt: skip
def test_names_and_ratios(modules, family):
    assert detect_lora(modules) == family


STREAMS = ("double_blocks.0.img_attn.qkv.weight", "double_blocks.0.img_mlp.0.weight", "img_in.proj.weight")
REFINER = "txt_in.individual_token_refiner.blocks.0.self_attn.qkv.weight"


@pytest.mark.parametrize(
    ("family", "names"),
    [
        ("hunyuan-video", (*STREAMS, REFINER)),
        ("hunyuan-video-1.5", (*STREAMS, REFINER, "byt5_in.fc1.weight", "vision_in.proj.1.weight")),
        ("hunyuan-image-2.1", (*STREAMS, REFINER, "byt5_in.fc1.weight", "single_blocks.0.linear1.weight")),
        ("omnigen2", ("layers.27.attn.to_q.weight", "ref_image_patch_embedder.weight",
                      "time_caption_embed.caption_embedder.1.weight")),
        ("lumina2", ("layers.0.attn.to_q.weight", "time_caption_embed.caption_embedder.1.weight")),
        ("ltx-2", ("transformer_blocks.0.audio_to_video_attn.to_q.weight", "patchify_proj.weight")),
        ("ltx-video", ("transformer_blocks.0.attn1.to_q.weight", "patchify_proj.weight")),
        ("lumina2", ("cap_embedder.1.weight", "layers.0.attention.qkv.weight", "layers.0.adaLN_modulation.1.weight")),
        ("z-image", ("cap_embedder.1.weight", "layers.0.attention.qkv.weight", "layers.0.adaLN_modulation.0.weight")),
        ("ace-step-1.5", ("proj_in_conv.weight", "layers.0.cross_attn.to_q.weight")),
        ("hidream", ("double_stream_blocks.1.block.attn1.to_v.weight",)),
        ("anima", ("blocks.0.adaln_modulation_self_attn.1.weight", "llm_adapter.blocks.0.self_attn.q_proj.weight")),
        ("cosmos-predict2", ("blocks.0.adaln_modulation_self_attn.1.weight",)),
        ("pixart", ("t_block.1.weight", "blocks.0.cross_attn.kv_linear.weight")),
        ("auraflow", ("double_layers.0.attn.w1q.weight", "cond_seq_linear.weight")),
        ("ace-step-1.5", ("decoder.layers.0.cross_attn.k_proj.weight",
                          "encoder.lyric_encoder.layers.0.self_attn.q_proj.weight")),
        ("hunyuan-3d", ("latent_in.weight", "cond_in.weight", "double_blocks.0.img_attn.qkv.weight")),
    ],
)  # fmt: skip
def test_families_by_what_only_they_have(family, names):
    assert detect_base(ShapeSource(dict.fromkeys(names, (64, 64))).tensors) == family


def test_names_that_three_families_share_are_no_reason_to_refuse():
    assert not differ("hunyuan-video-1.5", "hunyuan-video") and not differ("hunyuan-image-2.1", "hunyuan-video")
    assert differ("hunyuan-image-2.1", "flux")


@pytest.mark.parametrize("family", SPECS)
def test_tiny_models_are_of_their_family(family):
    assert detect_base(ShapeSource(shapes(family)).tensors) == family
    assert detect_base(ShapeSource(shapes(family, width=64)).tensors) == family


def test_tiny_unets_are_told_apart_by_the_label_embedding():
    tiny = {
        "input_blocks.0.0.weight": (32, 4, 3, 3),
        "input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight": (32, 64),
    }
    assert detect_base(ShapeSource(tiny).tensors) == "sd15"
    assert detect_base(ShapeSource({**tiny, "label_emb.0.0.weight": (256, 2816)}).tensors) == "sdxl"
    assert detect_base(ShapeSource({"something.weight": (2, 2)}).tensors) is None


def test_only_known_and_unrelated_families_differ():
    assert differ("flux", "wan") and not differ("flux", "flux")
    assert not differ(None, "wan") and not differ("wan", None) and not differ("chroma", "flux")


def test_a_lora_that_may_be_of_two_families_is_meant_for_both():
    assert not differ("flux", EITHER) and not differ("hunyuan-video", EITHER) and differ("wan", EITHER)
    assert not differ("chroma", EITHER) and not differ("hunyuan-video-1.5", EITHER)  # each is related to one of them
    assert common_family(["flux", EITHER, None]) == "flux" and common_family([EITHER, EITHER]) == EITHER
    assert common_family(["flux", "wan"]) is None and common_family([None]) is None and common_family([]) is None
    assert family_of_names(EITHER) == "flux" and family_of_names(None) is None


@pytest.mark.parametrize("family", NATIVE)
def test_whole_blocks_in_both_namings(family):
    for base in (NATIVE[family], DIFFUSERS[family]):
        assert detect_base(ShapeSource(base).tensors) == family


# SD 1.5 and SDXL share these layers; FLUX.1 and Qwen-Image these; the broken file has the right names and wrong widths.
AMBIGUOUS = (
    "kohya_locon_conv3x3_sd15", "lycoris_loha_sdxl", "lycoris_lokr_sdxl", "peft_dora_flux",
    "seedfork_merged_qkv_BROKEN_split",
)  # fmt: skip
# A few blocks of FLUX.1, or of SD 1.5 before its text comes in, are those of another family too.
OF_TWO = {
    **dict.fromkeys(("kohya_flux", "diffusers_flux", "peft_raw_flux", "aitoolkit_flux_native"), EITHER),
    **dict.fromkeys(("aitoolkit_dora_flux", "fal_kontext_flux", "onetrainer_flux"), EITHER),
    **dict.fromkeys(("diffusers_attnprocs_sd15", "diffusers_peft_sd15"), "sd15 or sd2"),
}


def opened(fixture):
    shapes = FIXTURES[fixture][1]
    return LoRAFile(
        ShapeSource(shapes, {n: torch.tensor(4.0) for n, s in shapes.items() if s == ()}), fixture, "0" * 64
    )


@pytest.mark.parametrize("fixture", [name for name in FIXTURES if name != "lycoris_misc_sdxl"])  # IA3 is refused
def test_files_of_every_dialect(fixture):
    """A file is of its family or, where its few modules are in two, of both or none: never of another one."""
    wanted = None if fixture in AMBIGUOUS else OF_TWO.get(fixture, FIXTURES[fixture][0])
    assert opened(fixture).info.family == wanted


WAN_5B = {"patch_embedding.weight": (3072, 48, 1, 2, 2), "blocks.0.self_attn.q.weight": (3072, 3072)}


@pytest.mark.parametrize(
    ("family", "shapes", "variant"),
    [
        ("wan", wan()[0], {"task": "text to video", "size": "14B"}),
        ("wan", wan(channels=36, image=True)[0], {"task": "image to video", "version": "2.1", "size": "14B"}),
        ("wan", wan(channels=36, image=True)[1], {"task": "image to video", "version": "2.1", "size": "14B"}),
        ("wan", wan(channels=36)[0], {"task": "image to video", "version": "2.2", "size": "14B"}),
        ("wan", wan(1536, 8960)[1], {"task": "text to video", "size": "1.3B"}),
        ("wan", WAN_5B, {"task": "text and image", "version": "2.2", "size": "5B"}),
        ("wan", {"vace_blocks.0.before_proj.weight": (1536, 1536)}, {"task": "VACE"}),
        ("flux", flux()[0], {"task": "text to image or Kontext"}),
        ("flux", flux(channels=384)[1], {"task": "Fill"}),
        ("flux", flux(channels=128)[0], {"task": "control"}),
        ("flux2", flux2(3072)[0], {"size": "klein 4B"}),
        ("sd3", sd3(2432)[1], {"size": "large"}),
        ("sd15", {"input_blocks.0.0.weight": (320, 9, 3, 3)}, {"task": "inpainting"}),
        ("sdxl", {"conv_in.weight": (320, 8, 3, 3)}, {"task": "edit"}),
        ("hunyuan-video", {"img_in.proj.weight": (3072, 33, 1, 2, 2)}, {"task": "image to video"}),
        ("qwen-image", NATIVE["qwen-image"], {}),  # Edit has the same names and shapes
        (None, flux()[0], {}),
    ],
)
def test_variants_of_bases(family, shapes, variant):
    assert variant_of_base(ShapeSource(shapes).tensors, family) == variant


def test_variants_of_loras():
    image = {"lora_unet_blocks_0_cross_attn_k_img": (5120, 5120)}
    assert variant_of_lora(image, "wan") == {"task": "image to video", "version": "2.1", "size": "14B"}
    assert variant_of_lora({"diffusion_model.blocks.0.ffn.0": (13824, 5120)}, "wan") == {}
    assert variant_of_lora({"img_in": (3072, 128)}, "flux") == {"task": "control"}


def test_only_what_both_tell_can_clash():
    text, image = {"task": "text to video", "size": "14B"}, {"task": "image to video", "version": "2.1"}
    assert clashes(text, image) == ["task: image to video, not text to video"]
    assert clashes(text, {}) == clashes({}, image) == clashes(text, text) == []
    assert clashes({"task": "text to image or Kontext"}, {"task": "control"}) == []  # it widens the plain model
    assert clashes(text, {"size": "1.3B"}) == ["size: 1.3B, not 14B"]
