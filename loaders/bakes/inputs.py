"""The files a document reads, none of which a bake may overwrite."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from ...engine.errors import FoundryError
from ...engine.texts.say import refuse
from ..disk.sharding import is_part
from ..disk.shards import find_files
from ..disk.writer import check_target
from ..documents.document import Document
from ..documents.paths import resolve_path


def refuse_input(out: Path, doc: Document, sharded: bool = False, more: Iterable[Path] = ()) -> None:
    """FoundryError when ``out`` cannot be written, or is a file the document reads, be its row on or off.

    ``more`` are files that are read beside those of the document. ``sharded``: so are the files it may be split into.
    No file is read: a wrong name is told at once, not after gigabytes were hashed.
    """
    check_target(out)
    for path in (*input_files(doc), *more):
        whole = path.exists() and out.exists() and path.samefile(out)
        if whole or (sharded and is_part(out, path.name) and path.parent.samefile(out.parent)):
            raise refuse("usage.input", out=out, file=path.name)


def input_files(doc: Document) -> Iterator[Path]:
    """Every local file a document names, all shards of the base among them; missing ones are left to the planner."""
    names = [row.path for row in (*doc.fuse, *doc.stack)]
    for name in names:
        with suppress(FoundryError):
            yield resolve_path(name, doc.folder, lambda _: True)
    if doc.base is not None:
        with suppress(FoundryError):
            yield from find_files(resolve_path(doc.base, doc.folder))[0]
