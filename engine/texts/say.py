"""What findings say, as templates: one entry a situation, so that a translator and a reader find all of them here.

``say`` fills the blanks, and ``refuse`` makes an error of them. A key is a code, or the area of an error, and a word:
``LF102.missing``, ``usage.memory``. The browser finds translations of the same keys under ``loraFoundry.findings`` in
``locales/<language>/main.json``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..errors import FoundryError
from ..findings import Finding
from .areas import AREAS
from .areas_convert import CONVERT
from .areas_remote import REMOTE
from .asking import ASKING
from .disk import DISK
from .documents import DOCUMENTS
from .lf1 import ORDER
from .lf2 import QUANTIZATION
from .lf3 import FILES
from .lf4 import USE
from .lf5 import MERGING
from .lf304 import MEANING
from .lf504 import WRITING
from .loading import LOADING


@dataclass(frozen=True)
class Text:
    """Severity where it does not depend on the evidence, and what was seen, why it matters, what to do."""

    severity: str
    seen: str
    why: str = ""
    fix: str = ""


TABLES = (
    AREAS,
    ASKING,
    DISK,
    DOCUMENTS,
    LOADING,
    CONVERT,
    REMOTE,
    ORDER,
    QUANTIZATION,
    FILES,
    MEANING,
    USE,
    MERGING,
    WRITING,
)
TEXTS = {key: Text(*parts) for table in TABLES for key, parts in table.items()}


def say(
    key: str, *, severity: str = "", evidence: str = "derived", subject: str = "", node: str = "", **values: object
) -> Finding:
    """The finding of a text with its blanks filled. Raises KeyError for an unknown key or a blank without a value."""
    return _filled(key, values, severity, evidence, subject, node)


def say_of(lora: str, key: str, **values: object) -> Finding:
    """The same about a LoRA file: ``lora`` is the subject and fills the blank of this name."""
    return _filled(key, {"lora": lora, **values}, subject=lora)


def refuse(key: str, **values: object) -> FoundryError:
    """The same as an error to raise, whatever the severity of the text."""
    return FoundryError.of(_filled(key, values))


def counted(count: int, what: str) -> str:
    """``1 file``, ``2 files``."""
    return f"{count} {what}" + ("" if count == 1 else "s")


def listed(names: Sequence[str], most: int = 20) -> str:
    """Names in a row, and how many more there are beyond those that anybody reads."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _filled(
    key: str,
    values: Mapping[str, object],
    severity: str = "",
    evidence: str = "derived",
    subject: str = "",
    node: str = "",
) -> Finding:
    text = TEXTS[key]
    filled = {name: str(value) for name, value in values.items()}
    seen, why, fix = (part.format_map(filled) for part in (text.seen, text.why, text.fix))
    code = key.partition(".")[0]
    return Finding(code, severity or text.severity, seen, why, fix, evidence, subject, node, key, tuple(filled.items()))
