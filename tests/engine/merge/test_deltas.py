"""Every kind of adapter as factors or as a full difference, against its formula in float64."""

from __future__ import annotations

import pytest
import torch
from forms import Maker, additive_forms, every_form, weight_forms
from lora_foundry.engine.adapters import needs_weight
from lora_foundry.engine.errors import FoundryError
from lora_foundry.engine.merge.deltas import rank_of
from lora_foundry.engine.tensors import TensorInfo
from merge_parts import dense, form_delta, low_rank, off, random_triple

MAKERS = {"linear": Maker(64, 48, rank=2), "conv": Maker(24, 16, (3, 3), rank=2)}
FORMS = {f"{name}, {at}": (maker, form) for at, maker in MAKERS.items() for name, form in every_form(maker).items()}


@pytest.mark.parametrize("name", FORMS)
def test_every_form_is_its_formula(name):
    maker, form = FORMS[name]
    weight = maker.noise(*maker.shape)
    delta = form_delta(form, weight if needs_weight(form.adapter()) else None)
    want = form.exact(weight.double()).reshape(delta.size)
    assert off(dense(delta), want) < 1e-6 and off(delta.rows(slice(None)), want) < 1e-6


@pytest.mark.parametrize("at", MAKERS)
@pytest.mark.parametrize("name", ["lora", "no alpha", "tucker", "loha", "loha tucker", "lokr whole split"])
def test_what_is_of_low_rank_stays_factors(name, at):
    forms = additive_forms(MAKERS[at])
    if name in forms:
        delta = form_delta(forms[name])
        assert delta.is_low_rank and delta.rank < min(delta.size)


def test_a_full_matrix_is_no_product():
    forms = additive_forms(MAKERS["linear"])
    assert not form_delta(forms["diff"]).is_low_rank
    assert not form_delta(Maker(8, 8).lokr()).is_low_rank


@pytest.mark.parametrize("name", FORMS)
def test_the_rank_is_known_from_the_header(name):
    maker, form = FORMS[name]
    adapter = form.adapter()
    tensors = {
        stored: TensorInfo(stored, torch.float32, tuple(form.parts[part].shape)) for part, stored in adapter.parts
    }
    delta = form_delta(form, maker.noise(*maker.shape))
    assert rank_of(adapter, tensors) == (delta.rank if delta.is_low_rank else None)


@pytest.mark.parametrize("name", weight_forms(MAKERS["linear"]))
def test_what_depends_on_the_base_is_refused_without_one(name):
    with pytest.raises(FoundryError, match=r"\[LF502\] 'module' is of the kind .* Name the base"):
        form_delta(weight_forms(MAKERS["linear"])[name])


def test_a_norm_that_is_set_stays_set():
    form = Maker(6, 1)
    vector = torch.randn(6)
    from lora_foundry.engine.merge.deltas import delta_of
    from lora_foundry.engine.plan import Adapter

    delta = delta_of(Adapter("norm", "set", (("set", "norm.set"),), 1, (6,)), {"set": vector})
    assert delta.replaces is not None and torch.equal(delta.replaces[:, 0], vector) and form.rank == 4


def test_rows_of_a_delta_and_a_delta_in_a_larger_weight():
    up, down, scale = random_triple(24, 16, 3, 1, 0.5)
    both = low_rank((up, down, scale))
    full = form_delta(Maker(24, 16).diff())
    for delta in (both, full):
        whole = dense(delta)
        assert torch.equal(dense(delta.part(8, 8)), whole[8:16])
        large = dense(delta.within((40, 16), 8))
        assert torch.equal(large[8:32], whole) and not large[:8].any() and not large[32:].any()


def test_parts_that_do_not_fit_are_named():
    form = Maker(24, 16).lora()
    short = {**form.parts, "up": form.parts["up"][:-1]}
    from lora_foundry.engine.merge.deltas import delta_of

    with pytest.raises(FoundryError, match=r"\[LF304\]"):
        delta_of(form.adapter(), short)
