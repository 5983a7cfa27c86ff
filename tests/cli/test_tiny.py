"""tiny.py without a host: determinism, sizes, and LoRAs whose strength is what was asked for."""

from __future__ import annotations

import pytest
import torch
from lora_foundry.cli.demo import tiny


@pytest.mark.parametrize("family", tiny.SPECS)
def test_weights_have_the_shapes_dtype_and_no_odd_values(family):
    weights = tiny.state_dict(family, width=64)
    assert {name: tuple(tensor.shape) for name, tensor in weights.items()} == tiny.shapes(family, width=64)
    assert all(tensor.dtype is torch.bfloat16 and torch.isfinite(tensor).all() for tensor in weights.values())


def test_a_tensor_depends_on_seed_and_name_only():
    one, two, other = (tiny.state_dict("wan", layers=n, seed=s) for n, s in ((1, 0), (2, 0), (1, 1)))
    assert set(one) < set(two)
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not torch.equal(one["head.head.weight"], other["head.head.weight"])


def test_bf16_is_the_rounded_fp32():
    exact, rounded = (tiny.state_dict("wan", dtype=dtype) for dtype in (torch.float32, torch.bfloat16))
    assert all(torch.equal(exact[name].bfloat16(), rounded[name]) for name in exact)


@pytest.mark.parametrize("convolutions", (False, True))
@pytest.mark.parametrize("alpha", (None, 8.0))
@pytest.mark.parametrize("dialect", tiny.DIALECTS)
def test_lora_has_the_relative_size_asked_for(dialect, alpha, convolutions):
    base = tiny.state_dict("sd15", width=64, dtype=torch.float32)
    options = {"dialect": dialect, "alpha": alpha, "convolutions": convolutions, "dtype": torch.float32}
    made = tiny.lora(base, rank=16, prefix="unet.", rms=0.02, **options)
    down_suffix, up_suffix = tiny.DIALECTS[dialect]
    layers = tiny.layer_names(base, convolutions=convolutions)
    assert len(made) == len(layers) * (2 if alpha is None else 3)
    for layer in layers:
        weight, down, up = base[f"{layer}.weight"], made[f"unet.{layer}{down_suffix}"], made[f"unet.{layer}{up_suffix}"]
        delta = (1.0 if alpha is None else alpha / 16) * (up.flatten(1) @ down.flatten(1)).reshape(weight.shape)
        assert delta.norm() / weight.norm() == pytest.approx(0.02, rel=1e-4)


def test_convolutions_take_part_on_request_only():
    shapes = tiny.shapes("sd15", width=64)
    assert "input_blocks.0.0" not in tiny.layer_names(shapes)
    made = tiny.lora(shapes, rank=2, modules=r"^input_blocks\.0\.0$", convolutions=True)
    assert {name: tuple(value.shape) for name, value in made.items()} == {
        "input_blocks.0.0.lora_down.weight": (2, 4, 3, 3),
        "input_blocks.0.0.lora_up.weight": (64, 2, 1, 1),
    }


def test_an_underscore_prefix_flattens_as_kohya_does():
    made = tiny.lora(tiny.shapes("wan"), rank=4, alpha=4, prefix="lora_unet_", modules=["blocks.0.ffn.0"])
    assert sorted(made) == [
        f"lora_unet_blocks_0_ffn_0.{part}" for part in ("alpha", "lora_down.weight", "lora_up.weight")
    ]


def test_checkpoint_holds_three_parts_and_nothing_else():
    prefixes = ("model.diffusion_model.", "cond_stage_model.transformer.text_model.", "first_stage_model.taesd_")
    names = tiny.checkpoint()
    assert all(any(name.startswith(prefix) for name in names) for prefix in prefixes)
    rest = [name for name in names if not name.startswith(prefixes)]
    assert rest == ["first_stage_model.vae_scale", "first_stage_model.vae_shift"]
    assert names["first_stage_model.vae_scale"].item() == 1.0


def test_the_models_stay_tiny():
    sizes = {family: sum(map(_numel, tiny.shapes(family).values())) for family in ("wan", "sd15", "sdxl")}
    assert sizes["wan"] < 1e6 and sizes["sd15"] < 14e6 and sizes["sdxl"] < 80e6


def _numel(shape) -> int:
    return torch.Size(shape).numel()
