"""Hidden names for what is not finished yet, and the sweeping up after a process that was killed.

A name tells whose it is: host, process, the boot of the machine, the PID namespace and the start of the process. While
a process has something under such a name, it holds a lock on a hidden file beside it; what can be locked by another is
nobody's. A number of a process says nothing, for another machine or container of the same name has the same ones.
"""

from __future__ import annotations

import errno
import os
import platform
import re
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache, partial
from pathlib import Path

from .drives import is_local
from .locks import take, try_lock
from .process import PROCESS

# What some network drives and containers' mounts answer.
NO_SYNC = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)
FORGOTTEN = 2 * 24 * 3600  # seconds after which even the unfinished work of an unknown process is nobody's
HOST = re.sub(r"\W", "", platform.node())[:32] or "here"
_OWNED = re.compile(r"\.lora_foundry-(?P<owner>(?P<host>\w+)-(?P<pid>\d+)-(?P<boot>\w+)-(?P<start>\w+))-\w+\.tmp")
_LOCK = re.compile(r"\.lora_foundry-(?P<owner>\w+-\d+-\w+-\w+)\.lock")
_FORMER = re.compile(r"\.lora_foundry-\w+-\d+-\w+\.tmp")  # of older versions, which locked nothing
_PROC = Path("/proc")


@contextmanager
def temporary(folder: Path) -> Iterator[Path]:
    """A new hidden name in ``folder`` for a file or a folder; what is still under it when the block ends is removed."""
    path = hidden(folder)
    with claimed(folder):
        try:
            yield path
        finally:
            remove(path)
            PROCESS.temps.discard(path.name)


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """While the block runs, no other process takes what this one has under hidden names in ``folder``."""
    lock, claims = folder / lock_name(owner()), PROCESS.claims
    with PROCESS.claims_lock:
        handle, count = claims.get(lock, (None, 0))
        claims[lock] = (take(lock) if handle is None else handle), count + 1
    try:
        yield
    finally:
        with PROCESS.claims_lock:
            handle, count = claims.pop(lock)
            if count > 1:
                claims[lock] = handle, count - 1
            elif handle is not None:
                _let_go(lock, handle)


def hidden(folder: Path) -> Path:
    """A new hidden name in ``folder``, which is to be made and renamed in a ``claimed`` block."""
    name = hidden_name()
    PROCESS.temps.add(name)
    return folder / name


def hidden_name() -> str:
    """Such a name; all of a process are equally long."""
    return f".lora_foundry-{owner()}-{uuid.uuid4().hex[:12]}.tmp"


def owner() -> str:
    """What names of this process begin with; another one in a child that was forked off."""
    return _owner(os.getpid())


def lock_name(owner: str) -> str:
    """The hidden file that an owner holds a lock on."""
    return f".lora_foundry-{owner}.lock"


def sweep(folder: Path) -> None:
    """Remove what killed processes left under such names; what a living one works on stays, wherever that runs."""
    with suppress(OSError):
        owned: dict[str, list[Path]] = {}
        for path in list(folder.iterdir()):
            if match := _OWNED.fullmatch(path.name) or _LOCK.fullmatch(path.name):
                owned.setdefault(match["owner"], []).extend([path] if match.re is _OWNED else [])
            elif _FORMER.fullmatch(path.name) and _age(path) > FORGOTTEN:
                remove(path)
        for whose, paths in owned.items():
            if whose != owner():
                _sweep_of(folder, whose, paths)
            for path in paths if whose == owner() else ():
                if path.name not in PROCESS.temps:
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


def _sweep_of(folder: Path, whose: str, paths: list[Path]) -> None:
    """Remove what another process left, if nobody holds its lock."""
    lock = folder / lock_name(whose)
    handle: int | None = None
    with suppress(OSError):  # it could lock nothing here, or was killed after it let go
        handle = os.open(lock, os.O_RDWR)
    free = None if handle is None else try_lock(handle)
    try:
        if free is None:
            free = _is_gone(whose, paths)
        elif free and not _shares_locks(folder, whose):
            free = all(_age(path) > FORGOTTEN for path in paths)
        for path in (*paths, lock) if free else ():
            remove(path)
    finally:
        if handle is not None:
            os.close(handle)


def _shares_locks(folder: Path, whose: str) -> bool:
    """Whether a lock of that owner would be seen here: on one machine, or on a drive that can only be of one."""
    return _parts(whose)["boot"].split("_")[0] == _boot().split("_")[0] or is_local(folder)


def _is_gone(whose: str, paths: list[Path]) -> bool:
    """Without a lock to go by: the same boot and namespace know the process, else only age tells."""
    parts = _parts(whose)
    if os.name != "nt" and (parts["host"], parts["boot"]) == (HOST, _boot()) and _boot() != "x":
        return not is_alive(int(parts["pid"])) or _start(int(parts["pid"])) != parts["start"]
    return all(_age(path) > FORGOTTEN for path in paths)


def _parts(whose: str) -> dict[str, str]:
    match = _OWNED.fullmatch(f".lora_foundry-{whose}-x.tmp")
    return match.groupdict() if match else {}


def sync_file(handle: int) -> None:
    """Bring an open file to the disk; on a drive that knows no such thing it is as safe as it gets there."""
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in NO_SYNC:
            raise


def sync_folder(folder: Path) -> None:
    """Make the new name itself survive a power cut, where folders can be synced at all."""
    if os.name == "nt":
        return
    with suppress(OSError):  # some network drives refuse; the file is complete all the same
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _let_go(lock: Path, handle: int) -> None:
    """Take a lock away; what was written while it was held is not in doubt where the drive refuses that."""
    steps = (partial(os.close, handle), lock.unlink)
    for step in steps if os.name == "nt" else reversed(steps):  # only closed files can be removed there
        with suppress(OSError):
            step()


def _age(path: Path) -> float:
    """Seconds since a file, or any in a folder, was written to."""
    changed = 0.0
    with suppress(OSError):
        changed = path.lstat().st_mtime
        inside = path.iterdir() if path.is_dir() and not path.is_symlink() else ()
        changed = max([changed, *(each.lstat().st_mtime for each in inside)])
    return time.time() - changed


@cache
def _owner(pid: int) -> str:
    return f"{HOST}-{pid}-{_boot()}-{_start(pid)}"


@cache
def _boot() -> str:
    """The boot of this machine and the PID namespace, such that equal ones know the same processes; x: not told."""
    with suppress(OSError):
        boot = (_PROC / "sys/kernel/random/boot_id").read_text(encoding="ascii").replace("-", "")[:12]
        space = re.sub(r"\D", "", str((_PROC / "self/ns/pid").readlink()))
        return f"{boot}_{space}"
    return "x"


def _start(pid: int) -> str:
    """When a process began, in ticks since the boot; x where that is not told."""
    with suppress(OSError, IndexError):
        return (_PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[19]
    return "x"
