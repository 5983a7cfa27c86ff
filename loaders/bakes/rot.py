"""Bits of cached results that a disk changed without a word: a file is read whole in the background of its first use.

Size, time and inode stay as they were, so only the hash tells. It is taken once for each state of a file while this
process runs; the first one ever taken is what later ones are compared with.
"""

from __future__ import annotations

import errno
import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path

from ...engine.errors import FoundryError
from ...engine.findings import Finding
from ...engine.texts.say import say
from ..disk.hashes import is_as_hashed
from ..disk.header import shown
from ..disk.process import PROCESS

KIND = "rot"  # what is remembered of a file: the answer, as a future
LOG = logging.getLogger("lora_foundry")


def looked_at(path: Path, throw_away: Callable[[], object]) -> Future[bool]:
    """Whether a file is what was written, as soon as that is known; one that is not is thrown away by then.

    Raises OSError for a file that is not there.
    """
    state = _state(path)
    found: Future[bool] | None = PROCESS.files.get(KIND, path, state)
    if found is None:
        found = PROCESS.files.put(Future[bool](), KIND, path, state)
        work = threading.Thread(target=_look, args=(path, found, throw_away), name="lora_foundry_rot", daemon=True)
        work.start()
    return found


def is_damaged(path: Path) -> bool:
    """Whether a file was found damaged in the state it has now; False while nobody knows."""
    try:
        found: Future[bool] | None = PROCESS.files.get(KIND, path, _state(path))
    except OSError:
        return False
    return found is not None and found.done() and not found.result()


def told() -> tuple[Finding, ...]:
    """What is to be said of results that were thrown away; each once."""
    found, PROCESS.rotten = tuple(PROCESS.rotten), []
    return found


def is_unreadable(path: Path) -> bool:
    """Whether the disk no longer gives all of an earlier result, which is told then; reads the file."""
    try:
        is_as_hashed(path)
    except FoundryError as error:
        if not is_broken(error):
            return False
        _tell(say("cache.earlier", subject=path.name, place=shown(str(path.parent))))
        return True
    return False


def _look(path: Path, answer: Future[bool], throw_away: Callable[[], object]) -> None:
    sound = True
    try:
        with PROCESS.reading_lock:  # one file at a time: they share a disk
            sound = is_as_hashed(path)
        if not sound:
            _throw_away(throw_away, say("cache.damaged", **_place(path)))
    except FoundryError as error:
        # Else it was replaced or evicted meanwhile: that state has an answer of its own.
        sound = not is_broken(error)
        if not sound:
            _throw_away(throw_away, say("cache.unreadable", **_place(path)))
    finally:
        answer.set_result(sound)


def _place(path: Path) -> dict[str, str]:
    return {"subject": path.parent.name, "place": shown(str(path.parent))}


def is_broken(error: FoundryError) -> bool:
    """Whether it is the disk that failed."""
    return isinstance(error.__cause__, OSError) and error.__cause__.errno == errno.EIO


def _throw_away(throw_away: Callable[[], object], finding: Finding) -> None:
    _tell(finding)
    throw_away()


def _tell(finding: Finding) -> None:
    """Now, and with the next result."""
    PROCESS.rotten = [*PROCESS.rotten, finding]
    LOG.warning(finding.sentence())


def _state(path: Path) -> tuple[int, int, int]:
    state = path.stat()
    return state.st_size, state.st_mtime_ns, state.st_ino
