"""What a file can be called: here, and on the machines that a shared workflow comes to."""

from __future__ import annotations

import os
import sys
from pathlib import Path

LONGEST = 255  # bytes of one name, on every file system in use
RESERVED = {"con", "prn", "aux", "nul", *(f"{port}{i}" for port in ("com", "lpt") for i in range(1, 10))}
FORBIDDEN = '<>:"|?*'  # Windows
SHORT_PATH, LONG_PATH = 259, 32_000  # characters of a whole path on Windows, and where long paths are switched on
_LONG_PATHS = r"SYSTEM\CurrentControlSet\Control\FileSystem"


def name_fault(name: str, windows: bool = os.name == "nt", room: int = 0) -> str:
    """Why no file can have this name, in words; empty where one can. ``room``: bytes that are added to it."""
    if any(ord(char) < 32 for char in name):
        return "it holds a control character"
    try:
        size = len(name.encode("utf-8"))
    except UnicodeEncodeError:
        return "it holds half a character (a lone surrogate)"
    if size + room > LONGEST:
        return f"it has {size} bytes, and {LONGEST - room} are the limit"
    return _windows_fault(name) if windows else ""


def plain_fault(name: str, suffix: str) -> str:
    """Why nothing that is kept in a folder of ours can be called so, on any system; a name is not a path."""
    if not name:
        return "it is empty"
    if set(name) & set('/\\:*?"<>|') or name.strip(". ") != name:
        return "it names no folder and no file"
    return name_fault(name + suffix, windows=True)


def prefix_fault(prefix: str, windows: bool = os.name == "nt") -> str:
    """The same of a path below a folder; what ComfyUI adds to its last part (a number, the ending) fits."""
    if len(prefix) > 4 * LONGEST:
        return f"it has {len(prefix)} characters"
    faults = (name_fault(part, windows, ADDED) for part in prefix.replace("\\", "/").split("/"))
    return next(filter(None, faults), "")


def path_fault(path: Path, windows: bool = os.name == "nt", most: int | None = None) -> str:
    """Why no file can be written there for the length of its path, in words; empty where one can.

    ``path`` is the longest that is needed, a hidden name too. ``most``: characters, None: what this Windows takes.
    """
    if not windows:
        return ""
    most = _most_on_windows() if most is None else most
    length = len(str(path.absolute()))
    if length <= most:
        return ""
    return f"with the hidden name it is written under, its path has {length} characters, and Windows takes {most} here"


def _most_on_windows() -> int:
    """259 characters, unless the owner of the machine switched long paths on."""
    if sys.platform == "win32":
        import winreg

        try:
            with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, _LONG_PATHS) as key:
                return LONG_PATH if winreg.QueryValueEx(key, "LongPathsEnabled")[0] == 1 else SHORT_PATH
        except OSError:
            return SHORT_PATH
    return SHORT_PATH


def _windows_fault(name: str) -> str:
    if name.partition(".")[0].strip().lower() in RESERVED:
        return "it is the name of a device"
    if bad := next((char for char in name if char in FORBIDDEN), ""):
        return f"it holds a '{bad}'"
    return "it ends in a dot or a blank" if name[-1:] in (".", " ") and name.strip(".") else ""


ADDED = len("_99999_steps_00001_-00001-of-00999.safetensors.index.json")
