"""Where this pack keeps its small records: folders of the user's, never the pack's own.

What is under ``home`` may be deleted at any time, and a home that cannot be written to costs time, never a result.
What is under ``data_home`` people told us: it cannot be made again. Where a folder is named, the two are one.
"""

from __future__ import annotations

import json
import os
import sys
import time
import zlib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from .process import PROCESS
from .temps import sync_file, sync_folder, temporary

LOCKED_WHILE_OPEN = os.name == "nt"
PAUSES = (0.01, 0.03, 0.1, 0.3, 0.6)  # seconds between attempts
SYNCED = ("onedrive", "dropbox", "google drive", "googledrive", "icloud", "mobile documents", "nextcloud", "documents")
VARIABLE = "LORA_FOUNDRY_HOME"
# Platform -> the variable that names the folder, and where it is without one, below the user's own folder: by the
# platforms' conventions, of what can be made again (cache) and of what must last (data).
_CACHE = {
    "win32": ("LOCALAPPDATA", "AppData/Local"),
    "darwin": ("", "Library/Caches"),
    "other": ("XDG_CACHE_HOME", ".cache"),
}
_DATA = {
    "win32": ("APPDATA", "AppData/Roaming"),
    "darwin": ("", "Library/Application Support"),
    "other": ("XDG_DATA_HOME", ".local/share"),
}
NOWHERE = Path(os.devnull)  # for a user without a home folder: nothing can be read or written under it


def home() -> Path:
    """The folder: LORA_FOUNDRY_HOME, else what ``set_home`` named, else the user's cache folder. It need not exist."""
    return _named() or _user_folder(_CACHE, sys.platform, os.environ) / "lora-foundry"


def data_home() -> Path:
    """The same for what must last: without a named folder it is in the user's data folder. It need not exist."""
    return _named() or _user_folder(_DATA, sys.platform, os.environ) / "lora-foundry"


def is_synced(path: Path) -> bool:
    """Whether a folder is most likely copied to other machines, by the names above it: no place for gigabytes."""
    return any(part.lower().startswith(SYNCED) for part in path.absolute().parts)


def set_home(folder: Path | None) -> None:
    """Name the folder for this process, as ComfyUI's user folder; None goes back to the user's own folders."""
    PROCESS.home = None if folder is None else folder.absolute()


def keep(path: Path, text: str, lasting: bool = False) -> bool:
    """Write a small file so that readers see the old or the new one; False when the system refuses it.

    ``lasting``: it cannot be made again, so it is brought to the disk before it takes the old one's place.
    """
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary(path.parent) as temp:
            with temp.open("w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                if lasting:
                    sync_file(file.fileno())
            _put(temp, path)
        if lasting:
            sync_folder(path.parent)
        return True
    return False


def _put(temp: Path, path: Path) -> None:
    """Give a small file its name; on Windows again for a second: a reader or a virus scanner may hold the old one."""
    for pause in PAUSES if LOCKED_WHILE_OPEN else ():
        with suppress(PermissionError):
            temp.replace(path)
            return
        time.sleep(pause)
    temp.replace(path)


def recall(path: Path) -> str:
    """The text of a small file; empty when there is none to be had."""
    with suppress(OSError):
        return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""  # reading a pipe would hang
    return ""


def seal(data: Any, version: int = 0) -> str:
    """JSON data as one line of ASCII that begins with its checksum, so that damage and another version show."""
    text = json.dumps(data, separators=(",", ":"))
    return f"{zlib.crc32(text.encode(), version):08x} {text}"


def unseal(line: str, version: int = 0) -> Any:
    """The data of a sealed line; None when it is damaged, of another version or something else."""
    check, _, text = line.partition(" ")
    if check != f"{zlib.crc32(text.encode(), version):08x}":
        return None
    with suppress(ValueError, RecursionError):
        return json.loads(text)
    return None


def _named() -> Path | None:
    named = os.environ.get(VARIABLE)
    return Path(named).absolute() if named else PROCESS.home


def _user_folder(places: Mapping[str, tuple[str, str]], platform: str, environment: Mapping[str, str]) -> Path:
    try:
        user = Path.home()
    except RuntimeError:  # no home in the environment and none in the user database
        return NOWHERE
    variable, usual = places.get(platform, places["other"])
    named = environment.get(variable, "")
    relative = platform != "win32" and not Path(named).is_absolute()  # the XDG convention says to ignore those
    return user / usual if not named or relative else Path(named)
