"""The file of an address as a file of this machine: from the cache where it is still what the server has."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ...engine.errors import FoundryError
from ...engine.findings import Finding
from ...engine.texts.say import refuse, say
from ..disk.store import Store, key_of
from .allowed import require_allowed
from .beside import bring_config
from .cache import Cache
from .names import Remote
from .objects import Asking, Facts, server_of, tell
from .opening import object_of
from .workers import patiently

INDEX = Store("remote", most=4096)  # server and address -> [etag, size, sha256] of what was loaded last
SOON = 3.0  # seconds in which a server says whether a file changed; a prompt waits for it, deaf to Cancel


@dataclass(frozen=True)
class Fetched:
    """A file that is here now; ``name`` is what it is called where it comes from, ``notes`` what is said of it."""

    path: Path
    name: str
    notes: tuple[Finding, ...] = ()


def fetch(remote: Remote, asking: Asking) -> Fetched:
    """The file of an address, from the cache where it is still what the server has.

    An address with a hash is not asked for again once its file is here. Where the server cannot be asked, the last
    copy serves, and a note says so. Raises FoundryError ``remote``, and what ``asking.on_bytes`` raises.
    """
    cache = Cache.of(os.environ)
    if asking.strict:
        require_allowed(remote)
    if remote.sha256 and (path := cache.find(remote.sha256)):
        return Fetched(path, remote.file)
    found = object_of(remote, asking)
    key, known = _key(remote), _known(remote)
    try:
        facts = patiently(found.facts, partial(tell, asking, remote, 0, 0))
    except FoundryError as error:
        path = cache.find(known.sha256) if known and error.text == "remote.unreachable" else None
        if path is None or (known and remote.sha256 not in ("", known.sha256)):
            raise
        note = say("remote.offline", name=remote.url, reason=dict(error.values)["reason"])
        return Fetched(path, remote.file, (note,))
    pulse = partial(tell, asking, remote, 0, facts.size)
    with cache.turn(key, pulse):
        known = _known(remote)  # another process may have been faster
        sha256 = facts.sha256 or (known.sha256 if known and known.is_of(facts) else "")
        path = cache.find(sha256) if sha256 else None
        if path is None:
            path, sha256 = cache.store(found, facts, key, asking)
        if known is None or not known.is_of(facts):
            patiently(partial(bring_config, remote, path.parent, asking), pulse)
        INDEX.put(key, [facts.etag, facts.size, sha256])
    return Fetched(path, remote.file)


def cached(remote: Remote) -> Path | None:
    """The copy that is here already, without asking whether it is still what the server has; nothing is sent."""
    known = _known(remote)
    sha256 = remote.sha256 or (known.sha256 if known else "")
    return Cache.of(os.environ).find(sha256) if sha256 else None


def state_of(remote: Remote, asking: Asking) -> str:
    """What changes when the file elsewhere is replaced; of a server that does not answer soon, what was there last.

    It is asked in vain again when the file is fetched: that says why, and can be cancelled.
    """
    if remote.sha256:
        return remote.sha256
    try:
        found = object_of(remote, asking)
    except FoundryError as error:
        return error.text
    try:
        facts = patiently(found.facts, partial(_hurry, remote, time.monotonic() + SOON))
    except FoundryError as error:
        known = _known(remote)
        return f"{known.etag}:{known.size}" if known and error.text == "remote.unreachable" else error.text
    return f"{facts.etag}:{facts.size}"


def _hurry(remote: Remote, end: float) -> None:
    if time.monotonic() > end:
        raise refuse("remote.unreachable", name=remote.url, reason="it took too long")


@dataclass(frozen=True)
class _Known:
    """What an address held when it was loaded last."""

    etag: str
    size: int
    sha256: str

    @classmethod
    def of(cls, entry: Any) -> _Known | None:
        """An entry of the index; None for anything else."""
        if isinstance(entry, list) and [type(part) for part in entry] == [str, int, str]:
            return cls(*entry)
        return None

    def is_of(self, facts: Facts) -> bool:
        """Whether that is what is there now; without an etag nobody knows."""
        return bool(facts.etag) and (self.etag, self.size) == (facts.etag, facts.size)


def _key(remote: Remote) -> str:
    return key_of(server_of(remote), remote.url)


def _known(remote: Remote) -> _Known | None:
    return _Known.of(INDEX.get(_key(remote)))
