"""A disk that fails below Python, at calls of each kind and bytes of a write: bakes, merges, files and records on it.

The faults are those of the C library's calls (``fault_disk.c``), so no code of ours and none of Python's is replaced.
Each outcome is a sentence or a success, the old result or the new one is whole, and nothing else remains.
"""

from __future__ import annotations

import json
import subprocess
import sys

import fault_disk
import install
import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the library is for Linux")
CHILD = """
import runpy, sys
from pathlib import Path
runpy.run_path(sys.argv[1] + "/conftest.py")
sys.path[:0] = [sys.argv[1], sys.argv[1] + "/helpers"]
from attacks.faulty_work import run
run(Path(sys.argv[2]))
"""
WORKS = (
    "a bake", "a bake in shards", "a bake through the cache", "a merge",
    "a small file", "a stamp", "a record", "a document", "hashes",
)  # fmt: skip


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory, root, need):
    """All works under all faults, in one process on such a disk."""
    library = fault_disk.build(need("cc", install.find_compiler), tmp_path_factory.mktemp("library"))
    disk = tmp_path_factory.mktemp("disk").resolve()
    child = subprocess.run(
        [sys.executable, "-c", CHILD, str(root / "tests"), str(disk)],
        env=fault_disk.environment(library), capture_output=True, text=True, timeout=250,
    )  # fmt: skip
    assert child.returncode == 0, child.stderr[-3000:]
    found = [json.loads(line) for line in child.stdout.splitlines()]
    assert {told["work"] for told in found} == {*WORKS, "unreadable in the cache", "unreadable in its place"}
    return found


@pytest.mark.parametrize("work", WORKS)
def test_a_broken_disk_under(work, outcomes):
    mine = [told for told in outcomes if told["work"] == work]
    assert {told["kind"] for told in mine} >= {"write", "read", "create", "rename", "close", "short"}
    for told in mine:
        assert not told["said"].startswith("raw"), told
        assert told["state"] == ("old" if told["said"] else "new"), told
        assert not told["left"], told
    for kind in ("write", "fsync", "create", "rename"):  # some are of what a work can do without, never all
        hit = [told["said"] for told in mine if told["kind"] == kind and told["hits"]]
        assert any(hit) or not hit and kind == "fsync", kind


def test_a_disk_that_moves_few_bytes_at_once_is_no_fault(outcomes):
    assert {told["said"] for told in outcomes if told["kind"] == "short"} == {""}


@pytest.mark.parametrize("place", ["in the cache", "in its place"])
def test_an_earlier_result_that_cannot_be_read_costs_time_and_no_bake(place, outcomes):
    (told,) = (told for told in outcomes if told["work"] == f"unreadable {place}")
    assert told["hits"] and not told["said"] and told["state"] == "new", told
    (sentence,) = told["told"]
    assert "can no longer be read" in sentence
