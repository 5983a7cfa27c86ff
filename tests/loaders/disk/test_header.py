"""The header reader: what it returns, that it agrees with the reference reader, and that no mutation breaks it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from attacks.files import GOOD, pack, tensor, write
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lora_foundry.engine.errors import FoundryError
from lora_foundry.loaders.disk import header
from lora_foundry.loaders.disk.header import DTYPES, Header, read_header, shown
from safetensors.torch import save_file

FUZZ = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def test_header_says_what_the_file_holds(tmp_path):
    path = tmp_path / "a.safetensors"
    save_file({"x": torch.ones(3, 2), "y": torch.ones(5, dtype=torch.bfloat16)}, path, {"rank": "4"})
    header = read_header(path)
    assert header.metadata == {"rank": "4"}
    assert header.tensors["x"].shape == (3, 2)
    assert header.tensors["y"].dtype == torch.bfloat16
    assert header.size == path.stat().st_size == max(end for _, end in header.offsets.values())
    assert header.mtime_ns == path.stat().st_mtime_ns
    begin, end = header.offsets["x"]
    assert path.read_bytes()[begin:end] == torch.ones(6).numpy().tobytes()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 7\n", "Git LFS pointer of "),
        (b"<!DOCTYPE html><title>Log in</title>", "web page"),
        (b"<html><body>404</body></html>", "web page"),
    ],
)
def test_what_a_download_left_in_its_place_is_no_damage(content, said, tmp_path):
    with pytest.raises(FoundryError) as caught:
        read_header(write(tmp_path, content))
    assert said in caught.value.what and "damaged" not in str(caught.value) and caught.value.fix


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=str)
def test_every_dtype_of_torch_and_safetensors_is_known(dtype, tmp_path):
    path = tmp_path / "a.safetensors"
    save_file({"x": torch.zeros(2, 3, dtype=torch.uint8).to(dtype)}, path)
    assert read_header(path).tensors["x"].dtype == dtype


def test_tensors_come_in_file_order(tmp_path):
    path = write(tmp_path, pack({"b": tensor(8, 16), "a": tensor(0, 8)}, bytes(16)))
    assert list(read_header(path).tensors) == ["a", "b"]


def test_names_may_be_sft_or_upper_case(tmp_path):
    for name in ("a.sft", "B.SafeTensors"):
        assert read_header(write(tmp_path, GOOD, name)).tensors


def test_two_thousand_tensors_are_read_in_file_order(tmp_path):
    names = [f"transformer_blocks.{i // 30}.attn.add_{i % 30}_proj.weight" for i in range(2000)]
    header = {name: tensor(4 * i, 4 * i + 4, shape=[1, 1]) for i, name in enumerate(names)}
    path = write(tmp_path, pack(header, bytes(8000)))
    assert list(read_header(path).tensors) == names


def test_a_header_longer_than_readers_take_is_refused_unread(tmp_path, monkeypatch):
    path = tmp_path / "a.safetensors"
    save_file({"x": torch.ones(3, 2)}, path)
    monkeypatch.setattr(header, "MAX_HEADER", int.from_bytes(path.read_bytes()[:8], "little") - 1)
    with pytest.raises(FoundryError, match="are accepted"):
        read_header(path)


def test_permission_denied_is_a_foundry_error(tmp_path, monkeypatch):
    path = write(tmp_path, GOOD)

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(FoundryError, match="Permission denied"):
        read_header(path)


def test_shown_escapes_what_a_terminal_obeys_and_keeps_what_people_read():
    assert shown("übergröße 風景 🎨.safetensors") == "übergröße 風景 🎨.safetensors"
    assert shown("a\x1b[31m\n\u202e\ud800") == r"a\x1b[31m\n\u202e\ud800"
    assert len(shown("x" * 10_000)) < 200


def _read(path: Path) -> Header | None:
    """The header, or None when it was refused; any other exception is the failure looked for."""
    try:
        return read_header(path)
    except FoundryError as error:
        assert str(error).isprintable()
        return None


@FUZZ
@given(st.integers(0, len(GOOD)), st.binary(max_size=12), st.integers(0, 12))
def test_any_mutation_is_refused_or_read(tmp_path, place, replacement, removed):
    content = GOOD[:place] + replacement + GOOD[place + removed :]
    header = _read(write(tmp_path, content))
    if header:
        assert sum(info.nbytes for info in header.tensors.values()) + 8 + int.from_bytes(content[:8], "little") == len(
            content
        )


@FUZZ
@given(st.integers(0, len(GOOD) - 1))
def test_any_cut_is_refused(tmp_path, cut):
    assert _read(write(tmp_path, GOOD[:cut])) is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6) | st.sampled_from(["F32", "BF16"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["dtype", "shape", "data_offsets", "__metadata__", "x"]), inner, max_size=4)
    ),
    max_leaves=8,
)


@FUZZ
@given(st.dictionaries(st.sampled_from(["a", "b", "__metadata__"]) | st.text(max_size=4), JSON, max_size=3))
def test_any_json_is_refused_or_read(tmp_path, header):
    _read(write(tmp_path, pack(json.dumps(header).encode(), bytes(8))))
