"""The routes of the rows editor: names only, facts from headers, and no answer without a question that fits."""

from __future__ import annotations

import json

import pytest
from host import foundry


def test_all_loras_are_listed_by_name(host):
    base, style = foundry.loras(host, "wan")
    answer = host.get("/lora_foundry/loras")
    assert {base, style} <= set(answer["loras"])
    assert str(host.base) not in json.dumps(answer)


def test_rows_tell_their_fit_and_no_path(host):
    _, style = foundry.loras(host, "wan")
    asked = {"loras": [style, "../gone.safetensors"], "base": host.tiny("wan")}
    status, answer = host.request("/lora_foundry/rows", asked)
    assert status == 200 and answer["rows"][style]["fit"] == "fits" and answer["rows"][style]["rank"]
    assert answer["rows"]["../gone.safetensors"]["missing"] and str(host.base) not in json.dumps(answer)


@pytest.mark.parametrize("base", [None, "", "gone.safetensors"])
def test_without_a_base_that_can_be_read_no_fit_is_told(host, base):
    _, style = foundry.loras(host, "wan")
    _, answer = host.request("/lora_foundry/rows", {"loras": [style], "base": base})
    assert "fit" not in answer["rows"][style] and answer["rows"][style]["modules"]


@pytest.mark.parametrize("body", [{}, {"loras": "a"}, {"loras": [1]}, {"loras": ["a"] * 501}, {"loras": [], "base": 3}])
def test_a_question_of_another_form_is_refused(host, body):
    status, answer = host.request("/lora_foundry/rows", body)
    assert status == 400 and answer["error"]["code"] == "body"
