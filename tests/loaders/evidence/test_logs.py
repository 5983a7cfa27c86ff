"""Logs: whole lines that a trainer writes count, words in other lines do not."""

from __future__ import annotations

import pytest
from evidence_checks import sound
from hypothesis import given, settings
from hypothesis import strategies as st
from lora_foundry.engine.lineage import DECLARED, Ingredient
from lora_foundry.loaders.evidence.logs import read_log


def log(*lines: str, end: str = "\n"):
    return read_log(end.join(lines) + end, "run.log")


MERGES = ("merging module: a/x.safetensors with multiplier 0.5", "merging module: b y.safetensors with multiplier 1.0")
MERGED = (Ingredient("a/x.safetensors", strength=0.5), Ingredient("b y.safetensors", strength=1.0))
DONE = "all weights merged: a/x.safetensors, b y.safetensors"


def test_kohya_log():
    (statement,) = log("load model", *MERGES, DONE, "saving checkpoint: /out/mine-000002.safetensors")
    claim = statement.claim
    assert (claim.trained_with, claim.use_with, claim.ask, claim.evidence.level) == (MERGED, None, True, DECLARED)
    assert statement.outputs == ("mine-000002.safetensors",)
    assert claim.evidence.quote.startswith("merging module: a/x.safetensors with multiplier 0.5")
    (only,) = log(DONE)
    assert [each.name for each in only.claim.trained_with] == ["a/x.safetensors", "b y.safetensors"]
    assert len(log(*MERGES, DONE, *MERGES, DONE)) == 1 and len(log(*MERGES, DONE, MERGES[0], DONE)) == 2


@pytest.mark.parametrize(
    "line",
    [
        "2025-10-13 12:00:00,123 - INFO - {}",
        "2025-10-13 12:00:00 INFO     {}                 train_network.py:646",
        "[2025-10-13 12:00:00] [INFO] {}",
        "[rank0]: {}",
        "INFO:root:trainer: {}",
        "loading shards: 100%|##########| 9/9 [00:01<00:00,  5.1it/s]{}",
        "loading:  10%|#         | 1/9 [00:01<00:00]\rloading: 100%|####| 9/9 [00:01<00:00]\r{}",
        "  {}  ",
    ],
)
def test_what_loggers_and_progress_bars_add_is_no_hindrance(line):
    (statement,) = log(*(line.format(text) for text in (*MERGES, DONE)))
    assert statement.claim.trained_with == MERGED


@pytest.mark.parametrize(
    "line",
    [
        "# merging module: x with multiplier 1",
        "I wonder whether merging module: x with multiplier 1 would help",
        'print("merging module: x with multiplier 1")',
        "merging module: x",
        "merging module:",
        "Loading and fusing pretrained LoRA from:",
        "720 tensors are updated by LoRA.",  # of what? also said when pictures are made
        "0 tensors are updated by LoRA.",
        "a caption with a lightning bolt, 4 steps",
        "network_weights loaded: x",
    ],
)
def test_other_lines_say_nothing(line):
    assert log(line) == []


FUSING = "Loading and fusing pretrained LoRA from: ./m/Foo-Lightning.safetensors"


def test_log_of_the_fork():
    (statement,) = log(FUSING, "360 tensors are updated by Lightning LoRA.", "LoRA fused successfully")
    fused = (Ingredient("./m/Foo-Lightning.safetensors", strength=1.0),)
    assert (statement.claim.trained_with, statement.claim.use_with) == (fused, fused)
    assert statement.claim.evidence.quote.startswith("360 tensors are updated by Lightning LoRA.")
    (cut,) = log(FUSING)
    assert cut.claim.trained_with == (Ingredient(fused[0].name, strength=1.0),)
    ranks = [FUSING, FUSING, "360 tensors are fused by LoRA", "360 tensors are fused by LoRA"]
    assert [s.claim.trained_with for s in log(*ranks)] == [fused]


def test_a_fusion_of_nothing_is_none():
    (statement,) = log(FUSING, "0 tensors are updated by LoRA.")
    assert (statement.claim.trained_with, statement.claim.use_with) == ((), None)
    assert statement.claim.evidence.quote.startswith("0 tensors are updated by LoRA.")


PIECES = [
    *MERGES,
    DONE,
    FUSING,
    "7 tensors are fused by LoRA",
    "99%|#[x]",
    "\r",
    "\n",
    " ",
    "INFO:",
    "saving checkpoint: x",
]


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=60) | st.lists(st.sampled_from(PIECES)).map("".join))
def test_any_text_is_survived(text):
    assert sound(read_log(text, "x"))


@pytest.mark.parametrize(
    "piece", ["merging module: ", "9%|", "all weights merged: ", "[ ", ", ", "a: ", " with multiplier 1"]
)
def test_long_lines_end_soon(piece):
    assert sound(read_log("merging module: " + piece * (2_000_000 // len(piece)), "x"))
    assert sound(read_log((piece * 300 + "all weights merged: x\n") * 300, "x"))
