"""What a row of a stack tells of its LoRA before a run: the same role as the command line, and how it fits a base."""

from __future__ import annotations

import json

import pytest
from lora_foundry.cli.demo import tiny
from lora_foundry.engine.errors import FoundryError
from lora_foundry.loaders.lineage import identity
from lora_foundry.loaders.lineage.provenance import lineage_of
from lora_foundry.loaders.plans.describe import describe
from lora_foundry.loaders.plans.rows import FITS, OTHER, PART, block_facts, row_facts
from lora_foundry.validator.use import usual_strength
from safetensors.torch import save_file

WAN = tiny.shapes("wan")


@pytest.fixture
def files(tmp_path):
    """Writes tensors as a file of a name."""

    def write(name, tensors, metadata=None):
        save_file(tensors, tmp_path / name, metadata)
        return tmp_path / name

    return write


@pytest.fixture
def base(files):
    return files("wan.safetensors", tiny.state_dict("wan", seed=1))


def lora(**more):
    return tiny.lora(WAN, rank=8, alpha=4, prefix="diffusion_model.", seed=2, **more)


def test_a_lora_of_this_base_fits(files, base):
    facts = row_facts(files("style.safetensors", lora(), {"modelspec.trigger_phrase": "ink wash"}), base)
    assert (facts["fit"], facts["matched"], facts["base_family"]) == (FITS, facts["modules"], "wan")
    assert facts["rank"] == [8, 8] and facts["alpha"] == [4, 4] and facts["trigger_words"] == "ink wash"


def test_a_lora_that_fits_in_part_or_not_at_all(files, base):
    whole = lora()
    more = {name.replace("blocks.0.", "blocks.9."): tensor.clone() for name, tensor in whole.items() if ".q." in name}
    facts = row_facts(files("part.safetensors", {**whole, **more}), base)
    assert facts["fit"] == PART and 0 < facts["matched"] < facts["modules"]
    other = {name.replace("model.", "model.towers."): tensor for name, tensor in whole.items()}
    facts = row_facts(files("other.safetensors", other), base)
    assert (facts["fit"], facts["matched"]) == (OTHER, 0)


def test_without_a_base_nothing_is_said_of_a_fit_and_nothing_is_hashed(files, monkeypatch):
    monkeypatch.setattr(identity, "identify_file", lambda *_: pytest.fail("hashed"))
    facts = row_facts(files("style.safetensors", lora()))
    assert "fit" not in facts and "matched" not in facts and facts["text_encoder"] == 0


@pytest.mark.parametrize("name", ["Qwen-Image-Lightning-4steps-V1.0.safetensors", "style.safetensors"])
def test_rows_and_inspect_say_the_same_role(files, name):
    path = files(name, lora())
    assert row_facts(path)["role"] == describe(path)["role"]


def test_a_base_of_the_same_name_that_was_replaced_is_read_again(files, base):
    style = files("style.safetensors", lora())
    assert row_facts(style, base)["fit"] == FITS
    files("wan.safetensors", {f"towers.{name}": tensor for name, tensor in tiny.state_dict("wan", seed=1).items()})
    assert row_facts(style, base)["fit"] == OTHER


def test_what_is_no_lora_is_one_sentence(files, base):
    assert "wan.safetensors" in row_facts(base, base)["error"]


def test_trigger_words_come_from_sidecars_too(files, tmp_path):
    path = files("style.safetensors", lora(), {"trigger_words": "ink wash"})
    (tmp_path / "style.civitai.info").write_text('{"trainedWords": ["paper, ink wash"]}')
    assert row_facts(path)["trigger_words"] == "ink wash, paper"


@pytest.mark.parametrize(
    ("name", "tips", "span"),
    [
        ("style.safetensors", None, None),
        ("style.safetensors", '{"strength_min": 0.6, "strength_max": 0.9}', (0.6, 0.9)),
        ("Qwen-Image-Lightning-4steps-V1.0.safetensors", None, (1.0, 1.0)),
    ],
)
def test_recommended_strengths_are_those_of_the_validator(files, tmp_path, name, tips, span):
    path = files(name, lora())
    if tips:
        (tmp_path / "style.metadata.json").write_text(json.dumps({"usage_tips": tips}))
    at_sight, known = row_facts(path), row_facts(path, lineage=lineage_of(path))
    assert at_sight["recommended"] == known["recommended"] == span == usual_strength(lineage_of(path))
    assert (at_sight["hashed"], known["hashed"]) == (False, True) and at_sight["role"] == known["role"]


def test_blocks_of_a_base_with_the_factors_of_a_text(base):
    found = block_facts(base, "block.0=0.5,other=0")
    assert found["family"] == "wan" and not found["error"] and found["text_encoder"] == 1.0
    assert found["blocks"][0] == ["block.0", 0.5] and found["blocks"][-1] == ["other", 0.0]
    assert [name for name, _ in found["blocks"]] == [*(f"block.{n}" for n in range(len(found["blocks"]) - 1)), "other"]
    wrong = block_facts(base, "double=1")
    assert "wan has no blocks of this kind" in wrong["error"] and {factor for _, factor in wrong["blocks"]} == {1.0}


def test_a_base_that_went_since_it_was_looked_up_is_told(files, tmp_path):
    path = files("style.safetensors", lora())
    for ask in (lambda gone: row_facts(path, gone), lambda gone: block_facts(gone, "")):
        with pytest.raises(FoundryError, match=r"gone\.safetensors"):
            ask(tmp_path / "gone.safetensors")
