"""Any stack at all: the rules are pure, never loud on a guess, and silent where nobody says anything."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import assume, given, settings
from hypothesis import strategies as st
from lora_foundry.engine.findings import EVIDENCE
from lora_foundry.engine.lineage import (
    DECLARED,
    DERIVED,
    GUESSED,
    ROLES,
    UNKNOWN,
    Accelerator,
    Claim,
    Contained,
    Evidence,
    Ingredient,
    Lineage,
    plain_name,
)
from lora_foundry.engine.plan import FUSE, STACK
from lora_foundry.validator.rules import check_stack
from lora_foundry.validator.stacks import POLICIES, Item, Sampling, Stack
from stack_parts import told

LEVELS = st.sampled_from(EVIDENCE)
NAMES = ("lightning", "a/turbo", "b/turbo", "style", "{0}", "")
ingredients = st.builds(
    Ingredient,
    st.sampled_from(NAMES),
    st.lists(st.sampled_from(["sha256:1", "sha256:2", "tensors:1", "known:fast"]), max_size=2).map(tuple),
    st.none() | st.floats(-2, 2),
    st.sampled_from(["", "bf16", "fp8"]),
    st.none() | st.tuples(st.integers(0, 9), st.integers(0, 9)),
)
lists = st.none() | st.lists(ingredients, max_size=2).map(tuple)
samplings = st.builds(Sampling, st.none() | st.integers(1, 50), st.none() | st.floats(0, 9))
spans = st.none() | st.tuples(st.floats(0, 1), st.floats(0, 1))


def claims(levels):
    evidence = st.builds(Evidence, levels, st.sampled_from(["a {file}", ""]), st.sampled_from(["", "quote {x}"]))
    return st.builds(Claim, evidence, lists, lists, st.sampled_from(ROLES), spans, st.booleans())


def accelerators(levels):
    steps = st.none() | st.tuples(st.integers(1, 4), st.integers(4, 8))
    ids = st.sampled_from(["fast", "other"])
    return st.builds(Accelerator, ids, st.just("Fast"), levels, st.just(""), spans, steps, spans)


def stacks(levels=LEVELS):
    lineages = st.builds(
        Lineage,
        ingredients.map(lambda each: each.ids),
        st.lists(claims(levels), max_size=3).map(tuple),
        st.none() | accelerators(levels),
    )
    items = st.builds(
        Item,
        st.sampled_from(NAMES),
        st.sampled_from([FUSE, STACK]),
        st.sampled_from([0.0, 1.0, 0.5, -1.0]),
        lineages,
        st.integers(0, 9),
        st.integers(0, 9),
        st.booleans(),
    )
    contained = st.builds(Contained, ingredients, levels, st.just(""), st.none() | accelerators(levels))
    return st.builds(
        Stack,
        st.just("base"),
        quantized=st.none() | st.sampled_from(["scaled fp8", "GGUF Q4_0"]),
        contains=st.lists(contained, max_size=2).map(tuple),
        items=st.lists(items, max_size=4).map(tuple),
        vanilla=st.booleans(),
        native=st.booleans(),
        sampling=st.lists(samplings, max_size=2).map(tuple),
    )


FACTS = ("LF105.twice", "LF105.fused_and_stacked", "LF201.native")  # seen in the stack itself, whatever anybody claims


@given(stacks(), st.sampled_from(POLICIES))
@settings(max_examples=150, deadline=None)
def test_any_stack_is_judged_the_same_every_time(stack, policy):
    before = repr(stack)
    findings = check_stack(stack, policy)
    assert check_stack(stack, policy) == findings and repr(stack) == before
    assert len(set(findings)) == len(findings)


@given(stacks(), st.sampled_from(POLICIES))
@settings(max_examples=150, deadline=None)
def test_only_known_evidence_warns(stack, policy):
    for finding in check_stack(stack, policy):
        assert finding.severity in ("question", "note") or finding.evidence in (DECLARED, DERIVED)


@given(stacks(st.sampled_from([GUESSED, UNKNOWN])), st.sampled_from(POLICIES))
@settings(max_examples=150, deadline=None)
def test_guesses_never_warn(stack, policy):
    loud = [f for f in check_stack(stack, policy) if f.severity in ("warning", "error")]
    assert not [finding for finding in loud if finding.text not in FACTS]


@given(stacks(st.just(UNKNOWN)), st.sampled_from(POLICIES))
@settings(max_examples=100, deadline=None)
def test_nothing_known_is_silence(stack, policy):
    """But for what the stack itself shows."""
    bare = replace(stack, items=tuple(replace(i, lineage=replace(i.lineage, accelerator=None)) for i in stack.items))
    seen = {finding.text for finding in check_stack(bare, policy)}
    assert seen <= {*FACTS, "LF105.same_name", "LF105.stacked_twice", "LF201.gguf"}


@given(stacks(), st.randoms(use_true_random=False), st.sampled_from(POLICIES))
@settings(max_examples=100, deadline=None, derandomize=True)
def test_the_order_of_rows_in_a_plan_changes_no_verdict(stack, random, policy):
    """LF104, LF105 and LF403 name the first of several that are alike: they are left out, as are equal names."""
    assume(len({plain_name(item.name) for item in stack.items}) == len(stack.items))
    shuffled = replace(stack, native=False, items=tuple(random.sample(stack.items, len(stack.items))))
    rows = [told(check_stack(each, policy)) for each in (replace(stack, native=False), shuffled)]
    first, second = ([line for line in lines if line[:5] not in ("LF104", "LF105", "LF403")] for lines in rows)
    assert set(first) == set(second)
