"""Text-encoder parts of any dialect under the names that a CLIP's key map knows, and never two under one."""

from __future__ import annotations

import pytest
import torch
from lora_foundry.engine.errors import FoundryError
from lora_foundry.loaders.loras.file import LoRAFile
from lora_foundry.loaders.loras.text_encoders import text_encoder_state
from samples import ShapeSource

FC1 = "text_model_encoder_layers_0_mlp_fc1"
DOTTED = FC1.replace("_layers_0_mlp_", ".layers.0.mlp.").replace("text_model_", "text_model.")
L, G = f"lora_te1_{FC1}", f"lora_te2_{FC1}"
UP, DOWN = torch.full((6, 2), 2.0), torch.full((2, 4), 3.0)


def a_lora(tensors):
    return LoRAFile(ShapeSource({}, tensors), "te.safetensors", "0" * 64)


SPELLED = [
    (f"lora_te1_{FC1}", ".lora_up.weight", ".lora_down.weight", L),
    (f"text_encoder.{DOTTED}", ".lora_B.weight", ".lora_A.weight", L),
    (f"text_encoder.{DOTTED}", ".lora_B.anna.weight", ".lora_A.anna.weight", L),  # ComfyUI knows "default" only
    (f"text_encoder.{DOTTED}", ".lora_linear_layer.up.weight", ".lora_linear_layer.down.weight", L),
    (f"text_encoder_2.{DOTTED}", ".lora_B.weight", ".lora_A.weight", G),
    (f"base_model.model.{DOTTED}", ".lora_B.weight", ".lora_A.weight", L),
    (f"text_encoder.{DOTTED}", "_lora.up.weight", "_lora.down.weight", L),
]


@pytest.mark.parametrize(("module", "up", "down", "key"), SPELLED)
def test_pairs_of_any_dialect_get_names_the_host_reads(module, up, down, key):
    state = text_encoder_state(
        a_lora({module + up: UP, module + down: DOWN, f"{module}.alpha": torch.tensor(1.0)}), {L, G}
    )
    assert set(state) == {f"{key}.lora_up.weight", f"{key}.lora_down.weight", f"{key}.alpha"}
    assert torch.equal(state[f"{key}.lora_up.weight"], UP) and torch.equal(state[f"{key}.lora_down.weight"], DOWN)


def test_other_kinds_keep_their_endings_and_magnitudes_of_peft_become_rows():
    dotted = f"text_encoder.{DOTTED}"
    diff = {f"{dotted}.diff": torch.ones(6, 4), f"{dotted}.diff_b": torch.ones(6)}
    assert set(text_encoder_state(a_lora(diff), {L})) == {f"{L}.diff", f"{L}.diff_b"}
    dora = {f"{dotted}.lora_B.weight": UP, f"{dotted}.lora_A.weight": DOWN}
    dora[f"{dotted}.lora_magnitude_vector"] = torch.arange(6.0)
    state = text_encoder_state(a_lora(dora), {L})
    assert torch.equal(state[f"{L}.dora_scale"], torch.arange(6.0)[:, None])


def test_what_the_clip_does_not_know_keeps_its_name_and_the_unet_is_no_part_of_it():
    tensors = {f"text_encoder.{DOTTED}.lora_B.weight": UP, f"text_encoder.{DOTTED}.lora_A.weight": DOWN}
    net = {"unet.conv_in.lora_B.weight": UP, "unet.conv_in.lora_A.weight": DOWN}
    assert set(text_encoder_state(a_lora({**tensors, **net}), {"lora_te1_other"})) == set(tensors)


def test_two_adapters_on_one_layer_are_refused_for_the_host_would_drop_one():
    tensors = {}
    for module in (f"text_encoder.{DOTTED}", f"lora_te1_{FC1}"):
        tensors |= {f"{module}.lora_up.weight": UP, f"{module}.lora_down.weight": DOWN}
    with pytest.raises(FoundryError, match="LF304.*same part of one layer") as error:
        text_encoder_state(a_lora(tensors), {L})
    assert error.value.fix and "te.safetensors" in str(error.value)
