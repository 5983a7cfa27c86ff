"""Bytes from file to file: all of them arrive, however little the system takes at a time."""

from __future__ import annotations

import os

import pytest
from lora_foundry.loaders.disk import ranges


@pytest.mark.parametrize("most", [1, 7, 1000])
def test_a_write_that_takes_less_is_repeated(tmp_path, monkeypatch, most):
    content = bytes(range(200)) * 2
    (tmp_path / "source").write_bytes(content)
    (tmp_path / "target").write_bytes(b"")
    monkeypatch.delattr(os, "copy_file_range", raising=False)
    monkeypatch.setattr(ranges, "_write", lambda handle, data, at: os.pwrite(handle, data[:most], at))
    with (tmp_path / "source").open("rb") as source, (tmp_path / "target").open("r+b") as target:
        assert list(ranges.copy_range(source.fileno(), 3, 391, target.fileno(), 5))[-1] == 388
    assert (tmp_path / "target").read_bytes() == bytes(5) + content[3:391]
