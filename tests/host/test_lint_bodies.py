"""The route of the lint on a real host: bodies that no browser sends get a reason, and odd numbers an answer."""

from __future__ import annotations

import json
from typing import Any

import pytest

PATH = "/lora_foundry/lint"
NODE = {"class_type": "LoraLoaderModelOnly", "inputs": {"model": ["1", 0], "lora_name": "x", "strength_model": 1}}
BAD: dict[str, tuple[Any, int, str]] = {
    "nothing": ({}, 400, "body"),
    "no JSON": (b"{", 400, "body"),
    "no text": (b'{"prompt": "\xff"}', 400, "body"),
    "a list": ([], 400, "body"),
    "nested too deeply": (b"[" * 300_000, 400, "body"),
    "a prompt that is a number": ({"prompt": 5}, 400, "workflow"),
    "a prompt without nodes": ({"prompt": {}}, 400, "workflow"),
    "a workflow without nodes": ({"workflow": {"nodes": 5, "links": []}}, 400, "workflow"),
    "no such policy": ({"prompt": {"1": NODE}, "policy": "kind"}, 400, "body"),
    "a policy that is a list": ({"prompt": {"1": NODE}, "policy": ["match training"]}, 400, "body"),
    "more than 32 MiB": (b" " * (33 << 20), 413, "size"),
}


@pytest.mark.parametrize(("body", "status", "code"), BAD.values(), ids=BAD.keys())
def test_a_bad_body_is_refused_with_a_reason(host, body, status, code):
    seen, answer = host.request(PATH, body)
    assert (seen, answer["error"]["code"]) == (status, code)
    assert answer["error"]["what"] and set(answer["error"]) == {"code", "what", "why", "fix", "text", "values"}


def test_a_form_of_another_site_is_refused(host):
    """No page may post JSON here without being asked for leave by the browser first."""
    status, answer = host.request(PATH, json.dumps({"prompt": {"1": NODE}}).encode(), "text/plain")
    assert (status, answer["error"]["code"]) == (400, "body")


@pytest.mark.parametrize("place", ["strength_model", "steps", "cfg", "denoise"])
@pytest.mark.parametrize("odd", ["NaN", "-Infinity", "1e999", "1" * 400, '"much"', "null", "[1, 2]", "{}"])
def test_odd_numbers_give_an_answer_every_browser_reads(host, place, odd):
    sampler = {"class_type": "KSampler", "inputs": {"model": ["1", 0], "steps": 1, "cfg": 1, "denoise": 1}}
    lora = {"class_type": "LoraLoaderModelOnly", "inputs": {**NODE["inputs"], "model": ["0", 0]}}
    unet = {"class_type": "UNETLoader", "inputs": {"unet_name": "y"}}
    text = json.dumps({"prompt": {"0": unet, "1": lora, "2": sampler}})
    status, answer = host.request(PATH, text.replace(f'"{place}": 1', f'"{place}": {odd}').encode())
    assert (status, len(answer["stacks"])) == (200, 1)
    json.dumps(answer, allow_nan=False)


@pytest.mark.parametrize("depth", [800, 900, 950, 970, 980, 985, 990, 995, 1000, 1100, 3000])
@pytest.mark.parametrize("place", ['{"prompt": %s}', '{"workflow": %s}', '{"prompt": {"1": %s}, "policy": %s}'])
def test_a_body_as_deep_as_the_parser_goes_is_answered(host, place, depth):
    for opened, closed in (("[", "]"), ('{"a": ', "}")):
        deep = opened * depth + "1" + closed * depth
        status, answer = host.request(PATH, place.replace("%s", deep).encode())
        assert (status, set(answer)) == (400, {"error"}), answer
