"""What a file is, whatever it is called: recomputed hashes of its bytes, never what it says of itself.

Nothing is hashed before someone asks, and listing files does not ask.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from ...engine.lineage import FILE_ID, TENSORS_ID
from ...engine.progress import Progress
from ..disk.hashes import file_hashes

NOTHING = hashlib.sha256().hexdigest()  # of no bytes: it is found in metadata, and tells no file from another


@dataclass(frozen=True)
class Identity:
    """Recomputed sha256 (hex) of the whole file, and of the bytes after its header (empty: no safetensors file).

    The first is Civitai's SHA256 and Hugging Face's etag, the second AutoV3 and the addnet hash (first 12 digits).
    """

    sha256: str
    tensor_sha256: str = ""

    @property
    def ids(self) -> tuple[str, ...]:
        """What the file can be recognised by: ``sha256:...``, ``tensors:...``; no bytes are no identity."""
        both = ((FILE_ID, self.sha256), (TENSORS_ID, self.tensor_sha256))
        return tuple(f"{kind}{digest}" for kind, digest in both if identifies(digest))


def identify_file(path: Path, on_step: Progress | None = None) -> Identity:
    """Both hashes, in one pass over the bytes, or from the cache where the file was hashed before and is unchanged.

    ``on_step(done, total)`` is called with bytes after each piece; what it raises ends the hashing. Raises FoundryError
    ``file`` for a file that is missing, cannot be read or changes meanwhile.
    """
    found = file_hashes(path, on_step)
    return Identity(found.file, found.tensors or "")


def identifies(digest: str) -> bool:
    """Whether this is a whole sha256 in lower-case hex, of something."""
    return bool(re.fullmatch(r"[0-9a-f]{64}", digest)) and digest != NOTHING
