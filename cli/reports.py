"""The findings of many files in the forms that CI shows: SARIF 2.1.0 for code scanning, JUnit for lists of tests."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from .. import __version__
from ..engine.errors import FoundryError
from ..engine.findings import Finding

HOME = "https://github.com/lora-foundry/ComfyUI-LoRA-Foundry"
LEVELS = {"error": "error", "warning": "warning", "question": "note", "note": "note"}
# What XML cannot hold, not even escaped: names in files may have it.
UNPRINTED = re.compile("[^\t\n\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True)
class Checked:
    """A file and its verdict; ``error``: why it could not be judged."""

    file: Path
    ok: bool
    findings: tuple[Finding, ...] = ()
    error: FoundryError | None = None


def findings_of(checked: Checked) -> list[Finding]:
    """What was found in a file; an error that is none of its findings is one more."""
    error = checked.error
    found = list(checked.findings)
    if error is not None and all(finding.seen != error.what for finding in found):
        found.insert(0, error.finding())
    return found


def sarif(found: Sequence[Checked]) -> str:
    """One run with a result for each finding, at the first line of its file."""
    results = [_result(each.file, finding) for each in found for finding in findings_of(each)]
    codes = sorted({str(result["ruleId"]) for result in results})
    rules = [{"id": code, "helpUri": f"{HOME}/blob/main/docs/messages.md"} for code in codes]
    driver = {"name": "LoRA Foundry", "version": __version__, "informationUri": HOME, "rules": rules}
    runs = [{"tool": {"driver": driver}, "columnKind": "unicodeCodePoints", "results": results}]
    schema = "https://json.schemastore.org/sarif-2.1.0.json"
    return json.dumps({"$schema": schema, "version": "2.1.0", "runs": runs}, indent=1) + "\n"


def _result(file: Path, finding: Finding) -> dict[str, Any]:
    place = {"artifactLocation": {"uri": _uri(file)}, "region": {"startLine": 1}}
    return {
        "ruleId": finding.code,
        "level": LEVELS[finding.severity],
        "message": {"text": " ".join(filter(None, (finding.seen, finding.why, finding.fix)))},
        "locations": [{"physicalLocation": place}],
    }


def _uri(file: Path) -> str:
    """A relative path stays relative, so that it is found in the repository."""
    return file.as_uri() if file.is_absolute() else quote(file.as_posix())


def junit(found: Sequence[Checked]) -> str:
    """A test case for each file: failed where something stops it, an error where it could not be judged."""
    failed = sum(not each.ok and each.error is None for each in found)
    broken = sum(each.error is not None for each in found)
    counts = f'tests="{len(found)}" failures="{failed}" errors="{broken}"'
    lines = ['<?xml version="1.0" encoding="UTF-8"?>', f"<testsuites {counts}>"]
    lines += [f'<testsuite name="lora-foundry check" {counts}>', *map(_case, found), "</testsuite>", "</testsuites>"]
    return "\n".join(lines) + "\n"


def _case(checked: Checked) -> str:
    said = findings_of(checked)
    text = _escaped("\n".join(finding.sentence() for finding in said))
    begin = f'<testcase classname="lora-foundry check" name="{_escaped(checked.file.as_posix())}"'
    if checked.ok:
        return f"{begin}><system-out>{text}</system-out></testcase>" if said else f"{begin}/>"
    kind, first = "failure" if checked.error is None else "error", said[0]
    return f'{begin}><{kind} type="{first.code}" message="{_escaped(first.seen)}">{text}</{kind}></testcase>'


def _escaped(text: str) -> str:
    return html.escape(UNPRINTED.sub("\ufffd", text))
