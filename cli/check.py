"""``lora-foundry check``: a stack document, or a workflow of ComfyUI in any form, without computing anything."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..engine.findings import stops
from ..engine.texts.say import refuse
from . import own
from .looks import looks, room
from .shared import (
    ALLOW_PARTIAL,
    DONE,
    DRAWN,
    STOPPED,
    planned,
    print_findings,
    print_json,
    print_layers,
    refuse_nowhere,
    refuse_same,
    spelled,
    trained_with,
    write_picture,
    write_text,
)
from .terminal import note, table

if TYPE_CHECKING:
    from ..engine.findings import Finding
    from ..engine.json_types import StackLoRAJSON
    from ..engine.plan import Plan
    from ..loaders.lint.lint import Lint
    from ..loaders.lint.model_folders import ModelFolders

PICTURES = (".png", ".webp", ".jpg", ".jpeg")
STOP, FINE = "Stopped: correct what is listed above.", "OK: nothing stops this "
PARTLY = "Checked in part: LF108 names the LoRAs that were not followed; of the others nothing stops this workflow."
FIXES = "write the workflow there with every fix that a finding names, as its buttons in the browser make it"
NOT_LOOKED_AT = "Files were not looked at: name ComfyUI's models folder with --models."
UNREAD = "Stopped: LF108 names LoRAs that were not followed."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What ``check`` takes."""
    kinds = "a stack document (YAML, JSON), a workflow (UI or API JSON), or a picture with one inside"
    more = "; several, or a folder with some in it, are summed up"
    parser.add_argument("documents", metavar="FILE", type=Path, nargs="*", help=kinds + more)
    own.add_arguments(parser)
    parser.add_argument("--pictures", metavar="FOLDER", type=Path, help=DRAWN)
    parser.add_argument("--strict", action="store_true", help="warnings stop it too")
    parser.add_argument("--allow-partial", action="store_true", help=ALLOW_PARTIAL)
    chosen = "match training: warn about a base LoRA that a LoRA was not trained with; the default: a note"
    old = spelled({"training": "match training", "accelerators": "allow accelerators"})
    policies = ("match training", "allow accelerators")
    parser.add_argument("--policy", choices=policies, type=old, default="allow accelerators", help=chosen)
    where = "ComfyUI's models folder, for the files a workflow names; default: that of COMFYUI_PATH"
    parser.add_argument("--apply-fixes", metavar="OUT", type=Path, help=FIXES)
    parser.add_argument("--models", metavar="FOLDER", type=Path, action="append", help=where)
    reports = "sarif: for code scanning; junit: for a list of tests"
    parser.add_argument("--format", choices=("sarif", "junit"), help=f"print a report of all files for CI; {reports}")


def run_one(options: argparse.Namespace, path: Path | None) -> int:
    """Check a file, whatever of the two it is, or the stack the options name."""
    return _check_document(options, path) if path is None or not is_workflow(path) else _check_workflow(options, path)


def is_workflow(path: Path) -> bool:
    """Whether a file is a workflow by its looks; what is no file at all is left to the documents to refuse."""
    if path.suffix.lower() in PICTURES:
        return True
    if path.suffix.lower() != ".json" or not path.is_file():
        return False
    from ..loaders.workflows.reading import looks_like_workflow

    return looks_like_workflow(path)


def judge_document(options: argparse.Namespace, path: Path | None) -> tuple[Plan, tuple[Finding, ...]]:
    """A document, or the stack the options name, as a plan with its findings."""
    from ..loaders.documents.document import load_document

    document = load_document(path) if path is not None else own.own_document(options)
    document = replace(document, allow_partial=document.allow_partial or options.allow_partial)
    return planned(document, options.policy, look_into_weights=True)


def judge_workflow(options: argparse.Namespace, path: Path, find: ModelFolders | None) -> Lint:
    """A workflow and what was found in it; ``find``: where its files are looked for."""
    from ..loaders.lineage.provenance import lineage_of
    from ..loaders.lint.lint import lint
    from ..loaders.plans.judged import measured_loudness
    from ..loaders.workflows.reading import read_workflow

    return lint(read_workflow(path), find, lineage_of, options.policy, options.strict, measured_loudness)


def _check_document(options: argparse.Namespace, path: Path | None) -> int:
    if options.apply_fixes is not None:
        raise refuse("convert.document")
    if options.pictures is not None:
        refuse_nowhere(options.pictures / "stack.svg")
    from ..engine.report import document_json, plan_json

    plan, findings = judge_document(options, path)
    stopped = stops(findings, options.strict)
    if options.pictures is not None:
        write_picture(options.pictures, "stack" if path is None else path.stem, plan_json(plan, findings), plan)
    if options.json:
        print_json(document_json(plan, findings, not stopped))
    else:
        print_layers(plan)
        print_findings(findings)
        print(looks(STOP if stopped else f"{FINE}stack."))
    return STOPPED if stopped else DONE


def _check_workflow(options: argparse.Namespace, path: Path) -> int:
    if options.pictures is not None:
        raise refuse("usage.pictures_of_one")
    find = model_folders(options.models or ())
    found = judge_workflow(options, path, find)
    if options.apply_fixes is not None:
        _apply_fixes(options, path, found)
    if options.json:
        print_json(found.to_json())
    else:
        _print_stacks(found)
        print_findings(found.findings)
        if find is None:
            print(looks(NOT_LOOKED_AT))
        print(looks(_verdict(found, find is not None)))
    return DONE if found.ok else STOPPED


def _apply_fixes(options: argparse.Namespace, path: Path, found: Lint) -> None:
    """Write the workflow with the fixes of these findings; what cannot be made is told on stderr."""
    from ..loaders.converting.fixing import apply_fixes
    from ..loaders.lineage.provenance import lineage_of
    from ..loaders.workflows.reading import read_data

    refuse_same(path, options.apply_fixes)
    fixes = [fix for finding in found.findings for fix in finding.to_json().get("fix_actions", ())]
    data, _ = read_data(path)
    made, done, conversion = apply_fixes(data, fixes, model_folders(options.models or ()), lineage_of)
    for finding in conversion.left if conversion else ():
        note(finding.sentence())
    if done:
        write_text(options.apply_fixes, json.dumps(made, indent=2, ensure_ascii=False) + "\n")
    to = f"written to {options.apply_fixes}" if done else "nothing is written"
    note(f"{len(done)} of {len(fixes)} fixes made, {to}.")


def _verdict(found: Lint, looked: bool) -> str:
    """The last line; what was not followed is never OK."""
    if found.complete:
        return f"{FINE}workflow{'' if looked else ', as far as it says itself'}." if found.ok else STOP
    if found.ok:
        return PARTLY
    return STOP if stops(found.findings, strict=True) else UNREAD


def model_folders(given: Sequence[Path]) -> ModelFolders | None:
    """The models folders to look in; None where none is named. FoundryError ``usage`` for a given one that is none."""
    from ..loaders.lint.model_folders import ModelFolders

    tree = os.environ.get("COMFYUI_PATH")
    default = [Path(tree).expanduser() / "models"] if tree else []
    for folder in given:
        if not folder.is_dir():
            raise refuse("usage.no_models", folder=folder)
    roots = [root for root in given or default if root.is_dir()]
    return ModelFolders(roots) if roots else None


def _print_stacks(found: Lint) -> None:
    from ..loaders.disk.header import shown

    columns = ("stage", "LoRA", "strength", "node", "trained with")
    for stack in found.to_json()["stacks"]:
        family = f" ({stack['family']})" if stack["family"] else ""
        print(f"base   {shown(stack['base'] or 'not known')}{family}")
        rows = [_row(lora) for lora in stack["loras"]]
        print(table(rows, columns, room()) if rows else "no LoRA" if found.complete else "no LoRA that was followed")


def _row(lora: StackLoRAJSON) -> tuple[str, ...]:
    from ..loaders.disk.header import shown

    path, strength = shown(lora["path"], 60), f"{lora['weight']:g}"
    return lora["stage"], path, strength, lora["node"], trained_with(lora["lineage"])
