"""``convert``: a workflow of native LoRA loaders as one with our stages, into a file of its own."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from ..engine.texts.say import refuse
from .check import model_folders
from .looks import room, tell
from .shared import DONE, STOPPED, print_json, refuse_same, write_text
from .terminal import table

if TYPE_CHECKING:
    from ..engine.json_types import ConvertedJSON
    from ..loaders.converting.convert import Conversion


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What ``convert`` takes."""
    kinds = "a workflow (UI or API JSON), or a picture with one inside"
    parser.add_argument("workflow", metavar="FILE", type=Path, help=kinds)
    out = "the new workflow, in the form the old one has"
    parser.add_argument("-o", "--out", metavar="FILE", type=Path, required=True, help=out)
    where = "ComfyUI's models folder, for the files it names; default: that of COMFYUI_PATH"
    parser.add_argument("--models", metavar="FOLDER", type=Path, action="append", help=where)


def run(options: argparse.Namespace) -> int:
    """Convert the file; it is read only, and nothing is written where nothing was converted."""
    from ..loaders.converting.convert import convert
    from ..loaders.lineage.provenance import lineage_of
    from ..loaders.workflows.reading import read_data

    refuse_same(options.workflow, options.out)
    data, _ = read_data(options.workflow)
    found = convert(data, model_folders(options.models or ()), lineage_of, options.workflow.name)
    if found.converted:
        write_text(options.out, json.dumps(found.made, indent=2, ensure_ascii=False) + "\n")
    if options.json:
        print_json(found.to_json())
    else:
        _print(found, options.out)
    return DONE if found.converted else STOPPED


def _print(found: Conversion, out: Path) -> None:
    for each in found.converted:
        print(f"base   {each['base'] or 'the MODEL that was wired'}, {each['finish']}")
        print(table(_rows(each), ("stage", "LoRA", "strength", "CLIP", "on"), room()))
    left = found.left or ([] if found.converted else [refuse("convert.nothing").finding(severity="note")])
    tell(*(finding.sentence() for finding in left))
    tell(f"Written to {out}." if found.converted else "Nothing was converted, and nothing written.")


def _rows(each: ConvertedJSON) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = [("fuse", row["path"], f"{row['strength']:g}", "", "yes") for row in each["fused"]]
    for row in each["stacked"]:
        on = "yes" if row["on"] else "no"
        rows.append(("stack", row["path"], f"{row['strength']:g}", f"{row['clip_strength']:g}", on))
    return rows
