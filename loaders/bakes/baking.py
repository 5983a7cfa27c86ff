"""Plans baked into files: what the save node, the command line and the demo share.

A result that is already there is left alone, what it shares with the wanted one is copied from it, and results on one
base read the base once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from ...engine.bake import BakeReport, Progress, bake_all, recall
from ...engine.budget import Cost, Nowhere, check_budget, within
from ...engine.errors import FoundryError
from ...engine.finish import Finish, file_metadata, outputs
from ...engine.guard import raise_first
from ...engine.job import Order
from ...engine.memory import AUTO
from ...engine.plan import Plan, recipe_sha256
from ...engine.reuse import REVISION, Previous, tensor_keys
from ...engine.tensors import TensorSink
from ...validator.rules import check
from ..disk.copying import copy_result
from ..disk.sharding import is_part, shard_paths, split, write_sharded
from ..disk.shards import find_files
from ..disk.source import FileSource, base_fingerprint
from ..disk.writer import check_target, write_safetensors
from ..documents.document import Document
from ..documents.paths import resolve_path
from .cache import BakeCache, Entry, Key
from .records import BakeRecord, base_facts, identity_of, load_record, save_record

MADE, UNCHANGED, CACHED = "made", "unchanged", "from the cache"


@dataclass(frozen=True)
class How:
    """What changes how a bake runs, not what comes out.

    ``memory`` is auto, low or lowest; ``mmap``: None maps files where that is safe, False never; ``fresh``: nothing
    of an earlier result is used; ``records``: an earlier result may be used, and the next bake may use this one.
    """

    device: torch.device | None = None
    memory: str = AUTO
    mmap: bool | None = None
    max_shard: int | None = None
    cache: BakeCache | None = None
    fresh: bool = False
    records: bool = True


@dataclass(frozen=True)
class Baked:
    """One result: its files, the report, the recipe hash, whether it was made, and what an error budget cost.

    ``entry`` holds a result that stays in the cache; it is not evicted while the object lives.
    """

    files: tuple[Path, ...]
    report: BakeReport
    sha256: str
    state: str = MADE
    cost: Cost | None = None
    entry: Entry | None = field(default=None, compare=False)


@dataclass
class Wanted:
    """One result to be had: a plan, how it ends, where it goes (None: it stays in the cache); the rest follows."""

    plan: Plan
    finish: Finish
    out: Path | None
    recipe: dict[str, Any] = field(default_factory=dict)
    base: dict[str, Any] = field(default_factory=dict)
    cost: Cost | None = None

    def prepare(self) -> None:
        """Check the plan, and say what the result is made of. Raises FoundryError, LF203 when nothing would change."""
        raise_first(check(self.plan))
        check_budget(self.finish.max_error, self.finish)
        if self.finish.quantization is None and self.finish.dtype is None and not self.plan.by_weight():
            what = f"Nothing would change: {self.plan.base.name} with no LoRA, no quantization and no other dtype."
            raise FoundryError("LF203", what, fix="Add a LoRA with a weight that is not 0, or choose how to finish.")
        sampled = base_fingerprint(self.plan.base.source)
        self.recipe = self.plan.recipe(self.finish.settings(), sampled)
        model = getattr(self.plan.base.source, "identity", None)  # of a model in memory, which no file vouches for
        self.base = base_facts(self.plan.base.source, sampled) | {"model": model, "revision": REVISION}

    @property
    def key(self) -> Key:
        """Hash of the recipe, identity of the base."""
        return Key(recipe_sha256(self.recipe), identity_of(self.base))

    def record(self, report: BakeReport) -> BakeRecord:
        """What the next bake needs to know of this one."""
        keys = tensor_keys(self.plan, self.finish, self.key.base_identity)
        measures = {name: measured.to_json() for name, measured in report.measures.items()}
        cost = None if self.cost is None else self.cost.to_json()
        return BakeRecord(self.key.recipe_sha256, self.base, keys, measures, {"cost": cost})


def bake_to_file(
    plan: Plan, finish: Finish, out: Path, on_step: Progress | None = None, device: torch.device | None = None
) -> tuple[BakeReport, str]:
    """Bake one plan into ``out``, anew; returns (report, recipe hash). See ``bake_files``."""
    (baked,) = bake_files([Wanted(plan, finish, out)], How(device, records=False), on_step)
    return baked.report, baked.sha256


def bake_files(wanted: Sequence[Wanted], how: How, on_step: Progress | None = None) -> list[Baked]:
    """Stream finished plans into their files, one result each, in order. A model is never held in memory.

    A file that exists is replaced once the new one is complete, and left alone when it is what is wanted. All plans are
    checked before anything is read. Raises FoundryError: a plan's own first error, LF203 for one that would change
    nothing, LF204 for an error budget that cannot be held.
    """
    for each in wanted:
        each.prepare()
    done: dict[int, Baked] = {}
    for number, each in enumerate(wanted):
        if found := _already(each, how):
            done[number] = found
    missing = [number for number in range(len(wanted)) if number not in done]
    bases = list(dict.fromkeys(wanted[number].key.base_identity for number in missing))
    for part, base in enumerate(bases):
        numbers = [number for number in missing if wanted[number].key.base_identity == base]
        step = _share(on_step, part, len(bases))
        done.update(zip(numbers, _make([wanted[number] for number in numbers], how, step), strict=True))
    return [done[number] for number in range(len(wanted))]


# --- results that are there already -----------------------------------------------------------------------------------


def _already(wanted: Wanted, how: How) -> Baked | None:
    """The wanted result where it is wanted, if it is there or in the cache."""
    if how.fresh:
        return None
    record = _record_of(wanted, how)
    if wanted.out is not None and record is not None and (record.recipe_sha256, record.base_identity) == wanted.key:
        files = tuple(wanted.out.parent / str(file["name"]) for file in record.files)
        return _recalled(wanted, record, UNCHANGED, files)
    entry = how.cache.find(wanted.key) if how.cache else None
    if entry is None:
        return None
    return replace(_recalled(wanted, entry.record, CACHED, (_delivered(wanted, entry, how),)), entry=entry)


def _delivered(wanted: Wanted, entry: Entry, how: How) -> Path:
    """Where a cached result is after it was brought to where it is wanted."""
    if wanted.out is None:
        return entry.path
    copy_result(entry.path, wanted.out)
    if how.records:
        save_record(wanted.out, entry.record)
    return wanted.out


def _record_of(wanted: Wanted, how: How) -> BakeRecord | None:
    """The record of an earlier result in the same files."""
    if wanted.out is None or not how.records or how.fresh:
        return None
    record = load_record(wanted.out)
    names = [path.name for path in _paths(wanted, wanted.out, how)]
    return record if record and [str(file["name"]) for file in record.files] == names else None


def _recalled(wanted: Wanted, record: BakeRecord, state: str, files: tuple[Path, ...]) -> Baked:
    """The report of a result that needs no work."""
    cost = record.report.get("cost")
    wanted.cost = Cost(**{**cost, "kept": tuple(cost["kept"])}) if cost else None
    finish = replace(wanted.finish, keep_names=frozenset(wanted.cost.kept)) if wanted.cost else wanted.finish
    previous = Previous(record.keys, record.measures, wanted.plan.base.source)
    report = recall(Order(wanted.plan, finish, Nowhere(), previous))
    return Baked(files, report, wanted.key.recipe_sha256, state, wanted.cost)


# --- results that are made --------------------------------------------------------------------------------------------


def _make(wanted: Sequence[Wanted], how: How, on_step: Progress | None) -> list[Baked]:
    """Bake results on one base in one pass over it; an error budget takes a pass before that."""
    budgets = [each for each in wanted if each.finish.max_error is not None]
    if budgets:
        _hold_budgets(budgets, how, _share(on_step, 0, 2))
        on_step = _share(on_step, 1, 2)
    with ExitStack() as opened:
        orders, published = [], []
        for each in wanted:
            sink, publish = _sink(each, how, opened)
            published.append(publish)
            orders.append(_order(each, how, sink))
        reports = bake_all(orders, on_step, how.device, how.memory, how.mmap)
        for publish, report in zip(published, reports, strict=True):
            publish(report)
    return [_told(each, how, report) for each, report in zip(wanted, reports, strict=True)]


def _hold_budgets(wanted: Sequence[Wanted], how: How, on_step: Progress | None) -> None:
    """Measure, and keep the worst weights of each result in high precision."""
    orders = [Order(each.plan, each.finish, Nowhere()) for each in wanted]
    for each, report in zip(wanted, bake_all(orders, on_step, how.device, how.memory, how.mmap), strict=True):
        each.finish, each.cost = within(each.plan, each.finish, each.finish.max_error or 0.0, report.measures)


def _sink(wanted: Wanted, how: How, opened: ExitStack) -> tuple[TensorSink, Callable[[BakeReport], None]]:
    """(the open file or files, what is to be done with the report before they are published)."""
    entries = outputs(wanted.plan, wanted.finish)
    metadata = file_metadata(wanted.plan, wanted.finish, wanted.recipe, wanted.key.recipe_sha256)
    if wanted.out is not None:
        check_target(wanted.out)
    if how.cache is not None:
        if how.fresh:
            how.cache.drop(wanted.key)
        slot = opened.enter_context(how.cache.storing(wanted.key, sum(info.nbytes for info in entries)))

        def publish(report: BakeReport) -> None:
            slot.record = wanted.record(report)

        return opened.enter_context(write_safetensors(slot.path, entries, metadata)), publish
    if wanted.out is None:
        raise FoundryError("usage", "A result without a file needs a cache.", fix="Name one of the two.")
    if how.max_shard is None:
        return opened.enter_context(write_safetensors(wanted.out, entries, metadata)), _nothing
    return opened.enter_context(write_sharded(wanted.out, entries, metadata, how.max_shard)), _nothing


def _nothing(_: BakeReport) -> None:
    pass


def _order(wanted: Wanted, how: How, sink: TensorSink) -> Order:
    """The order, with an earlier result on the same base to copy from, if there is one."""
    identity = wanted.key.base_identity
    keys = tensor_keys(wanted.plan, wanted.finish, identity)
    record = _record_of(wanted, how)
    folder = wanted.out.parent if wanted.out is not None else Path()
    if (record is None or record.base_identity != identity) and how.cache is not None and not how.fresh:
        entry = how.cache.latest_like(identity)
        record, folder = (entry.record, entry.path.parent) if entry is not None else (None, folder)
    if record is None:
        return Order(wanted.plan, wanted.finish, sink, None, keys)
    source = FileSource(*(folder / str(file["name"]) for file in record.files))
    return Order(wanted.plan, wanted.finish, sink, Previous(record.keys, record.measures, source), keys)


def _told(wanted: Wanted, how: How, report: BakeReport) -> Baked:
    """What is there now; its record is kept."""
    entry = None
    if how.cache is not None:
        entry = how.cache.find(wanted.key)
        if entry is None:
            raise FoundryError("cache", "The result was removed from the cache at once.", fix="Bake without the cache.")
        files: tuple[Path, ...] = (_delivered(wanted, entry, how),)
    elif wanted.out is not None:
        files = _paths(wanted, wanted.out, how)
        if how.records:
            save_record(wanted.out, wanted.record(report), files)
    return Baked(files, report, wanted.key.recipe_sha256, MADE, wanted.cost, entry)


def _paths(wanted: Wanted, out: Path, how: How) -> tuple[Path, ...]:
    """The files a result is written to."""
    if how.max_shard is None:
        return (out,)
    return tuple(shard_paths(out, len(split(outputs(wanted.plan, wanted.finish), how.max_shard))))


def _share(on_step: Progress | None, part: int, parts: int) -> Progress | None:
    """Progress of one part of several, all of one length."""
    if on_step is None or parts == 1:
        return on_step
    return lambda done, total: on_step(part * total + done, parts * total)


# --- what must not be overwritten -------------------------------------------------------------------------------------


def refuse_input(out: Path, doc: Document, sharded: bool = False) -> None:
    """FoundryError when ``out`` cannot be written, or is a file the document reads, be its row on or off.

    ``sharded``: so are the files it may be split into. No file is read: a wrong name is told at once, not after
    gigabytes were hashed.
    """
    check_target(out)
    for path in input_files(doc):
        whole = path.exists() and out.exists() and path.samefile(out)
        if whole or (sharded and is_part(out, path.name) and path.parent.samefile(out.parent)):
            what = f"{out} is an input of the document itself ({path.name})."
            raise FoundryError("usage", what, "It would be lost.", "Choose another name for the result.")


def input_files(doc: Document) -> Iterator[Path]:
    """Every local file a document names, all shards of the base among them; missing ones are left to the planner."""
    names = [row.path for row in (*doc.fuse, *doc.stack)]
    for name in names:
        with suppress(FoundryError):
            yield resolve_path(name, doc.folder, lambda _: True)
    if doc.base is not None:
        with suppress(FoundryError):
            yield from find_files(resolve_path(doc.base, doc.folder))[0]
