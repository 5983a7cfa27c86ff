"""The verb ``inspect``: what a model, LoRA or calibration is, in facts and findings; and the table of dialects."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..engine.findings import Finding, stops
from ..engine.json_verbs import DialectsJSON
from ..engine.texts.say import refuse
from ..engine.units import size
from .shared import DONE, STOPPED, answer, from_elsewhere, print_findings, print_json
from .terminal import span, table


def inspect(options: argparse.Namespace) -> int:
    """What a file is; 1 when a finding stops it. Raises FoundryError."""
    from ..loaders.bakes.calibrations import describe_calibration, is_calibration
    from ..loaders.plans.describe import describe

    if options.dialects:
        return _dialects(options.json)
    if options.file is None:
        raise refuse("usage.inspect")
    with from_elsewhere() as asking:
        local = isinstance(options.file, Path) and is_calibration(options.file)
        facts: Mapping[str, Any] = describe_calibration(options.file) if local else describe(options.file, asking)
    findings = [Finding.from_json(finding) for finding in facts["findings"]]
    if options.json:
        print_json(facts)
    else:
        print(table(_facts(facts)))
        print_findings(findings)
    return STOPPED if stops(findings) else DONE


def _dialects(as_json: bool) -> int:
    """The table that detection goes by."""
    from ..loaders.loras.layouts import dialect_table

    told: DialectsJSON = {"dialects": dialect_table()}
    rows = [[row["name"], row["writers"], row["prefix"] or "-", row["alpha"]] for row in told["dialects"]]
    answer(as_json, told, table(rows, ("name", "writers", "prefix", "alpha")))
    return DONE


def _facts(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The facts of ``inspect`` as lines: names left, values right, nothing longer than a screen."""
    from ..loaders.disk.header import shown

    rows = []
    for name, value in facts.items():
        if name in TOLD_ELSEWHERE or value in (None, "", {}, []):
            continue
        text = str(WRITTEN[name](value) if name in WRITTEN else _first(value))
        if name == "role":
            text = f"{value} ({facts['role_evidence']}: {facts['role_why']})"
        rows.append(("size" if name == "bytes" else name.replace("_", " "), shown(text, 400)))
    if facts.get("made_by"):
        rows += _recipe(facts["made_by"])
    return rows + [(f"metadata {shown(key, 40)}", shown(text, 100)) for key, text in facts["metadata"].items()]


def _first(value: object) -> object:
    """A list of files by its first one; everything else as it is."""
    if not isinstance(value, list):
        return value
    return f"{len(value)} files, first {value[0]}" if len(value) > 1 else value[0]


def _pairs(form: str) -> Callable[[dict[str, Any]], str]:
    """Writes each key and value of a table in this form."""
    return lambda table: ", ".join(form.format(key, value) for key, value in table.items())


def _some(value: list[str]) -> str:
    return ", ".join(value[:5]) + (f" and {len(value) - 5} more" if len(value) > 5 else "")


def _lineage(lineage: dict[str, Any]) -> str:
    """What counts of a lineage, in one line; ``lineage show`` tells all of it."""
    told = {"trained with": ("trained", "trained_with"), "use with": ("used", "use_with")}
    lines = []
    for what, (counted, field) in told.items():
        if lineage[counted] is not None:
            claim = lineage["claims"][lineage[counted]]
            names = ", ".join(each["name"] for each in claim[field]) or "no base LoRA"
            lines.append(f"{what} {names} ({claim['evidence']['level']}: {claim['evidence']['source']})")
    return "; ".join(lines) or "nobody says what it was trained with"


# how ``inspect`` writes a fact that is more than one word or number
TOLD_ELSEWHERE = ("findings", "metadata", "made_by", "role_evidence", "role_why")
WRITTEN: Mapping[str, Callable[[Any], str]] = {
    "bytes": size,
    **dict.fromkeys(("rank", "alpha", "scale"), lambda value: span(*value)),
    **dict.fromkeys(("dtypes", "adapters", "alpha_from"), _pairs("{1} x {0}")),
    "blocks": _pairs("{1[modules]} in {1[blocks]} {0}"),
    "variant": _pairs("{0} {1}"),
    "lineage": _lineage,
    **dict.fromkeys(("tags", "unused", "loras", "others"), _some),
}


def _recipe(record: dict[str, Any]) -> list[tuple[str, str]]:
    from ..loaders.disk.header import shown

    recipe = record["recipe"]
    rows = [("made by", f"LoRA Foundry, recipe {shown(str(record.get('recipe_sha256')))}")]
    for key in ("base", "finish"):
        rows.append((f"  {key}", shown(json.dumps(recipe.get(key)))))
    layers = recipe.get("layers")
    return rows + [("  layer", shown(json.dumps(layer))) for layer in (layers if isinstance(layers, list) else ())]
