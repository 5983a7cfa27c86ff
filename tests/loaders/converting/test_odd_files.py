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
from sketches import Sketch

JUNK = (None, True, -1, 10**9, 0.5, "", "x", "7", [], [None], [[1]], {}, {"id": 1}, ["1", 0])
FORMS = {"prompt": copy.deepcopy, "canvas": drawn, "subgraph": lambda prompt: folded(drawn(prompt))}
NAMES = ("branches", "wired_and_shared", "cr_two_stackers", "rgthree_two_strengths", "fp8_fast_beside")
VALUES = {"lora": "ink.safetensors", "input": "steps", "value": 4, "from": "ink.safetensors", "to": "z.safetensors"}
ACTIONS = ("fuse", "stack", "remove", "set", "replace")
FIXES = [{"action": action, "node": node, **VALUES} for action in ACTIONS for node in ("2", "900:2")]


def stages() -> Sketch:
    """Our stages with a native loader on either side: what LoRAs are moved between."""
    g = Sketch()
    model, rows = g.unet("a.safetensors"), [{"path": "ink.safetensors", "strength": 0.6}]
    listed = g("FoundryLoRAStack", loras=json.dumps(rows))
    node = {"lora_name": "film.safetensors", "strength_model": 0.3, "strength_clip": 0.3, "enabled": True}
    more = g("FoundryLoRA", lora_stack=listed, **node)
    model = g("FoundryFuseBaseLoRA", model=g.lora(model, "grain.safetensors", 0.5), lora_name="none: vanilla base",
              strength=1.0, rounding="once")  # fmt: skip
    model = g("FoundryApply", model=g("FoundryStackLoRAs", model=model, lora_stack=more))
    g.sample(g.lora(model, "light.safetensors", 0.5), g("CLIPLoader"))
    return g


MOVES = [("fuse", "2", "new"), ("fuse", "3", "ink"), ("remove", "2", "ink"), ("remove", "3", "film"),
         ("stack", "4", "grain"), ("stack", "8", "light")]  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_loras_are_moved_in_a_file_with_one_odd_value(form):
    good, path = FORMS[form](stages().prompt), "900:" if form == "subgraph" else ""
    fixes = [{"action": each, "node": path + node, "lora": f"{lora}.safetensors"} for each, node, lora in MOVES]
    assert all(apply_fixes(good, [fix])[1] for fix in fixes), "each can be made in the file as it was"
    random_ = random.Random(form)
    count = len(list(places(good)))
    for at in random_.sample(range(count), min(count, 40)):
        bad = copy.deepcopy(good)
        owner, key = list(places(bad))[at]
        owner[key] = random_.choice(JUNK)
        kept = copy.deepcopy(bad)
        try:
            json.dumps(apply_fixes(bad, fixes)[0])
        except FoundryError as error:
            assert error.what and error.code
        assert bad == kept


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
