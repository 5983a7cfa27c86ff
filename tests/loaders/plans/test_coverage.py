"""A LoRA of which much finds no weight is refused by what is lost of it, not by how many names are."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pytest
import torch
from lora_foundry.engine.errors import FoundryError
from lora_foundry.loaders.documents.document import parse_document
from lora_foundry.loaders.loras.energy import energies
from planner_parts import a_base, layer, refused, tiny

Q, GONE = "blocks.0.q", "blocks.9.q"


def scaled(module: str, size: float, alpha: float | None = None) -> dict[str, torch.Tensor]:
    """A pair whose delta [6, 4] has ``size`` as its root of the sum of squares, alpha at its rank counted not."""
    generator = torch.Generator().manual_seed(len(module))
    up, down = torch.randn(6, 2, generator=generator), torch.randn(2, 4, generator=generator)
    tensors = {f"{module}.lora_up.weight": up * size / (up @ down).norm(), f"{module}.lora_down.weight": down}
    return tensors if alpha is None else {**tensors, f"{module}.alpha": torch.tensor(alpha)}


def base(*names: str) -> object:
    return a_base({f"{name}.weight": (6, 4) for name in (names or (Q,))})


@pytest.mark.parametrize(("lost", "stops"), [(0.05, False), (0.32, False), (0.34, True), (5.0, True)])
def test_the_share_of_the_energy_decides(lost, stops):
    """|lost|^2 / (1 + |lost|^2) of 0.32 is 9.3%, of 0.34 10.4%."""
    lora = tiny(scaled(Q, 1.0), scaled(GONE, lost))
    if stops:
        text = refused(base(), lora, "LF302")
        assert f"{lost**2 / (1 + lost**2):.0%}" in text and "allow_partial" in text and GONE in text
    made = layer(base(), lora, allow_partial=True)
    assert made.coverage.lost == pytest.approx(lost**2 / (1 + lost**2), rel=1e-5)
    (finding,) = [finding for finding in made.findings if finding.code == "LF302"]
    assert finding.severity == "warning" and f"{made.coverage.lost:.1%}" in finding.seen


def test_many_modules_without_weight_may_be_a_detail():
    lora = tiny(scaled(Q, 1.0), *(scaled(f"blocks.{number}.x", 0.01) for number in range(20)))
    assert layer(base(), lora).coverage.lost < 0.01


def test_alpha_counts_for_what_is_lost():
    assert layer(base(), tiny(scaled(Q, 1.0, 2.0), scaled(GONE, 1.0, 0.1))).coverage.lost < 0.01
    refused(base(), tiny(scaled(Q, 1.0, 0.1), scaled(GONE, 1.0, 2.0)), "LF302")


def test_numbers_beyond_all_sense_are_counted_by_modules():
    """Squares of them are infinite, and infinite shares are no numbers."""
    beyond = scaled(GONE, 1.0) | {f"{GONE}.alpha": torch.tensor(1e200, dtype=torch.float64)}
    huge = torch.full((6, 2), 1e10), torch.full((2, 4), 1e10)
    product = {f"{GONE}.hada_w{number}_{part}": huge[part == "b"] for number in (1, 2) for part in "ab"}
    for parts in (beyond, product):
        lora = tiny(scaled(Q, 1.0), parts)
        assert "50% of its energy" in refused(base(), lora, "LF302")
        assert layer(base(), lora, allow_partial=True).coverage.lost == 0.5


def test_what_has_no_strength_loses_nothing():
    assert layer(base(), tiny(scaled(Q, 1.0), scaled(GONE, 1.0)), strength=0.0).strength == 0.0


def kinds() -> Mapping[str, Mapping[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(3)

    def some(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    return {
        "lora": {"lora_up.weight": some(6, 2), "lora_down.weight": some(2, 4), "alpha": torch.tensor(1.0)},
        "dense lokr": {"lokr_w1": some(3, 2), "lokr_w2": some(2, 2), "alpha": torch.tensor(1.0)},
        "split lokr": {"lokr_w1": some(3, 2), "lokr_w2_a": some(2, 1), "lokr_w2_b": some(1, 2),
                       "alpha": torch.tensor(0.5)},
        "loha": {"hada_w1_a": some(6, 2), "hada_w1_b": some(2, 4), "hada_w2_a": some(6, 2), "hada_w2_b": some(2, 4)},
        "difference": {"diff": some(6, 4)},
    }  # fmt: skip


def dense(kind: str, parts: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """The delta as its definition has it, in float64."""
    p = {name: tensor.double() for name, tensor in parts.items()}
    return {
        "lora": lambda: 0.5 * p["lora_up.weight"] @ p["lora_down.weight"],
        "dense lokr": lambda: torch.kron(p["lokr_w1"], p["lokr_w2"]),
        "split lokr": lambda: 0.5 * torch.kron(p["lokr_w1"], p["lokr_w2_a"] @ p["lokr_w2_b"]),
        "loha": lambda: (p["hada_w1_a"] @ p["hada_w1_b"]) * (p["hada_w2_a"] @ p["hada_w2_b"]),
        "difference": lambda: p["diff"],
    }[kind]()


@pytest.mark.parametrize("kind", list(kinds()))
def test_the_energy_of_a_kind_is_that_of_its_delta(kind):
    parts = kinds()[kind]
    lora = tiny({f"{Q}.{name}": tensor for name, tensor in parts.items()})
    assert energies(lora)[lora.adapters[0]] == pytest.approx(float(dense(kind, parts).square().sum()), rel=1e-5)


@pytest.mark.parametrize("kind", list(kinds()))
def test_the_energy_of_factors_with_nan_is_no_number(kind):
    """It was 0: such a module weighed nothing in the share that is lost."""
    for spoiled in kinds()[kind].keys() - {"alpha"}:
        parts = {name: tensor.clone() for name, tensor in kinds()[kind].items()}
        parts[spoiled].view(-1)[0] = math.nan
        lora = tiny({f"{Q}.{name}": tensor for name, tensor in parts.items()})
        assert math.isnan(energies(lora)[lora.adapters[0]]), spoiled


def test_a_wan_21_lora_on_wan_22_may_lose_its_image_attention():
    """Image-to-video accelerators of 2.1 are used on 2.2 on purpose; the note says what is left out."""
    names = [f"blocks.0.{kind}_attn.{part}" for kind in ("self", "cross") for part in "qkvo"]
    shapes = {f"{name}.weight": (6, 4) for name in names}
    shapes |= {"head.modulation": (1, 2, 6), "patch_embedding.weight": (6, 36, 1, 2, 2)}
    lora = tiny(*(scaled(name, 1.0) for name in (*names, "blocks.0.cross_attn.k_img", "blocks.0.cross_attn.v_img")))
    made = layer(a_base(shapes), lora)
    assert made.coverage.lost == pytest.approx(0.2, rel=1e-5)
    assert any("k_img" in finding.seen for finding in made.findings)


def test_a_document_allows_a_part_by_true_alone():
    assert not parse_document({"base": "a"}, "doc").allow_partial
    assert parse_document({"base": "a", "allow_partial": True}, "doc").allow_partial
    with pytest.raises(FoundryError, match=r"allow_partial is '1'.*Use true or false"):
        parse_document({"base": "a", "allow_partial": 1}, "doc")
