"""Doors between rooms run one way, no two files import each other in a circle, and a name is imported from its home."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from sources import PACK, ROOT, imports_of, name_of, tree_of

# From the ground up: a room may import itself and what lies on a lower floor. The longest name that fits counts.
FLOOR = {
    "engine/texts": 0,
    "engine": 1,
    "engine/merge": 1.5,
    "validator": 2,
    "loaders/disk": 3,
    "loaders/remote": 4,
    "loaders/names": 4,
    "loaders/evidence": 4,
    "loaders/bases": 5,
    "loaders/documents": 6,
    "loaders/loras": 7,
    "loaders/workflows": 7,
    "loaders/lineage": 8,
    "loaders/lint": 9,
    "loaders/plans": 9,
    "loaders/converting": 10,
    "loaders/bakes": 10,
    "loaders/merges": 10,
    "loaders/batches": 10.5,
    "loaders": 11,
    "nodes": 11,
    "cli/demo": 11,
    "cli/workers": 11,
    "cli/benchmark": 12,
    "cli": 13,
    "": 14,
}
# Files anyone may import: what a text is made into (a finding, an error), how the command line prints, how the orders
# round that demo and benchmark compare, how a process ends, the version.
GROUND = {
    "engine/findings.py",
    "engine/errors.py",
    "cli/ending.py",
    "cli/orders.py",
    "cli/terminal.py",
    "__init__.py",
}


def room_of(path: Path) -> str:
    return max((room for room in FLOOR if name_of(path).startswith(f"{room}/") or not room), key=len)


every_file = pytest.mark.parametrize("path", PACK, ids=name_of)


@every_file
def test_doors_open_one_way(path):
    room = room_of(path)
    wrong = [
        str(each)
        for each in imports_of(path)
        if room_of(each.target) != room and FLOOR[room_of(each.target)] >= FLOOR[room]
        if name_of(each.target) not in GROUND
    ]
    assert not wrong, "\n".join(wrong)


def test_every_room_is_on_a_floor():
    rooms = {path.parent.relative_to(ROOT).as_posix() for path in PACK if path.parent != ROOT}
    assert rooms == set(FLOOR) - {""}


def test_no_circles():
    """Depth first through every import, also those only type checkers follow; what comes back to itself is printed."""
    done: set[Path] = set()

    def walk(path: Path, way: tuple[Path, ...]) -> None:
        assert path not in way, " -> ".join(map(name_of, (*way[way.index(path) :], path)))
        if path not in done:
            for each in imports_of(path):
                walk(each.target, (*way, path))
            done.add(path)

    for path in PACK:
        walk(path, ())


@every_file
def test_a_name_comes_from_where_it_is_made(path):
    """No re-exports: "where is X" has one answer."""
    wrong = [
        str(each)
        for each in imports_of(path)
        if (each.name and each.name in imported(each.target)) or (each.asname and each.asname == each.name)
    ]
    assert not wrong, "\n".join(wrong)


def imported(path: Path) -> set[str]:
    """Names a module has only because it imported them."""
    return {
        alias.asname or alias.name
        for node in tree_of(path).body
        if isinstance(node, ast.ImportFrom | ast.Import)
        for alias in node.names
    }


@pytest.mark.parametrize("path", [path for path in PACK if path.name == "__init__.py"], ids=name_of)
def test_a_room_says_what_it_is(path):
    """What lives here, what it may import, where to start; and nothing is hidden in it."""
    text = ast.get_docstring(tree_of(path)) or ""
    assert text and (path.parent == ROOT or "tart at" in text or name_of(path) == "nodes/__init__.py")
    if name_of(path) not in ("__init__.py", "nodes/__init__.py"):
        assert len(tree_of(path).body) == 1
