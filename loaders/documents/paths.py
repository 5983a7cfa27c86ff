"""What a document calls a file: relative to the document, in either kind of slash, with or without its suffix."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path, PureWindowsPath

from ...engine.errors import FoundryError
from ...engine.near import near
from ...engine.texts.say import refuse
from ..disk.header import disk_errors, shown
from ..remote.fetching import Fetched, fetch
from ..remote.names import Remote, is_remote, masked, parse_remote
from ..remote.objects import Asking
from ..remote.source import shards_of
from .document import Document


def resolve_path(name: str, folder: Path | None, exists: Callable[[Path], bool] = Path.exists) -> Path:
    """The file or folder a document means: absolute, or relative to the document, with either kind of slash.

    It does not confine: a document of the local user may name any file. A missing one is a FoundryError ``file`` that
    lists names like it.
    """
    if is_remote(name):
        raise refuse("remote.elsewhere", name=masked(name))
    path = Path(name)
    if os.name == "nt":
        path = (
            folder or Path()
        ) / name  # \\models\\x is of that drive, C:x of that drive's own folder: as Windows has it
    elif not path.is_absolute():
        windows = PureWindowsPath(name)
        if windows.drive or windows.root:
            raise refuse("file.windows", file=shown(name))
        path = (folder or Path()).joinpath(*windows.parts)
    with disk_errors(path):
        if exists(path):
            return path
    raise _missing(shown(name), path)


def find_lora(name: str, folder: Path | None, asking: Asking) -> Fetched:
    """The LoRA file a document means: one of this machine, or one from elsewhere, which is in the cache then.

    Raises FoundryError ``file`` or ``remote``.
    """
    if is_remote(name):
        return fetch(parse_remote(name), asking)
    path = resolve_path(name, folder, Path.exists)
    return Fetched(path, path.name)


def objects_of(doc: Document) -> Iterator[Remote]:
    """Every file elsewhere that a document names, all shards of the base among them, without what it must be.

    What is no address is left to the planner.
    """
    for name in (doc.base, *(row.path for row in (*doc.fuse, *doc.stack))):
        if name is not None and is_remote(name):
            with suppress(FoundryError):
                remote = replace(parse_remote(name), sha256="")
                yield from shards_of(remote) if name == doc.base else (remote,)


def _missing(file: str, path: Path) -> FoundryError:
    """What is not there, with names in the same folder that look like it."""
    said = {"file": file, "path": shown(str(path))}
    try:
        names = [entry.name for entry in path.parent.iterdir()]
    except (OSError, ValueError):
        return refuse("file.missing_folder", **said, folder=shown(str(path.parent)))
    alike = " or ".join(shown(name) for name in near(path.name, names, 3))
    return refuse("file.missing_near", **said, near=alike) if alike else refuse("file.missing", **said)
