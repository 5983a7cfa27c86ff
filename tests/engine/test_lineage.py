"""Lineage: which LoRA is which, which source counts, what contradicts what, and how a plan becomes a stack."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from fakes import a_layer, a_plan, random_delta
from hypothesis import given
from hypothesis import strategies as st
from lora_foundry.engine.lineage import (
    ACCELERATOR,
    BY_USER,
    DECLARED,
    DERIVED,
    DIFFERENT,
    GUESSED,
    NOTHING_KNOWN,
    SAME,
    STYLE,
    UNDECIDED,
    UNKNOWN,
    Claim,
    Contained,
    Evidence,
    Ingredient,
    Lineage,
    alike,
    plain_name,
    same_ingredients,
)
from lora_foundry.engine.plan import FUSE, STACK
from lora_foundry.validator.around import loras_in_model
from lora_foundry.validator.rules import check
from lora_foundry.validator.stacks import MATCH, Item, Sampling, Stack, stack_of
from stack_parts import fast, file, named, role, trained, used

X, Y = file("lightning"), file("turbo")
W = "blocks.0.q.weight"


def ids(*each: str, name: str = "a") -> Ingredient:
    return Ingredient(name, each)


def sketched(id: str, norm: float = 1.0, name: str = "a", noise: float = 0.0) -> Ingredient:
    rows = ((8.0, 8.0, 3.0, norm, 0.2 + noise, -0.1, 0.4, 0.3), (8.0, 4.0, 1.0, 2.0, 0.1, 0.0, 0.0, 0.0))
    return Ingredient(name, (id,), sketch=rows)


def recut(id: str, times: float = 1.0) -> Ingredient:
    """What ``sketched`` is of, as one module."""
    return Ingredient("b", (id,), sketch=((24.0, 8.0, 1.0, times * 5**0.5, 0.3, -0.1, 0.4, 0.3),))


@pytest.mark.parametrize(("one", "other", "verdict"), [
    (ids("sha256:1"), ids("sha256:1", name="b"), SAME),
    (ids("sha256:1", "tensors:1"), ids("sha256:2", "tensors:1"), SAME),  # its metadata was edited
    (ids("sha256:1", "tensors:1", "known:l"), ids("sha256:2", "tensors:2", "known:l"), SAME),  # saved in another dtype
    (ids("sha256:1"), ids("sha256:2", name="b"), DIFFERENT),
    (ids("sha256:1"), ids("sha256:2"), DIFFERENT),  # one name, other contents
    (ids("known:4"), ids("known:8", name="b"), DIFFERENT),
    (sketched("sha256:1"), sketched("sha256:2", 1.004, name="b"), SAME),  # saved in another dtype and renamed
    (sketched("sha256:1"), sketched("sha256:2", 1.1), DIFFERENT),
    (sketched("sha256:1"), sketched("sha256:1", 1.1), SAME),  # one file, whatever was measured
    (sketched("sha256:1"), ids("sha256:2"), DIFFERENT),
    (sketched("sha256:1"), ids(), SAME),
    (ids("sha256:1"), ids("tensors:2"), SAME),  # nothing to compare but the names
    (ids("sha256:1"), ids("tensors:2", name="b"), UNDECIDED),
    (ids(), ids("sha256:1", name="b"), UNDECIDED),
    (named("x/Qwen-Lightning_4steps V1.0"), named(r"y\qwen_lightning-4steps-v1.0"), SAME),
    (named("lightning-4steps"), named("lightning-8steps"), UNDECIDED),
    (named("a/pytorch_lora_weights"), named("b/pytorch_lora_weights"), UNDECIDED),
    (named("a/pytorch_lora_weights"), named("a/pytorch_lora_weights"), SAME),
    (named("x/lora"), named("lora"), UNDECIDED),  # what every trainer calls them
    (sketched("sha256:1"), sketched("sha256:2", noise=0.06), UNDECIDED),  # in 8 bits
    (sketched("sha256:1"), sketched("sha256:2", noise=0.3), DIFFERENT),
    (recut("sha256:1"), sketched("sha256:2"), UNDECIDED),  # q, k and v in one
    (recut("sha256:1", 1.5), sketched("sha256:2"), DIFFERENT),
    (recut("sha256:1"), sketched("sha256:1"), SAME),
])  # fmt: skip
def test_which_is_which(one, other, verdict):
    assert one.compare(other) == other.compare(one) == verdict


@pytest.mark.parametrize(("name", "plain"), [
    ("a.safetensors", "a"), ("A.SFT", "a"), ("loras/sub\\A_b  c.v1.safetensors", "a-b-c-v1"), (" a.pt ", "a"),
    ("a.safetensors.bak", "a-safetensors-bak"), ("lightning.v2", "lightning-v2"), ("", ""),
])  # fmt: skip
def test_plain_names(name, plain):
    assert plain_name(name) == plain


def test_the_best_known_claim_counts_and_of_equals_the_first():
    guess, derived = trained(file("a"), by=GUESSED), trained(file("b"), by=DERIVED)
    told, again = trained(file("c")), trained(file("d"))
    assert Lineage((), (guess, derived, told, again)).trained is told
    assert Lineage((), (guess, derived)).trained is derived and Lineage((), (guess,)).trained is guess
    assert NOTHING_KNOWN.trained is NOTHING_KNOWN.used is NOTHING_KNOWN.recommended is None


def test_each_word_has_its_own_best_claim():
    lineage = Lineage((), (trained(X, by=GUESSED), used(Y, by=DERIVED), role(STYLE, strength=(0.5, 0.7))))
    assert lineage.trained.trained_with == (X,) and lineage.used.use_with == (Y,)
    assert lineage.recommended.strength == (0.5, 0.7) and lineage.role == (STYLE, DECLARED)


def test_nothing_is_not_silence():
    assert Lineage((), (trained(X, by=GUESSED), trained())).trained.trained_with == ()


def test_a_claim_that_knows_nothing_is_silence():
    lineage = Lineage((), (trained(X, by=UNKNOWN), used(X, by=UNKNOWN), role(STYLE, UNKNOWN, strength=(0.0, 1.0))))
    assert lineage.trained is lineage.used is lineage.recommended is None
    assert lineage.role == (UNKNOWN, UNKNOWN) and not list(lineage.conflicts())


@pytest.mark.parametrize(("claims", "known", "expected"), [
    ((), None, (UNKNOWN, UNKNOWN)),
    ((), fast("l"), (ACCELERATOR, DERIVED)),
    ((role(STYLE, GUESSED),), fast("l"), (ACCELERATOR, DERIVED)),
    ((role(STYLE),), fast("l"), (STYLE, DECLARED)),
    ((role(STYLE, GUESSED),), fast("l", GUESSED), (STYLE, GUESSED)),
    ((role(UNKNOWN),), fast("l", GUESSED), (ACCELERATOR, GUESSED)),
])  # fmt: skip
def test_the_role(claims, known, expected):
    assert Lineage((), claims, known).role == expected


def test_conflicts_are_among_equals():
    first, other, worse = trained(X), trained(Y), trained(file("z"), by=DERIVED)
    assert list(Lineage((), (worse, first, other)).conflicts()) == [(first, other)]
    assert list(Lineage((), (first, trained(replace(X, name="copy")), worse)).conflicts()) == []
    assert list(Lineage((), (used(X), used())).conflicts("use_with")) == [(used(X), used())]
    assert list(Lineage((), (used(X), used())).conflicts()) == []


@pytest.mark.parametrize(("one", "other", "expected"), [
    ((), (), True), ((X,), (), False), ((X,), (X, Y), False), ((X, Y), (Y, X), True), ((X,), (Y,), False),
    ((X, Y), (X, file("z")), False), ((named("a"),), (X,), True), ((named("a"), X), (X, Y), True),
    ((named("a"), Y), (Y, X), True), ((X, named("a")), (Y, file("z")), False), ((X, X), (X, Y), False),
])  # fmt: skip
def test_same_ingredients(one, other, expected):
    assert same_ingredients(one, other) is same_ingredients(other, one) is expected


kinds = st.sampled_from(["sha256:1", "sha256:2", "tensors:1", "tensors:2", "known:1"])
some = st.builds(Ingredient, st.sampled_from("ab"), st.lists(kinds, max_size=2, unique=True).map(tuple))


@pytest.mark.parametrize("other", [
    (), ((8.0, 8.0, 3.0),), ((8.0, 8.0, 3.0, 1.0, 0.2),), ((8.0, 8.0, 2.0, 1.0, 0.2, -0.1),),
    ((8.0, 8.0, 3.0, 1.0, 0.2, -0.1), (4.0, 4.0, 1.0, 1.0, 0.0, 0.0)), ((8.0, 8.0, 3.0, 1.0, 0.2, -0.12),),
])  # fmt: skip
def test_sketches_that_are_not_alike(other):
    one = ((8.0, 8.0, 3.0, 1.0, 0.2, -0.1),)
    assert alike(one, one) and not alike(one, other) and not alike(other, one)


def test_an_ingredient_comes_back_from_plain_data():
    for ingredient in (X, named("a"), replace(sketched("sha256:1"), strength=0.5, dtype="bf16", coverage=(3, 4))):
        assert Ingredient.from_json(json.loads(json.dumps(ingredient.to_json()))) == ingredient
    assert "sketch" not in X.to_json()


@given(some, some)
def test_comparing_goes_both_ways(one, other):
    assert one.compare(other) == other.compare(one) and one.compare(one) == SAME


@given(st.lists(some, max_size=4).map(tuple), st.randoms(use_true_random=False))
def test_a_list_is_the_same_in_any_order(things, random):
    assert same_ingredients(things, tuple(random.sample(things, len(things))))


pairs = st.none() | st.tuples(st.integers(), st.integers())
texts = st.lists(st.text()).map(tuple)


@given(st.builds(Ingredient, st.text(), texts, st.none() | st.floats(allow_nan=False), st.text(), pairs))
def test_an_ingredient_survives_json(thing):
    assert Ingredient.from_json(thing.to_json()) == thing


# --- stacks -----------------------------------------------------------------------------------------------------------


def test_only_what_was_recognised_for_certain_is_an_id():
    known, guess = (Item("a", FUSE, 0.5, Lineage(("sha256:1",), (), fast("l", by)), 3, 4) for by in (DERIVED, GUESSED))
    assert known.ingredient == Ingredient("a", ("sha256:1", "known:l"), 0.5, coverage=(3, 4))
    assert guess.ingredient.ids == ("sha256:1",)
    assert Item("a", FUSE).ingredient.coverage is None


def a_stacked_plan(**base):
    lineage = Lineage(("tensors:1",), (trained(X),))
    low = a_layer([random_delta(W, (16, 16), 4, 0.1, 1)], 0.5, FUSE, "low.safetensors")
    top = a_layer([random_delta(W, (16, 16), 4, 0.1, 2)], 0.7, STACK, "top.safetensors", lineage=lineage)
    return a_plan({W: torch.zeros(16, 16)}, low, top, **base)


def test_a_plan_becomes_a_stack():
    inside = Contained(X, DECLARED, "a record")
    plan = a_stacked_plan(family="wan", contains=(inside,), quantized="scaled fp8", dequantized=True)
    stack = stack_of(replace(plan, vanilla=True), (Sampling(4),))
    assert (stack.base, stack.family) == ("base.safetensors", "wan")
    assert (stack.quantized, stack.dequantized) == ("scaled fp8", True)
    assert stack.contains == (inside,) and stack.vanilla and not stack.native and stack.sampling == (Sampling(4),)
    assert [(i.name, i.stage, i.strength, i.matched, i.modules, i.dependent) for i in stack.items] == [
        ("low.safetensors", FUSE, 0.5, 1, 1, False), ("top.safetensors", STACK, 0.7, 1, 1, False),
    ]  # fmt: skip


def test_the_hash_of_a_planned_file_is_an_id():
    low, top = stack_of(a_stacked_plan()).items
    assert low.lineage.ids == (f"sha256:{a_stacked_plan().layers[0].lora.sha256}",)
    assert top.lineage.ids[0] == "tensors:1" and top.lineage.ids[1].startswith("sha256:")
    assert top.lineage.claims == (trained(X),)
    own = a_layer([], name="a", lineage=Lineage(("sha256:own",)))
    assert stack_of(a_plan({W: torch.zeros(2, 2)}, own)).items[0].lineage.ids == ("sha256:own",)


def test_a_dora_depends_on_the_weights():
    plan = a_stacked_plan()
    patch = plan.layers[1].patches[0]
    dora = replace(patch, adapter=replace(patch.adapter, parts=(*patch.adapter.parts, ("magnitude", "m"))))
    plan = replace(plan, layers=(plan.layers[0], replace(plan.layers[1], patches=(patch, dora))))
    assert [item.dependent for item in stack_of(plan).items] == [False, True]


def test_what_does_nothing_is_not_below():
    stack = Stack("b", items=(Item("a", FUSE), Item("c", FUSE, 0.0), Item("d", STACK), Item("e", STACK, 0.0)))
    assert [each.ingredient.name for each in loras_in_model(stack)] == ["a", "d"]


def test_a_plan_is_checked_with_its_lineage_policy_and_sampling():
    plan = a_stacked_plan()
    assert [finding.text for finding in check(plan)] == ["LF104.another"]
    vanilla = replace(plan.layers[1], lineage=Lineage((), (trained(),)))
    plan = replace(plan, layers=(plan.layers[0], vanilla))
    assert [finding.severity for finding in check(plan)] == ["note"]
    assert [finding.severity for finding in check(plan, MATCH)] == ["warning"]
    quick = replace(plan.layers[0], lineage=Lineage((), (), fast("l", steps=(4, 8))))
    found = check(replace(plan, layers=(quick,)), sampling=(Sampling(40, node="9"),))
    assert [(finding.text, finding.node) for finding in found] == [("LF403.steps", "9")]


def test_a_claim_says_nothing_until_told():
    claim = Claim(Evidence(DECLARED, "me"))
    assert (claim.trained_with, claim.use_with, claim.role, claim.strength, claim.ask) == (
        None,
        None,
        UNKNOWN,
        None,
        False,
    )


def test_the_users_own_word_settles_what_others_dispute():
    mine = Claim(Evidence(DECLARED, BY_USER), ())
    script, log = trained(X), trained(Y)
    disputed = Lineage((), (script, log))
    assert list(disputed.conflicts()) == [(script, log)]
    settled = Lineage((), (script, log, mine))
    assert settled.trained == mine and list(settled.conflicts()) == []
    sure = Lineage((), (replace(mine, evidence=Evidence(DERIVED, BY_USER)), script))
    assert sure.trained == script  # how well a thing is known comes first


def test_as_trained_is_a_word_on_its_use_too():
    """A script's `use with X` does not outlive the user's `trained on the untouched base, used as trained`."""
    script = Claim(Evidence(DECLARED, "train.sh"), (X,), (X,))
    assert Lineage((), (script,)).used == script
    assert Lineage((), (script, Claim(Evidence(DECLARED, BY_USER), ()))).used is None
    own = Claim(Evidence(DECLARED, BY_USER), (X,), ())
    assert Lineage((), (script, own)).used == own
    assert Lineage((), (script, Claim(Evidence(DECLARED, BY_USER), role=STYLE))).used == script
