"""LF305 of files that were measured before: told at any strength without a weight, and only where it still holds."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from lora_foundry.engine.plan import FUSE, MATCH_TRAINING, Base, Plan
from lora_foundry.loaders.bases.checkpoint import Checkpoint, open_checkpoint
from lora_foundry.loaders.loras import energy
from lora_foundry.loaders.loras.file import open_lora
from lora_foundry.loaders.plans import loudness as measuring
from lora_foundry.loaders.plans.judged import measured_loudness
from lora_foundry.loaders.plans.loud import known_loudness
from lora_foundry.loaders.plans.loudness import loudness
from planner_parts import layer
from safetensors.torch import save_file

OUT, WIDE, RANK, RMS = 96, 64, 4, 0.02


def noise(*shape: int, rms: float = 1.0, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * rms


@pytest.fixture
def files(tmp_path) -> tuple[Path, Path]:
    """A base of six weights and a LoRA whose alpha was lost: it changes them by 3.2 times their size, not by 20 %."""
    weights = {f"blocks.{n}.self_attn.q.weight": noise(OUT, WIDE, rms=RMS, seed=n) for n in range(6)}
    factors = {}
    for n in range(6):
        up, down = noise(OUT, RANK, seed=10 + n), noise(RANK, WIDE, seed=20 + n)
        size = float((up @ down).norm()) / math.sqrt(OUT * WIDE)
        factors[f"blocks.{n}.self_attn.q.lora_up.weight"] = up * (3.2 * RMS / size)
        factors[f"blocks.{n}.self_attn.q.lora_down.weight"] = down
    base, lora = tmp_path / "base.safetensors", tmp_path / "style.safetensors"
    save_file(weights, base)
    save_file(factors, lora)
    return base, lora


def measure(base: Path, lora: Path, strength: float = 1.0, **more) -> tuple:
    """What a bake or a check of a document tells of these two."""
    stored = open_checkpoint(base)
    on = Base(base.name, None, stored, stored.quantized)
    return loudness(Plan(on, (layer(on, open_lora(lora), strength, **more),)))


def told(base: Path, lora: Path, strength: float = 1.0) -> tuple:
    return known_loudness(base, lora)(lora.name, strength)


@pytest.fixture
def no_weights(monkeypatch):
    """From here on nothing may be measured."""

    def stop():
        monkeypatch.setattr(measuring, "_rms_of", pytest.fail)
        monkeypatch.setattr(energy, "_energy", pytest.fail)
        monkeypatch.setattr(Checkpoint, "read", pytest.fail)

    return stop


def test_what_a_bake_measured_is_told_at_every_strength_as_the_bake_would(files, no_weights):
    assert told(*files) == ()  # nobody has looked
    wanted = {strength: measure(*files, strength) for strength in (1.0, 0.5, -1.0, 0.01, 10.0)}
    no_weights()
    assert {strength: told(*files, strength) for strength in wanted} == wanted
    assert [finding.text for finding in wanted[1.0]] == ["LF305.loud"] and "320%" in wanted[1.0][0].seen
    assert wanted[0.01] == ()


def test_what_is_measured_at_one_strength_holds_at_another(files, no_weights):
    assert measure(*files, 0.05) == ()
    no_weights()
    (finding,) = told(*files, 1.0)
    assert dict(finding.values)["total"] in ("319%", "320%", "321%")


@pytest.mark.parametrize("strength", [1e160, -1.7e308, 1e-200, 5e-324])
def test_any_number_that_a_workflow_holds_is_a_strength(files, strength):
    """Squares of large ones are beyond a float."""
    assert told(*files, strength) == ()  # nobody has looked
    measure(*files, strength)
    measure(*files)
    found = told(*files, strength)
    assert len(found) == (abs(strength) > 1)
    assert not any({"inf", "nan", "0"} & {part.split()[0] for _, part in each.values} for each in found)


def test_a_layer_that_is_replaced_is_told_too(files):
    base, lora = files
    save_file({"blocks.0.self_attn.q.set_weight": noise(OUT, WIDE, rms=RMS, seed=99)}, lora)
    wanted = measure(base, lora)
    assert [finding.text for finding in wanted] == ["LF305.replaced"] and told(base, lora) == wanted


@pytest.mark.parametrize("more", [{"stage": FUSE, "rounding": MATCH_TRAINING}, {"blocks": "block.0=0.2"}])
def test_block_weights_and_a_trainer_that_is_matched_say_nothing_of_the_plain_row(files, more):
    base, lora = files
    if "blocks" in more:  # which are those of Wan
        save_file({**{n: t for n, t in _wan_sides().items()}, **_stored(base)}, base)
        stored = open_checkpoint(base)
        on = Base(base.name, "wan", stored)
        assert loudness(Plan(on, (layer(on, open_lora(lora), **more),)))
    else:
        names = {"lora_up": "lora_B", "lora_down": "lora_A"}
        renamed = {n.replace(old, new): t for n, t in _stored(lora).items() for old, new in names.items() if old in n}
        save_file(renamed, lora)
        assert measure(base, lora, **more)
    assert told(base, lora) == ()
    assert measure(base, lora) == told(base, lora) != ()


def _stored(path: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(path)


def _wan_sides() -> dict[str, torch.Tensor]:
    return {"head.modulation": torch.zeros(1, 2, WIDE), "patch_embedding.weight": torch.ones(WIDE, 16, 1, 2, 2)}


def test_another_base_and_a_scale_from_beside_are_not_what_was_measured(files):
    base, lora = files
    assert measure(base, lora) == told(base, lora) != ()
    beside = lora.with_name("adapter_config.json")
    beside.write_text(json.dumps({"peft_type": "LORA", "r": RANK, "lora_alpha": 0.25}))
    lora = lora.rename(lora.with_name("adapter_model.safetensors"))
    peft = {n.replace("lora_up", "lora_B").replace("lora_down", "lora_A"): t for n, t in _stored(lora).items()}
    save_file(peft, lora)
    assert measure(base, lora) == told(base, lora) == ()  # 20 %
    beside.unlink()
    assert told(base, lora) == () != measure(base, lora)
    assert told(base, lora) != ()
    save_file({name: weight * 2 for name, weight in _stored(base).items()}, base)
    assert told(base, lora) == ()


def test_a_check_may_measure_and_then_everybody_knows(files, no_weights):
    found = measured_loudness(*files)(files[1].name, 1.0)
    assert [finding.text for finding in found] == ["LF305.loud"]
    no_weights()
    assert told(*files) == measured_loudness(*files)(files[1].name, 1.0) == found


def test_a_scaled_fp8_base_is_measured_as_the_weights_it_stands_for(files):
    """Its codes are 1 / scale as large: a loader of the host's own has the same weights."""
    base, lora = files
    quantized = {}
    for name, weight in _stored(base).items():
        scale = weight.abs().amax() / 448
        quantized[name] = (weight / scale).to(torch.float8_e4m3fn)
        quantized[f"{name.removesuffix('.weight')}.scale_weight"] = scale
    save_file({**quantized, "scaled_fp8": torch.zeros(2, dtype=torch.float8_e4m3fn)}, base)
    (finding,) = measured_loudness(base, lora)(lora.name, 1.0)
    assert dict(finding.values)["total"] in ("319%", "320%", "321%")


@pytest.mark.parametrize("broken", ["base", "lora", "neither fits"])
def test_files_that_cannot_be_used_are_told_of_elsewhere(files, broken):
    base, lora = files
    if broken == "neither fits":
        save_file({"tower.0.weight": torch.ones(8, 8)}, base)
    else:
        (base if broken == "base" else lora).write_bytes(b"<!DOCTYPE html>")
    assert measured_loudness(base, lora)(lora.name, 1.0) == told(base, lora) == ()
