"""Files that the safetensors library serialises and this pack puts in place."""

import os

import pytest
import torch
from lora_foundry.engine.errors import FoundryError
from lora_foundry.loaders.disk.small import data_of, save_small, serialised
from lora_foundry.loaders.disk.source import FileSource

WHOLE = torch.arange(24, dtype=torch.float32).reshape(6, 4)
TENSORS = {
    "z.fp8": torch.arange(256, dtype=torch.uint8).view(torch.float8_e4m3fn),
    "y.e5m2": torch.arange(256, dtype=torch.uint8).view(torch.float8_e5m2),
    "x.bf16": torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(torch.bfloat16),
    "w.alpha": torch.tensor(8.0),
    "v.empty": torch.empty(0, 4),
    "u.turned": WHOLE.T,
    "t.rows": WHOLE[2:5],
    "s.same": WHOLE,
    "r.again": WHOLE,
    "q.odd": torch.tensor([True, False, True]),
    "p.long": torch.tensor([1, -(2**62)]),
    "ö name": torch.ones(1, dtype=torch.float16),
}


def raw(tensor):
    return tensor.dtype, tuple(tensor.shape), tensor.contiguous().reshape(-1).view(torch.uint8).tolist()


def test_every_tensor_comes_back_bit_for_bit_behind_our_header_check(tmp_path):
    path = tmp_path / "a.safetensors"
    save_small(path, TENSORS, {"note": "ü"})
    source = FileSource(path)
    assert dict(source.metadata) == {"format": "pt", "note": "ü"}
    assert source.tensors.keys() == TENSORS.keys()
    assert {name: raw(source.read(name)) for name in TENSORS} == {name: raw(each) for name, each in TENSORS.items()}
    assert [each.name for each in tmp_path.iterdir()] == ["a.safetensors"]


def test_metadata_and_the_order_of_the_names_move_no_byte_of_the_data(tmp_path):
    path = tmp_path / "a.safetensors"
    save_small(path, dict(reversed(TENSORS.items())), {"record": "x" * 999})
    assert data_of(path.read_bytes()) == data_of(serialised(TENSORS))
    assert bytes(data_of(serialised({"a": WHOLE}))) == WHOLE.numpy().tobytes()


def test_the_old_file_stays_until_the_new_one_is_on_the_disk(tmp_path, monkeypatch):
    path = tmp_path / "a.safetensors"
    save_small(path, {"a": torch.zeros(3)})
    before, old = path.read_bytes(), path.open("rb")

    def full(handle):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(FoundryError, match="could not be written: No space"):
            save_small(path, {"a": torch.ones(3)})
    assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 1
    with old:
        save_small(path, {"a": torch.ones(3)})
        assert old.read() == before  # a new file, not other bytes in the old one
    assert FileSource(path).read("a").tolist() == [1, 1, 1]


@pytest.mark.skipif(os.name == "nt", reason="no file modes")
def test_the_mode_follows_the_umask(tmp_path):
    before = os.umask(0o027)
    try:
        save_small(tmp_path / "a.safetensors", {"a": torch.zeros(1)})
    finally:
        os.umask(before)
    assert (tmp_path / "a.safetensors").stat().st_mode & 0o777 == 0o640


def test_what_cannot_be_stored_is_refused_before_a_file_appears(tmp_path):
    with pytest.raises(FoundryError, match="cannot be stored"):
        save_small(tmp_path / "a.safetensors", {"a": torch.zeros(1, dtype=torch.complex128)})
    with pytest.raises(FoundryError, match="its folder does not exist"):
        save_small(tmp_path / "none" / "a.safetensors", {"a": torch.zeros(1)})
    with pytest.raises(FoundryError, match="read by any loader"):
        save_small(tmp_path / "a.bin", {"a": torch.zeros(1)})
    assert not list(tmp_path.iterdir())
