"""A folder of a bucket as a place of small texts: listed, and many of them read at once. Imports nothing slow."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import TypeVar

from ...engine.errors import FoundryError
from ...engine.texts.say import refuse
from .names import S3, Remote, masked, parse_remote
from .objects import Facts
from .s3 import S3Object, open_bucket, s3_errors
from .uploads import write_errors
from .workers import patiently, wait, workers

AT_ONCE = 16  # requests under way: each is small
MOST = 4 << 20  # bytes of a text; the rest of a larger one is not read
NOTHING = ("remote.no_file", "remote.empty")
T = TypeVar("T")


class BucketFolder:
    """What lies under ``s3://bucket/folder/``. Nothing is sent before it is asked for; faults are FoundryErrors."""

    def __init__(self, address: str) -> None:
        """``address`` with its slash at the end."""
        if address.partition("://")[0].lower() != S3:
            raise refuse("remote.no_upload", name=masked(address))
        some = parse_remote(f"{address}model.safetensors")
        self._some, self._store = some, open_bucket(some)
        self._prefix = some.key.rpartition("/")[0]

    def object(self, name: str) -> Remote:
        """The object of a name in this folder, or in a folder of it."""
        return replace(self._some, key=f"{self._prefix}/{name}".lstrip("/"))

    def listed(self, folder: str = "") -> list[str]:
        """What lies in ``folder`` (here, or one that ends in a slash), by its name from here; not what lies below."""
        import obstore

        where = self.object(folder)

        def ask() -> list[str]:
            with s3_errors(where):
                found = obstore.list_with_delimiter(self._store, where.key.rstrip("/") or None)
            return [f"{folder}{str(each['path']).rpartition('/')[2]}" for each in found["objects"]]

        try:
            return patiently(ask, _nothing)
        except FoundryError as error:
            if error.text == "remote.denied":
                raise refuse("remote.denied_list", name=where.url) from error
            raise

    def texts(self, names: Iterable[str]) -> dict[str, str]:
        """The texts of these names; empty for one that is not there."""
        return self._each(list(names), self._text)

    def states(self, names: Iterable[str]) -> dict[str, Facts | None]:
        """Size and ETag of these names; None for one that is not there."""
        return self._each(list(names), self._state)

    def put(self, name: str, text: str) -> None:
        """Write a text, whole or not at all."""
        import obstore

        where = self.object(name)

        def send() -> None:
            with write_errors(where):
                obstore.put(self._store, where.key, text.encode(), use_multipart=False)

        patiently(send, _nothing)

    def _each(self, names: Sequence[str], ask: Callable[[str], T]) -> dict[str, T]:
        if not names:
            return {}
        with workers(min(AT_ONCE, len(names))) as threads:
            coming = [threads.submit(partial(ask, name)) for name in names]
            return {name: wait(each, _nothing) for name, each in zip(names, coming, strict=True)}

    def _text(self, name: str) -> str:
        import obstore

        where = self.object(name)
        try:
            with s3_errors(where):
                found = obstore.get(self._store, where.key, options={"range": (0, MOST)})
                return bytes(found.bytes()).decode(errors="replace")
        except FoundryError as error:
            if error.text not in NOTHING:
                raise
            return ""

    def _state(self, name: str) -> Facts | None:
        try:
            return S3Object(self.object(name), self._store).facts()
        except FoundryError as error:
            if error.text not in NOTHING:
                raise
            return None


def _nothing() -> None:
    """Ctrl-C is heard while something is waited for."""
