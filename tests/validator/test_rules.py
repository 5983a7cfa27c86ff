"""Findings: which plan raises which, in which order, and what stops a run."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from fakes import a_layer, a_plan, random_delta
from lora_foundry.engine.errors import FoundryError
from lora_foundry.engine.findings import Finding, stops, worst_first
from lora_foundry.engine.guard import raise_first
from lora_foundry.engine.plan import FUSE, STACK
from lora_foundry.validator.rules import check

W = "blocks.0.q.weight"
NOTE, WARNING = Finding("LF305", "note", "alpha missing"), Finding("LF302", "warning", "half matched", "why", "fix")
QUESTION, ERROR = Finding("LF102", "question", "trained on?"), Finding("LF301", "error", "nothing", "why", "fix")


def a_case(*stages, findings=(), **base):
    listed = [a_layer([random_delta(W, (16, 16), 4, 0.1, i)], stage=s, name=f"{i}") for i, s in enumerate(stages)]
    if findings:
        listed[0] = type(listed[0])(**{**vars(listed[0]), "findings": findings})
    return a_plan({W: torch.zeros(16, 16)}, *listed, **base)


def codes(plan):
    return [finding.code for finding in check(plan)]


def test_a_clean_plan_has_no_findings():
    assert check(a_case(FUSE, STACK, STACK)) == () and check(a_case()) == ()


@pytest.mark.parametrize(
    ("stages", "expected"), [((FUSE,), ["LF101"]), ((STACK, FUSE), ["LF101"]), ((STACK,), []), ((), [])]
)
def test_loras_inside_before_the_fusion(stages, expected):
    plan = a_case(*stages, applied=("style.safetensors", "detail.safetensors"))
    assert codes(plan) == expected
    for finding in check(plan):
        assert finding.severity == "error" and finding.fix and finding.why
        assert "style.safetensors, detail.safetensors was applied" in finding.seen


def test_choosing_no_base_lora_is_a_fusion_too():
    plan = a_case(STACK, applied=("style.safetensors",))
    assert codes(plan) == [] and codes(replace(plan, vanilla=True)) == ["LF101"]
    assert codes(replace(a_case(STACK), vanilla=True)) == []


@pytest.mark.parametrize("stages", [(), (FUSE,), (STACK,)])
def test_a_quantized_base(stages):
    (finding,) = check(a_case(*stages, quantized="scaled fp8"))
    assert finding.code == "LF201" and finding.severity == "error" and "scaled fp8" in finding.seen
    assert "base.safetensors" in finding.seen and "quantize last" in finding.fix


def test_findings_of_files_come_along_worst_first_and_once():
    plan = a_case(STACK, FUSE, findings=(NOTE, WARNING, NOTE), quantized="gguf")
    plan = type(plan)(**{**vars(plan), "findings": (QUESTION, WARNING)})
    assert codes(plan) == ["LF201", "LF302", "LF102", "LF305"]


def test_order_and_quantization_together_keep_the_order_of_the_rules():
    assert codes(a_case(FUSE, applied=("x",), quantized="fp8")) == ["LF101", "LF201"]


def test_checking_reads_nothing():
    plan = a_case(FUSE, STACK, quantized="fp8", applied=("x",))
    check(plan)
    assert plan.base.source.reads == [] and all(layer.factors.reads == [] for layer in plan.layers)


@pytest.mark.parametrize(("findings", "loose", "strict"), [
    ((), None, None), ((NOTE, QUESTION), None, None), ((NOTE, WARNING), None, "LF302"),
    ((WARNING, NOTE, ERROR), "LF301", "LF301"),
])  # fmt: skip
def test_errors_stop_a_run_and_warnings_in_strict_mode(findings, loose, strict):
    for mode, expected in ((False, loose), (True, strict)):
        assert stops(findings, mode) is (expected is not None)
        if expected is None:
            raise_first(findings, mode)
        else:
            with pytest.raises(FoundryError) as error:
                raise_first(iter(findings), mode)
            assert error.value.code == expected


def test_the_error_says_what_the_finding_said():
    with pytest.raises(FoundryError) as error:
        raise_first([ERROR])
    assert str(error.value) == "[LF301] nothing why fix"
    assert error.value.finding() == ERROR and error.value.finding("a file").subject == "a file"
    assert str(FoundryError("file", "Broken.")) == "[file] Broken."


def test_worst_first_is_stable():
    second = Finding("LF305", "note", "other")
    assert worst_first([second, NOTE, QUESTION, WARNING, ERROR, NOTE]) == (ERROR, WARNING, QUESTION, second, NOTE)


def test_a_finding_is_text():
    assert ERROR.sentence() == "LF301 error: nothing why fix" and NOTE.sentence() == "LF305 note: alpha missing"
    error = FoundryError("remote", "It is not there.", "", "Look again.")
    assert error.finding().sentence() == str(error) == "[remote] It is not there. Look again."
    data = json.loads(json.dumps(WARNING.to_json()))
    fields = {"code", "severity", "seen", "why", "fix", "evidence", "subject", "node", "text", "values"}
    assert set(data) == fields
    assert Finding.from_json(data) == WARNING


@pytest.mark.parametrize("bad", [{"severity": "fatal"}, {"severity": "error", "evidence": "rumour"}])
def test_unknown_words_are_refused(bad):
    with pytest.raises(ValueError, match="unknown severity or evidence"):
        Finding("LF1", seen="x", **bad)
