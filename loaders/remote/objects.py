"""What every store of files elsewhere can do, and who asks for them."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from .names import HUB, S3, Remote

ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")  # of S3; without one it is Amazon's
# (file, bytes done, bytes in all; 0: not known yet), five times a second; it may raise to cancel.
Transfer = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Asking:
    """Who asks for files: ``strict`` for a workflow, which may name only what the owner allows.

    ``on_bytes`` is told how far a transfer is.
    """

    strict: bool = False
    on_bytes: Transfer | None = None


ANYTHING = Asking()  # the user at the terminal


@dataclass(frozen=True)
class Facts:
    """One state of a file: size in bytes, what tells it from another state (``etag``), and its hash where known.

    ``sha256`` is of the whole file, ``md5`` too; empty where the server does not tell.
    """

    size: int
    etag: str
    sha256: str = ""
    md5: str = ""


class RemoteObject(Protocol):
    """A file elsewhere. Every fault is a FoundryError ``remote`` without a secret in its text."""

    remote: Remote

    def facts(self) -> Facts:
        """Ask for its state now."""

    def read(self, begin: int, end: int, facts: Facts) -> memoryview:
        """Bytes ``begin`` to ``end`` of just that state, all of them. May be called by several threads."""


def server_of(remote: Remote, environment: Mapping[str, str] = os.environ) -> str:
    """What tells the server of an address from another one with a file of the same name: what the environment names."""
    named = ENDPOINTS if remote.scheme == S3 else ("HF_ENDPOINT",) if remote.scheme == HUB else ()
    return next((value for name in named if (value := environment.get(name, "").strip())), "")


def tell(asking: Asking, remote: Remote, done: int, size: int) -> None:
    """How far a file is, for who asked for it."""
    if asking.on_bytes is not None:
        asking.on_bytes(remote.file, done, size)
