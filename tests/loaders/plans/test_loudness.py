"""LF305: what drowns the weights it goes on is measured, and a header that contradicts the factors is told."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from lora_foundry.engine.findings import Finding
from lora_foundry.engine.plan import FUSE, MATCH_TRAINING, Base, Plan
from lora_foundry.loaders.bases.checkpoint import open_checkpoint
from lora_foundry.loaders.loras.file import LoRAFile, open_lora
from lora_foundry.loaders.loras.matching import add_layer
from lora_foundry.loaders.plans import loudness as measuring
from lora_foundry.loaders.plans.loudness import SPREAD, loudness
from lora_foundry.loaders.plans.strength import energy_by_block
from lora_foundry.validator.overlap import spread
from planner_parts import layer
from safetensors.torch import save_file
from samples import ShapeSource

OUT, WIDE, RANK = 96, 64, 4
RMS = 0.02


def noise(*shape: int, rms: float = 1.0, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * rms


def base(modules: int = 6, faint: int | None = None) -> Base:
    shapes = {f"blocks.{number}.q.weight": (OUT, WIDE) for number in range(modules)}
    tensors = {
        name: noise(OUT, WIDE, rms=RMS * (1e-4 if number == faint else 1.0), seed=number)
        for number, name in enumerate(shapes)
    }
    return Base("base.safetensors", None, ShapeSource({}, tensors, label="base.safetensors"))


def a_pair(number: int, ratio: float, alpha: float | None = None) -> dict[str, torch.Tensor]:
    """A module whose change is ``ratio`` of the rms of its weight at strength 1, alpha counted."""
    up, down = noise(OUT, RANK, seed=100 + number), noise(RANK, WIDE, seed=200 + number)
    scale = 1.0 if alpha is None else alpha / RANK
    size = float((up @ down).norm()) / math.sqrt(OUT * WIDE) * scale
    tensors = {"lora_up.weight": up * (ratio * RMS / size), "lora_down.weight": down}
    tensors |= {} if alpha is None else {"alpha": torch.tensor(alpha)}
    return {f"blocks.{number}.q.{name}": tensor for name, tensor in tensors.items()}


def lora(*parts: Mapping[str, torch.Tensor], **metadata: str) -> LoRAFile:
    tensors = {name: tensor for each in parts for name, tensor in each.items()}
    return LoRAFile(ShapeSource({}, tensors), "style.safetensors", "0" * 64, metadata)


def told(file: LoRAFile, strength: float = 1.0, on: Base | None = None, **more: Any) -> list[Finding]:
    on = on or base()
    return list(loudness(Plan(on, (layer(on, file, strength, **more),))))


@pytest.mark.parametrize("alpha", [None, 1.0, 8.0])
@pytest.mark.parametrize(
    ("ratio", "strength", "loud"),
    [
        (0.3, 1.0, False),
        (0.4, 1.0, True),
        (0.4, 0.7, False),
        (0.02, 1.0, False),
        (1e12, 1.0, True),
        (0.1, -5.0, True),
    ],
)
def test_a_change_of_over_a_third_is_told_with_its_number(ratio, strength, loud, alpha):
    found = told(lora(*(a_pair(number, ratio, alpha) for number in range(6))), strength)
    assert bool(found) is loud
    for finding in found:
        values = dict(finding.values)
        applied = abs(ratio * strength)
        shown = float(values["total"].rstrip("% times")) / (100 if "%" in values["total"] else 1)
        assert (finding.code, finding.severity) == ("LF305", "warning") and shown == pytest.approx(applied, rel=0.03)
        # what it names as the strength for 3% gives 3%
        assert float(values["strength"]) * ratio == pytest.approx(math.copysign(0.03, strength), rel=0.1)


def test_one_drowned_layer_of_many_is_told_and_named():
    (finding,) = told(lora(*(a_pair(number, 0.01) for number in range(1, 6)), a_pair(0, 0.9)))
    values = dict(finding.values)
    assert (values["loud"], values["layers"], values["module"]) == ("1", "6", "blocks.0.q") and "90%" in values["most"]


def test_a_weight_near_zero_drowns_in_anything_and_is_no_alarm():
    on = base(faint=0)
    assert not told(lora(*(a_pair(number, 0.02) for number in range(6))), on=on)


@pytest.mark.parametrize("number", [math.inf, math.nan])
def test_a_base_that_is_damaged_is_measured_by_what_is_whole(number):
    """The quartile of sizes with infinity in them is no number, and what was compared with it fell over."""
    on = base()
    for weight in list(on.source.tensors)[-3:]:
        on.source.read(weight).fill_(number)
    assert [finding.code for finding in told(lora(*(a_pair(n, 0.6) for n in range(6))), on=on)] == ["LF305"]


def test_a_model_most_of_which_is_near_zero_is_no_alarm():
    on = base(70)
    for number in range(40):
        on.source.values[f"blocks.{number}.q.weight"] *= 1e-4
    assert not told(lora(*(a_pair(number, 0.02) for number in range(70))), on=on)


def test_what_is_looked_at_for_being_loud_is_no_part_of_the_sum():
    """Also where half of the model holds zeros."""
    on = base(70)
    for number in range(0, 70, 2):
        on.source.values[f"blocks.{number}.q.weight"].zero_()
    loud = [n for n in range(1, 70, 2) if str(n) not in spread([*map(str, range(70))], SPREAD)][:4]
    (finding,) = told(lora(*(a_pair(n, 0.9 if n in loud else 0.01) for n in range(70))), on=on)
    values = dict(finding.values)
    assert (values["loud"], values["total"]) == ("4", "1%")


def a_control_lora(size: float) -> dict[str, torch.Tensor]:
    """It gives the input layer twice as many inputs; on the new ones its numbers have the rms ``size``."""
    up, down = noise(OUT, RANK, rms=size / math.sqrt(RANK), seed=1), noise(RANK, 2 * WIDE, seed=2)
    down[:, :WIDE] *= 0.01
    tensors = {"lora_up.weight": up, "lora_down.weight": down, "reshape_weight": torch.tensor([OUT, 2 * WIDE])}
    return {f"img_in.{name}": tensor for name, tensor in tensors.items()}


def test_inputs_that_a_lora_gives_a_weight_are_no_alarm():
    """They are zeros without it; another LoRA on that weight is measured by the weight as it was."""
    tensors = {"img_in.weight": noise(OUT, WIDE, rms=RMS), "a.weight": noise(OUT, WIDE, rms=RMS)}
    on = Base("base.safetensors", None, ShapeSource({}, tensors))
    wide = add_layer(Plan(on), layer(on, lora(a_control_lora(RMS))))
    assert wide.base.source.tensors["img_in.weight"].shape == (OUT, 2 * WIDE) and not loudness(wide)
    found = {}
    for ratio in (0.3, 0.4):
        style = lora({name.replace("blocks.0.q", "img_in"): tensor for name, tensor in a_pair(0, ratio).items()})
        found[ratio] = len(loudness(add_layer(wide, layer(wide.base, style))))
    assert found == {0.3: 0, 0.4: 1}


def test_every_layer_is_looked_at_where_it_is_the_loudest():
    """70 layers, of which 32 are looked at evenly: the one that is destroyed is found wherever it is."""
    on = base(70)
    for broken in (3, 41, 69):
        (finding,) = told(lora(*(a_pair(n, 5.0 if n == broken else 0.01) for n in range(70))), on=on)
        assert f"blocks.{broken}.q" in finding.seen


def test_a_trainer_without_alpha_is_measured_as_it_trains():
    """'match training' takes lora_A and lora_B without their alpha: at rank 4, alpha 1 that is four times as much."""
    parts = {name.replace("lora_up", "lora_B").replace("lora_down", "lora_A"): tensor
             for number in range(6) for name, tensor in a_pair(number, 0.2, 1.0).items()}  # fmt: skip
    assert not told(lora(parts))
    (finding,) = told(lora(parts), stage=FUSE, rounding=MATCH_TRAINING)
    assert "80%" in dict(finding.values)["total"]


@pytest.mark.parametrize(("alpha", "warns"), [(1.0, True), (4.0, False), (None, False)])
def test_an_alpha_that_matching_a_trainer_ignores_is_told(alpha, warns):
    parts = {name.replace("lora_up", "lora_B").replace("lora_down", "lora_A"): tensor
             for number in range(6) for name, tensor in a_pair(number, 0.01, alpha).items()}  # fmt: skip
    made = layer(base(), lora(parts), stage=FUSE, rounding=MATCH_TRAINING)
    assert [f.text for f in made.findings if f.text == "LF305.ignored"] == ["LF305.ignored"] * warns
    assert not [f for f in layer(base(), lora(parts)).findings if f.text == "LF305.ignored"]


def test_parts_of_a_fused_weight_are_measured_as_parts():
    on = Base("base.safetensors", None, ShapeSource({}, {"a.to_kv.weight": noise(2 * OUT, WIDE, rms=RMS)}))
    pairs = {name.replace("blocks.0.q", "a.to_k"): tensor for name, tensor in a_pair(0, 0.5).items()}
    (finding,) = told(lora(pairs), on=on)
    assert dict(finding.values)["most"] in ("50%", "49%", "51%")


def test_norms_are_left_out():
    on = Base("base.safetensors", None, ShapeSource({}, {"n.weight": torch.zeros(8), "m.weight": noise(8, 8)}))
    assert not told(lora({"n.diff": torch.ones(8)}), on=on)


def magnitudes(number: int, by: str, times: float, on: Base) -> dict[str, torch.Tensor]:
    """Those of the weight itself, over rows or columns, so many times as large."""
    weight = on.source.values[f"blocks.{number}.q.weight"]
    size = weight.norm(dim=1, keepdim=True) if by == "rows" else weight.norm(dim=0, keepdim=True)
    return {f"blocks.{number}.q.dora_scale": size * times}


@pytest.mark.parametrize("by", ["rows", "columns"])
@pytest.mark.parametrize(("ratio", "times", "loud"), [(0.02, 1.0, False), (0.9, 1.0, True), (0.02, 1.6, True)])
def test_a_dora_is_measured_on_the_weights_it_goes_on(by, ratio, times, loud):
    """Loud factors are, and magnitudes of another model."""
    on = base()
    file = lora(*(a_pair(n, ratio) | magnitudes(n, by, times, on) for n in range(6)))
    found = told(file, on=on)
    assert [finding.text for finding in found] == ["LF305.loud"] * loud
    if loud:
        shown = float(dict(found[0].values)["total"].rstrip("%")) / 100
        assert shown == pytest.approx(0.6 if times > 1 else 0.69, abs=0.08)
        assert not told(file, 0.3, on)


def turns(number: int, size: float) -> dict[str, torch.Tensor]:
    return {f"blocks.{number}.q.oft_R.weight": noise(WIDE // 4, 6, rms=size, seed=number)}


def test_rotations_are_measured_whichever_side_they_are_on():
    assert not told(lora(*(turns(n, 0.01) for n in range(6))))
    assert [f.text for f in told(lora(*(turns(n, 0.4) for n in range(6))))] == ["LF305.loud"]
    rows = {f"blocks.{n}.q.oft_blocks": noise(OUT // 8, 8, 8, rms=0.2, seed=n) for n in range(6)}
    assert [f.text for f in told(lora(rows))] == ["LF305.loud"]
    assert not told(lora({name: blocks * 0.02 for name, blocks in rows.items()}))


@pytest.mark.parametrize(("away", "told_of"), [(0.05, False), (0.6, False), (None, True)])
def test_a_replaced_layer_that_has_nothing_of_the_old_is_told(away, told_of):
    on = base()
    weight = on.source.values["blocks.0.q.weight"]
    new = noise(OUT, WIDE, rms=RMS, seed=77) if away is None else weight + noise(OUT, WIDE, rms=away * RMS, seed=77)
    file = lora({"blocks.0.q.set_weight": new}, *(a_pair(n, 0.01) for n in range(1, 6)))
    found = told(file, on=on)
    assert [finding.text for finding in found] == ["LF305.replaced"] * told_of
    if told_of:
        assert dict(found[0].values)["most"] in ("140%", "141%", "142%")


def test_what_depends_on_the_weight_is_measured_once(tmp_path, monkeypatch):
    """By both files: the next check reads nothing of the base."""
    save_file({name: tensor.contiguous() for name, tensor in base().source.values.items()}, tmp_path / "b.safetensors")
    source = open_checkpoint(tmp_path / "b.safetensors")
    save_file(dict(turns(0, 0.4)), tmp_path / "l.safetensors")
    plan = Plan(on := Base("b", None, source), (layer(on, open_lora(tmp_path / "l.safetensors")),))
    first = loudness(plan)
    assert [finding.text for finding in first] == ["LF305.loud"]
    monkeypatch.setattr(measuring, "_mean_square", pytest.fail)
    monkeypatch.setattr(measuring, "_rms_of", pytest.fail)
    assert loudness(plan) == first


# --- what the header says


def dense(alpha: float, **metadata: str) -> list[Finding]:
    parts = {"b.lokr_w1": noise(4, 4), "b.lokr_w2": noise(4, 4), "b.alpha": torch.tensor(alpha)}
    return [finding for finding in lora(parts, **metadata).findings if finding.code == "LF305"]


@pytest.mark.parametrize(
    ("alpha", "header", "warns"),
    [
        (1.0, {"ss_network_dim": "32", "ss_network_alpha": "1"}, True),
        (16.0, {"ss_network_dim": "64", "ss_network_alpha": "16.0"}, True),
        (32.0, {"ss_network_dim": "32", "ss_network_alpha": "1"}, False),  # LyCORIS: alpha is dim where all is whole
        (1e10, {"ss_network_dim": "16", "ss_network_alpha": "16"}, False),
        (1.0, {}, False),
        (1.0, {"ss_network_dim": "many", "ss_network_alpha": "1"}, False),
        (1.0, {"ss_network_dim": "0", "ss_network_alpha": "1"}, False),
    ],
)
def test_whole_factors_with_the_alpha_of_the_header(alpha, header, warns):
    (finding,) = dense(alpha, **header)
    assert finding.severity == ("warning" if warns else "note") and "alpha" in finding.seen
    if warns:
        times = float(header["ss_network_dim"]) / alpha
        assert f"{times:.3g} times" in finding.why and f"{1 / times:.3g} times" in finding.fix


def merged(rank: int, alpha: float, **header: str) -> list[Finding]:
    tensors = {"a.qkv.lora_up.weight": noise(24, rank), "a.qkv.lora_down.weight": noise(rank, 8),
               "a.qkv.alpha": torch.tensor(alpha)}  # fmt: skip
    proj = {
        "a.proj.lora_up.weight": noise(8, 4),
        "a.proj.lora_down.weight": noise(4, 8),
        "a.proj.alpha": torch.tensor(2.0),
    }
    return [f for f in lora(tensors, proj, **header).findings if f.text == "LF305.split_qkv"]


SPLIT = {"ss_network_dim": "4", "ss_network_alpha": "2.0", "ss_network_args": json.dumps({"split_qkv": "True"})}


def test_merged_parts_whose_alpha_was_not_raised():
    (finding,) = merged(12, 2.0, **SPLIT)
    assert finding.severity == "warning" and "3 times" in finding.why and "split_qkv" in finding.seen
    assert not merged(12, 6.0, **SPLIT)  # as sd-scripts saves it
    assert not merged(12, 2.0, **SPLIT | {"ss_network_args": "{}"})
    assert not merged(12, 2.0, **SPLIT | {"ss_network_args": "["})
    assert not merged(4, 2.0, **SPLIT)
    assert not merged(8, 2.0, **SPLIT)  # a rank of its own for some layers: no layer is split in two


def test_where_in_the_model_a_lora_is_strong():
    """Twice the change is four times the energy; alpha and strength are counted, the order is the model's."""
    on = base(11)
    file = lora(a_pair(10, 0.02), a_pair(2, 0.01, alpha=8.0), a_pair(0, 0.01))
    (shares,) = energy_by_block(Plan(on, (layer(on, file, 0.5),)))
    assert list(shares) == ["blocks.0", "blocks.2", "blocks.10"]
    assert list(shares.values()) == pytest.approx([1 / 6, 1 / 6, 4 / 6], rel=1e-6)


def test_a_lora_without_strength_has_no_energy():
    on = base()
    assert energy_by_block(Plan(on, (layer(on, lora(a_pair(0, 0.01)), 0.0),))) == [{}]
