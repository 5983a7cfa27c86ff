"""Hidden names for what is not finished yet, and the sweeping up after a process that was killed."""

from __future__ import annotations

import os
import platform
import re
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .process import PROCESS

FORGOTTEN = 2 * 24 * 3600  # seconds after which even the unfinished work of an unknown process is nobody's
_HOST = re.sub(r"\W", "", platform.node())[:32] or "here"
_NAME = re.compile(r"\.lora_foundry-(\w+)-(\d+)-\w+\.tmp")


@contextmanager
def temporary(folder: Path) -> Iterator[Path]:
    """A new hidden name in ``folder`` for a file or a folder; what is still under it when the block ends is removed."""
    path = hidden(folder)
    try:
        yield path
    finally:
        remove(path)
        PROCESS.temps.discard(path.name)


def hidden(folder: Path) -> Path:
    """A new hidden name in ``folder``, which ``sweep`` leaves alone while this process lives."""
    name = f".lora_foundry-{_HOST}-{os.getpid()}-{uuid.uuid4().hex[:12]}.tmp"
    PROCESS.temps.add(name)
    return folder / name


def sweep(folder: Path) -> None:
    """Remove what killed processes left under such names; what a living one works on stays."""
    with suppress(OSError):
        for path in list(folder.iterdir()):
            if _is_left_over(path):
                remove(path)


def remove(path: Path) -> None:
    """Remove a file or a folder, as far as the system lets go of it; a missing one is fine."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


def is_alive(pid: int) -> bool:
    """Whether a process of this machine runs. Not for Windows, where signal 0 would end it."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True  # another user's
    return True


def _is_left_over(path: Path) -> bool:
    match = _NAME.fullmatch(path.name)
    if not match or path.name in PROCESS.temps:
        return False
    if match[1] == _HOST and os.name != "nt":
        # A container starts again under the same number: what bears ours and is not ours is an earlier life's.
        return int(match[2]) == os.getpid() or not is_alive(int(match[2]))
    with suppress(OSError):
        return time.time() - path.lstat().st_mtime > FORGOTTEN
    return False
