"""The suffix table: every dialect is recognised, every other kind of adapter is named."""

from __future__ import annotations

import pytest
from lora_foundry.loaders.dialects import LORA, OTHER_PARTS, PAIR_SUFFIXES, identify, split
from samples import DIALECTS


@pytest.mark.parametrize("sample", DIALECTS)
def test_dialect_of_every_sample(sample):
    assert identify(DIALECTS[sample].source().tensors) == DIALECTS[sample].dialect


@pytest.mark.parametrize("row", PAIR_SUFFIXES, ids=lambda row: row.dialect)
def test_a_pair_is_split_into_module_and_part(row):
    for suffix, expected in ((row.up, "up"), (row.down, "down")):
        part = split("blocks.0.attn.q" + suffix.replace("*", "style_1"))
        assert (part.module, part.part, part.kind, part.dialect) == ("blocks.0.attn.q", expected, LORA, row.dialect)
        assert part.adapter == ("style_1" if "*" in suffix else "")


@pytest.mark.parametrize("row", OTHER_PARTS, ids=lambda row: row.text)
def test_every_other_part_is_known_by_kind(row):
    part = split("blocks.0.attn.q" + row.text.replace("*", "w1_a"))
    assert (part.module, part.kind) == ("blocks.0.attn.q", row.kind)
    assert part.part == ("w1_a" if row.part == "*" else row.part)


OTHER_NAMES = ("blocks.0.attn.q.weight", "blocks.0.norm.key_norm.scale", "x.processor.qkv_lora1.down.weight")


@pytest.mark.parametrize("name", [*OTHER_NAMES, ".alpha", "alpha", "lora_up.weight", "x.lora_A.a.b.weight", ""])
def test_other_names_are_no_part(name):
    assert split(name) is None


def test_two_dialects_in_one_file_are_both_named():
    names = ["a.lora_up.weight", "a.lora_down.weight", "b.lora_A.weight", "b.lora_B.weight", "c.lora_up.weight"]
    assert identify(names) == "down/up + A/B"
    assert identify(["a.weight"]) == "unknown"
