"""Stacks and exactly what is said about each: trained-with x fused x order x evidence x policy, and no word more."""

from __future__ import annotations

import ast
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from base_lora_cases import ANOTHER, ASKED, CONFLICTS, NEEDED, STATED, UNNEEDED
from lora_foundry.engine.lineage import (
    ACCELERATOR,
    CONTROL,
    DECLARED,
    DERIVED,
    GUESSED,
    QUALITY,
    REPAIR,
    STYLE,
    SUBJECT,
    SUBTLE,
    TRAINING_ADAPTER,
    UNKNOWN,
)
from lora_foundry.validator import base_loras as rules_base
from lora_foundry.validator import surplus as rules_surplus
from lora_foundry.validator import use as rules_use
from lora_foundry.validator import variants as rules_variants
from lora_foundry.validator.named import Variant
from lora_foundry.validator.rules import check_stack
from lora_foundry.validator.stacks import Item, Sampling
from stack_parts import (
    FAST,
    HYPER,
    NATIVE,
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
    named,
    role,
    stacked,
    style,
    told,
    trained,
    used,
)

BOTH, HOLDS_X = file("both"), (inside(X),)
FP8_MADE = fast("lightning", made_on="fp8_e4m3fn")
GUIDED = fast("guided", steps=(1, rules_use.ANY_STEPS), cfg=(1.0, 1.0))  # it spares CFG, and no steps
USUAL = {SUBJECT: (0.8, 1.0), STYLE: (0.5, 0.7), QUALITY: (0.3, 0.5), SUBTLE: (0.2, 0.4)}  # as the design says

HIGH_I2V = Variant("high", "image to video", "Wan 2.2")
T2V, OLD = replace(HIGH_I2V, task="text to video"), Variant(task="text to video")
EDIT, PLAIN_QWEN = Variant(version="Qwen-Image-Edit-2511"), Variant(version="Qwen-Image")


def meant(variant: Variant, **more: Any) -> Item:
    return replace(stacked(X, **more), variant=variant)


VARIANTS = (
    case("the same noise and task", meant(HIGH_I2V), variant=HIGH_I2V),
    case("the other noise", meant(HIGH_I2V), "LF104.noise question", variant=replace(HIGH_I2V, noise="low")),
    case("the other noise, the reverse", meant(Variant("low")), "LF104.noise question", variant=HIGH_I2V),
    case("the other noise at 0", meant(Variant("low"), at=0.0), variant=HIGH_I2V),
    case("the other task", meant(T2V), "LF303.task question", variant=HIGH_I2V),
    case("the other task of another version", meant(replace(T2V, version="Wan 2.1")), variant=HIGH_I2V),
    case("the other task of no version", meant(OLD), variant=HIGH_I2V),
    case(
        "the other task and noise",
        meant(T2V),
        "LF303.task question",
        "LF104.noise question",
        variant=replace(HIGH_I2V, noise="low"),
    ),
    case("an accelerator of another version", meant(PLAIN_QWEN, known=FAST), "LF104.version question", variant=EDIT),
    case("a style of another version", meant(PLAIN_QWEN), variant=EDIT),
    case("an accelerator for who knows", meant(Variant(), known=FAST), variant=EDIT),
    case("on who knows", meant(HIGH_I2V, known=FAST)),
)
ORDER = (
    case("stacked beside", stacked(X), style(trained(X)), "LF101.beside note"),
    case("the order within a stage is none", style(trained(X)), stacked(X), "LF101.beside note"),
    case("stacked beside, guessed", stacked(X), style(trained(X, by=GUESSED)), "LF101.beside note"),
    case("stacked beside a DoRA", stacked(X), style(trained(X), dependent=True), "LF101.beside_dependent warning"),
    case("the same, guessed", stacked(X), style(trained(X, by=GUESSED), dependent=True),
         "LF101.beside_dependent question"),
    case("the same, kept or dropped?", stacked(X), style(trained(X, ask=True), dependent=True),
         "LF101.beside_dependent question"),
    case("a DoRA on a fused one", fused(X), style(trained(X), dependent=True)),
    case("a dependent one that is needed", stacked(X, dependent=True), style(trained(X)), "LF101.beside note"),
    case("a DoRA of unknown training beside", stacked(X), style(dependent=True)),
    case("both fused", fused(X), fused(Z, trained(X))),
    case("both fused, a DoRA", fused(X), fused(Z, trained(X), dependent=True), "LF101.beside_dependent warning"),
    case("the base has it too", inside(X), fused(X, at=-0.5), fused(Z, trained(X), dependent=True)),
    case("upside down", fused(Z, trained(X)), stacked(X), "LF101.beside note"),
    case("native: in order", stacked(X), style(trained(X)), **NATIVE),
    case("native: in order, a DoRA", stacked(X), style(trained(X), dependent=True), **NATIVE),
    case("native: after", style(trained(X)), stacked(X), "LF101.after_trained warning", **NATIVE),
    case("native: after, derived", style(trained(X, by=DERIVED)), stacked(X), "LF101.after_trained warning", **NATIVE),
    case("native: after, guessed", style(trained(X, by=GUESSED)), stacked(X), "LF101.after_trained note", **NATIVE),
    case("native: after a DoRA", style(trained(X), dependent=True), stacked(X), "LF101.after_dependent error",
         **NATIVE),
    case("native: after a DoRA, guessed", style(trained(X, by=GUESSED), dependent=True), stacked(X),
         "LF101.after_dependent question", **NATIVE),
    case("native: after, other strength", style(trained(like_x(strength=1.0))), stacked(X, at=0.5),
         "LF101.after_trained warning", "LF104.strength warning", **NATIVE),
    case("native: an accelerator after unknown ones", style(), stacked(Z), stacked(X, known=FAST),
         "LF101.after note", **NATIVE),
    case("native: a guessed accelerator after", style(), stacked(X, known=fast("l", GUESSED)), "LF101.after note",
         **NATIVE),
    case("native: an accelerator after a DoRA", style(dependent=True), stacked(X, known=FAST), "LF101.after note",
         **NATIVE),
    case("native: an accelerator first", stacked(X, known=FAST), style(), stacked(Z), **NATIVE),
    case("native: after one that needs another", style(trained(Y)), stacked(X, known=FAST), inside(Y), **NATIVE),
    *(case(f"native: after a LoRA for {what}", style(role(what), at=at), stacked(X, known=FAST),
           "LF101.after note", **NATIVE)
      for what, at in {STYLE: 0.6, SUBJECT: 0.9, QUALITY: 0.4, SUBTLE: 0.3}.items()),
    case("native: an accelerator inside", inside(X, known=FAST), style(), **NATIVE),
    case("native: after a helper", stacked(Z, role(CONTROL)), stacked(X, known=FAST), **NATIVE),
    case("native: after one that does nothing", style(at=0.0), stacked(X, known=FAST), **NATIVE),
    case("native: subtracted after", style(), stacked(X, known=FAST, at=-1.0), **NATIVE),
    case("native: missing", style(trained(X)), "LF102.missing warning", **NATIVE),
    case("plan: an accelerator after unknown ones", style(), stacked(X, known=FAST)),
)  # fmt: skip

TWICE = (
    case("merged in and fused", fused(X), stacked(BOTH, merged=HOLDS_X), "LF105.merged warning"),
    case("merged in and stacked, guessed", stacked(BOTH, merged=(inside(X, GUESSED),)), stacked(X),
         "LF105.merged question"),
    case("merged in and inside the base", inside(X), stacked(BOTH, merged=HOLDS_X), "LF105.merged warning"),
    case("merged into two", stacked(BOTH, merged=HOLDS_X), stacked(Z, merged=HOLDS_X), "LF105.merged warning"),
    case("merged in and taken out again", stacked(BOTH, merged=HOLDS_X), stacked(X, at=-1.0)),
    case("merged with what it needs", stacked(BOTH, trained(X), merged=HOLDS_X)),
    case("merged without what it needs", stacked(BOTH, trained(Y), merged=HOLDS_X), "LF102.missing warning"),
    case("needed by another, merged in", stacked(BOTH, merged=HOLDS_X), style(trained(X)), "LF101.beside note"),
    case("an accelerator beside a merged one", fused(Y, known=fast("turbo")),
         stacked(BOTH, merged=(inside(X, known=FAST),)), "LF403.two warning"),
    case("fused twice", fused(X), fused(X, at=0.5), "LF105.twice error"),
    case("fused twice under two names", fused(X), fused(like_x(name="copy")), "LF105.twice error"),
    case("fused three times", fused(X), fused(X, at=0.5), fused(X, at=0.2), "LF105.twice error", "LF105.twice error"),
    case("fused twice, by path", fused(named("a/x")), fused(named("a/x")), "LF105.twice error"),
    case("other contents under one name", fused(replace(X, name="x")), fused(replace(Y, name="x"))),
    case("stacked: other contents under one name", stacked(replace(X, name="x")), stacked(replace(Y, name="x"))),
    case("one name in two folders", fused(named("a/x")), fused(named("b/x")), "LF105.same_name question"),
    case("one name in two folders, stacked", stacked(named("a/x")), stacked(named("b/x"))),
    case("one name, other contents", fused(like_x(name="a/x")), fused(replace(Y, name="b/x"))),
    case("twice the same entry", fused(X, known=FAST), fused(Y, known=FAST), "LF105.twice error"),
    case("twice the same guess", fused(X, known=fast("l", GUESSED)), fused(Y, known=fast("l", GUESSED)),
         "LF403.two question"),
    case("twice, once at 0", fused(X), fused(X, at=0.0)),
    case("added and subtracted", fused(X), stacked(X, at=-1.0)),
    case("fused and stacked", fused(X), stacked(X), "LF105.fused_and_stacked warning"),
    case("stacked first, then fused", stacked(X), fused(X), "LF105.fused_and_stacked warning"),
    case("stacked twice", style(at=0.5), style(at=0.3), "LF105.stacked_twice note"),
    case("inside and fused, declared", inside(X, DECLARED), fused(X), "LF105.contained error"),
    case("inside and fused, derived", inside(X), fused(X), "LF105.contained error"),
    case("inside and fused, guessed", inside(X, GUESSED), fused(X), "LF105.contained_guessed question"),
    case("inside and fused, unknown", inside(X, UNKNOWN), fused(X)),
    case("inside and fused, by name", inside(named("lightning")), fused(X), "LF105.contained_name warning"),
    case("inside and stacked", inside(X), stacked(X), "LF105.contained_stacked warning"),
    case("inside and stacked, guessed", inside(X, GUESSED), stacked(X), "LF105.contained_guessed question"),
    case("inside and subtracted", inside(X), fused(X, at=-1.0)),
    case("another one inside", inside(X), fused(Y)),
    case("doubled and needed: no word on strength", inside(X), fused(X), style(trained(like_x(strength=0.5))),
         "LF105.contained error"),
    case("native twice", stacked(X), stacked(X), "LF105.stacked_twice note", **NATIVE),
)  # fmt: skip

DROPPED = (
    case("dropped and fused", fused(X), style(trained(X), used()), "LF106.dropped warning"),
    case("dropped and fused, one claim", fused(X), style(replace(trained(X), use_with=())), "LF106.dropped warning"),
    case("dropped and inside", inside(X), style(trained(X), used()), "LF106.dropped warning"),
    case("dropped and guessed inside", inside(X, GUESSED), style(trained(X), used()), "LF106.dropped question"),
    case("dropped and stacked", stacked(X), style(trained(X), used()), "LF106.dropped warning"),
    case("dropped and absent", style(trained(X), used())),
    case("dropped by a guess", fused(X), style(trained(X), used(by=GUESSED)), "LF106.dropped question"),
    case("one kept, one dropped", fused(X), fused(Y), style(replace(trained(X, Y), use_with=(X,))),
         "LF106.dropped warning"),
    case("one kept, one dropped and absent", fused(X), style(replace(trained(X, Y), use_with=(X,)))),
    case("replaced by a repair", fused(file("patch"), role(REPAIR)), style(trained(X), used(file("patch")))),
    case("names of two sources decide nothing", fused(X), style(trained(named("lightning")), used(named("l4"))),
         "LF104.undecided question"),
    case("names of one source do", fused(X), style(replace(trained(named("lightning")), use_with=(named("l4"),))),
         "LF104.undecided question", "LF106.dropped warning"),
    case("dropped, and another is fused", fused(X), fused(Y), style(trained(X), used()),
         "LF106.dropped warning", "LF103.stated note"),
    case("a LoRA that went on from its own earlier state", style(trained(named("style")), used())),
    case("subtracted is fine", fused(X, at=-1.0), style(trained(X), used())),
    case("a training adapter", fused(Z, role(TRAINING_ADAPTER)), "LF106.adapter warning"),
    case("a training adapter, derived", stacked(Z, role(TRAINING_ADAPTER, DERIVED)), "LF106.adapter warning"),
    case("a training adapter, guessed", stacked(Z, role(TRAINING_ADAPTER, GUESSED)), "LF106.adapter_guessed question"),
    case("a training adapter that is needed", fused(Z, role(TRAINING_ADAPTER)), style(used(Z))),
    case("a training adapter, subtracted", fused(Z, role(TRAINING_ADAPTER), at=-1.0)),
    case("a training adapter, told once", fused(Z, role(TRAINING_ADAPTER)), style(trained(Z), used()),
         "LF106.dropped warning"),
)  # fmt: skip

USE = (
    *(case(f"{what} at {at}", style(role(what), at=at)) for what, ends in USUAL.items() for at in ends),
    *(case(f"{what} at {at:g}", style(role(what), at=at), "LF401.role note")
      for what, (least, most) in USUAL.items() for at in (least - 0.05, most + 0.05)),
    *(case(f"unknown at {at:g}", style(at=at), "LF401.far note") for at in (8.0, 2.1, -3.0)),
    *(case(f"unknown at {at:g}", style(at=at)) for at in (2.0, -1.0)),
    case("a style at 0", style(role(STYLE), at=0.0)),
    case("a style at 0.7 in fp32", style(role(STYLE), at=0.699999988079071)),
    case("a style at 0.8", style(role(STYLE), at=0.8), "LF401.role note"),
    case("a style at 0.8, guessed", style(role(STYLE, GUESSED), at=0.8)),
    case("a style at 0.8, derived", style(role(STYLE, DERIVED), at=0.8), "LF401.role note"),
    case("a subject at 0.7", style(role(SUBJECT), at=0.7), "LF401.role note"),
    case("a subject at 0.9", style(role(SUBJECT), at=0.9)),
    case("quality at 0.6", fused(Z, role(QUALITY), at=0.6), "LF401.role note"),
    case("subtle at 0.1", fused(Z, role(SUBTLE), at=0.1), "LF401.role note"),
    case("its maker says more", style(role(STYLE, strength=(0.9, 1.1)), at=1.0)),
    case("its maker says less", style(role(STYLE, strength=(0.2, 0.3)), at=0.6), "LF401.maker note"),
    case("a publisher's strength", fused(Y, known=HYPER, at=0.125)),
    case("not the publisher's strength", fused(Y, known=HYPER), "LF401.publisher note"),
    case("the publisher of a guess", fused(Y, known=fast("h", GUESSED, strength=(0.125, 0.125))),
         "LF401.publisher note"),
    case("declared to be a style after all",
         stacked(Y, role(STYLE), known=fast("h", GUESSED, strength=(0.1, 0.1)), at=0.6)),
    case("as it was in training", fused(Y, known=HYPER), style(trained(replace(Y, strength=1.0)))),
    case("not as it was in training", fused(Y, known=HYPER), style(trained(replace(Y, strength=0.125))),
         "LF104.strength warning", "LF401.publisher note"),
    case("two accelerators", fused(X, known=FAST), fused(Y, known=HYPER, at=0.125), "LF403.two warning"),
    case("three accelerators", *(fused(file(n), known=fast(n)) for n in "abc"), "LF403.two warning"),
    case("two, one of them guessed", fused(X, known=FAST), stacked(Y, known=fast("t", GUESSED)), "LF403.two question"),
    case("two, declared", fused(X, role(ACCELERATOR)), fused(Y, role(ACCELERATOR)), "LF403.two warning"),
    case("two, one inside", inside(X, known=FAST), stacked(Y, known=fast("t")), "LF403.two warning"),
    case("two, one guessed inside", inside(X, GUESSED, FAST), stacked(Y, known=fast("t")), "LF403.two question"),
    case("two, one trained on the other", fused(X, known=FAST), fused(Y, trained(X), known=fast("t"))),
    case("two halves are a blend", fused(X, known=FAST, at=0.5), fused(Y, known=fast("t"), at=0.5)),
    case("half of each, by what its publisher asks for", fused(X, known=FAST, at=0.5), fused(Y, known=HYPER, at=0.0625),
         "LF401.publisher note"),
    case("more than a blend", fused(X, known=FAST, at=0.6), fused(Y, known=fast("t"), at=0.5), "LF403.two warning"),
    case("two, one subtracted", fused(X, known=FAST), stacked(Y, known=fast("t"), at=-1.0)),
    case("two, but one is a style", fused(X, known=FAST), stacked(Y, role(STYLE), known=fast("t", GUESSED), at=0.6)),
    case("sampled well", fused(X, known=FAST), Sampling(4, 1.0)),
    case("sampled well, nothing known", fused(X), Sampling(40, 7.0)),
    case("sampled, but nobody says how", fused(X, known=FAST), Sampling()),
    case("40 steps", fused(X, known=FAST), Sampling(40, 1.0), "LF403.steps warning"),
    case("twice its steps", fused(X, known=FAST), Sampling(16, 1.0)),  # slower, and no worse
    case("more than twice its steps", fused(X, known=FAST), Sampling(17, 1.0), "LF403.steps warning"),
    case("twice its steps at CFG 4", fused(X, known=FAST), Sampling(16, 4.0), "LF403.cfg warning"),
    case("one step less", fused(X, known=FAST), Sampling(3, 1.0), "LF403.steps warning"),
    case("2 steps", stacked(X, known=FAST), Sampling(2), "LF403.steps warning"),
    case("CFG 1.2", fused(X, known=FAST), Sampling(8, 1.2)),
    case("CFG 1.3", fused(X, known=FAST), Sampling(8, 1.3), "LF403.cfg warning"),
    case("CFG 4", fused(X, known=FAST), Sampling(8, 4.0), "LF403.cfg warning"),
    case("40 steps at CFG 4", fused(X, known=FAST), Sampling(40, 4.0), "LF403.sampling warning"),
    case("40 steps, inside", inside(X, known=FAST), Sampling(40), "LF403.steps warning"),
    case("40 steps, inside at strength 0", inside(like_x(strength=0.0), known=FAST), Sampling(40)),
    case("40 steps, guessed inside", inside(X, GUESSED, FAST), Sampling(40), "LF403.steps question"),
    case("40 steps, guessed", fused(X, known=fast("l", GUESSED, steps=(4, 4))), Sampling(40), "LF403.steps question"),
    case("two samplers, one off", fused(X, known=FAST), Sampling(4, node="3"), Sampling(30, node="4"),
         "LF403.steps warning"),
    case("no numbers of the publisher", fused(X, known=fast("l")), Sampling(40, 7.0)),
    case("at half its strength", fused(X, known=replace(FAST, strength=(1.0, 1.0)), at=0.5), Sampling(20, 1.0),
         "LF401.publisher note", "LF403.steps question"),
    case("one spares CFG, one steps", fused(X, known=FAST), fused(Y, known=GUIDED), Sampling(4, 1.0)),
    case("one spares CFG, and CFG is used", fused(X, known=fast("t", steps=(8, 8))), fused(Y, known=GUIDED),
         Sampling(12, 3.5), "LF403.cfg warning"),
    case("one spares CFG, at any steps", fused(Y, known=GUIDED), Sampling(30, 1.0)),
    case("one spares CFG, two spare steps", fused(X, known=FAST), fused(Y, known=fast("t")),
         fused(Z, known=GUIDED), Sampling(40, 1.0), "LF403.two warning"),
    case("of two, none is right", fused(X, known=FAST), fused(Y, known=fast("t")), Sampling(40), "LF403.two warning"),
    case("fp8, native", style(), "LF201.native warning", quantized="scaled fp8", **NATIVE),
    case("pre_quant_scale, native", style(), "LF201.smoothed error",
         quantized="nvfp4 (weight_scale_2, pre_quant_scale)", **NATIVE),
    case("nvfp4, native", style(), "LF201.nvfp4 warning", quantized="nvfp4 (weight_scale_2)", **NATIVE),
    case("w4a8, native", style(), "LF201.w4a8 warning", quantized="w4a8 (weight_codebook)", **NATIVE),
    case("fp8 with scales, native", style(), "LF201.scaled note", quantized="scaled fp8", scaled=True, **NATIVE),
    case("distilled on fp8, on fp8", fused(X, known=FP8_MADE), quantized="float8_e4m3fn", **NATIVE),
    case("distilled on fp8, on fp8, beside a style", fused(X, known=FP8_MADE), style(), "LF201.native warning",
         quantized="fp8_e4m3fn", **NATIVE),
    case("distilled on fp8, on fp8 with scales", fused(X, known=FP8_MADE), "LF201.scaled note",
         quantized="scaled fp8", scaled=True, **NATIVE),
    case("distilled on fp8, on int8", fused(X, known=FP8_MADE), "LF201.native warning", quantized="int8", **NATIVE),
    case("distilled on fp8, on bf16", fused(X, known=FP8_MADE), "LF104.weights warning", whole=True),
    case("distilled on fp8, guessed, on bf16", fused(X, known=replace(FP8_MADE, level=GUESSED)),
         "LF104.weights question", whole=True),
    case("distilled on fp8, on who knows", fused(X, known=FP8_MADE)),
    case("fp8, native, no LoRA", quantized="scaled fp8", **NATIVE),
    case("fp8, native, at 0", style(at=0.0), quantized="scaled fp8", **NATIVE),
    case("fp8, native, dequantized", style(), quantized="scaled fp8", dequantized=True, **NATIVE),
    case("GGUF, native", style(), "LF201.gguf note", quantized="GGUF Q8_0", **NATIVE),
    case("fp8 in a plan is the plan's rule", style(), quantized="scaled fp8"),
)  # fmt: skip

CASES = (*NEEDED, *ASKED, *STATED, *CONFLICTS, *UNNEEDED, *ANOTHER, *ORDER, *TWICE, *DROPPED, *USE, *VARIANTS)


@pytest.mark.parametrize("each", CASES, ids=lambda each: each.title)
def test_exactly_this_is_said(each: Case):
    findings = check_stack(each.stack, each.policy)
    assert told(findings) == sorted(each.expected)
    for finding in findings:
        assert finding.code == finding.text.partition(".")[0] and finding.seen and finding.why and finding.fix


def test_the_table_is_one():
    assert len(CASES) >= 60 and len({each.title for each in CASES}) == len(CASES)


def test_the_table_shows_every_text_of_these_rules():
    """So that each is seen to have a value for all of its blanks."""
    sources = [
        Path(module.__file__).read_text(encoding="utf-8")
        for module in (rules_base, rules_surplus, rules_use, rules_variants)
    ]
    texts = {node.value for source in sources for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Constant)}
    keys = {text for text in texts if isinstance(text, str) and re.fullmatch(r"LF\d{3}\.\w+", text)}
    shown = {line.split()[0] for each in CASES for line in each.expected}
    assert keys and keys <= shown
