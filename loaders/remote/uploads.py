"""Results sent to a bucket in parts: an object is there when all of it is, and not after a failure or Ctrl-C."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import TimeoutError as NotYet
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from ...engine.errors import FoundryError
from ...engine.texts.say import refuse
from .names import S3, Remote
from .objects import Facts, Transfer
from .s3 import S3Object, open_bucket, s3_errors
from .workers import patiently, wait, workers

PART, MOST_PARTS = 16 << 20, 9000  # bytes of a part at least; S3 takes 10,000 of them
AT_ONCE = 4
PATIENCE = 10.0  # seconds for what was begun to be taken back


class _Stopped(Exception):
    """Ends an upload from within: what was sent is taken back."""


def require_writable(remote: Remote) -> None:
    """Begin an upload and take it back, so that what would be refused is refused before an hour of work.

    Raises FoundryError ``remote``; also for an address that is no bucket's.
    """
    if remote.scheme != S3:
        raise refuse("remote.no_upload", name=remote.url)
    store = open_bucket(remote)

    def nothing() -> Iterator[bytes]:
        raise _Stopped
        yield b""

    try:
        patiently(partial(_put, store, remote, nothing(), PART), lambda: None)
    except FoundryError as error:
        if error.text != "remote.stopped":
            raise


def upload(path: Path, remote: Remote, on_bytes: Transfer | None = None) -> Facts:
    """Send a file; how it looks there: by the ETag of what was sent, for another may have written since.

    ``on_bytes`` is told how far it is and may raise to stop.

    Of what is stopped, or fails, nothing stays on the server; only where its last parts are on their way already it may
    be there whole. Raises FoundryError ``remote``, or ``file`` where it cannot be read here.
    """
    from ..disk.header import disk_errors, regular_file

    size, store = regular_file(path).st_size, open_bucket(remote)
    part = max(PART, -(-size // MOST_PARTS))
    sent, over, unread = 0, threading.Event(), list[OSError]()

    def pieces() -> Iterator[bytes]:
        nonlocal sent
        try:
            with path.open("rb") as file:
                while piece := file.read(part):
                    if over.is_set():
                        raise _Stopped
                    yield piece
                    sent += len(piece)
        except OSError as error:  # of this machine: the server has no part in it
            unread.append(error)
            raise _Stopped from error

    def pulse() -> None:
        if on_bytes is not None:
            on_bytes(remote.file, sent, size)

    with disk_errors(path), workers(1) as threads:
        sending = threads.submit(partial(_put, store, remote, pieces(), part))
        try:
            etag = wait(sending, pulse)
        except FoundryError:
            if unread:
                raise unread[0] from None
            raise
        finally:
            over.set()
            with suppress(NotYet):
                sending.exception(timeout=PATIENCE)
    there = patiently(S3Object(remote).facts, pulse)
    if there.size != size:
        raise refuse("remote.upload_size", name=remote.url, there=there.size, size=size)
    return replace(there, etag=etag) if etag else there


def _put(store: Any, remote: Remote, pieces: Iterator[bytes], part: int) -> str:
    """The ETag that the server gave to what was sent; empty where it gave none."""
    import obstore

    try:
        with write_errors(remote):
            how: Any = {"use_multipart": True, "chunk_size": part, "max_concurrency": AT_ONCE}
            return obstore.put(store, remote.key, pieces, **how)["e_tag"] or ""
    except _Stopped as error:
        raise refuse("remote.stopped", name=remote.url) from error


@contextmanager
def write_errors(remote: Remote) -> Iterator[None]:
    """``s3_errors`` of what is written: who may not is told so."""
    try:
        with s3_errors(remote):
            yield
    except FoundryError as error:
        if error.text == "remote.denied":
            raise refuse("remote.denied_write", name=remote.url) from error
        raise
