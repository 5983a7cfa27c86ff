"""Merged files by what they say of themselves: verified from files alone, and found again instead of made again."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from lora_foundry.engine.errors import FoundryError
from lora_foundry.engine.json_merge import MERGE_KEY
from lora_foundry.engine.merge.ranks import Policy
from lora_foundry.loaders.disk.header import read_header
from lora_foundry.loaders.merges.merging import gather, merge
from lora_foundry.loaders.merges.telling import find_merged, merge_sentences
from lora_foundry.loaders.merges.verifying import found_near, request_of, stated_in, verify
from merged_files import a_request, some_loras
from safetensors.torch import load_file, save_file


def with_header(path, change):
    """A merged file that says something else of itself."""
    tensors, metadata = load_file(path), dict(read_header(path).metadata)
    told = json.loads(metadata[MERGE_KEY])
    change(told)
    save_file(tensors, path, {**metadata, MERGE_KEY: json.dumps(told)})


@pytest.mark.parametrize("proof", [None, {}, [1], {"error": 1}, {"shares": [{"share": 1}]}])
def test_a_file_without_a_proof_tells_of_no_merge(tmp_path, proof):
    merged = merge(a_request(tmp_path, some_loras(tmp_path, "wan", 2)))
    with_header(merged.path, lambda told: told.update(proof=proof))
    assert stated_in(merged.path) is None
    with pytest.raises(FoundryError, match="LF504"):
        request_of(merged.path, found_near(merged.path, ()))


@pytest.mark.parametrize(
    "change", [{"error": "x"}, {"shares": []}, {"shares": [{}, {}]}, {"shares": 3}, {"error": None}, {"error": 10**400}]
)
def test_a_proof_of_no_numbers_does_not_agree(tmp_path, change):
    merged = merge(a_request(tmp_path, some_loras(tmp_path, "wan", 2)))
    assert verify(request_of(merged.path, found_near(merged.path, ()))).agrees
    with_header(merged.path, lambda told: told["proof"].update(change))
    assert not verify(request_of(merged.path, found_near(merged.path, ()))).agrees


def test_inputs_are_looked_for_beside_the_file_only(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    loras = some_loras(tmp_path, "wan", 2)
    merged = merge(a_request(tmp_path, loras))
    moved = loras[0].rename(tmp_path / "elsewhere" / loras[0].name)
    with_header(merged.path, lambda told: told["recipe"]["inputs"][0].update(name=f"elsewhere/{moved.name}"))
    with pytest.raises(FoundryError, match="is not found"):
        request_of(merged.path, found_near(merged.path, ()))
    assert request_of(merged.path, found_near(merged.path, [moved])).loras[0].path == moved


def test_a_file_that_lost_more_than_is_allowed_now_is_not_found_again(tmp_path):
    request = a_request(tmp_path, some_loras(tmp_path, "wan", 2), dtype="bf16", max_error=0.01)
    merged, gathered = merge(request), gather(request)
    found = find_merged(request, gathered)
    assert found is not None and found["out"] == str(merged.path) and found["proof"] == merged.proof
    for most in (None, 1e-4):
        assert find_merged(replace(request, max_error=most), gathered) is None


@pytest.mark.parametrize(
    "change", [{"error": "x"}, {"error": float("nan")}, {"norm_ratio": 10**400}, {"shares": 3}, {"shares": [{}]}]
)
@pytest.mark.parametrize("most", [None, 0.5])
def test_a_file_with_a_proof_of_no_numbers_is_not_found_again(tmp_path, change, most):
    request = a_request(tmp_path, some_loras(tmp_path, "wan", 2), policy=Policy("energy", 0.99), max_error=most)
    merged, gathered = merge(request), gather(request)
    with_header(merged.path, lambda told: told["proof"].update(change))
    assert find_merged(request, gathered) is None


def test_a_file_found_again_tells_the_recipe_that_was_asked_for(tmp_path):
    """Its own need not be what its hash says."""
    request = a_request(tmp_path, some_loras(tmp_path, "wan", 2))
    merged, gathered = merge(request), gather(request)
    with_header(merged.path, lambda told: told.update(recipe=[3]))
    found = find_merged(request, gathered)
    assert found is not None and found["recipe"] == merged.recipe.to_json()
    assert "2 LoRAs merged (exact)" in next(merge_sentences(found))
