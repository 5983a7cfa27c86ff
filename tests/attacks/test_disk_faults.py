"""A disk that fails at every write, rename and fsync of everything that is published: full, broken, over quota.

Enumerated, not random. The outcome is a sentence (or False for a record), the old result stays, and nothing is left.
"""

from __future__ import annotations

import errno
import os

import pytest
from attacks.test_kills import WRITERS, names_in, value_of
from lora_foundry.engine.errors import FoundryError
from lora_foundry.loaders.disk.writer import FileSink

CALLS = ("rename", "replace", "fsync")


class Disk:
    """Fails at its k-th call, once."""

    def __init__(self, k: int, fault: int) -> None:
        self.left, self.error, self.failed = k, OSError(fault, os.strerror(fault)), False

    def is_due(self) -> bool:
        self.left -= 1
        self.failed |= self.left == -1
        return self.left == -1

    def failing(self, call):
        def counted(*args, **kwargs):
            if self.is_due():
                raise self.error
            return call(*args, **kwargs)

        return counted

    def seek(self, offset: int) -> None:
        """What a sink asks of its file, inside what turns a fault into a sentence."""
        raise self.error

    def failing_put(self, real):
        def put(sink, *args):
            file = sink._file
            if self.is_due():
                sink._file = self
            try:
                return real(sink, *args)
            finally:
                sink._file = file

        return put


def outcome(write, path) -> None:
    """A sentence, or success."""
    try:
        write(path, 2.0)
    except FoundryError as error:
        assert error.code == "file" and str(error).isprintable()  # noqa: PT017 (the last one succeeds)
    except AssertionError:  # a record that was not kept is said so by False
        assert path.suffix == ".json"


@pytest.mark.parametrize("fault", [errno.ENOSPC, errno.EIO, errno.EDQUOT], ids=["full", "broken", "quota"])
@pytest.mark.parametrize("name", WRITERS)
def test_a_disk_that_is(fault, name, tmp_path, monkeypatch):
    write, file = WRITERS[name]
    for k in range(100):
        folder = tmp_path / str(k)
        folder.mkdir()
        path = folder / file
        write(path, 1.0)
        before, disk = names_in(folder), Disk(k, fault)
        with monkeypatch.context() as patch:
            for each in CALLS:
                patch.setattr(os, each, disk.failing(getattr(os, each)))
            patch.setattr(FileSink, "put", disk.failing_put(FileSink.put))
            outcome(write, path)
        if not disk.failed:
            break
        found = value_of(path)
        assert found in (1.0, 2.0)  # a folder that cannot be synced is no fault of a file that is whole
        assert found == 2.0 or names_in(folder) == before
        assert not [each for each in names_in(folder) if each.startswith(".")]
    assert 1 <= k < 99 and value_of(path) == 2.0
