"""One error family: every message says what was seen, why it matters and what to do next."""

from __future__ import annotations

from typing import cast

from .findings import Finding, Values
from .json_types import ErrorJSON


class FoundryError(Exception):
    """Input that cannot be worked with, or a result that did not pass its own check.

    ``code`` is a finding code (``LF301``) or a short word for the area (``file``, ``document``, ``host``).
    The text alone is enough to act on; no other exception type leaves the pack for bad input. ``text`` and ``values``
    are those of a finding: empty for the words of an area, which have no entry in the text tables.
    """

    __module__ = "lora_foundry"  # ComfyUI names modules by path; a user's folders do not belong into bug reports

    def __init__(self, code: str, what: str, why: str = "", fix: str = "", text: str = "", values: Values = ()) -> None:
        self.code, self.what, self.why, self.fix, self.text, self.values = code, what, why, fix, text, values
        super().__init__(" ".join(part for part in (f"[{code}] {what}", why, fix) if part))

    @classmethod
    def of(cls, finding: Finding) -> FoundryError:
        """A finding that stops a run."""
        return cls(finding.code, finding.seen, finding.why, finding.fix, finding.text, finding.values)

    def finding(self, subject: str = "", severity: str = "error", node: str = "") -> Finding:
        """The same verdict as data, for reports that list errors beside warnings."""
        parts = (self.code, severity, self.what, self.why, self.fix)
        return Finding(*parts, subject=subject, node=node, text=self.text, values=self.values)

    def to_json(self) -> ErrorJSON:
        """The error as plain data for command line, HTTP and browser: in English, with what a translation needs."""
        told = {"code": self.code, "what": self.what, "why": self.why, "fix": self.fix}
        return cast(ErrorJSON, {**told, "text": self.text, "values": dict(self.values)})
