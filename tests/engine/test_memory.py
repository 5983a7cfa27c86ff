"""How much memory is free, by what each system tells."""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from lora_foundry.engine.memory import available_bytes, give_back


@pytest.fixture
def no_linux(monkeypatch):
    """Neither /proc nor sysconf tells: Windows, or macOS."""

    def missing(self):
        raise FileNotFoundError

    monkeypatch.setattr(Path, "read_bytes", missing)
    monkeypatch.delattr(os, "sysconf", raising=False)


def test_this_machine_tells():
    assert available_bytes() > 1e6


def test_psutil_tells_where_the_system_does_not(no_linux, monkeypatch):
    told = SimpleNamespace(virtual_memory=lambda: SimpleNamespace(available=7_000_000_000))
    monkeypatch.setitem(sys.modules, "psutil", told)
    assert available_bytes() == 7_000_000_000


def test_without_psutil_nobody_tells(no_linux, monkeypatch):
    monkeypatch.setitem(sys.modules, "psutil", None)
    assert available_bytes() is None


def test_psutil_that_may_not_ask(no_linux, monkeypatch):
    def refused():
        raise PermissionError(13, "Operation not permitted")

    monkeypatch.setitem(sys.modules, "psutil", SimpleNamespace(virtual_memory=refused))
    assert available_bytes() is None


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="what glibc alone does")
def test_what_is_free_between_what_is_used_goes_back():
    """Pieces too small to be mapped by themselves: what stands behind them keeps their memory in the process."""
    size, count = 100_000, 600
    pieces = [b"x" * size for _ in range(count)]
    kept = pieces[::20]
    del pieces
    before = resident()
    give_back()
    assert before - resident() > size * count / 2 and all(len(each) == size for each in kept)


def test_elsewhere_nothing_is_given_back(monkeypatch):
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(ctypes, "CDLL", None)
    give_back()
