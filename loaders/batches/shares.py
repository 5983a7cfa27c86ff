"""A batch shared out: documents on one base lie together, so that it is read once for all of them.

One unit is one pass over a base. There are as many as it takes to give every worker about the same work, and no pass
holds more than ``TOGETHER`` documents open.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from ...engine.errors import FoundryError
from ...engine.json_batch import BatchRecordJSON
from ...engine.memory import HELD
from ...engine.texts.say import refuse
from ..bakes.inputs import input_files
from ..bakes.wishes import Wishes
from ..disk.header import read_header
from ..disk.shards import find_files
from ..documents.document import NONE, Document
from ..documents.paths import objects_of, resolve_path
from ..remote.names import is_remote
from .places import Place
from .records import ENDING, Task
from .unit import Unit

TOGETHER = 16  # documents of one pass: beyond that the reading of the base is a small part of the work
SLACK = 0.25  # of a worker's share: a base that is so little too large is not read twice
WRITTEN = 2  # buffers of each result for its largest weight
PROCESS = 500_000_000  # bytes that a worker holds before it has read anything: Python, torch, the plans


@dataclass(frozen=True)
class Ground:
    """What documents that are baked together have in common: the files of their base, and the memory mode.

    ``address``: of a base on another machine, whose size is not asked for.
    """

    base: str | None = field(compare=False)
    files: tuple[Path, ...] = ()
    memory: str = ""
    address: str = ""

    @property
    def nbytes(self) -> int:
        """The size of the base; 0 where there is none."""
        with suppress(OSError):
            return sum(path.stat().st_size for path in self.files)
        return 0


def ground_of(document: Document, wishes: Wishes) -> Ground:
    """The base of an adjusted document, whatever it is called there; without files where there is none to be found."""
    memory = wishes.memory_of(document)
    if document.base is not None and is_remote(document.base):
        return Ground(document.base, (), memory, document.base)
    if document.base is not None:
        with suppress(FoundryError, OSError):
            files = find_files(resolve_path(document.base, document.folder))[0]
            return Ground(files[0].name, tuple(path.resolve() for path in files), memory)
    return Ground(document.base, (), memory)


def units_of(
    documents: Sequence[tuple[Task, Document]], wishes: Wishes, workers: int, out: str, run: str, fresh: bool = False
) -> list[Unit]:
    """The units of these documents, the largest first; the order of documents on one base is kept."""
    groups: dict[Ground, list[tuple[Task, Document]]] = {}
    for each in documents:
        groups.setdefault(ground_of(each[1], wishes), []).append(each)
    units = []
    counts = parts_of([(ground.nbytes, len(tasks)) for ground, tasks in groups.items()], workers)
    for ground, count in zip(groups, counts, strict=True):
        for share in _split(groups[ground], count):
            memory = _memory_bytes(ground, [document for _, document in share])
            tasks = tuple(task for task, _ in share)
            units.append(Unit(tasks, out, wishes, run, fresh, ground.base, ground.nbytes, memory))
    return sorted(units, key=lambda unit: -unit.base_bytes * len(unit.tasks))


def refuse_inputs(
    documents: Sequence[tuple[Task, Document]], place: Place, wishes: Wishes, done: Mapping[Task, BatchRecordJSON]
) -> None:
    """FoundryError ``usage`` when a result would take the place of a file that a document or an option reads.

    ``done`` are the records of documents that are not made anew: what they were made of counts too.
    """
    inputs = {each["path"]: task.document for task, record in done.items() for each in record["inputs"]}
    inputs |= {str(path.resolve()): "the option --calibration" for path in wishes.files()}
    for task, document in documents:
        inputs |= {str(path.resolve()): task.document for path in input_files(document)}
        inputs |= {each.url: task.document for each in objects_of(document)}
    for task, _ in documents:
        name = f"{task.name}{ENDING}"
        if other := inputs.get(place.own(name)):
            raise refuse("usage.result_is_input", name=name, document=other)


def parts_of(groups: Sequence[tuple[float, int]], workers: int) -> list[int]:
    """Into how many units each of some (size of a base, documents on it) is split.

    Where there are more passes than workers, they are made as many as keep all workers busy to the end. One worker is.
    """
    if workers <= 1:
        return [parts(count, 0.0) for _, count in groups]
    work = [max(1.0, size) * count for size, count in groups]
    rounds = math.ceil(sum(parts(count, 0.0) for _, count in groups) / max(1, workers))
    share = sum(work) / max(1, workers * rounds)
    return [parts(count, each / share) for (_, count), each in zip(groups, work, strict=True)]


def parts(documents: int, shares: float, together: int = TOGETHER) -> int:
    """The number of units for documents that are ``shares`` times what one worker is to do in one pass."""
    return min(documents, max(math.ceil(documents / together), math.ceil(shares - SLACK), 1))


def _split(tasks: Sequence[tuple[Task, Document]], count: int) -> list[Sequence[tuple[Task, Document]]]:
    """``count`` runs of neighbours of almost one length."""
    cuts = [len(tasks) * number // count for number in range(count + 1)]
    return [tasks[begin:end] for begin, end in zip(cuts, cuts[1:], strict=False)]


def _memory_bytes(ground: Ground, documents: Sequence[Document]) -> int:
    """What a process holds at most, about: itself, the largest weight at work, what is being written of each result."""
    with suppress(FoundryError, OSError):
        infos = [info for path in ground.files for info in read_header(path).tensors.values()]
        largest = max((math.prod(info.shape) for info in infos), default=0)
        stored = max((info.dtype.itemsize for info in infos), default=1)
        written = sum(WRITTEN * (1 if document.quantize != NONE else stored) for document in documents[1:])
        return PROCESS + largest * (HELD.get(ground.memory, 1) + written)
    return PROCESS
