"""``conflicts``, ``resize`` and ``extract``: LoRAs compared, made smaller, and taken out of a tuned model."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET

import pytest
import torch
from lora_foundry.loaders.disk.small import save_small
from merged_files import a_base, apart, baked
from safetensors.torch import load_file
from schemas import faults
from stack_documents import write

OUT = "out.safetensors"


def against(folder, name="style", strength=-0.5):
    """A LoRA that takes half of another one away, and adds something of its own."""
    tensors = load_file(folder / f"{name}.safetensors")
    up = next(key for key in tensors if ".lora_B." in key)
    tensors = {key: tensor.float() * (strength if ".lora_B." in key else 1) for key, tensor in tensors.items()}
    tensors[up] += 0.01
    save_small(folder / "against.safetensors", tensors)


def test_pairs_blocks_and_advice(folder, run):
    against(folder)
    code, told, _ = run("conflicts", "style.safetensors", "against.safetensors", "lightning.safetensors", "--json")
    assert code == 0 and faults(told, "merge") == faults(told, "merge", "conflicts") == []
    assert told["cosine"][0][1] < -0.9 and abs(told["cosine"][0][2]) < 0.05 and told["clash"][0][1] > 0.9
    assert abs(told["excess"][0][2]) < 0.05 and {block["block"] for block in told["blocks"]} >= {"block.0"}
    energies = sum(block["stack"] for block in told["blocks"])
    assert energies == pytest.approx(1, abs=1e-4) and told["stack_to_strongest"] > 0


def test_the_numbers_are_those_of_lf402(folder, run):
    against(folder, strength=-1.0)
    told = run("conflicts", "style.safetensors", "against.safetensors", "--json")[1]
    found = run("check", write(folder, stack=["style", "against"]), "--json")[1]["findings"]
    (fight,) = [finding for finding in found if finding["text"] == "LF402.fight"]
    assert f"{told['cosine'][0][1]:.2f}" == fight["values"]["cosine"]
    assert told["clash"][0][1] == pytest.approx(float(fight["values"]["clash"].rstrip("%")) / 100, abs=0.02)


def test_the_advice_brings_the_stack_down_to_its_strongest(folder, run):
    save_small(folder / "twin.safetensors", load_file(folder / "style.safetensors"))
    told = run("conflicts", "style.safetensors", "twin.safetensors", "--strengths", "1,1", "--json")[1]
    assert told["stack_to_strongest"] == pytest.approx(2, rel=1e-5)
    assert [each["strength"] for each in told["advice"]] == pytest.approx([0.5, 0.5])
    code, out, _ = run("conflicts", "style.safetensors", "twin.safetensors")
    assert code == 0 and "2.00 times" in out and "style.safetensors 0.5" in out


def test_a_picture_with_every_name_and_block(folder, run):
    write(folder, stack=["style", "lightning"])
    code, _, _ = run("conflicts", "stack.json", "--svg", "heat.svg")
    text = (folder / "heat.svg").read_text()
    words = {element.text for element in ET.fromstring(text).iter() if element.tag.endswith("text")}
    assert code == 0 and {"style.safetensors", "lightning.safetensors", "block.0"} <= words
    assert not list(folder.glob(".lora_foundry*"))


@pytest.mark.parametrize(("args", "code", "word"), [
    (["style.safetensors"], "usage", "compare"),
    (["style.safetensors", "foreign.safetensors"], "LF504", "flux"),
    (["style.safetensors", "lightning.safetensors", "--svg", "heat.png"], "usage", ".svg"),
    (["style.safetensors", "lightning.safetensors", "--svg", "no/heat.svg"], "file", "heat.svg"),
])  # fmt: skip
def test_what_cannot_be_compared(folder, run, args, code, word):
    told = run("conflicts", *args, "--json")[1]
    assert told["error"]["code"] == code and word in json.dumps(told["error"])


def test_a_smaller_lora(folder, run):
    size = (folder / "lightning.safetensors").stat().st_size
    code, told, _ = run("resize", "lightning.safetensors", "--size", "30KB", "-o", OUT, "--json")
    assert code == 0 and told["bytes"] <= 30_000 < size and 0 < told["proof"]["error"] < 1
    code, told, _ = run("resize", "lightning.safetensors", "--max-error", "0.3", "-o", OUT, "--json")
    assert code == 0 and told["proof"]["error"] <= 0.3 and told["rank"][1] < 16
    code, told, _ = run("resize", "lightning.safetensors", "-o", OUT, "--json")
    assert (code, told["error"]["code"]) == (2, "usage")


@pytest.mark.parametrize("policy", [("--rank", "8", "--uniform"), ("--energy", "0.9")])
def test_numbers_are_clamped_on_request_only(folder, run, policy):
    resize = ("resize", "lightning.safetensors", "-o", OUT, "--json", *policy)
    free = run(*resize)[1]
    code, told, _ = run(*resize, "--clamp", "0.9")
    assert code == 0 and told["recipe"]["policy"] == f"{free['recipe']['policy']}, clamped at 0.9"
    assert free["proof"]["error"] < told["proof"]["error"] < 1 and told["bytes"] - free["bytes"] < 100
    assert run("merge", OUT, "--verify", "--json")[1]["agrees"]
    assert run(*resize, "--clamp", "99")[1]["error"]["code"] == "LF503"


def test_an_accelerator_alone_is_made_smaller(folder, run):
    run("lineage", "declare", "lightning.safetensors", "--role", "accelerator")
    code, told, _ = run("resize", "lightning.safetensors", "--rank", "4", "--uniform", "-o", OUT, "--json")
    assert code == 0 and told["rank"] == [4, 4]


@pytest.mark.parametrize("dtype", ["fp32", "fp16", "bf16"])
def test_a_resized_lora_stays_in_its_dtype(folder, run, dtype):
    """As fp32 a file of 16 bits grew when it was to be made smaller."""
    assert run("merge", "lightning.safetensors", "--dtype", dtype, "-o", "first.safetensors")[0] == 0
    code, told, _ = run("resize", "first.safetensors", "--rank", "8", "-o", OUT, "--json")
    assert code == 0 and told["recipe"]["dtype"] == dtype
    assert {tensor.dtype for name, tensor in load_file(folder / OUT).items() if "alpha" not in name} == {
        tensor.dtype for name, tensor in load_file(folder / "first.safetensors").items() if "alpha" not in name
    }


@pytest.mark.parametrize("dialect", ["comfyui", "diffusers"])
def test_what_was_baked_is_extracted_again(folder, run, dialect):
    write(folder, stack=["style", "lightning"], quantize="none")
    assert run("bake", "stack.json", "-o", "tuned.safetensors", "--dtype", "fp32")[0] == 0
    extract = ("extract", "tuned.safetensors", "base.safetensors", "--dialect", dialect, "-o", OUT, "--json")
    code, told, _ = run(*extract, "--rank", "20", "--uniform")
    assert code == 0 and faults(told, "merge") == faults(told, "merge", "extract") == [] and told["rank"] == [20, 20]
    assert told["proof"]["error"] < 1e-2
    base = folder / "base.safetensors"
    tuned = {name: tensor.float() for name, tensor in load_file(folder / "tuned.safetensors").items()}
    assert apart(baked(base, [(folder / OUT, 1.0)]), tuned) < 1e-3
    assert run(*extract, "--energy", "0.5")[1]["proof"]["error"] == pytest.approx(0.5**0.5, abs=0.02)


def test_an_extraction_that_loses_more_than_is_allowed_is_refused(folder, run):
    write(folder, stack=["style", "lightning"], quantize="none")
    assert run("bake", "stack.json", "-o", "tuned.safetensors", "--dtype", "fp32")[0] == 0
    extract = ("extract", "tuned.safetensors", "base.safetensors", "-o", OUT, "--json")
    told = run(*extract, "--rank", "2", "--max-error", "0.1")[1]
    assert told["error"]["code"] == "LF506" and "0.1 is allowed" in told["error"]["what"]
    assert not (folder / OUT).exists() and not list(folder.glob(".lora_foundry*"))
    for most in (0.3, 0.001):
        code, told, _ = run(*extract, "--max-error", str(most))
        assert code == 0 and told["proof"]["error"] <= most, told


def test_what_is_no_layer_is_extracted_as_it_is(folder, run):
    """The scales of FLUX's norms, and a parameter of three dimensions: no factors are smaller."""
    for family, names in (("flux", (".query_norm.scale",)), ("wan", (".modulation",))):
        base = a_base(folder, family)
        random = torch.Generator().manual_seed(0)
        stored = load_file(base).items()
        tuned = {name: tensor + 0.01 * torch.randn(tensor.shape, generator=random) for name, tensor in stored}
        save_small(folder / "tuned.safetensors", tuned)
        code, told, _ = run("extract", "tuned.safetensors", base.name, "--max-error", "0.0001", "-o", OUT, "--json")
        assert code == 0 and told["modules"] == len(tuned), told
        assert any(name.endswith(f"{end}.diff") for name in load_file(folder / OUT) for end in names)
        assert apart(baked(base, [(folder / OUT, 1.0)]), tuned) < 1e-4


def test_what_cannot_be_extracted(folder, run):
    told = run("extract", "base.safetensors", "base.safetensors", "-o", OUT, "--json")[1]
    assert told["error"]["code"] == "LF502"
    run("bake", "stack.json", "-o", "fp8.safetensors")
    told = run("extract", "fp8.safetensors", "base.safetensors", "-o", OUT, "--json")[1]
    assert told["error"]["code"] == "LF504" and "float8" in told["error"]["what"]
    assert not (folder / OUT).exists()


def test_a_picture_without_a_folder_is_refused_before_anything_is_compared(folder, run):
    code, _, err = run("conflicts", "nowhere.safetensors", "style.safetensors", "--svg", "no/heat.svg")
    assert code == 2 and "heat.svg cannot be written: its folder does not exist. Make no first." in err


def test_one_lora_made_smaller_is_told_in_the_singular(folder, run):
    code, out, _ = run("resize", "lightning.safetensors", "--rank", "2", "-o", OUT)
    assert code == 0 and "1 LoRA merged (exact, then cut to rank 2)" in out
