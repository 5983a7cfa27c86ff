"""For a process on a disk that fails (``fault_disk``): each work under each fault, and what came of it, as JSON.

All that is read and written is on that disk, the user's home too.
"""

from __future__ import annotations

import errno
import io
import json
import logging
import os
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from functools import partial
from pathlib import Path
from typing import Any

import torch
from attacks.test_kills import WRITERS, value_of
from attacks.test_kills_of_work import WORK, cached, digest, make_inputs, one_file
from fault_disk import Fault, Seen, failing
from lora_foundry.cli.main import main
from lora_foundry.cli.shared import write_text
from lora_foundry.engine.errors import FoundryError
from lora_foundry.loaders.bakes import rot
from lora_foundry.loaders.disk.hashes import file_hashes
from lora_foundry.loaders.disk.process import PROCESS
from lora_foundry.loaders.lineage import store
from lora_foundry.loaders.lineage.record import Record
from record_parts import IDS, claim

OLD, NEW = 1.0, 2.0
NEVER = 1 << 40  # a fault that does not come, to count what there is
CALLS = ("fsync", "rename", "create", "mkdir", "close")
SHORT = 7  # bytes that a call moves at most: less than the length before a header


def record(folder: Path, value: float) -> None:
    store.write(Record(IDS, str(value), "wan", (claim("train.sh"),)))


def recorded(folder: Path) -> object:
    path = store.place(Record(IDS, "", None))
    return json.loads(path.read_text())["name"] if path.exists() else None


def hashes(inputs: Path, folder: Path, value: float) -> None:
    """A small file of the command line's, of something that is read in large pieces."""
    write_text(folder / "told.json", json.dumps([value, *file_hashes(inputs / "base.safetensors")]))


def document(folder: Path, value: float) -> None:
    """A new file, which is never written over."""
    told = io.StringIO()
    with redirect_stdout(told), redirect_stderr(told):
        code = main(["init", "--base", "model.safetensors", "-o", str(folder / f"{value}.yaml")])
    if code:
        raise FoundryError("usage", told.getvalue())


def works(inputs: Path) -> dict[str, tuple[Callable[[Path, float], None], Callable[[Path], object]]]:
    """Name -> (what writes a value into a folder, what reads it back; None where nothing is there)."""
    found: dict[str, Any] = {name: (partial(work, inputs), digest) for name, work in WORK.items()}
    for name in ("a small file", "a stamp"):
        write, file = WRITERS[name]
        found[name] = (
            lambda folder, value, write=write, file=file: write(folder / file, value),
            lambda folder, file=file: value_of(folder / file),
        )
    found["a record"] = record, recorded
    found["a document"] = document, lambda folder: {each.name: each.read_text() for each in folder.glob("*.yaml")}
    found["hashes"] = partial(hashes, inputs), lambda folder: (folder / "told.json").read_text()
    return found


def faults(counts: dict[str, int]) -> Iterator[Fault]:
    """The faults of a work that moves so many bytes and makes so many calls."""
    for error in (errno.ENOSPC, errno.EIO, errno.EDQUOT):
        places = {0, 8, counts["write"] // 2, counts["write"] - 1} if error == errno.ENOSPC else {counts["write"] // 3}
        yield from (Fault("write", at, error) for at in sorted(places))
    yield from (Fault("read", at, errno.EIO) for at in sorted({0, 8, counts["read"] // 2, counts["read"] - 1}))
    for kind in CALLS:
        error = errno.ENOSPC if kind in ("create", "mkdir") else errno.EIO
        every = range(0, counts[kind], 1 + counts[kind] // 5)  # the small ones all, of a bake some of each kind
        yield from (Fault(kind, at, error, once=kind == "close") for at in every)
    yield Fault("short", SHORT)


def said(work: Callable[[], None]) -> str:
    """The sentence of a work that failed; with "raw" before it where it is none."""
    try:
        work()
    except FoundryError as error:
        return str(error) if str(error).replace("\n", "").isprintable() else f"raw: {str(error)!r}"
    except Exception:  # noqa: BLE001 (that is what is looked for)
        return "raw: " + traceback.format_exc(-3)
    return ""


def names_in(folder: Path) -> list[str]:
    """What lies beside the result: all files, and in home and cache those under hidden names."""
    listed = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return sorted(name for name in listed if not name.startswith(("home/", "cache/")) or "/." in name)


def settle() -> None:
    """Wait for who reads a cached result in the background, and writes down its hash."""
    for thread in threading.enumerate():
        if thread.name == "lora_foundry_rot":
            thread.join()


def under(disk: Path, work: str, write: Any, read: Any, fault: Fault, number: str) -> tuple[dict[str, Any], Seen]:
    """A work that follows an earlier one, under a fault."""
    folder = disk / number
    folder.mkdir()
    os.environ["LORA_FOUNDRY_HOME"] = str(folder / "home")
    write(folder, OLD)
    old, before = read(folder), names_in(folder)
    PROCESS.files.clear()  # all is read again
    with failing(disk, fault) as seen:
        sentence = said(lambda: write(folder, NEW))
    settle()
    found, left = read(folder), names_in(folder)
    told = {"work": work, **vars(fault), "hits": seen.hits, "said": sentence}
    return {**told, "state": "old" if found == old else found, "left": sorted({*left} - {*before})}, seen


def read_of(result: Path, inputs: Path, work: Callable[..., None]) -> int:
    """How much of an earlier result is read, up to the middle of the last weight that is taken from it."""
    PROCESS.files.clear()
    with failing(result, Fault("read", NEVER)) as seen:
        work(inputs, result.parent, OLD)
    work(inputs, result.parent, NEW)
    return seen.count - 512


def with_unreadable_result(disk: Path, inputs: Path, work: Callable[..., None], name: str) -> dict[str, Any]:
    """A bake that could take much from an earlier result, which the disk gives once, if at all, and no more."""
    new, old = disk / f"{name}, new", disk / f"{name}, old"
    new.mkdir()
    old.mkdir()
    work(inputs, new, NEW)
    work(inputs, old, OLD)
    result = old / "out.safetensors"
    if name == "in the cache":
        result.unlink()  # which would be looked at first
        (result,) = (old / "cache").glob("*/model.safetensors")
    most = result.stat().st_size if name == "in the cache" else read_of(new / result.name, inputs, work)
    PROCESS.files.clear()
    told, handler = list[str](), logging.Handler()
    handler.emit = lambda record: told.append(record.getMessage())
    rot.LOG.addHandler(handler)
    with failing(result, Fault("read", most, errno.EIO)) as seen:
        sentence = said(lambda: work(inputs, old, NEW))
    rot.LOG.removeHandler(handler)
    state = "new" if digest(old) == digest(new) else "old"
    return {
        "work": f"unreadable {name}",
        "kind": "read",
        "hits": seen.hits,
        "said": sentence,
        "state": state,
        "told": told,
    }


def run(disk: Path) -> None:
    """All works under all faults; prints a line of JSON for each."""
    torch.set_num_threads(1)
    inputs = make_inputs(disk / "inputs")
    for work, (write, read) in works(inputs).items():
        counts, new, left = {}, None, []
        for kind in ("write", "read", *CALLS):
            told, seen = under(disk, work, write, read, Fault(kind, NEVER), f"{work}, {kind}")
            counts[kind], new, left = seen.count, told["state"], told["left"]
        for number, fault in enumerate(faults(counts)):
            told, _ = under(disk, work, write, read, fault, f"{work}, {number}")
            told["state"] = "new" if told["state"] == new else told["state"]
            told["left"] = sorted({*told["left"]} - {*left}) if told["state"] == "new" else told["left"]
            sys.stdout.write(json.dumps(told) + "\n")
    for name, again in (("in the cache", cached), ("in its place", one_file)):
        sys.stdout.write(json.dumps(with_unreadable_result(disk, inputs, again, name)) + "\n")
