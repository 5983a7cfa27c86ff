"""The pack's own source, parsed once: its files, and every import of one of them by another, lazy ones too."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("engine", "validator", "loaders", "nodes", "cli")
PACK = sorted([*ROOT.glob("*.py"), *(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))])
Node = TypeVar("Node", bound=ast.AST)


@dataclass(frozen=True)
class Import:
    """``line`` of ``path`` takes ``name`` (empty: the module itself) from the pack's file ``target``."""

    path: Path
    line: int
    target: Path
    name: str
    asname: str | None

    def __str__(self) -> str:
        return f"{name_of(self.path)}:{self.line} imports {self.name or 'all'} of {name_of(self.target)}"


def name_of(path: Path) -> str:
    """A file as seen from the root."""
    return path.relative_to(ROOT).as_posix()


@functools.cache
def tree_of(path: Path) -> ast.Module:
    """A file's syntax tree."""
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def nodes_of(path: Path, *kinds: type[Node]) -> list[Node]:
    """Every node of these kinds, in functions too."""
    return [node for node in ast.walk(tree_of(path)) if isinstance(node, kinds)]


@functools.cache
def imports_of(path: Path) -> tuple[Import, ...]:
    """Every import of one file of the pack, wherever in the file it stands."""
    return tuple(_imports(path))


def _imports(path: Path) -> Iterator[Import]:
    for node in nodes_of(path, ast.ImportFrom):
        if not node.level:
            continue
        place = path.parents[node.level - 1].joinpath(*(node.module or "").split("."))
        for alias in node.names:
            if module := _file(place / alias.name):
                yield Import(path, node.lineno, module, "", alias.asname)
            elif module := _file(place):
                yield Import(path, node.lineno, module, alias.name, alias.asname)
            else:
                raise AssertionError(f"{name_of(path)}:{node.lineno} imports what is not there: {alias.name}")


def _file(place: Path) -> Path | None:
    return next((file for file in (place.with_suffix(".py"), place / "__init__.py") if file.is_file()), None)
