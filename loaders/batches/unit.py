"""What a worker does at once: the documents of one unit are planned, baked in one pass over their base, and recorded.

A process, another machine and this process do the same. A document that is refused, before the pass or in it, costs
the others nothing but time.
"""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from ... import __version__
from ...engine.errors import FoundryError
from ...engine.findings import stops
from ...engine.json_batch import BatchRecordJSON, FileJSON
from ...engine.progress import Progress, part_of
from ...engine.report import layers_json
from ...engine.texts.say import refuse
from ..bakes.baking import BakeOptions, BakeResult, FileRequest, bake_files, resolve
from ..bakes.calibrated import calibration_findings
from ..bakes.inputs import input_files
from ..bakes.wishes import Wishes
from ..documents.document import Document, load_document
from ..documents.paths import resolve_path
from ..plans.judged import judged
from ..remote.beside import CONFIG_FILE
from ..remote.names import is_remote
from ..remote.objects import Transfer
from .places import Place, place_of
from .records import (
    ENDING,
    States,
    Task,
    asked_of,
    blank_record,
    failed_record,
    is_there,
    read_record,
    read_records,
    write_record,
)

INDEXES = "*.index.json"


@dataclass(frozen=True)
class Unit:
    """Documents on one base, and how they are to be baked into the place ``out``.

    ``run`` goes into their records: what has one of this run was dealt with. ``base``, ``base_bytes`` and
    ``memory_bytes`` (what the process holds at most, about) are for who looks and for who allots.
    """

    tasks: tuple[Task, ...]
    out: str
    wishes: Wishes
    run: str
    fresh: bool = False
    base: str | None = None
    base_bytes: int = 0
    memory_bytes: int = 0
    version: str = __version__

    def to_text(self) -> str:
        """As one line that ``unit_of`` reads."""
        return json.dumps(asdict(self))

    def left(self, place: Place | None = None) -> tuple[Task, ...]:
        """The documents without a record of this run. Raises FoundryError ``remote``."""
        place = place or place_of(self.out)
        found = read_records(place, [task.name for task in self.tasks])
        return tuple(task for task in self.tasks if (record := found[task.name]) is None or record["run"] != self.run)


@dataclass(frozen=True)
class _Job:
    """A unit at work: where its results go, and the folder they are made in."""

    unit: Unit
    place: Place
    folder: Path
    states: States

    def fail(self, task: Task, error: FoundryError) -> None:
        """Put a document down as failed."""
        write_record(self.place, failed_record(task, self.unit.run, error, _worker()))


@dataclass(frozen=True)
class _Planned:
    """A document that is to be baked; ``record`` is as far as it is known."""

    task: Task
    request: FileRequest
    memory: str
    record: BatchRecordJSON


def unit_of(text: str) -> Unit:
    """The unit of ``to_text``; FoundryError where another version of this program wrote it."""
    told = json.loads(text)
    if told["version"] != __version__:
        raise refuse("batch.version", theirs=told["version"], ours=__version__)
    tasks = tuple(Task(**task) for task in told.pop("tasks"))
    return Unit(tasks, wishes=Wishes(**told.pop("wishes")), **told)


def work(unit: Unit, on_step: Progress | None = None) -> None:
    """Do a unit: afterwards each of its documents has a record of this run.

    Raises FoundryError ``file`` or ``remote`` when not even a record can be written; what else is raised is no fault of
    a document.
    """
    if on_step is not None:
        on_step(0, 1)
    place = place_of(unit.out)
    with place.workshop() as folder:
        job = _Job(unit, place, folder, States())
        _bake([planned for task in unit.left(place) if (planned := _plan(job, task)) is not None], job, on_step)


def _plan(job: _Job, task: Task) -> _Planned | None:
    """A document ready to be baked; None for one that is refused, or has its result already: that is on record then."""
    unit, sha256 = job.unit, task.sha256()
    try:
        document = unit.wishes.adjusted(load_document(Path(task.document)))
        inputs = [job.states.of(path) for path in (*_inputs(document), *unit.wishes.files())]
        found = judged(document)
        if found.unusable is not None or stops(found.findings):
            raise found.unusable or FoundryError.of(found.findings[0])
        memory = unit.wishes.memory_of(document)
        wanted = resolve(found.plan, unit.wishes.finish(document, _device(unit), memory))
    except FoundryError as error:
        job.fail(task, error)
        return None
    request = FileRequest(wanted, job.folder / f"{task.name}{ENDING}")
    record = blank_record(task, unit.run, _worker()) | {
        "document_sha256": sha256,
        "asked": asked_of(unit.wishes),
        "base": found.plan.base.name,
        "inputs": inputs,
        "findings": [each.to_json() for each in (*found.findings, *calibration_findings(request.blueprint))],
        "recipe_sha256": request.key.recipe_sha256,
        "base_identity": request.key.base_identity,
    }
    if not unit.fresh and _is_the_same(job.place, record):
        return None
    return _Planned(task, request, memory, record)


def _is_the_same(place: Place, record: BatchRecordJSON) -> bool:
    """Whether this recipe has its result already, though a file was touched; its record is then brought to date."""
    former = read_record(place, record["name"])
    if former is None or not is_there(former, place):
        return False
    if any(former[key] != record[key] for key in ("recipe_sha256", "base_identity")):
        return False
    told = {key: record[key] for key in ("document", "document_sha256", "run", "asked", "inputs", "findings", "base")}
    write_record(place, former | told)  # type: ignore[arg-type]
    return True


def _bake(planned: Sequence[_Planned], job: _Job, on_step: Progress | None) -> None:
    """Bake documents in one pass; where one of them cannot be finished, the others without it."""
    if not planned:
        return
    mmap = False if job.unit.wishes.no_mmap else None
    options = BakeOptions(_device(job.unit), planned[0].memory, mmap, records=False)
    started = time.perf_counter(), time.process_time()
    try:
        results = bake_files([each.request for each in planned], options, part_of(on_step, 0, job.place.steps))
    except FoundryError as error:
        if len(planned) == 1:
            job.fail(planned[0].task, error)
        for half in (planned[: len(planned) // 2], planned[len(planned) // 2 :]) if len(planned) > 1 else ():
            _bake(half, job, on_step)
        return
    took = time.perf_counter() - started[0], time.process_time() - started[1]
    for number, (each, result) in enumerate(zip(planned, results, strict=True)):
        sent = _sent(on_step, number, len(planned))
        try:
            files = [job.place.deliver(path, sent) for path in result.files]
        except FoundryError as error:  # made, and not to be brought there: the others may be
            job.fail(each.task, error)
            continue
        write_record(job.place, _made(each, result, files, len(planned), took))


def _sent(on_step: Progress | None, number: int, count: int) -> Transfer | None:
    """How far one of several results is on its way, as the second part of a pass."""
    step = part_of(on_step, 1, 2)
    return None if step is None else lambda _, done, total: step(number * total + done, count * total)


def _made(
    planned: _Planned, result: BakeResult, files: list[FileJSON], together: int, took: tuple[float, float]
) -> BatchRecordJSON:
    """The record of a finished result; ``took``: seconds of its pass by the clock and of the processor."""
    layers = layers_json(planned.request.blueprint.plan, result.report.gains)
    return planned.record | {
        "out": result.files[0].name,
        "bytes": sum(each["size"] or 0 for each in files),
        "files": files,
        "loras": [{"path": each["path"], "weight": each["weight"], "gain": each["gain"]} for each in layers],
        "recipe_sha256": result.sha256,
        "relative_error": result.report.relative_error,
        "arithmetic": result.report.arithmetic,
        "together": together,
        "seconds": took[0],
        "cpu_seconds": took[1],
        "peak_rss_bytes": result.report.peak_rss_bytes,
    }


def _inputs(document: Document) -> Iterator[Path | str]:
    """Every file that the result is made of; a config beside a LoRA counts, also when there is none yet.

    Files of other machines are named only.
    """
    yield from filter(is_remote, (row.path for row in (*document.fuse, *document.stack)))
    if document.base is not None and is_remote(document.base):
        yield document.base
    files = [path.resolve() for path in input_files(document)]
    yield from dict.fromkeys([*files, *(path.parent / CONFIG_FILE for path in files)])
    if document.base is not None and not is_remote(document.base):
        base = resolve_path(document.base, document.folder)
        yield from (path.resolve() for path in sorted(base.glob(INDEXES)))
        yield from [base.resolve()] if base.name.endswith(INDEXES[1:]) else []


def _device(unit: Unit) -> torch.device | None:
    return None if unit.wishes.device == "cpu" else torch.device(unit.wishes.device)


def _worker() -> str:
    return f"{platform.node()}:{os.getpid()}"
