"""LoRAs from elsewhere, each whole in one folder of this machine under the hash of its contents.

One that may have a config beside it is kept for its address alone: equal weights elsewhere may have another scale.
A file is there only once it is complete and checked. What is not complete lies beside, is locked by who loads it, and
is gone on with by the next one, whatever ended the first.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from ...engine.errors import FoundryError
from ...engine.texts.say import refuse
from ..disk.hashes import file_sha256
from ..disk.header import disk_errors, read_header
from ..disk.home import home
from ..disk.locks import try_lock
from ..disk.sharding import parse_size
from ..disk.store import key_of
from ..disk.temps import remove, sync_file, temporary
from ..disk.writer import writing
from .beside import CONFIG_FILE, may_have_config
from .names import Remote
from .objects import Asking, Facts, RemoteObject, server_of, tell
from .workers import wait, workers

FOLDER, LIMIT, USUAL = "LORA_FOUNDRY_REMOTE_CACHE", "LORA_FOUNDRY_REMOTE_CACHE_SIZE", "50GB"
RANGE, AT_ONCE = 4 << 20, 4  # bytes of one request, and how many are under way
IN_USE = 3600.0  # seconds after its last use in which nothing is evicted
FILE = "lora.safetensors"
_PLACE = re.compile("[0-9a-f]{64}")
_PART = re.compile(r"[0-9a-f]{64}\.safetensors")  # and no lock, which somebody may hold for hours
Pulse = Callable[[], None]


class Cache:
    """Checked files in ``folder``, together at most ``limit`` bytes; the least recently used make room.

    What was used within the last hour stays, whatever the limit: a plan may be about to read it.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder, self.limit, self.parts = folder, limit, folder / "parts"

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Cache:
        """The one that the environment names, else in this pack's home."""
        named = environment.get(FOLDER, "")
        return cls(Path(named) if named else home() / "remote", parse_size(environment.get(LIMIT) or USUAL))

    def find(self, sha256: str, remote: Remote) -> Path | None:
        """The file with these contents, marked as used; a damaged one is removed."""
        path = self._place(sha256, remote) / FILE
        try:
            if not path.is_file():
                return None
            if file_sha256(path) != sha256:
                remove(path)
                return None
        except (OSError, FoundryError):
            return None
        with suppress(OSError):
            os.utime(path.parent)
        return path

    @contextmanager
    def turn(self, key: str, pulse: Pulse) -> Iterator[None]:
        """One process at a time for each address; ``pulse`` is called while another one is at it."""
        with disk_errors(self.parts):
            self.parts.mkdir(parents=True, exist_ok=True)
        lock = self.parts / f"{key}.lock"
        handle = _locked(lock, pulse)
        try:
            yield
        finally:
            if os.name != "nt":  # only closed files can be removed there
                remove(lock)
            os.close(handle)
            if os.name == "nt":
                remove(lock)

    def store(
        self, found: RemoteObject, facts: Facts, key: str, asking: Asking, config: bytes | None
    ) -> tuple[Path, str]:
        """(the file, its sha256) after it was loaded and checked; a part that was loaded before is gone on with.

        ``config`` comes to lie beside it.
        """
        name = found.remote.url
        if facts.size > self.limit:
            values = {"size": _gigabytes(facts.size), "limit": _gigabytes(self.limit), "variable": LIMIT}
            raise refuse("remote.cache_small", name=name, **values)
        part = self.parts / f"{key_of(key, facts.etag or facts.sha256, facts.size)}.safetensors"
        had = _size(part) if facts.etag or facts.sha256 else 0
        if had > facts.size or not had:
            remove(part)
            had = 0
        self._make_room(name, facts.size, part)
        try:
            self._complete(found, facts, part, asking)
            sha256 = _checked(found.remote, facts, part)
        except FoundryError as error:
            if error.text in ("remote.damaged", "remote.another", "remote.no_model"):
                remove(part)
                if had:  # by a power cut, or another writer: once more from the start
                    return self.store(found, facts, key, asking, config)
            raise
        return self._publish(part, self._place(sha256, found.remote), config), sha256

    def keep_beside(self, place: Path, config: bytes | None) -> None:
        """Put a config into the folder of its LoRA, or take away what is no longer there. FoundryError ``file``."""
        if config is None:
            remove(place / CONFIG_FILE)
            return
        with writing(place / CONFIG_FILE, len(config)):
            place.mkdir(exist_ok=True)
            with temporary(place) as temp:
                temp.write_bytes(config)
                temp.replace(place / CONFIG_FILE)

    def _place(self, sha256: str, remote: Remote) -> Path:
        alone = may_have_config(remote)
        return self.folder / (key_of(sha256, server_of(remote), remote.url) if alone else sha256)

    def _complete(self, found: RemoteObject, facts: Facts, part: Path, asking: Asking) -> None:
        """Append what is missing, in order, so that the length of the part says how far it is."""
        done, size = _size(part), facts.size
        asked = done
        coming: deque[Future[memoryview]] = deque()

        def pulse() -> None:
            tell(asking, found.remote, done, size)

        try:
            with workers(AT_ONCE) as threads, writing(part, size), part.open("ab", buffering=0) as file:
                while done < size:
                    while asked < size and len(coming) < AT_ONCE:
                        end = min(asked + RANGE, size)
                        coming.append(threads.submit(partial(found.read, asked, end, facts)))
                        asked = end
                    rest = wait(coming.popleft(), pulse)
                    while rest:
                        count = file.write(rest)
                        rest, done = rest[count:], done + count
                    pulse()
                sync_file(file.fileno())
        except FoundryError as error:
            if error.code == "file":  # a full disk is not left fuller
                remove(part)
            raise

    def _publish(self, part: Path, place: Path, config: bytes | None) -> Path:
        self.keep_beside(place, config)  # first: once the file is there nobody asks for it
        with writing(place / FILE, _size(part)):
            place.mkdir(exist_ok=True)
            part.replace(place / FILE)
            os.utime(place)
        return place / FILE

    def _make_room(self, name: str, size: int, part: Path) -> None:
        """Evict the least recently used until this file fits, and refuse what the disk has no room for."""
        there = sorted(self._evictable(part), key=lambda each: each[0])
        excess = sum(size for _, size, _ in there) + size - self.limit
        now = time.time()
        for used, freed, path in there:
            if excess > 0 and now - used > IN_USE:
                remove(path)
                excess -= freed
        with disk_errors(self.folder):
            free = shutil.disk_usage(self.folder).free + _size(part)
        if free < size:
            values = {"size": _gigabytes(size), "free": _gigabytes(free), "variable": FOLDER}
            raise refuse("remote.disk", name=name, folder=self.folder.name, **values)

    def _evictable(self, part: Path) -> Iterator[tuple[float, int, Path]]:
        """(last use, bytes, path) of every entry and every part but this one."""
        for folder, ours in ((self.folder, _PLACE.fullmatch), (self.parts, _PART.fullmatch)):
            with suppress(OSError):
                for path in list(folder.iterdir()):
                    with suppress(OSError):  # another process was faster: the others count all the same
                        if ours(path.name) and path != part:
                            yield path.stat().st_mtime, _size(path / FILE) or _size(path), path


def _locked(lock: Path, pulse: Pulse) -> int:
    """A handle of the lock file, once nobody else holds it; on a drive without locks at once."""
    while True:
        with disk_errors(lock):
            handle = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
        taken = try_lock(handle)
        with suppress(OSError):
            if taken is None or (taken and os.path.samestat(os.fstat(handle), lock.stat())):
                return handle
        os.close(handle)
        pulse()
        time.sleep(0.1)


def _checked(remote: Remote, facts: Facts, part: Path) -> str:
    """The sha256 of a complete part that is what it has to be; FoundryError ``remote`` for any other."""
    sha256 = file_sha256(part)
    if facts.sha256 and sha256 != facts.sha256:
        raise refuse("remote.another", name=remote.url, sha256=sha256, wanted=facts.sha256)
    if not facts.sha256 and facts.md5 and _md5(part) != facts.md5:
        raise refuse("remote.damaged", name=remote.url)
    try:
        read_header(part)
    except FoundryError as error:
        raise refuse("remote.no_model", name=remote.url, seen=error.what.partition(" ")[2].rstrip(".")) from error
    return sha256


def _md5(path: Path) -> str:
    with disk_errors(path), path.open("rb") as file:
        digest = hashlib.md5(usedforsecurity=False)
        while piece := file.read(RANGE):
            digest.update(piece)
    return digest.hexdigest()


def _size(path: Path) -> int:
    with suppress(OSError):
        return path.stat().st_size if path.is_file() else 0
    return 0


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:,.2f} GB"
