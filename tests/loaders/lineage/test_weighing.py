"""A LoRA weighed against another, and a checkpoint against its original."""

from __future__ import annotations

import pytest
import torch
from lora_foundry.engine.errors import FoundryError
from lora_foundry.loaders.disk.header import read_header
from lora_foundry.loaders.merges.matching import Wanted
from lora_foundry.loaders.merges.merging import Request, merge
from lora_foundry.loaders.plans import weighing
from lora_foundry.loaders.plans.weighing import weigh
from probe_parts import (
    LIGHTNING,
    MODULES,
    SIZE,
    STYLE,
    add,
    magnitudes,
    save_base,
    save_lora,
    weights,
)
from safetensors.torch import load_file, save_file


def test_weigh_a_lora_against_another(tmp_path):
    merge = save_lora(tmp_path / "merge.safetensors", add(STYLE, LIGHTNING, 0.5))
    lightning = save_lora(tmp_path / "lightning.safetensors", LIGHTNING, "lora_unet_", flat=True)
    told = weigh(merge, lightning)
    assert (told["kind"], told["verdict"]) == ("lora", weighing.CONTAINS)
    assert told["coefficient"] == pytest.approx(0.5, abs=0.02)
    assert (told["modules"], told["of"], told["left_out"]) == (16, 16, 0)
    assert "merge.safetensors contains lightning.safetensors at a strength of 0.5" in told["says"]
    told = weigh(lightning, merge)
    assert told["verdict"] == weighing.APART
    assert "the other way round" in told["says"]
    style = save_lora(tmp_path / "style.safetensors", STYLE)
    assert weigh(style, lightning)["verdict"] == weighing.APART


@pytest.mark.parametrize("kohya", [False, True])
def test_weigh_finds_the_same_modules_in_any_naming(kohya, tmp_path):
    """FLUX: one LoRA names fused qkv as BFL does, the other q, k and v as diffusers does."""
    random = torch.Generator().manual_seed(1)
    native, diffusers = {}, {}
    for block in range(12):
        up, down = torch.randn(3 * SIZE, 4, generator=random), torch.randn(4, SIZE, generator=random)
        native[f"double_blocks.{block}.img_attn.qkv"] = (up, down)
        for part, rows in zip(("to_q", "to_k", "to_v"), up.chunk(3), strict=True):
            diffusers[f"transformer_blocks.{block}.attn.{part}"] = (rows, down)
        native[f"double_blocks.{block}.img_attn.proj"] = (up[:SIZE], down)
        native[f"single_blocks.{block}.linear2"] = (up[:SIZE], torch.randn(4, 5 * SIZE, generator=random))
    naming = {"prefix": "lora_unet_", "flat": True} if kohya else {"prefix": "diffusion_model."}
    one = save_lora(tmp_path / "native.safetensors", native, **naming)
    other = save_lora(tmp_path / "diffusers.safetensors", diffusers, "transformer.")
    told = weigh(one, other)
    assert told["verdict"] == weighing.CONTAINS
    assert told["coefficient"] == pytest.approx(1.0, abs=1e-3)


def test_weigh_says_when_it_cannot_tell(tmp_path):
    few = {module: LIGHTNING[module] for module in MODULES[:3]}
    merge = save_lora(tmp_path / "merge.safetensors", add(STYLE, LIGHTNING, 0.5))
    told = weigh(merge, save_lora(tmp_path / "few.safetensors", few))
    assert told["verdict"] == weighing.UNKNOWN
    assert "does not tell" in told["says"]
    dora = save_lora(tmp_path / "dora.safetensors", LIGHTNING, magnitudes=magnitudes())
    told = weigh(merge, dora)
    assert (told["verdict"], told["coefficient"], told["left_out"]) == (weighing.UNKNOWN, None, 16)
    assert "16 weights were left out" in told["says"]


def test_weigh_does_not_judge_by_the_smaller_part_of_a_lora(tmp_path):
    """Four plain modules say nothing of the twelve that depend on the base."""
    lightning = save_lora(tmp_path / "lightning.safetensors", LIGHTNING)
    mixed = save_lora(tmp_path / "mixed.safetensors", STYLE, magnitudes=dict(list(magnitudes().items())[:12]))
    told = weigh(mixed, lightning)
    assert (told["verdict"], told["modules"], told["left_out"]) == (weighing.UNKNOWN, 4, 12)


@pytest.mark.parametrize("strength", [1.0, 0.6])
def test_weigh_a_checkpoint_against_its_original(strength, tmp_path):
    original, lightning = save_base(tmp_path / "base.safetensors"), save_lora(tmp_path / "l.safetensors", LIGHTNING)
    fused = save_base(tmp_path / "fused.safetensors", LIGHTNING, strength)
    steps = []
    told = weigh(fused, lightning, original, lambda *step: steps.append(step))
    assert (told["kind"], told["verdict"], told["modules"], told["of"]) == ("checkpoint", weighing.CONTAINS, 16, 16)
    assert told["coefficient"] == pytest.approx(strength, abs=0.01)
    assert f"at a strength of {strength:.2f} (in 16 of 16 modules" in told["says"]
    assert len(steps) == 16
    told = weigh(original, lightning, original)
    assert (told["verdict"], told["coefficient"], told["modules"]) == (weighing.APART, 0.0, 0)
    assert "does not contain l.safetensors" in told["says"]


def test_weigh_a_checkpoint_that_was_changed_in_other_ways(tmp_path):
    original, lightning = save_base(tmp_path / "base.safetensors"), save_lora(tmp_path / "l.safetensors", LIGHTNING)
    values = {name: torch.roll(value, 1, 0).bfloat16() for name, value in weights().items()}
    save_file(values, tmp_path / "other.safetensors")
    told = weigh(tmp_path / "other.safetensors", lightning, original)
    assert (told["verdict"], told["coefficient"]) in {(weighing.UNKNOWN, None)}
    assert "does not tell" in told["says"]


def test_weigh_asks_for_the_original(tmp_path):
    base, lightning = save_base(tmp_path / "base.safetensors"), save_lora(tmp_path / "l.safetensors", LIGHTNING)
    with pytest.raises(FoundryError) as caught:
        weigh(base, lightning)
    assert (caught.value.code, "--original" in caught.value.fix) == ("weigh", True)


def test_weigh_refuses_what_has_nothing_in_common(tmp_path):
    other = {module.replace("blocks", "layers"): parts for module, parts in STYLE.items()}
    with pytest.raises(FoundryError) as caught:
        weigh(save_lora(tmp_path / "a.safetensors", STYLE), save_lora(tmp_path / "b.safetensors", other))
    assert caught.value.code == "LF301"


# --- by what a merged file records of itself


def merged(folder, pairs, **more):
    wanted = tuple(Wanted(path.name, path, strength) for path, strength in pairs)
    return merge(Request(wanted, folder / "merged.safetensors", **more)).path


def test_what_a_merge_recorded_counts_where_the_weights_are_too_faint(tmp_path):
    lightning = save_lora(tmp_path / "lightning.safetensors", LIGHTNING)
    style = save_lora(tmp_path / "style.safetensors", STYLE)
    file = merged(tmp_path, [(style, 1.0), (lightning, 0.05)])
    told = weigh(file, lightning)
    assert told["verdict"] == weighing.CONTAINS and told["recorded"]["strength"] == 0.05
    assert told["coefficient"] == pytest.approx(0.05, abs=0.02), "too little to be told by weights alone"
    assert "merged.safetensors contains lightning.safetensors at a strength of 0.05, by what was merged" in told["says"]
    renamed = lightning.rename(tmp_path / "other name.safetensors")
    assert weigh(file, renamed)["recorded"]["strength"] == 0.05, "known by its contents"
    saved_again = save_lora(tmp_path / "lightning.safetensors", STYLE)
    assert weigh(file, saved_again)["recorded"] == {"strength": 1.0, "source": "what was merged into it"}


def test_a_record_counts_for_what_weights_never_tell(tmp_path):
    """A DoRA, whose change depends on the base, and a LoRA of text encoders only."""
    base = save_base(tmp_path / "base.safetensors")
    dora = save_lora(tmp_path / "dora.safetensors", LIGHTNING, magnitudes=magnitudes())
    style = save_lora(tmp_path / "style.safetensors", STYLE)
    file = merged(tmp_path, [(style, 1.0), (dora, 0.7)], base=base)
    told = weigh(file, dora)
    assert (told["verdict"], told["recorded"]["strength"]) == (weighing.CONTAINS, 0.7)
    save_file(load_file(file), tmp_path / "bare.safetensors")
    assert weigh(tmp_path / "bare.safetensors", dora)["verdict"] == weighing.UNKNOWN


def test_a_record_is_believed_of_the_file_it_was_written_for_only(tmp_path):
    lightning = save_lora(tmp_path / "lightning.safetensors", LIGHTNING)
    style = save_lora(tmp_path / "style.safetensors", STYLE)
    file = merged(tmp_path, [(style, 1.0), (lightning, 0.7)])
    save_file(load_file(style), tmp_path / "fake.safetensors", dict(read_header(file).metadata))
    assert weigh(tmp_path / "fake.safetensors", lightning)["verdict"] == weighing.APART
    other = save_lora(tmp_path / "other.safetensors", {name: (-up, down) for name, (up, down) in STYLE.items()})
    told = weigh(file, other)
    assert told["recorded"] is None and told["verdict"] != weighing.CONTAINS


def test_a_lora_merged_at_nothing_is_not_inside(tmp_path):
    lightning = save_lora(tmp_path / "lightning.safetensors", LIGHTNING)
    style = save_lora(tmp_path / "style.safetensors", STYLE)
    told = weigh(merged(tmp_path, [(style, 1.0), (lightning, 0.0)]), lightning)
    assert (told["verdict"], told["recorded"]) == (weighing.APART, None)
