"""Plans baked into files: what the save node, the command line and the demo share.

A result that is already there is left alone, what it shares with the wanted one is copied from it, and results on one
base read the base once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from ...engine.bake import BakeReport, bake_all, recall
from ...engine.blueprint import Blueprint, blueprint
from ...engine.budget import Cost, hold_budgets
from ...engine.devices import arithmetic_of
from ...engine.errors import FoundryError
from ...engine.findings import Finding
from ...engine.finish import Finish
from ...engine.guard import raise_first
from ...engine.job import BakeRequest
from ...engine.memory import AUTO, choose_memory
from ...engine.plan import Plan
from ...engine.progress import Progress, part_of
from ...engine.reuse import Previous
from ...engine.revision import REVISION
from ...engine.room import choose_device
from ...engine.tensors import Nowhere, TensorSink
from ...engine.texts.say import refuse
from ...validator.rules import check
from ..disk.copying import copy_result
from ..disk.sharding import shard_paths, split, write_sharded
from ..disk.source import FileSource
from ..disk.writer import check_target, write_safetensors
from .cache import BakeCache, Entry, Key
from .calibrated import calibration_findings
from .records import BakeRecord, base_facts, load_record, save_record
from .rot import is_broken, is_unreadable, told

MADE, UNCHANGED, CACHED = "made", "unchanged", "from the cache"


@dataclass(frozen=True)
class BakeOptions:
    """What changes how a bake runs; what comes out is the same but for the last bits of sums.

    Those follow ``device`` and ``memory`` (``devices.arithmetic_of``): records, files and reports name what was used,
    no result is of two, and a ``reproducible`` one has it in its recipe. ``memory`` is auto, low or lowest; ``mmap``:
    None maps files where that is safe, False never; ``fresh``: nothing of an earlier result is used; ``records``: an
    earlier result may be used, and the next bake may use this one.
    """

    device: torch.device | None = None
    memory: str = AUTO
    mmap: bool | None = None
    max_shard: int | None = None
    cache: BakeCache | None = None
    fresh: bool = False
    records: bool = True


@dataclass(frozen=True)
class FileRequest:
    """One result to be had, and where: ``out`` None leaves it in the cache."""

    blueprint: Blueprint
    out: Path | None

    @property
    def key(self) -> Key:
        """Hash of the recipe, identity of the base."""
        return Key(self.blueprint.recipe_sha256, self.blueprint.base_identity)


@dataclass(frozen=True)
class BakeResult:
    """One result: the report, whether it was made, what an error budget cost, and its files, if it has some.

    ``entry`` holds a result that stays in the cache; it is not evicted while the object lives. ``findings`` are about
    an earlier result that was thrown away.
    """

    report: BakeReport
    sha256: str
    cost: Cost | None = None
    state: str = MADE
    files: tuple[Path, ...] = ()
    entry: Entry | None = field(default=None, compare=False)
    findings: tuple[Finding, ...] = ()


def resolve(plan: Plan, finish: Finish) -> Blueprint:
    """The blueprint of a plan that passes the checks; the fingerprint of its base is taken here, once.

    Raises FoundryError: the plan's first error, what ``blueprint`` raises, and LF205 for a calibration of another base.
    """
    raise_first(check(plan))
    source = plan.base.source
    model = source.identity
    wanted = blueprint(plan, finish, base_facts(source) | {"model": model, "revision": REVISION})
    raise_first(calibration_findings(wanted))
    return wanted


def bake_to_file(
    plan: Plan, finish: Finish, out: Path, on_step: Progress | None = None, device: torch.device | None = None
) -> BakeResult:
    """Bake one plan into ``out``, anew. See ``bake_files``."""
    return bake_files([FileRequest(resolve(plan, finish), out)], BakeOptions(device, records=False), on_step)[0]


def bake_files(
    requests: Sequence[FileRequest], options: BakeOptions, on_step: Progress | None = None
) -> list[BakeResult]:
    """Stream finished plans into their files, one result each, in order. A model is never held in memory.

    A file that exists is replaced once the new one is complete, and left alone when it is what is wanted.
    Raises FoundryError: LF203 for one that would change nothing, LF204 for an error budget that cannot be held.
    """
    for wanted in (request.blueprint for request in requests):
        if wanted.changes_nothing:
            raise refuse("LF203.nothing_asked", base=wanted.plan.base.name)
    done: dict[int, BakeResult] = {}
    missing: dict[str, list[int]] = {}  # by base: those are baked together
    for number, request in enumerate(requests):
        if found := _already(request, options):
            done[number] = found
        else:
            missing.setdefault(request.blueprint.base_identity, []).append(number)
    for part, numbers in enumerate(missing.values()):
        results = _made([requests[number] for number in numbers], options, part_of(on_step, part, len(missing)))
        done.update(zip(numbers, results, strict=True))
    first, *others = (done[number] for number in range(len(requests)))
    return [replace(first, findings=told()), *others]


# --- results that are there already -----------------------------------------------------------------------------------


def _already(request: FileRequest, options: BakeOptions) -> BakeResult | None:
    """The result where it is wanted, if it is there or in the cache."""
    if options.fresh:
        return None
    record = _record_of(request, options)
    if request.out is not None and record is not None and (record.recipe_sha256, record.base_identity) == request.key:
        files = tuple(request.out.parent / str(file["name"]) for file in record.files)
        return replace(_recalled(request, record), state=UNCHANGED, files=files)
    entry = options.cache.find(request.key) if options.cache else None
    if entry is None or options.cache is None:
        return None
    if request.out is not None and not options.cache.is_sound(entry):  # a copy would not be thrown away with it
        return None
    recalled = _recalled(request, entry.record)
    return replace(recalled, state=CACHED, files=(_delivered(request, entry, options),), entry=entry)


def _delivered(request: FileRequest, entry: Entry, options: BakeOptions) -> Path:
    """Where a cached result is after it was brought to where it is wanted."""
    if request.out is None:
        return entry.path
    copy_result(entry.path, request.out)
    if options.records:
        save_record(request.out, entry.record)
    return request.out


def _record_of(request: FileRequest, options: BakeOptions) -> BakeRecord | None:
    """The record of an earlier result in the same files."""
    if request.out is None or not options.records or options.fresh:
        return None
    record = load_record(request.out)
    names = [path.name for path in _paths(request.blueprint, request.out, options)]
    return record if record and [str(file["name"]) for file in record.files] == names else None


def _recalled(request: FileRequest, record: BakeRecord) -> BakeResult:
    """The report of a result that needs no work."""
    wanted, told = request.blueprint, record.report.get("cost")
    cost = Cost(**{**told, "kept": tuple(told["kept"])}) if told else None
    if cost is not None:
        wanted = wanted.keeping(frozenset(cost.kept))
    previous = Previous(record.keys, record.measures, wanted.plan.base.source, record.arithmetic)
    return BakeResult(recall(BakeRequest(wanted, Nowhere(), previous)), wanted.recipe_sha256, cost)


# --- results that are made --------------------------------------------------------------------------------------------


class _Damaged(Exception):
    """An earlier result that parts of a new one were taken from turned out to be damaged.

    It is thrown away; one in the place of a new result, of which ``outs`` tells, is replaced by that.
    """

    def __init__(self, outs: frozenset[Path] = frozenset()) -> None:
        super().__init__()
        self.outs = outs


def _made(
    requests: Sequence[FileRequest],
    options: BakeOptions,
    on_step: Progress | None,
    unreadable: frozenset[Path] = frozenset(),
) -> list[BakeResult]:
    """``_make``, and again where a damaged result was taken for a sound one."""
    try:
        return _make(requests, options, on_step, unreadable)
    except _Damaged as damaged:  # each time there is one result less to take from
        return _made(requests, options, on_step, unreadable | damaged.outs)


def _make(
    requests: Sequence[FileRequest], options: BakeOptions, on_step: Progress | None, unreadable: frozenset[Path]
) -> list[BakeResult]:
    """Bake results on one base in one pass over it; an error budget takes a pass before that.

    ``unreadable``: places of new results, where nothing is to be taken from the earlier one.
    """
    wanted = [request.blueprint for request in requests]
    exact = any(each.finish.arithmetic is not None for each in wanted)
    memory = choose_memory(options.memory, wanted[0].plan.base.source.tensors.values(), exact)
    options = replace(options, memory=memory, device=choose_device(wanted, options.device))
    how = (options.device, options.memory, options.mmap)
    passes = 1 + any(each.finish.max_error is not None for each in wanted)
    held = hold_budgets(wanted, part_of(on_step, 0, passes), *how)
    requests = [replace(request, blueprint=each) for request, (each, _) in zip(requests, held, strict=True)]
    costs = [cost for _, cost in held]
    with ExitStack() as opened:
        sinks = [_sink(request, cost, options, opened) for request, cost in zip(requests, costs, strict=True)]
        found = [_earlier(request, options, request.out in unreadable) for request in requests]
        asked = [
            BakeRequest(request.blueprint, sink, previous)
            for request, (sink, _), (previous, _) in zip(requests, sinks, found, strict=True)
        ]
        entries = [entry for _, entry in found if entry is not None]
        try:
            reports = bake_all(asked, part_of(on_step, passes - 1, passes), *how)
        except FoundryError as error:  # by a disk that no longer gives one of them?
            _refuse_damaged(entries, options, on_step)
            if is_broken(error):  # else nothing is to be read for minutes before it is told
                _refuse_unreadable(requests, found)
            raise
        _refuse_damaged(entries, options, on_step)
        for (_, publish), report in zip(sinks, reports, strict=True):
            publish(report)
    return [_result(*each, options) for each in zip(requests, costs, reports, strict=True)]


def _refuse_damaged(entries: Sequence[Entry], options: BakeOptions, on_step: Progress | None) -> None:
    cache = options.cache
    if cache is not None and not all(cache.is_sound(entry, on_step) for entry in entries):
        raise _Damaged


def _refuse_unreadable(requests: Sequence[FileRequest], found: Sequence[tuple[Previous | None, Entry | None]]) -> None:
    """Where the disk no longer gives an earlier result that lies where a new one is wanted."""
    places = (
        request.out
        for request, (previous, entry) in zip(requests, found, strict=True)
        if previous is not None and entry is None and any(is_unreadable(file) for file in previous.source.files)
    )
    if outs := frozenset(out for out in places if out is not None):
        raise _Damaged(outs)


def _sink(
    request: FileRequest, cost: Cost | None, options: BakeOptions, opened: ExitStack
) -> tuple[TensorSink, Callable[[BakeReport], None]]:
    """(the open file or files, what is to be done with the report before they are published)."""
    arithmetic = arithmetic_of(options.device, options.memory)
    entries, metadata = request.blueprint.entries, request.blueprint.file_metadata(arithmetic)
    if request.out is not None:
        check_target(request.out)
    if options.cache is not None:
        if options.fresh:
            options.cache.drop(request.key)
        slot = opened.enter_context(options.cache.storing(request.key, request.blueprint.nbytes))

        def publish(report: BakeReport) -> None:
            slot.record = _record(request.blueprint, report, cost)

        return opened.enter_context(write_safetensors(slot.path, entries, metadata)), publish
    if request.out is None:
        raise refuse("usage.no_cache")
    if options.max_shard is None:
        return opened.enter_context(write_safetensors(request.out, entries, metadata)), lambda _: None
    return opened.enter_context(write_sharded(request.out, entries, metadata, options.max_shard)), lambda _: None


def _earlier(request: FileRequest, options: BakeOptions, unreadable: bool) -> tuple[Previous | None, Entry | None]:
    """An earlier result on the same base to copy from, if there is one, and its entry where the cache has it."""
    identity = request.blueprint.base_identity
    record = None if unreadable else _record_of(request, options)
    folder, entry = request.out.parent if request.out is not None else Path(), None
    if (record is None or record.base_identity != identity) and options.cache is not None and not options.fresh:
        entry = options.cache.latest_like(identity)
        record, folder = (entry.record, entry.path.parent) if entry is not None else (None, folder)
    if record is None:
        return None, None
    try:
        source = FileSource(*(folder / str(file["name"]) for file in record.files))
    except FoundryError:  # the disk no longer gives it
        return None, entry
    return Previous(record.keys, record.measures, source, record.arithmetic), entry


def _record(made: Blueprint, report: BakeReport, cost: Cost | None) -> BakeRecord:
    """What the next bake needs to know of this one."""
    told = {"cost": None if cost is None else cost.to_json()}
    measures, arithmetic = report.measures_json(), report.arithmetic
    return BakeRecord(made.recipe_sha256, made.facts, made.keys, measures, told, arithmetic=arithmetic)


def _result(request: FileRequest, cost: Cost | None, report: BakeReport, options: BakeOptions) -> BakeResult:
    """What is there now; its record is kept."""
    made = BakeResult(report, request.blueprint.recipe_sha256, cost)
    if options.cache is not None:
        entry = options.cache.find(request.key)
        if entry is None:
            raise refuse("cache.removed")
        made = replace(made, files=(_delivered(request, entry, options),), entry=entry)
        if request.out is not None:
            options.cache.is_sound(entry)  # its hash is written down before this process ends
        return made
    files: tuple[Path, ...] = ()
    if request.out is not None:
        files = _paths(request.blueprint, request.out, options)
        if options.records:
            save_record(request.out, _record(request.blueprint, report, cost), files)
    return replace(made, files=files)


def _paths(wanted: Blueprint, out: Path, options: BakeOptions) -> tuple[Path, ...]:
    """The files a result is written to."""
    if options.max_shard is None:
        return (out,)
    return tuple(shard_paths(out, len(split(wanted.entries, options.max_shard))))
