"""What is said of files elsewhere (``s3://``, ``hf://``, ``https://``), under the area ``remote``.

A row: severity, what was seen, why it matters, what to do. No text shows a key, a token or a signed address.
"""

from __future__ import annotations

_TRAVELS = "It travels with every document and workflow that names it."

REMOTE: dict[str, tuple[str, ...]] = {
    "remote.scheme": (
        "error",
        "{name} is a kind of address that is not read.",
        "",
        "Use s3://, hf:// or https://, or download the file and name it here.",
    ),
    "remote.elsewhere": (
        "error",
        "{name} is not on this machine, and here only files of this machine are read.",
        "",
        "Download it first.",
    ),
    "remote.plain": ("error", "{name} would come without encryption.", "", "Write https://."),
    "remote.credentials": (
        "error",
        "{name} holds a user name or a password.",
        _TRAVELS,
        "Take it out; credentials come from the environment.",
    ),
    "remote.query": (
        "error",
        "{name} holds a query, what stands behind the question mark.",
        f"It is often a signature or a token. {_TRAVELS}",
        "Name the file without it; for S3 write s3://BUCKET/KEY.",
    ),
    "remote.hash": (
        "error",
        "{name} does not end in a hash.",
        "What stands behind # says what the file must be.",
        "Write #sha256= and its 64 hex digits.",
    ),
    "remote.unhashed": (
        "error",
        "{name} does not say what the file must be.",
        "A web server may send another file tomorrow.",
        "Add #sha256= and its 64 hex digits to the address, or `sha256:` to the row.",
    ),
    "remote.hash_local": (
        "error",
        "{name} is a file of this machine and has a sha256.",
        "It is asked of files elsewhere only.",
        "Leave sha256 out.",
    ),
    "remote.two_hashes": ("error", "{name} has two hashes, and they differ.", "", "Keep one."),
    "remote.form": ("error", "{name} names no file.", "", "Write {form}."),
    "remote.characters": (
        "error",
        "{name} holds a character that no such name has.",
        "It could be read as another address than it looks like.",
        "Rename the file.",
    ),
    "remote.steps": (
        "error",
        "{name} holds an empty part, a . or a .. between its slashes.",
        "It could lead to another file than it looks like.",
        "Write the whole path.",
    ),
    "remote.suffix": (
        "error",
        "{name} is no .safetensors file by its name.",
        "Only safetensors files are read.",
        "Convert it first.",
    ),
    "remote.not_allowed": (
        "error",
        "{place} is not among what the owner of this ComfyUI allows.",
        "A workflow may come from a stranger. Nothing was sent.",
        "To allow it, start ComfyUI with {line} in its environment.",
    ),
}
