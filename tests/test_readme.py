"""The README says what is there: its links, nodes, codes, commands and code are checked against the repository."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def section(title: str) -> str:
    """The text of one section."""
    return README.split(f"\n## {title}\n", 1)[1].split("\n## ", 1)[0]


def cells(text: str, column: int = 0) -> list[str]:
    """One column of the tables in a text, without heads and rules."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]
    starts = [i for i, row in enumerate(rows) if set(row[0]) <= set("-:") and row[0]]
    return [row[column] for i, row in enumerate(rows) if i not in starts and i + 1 not in starts]


def dictionary(path: str, name: str) -> dict[str, str]:
    """A table of plain strings in a source file, read without importing it."""
    for node in ast.parse((ROOT / path).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == name:
            return ast.literal_eval(node.value)
    raise AssertionError(f"{path} has no {name}")


def test_every_link_leads_somewhere():
    links = [link for link in re.findall(r"\]\(([^)]+)\)", README) if not link.startswith(("http", "#"))]
    assert links and not [link for link in links if not (ROOT / link).exists()]


def test_every_node_is_listed_under_its_menu_name():
    assert cells(section("Nodes")) == list(dictionary("nodes/__init__.py", "NODE_DISPLAY_NAME_MAPPINGS").values())


def test_every_code_is_explained():
    sources = [path for room in ("engine", "validator", "loaders", "nodes") for path in (ROOT / room).rglob("*.py")]
    used = {code for path in sources for code in re.findall(r'"(LF\d{3})[".]', path.read_text(encoding="utf-8"))}
    told = cells(section("Messages, and what to do"))
    assert {code for code in told if code.startswith("LF")} == used


def test_every_file_is_on_the_map():
    named = " ".join(cells(section("Map of the files")))
    patterns = [pattern.rstrip("/") for pattern in re.findall(r"`([^`]+)`", named)]
    known = {path for pattern in patterns for path in ROOT.glob(pattern)}
    assert not [pattern for pattern in patterns if not list(ROOT.glob(pattern))]
    files = [
        path for room in ("engine", "validator", "loaders", "nodes", "cli") for path in (ROOT / room).rglob("*.py")
    ]
    assert not {path for path in [*files, *ROOT.glob("*.py")] if path.name != "__init__.py"} - known


def test_the_two_commands_are_what_ci_runs():
    commands = section("Try it in two commands").split("```")[1].strip().splitlines()
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    assert len(commands) == 2 and set(commands) <= set(script)


def test_the_script_is_python():
    (code,) = re.findall(r"```python\n(.*?)```", README, re.S)
    compile(code, "README.md", "exec")
