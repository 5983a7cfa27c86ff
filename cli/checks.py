"""``check`` of several files or a folder: each judged by itself, a line each, and a report that CI can show."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..engine.errors import FoundryError
from ..engine.findings import stops
from ..engine.texts.say import counted, refuse
from . import own
from .check import NOT_LOOKED_AT, PICTURES, is_workflow, judge_document, judge_workflow, model_folders, run_one
from .looks import looks
from .reports import Checked, junit, sarif
from .shared import DONE, STOPPED, Refused, print_json

if TYPE_CHECKING:
    from ..engine.json_types import ChecksJSON
    from ..loaders.lint.model_folders import ModelFolders

TEXTS = (".yaml", ".yml", ".json")
KINDS = ("error", "warning", "question", "note")


def run(options: argparse.Namespace) -> int:
    """Check the one file, or the stack the options name; of several files each."""
    if own.is_own(options) == bool(options.documents):
        raise refuse("usage.check_one")
    if options.format or len(options.documents) > 1 or any(path.is_dir() for path in options.documents):
        return _run_many(options)
    return run_one(options, next(iter(options.documents), None))


def _run_many(options: argparse.Namespace) -> int:
    """Check every file by itself; what is wrong with one stops none of the others. 1 where any of them is not OK."""
    if options.json and options.format:
        raise refuse("usage.two_forms")
    if options.apply_fixes is not None:
        raise refuse("usage.fixes_of_one")
    if options.pictures is not None:
        raise refuse("usage.pictures_of_one")
    find = model_folders(options.models or ())
    wanted = list(_files(options.documents)) if options.documents else [None]
    if not wanted:
        raise refuse("usage.nothing_to_check", folders=", ".join(map(str, options.documents)))
    found = [_checked(path, options, find) for path in wanted]
    if options.format:
        print({"sarif": sarif, "junit": junit}[options.format](found), end="")
    elif options.json:
        print_json(_json(found))
    else:
        _print(found, find is None and any(path is not None and is_workflow(path) for path in wanted))
    return DONE if all(each.ok for each in found) else STOPPED


def _files(given: Sequence[Path]) -> Iterator[Path]:
    """The files that are named, and of a folder those below it that are documents or workflows by their looks."""
    for path in given:
        if not path.is_dir():
            yield path
            continue
        inside = (each for each in sorted(path.rglob("*")) if each.is_file() and not _is_hidden(each, path))
        yield from (each for each in inside if _is_meant(each))


def _is_hidden(path: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(folder).parts)


def _is_meant(path: Path) -> bool:
    """Whether a file of a folder is a stack document, a workflow, or a picture with one."""
    from ..loaders.documents.document import looks_like_document
    from ..loaders.workflows.images import embedded

    suffix = path.suffix.lower()
    try:
        if suffix in PICTURES:
            return bool(embedded(path))
        return suffix in TEXTS and (is_workflow(path) or looks_like_document(path))
    except FoundryError:
        return False


def _checked(path: Path | None, options: argparse.Namespace, find: ModelFolders | None) -> Checked:
    file = path or Path("command line")
    try:
        if path is not None and is_workflow(path):
            found = judge_workflow(options, path, find)
            return Checked(file, found.ok, found.findings)
        findings = judge_document(options, path)[1]
        return Checked(file, not stops(findings, options.strict), findings)
    except Refused as refused:
        return Checked(file, False, refused.findings, refused.error)
    except FoundryError as error:
        return Checked(file, False, (), error)


def _json(found: Sequence[Checked]) -> ChecksJSON:
    return {
        "ok": all(each.ok for each in found),
        "files": [
            {
                "file": str(each.file),
                "ok": each.ok,
                "findings": [finding.to_json() for finding in each.findings],
                "error": None if each.error is None else each.error.to_json(),
            }
            for each in found
        ],
    }


def _print(found: Sequence[Checked], unseen: bool) -> None:
    """A line for each, its findings below it, and the sum; ``unseen``: the files of workflows were not looked at."""
    for each in found:
        print(looks(f"{'OK     ' if each.ok else 'STOPPED'} {each.file}"))
        said = [finding.sentence() for finding in each.findings] or ([str(each.error)] if each.error else [])
        print(*(f"{looks(line, lead='  ')}\n" for line in said), sep="", end="")
    counts = {kind: sum(finding.severity == kind for each in found for finding in each.findings) for kind in KINDS}
    told = ", ".join(counted(count, kind) for kind, count in counts.items() if count)
    stopped = sum(not each.ok for each in found)
    if unseen:
        print(looks(NOT_LOOKED_AT))
    files = counted(len(found), "file")
    print(looks(f"{files}: {len(found) - stopped} OK, {stopped} stopped" + (f"; {told}" if told else "")))
