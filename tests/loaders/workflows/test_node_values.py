"""Numbers that a workflow writes as text are the numbers they say."""

from __future__ import annotations

import pytest
from limits import within
from lora_foundry.loaders.workflows.graph import GraphNode
from lora_foundry.loaders.workflows.node_values import number, tagged_loras, written_loras

SPELLED = [
    ("0.7", 0.7), (".5", 0.5), ("1.", 1.0), ("+1", 1.0), ("-0.4", -0.4), ("1e-1", 0.1), ("2E-2", 0.02),
    ("1.5e+1", 15.0), ("1,0", 1.0), ("0,5", 0.5), (",5", 0.5), (" 0.3 ", 0.3),
]  # fmt: skip
NO_NUMBERS = ["", "x", "1x", "0x10", "1_0", "nan", "inf", "1e999", "--1", "1.2.3", "1e", "e1", "."]


@pytest.mark.parametrize(("text", "value"), SPELLED)
def test_a_strength_as_text(text, value):
    row = {"name": "a", "strength": text, "clipStrength": text, "active": True}
    (named,) = written_loras(GraphNode("1", "Lora Loader (LoraManager)", {"loras": [row]}))
    assert (named.strength, named.clip) == (value, value)
    (named,) = written_loras(GraphNode("1", "LoraLoader", {"lora_name": "a", "strength_model": text}))
    assert named.strength == value and number(GraphNode("1", "KSampler", {"cfg": text}), "cfg") == value


@pytest.mark.parametrize(("text", "value"), SPELLED[:-1])
def test_a_strength_in_a_tag(text, value):
    assert [(each.name, each.strength, each.clip) for each in tagged_loras(f"a <lora:b:{text}:{text}> c")] == [
        ("b", value, value)
    ]


@pytest.mark.parametrize(
    ("kind", "text", "loras"),
    [
        ("MysteryLoraText", "a <lora:ink> b <lora:film:0.5>", [("ink", 1.0), ("film", 0.5)]),
        ("MysteryLoraText", "<lora:ink", []),
        ("PCLazyLoraLoader", "<lora:ink: 0.7: 0.2> <lora:film>", [("ink", 0.7)]),
        ("LoRA Text Loader (LoraManager)", "<lora:film> <lora:ink:0.7>", [("ink", 0.7)]),
    ],
)
def test_a_tag_without_a_strength_is_at_1_in_nodes_that_nobody_knows(kind, text, loras):
    """As most packs take it; those that are known here leave such a tag in the prompt."""
    node = GraphNode("1", kind, {"lora_syntax" if "Manager" in kind else "text": text})
    assert [(each.name, each.strength) for each in written_loras(node)] == loras


@pytest.mark.parametrize("text", NO_NUMBERS)
def test_what_is_no_number_is_none(text):
    assert number(GraphNode("1", "KSampler", {"cfg": text}), "cfg") is None


def test_a_text_of_many_digits_takes_no_time():
    with within(1.0):
        for text in ("1" * 100_000 + "x", "1." + "0" * 100_000 + "e", "<lora:a:" * 10_000, "<lora:a:" + "1" * 100_000,
                     "<lora:" + "a" * 100_000, "<lora:a:" + " " * 100_000, "<lora:a:1:" + " " * 100_000):  # fmt: skip
            number(GraphNode("1", "KSampler", {"cfg": text}), "cfg")
            list(tagged_loras(text, bare=True))


def test_a_tag_in_a_comment_hides_no_row_of_ours():
    """What runs is the row: a check that went by the tag judged another LoRA."""
    text = "- {path: real.safetensors, strength: 2.0}  # <lora:other:0.1>"
    (named,) = written_loras(GraphNode("1", "FoundryLoRAStack", {"loras": text}))
    assert (named.name, named.strength) == ("real.safetensors", 2.0)
