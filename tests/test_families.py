"""Families from names and shapes: real sizes, tiny sizes, and silence where nothing tells."""

from __future__ import annotations

import pytest
from lora_foundry.loaders.families import detect_base, detect_lora, differ
from lora_foundry.tiny import SPECS, shapes
from samples import BASES, DIALECTS, DIFFUSERS_BASES, ShapeSource


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
        ({"diffusion_model.single_blocks.0.linear1": (896, 128)}, "flux"),  # tiny widths keep their ratios
        ({"diffusion_model.single_blocks.0.linear1": (1152, 128)}, "flux2"),
        ({"diffusion_model.double_blocks.0.img_mlp.0": (768, 128)}, "flux2"),
        ({"lora_unet_single_blocks_0_linear2": (128, 512)}, "flux2"),
        ({"lora_unet_double_blocks_0_img_attn_qkv": (9216, 3072)}, "flux"),  # kohya writes "." and "_" alike
        ({"transformer.double_blocks.0.img_attn_qkv": (9216, 3072)}, "hunyuan-video"),
        ({"lora_unet_double_blocks_19_img_mlp_0": (12288, 3072)}, "hunyuan-video"),
        ({"lora_unet_single_blocks_37_modulation_lin": (9216, 3072)}, "flux"),
        ({"lora_unet_distilled_guidance_layer_in_proj": (5120, 64)}, "chroma"),
        ({"lora_unet_input_blocks_1_1_proj_in": (32, 32, 1, 1)}, "sd15"),
        ({"lora_unet_input_blocks_7_1_transformer_blocks_9_attn1_to_q": (64, 64)}, "sdxl"),
        ({"lora_unet_input_blocks_4_1_transformer_blocks_0_attn2_to_k": (640, 1024)}, "sd2"),
        ({"layers.0.attention.qkv": (3840, 2304)}, "lumina2"),
        (
            {"transformer.blocks.0.attn1.to_q": (5120, 5120), "transformer.blocks.0.ffn.net.0.proj": (13824, 5120)},
            "wan",
        ),
        ({"lora_unet_blocks_0_self_attn_q": (128, 128)}, "wan"),
        ({"transformer_blocks.0.txt_mod.1": (768, 128)}, "qwen-image"),
        ({"lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q": (640, 640)}, None),  # SD 1.x or SDXL
        ({"transformer_blocks.0.attn.to_q": (3072, 3072)}, None),  # FLUX.1 or Qwen-Image
        ({"layers.0.self_attn.q_proj": (4096, 4096)}, None),  # a language model
        ({}, None),
    ],
)
def test_names_and_ratios(modules, family):
    assert detect_lora(modules) == family


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
