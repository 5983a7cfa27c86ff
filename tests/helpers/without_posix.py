"""The pack as Windows would have it: what only POSIX has is taken from it, and from nobody else.

``LORA_FOUNDRY_WITHOUT_POSIX=1 pytest ...`` runs any tests so: ``os`` and ``sys`` are stand-ins in the pack's own files
that call themselves Windows, its locks go through ``msvcrt``, and ``fcntl`` and ``resource`` are not there. The file
system stays what it is, so an open file can be replaced all the same.
"""

from __future__ import annotations

import builtins
import fcntl
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

GONE = {"fcntl", "resource", "pwd", "grp", "termios"}
POSIX_ONLY = {
    *("pread", "pwrite", "preadv", "pwritev", "copy_file_range", "posix_fadvise", "posix_fallocate"),
    *("fstatvfs", "statvfs", "sysconf", "getloadavg", "fork", "forkpty", "getuid", "geteuid", "getgid"),
    *("getegid", "mkfifo", "mknod", "chown", "lchown", "fchown", "fchmod", "sendfile", "killpg", "setsid"),
    *("getpgid", "nice", "uname", "wait", "waitid", "sched_getaffinity", "sync", "fdatasync", "lockf"),
    *("getxattr", "setxattr", "listxattr", "memfd_create", "splice", "POSIX_FADV_DONTNEED", "O_NONBLOCK"),
    *("O_DIRECTORY", "O_NOFOLLOW", "O_CLOEXEC", "O_SYNC"),
}  # fmt: skip


class Standin(ModuleType):
    """A module that is another one, but for what is set on it and what it lacks."""

    def __init__(self, module: ModuleType, lacks: set[str], **other: object) -> None:
        super().__init__(module.__name__)
        self.__dict__["_module"], self.__dict__["_lacks"] = module, lacks
        self.__dict__.update(other)

    def __getattr__(self, name: str) -> Any:
        if name in self.__dict__["_lacks"]:
            raise AttributeError(f"{self.__name__} has no '{name}' on Windows")
        return getattr(self.__dict__["_module"], name)


def locking(handle: int, mode: int, size: int) -> None:
    """As ``msvcrt.locking``: of bytes from where the file stands, refused where another holds them."""
    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


class Registry:
    """As ``winreg``, on a machine with long paths switched on."""

    HKEY_LOCAL_MACHINE = 0

    @staticmethod
    def OpenKey(root: int, path: str) -> Any:
        """A key to be used as a ``with`` block."""
        return Path(os.devnull).open("rb")

    @staticmethod
    def QueryValueEx(key: Any, name: str) -> tuple[int, int]:
        """(value, kind)."""
        return 1, 4


STANDINS: Mapping[str, Any] = {
    "os": Standin(os, POSIX_ONLY, name="nt"),
    "sys": Standin(sys, set(), platform="win32"),
    "msvcrt": SimpleNamespace(locking=locking, LK_NBLCK=2),
    "winreg": Registry,
}


def take_away(package: str) -> None:
    """From here on, imports in the files of ``package`` get the stand-ins."""
    real = builtins.__import__

    def imported(name: str, globals: Any = None, locals: Any = None, fromlist: Any = (), level: int = 0) -> Any:
        if level == 0 and str((globals or {}).get("__name__", "")).partition(".")[0] == package:
            if name in GONE:
                raise ImportError(f"No module named '{name}'")
            if name in STANDINS:
                return STANDINS[name]
        return real(name, globals, locals, fromlist, level)

    builtins.__import__ = imported
