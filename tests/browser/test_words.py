"""The words of the browser files: all of them in one table, for translators."""

from __future__ import annotations

import json
import re
from pathlib import Path

KEY = re.compile(r"""word\(["`]([\w.]+?)(\.?\$\{[^}]*\})?["`]""")
CHOSEN = {"counts", "count"}  # word(`${...}.${severity}`): one of these


def table(root: Path) -> dict[str, str]:
    """UI of web/texts.mjs, which is written as JSON."""
    source = (root / "web" / "texts.mjs").read_text(encoding="utf-8")
    return json.loads(re.search(r"export const UI = (\{.*?\n\})", source, re.DOTALL)[1])


def used(root: Path) -> set[str]:
    """Keys, or beginnings of keys, that the files ask for."""
    files = [*(root / "web").glob("*.mjs"), *(root / "web").glob("*.js")]
    return {match[1] for path in files for match in KEY.finditer(path.read_text(encoding="utf-8"))} | CHOSEN


def test_every_word_is_in_the_table_and_every_entry_is_used(root):
    words, asked = table(root), used(root)
    missing = {key for key in asked if key not in words and not any(word.startswith(f"{key}.") for word in words)}
    idle = {word for word in words if word not in asked and word.rpartition(".")[0] not in asked}
    assert (missing, idle) == (set(), set())


def test_no_panel_writes_html(root):
    for path in (root / "web").glob("*.*js"):
        source = path.read_text(encoding="utf-8")
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write", source), path.name
