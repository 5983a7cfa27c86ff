"""The JSON of a batch, as types: ``docs/batch.schema.json`` is made of them. Imports nothing slow."""

from __future__ import annotations

from typing import Annotated, TypedDict

from .json_bake import SHA256, Error
from .json_types import Count, ErrorJSON, Findings, Gain

Name = Annotated[str, "Of the result without its ending: that of the document."]


class _StateJSON(TypedDict):
    path: str
    size: Count | None
    mtime_ns: Annotated[int | None, "When it was last changed, in nanoseconds."]
    inode: Annotated[int | None, "Its number in its file system."]


class FileJSON(_StateJSON, total=False):
    """A file as it was: all three are null for one that was not there. An object of a bucket has size and ETag."""

    etag: Annotated[str, "What a bucket tells one state of an object from another by."]


class BatchResultJSON(TypedDict):
    """What became of one document."""

    name: Name
    document: str
    state: Annotated[str, ("enum", ("made", "unchanged", "failed")), "unchanged: it was there already."]
    out: Annotated[str | None, "The file; null where there is none."]
    bytes: Annotated[Count | None, "Its size."]
    base: Annotated[str | None, "The base it was made of, where that is known."]
    recipe_sha256: SHA256 | None
    error: Annotated[ErrorJSON | None, "Why it failed."]


class KeptJSON(TypedDict):
    """What a LoRA's share of its effect is in a result of a batch."""

    path: str
    weight: float
    gain: Gain | None


class BatchRecordJSON(BatchResultJSON):
    """``records/NAME.json``: one document of a batch, written when it is done with."""

    schema: Annotated[int, ("const", 1)]
    run: Annotated[str, "Which run of the batch wrote it."]
    document_sha256: Annotated[str, "Of the document, or empty where it could not be read."]
    asked: Annotated[str, "Hash over the options of the batch and the version of the maths."]
    inputs: Annotated[list[FileJSON], "Every file it was made of, and those that were looked for beside them."]
    files: Annotated[list[FileJSON], "The result as it was left."]
    base_identity: Annotated[str, "Hash over the contents of the base, or empty."]
    findings: Findings
    loras: list[KeptJSON]
    relative_error: Error | None
    arithmetic: Annotated[str, "How and where sums were taken, which decides their last bits."]
    together: Annotated[Count, "How many documents shared the reading of the base."]
    seconds: Annotated[float, "Of their common pass."]
    cpu_seconds: Annotated[float, "Processor time of that pass, of all threads."]
    peak_rss_bytes: Annotated[Count, "The most memory that the process held until then."]
    worker: Annotated[str, "Machine and process."]


class CountsJSON(TypedDict):
    """How many documents came to what."""

    made: Count
    unchanged: Count
    failed: Count


class ManifestJSON(TypedDict):
    """``manifest.json``: all results of a folder, built from its records."""

    schema: Annotated[int, ("const", 1)]
    results: Annotated[list[BatchResultJSON], "By name."]


class BatchJSON(TypedDict):
    """`lora-foundry batch DOCUMENT ... --json`."""

    ok: Annotated[bool, "Whether every document has its result."]
    manifest: str
    counts: CountsJSON
    results: Annotated[list[BatchResultJSON], "In the order of the documents."]
    seconds: float


class UnitJSON(TypedDict):
    """What one worker does at once."""

    base: str | None
    base_bytes: Count
    documents: list[str]
    memory_bytes: Annotated[Count, "What its process holds at most, about."]


class DryRunJSON(TypedDict):
    """`lora-foundry batch DOCUMENT ... --dry-run --json`: what would be done."""

    dry_run: Annotated[bool, ("const", True)]
    workers: Count
    units: list[UnitJSON]
    unchanged: list[Name]
    failed: Annotated[list[BatchResultJSON], "Documents that could not be read; the others are planned by the workers."]
