"""A finding is one verdict: code, severity, what was seen, why it matters, what to do, how sure we are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, cast

from .fixes import fix_actions
from .json_types import FindingJSON

SEVERITIES = ("error", "warning", "question", "note")  # worst first
EVIDENCE = ("declared", "derived", "guessed", "unknown")
Values = tuple[tuple[str, str], ...]  # of the blanks of a text


@dataclass(frozen=True)
class Finding:
    """One verdict (``LF1xx`` order and base, ``LF2xx`` quantization, ``LF3xx`` files, ``LF4xx`` strengths, conflicts).

    ``subject`` is the file it is about, ``node`` the graph node. ``text`` names the entry of ``texts.TEXTS`` whose
    blanks ``values`` fill, for translations; both are empty for an error of an area (``file``, ``document`` ...).
    """

    code: str
    severity: str
    seen: str
    why: str = ""
    fix: str = ""
    evidence: str = "derived"
    subject: str = ""
    node: str = ""
    text: str = ""
    values: Values = ()

    def __post_init__(self) -> None:
        if self.severity not in SEVERITIES or self.evidence not in EVIDENCE:
            raise ValueError(f"unknown severity or evidence in {self!r}")

    def to_json(self) -> FindingJSON:
        """The finding as plain data, the same for node, command line, HTTP and browser."""
        values = dict(self.values)
        fixes = fix_actions(self.text, self.node, values)
        return cast(FindingJSON, {**asdict(self), "values": values, **({"fix_actions": fixes} if fixes else {})})

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Finding:
        """What ``to_json`` made."""
        told = {key: value for key, value in data.items() if key != "fix_actions"}  # follows from the rest
        return cls(**{**told, "values": tuple(data.get("values", {}).items())})

    def sentence(self) -> str:
        """One line a person reads: ``LF302 warning: seen. why fix``; an area's error as everywhere: ``[file] seen``."""
        area = self.severity == "error" and not self.code.startswith("LF")
        first = f"[{self.code}] {self.seen}" if area else f"{self.code} {self.severity}: {self.seen}"
        return " ".join(part for part in (first, self.why, self.fix) if part)


def worst_first(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Findings without repeats, errors first, otherwise in the order they were found."""
    return tuple(sorted(dict.fromkeys(findings), key=lambda finding: SEVERITIES.index(finding.severity)))


def stops(findings: Iterable[Finding], strict: bool = False) -> bool:
    """Whether these findings stop a run: any error, and in strict mode any warning too."""
    return any(f.severity == "error" or (strict and f.severity == "warning") for f in findings)
