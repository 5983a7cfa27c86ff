"""``lora-foundry batch``: many stack documents into a folder or bucket, by processes or machines, as far as need be."""

from __future__ import annotations

import argparse
import os
import time
import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..engine.errors import FoundryError
from ..engine.texts.say import refuse
from ..engine.units import size
from .bake import add_wishes, wishes_of
from .looks import room, tell
from .shared import DONE, STOPPED, choose_device, print_json
from .terminal import Bar, note, table

if TYPE_CHECKING:
    from ..engine.json_batch import BatchJSON, BatchRecordJSON, BatchResultJSON, DryRunJSON
    from ..loaders.bakes.wishes import Wishes
    from ..loaders.batches.places import Place
    from ..loaders.batches.records import Task
    from ..loaders.batches.unit import Unit
    from ..loaders.documents.document import Document
    from .workers.loop import Runner

RAY_THREADS = 4


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What ``batch`` understands."""
    add = parser.add_argument
    add("documents", metavar="DOCUMENT", nargs="+", type=Path, help="YAML or JSON: base, fuse, stack, quantize")
    out = "the folder of the results, also s3://BUCKET/FOLDER/; a result is called as its document"
    add("-o", "--out", metavar="FOLDER", type=_folder, required=True, help=out)
    add("--dry-run", action="store_true", help="say what would be done by whom, and do nothing")
    where = parser.add_argument_group("who works").add_mutually_exclusive_group()
    where.add_argument("--workers", metavar="N", type=_count, default=1, help="processes of this machine; default: 1")
    ray = "a Ray cluster by its address, or local: see docs/batch.md for what it opens"
    where.add_argument("--ray", metavar="ADDRESS", help=ray)
    threads = f"cores of a worker; default: all of this machine, shared out; of Ray {RAY_THREADS}"
    parser.add_argument("--threads", metavar="N", type=_count, help=threads)
    add_wishes(parser)


def _folder(text: str) -> Path | str:
    """A folder of this machine, or the address of one with its slash."""
    if "://" not in text:
        return Path(text)
    if text.endswith(".safetensors"):
        from ..loaders.remote.names import masked

        raise argparse.ArgumentTypeError(f"'{masked(text)}' is a file: name the folder of the results")
    return f"{text.rstrip('/')}/"


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= 1000:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 to 1000")
    return int(text)


def run(options: argparse.Namespace) -> int:
    """Bake what is not there yet; the results that are, are only looked at."""
    from ..loaders.batches.places import place_of
    from ..loaders.batches.records import States, asked_of, is_done, read_records

    started, wishes = time.perf_counter(), _at_home_anywhere(wishes_of(options))
    place = place_of(str(options.out))
    tasks = _tasks(options.documents, options.out, place)
    states, asked = States(), asked_of(wishes)
    before = read_records(place, [task.name for task in tasks])
    known = {task: is_done(place, task, asked, states) for task in tasks if not options.fresh}
    done = {task: record for task, record in known.items() if record is not None}
    left, run_id = [task for task in tasks if task not in done], uuid.uuid4().hex
    units, failed, runner = _prepared(left, done, wishes, options, place, run_id) if left else ([], [], None)
    if options.dry_run:
        _tell_plan(units, failed, done, runner.slots if runner else 0, options)
        return STOPPED if failed else DONE
    if left or isinstance(options.out, Path):
        place.prepare()
    for task, error in failed:
        _put_down(place, task, run_id, error)
    if runner is not None and units:
        _work(units, runner, place)
    return _tell(place, before, options, started)


def _at_home_anywhere(wishes: Wishes) -> Wishes:
    """The wishes with the path of a calibration as it is from every folder a worker may be in."""
    named = wishes.calibration
    return replace(wishes, calibration=os.path.realpath(named)) if named and Path(named).is_file() else wishes


def _tasks(documents: Sequence[Path], out: Path | str, place: Place) -> list[Task]:
    """The documents with the names of their results. Raises FoundryError ``usage`` for two of one name."""
    from ..loaders.batches.places import require_name
    from ..loaders.batches.records import ENDING, Task

    for path in documents:
        if path.is_dir():
            raise refuse("usage.folder_of", folder=path)
    tasks = [Task(path.stem, os.path.realpath(path)) for path in documents]
    seen: dict[str, str] = {}
    for task in tasks:
        other = seen.setdefault(os.path.normcase(task.name), task.document)
        if other != task.document:
            raise refuse("usage.two_of_a_name", first=other, second=task.document, name=task.name)
        require_name(place, f"{task.name}{ENDING}")
    if isinstance(out, Path) and out.exists() and not out.is_dir():
        raise refuse("usage.no_folder", out=out)
    return list(dict.fromkeys(tasks))


def _prepared(
    left: Sequence[Task],
    done: Mapping[Task, BatchRecordJSON],
    wishes: Wishes,
    options: argparse.Namespace,
    place: Place,
    run_id: str,
) -> tuple[list[Unit], list[tuple[Task, FoundryError]], Runner]:
    """(the units of the documents that can be read, the others with what is wrong, who is to work)."""
    from ..loaders.batches.shares import refuse_inputs, units_of

    if options.device != "cpu" and not options.ray:
        choose_device(options.device)
    read, failed = list[tuple["Task", "Document"]](), list[tuple["Task", FoundryError]]()
    for task in left:
        try:
            read.append((task, _read(task, wishes)))
        except FoundryError as error:
            failed.append((task, error))
    refuse_inputs(read, place, wishes, done)
    runner = _runner(options)
    out = os.path.realpath(options.out) if isinstance(options.out, Path) else place.address
    return units_of(read, wishes, runner.slots, out, run_id, options.fresh), failed, runner


def _read(task: Task, wishes: Wishes) -> Document:
    from ..loaders.documents.document import load_document

    document = wishes.adjusted(load_document(Path(task.document)))
    for text in document.notes:
        note(f"{task.name}: {text}")
    return document


def _runner(options: argparse.Namespace) -> Runner:
    from .workers.processes import Processes

    if options.ray:
        from .workers.rays import Rays

        return Rays(options.ray, options.threads or RAY_THREADS, options.device != "cpu")
    return Processes(options.workers, options.threads)


def _work(units: Sequence[Unit], runner: Runner, place: Place) -> None:
    """Until every document has its record; what workers that were killed left half written is swept up."""
    from .workers.loop import run_units

    try:
        with Bar("baking") as bar:
            run_units(units, runner, bar)
    finally:
        place.sweep()
        place.forget()


def _put_down(place: Place, task: Task, run_id: str, error: FoundryError) -> None:
    from ..loaders.batches.records import failed_record, write_record

    write_record(place, failed_record(task, run_id, error))


# --- what is told -----------------------------------------------------------------------------------------------------


def _tell(
    place: Place, before: Mapping[str, BatchRecordJSON | None], options: argparse.Namespace, started: float
) -> int:
    """Write the manifest, and tell what became of each document; ``before`` are their records when this began.

    A result whose files are the same ones still is unchanged, also where that took a plan to see.
    """
    from ..loaders.batches.records import (
        FAILED,
        MADE,
        UNCHANGED,
        is_unchanged,
        read_records,
        result_of,
        write_manifest,
    )

    manifest, now = write_manifest(place), read_records(place, before)
    records = [(former, now[name]) for name, former in before.items()]
    results = [
        result_of(each, UNCHANGED if is_unchanged(former, each) else "") for former, each in records if each is not None
    ]
    seconds = time.perf_counter() - started
    counts = {state: sum(each["state"] == state for each in results) for state in (MADE, UNCHANGED, FAILED)}
    ok = counts[FAILED] == 0
    if options.json:
        told: BatchJSON = {
            "ok": ok,
            "manifest": manifest,
            "counts": {"made": counts[MADE], "unchanged": counts[UNCHANGED], "failed": counts[FAILED]},
            "results": results,
            "seconds": seconds,
        }
        print_json(told)
    else:
        for each in results:
            if each["error"] is not None:
                tell(_failure(each))
        tell(f"{counts[MADE]} made, {counts[UNCHANGED]} unchanged, {counts[FAILED]} failed, in {seconds:.1f} s")
        print(manifest)
    return DONE if ok else STOPPED


def _failure(result: BatchResultJSON) -> str:
    error = result["error"]
    if error is None:
        return ""
    return f"{result['name']}: [{error['code']}] " + " ".join(filter(None, (error["what"], error["why"], error["fix"])))


def _tell_plan(
    units: Sequence[Unit],
    failed: Sequence[tuple[Task, FoundryError]],
    done: Collection[Task],
    workers: int,
    options: argparse.Namespace,
) -> None:
    """What would be done."""
    from ..loaders.batches.records import failed_record, result_of

    refused = [result_of(failed_record(task, "", error)) for task, error in failed]
    if options.json:
        told: DryRunJSON = {
            "dry_run": True,
            "workers": workers,
            "units": [
                {
                    "base": unit.base,
                    "base_bytes": unit.base_bytes,
                    "documents": [task.name for task in unit.tasks],
                    "memory_bytes": unit.memory_bytes,
                }
                for unit in units
            ],
            "unchanged": sorted(task.name for task in done),
            "failed": refused,
        }
        print_json(told)
        return
    rows = [(unit.base, size(unit.base_bytes), len(unit.tasks), size(unit.memory_bytes)) for unit in units]
    if rows:
        print(table(rows, ("base", "size", "documents", "memory"), room()))
    tell(*map(_failure, refused))
    passes = f"{len(units)} pass{'es' if len(units) != 1 else ''}"
    print(f"{sum(len(unit.tasks) for unit in units)} to make in {passes}, {len(done)} unchanged,", end=" ")
    print(f"{len(refused)} unreadable; nothing was done")
