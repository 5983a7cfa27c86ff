"""What a process remembers: by state, not without end, and in no other place of the code."""

from __future__ import annotations

import ast
from pathlib import Path

import lora_foundry
import pytest
from lora_foundry.loaders.disk import process
from lora_foundry.loaders.disk.process import Memory

ROOT = Path(lora_foundry.__file__).parent
ROOMS = ("engine", "validator", "loaders", "nodes", "cli")
EMPTY = {
    "set",
    "dict",
    "list",
    "defaultdict",
    "OrderedDict",
    "Lock",
    "WeakSet",
    "WeakKeyDictionary",
    "WeakValueDictionary",
}


def test_another_state_is_not_what_was_found_out():
    memory = Memory()
    assert memory.put("found", "kind", "a", [1, 2]) == "found"
    assert memory.get("kind", "a", [1, 2]) == "found"
    assert [memory.get("kind", "a", [1]), memory.get("kind", "b", [1, 2]), memory.get("other", "a", [1, 2])] == [
        None
    ] * 3
    memory.put("new", "kind", "a", [1])
    assert memory.get("kind", "a", [1, 2]) is None and memory.get("kind", "a", [1]) == "new"
    memory.clear()
    assert memory.get("kind", "a", [1]) is None


def test_the_oldest_make_room(monkeypatch):
    monkeypatch.setattr(process, "MOST", 3)
    memory = Memory()
    for number in (1, 2, 3, 1, 4):
        memory.put(number, "kind", number)
    assert [memory.get("kind", number) for number in (1, 2, 3, 4)] == [None, 2, 3, 4]


def state_in(text: str) -> list[int]:
    """Lines of a module that make something to be filled later, or change a name of the module."""
    tree = ast.parse(text)
    made = [node for node in tree.body if isinstance(node, (ast.Assign, ast.AnnAssign)) and _is_empty(node.value)]
    return [node.lineno for node in (*made, *(node for node in ast.walk(tree) if isinstance(node, ast.Global)))]


def _is_empty(value: ast.expr | None) -> bool:
    if isinstance(value, ast.Call):
        name = value.func.attr if isinstance(value.func, ast.Attribute) else getattr(value.func, "id", "")
        return name in EMPTY and not any(
            isinstance(each, (ast.List, ast.Tuple, ast.Set, ast.GeneratorExp)) for each in value.args
        )
    return isinstance(value, (ast.Dict, ast.List)) and not (value.keys if isinstance(value, ast.Dict) else value.elts)


@pytest.mark.parametrize(
    "text", ["a = {}", "a: dict[str, int] = dict()", "a = weakref.WeakSet()", "def f():\n global a"]
)
def test_state_is_seen(text):
    assert state_in(text)


def test_no_module_holds_state_of_its_own():
    """PROCESS here and SESSION in nodes/session.py are the two objects that remember."""
    files = [path for room in ROOMS for path in (ROOT / room).rglob("*.py")]
    assert len(files) > 100
    found = [
        f"{path.relative_to(ROOT)}:{line}" for path in files for line in state_in(path.read_text(encoding="utf-8"))
    ]
    assert found == []
