"""``lora-foundry lineage``: what LoRAs were trained with and are to be used with; shown, written down, passed on."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..engine.lineage import ROLES, UNKNOWN
from ..engine.texts.say import counted, refuse
from .lineage_text import claims_table, found_lines, record_text, subject_json, subject_text
from .shared import DONE, STOPPED, OldOption, answer, from_elsewhere, print_json, where
from .terminal import Bar

if TYPE_CHECKING:
    from ..engine.json_verbs import (
        DeclaredJSON,
        ExportedJSON,
        ForgottenJSON,
        ImportedJSON,
        ReadJSON,
        StampedJSON,
        WeighJSON,
    )
    from ..loaders.lineage.record import Record
    from ..loaders.lineage.subjects import Subject
    from ..loaders.remote.names import Where

NONE, SAME = "none", "same"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verbs of ``lineage``; each brings its own ``run``."""
    verbs = parser.add_subparsers(dest="action", metavar="ACTION", required=True)

    def verb(name: str, run: Callable[[argparse.Namespace], int], text: str) -> Any:
        added = verbs.add_parser(name, help=text, description=text)
        # Suppressed, so that it does not undo a --json that stands before the action.
        added.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="print one JSON object")
        added.set_defaults(run=run)
        return added.add_argument

    lora = "a LoRA file, the bare name of one you do not have, or none: the untouched base"
    add = verb("show", _show, "Show every claim about a LoRA or a base model, who makes it, and which one counts.")
    add("file", metavar="FILE", type=where)
    add = verb("declare", _declare, "Write down what you know. It replaces what you declared of this file before.")
    add("file", metavar="FILE", type=where)
    add("--trained-with", metavar="LORA", action="append", help=f"may be repeated; {lora}")
    add("--strength", metavar="S", action="append", type=float, help="of the LoRA trained with; one for all, or each")
    add("--use-with", metavar="LORA", action="append", help="what to use it with: as --trained-with, or same")
    add("--role", choices=[role for role in ROLES if role != UNKNOWN], help="what it is for")
    add("--note", metavar="TEXT", default="", help="how you know")
    add("--contains", metavar="LORA", action="append", default=[], help="for a base model: a LoRA that is inside it")
    add = verb("forget", _forget, "Remove the record of a file; what the file says of itself stays.")
    add("file", metavar="FILE", help="a file, or an id as show tells it when the file is gone")
    add = verb("export", _export, "Put records into one JSON file, all of them or those of some files.")
    add("files", metavar="FILE", nargs="*", type=where)
    add("-o", "--out", metavar="OUT", type=Path, help="default: print them")
    add = verb("import", _import, "Take over the records of an export; where they come from is written down.")
    add("source", metavar="IN", type=Path)
    add = verb("read", _read, "Read what a training script, config or log says about base LoRAs.")
    add("source", metavar="SOURCE", type=Path, help=".sh .yaml .toml .json .log .txt README.md")
    add("--lora", metavar="FILE", type=where, help="write it down as declared for this LoRA")
    add(
        "--run",
        metavar="NAME",
        dest="run_name",
        default="",
        help="of several runs the one that wrote NAME, or its number",
    )
    add = verb("weigh", _weigh, "Say whether a LoRA is inside another one or inside a checkpoint, by their weights.")
    add("file", metavar="FILE", type=where, help="a LoRA or a checkpoint")
    add("--contains", metavar="LORA", type=where, required=True, help="the LoRA that may be inside")
    original = "the checkpoint before the merge; for LoRAs their base, if they name modules differently"
    add("--original", metavar="FILE", type=where, help=original)
    add("--record", action="store_true", help="write down a checkpoint that contains it, so that checks know it")
    old = {"action": OldOption, "dest": "record", "metavar": "--record", "help": argparse.SUPPRESS}
    add("--keep", nargs=0, default=False, **old)
    add = verb("stamp", _stamp, "Write a copy of a LoRA that carries its lineage; the original is not touched.")
    add("file", metavar="FILE", type=where)
    add("-o", "--out", metavar="OUT", type=Path, help="default: FILE with _lineage in its name, if that is free")


# --- actions ----------------------------------------------------------------------------------------------------------


def _show(options: argparse.Namespace) -> int:
    subject = _subject(options.file)
    answer(options.json, subject_json(subject), subject_text(subject))
    return DONE


def _declare(options: argparse.Namespace) -> int:
    from ..loaders.lineage.store import declare
    from ..loaders.lineage.subjects import BASE

    subject = _subject(options.file)
    trained = _ingredients(options.trained_with, options.strength)
    if options.use_with == [SAME] and trained is None:
        raise refuse("usage.lineage_same")
    used = trained if options.use_with == [SAME] else _ingredients(options.use_with)
    inside = _ingredients(options.contains) or ()
    said = trained is not None or used is not None or options.role is not None
    if (subject.kind == BASE) is not bool(inside) or (inside and said):
        raise refuse("usage.lineage_contains")
    if not said and not inside:
        raise refuse("usage.lineage_nothing")
    record = declare(
        subject.ids,
        subject.name,
        subject.family,
        trained_with=trained,
        use_with=used,
        role=options.role or UNKNOWN,
        contains=inside,
        note=options.note,
    )
    told: DeclaredJSON = {"schema": 1, "record": record.to_json()}
    answer(options.json, told, *_written(record.name), record_text(record))
    return DONE


def _forget(options: argparse.Namespace) -> int:
    from ..loaders.lineage.store import find_place, forget

    ids = (options.file,) if find_place((options.file,)) else _subject(where(options.file)).ids
    gone = forget(ids)
    said = "Forgotten." if gone else "There was no record of it."
    told: ForgottenJSON = {"schema": 1, "ids": list(ids), "forgotten": gone}
    answer(options.json, told, said)
    return DONE


def _export(options: argparse.Namespace) -> int:
    from ..loaders.lineage.exchange import export, export_to
    from ..loaders.lineage.store import damaged

    records = [_stored(path) for path in options.files] if options.files else None
    faults = [] if options.files else [error.what for error in damaged()]
    if options.out is None:
        print_json(export(records))
        return DONE
    count = export_to(options.out, records)
    told: ExportedJSON = {"schema": 1, "out": str(options.out), "records": count, "damaged": faults}
    answer(options.json, told, f"{count} records in {options.out}", *(f"left out: {fault}" for fault in faults))
    return DONE


def _import(options: argparse.Namespace) -> int:
    from ..loaders.lineage.exchange import import_from

    done = import_from(options.source)
    kinds = ("new", done.new), ("updated", done.updated), ("unchanged", done.unchanged), ("refused", done.refused)
    counts = ", ".join(f"{len(names)} {kind}" for kind, names in kinds)
    refused = (f"refused: {name}: {reason}" for name, reason in done.refused)
    told: ImportedJSON = {
        "schema": 1, "new": [*done.new], "updated": [*done.updated], "unchanged": [*done.unchanged],
        "refused": [[*each] for each in done.refused],
    }  # fmt: skip
    answer(options.json, told, counts, *refused)
    return STOPPED if done.refused else DONE


def _read(options: argparse.Namespace) -> int:
    from ..loaders.evidence.reading import read_evidence
    from ..loaders.lineage.record import Record, claim_json
    from ..loaders.lineage.store import save
    from ..loaders.lineage.subjects import resolve

    lora = _subject(options.lora) if options.lora else None
    at = None if lora is None else lora.path
    claims = read_evidence(options.source, at, _hash(lora), options.run_name)
    folders = [path.absolute().parent for path in (options.source, at) if path]
    claims = resolve(claims, [*folders, Path.cwd()])
    if lora is not None and claims:
        save(Record(lora.ids, lora.name, lora.family, claims))
    told: ReadJSON = {
        "schema": 1, "source": str(options.source), "claims": [claim_json(claim) for claim in claims],
        "stored_for": list(lora.ids) if lora and claims else None,
    }  # fmt: skip
    lines = [claims_table(claims), *found_lines(claims), *_written(lora.name if lora else None)]
    lines = lines if claims else [f"{options.source.name} says nothing about base LoRAs."]
    answer(options.json, told, *lines)
    return DONE


def _weigh(options: argparse.Namespace) -> int:
    from ..loaders.plans.weighing import CONTAINS, weigh
    from ..loaders.remote.names import label_of

    with from_elsewhere() as asking, Bar(f"weighing {label_of(options.file)}") as bar:
        told = weigh(options.file, options.contains, options.original, bar, asking)
    strength = told["coefficient"] if told["verdict"] == CONTAINS and told["kind"] == "checkpoint" else None
    kept = options.record and strength is not None
    if strength is not None and kept:
        _keep_inside(options, strength)
    weighed: WeighJSON = {"schema": 1, **told, "kept": kept}
    answer(options.json, weighed, told["says"], *_written(label_of(options.file) if kept else None))
    return DONE


def _written(name: str | None) -> list[str]:
    return [f"Written down for {name}."] if name else []


def _keep_inside(options: argparse.Namespace, strength: float) -> None:
    """A checkpoint's record that a LoRA is inside it, by its weights."""
    from ..engine.lineage import DERIVED, Contained
    from ..loaders.lineage.record import Record
    from ..loaders.lineage.store import save
    from ..loaders.lineage.subjects import name_lora
    from ..loaders.remote.names import Remote, label_of

    subject, lora = _subject(options.file), options.contains
    source = f"its weights, compared with {label_of(options.original)}"
    with from_elsewhere() as asking:
        named = name_lora(lora.url if isinstance(lora, Remote) else str(lora), round(strength, 2), None, asking)
    inside = Contained(named, DERIVED, source)
    save(Record(subject.ids, subject.name, subject.family, (), (inside,)))


def _stamp(options: argparse.Namespace) -> int:
    from ..loaders.disk.stamping import stamp
    from ..loaders.lineage.subjects import lineage_metadata, open_lora_subject
    from ..loaders.remote.names import Remote, label_of

    # the copy of one from elsewhere comes to lie in the current folder
    file = Path(options.file.file) if isinstance(options.file, Remote) else options.file
    out = options.out or file.with_name(f"{file.stem}_lineage{file.suffix}")
    if out.exists() and (options.out is None or (file is options.file and out.samefile(file))):
        raise refuse("usage.lineage_there", out=out.name)
    with from_elsewhere() as asking, _hashing(label_of(options.file)) as bar:
        subject = open_lora_subject(options.file, bar, asking)
    stamp(subject.path, out, lineage_metadata(subject))
    told: StampedJSON = {"schema": 1, "out": str(out), "ids": list(subject.ids)}
    answer(options.json, told, str(out))
    return DONE


# --- files ------------------------------------------------------------------------------------------------------------


def _subject(file: Where) -> Subject:
    from ..loaders.lineage.subjects import open_subject
    from ..loaders.remote.names import label_of

    with from_elsewhere() as asking, _hashing(label_of(file)) as bar:
        return open_subject(file, bar, asking)


def _hashing(name: str) -> Bar:
    return Bar(f"hashing {name}", in_bytes=True)


def _stored(file: Where) -> Record:
    from ..loaders.lineage.store import read

    subject = _subject(file)
    record = read(subject.ids)
    if record is None:
        raise refuse("lineage.no_record", file=subject.name)
    return record


def _hash(subject: Subject | None) -> str:
    from ..engine.lineage import FILE_ID

    ids = subject.ids if subject else ()
    return next((id.removeprefix(FILE_ID) for id in ids if id.startswith(FILE_ID)), "")


def _ingredients(names: Sequence[str] | None, strengths: Sequence[float] | None = None) -> Any:
    """The LoRAs an option names: None where it is not given, () for ``none``."""
    from ..loaders.lineage.subjects import name_lora
    from ..loaders.remote.names import masked

    if not names:
        if strengths:
            raise refuse("usage.lineage_strength")
        return None
    if names == [NONE]:
        return ()
    if NONE in names or SAME in names:
        raise refuse("usage.lineage_alone", none=NONE, same=SAME)
    given: Sequence[float | None] = strengths or [None]
    if len(given) not in (1, len(names)):
        raise refuse(
            "usage.lineage_strengths", strengths=counted(len(given), "strength"), loras=counted(len(names), "LoRA")
        )
    each = [*given, *[given[0]] * (len(names) - len(given))]
    with from_elsewhere() as asking, _hashing(", ".join(map(masked, names))) as bar:
        return tuple(name_lora(name, strength, bar, asking) for name, strength in zip(names, each, strict=True))
