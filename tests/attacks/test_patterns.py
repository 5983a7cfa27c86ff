"""Text of a stranger that becomes a pattern, or one side of a product of two lists."""

from __future__ import annotations

import json
import re

import pytest
from attacks.files import pack, tensor, write
from fixtures_bases import NATIVE
from hypothesis import example, given
from hypothesis import strategies as st
from limits import within
from lora_foundry.engine.errors import FoundryError
from lora_foundry.engine.near import near
from lora_foundry.engine.quantize import check_patterns, keeps, parse_keep
from lora_foundry.loaders.disk.header import read_header
from lora_foundry.loaders.documents.document import parse_document, parse_rows
from lora_foundry.loaders.names.blocks import parse_blocks

pytestmark = pytest.mark.timeout(60)  # a guard against hanging, no measurement


def test_ten_stars_in_a_keep_pattern():
    names = [f"blocks.{i}.self_attn.q.weight" for i in range(1000)]
    with within(0.5), pytest.raises(FoundryError, match="10 stars"):
        parse_keep("auto, " + "*a" * 10)
    with within(0.5):
        assert not any(keeps(name, None, ("*a" * 8 + "!",)) for name in [*names, "a" * 1000])


def test_a_keep_list_without_end():
    with within(0.5), pytest.raises(FoundryError, match="100000 patterns"):
        parse_keep("a," * 100_000)
    with within(0.5), pytest.raises(FoundryError, match="5000 characters"):
        parse_keep("a" * 5000)


@given(st.text("ab.*", max_size=12), st.lists(st.text("ab", min_size=1, max_size=3), min_size=1, max_size=4))
@example("a.*a", ["a", "a"])
def test_the_linear_glob_is_the_regular_expression(pattern, parts):
    name = ".".join(parts)
    wanted = ".*".join(re.escape(piece) for piece in pattern.strip(".").split("*"))
    assert keeps(name, None, (pattern,)) is bool(re.search(rf"(?:^|\.){wanted}(?:\.|$)", name))


def test_a_base_whose_names_are_all_dots():
    names = [f"{i}" + ".a" * 490 for i in range(5000)]
    with within(2), pytest.raises(FoundryError, match="No layer is called"):
        check_patterns(("b" * 200,), names)


def test_names_that_are_all_alike():
    with within(2):
        near("a" * 300, ["a" * 299] * 100_000)
        near("a" * 1_000_000, ["a" * 300] * 10)


def test_a_model_block_of_fifty_thousand_settings():
    block = {f"quantise{i}": 1 for i in range(50_000)}
    with within(0.5), pytest.raises(FoundryError, match="50000 settings"):
        parse_document({"base": "a", "model": block}, "loras")


def test_a_list_of_twelve_thousand_rows():
    with within(0.5), pytest.raises(FoundryError, match="12000 rows"):
        parse_rows(json.dumps(["a"] * 12_000), "loras")


@pytest.mark.parametrize("text", [
    "a" + "0" * 2000 + "-" + "0" * 2000 + "x=1", "_" * 4000 + "=1", "a" + "9" * 4000 + "=1", "a" * 5000, "a=1," * 800,
    "1," * 2000,
])  # fmt: skip
def test_block_weights_of_zeros_and_underscores(text):
    with within(0.5), pytest.raises(FoundryError, match=r"\[blocks\]"):
        parse_blocks(text, None)


def test_as_many_block_weights_as_are_allowed_on_every_weight():
    blocks = parse_blocks(",".join(f"double.{i}=0.5" for i in range(256)), "flux")
    with within(1):
        assert {blocks(name) for name in NATIVE["flux"] for _ in range(10)} <= {0.5, 1.0}


def test_a_tensor_name_of_a_megabyte(tmp_path):
    path = write(tmp_path, pack({"a." * 500_000 + "weight": tensor(0, 8)}, bytes(8)))
    with within(0.5), pytest.raises(FoundryError, match="has a name of 1000006 characters"):
        read_header(path)


def opened(modules, patterns):
    """A LoRA of these modules whose header has these PEFT patterns."""
    from lora_foundry.loaders.loras.configs import HEADER_KEY
    from lora_foundry.loaders.loras.file import LoRAFile
    from planner_parts import pair
    from samples import ShapeSource

    tensors = {name: value for module in modules for name, value in pair(f"base_model.model.{module}").items()}
    stated = {"r": 2, "lora_alpha": 2, "rank_pattern": dict.fromkeys(patterns, 2)}
    return LoRAFile(ShapeSource({}, tensors), "x", "0" * 64, {HEADER_KEY: json.dumps(stated)})


REFUSED_PATTERN = r"LF304.*names modules by the pattern '.*{}"


def test_a_peft_pattern_of_three_stars_on_many_names():
    """Two repeats are allowed, and the beginning of a name is a third: cubic in a name's length, for every module."""
    opened([f"{number:03}." + "a." * 30 + "a" * 150 for number in range(20)], [".*a.*aZ"])  # a few such names are read
    with within(5), pytest.raises(FoundryError, match=REFUSED_PATTERN.format("aZ")):
        opened([f"{number:04}." + "a." * 60 + "a" * 110 for number in range(1000)], [".*a.*aZ"])


def test_a_peft_pattern_on_a_name_of_a_thousand_characters():
    with within(0.5), pytest.raises(FoundryError, match=REFUSED_PATTERN.format("aZ")):
        opened(["a." * 200 + "a" * 400], [".*a.*aZ"])


@pytest.mark.parametrize("unit", ["(|a)", "(a|aa)", "(|)", "(a|a(|a))"])
def test_a_peft_pattern_of_groups_that_multiply(unit):
    """No repeat in it, and yet twice the time with every group: forty held up the server for hours."""
    pattern = unit * 16 + "Z"  # as many as the old code came through
    with within(0.5), pytest.raises(FoundryError, match=REFUSED_PATTERN.format("Z")):
        opened(["a" * 40], [pattern])


def test_alternatives_that_people_write_are_read():
    patterns = [r".*\.(to_q|to_k|to_v|to_out\.0)", r"^(down|up)_blocks\.(0|1|2)\.(attn1|attn2)\..*", "proj_in|proj_out"]
    opened(["down_blocks.0.attn1.to_q"], patterns)


def test_a_peft_config_of_ten_thousand_patterns():
    with within(0.5), pytest.raises(FoundryError, match=REFUSED_PATTERN.format("9999")):
        opened(["a"], [f"^(a|b)[a-z]*.{number:04}" for number in range(10_000)])
