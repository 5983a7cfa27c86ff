"""The fixes of findings as data: what a finding's text names, and nothing where a person has to choose."""

from __future__ import annotations

import pytest
from lora_foundry.engine.findings import Finding
from lora_foundry.engine.texts.say import say

SAMPLER = {"node": "7", "subject": "l.safetensors", "accelerator": "Lightning"}


def actions(finding: Finding) -> list:
    """The fixes in the JSON of a finding, which must survive being read again."""
    told = finding.to_json()
    assert Finding.from_json(told) == finding
    return told.get("fix_actions", [])


def test_a_file_of_nearly_that_name_is_offered():
    near = say("LF306.near", node="3:2", name="a\\x.safetensors", at="3:2", folder="loras", near="b/x.safetensors")
    assert actions(near) == [{"action": "replace", "node": "3:2", "from": "a\\x.safetensors", "to": "b/x.safetensors"}]


@pytest.mark.parametrize(("key", "given", "wanted"), [
    ("LF403.steps", {"steps": "4 to 8", "steps_now": "20"}, {"steps": 4}),
    ("LF403.cfg", {"cfg": "1.5", "cfg_now": "4"}, {"cfg": 1.5}),
    ("LF403.sampling", {"steps": "8", "steps_now": "20", "cfg": "1", "cfg_now": "4"}, {"steps": 8, "cfg": 1}),
])  # fmt: skip
def test_steps_and_cfg_are_set_to_what_the_accelerator_is_made_for(key, given, wanted):
    found = actions(say(key, severity="warning", **SAMPLER, **given))
    assert {each["input"]: each["value"] for each in found} == wanted
    assert {each["node"] for each in found} == {"7"} and {each["action"] for each in found} == {"set"}


def test_native_loaders_in_a_wrong_order_or_on_weights_cast_to_fp8_are_converted():
    late = say("LF101.after", node="3", base_lora="l.safetensors", loras="s.safetensors")
    cast = {"loras": "s.safetensors", "base": "b.safetensors"}
    assert actions(late) == [{"action": "convert", "node": "3"}]
    assert actions(say("LF201.native", node="3", quantized="fp8_e4m3fn", **cast)) == [
        {"action": "convert", "node": "3"}
    ]
    assert actions(say("LF201.native", node="3", quantized="float8_e4m3fn", **cast)) == []  # the file itself is


def test_where_a_person_must_choose_there_is_no_fix_and_no_key():
    missing = say("LF306.missing", node="2", name="x", at="2", folder="loras", near="")
    for finding in (missing, Finding("LF306", "error", "no node", text="LF306.near", values=(("name", "a"),))):
        assert "fix_actions" not in finding.to_json() and not actions(finding)
