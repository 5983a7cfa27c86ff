"""Files and how they match: what LF301 to LF306 say. A row: severity, what was seen, why it matters, what to do."""

from __future__ import annotations

FILES: dict[str, tuple[str, ...]] = {
    "LF306.missing": (
        "error",
        "{name} (node {at}) is not in the folder {folder}.",
        "ComfyUI refuses the workflow, or a loader of another pack leaves the file out without a word.",
        "Download it, or choose another one.",
    ),
    "LF306.near": (
        "error",
        "{name} (node {at}) is not in the folder {folder}.",
        "ComfyUI refuses the workflow, or a loader of another pack leaves the file out without a word.",
        "Did you mean {near}?",
    ),
}
