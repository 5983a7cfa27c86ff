"""Who a file is: hashes of its bytes, whatever it is called and whatever it says of itself."""

from __future__ import annotations

import hashlib
import os
import time

import pytest
import torch
from lora_foundry.engine.errors import FoundryError
from lora_foundry.loaders.disk import hashes
from lora_foundry.loaders.disk.header import read_header
from lora_foundry.loaders.disk.process import PROCESS
from lora_foundry.loaders.lineage.identity import NOTHING, Identity, identifies, identify_file
from safetensors.torch import save_file

TENSORS = {"b.lora_up.weight": torch.ones(3, 2), "a.lora_down.weight": torch.arange(8.0).view(2, 4)}
DIGEST = hashlib.sha256(b"something").hexdigest()


def saved(path, metadata=None, tensors=TENSORS):
    save_file(tensors, path, metadata=metadata)
    return path


def after_header(path) -> str:
    header = read_header(path)
    start = min(begin for begin, _ in header.offsets.values())
    return hashlib.sha256(path.read_bytes()[start:]).hexdigest()


@pytest.mark.parametrize("name", ["a.safetensors", "a.sft", "ohne Endung"])
def test_two_hashes_of_one_file(name, tmp_path):
    path = saved(tmp_path / "a.safetensors")
    expected = Identity(hashlib.sha256(path.read_bytes()).hexdigest(), after_header(path))
    found = identify_file(path.rename(tmp_path / name))
    assert found == expected
    assert found.ids == (f"sha256:{expected.sha256}", f"tensors:{expected.tensor_sha256}")


def test_metadata_changes_one_hash_and_weights_both(tmp_path):
    plain, told = saved(tmp_path / "a.safetensors"), saved(tmp_path / "b.safetensors", {"note": "edited"})
    other = saved(tmp_path / "c.safetensors", None, {**TENSORS, "b.lora_up.weight": torch.zeros(3, 2)})
    ids = [set(identify_file(path).ids) for path in (plain, told, other)]
    assert len(ids[0] & ids[1]) == 1 and next(iter(ids[0] & ids[1])).startswith("tensors:")
    assert not ids[0] & ids[2]


def test_nothing_is_no_identity(tmp_path):
    empty, bare = tmp_path / "empty.safetensors", tmp_path / "bare.safetensors"
    empty.write_bytes(b"")
    save_file({}, bare)
    assert identify_file(empty).ids == ()
    assert identify_file(bare).tensor_sha256 == NOTHING
    assert [id.partition(":")[0] for id in identify_file(bare).ids] == ["sha256"]
    assert NOTHING.startswith("e3b0c44298fc")


def test_another_kind_of_file_has_one_id(tmp_path):
    path = tmp_path / "a.gguf"
    path.write_bytes(b"GGUF" * 100)
    assert identify_file(path).ids == (f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}",)


def test_a_file_is_read_once(tmp_path, monkeypatch):
    path, steps = saved(tmp_path / "a.safetensors"), []
    then = time.time() - 60
    os.utime(path, (then, then))
    first = identify_file(path, lambda *step: steps.append(step))
    assert steps == [(path.stat().st_size,) * 2]
    monkeypatch.setattr(hashes, "_hash", lambda *_: pytest.fail("read again"))
    assert identify_file(path) == first
    PROCESS.files.clear()
    assert identify_file(path) == first


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(FoundryError, match="does not exist"):
        identify_file(tmp_path / "a.safetensors")


@pytest.mark.parametrize("digest", ["", "e3b0c4", DIGEST[:-1], DIGEST.upper(), NOTHING, f"0x{DIGEST}", f"{DIGEST}\n"])
def test_what_identifies_nothing(digest):
    assert identifies(DIGEST) and not identifies(digest)


def test_claims_never_become_ids(tmp_path):
    stated = {"sshs_model_hash": DIGEST, "modelspec.hash_sha256": f"0x{DIGEST}", "sshs_legacy_hash": "12345678"}
    assert DIGEST not in str(identify_file(saved(tmp_path / "a.safetensors", stated)))
