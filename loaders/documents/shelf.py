"""Stacks that are kept under a name: stack documents in the user's folder, which the command line reads too."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

from ...engine.plan import STACK
from ...engine.texts.say import refuse
from ..disk.header import disk_errors
from ..disk.home import data_home, keep
from ..disk.targets import plain_fault
from ..disk.text import MAX_TEXT, decode, document_error, parse_text
from .document import Row, load_document, parse_rows

SUFFIX = ".json"
_HALF = re.compile("[\ud800-\udfff]")


def stacks_folder() -> Path:
    """Where they are; it need not exist."""
    return data_home() / "stacks"


def stack_names() -> list[str]:
    """Those that are there, sorted."""
    with suppress(OSError):
        return sorted(path.name.removesuffix(SUFFIX) for path in stacks_folder().glob(f"[!.]*{SUFFIX}"))
    return []


def stack_path(name: str) -> Path:
    """The file of a name. FoundryError ``usage`` for what no file can be called here or elsewhere."""
    if fault := plain_fault(name, SUFFIX):
        raise refuse("usage.stack", name=f"{name!r:.80}", fault=fault)
    return stacks_folder() / (name + SUFFIX)


def save_stack(name: str, rows: list[Any], replace: bool = False) -> Path:
    """Keep rows under a name. FoundryError ``document`` for what are no rows, ``file`` where there is one already."""
    parse_rows(rows, "rows")
    path = stack_path(name)
    if path.exists() and not replace:
        raise refuse("file.stack_there", name=repr(name))
    lines = ",\n".join(f"    {_line(row)}" for row in rows)
    text = f'{{\n  "{STACK}": [\n{lines}\n  ]\n}}\n'
    if len(text.encode()) > MAX_TEXT:  # which nothing would read again
        raise document_error(path.name, "document.large", most=MAX_TEXT)
    if not keep(path, text, lasting=True):
        raise refuse("file.stack_unwritten", name=repr(name))
    return path


def load_stack(name: str) -> list[Any]:
    """The rows of a stack, as they are written. FoundryError ``file`` or ``document``; any stack document will do."""
    path = _there(name)
    document = load_document(path)
    with disk_errors(path), path.open("rb") as file:
        told = parse_text(decode(file.read(MAX_TEXT + 1), path.name), path.name)
    return told[STACK] if isinstance(told.get(STACK), list) else [_written(row) for row in document.stack]


def delete_stack(name: str) -> None:
    """Take a stack off the shelf; of a link the link. FoundryError ``file`` where there is none, or it must stay."""
    path = _there(name)
    with disk_errors(path):
        path.unlink()


def _there(name: str) -> Path:
    """The file of a stack. FoundryError ``file`` where there is none."""
    path = stack_path(name)
    if not path.is_file():
        raise refuse("file.stack_missing", name=repr(name), known=", ".join(stack_names()) or "none")
    return path


def _line(row: Any) -> str:
    """A row as JSON; half a character, which JSON can name and UTF-8 cannot hold, stays the escape that it was."""
    line = json.dumps(row, ensure_ascii=False)
    return line if line.isascii() or not _HALF.search(line) else json.dumps(row)


def _written(row: Row) -> dict[str, Any]:
    clip = {} if row.clip_strength is None else {"clip_strength": row.clip_strength}
    more = {**({} if row.on else {"on": False}), **({"blocks": row.blocks} if row.blocks else {})}
    return {"path": row.path, "strength": row.strength, **clip, **more}
