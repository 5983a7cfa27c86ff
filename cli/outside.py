"""``-o s3://...``: results are made in a folder of this machine and sent; only what was sent whole is there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..engine.texts.say import refuse
from .terminal import Transfers

if TYPE_CHECKING:
    from ..loaders.documents.document import Document
    from ..loaders.remote.names import Remote


class Place:
    """Where results go: ``out`` on this machine. ``lasts``: the next bake finds them there."""

    lasts = True

    def __init__(self, out: Path) -> None:
        self.out = out

    def called(self, path: Path) -> str:
        """What a result is called for who asked for it."""
        return str(path)

    def refuse_inputs(self, documents: Sequence[Document], outs: Sequence[Path], sharded: bool = False) -> None:
        """FoundryError for a result, or a shard of it, in the place of something elsewhere that a document reads."""

    def publish(self) -> None:
        """Bring results to where they are wanted."""


class Elsewhere(Place):
    """A bucket, or a folder of it; ``work`` is where results are made."""

    lasts = False

    def __init__(self, address: str, remote: Remote, work: Path) -> None:
        self._folder, _, name = address.rpartition("/")
        self._remote, self._work = remote, work
        super().__init__(work / name if name else work)

    def called(self, path: Path) -> str:
        """Its address."""
        return f"{self._folder}/{path.name}"

    def refuse_inputs(self, documents: Sequence[Document], outs: Sequence[Path], sharded: bool = False) -> None:
        """FoundryError ``usage``."""
        from ..loaders.disk.sharding import is_part
        from ..loaders.documents.paths import objects_of

        folder = self._object("").url
        read = {each.url.removeprefix(folder): each for document in documents for each in objects_of(document)}
        for out in outs:
            for name in read:  # what lies anywhere else keeps its whole address
                if name == out.name or (sharded and is_part(out, name)):
                    raise refuse("usage.input", out=self.called(out), file=name)

    def publish(self) -> None:
        """Send all that was made, an index last: who sees it finds its shards."""
        from ..loaders.remote.uploads import upload

        with Transfers() as transfers:
            for path in sorted(self._work.iterdir(), key=lambda path: (path.suffix == ".json", path.name)):
                upload(path, self._object(path.name), transfers)

    def _object(self, name: str) -> Remote:
        folder, slash, _ = self._remote.key.rpartition("/")
        return replace(self._remote, key=f"{folder}{slash}{name}")


@contextmanager
def place_of(out: Path | str) -> Iterator[Place]:
    """The place that ``-o`` names. FoundryError ``remote`` for a bucket that cannot be written to, before any work."""
    if isinstance(out, Path):
        yield Place(out)
        return
    from ..loaders.remote.names import parse_remote
    from ..loaders.remote.uploads import require_writable
    from ..loaders.remote.workshop import sweep_workshops, workshop

    remote = parse_remote(f"{out}model.safetensors" if out.endswith("/") else out)
    require_writable(remote)
    sweep_workshops()
    with workshop() as work:
        yield Elsewhere(out, remote, work)
