"""What findings say: who claims what, about which LoRA, with which numbers, and at which node."""

from __future__ import annotations

from dataclasses import replace

import pytest
from lora_foundry.engine.findings import SEVERITIES, Finding
from lora_foundry.engine.lineage import DECLARED, DERIVED, GUESSED, STYLE, Evidence
from lora_foundry.validator.rules import check_stack
from lora_foundry.validator.stacks import Sampling
from stack_parts import (
    FAST,
    FULL,
    HALF,
    HYPER,
    PLAIN,
    Case,
    X,
    Y,
    Z,
    case,
    fast,
    file,
    fused,
    inside,
    like_x,
    role,
    stacked,
    style,
    trained,
    used,
)


def find(text: str, each: Case) -> Finding:
    return next(finding for finding in check_stack(each.stack, each.policy) if finding.text == text)


def test_a_finding_names_who_says_what_and_where():
    finding = find("LF102.missing", case("", style(trained(X))))
    assert finding.seen == (
        "style.safetensors was trained with lightning.safetensors (train.sh: --lora_fused lightning), "
        "which is not in this model."
    )
    assert (finding.subject, finding.node, finding.evidence) == ("style.safetensors", "7", DECLARED)
    assert find("LF102.guessed", case("", style(trained(X, by=GUESSED)))).evidence == GUESSED
    assert "(its hash)" in find("LF102.missing", case("", style(trained(X, by=DERIVED)))).seen


@pytest.mark.parametrize(("text", "each", "parts"), [
    ("LF102.conflict", case("", style(trained(X), PLAIN)), ["says lightning.safetensors (", "says none (train.sh"]),
    ("LF103.trained", case("", fused(X), fused(Z), style(PLAIN)), ["lightning.safetensors, detail.safetensors is in"]),
    ("LF104.another", case("", fused(Y, known=FAST), style(trained(X))), ["turbo.safetensors is in this model"]),
    ("LF104.contents", case("", fused(X), style(trained(replace(Y, name="lightning.safetensors")))),
     ["the file of that name in this model is another one"]),
    ("LF104.strength", case("", fused(X, at=0.5), style(trained(like_x(strength=0.8)))), ["strength 0.8", "at 0.5"]),
    ("LF104.coverage", case("", fused(X, modules=FULL), style(trained(like_x(coverage=HALF)))),
     ["while 360 of 720 modules", "here it is 720 of 720"]),
    ("LF105.twice", case("", fused(X), fused(X, at=0.5)), ["at 1 and at 0.5"]),
    ("LF105.fused_and_stacked", case("", stacked(X, at=0.2), fused(X)), ["fused at 1 and stacked at 0.2"]),
    ("LF105.stacked_twice", case("", stacked(X, at=0.5), stacked(X, at=0.3)), ["at 0.5 and at 0.3"]),
    ("LF105.contained", case("", inside(X), fused(X)), ["base.safetensors contains lightning", "(its recipe)"]),
    ("LF106.dropped", case("", fused(X), style(trained(X), used())), ["lightning.safetensors is in", "(train"]),
    ("LF401.role", case("", style(role(STYLE), at=0.8)), ["strength 0.8", "style, 0.5 to 0.7"]),
    ("LF401.publisher", case("", fused(Y, known=HYPER)), ["publisher of Hyper says 0.125 to 0.125"]),
    ("LF403.two", case("", fused(X, known=FAST), fused(Y, known=fast("t"))), [": lightning.safetensors, turbo"]),
    ("LF403.sampling", case("", fused(X, known=FAST), Sampling(40, 4.5)), ["4 to 8 steps and CFG 1;", "40 steps at"]),
    ("LF101.after", case("", style(), stacked(Z), stacked(X, known=FAST), native=True),
     ["after style.safetensors, detail.safetensors."]),
    ("LF201.native", case("", style(), quantized="scaled fp8", native=True), ["(base.safetensors: scaled fp8)"]),
])  # fmt: skip
def test_findings_carry_names_and_numbers(text, each, parts):
    assert not [part for part in parts if part not in find(text, each).seen]


def test_a_long_quote_is_cut_and_stays_on_one_line():
    claim = replace(trained(X), evidence=Evidence(DECLARED, "log.txt", "merging\nmodule: " + "x" * 500))
    seen = find("LF102.missing", case("", style(claim))).seen
    whole = replace(claim, evidence=Evidence(DECLARED, "log.txt", "x" * 160))
    assert f"(log.txt: {'x' * 160})" in find("LF102.missing", case("", style(whole))).seen
    assert "(log.txt: merging module: xxx" in seen and "xxx...)" in seen and len(seen) < 300


def test_a_conflict_names_both_sides():
    seen = find("LF102.conflict", case("", style(PLAIN, trained(X, Y, by=DECLARED)))).seen
    assert "One source says none (train.sh" in seen and "another says lightning.safetensors, turbo" in seen


def test_a_verdict_is_as_well_known_as_the_worst_of_what_it_rests_on():
    guessed_inside = case("", inside(like_x(strength=0.5), GUESSED), style(trained(like_x(strength=1.0))))
    assert find("LF104.strength", guessed_inside).evidence == GUESSED
    dropped = case("", fused(X), style(trained(X), used(by=DERIVED)))
    assert find("LF106.dropped", dropped).evidence == DERIVED


def test_the_sampler_is_the_node_of_its_finding():
    assert find("LF403.steps", case("", fused(X, known=FAST), Sampling(40, node="31"))).node == "31"


def test_the_first_node_of_a_native_chain_is_named():
    chain = case("", replace(style(), node="4"), stacked(Z), quantized="scaled fp8", native=True)
    assert find("LF201.native", chain).node == "4"


def test_errors_come_first():
    guess, gap = stacked(Z, trained(file("v"), by=GUESSED)), stacked(Y, trained(file("w")))
    mixed = case("", guess, gap, style(PLAIN), fused(X), fused(X))
    severities = [finding.severity for finding in check_stack(mixed.stack)]
    assert severities == sorted(severities, key=SEVERITIES.index) and set(severities) == set(SEVERITIES)
