"""One error family: every message says what was seen, why it matters and what to do next."""

from __future__ import annotations

from .findings import Finding


class FoundryError(Exception):
    """Input that cannot be worked with, or a result that did not pass its own check.

    ``code`` is a finding code (``LF301``) or a short word for the area (``file``, ``document``, ``host``).
    The text alone is enough to act on; no other exception type leaves the pack for bad input.
    """

    __module__ = "lora_foundry"  # ComfyUI names modules by path; a user's folders do not belong into bug reports

    def __init__(self, code: str, what: str, why: str = "", fix: str = "") -> None:
        self.code, self.what, self.why, self.fix = code, what, why, fix
        super().__init__(" ".join(part for part in (f"[{code}] {what}", why, fix) if part))

    def finding(self, subject: str = "") -> Finding:
        """The same verdict as data, for reports that list errors beside warnings."""
        return Finding(self.code, "error", self.what, self.why, self.fix, subject=subject)


class Cancelled(Exception):
    """The user stopped the run. Not a FoundryError: nothing was wrong with the input."""
