"""The config that PEFT keeps beside a LoRA comes along, and counts for no other LoRA."""

from __future__ import annotations

import hashlib

import pytest
from fault_server import Reply
from lora_foundry.engine.errors import FoundryError
from lora_foundry.loaders.loras.file import open_lora
from lora_foundry.loaders.remote import cache as caches
from lora_foundry.loaders.remote import s3
from remote_parts import get, lora_bytes

PEFT = "s3://loras/{}/adapter_model.safetensors"


def test_the_config_that_peft_keeps_beside_a_lora_comes_along(server):
    """Without it the scale would be another one than that of the same folder on a disk."""
    server.files["/loras/peft/adapter_model.safetensors"] = lora_bytes(rank=4)
    server.files["/loras/peft/adapter_config.json"] = b'{"peft_type": "LORA", "r": 4, "lora_alpha": 2}'
    server.files["/loras/bare/adapter_model.safetensors"] = lora_bytes(1, rank=4)
    peft, bare = get("s3://loras/peft/adapter_model.safetensors"), get("s3://loras/bare/adapter_model.safetensors")
    scales = [open_lora(file.path, file.name).adapters[0].alpha for file in (peft, bare)]
    assert scales == [2.0, None]
    asked = len(server.asked)
    assert get("s3://loras/peft/adapter_model.safetensors") == peft and len(server.asked) == asked + 1


def test_a_server_that_breaks_off_before_the_config_came_is_asked_again(server, monkeypatch):
    server.files["/loras/adapter_model.safetensors"] = lora_bytes(rank=4)
    server.files["/loras/adapter_config.json"] = b'{"peft_type": "LORA", "r": 4, "lora_alpha": 2}'
    server.fault = lambda server, asked: Reply(500) if asked.path.endswith(".json") else None
    monkeypatch.setattr(s3, "RETRIES", 0)
    with pytest.raises(FoundryError, match="cannot be asked"):
        get("s3://loras/adapter_model.safetensors")
    server.fault = lambda server, asked: None
    file = get("s3://loras/adapter_model.safetensors")
    assert open_lora(file.path, file.name).adapters[0].alpha == 2.0


def alpha_of(name: str) -> float | None:
    file = get(name)
    return open_lora(file.path, file.name).adapters[0].alpha


def put_peft(server, folder: str, alpha: int) -> str:
    """The same weights in any folder, under a config of its own; their address."""
    server.files[f"/loras/{folder}/adapter_model.safetensors"] = lora_bytes(rank=4)
    server.files[f"/loras/{folder}/adapter_config.json"] = b'{"peft_type": "LORA", "r": 4, "lora_alpha": %d}' % alpha
    return PEFT.format(folder)


def test_equal_weights_elsewhere_do_not_bring_their_scale(server):
    """A copy of a LoRA in a stranger's folder would change the one that people have, for as long as it is kept."""
    ours, theirs = put_peft(server, "ours", 2), put_peft(server, "theirs", 999)
    server.files["/loras/plain.safetensors"] = server.files["/loras/ours/adapter_model.safetensors"]
    assert [alpha_of(name) for name in (ours, theirs, ours, "s3://loras/plain.safetensors")] == [2, 999, 2, None]


def test_a_lora_with_a_hash_is_not_there_before_its_config_is(server, monkeypatch):
    name = f"{put_peft(server, 'ours', 2)}#sha256={hashlib.sha256(lora_bytes(rank=4)).hexdigest()}"
    server.fault = lambda server, asked: Reply(500) if asked.path.endswith(".json") else None
    monkeypatch.setattr(s3, "RETRIES", 0)
    with pytest.raises(FoundryError, match="cannot be asked"):
        get(name)
    server.fault = lambda server, asked: None
    assert alpha_of(name) == 2


def test_a_config_that_is_gone_when_the_lora_is_saved_anew_is_not_kept(server, tmp_path):
    name = put_peft(server, "ours", 2)
    assert alpha_of(name) == 2
    del server.files["/loras/ours/adapter_config.json"]
    first, server.files["/loras/ours/adapter_model.safetensors"] = lora_bytes(rank=4), lora_bytes(1, rank=4)
    assert alpha_of(name) is None
    server.files["/loras/ours/adapter_model.safetensors"] = first
    assert alpha_of(name) is None


def test_a_config_that_the_disk_refuses_is_no_other_scale(server, monkeypatch):
    name = put_peft(server, "ours", 2)

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(caches, "temporary", refuse)
    with pytest.raises(FoundryError, match="adapter_config.json"):
        get(name)
