"""A cached result put in the place where the user wants it."""

from __future__ import annotations

import os
from pathlib import Path

from ...engine.progress import Progress
from .header import disk_errors, file_error
from .ranges import copy_range
from .temps import sync_file, sync_folder, temporary
from .writer import check_target, writing


def copy_result(source: Path, out: Path, on_step: Progress | None = None) -> None:
    """Put a copy of a cached result in the place of ``out``; the old file stays until the new one is complete.

    Never a hard link: editing ``out`` would change the cache. File systems that can share blocks until they change
    (Btrfs, XFS) do so. ``on_step(done, total)`` counts bytes and may raise to cancel. Raises FoundryError ``file``.
    """
    with disk_errors(source):
        file = source.open("rb", buffering=0)
    with file:
        before = os.fstat(file.fileno())
        check_target(out, before.st_size)
        with temporary(out.parent) as temp, writing(out, before.st_size):
            done = 0
            with temp.open("xb", buffering=0) as copy:
                for done in copy_range(file.fileno(), 0, before.st_size, copy.fileno(), 0):
                    if on_step is not None:
                        on_step(done, before.st_size)
                sync_file(copy.fileno())
            after = os.fstat(file.fileno())
            if (done, after.st_size, after.st_mtime_ns) != (before.st_size, before.st_size, before.st_mtime_ns):
                raise file_error(source, "file.changed_copy")
            temp.replace(out)
            sync_folder(out.parent)
