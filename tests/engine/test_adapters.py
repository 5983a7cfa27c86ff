"""Every kind of adapter against its formula in float64, in every form it is stored in."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from forms import Maker, additive_forms, every_form
from hypothesis import given, settings
from hypothesis import strategies as st
from lora_foundry.engine import adapters
from lora_foundry.engine.adapters import KINDS, delta_rows, is_low_rank, needs_weight
from lora_foundry.engine.errors import FoundryError
from lora_foundry.engine.low_rank import lora_factors
from lora_foundry.engine.plan import Adapter
from lora_foundry.engine.rotations import rotations

LINEAR, CONV = Maker(), Maker(kernel=(3, 3))
MAKERS = {"linear": LINEAR, "conv": CONV}
FORMS = {f"{name}, {at}": (maker, form) for at, maker in MAKERS.items() for name, form in every_form(maker).items()}
every = pytest.mark.parametrize("name", FORMS)


def delta(form, weight):
    """The whole delta, of the weight's shape."""
    flat = weight.flatten(1)
    return delta_rows(form.adapter(), form.parts, flat)(slice(None)).reshape(weight.shape)


def off(got, want):
    """Largest difference relative to the largest number."""
    return float((got.double() - want).abs().max() / want.abs().max())


@every
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_form_is_its_formula(name, dtype):
    maker, form = FORMS[name]
    weight = maker.noise(*maker.shape).to(dtype)
    got = delta(form, weight)
    assert got.dtype == torch.float32
    assert off(got, form.exact(weight.double())) < 2e-6


@every
def test_rows_alone_are_rows_of_the_whole(name):
    maker, form = FORMS[name]
    weight = maker.noise(*maker.shape).flatten(1)
    before = {part: value.clone() for part, value in form.parts.items()}
    rows = delta_rows(form.adapter(), form.parts, weight)
    whole, kept = rows(slice(None)).clone(), weight.clone()
    for index in (slice(0, 1), slice(5, 19), slice(0, 0), torch.tensor([7, 3, 23])):
        torch.testing.assert_close(rows(index), whole[index], rtol=1e-5, atol=1e-6)
    assert torch.equal(weight, kept) and all(torch.equal(form.parts[part], value) for part, value in before.items())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float8_e4m3fn])
def test_factors_count_as_the_numbers_they_are_stored_as(dtype):
    weight = LINEAR.noise(*LINEAR.shape)
    for form in additive_forms(LINEAR).values():
        stored = {part: value.to(dtype) for part, value in form.parts.items()}
        plain = {part: value.float() for part, value in stored.items()}
        for rows in (slice(None), torch.tensor([3, 1])):
            got, want = (delta_rows(form.adapter(), parts, weight)(rows) for parts in (stored, plain))
            assert torch.equal(got, want)


def test_a_bias_is_one_column():
    change, weight = torch.randn(7), torch.randn(7)
    for kind, part, want in (("diff", "diff", change), ("set", "set", change - weight)):
        adapter = Adapter("norm", kind, ((part, "norm.diff"),), 1, (7,))
        assert torch.equal(delta_rows(adapter, {part: change}, weight[:, None])(slice(None))[:, 0], want)


def test_plain_lora_stays_factors_and_a_tucker_core_goes_into_down():
    form = CONV.tucker()
    up, down = lora_factors({part: value.bfloat16() for part, value in form.parts.items()})
    assert up.dtype == torch.bfloat16 and down.dtype == torch.float32 and down.shape == (4, 16 * 9)
    plain = {part: value.bfloat16() for part, value in LINEAR.lora().parts.items()}
    assert [factor.dtype for factor in lora_factors(plain)] == [torch.bfloat16] * 2
    assert is_low_rank(form.adapter()) and not is_low_rank(LINEAR.dora(LINEAR.lora(), "rows").adapter())


def test_which_kinds_need_the_weight():
    told = {name for name, (_, form) in FORMS.items() if needs_weight(form.adapter())}
    zero, one = torch.zeros(LINEAR.shape), torch.ones(LINEAR.shape)
    for name, (maker, form) in FORMS.items():
        if maker is LINEAR:
            depends = not torch.equal(delta(form, zero.clone()), delta(form, one.clone()))
            assert depends == (name in told), name


def test_magnitudes_tell_their_axis():
    """[n] and [n, 1] are rows, [1, n] columns; PEFT writes rows of a convolution as [1, out, 1, 1]."""
    square = Maker(16, 16, (3, 3))
    form = square.dora(square.lora(), "rows")
    weight, size = square.noise(*square.shape), form.parts["magnitude"]
    want = form.exact(weight.double())
    parts = {**form.parts, "magnitude": size.reshape(1, 16, 1, 1)}
    plain = form.adapter()
    peft = Adapter(
        "m", "lora", (*plain.parts[:2], ("magnitude", "m.lora_magnitude_vector.weight")), 4, square.shape, 3.0
    )
    assert off(delta_rows(peft, parts, weight.flatten(1))(slice(None)).reshape(weight.shape), want) < 2e-6
    assert off(delta_rows(plain, parts, weight.flatten(1))(slice(None)).reshape(weight.shape), want) > 0.01
    vector = {**form.parts, "magnitude": size.reshape(16)}
    assert off(delta_rows(plain, vector, weight.flatten(1))(slice(None)).reshape(weight.shape), want) < 2e-6
    tall = LINEAR.dora(LINEAR.lora(), "rows")
    odd = {**tall.parts, "magnitude": tall.parts["magnitude"].reshape(1, 24)}  # 16 inputs: these can only be rows
    weight = LINEAR.noise(*LINEAR.shape)
    assert off(delta_rows(tall.adapter(), odd, weight)(slice(None)), tall.exact(weight.double())) < 2e-6


def test_dora_norms_are_those_of_the_changed_weight_over_many_blocks(monkeypatch):
    monkeypatch.setattr(adapters, "BLOCK", 64)
    form = CONV.dora(CONV.loha(), "columns")
    weight = CONV.noise(*CONV.shape)
    assert off(delta(form, weight), form.exact(weight.double())) < 2e-6


def test_rotations_are_orthogonal_and_held_by_the_limit():
    blocks = torch.randn(3, 6, 6)
    turns = rotations(blocks, 0.0)
    assert float((turns.mT @ turns - torch.eye(6)).abs().max()) < 1e-5
    tiny = rotations(blocks, 1e-6)
    assert float((tiny - torch.eye(6)).abs().max()) < 1e-5
    assert torch.equal(rotations(blocks * 1e-3, 1.0), rotations(blocks * 1e-3, 0.0))


def test_a_whole_lokr_has_the_scale_it_is_given_and_none_by_itself():
    """Loaders give it none for its alpha tensor (``loaders/loras/alphas.py``), and PEFT's for its config."""
    whole = LINEAR.lokr().adapter()
    assert whole.alpha is None and KINDS["lokr"].number(whole) == 1.0
    assert KINDS["lokr"].number(replace(whole, alpha=3.0)) == 0.75
    assert KINDS["lokr"].number(LINEAR.lokr("split", "whole").adapter()) == 0.75


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 5), st.integers(1, 6), st.integers(1, 9), st.sampled_from([(), (1, 1), (3, 3), (2, 1)]), st.data()
)
def test_any_size(out, inp, rank, kernel, data):
    maker = Maker(out * 8, inp * 4, kernel, rank, seed=out + 10 * inp)
    forms = every_form(maker)
    form = forms[data.draw(st.sampled_from(sorted(forms)))]
    weight = maker.noise(*maker.shape)
    want = form.exact(weight.double())
    assert off(delta(form, weight), want) < 2e-5


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(sorted(FORMS)), st.data())
def test_a_wrong_shape_is_one_error(name, data):
    """One part too long or too short in one dimension, or gone."""
    maker, form = FORMS[name]
    part = data.draw(st.sampled_from(sorted(form.parts)))
    value = form.parts[part]
    dim = data.draw(st.integers(0, value.ndim - 1))
    size = value.shape[dim]
    wrong = value.narrow(dim, 0, size - 1) if size > 1 and data.draw(st.booleans()) else value.repeat_interleave(2, dim)
    weight = maker.noise(*maker.shape).flatten(1)
    try:
        got = delta_rows(form.adapter(), {**form.parts, part: wrong.contiguous()}, weight)(slice(None))
    except FoundryError as error:
        assert "[LF304]" in str(error)
    else:
        assert got.shape == weight.shape


@pytest.mark.parametrize("kind", KINDS)
def test_a_missing_part_is_named(kind):
    parts = [choices[0].split()[0] for choices in KINDS[kind].required]
    whole = Adapter("blocks.0.q", kind, tuple((part, part) for part in parts), 4, (8, 8))
    adapters.kind_of(whole)
    for missing in parts:
        left = tuple((part, part) for part in parts if part != missing)
        with pytest.raises(FoundryError, match=rf"'blocks\.0\.q', a {kind}, has no {missing}"):
            adapters.kind_of(Adapter("blocks.0.q", kind, left, 4, (8, 8)))


def test_an_unknown_kind_is_named():
    with pytest.raises(FoundryError, match="unknown kind, 'ia3'"):
        adapters.kind_of(Adapter("blocks.0.q", "ia3", (), 1, (8, 8)))


@pytest.mark.parametrize("axis", ["rows", "columns"])
def test_a_row_of_zeros_stays_one_under_dora(axis):
    """Its direction is 0 / 0: nothing is made of nothing, and no NaN."""
    maker = Maker(seed=3)
    plain = maker.lora()
    parts = {name: part.clone() for name, part in plain.parts.items()}
    parts["up"][2], parts["down"][:, 3] = 0, 0
    form = maker.dora(replace(plain, parts=parts), axis)
    weight = maker.noise(*maker.shape)
    weight[2], weight[:, 3] = 0, 0
    got = delta(form, weight)
    assert torch.isfinite(got).all() and got.any()
    assert not got[2].any() and not got[:, 3].any()
