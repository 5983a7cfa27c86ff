"""Workflows that are damaged in any one place: converted, or refused in a sentence, and never half changed."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator
from typing import Any

import pytest
from convertible_graphs import CONVERTIBLE
from drawn_prompts import drawn, folded
from lora_foundry.engine.errors import FoundryError
from lora_foundry.loaders.converting.convert import convert
from lora_foundry.loaders.converting.fixing import apply_fixes

JUNK = (None, True, -1, 10**9, 0.5, "", "x", "7", [], [None], [[1]], {}, {"id": 1}, ["1", 0])
FORMS = {"prompt": copy.deepcopy, "canvas": drawn, "subgraph": lambda prompt: folded(drawn(prompt))}
NAMES = ("branches", "wired_and_shared", "cr_two_stackers", "rgthree_two_strengths", "fp8_fast_beside")
VALUES = {"lora": "ink.safetensors", "input": "steps", "value": 4, "from": "ink.safetensors", "to": "z.safetensors"}
ACTIONS = ("fuse", "stack", "remove", "set", "replace")
FIXES = [{"action": action, "node": node, **VALUES} for action in ACTIONS for node in ("2", "900:2")]


def places(data: Any) -> Iterator[tuple[Any, Any]]:
    """(container, key) of every value in JSON."""
    for key, value in data.items() if isinstance(data, dict) else enumerate(data):
        yield data, key
        if isinstance(value, dict | list):
            yield from places(value)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", NAMES)
def test_one_odd_value_anywhere(name, form):
    good = FORMS[form](CONVERTIBLE[name]().prompt)
    random_ = random.Random(f"{name} {form}")
    count = len(list(places(good)))
    for at in random_.sample(range(count), min(count, 25)):
        bad = copy.deepcopy(good)
        owner, key = list(places(bad))[at]
        owner[key] = random_.choice(JUNK)
        kept = copy.deepcopy(bad)
        for act in (lambda bad=bad: convert(bad).made, lambda bad=bad: apply_fixes(bad, FIXES)[0]):
            try:
                json.dumps(act())
            except FoundryError as error:
                assert error.what and error.code
        assert bad == kept


def test_nested_deeper_than_can_be_copied():
    deep: Any = 1
    for _ in range(900):
        deep = [deep]
    for saved in (
        {**drawn(CONVERTIBLE["branches"]().prompt), "extra": {"deep": deep}},
        CONVERTIBLE["branches"]().prompt,
    ):
        saved = saved if "nodes" in saved else {**saved, "99": {"class_type": "X", "inputs": {"deep": deep}}}
        with pytest.raises(FoundryError, match="nested"):
            convert(saved)
