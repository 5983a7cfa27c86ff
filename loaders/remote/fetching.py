"""The file of an address as a file of this machine: from the cache where it is still what the server has."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import wait as together
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ...engine.errors import FoundryError
from ...engine.findings import Finding
from ...engine.texts.say import say
from ..disk.process import PROCESS
from ..disk.store import Store, key_of
from .allowed import require_allowed
from .beside import config_beside
from .cache import Cache
from .names import HUB, Remote, Where
from .objects import Asking, Facts, server_of, tell
from .opening import object_of
from .workers import patiently, workers

INDEX = Store("remote", most=4096)  # server and address -> [etag, size, sha256] of what was loaded last
SOON = 3.0  # seconds in which a server says whether files changed; a prompt waits for it, deaf to Cancel
PROMPT, USUAL, AT_ONCE = 15.0, 0.2, 8  # seconds that all of its files share SOON in; of an answer; questions at once
PATIENCE = "patience"  # what is remembered of a server: (until when, seconds that are left of SOON)


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
    if remote.sha256 and (path := cache.find(remote.sha256, remote)):
        return Fetched(path, remote.file)
    found = object_of(remote, asking)
    key, known = _key(remote), _known(remote)
    try:
        facts = patiently(found.facts, partial(tell, asking, remote, 0, 0))
    except FoundryError as error:
        path = cache.find(known.sha256, remote) if known and error.text == "remote.unreachable" else None
        if path is None or (known and remote.sha256 not in ("", known.sha256)):
            raise
        note = say("remote.offline", name=remote.url, reason=dict(error.values)["reason"])
        return Fetched(path, remote.file, (note,))
    PROCESS.files.put((0.0, 0.0), PATIENCE, _server(remote))  # it answers again
    pulse = partial(tell, asking, remote, 0, facts.size)
    with cache.turn(key, pulse):
        known = _known(remote)  # another process may have been faster
        sha256 = facts.sha256 or (known.sha256 if known and known.is_of(facts) else "")
        path = cache.find(sha256, remote) if sha256 else None
        if path is None or known is None or not known.is_of(facts):
            config = patiently(partial(config_beside, remote, asking), pulse)
            if path is None:
                path, sha256 = cache.store(found, facts, key, asking, config)
            else:
                cache.keep_beside(path.parent, config)
        INDEX.put(key, [facts.etag, facts.size, sha256])
    return Fetched(path, remote.file)


def at_hand(where: Where, asking: Asking) -> Fetched:
    """A file of this machine as it is, one from elsewhere from the cache."""
    return fetch(where, asking) if isinstance(where, Remote) else Fetched(where, where.name)


def cached(remote: Remote) -> Path | None:
    """The copy that is here already, without asking whether it is still what the server has; nothing is sent."""
    known = _known(remote)
    sha256 = remote.sha256 or (known.sha256 if known else "")
    return Cache.of(os.environ).find(sha256, remote) if sha256 else None


def states_of(remotes: Iterable[Remote], asking: Asking) -> dict[Remote, str]:
    """What changes when a file elsewhere is replaced; of a server that does not answer soon, what was there last.

    All files of a prompt together wait for a server but once, also when they are asked for one by one. It is asked in
    vain again when a file is fetched: that says why, and can be cancelled.
    """
    found, servers = dict[Remote, str](), dict[str, list[Remote]]()
    for remote in dict.fromkeys(remotes):
        if remote.sha256:
            found[remote] = remote.sha256
        else:
            servers.setdefault(_server(remote), []).append(remote)
    for server, wanted in servers.items():
        found |= _states(server, wanted, asking)
    return found


def _states(server: str, remotes: Sequence[Remote], asking: Asking) -> dict[Remote, str]:
    """Of files on one server, asked for side by side, as long as there is patience left for it."""
    begun, (until, left) = time.monotonic(), _patience(server)
    if left <= 0:
        return {remote: _last(remote) for remote in remotes}
    with workers(min(AT_ONCE, len(remotes))) as threads:
        answers = [threads.submit(partial(_asked, remote, asking)) for remote in remotes]
        waiting = together(answers, timeout=left).not_done
    found = [None if answer in waiting else answer.result() for answer in answers]
    left = 0.0 if None in found else left - max(0.0, time.monotonic() - begun - USUAL)
    PROCESS.files.put((until, left), PATIENCE, server)
    return {remote: _last(remote) if state is None else state for remote, state in zip(remotes, found, strict=True)}


def _asked(remote: Remote, asking: Asking) -> str | None:
    """The state of a file as its server tells it, or why not; None where it does not answer."""
    try:
        facts = object_of(remote, asking).facts()
    except FoundryError as error:
        return None if error.text == "remote.unreachable" else error.text
    return f"{facts.etag}:{facts.size}"


def _last(remote: Remote) -> str:
    known = _known(remote)
    return f"{known.etag}:{known.size}" if known else "remote.unreachable"


def _patience(server: str) -> tuple[float, float]:
    """(until when, seconds that a server may take in all until then)."""
    now = time.monotonic()
    until, left = PROCESS.files.get(PATIENCE, server) or (now, 0.0)
    return (until, left) if now < until else (now + PROMPT, SOON)


def _server(remote: Remote) -> str:
    """What a server is known by here: a bucket without an endpoint has one of its own."""
    return f"{remote.scheme}:{server_of(remote) or ('' if remote.scheme == HUB else remote.place)}"


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
