"""Without a base: flat names get their dots back, and the weights of a base are told from LoRAs alone."""

from __future__ import annotations

import pytest
import torch
from fixtures_bases import DIFFUSERS, NATIVE
from lora_foundry.engine.errors import FoundryError
from lora_foundry.loaders.names.lookup import BaseNames, flat
from lora_foundry.loaders.names.native import dotted, native, stand_in

FAMILIES = list(NATIVE)


def modules(shapes):
    return {name.removesuffix(".weight"): shape for name, shape in shapes.items() if not name.endswith(".bias")}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("naming", ["native", "diffusers"])
def test_flat_names_get_their_dots_back(family, naming):
    shapes = (NATIVE if naming == "native" else DIFFUSERS)[family]
    known = [name for name in modules(shapes) if name.count(".") and "distilled" not in name]
    assert {name: dotted(flat(name), family) for name in known} == {name: name for name in known}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("spelled", [
    lambda name: f"transformer.{name}", lambda name: f"lora_unet_{flat(name)}", lambda name: f"base_model.model.{name}",
])  # fmt: skip
def test_a_lora_on_all_of_a_base_in_diffusers_names_tells_its_native_weights(family, spelled):
    """Every layer of the base, under other names: the weights that come out are the base's own, with all their rows."""
    layers = {spelled(name): shape for name, shape in modules(DIFFUSERS[family]).items() if "." in name}
    found = stand_in(layers, family)
    own = {name: shape for name, shape in NATIVE[family].items() if len(shape) > 1}
    told = {name: info.shape for name, info in found.items() if name in own}
    assert told == {name: own[name] for name in told} and len(told) > 0.7 * len(own)


def test_rows_of_parts_that_no_lora_has_are_told_by_the_rule_or_by_another_block():
    single = "transformer.single_transformer_blocks"
    found = stand_in({f"{single}.0.attn.to_q": (64, 64), f"{single}.1.proj_mlp": (256, 64)}, "flux")
    assert {name: info.shape for name, info in found.items()} == {
        f"single_blocks.{number}.linear1.weight": (448, 64) for number in (0, 1)
    }
    with pytest.raises(FoundryError) as caught:
        stand_in({f"{single}.0.attn.to_q": (64, 64)}, "flux")
    assert caught.value.code == "LF504" and "single_blocks.0.linear1" in caught.value.what


def test_joined_projections_become_the_weights_comfyui_keeps_apart():
    found = stand_in({"transformer_blocks.0.attn.to_qkv": (96, 32)}, "qwen-image")
    assert {name: info.shape for name, info in found.items()} == {
        f"transformer_blocks.0.attn.to_{part}.weight": (32, 32) for part in "qkv"
    }
    targets = BaseNames(found, "qwen-image").find("transformer_blocks.0.attn.to_qkv")
    assert [target.part for target in targets] == [(0, 0, 32), (0, 32, 32), (0, 64, 32)]


def test_biases_stand_beside_their_weights_and_parameters_have_no_weight():
    found = stand_in({"blocks.0.norm3": (8,), "blocks.0.norm3.bias": (8,), "blocks.0.modulation": (1, 6, 8)}, "wan")
    assert {name: info.shape for name, info in found.items()} == {
        "blocks.0.norm3.weight": (8,), "blocks.0.norm3.bias": (8,), "blocks.0.modulation": (1, 6, 8),
    }  # fmt: skip
    assert BaseNames(found, "wan").find("diffusion_model.blocks.0.norm3.bias")
    only = stand_in({"lora_unet_blocks_0_ffn_0.bias": (8,)}, "wan")
    assert only["blocks.0.ffn.0.bias"].shape == (8,) and only["blocks.0.ffn.0.bias"].dtype == torch.float32


def test_a_name_no_table_knows_is_its_own():
    assert native("diffusion_model.strange.0.layer", None)[0].name == "strange.0.layer"
    assert set(stand_in({"lora_unet_strange_0_qkv": (4, 4)}, None)) == {"strange_0_qkv.weight"}
