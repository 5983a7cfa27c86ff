"""Locks on open files that end with the process, whatever ends it: the system's own, no file that has to be removed."""

from __future__ import annotations

import errno
import os
import sys
from contextlib import suppress
from pathlib import Path

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

HELD_BY_OTHERS = (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES, errno.EDEADLK)


def try_lock(handle: int) -> bool | None:
    """Lock an open file for as long as it stays open; False: another open file holds it; None: no locks here.

    Some network drives and FUSE file systems know none.
    """
    try:
        if sys.platform == "win32":
            os.lseek(handle, 0, os.SEEK_SET)
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return False if error.errno in HELD_BY_OTHERS else None
    return True


def take(path: Path) -> int | None:
    """Make a file and lock it: its handle, to be kept open; None where that cannot be.

    Another process may find it in the moment before it is locked, and take it away: then it is made again.
    """
    for _ in range(3):
        with suppress(OSError):
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
            if try_lock(handle) and _is_still(path, handle):
                return handle
            os.close(handle)
    return None


def _is_still(path: Path, handle: int) -> bool:
    """Whether an open file is the one of its name."""
    with suppress(OSError):
        return os.path.samestat(os.fstat(handle), path.stat())
    return False
