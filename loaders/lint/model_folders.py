"""ComfyUI's model folders seen from outside: the file that a workflow means by a name, without a ComfyUI running."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from ..disk.suffixes import SUFFIXES

# As ComfyUI names them: kind -> subfolders of models/, in the order it looks.
SUBFOLDERS = {
    "loras": ("loras",),
    "diffusion_models": ("unet", "diffusion_models"),
    "checkpoints": ("checkpoints",),
}
MOST = 100_000  # files looked at for one kind


class ModelFolders:
    """The files below one or more ``models`` folders, by kind and name; either slash is understood."""

    def __init__(self, roots: Sequence[Path]) -> None:
        self.roots = tuple(roots)

    def __call__(self, kind: str, name: str) -> Path | None:
        """The file (or sharded folder) of that name, or None; a name that leads out of its folder finds nothing."""
        parts = PurePosixPath(name.replace("\\", "/"))
        if not name or "\0" in name or parts.is_absolute() or ".." in parts.parts or ":" in name:
            return None
        places = (folder / parts for folder in self._folders(kind))
        return next((place for place in places if place.exists()), None)

    def names(self, kind: str) -> list[str]:
        """Names of the weight files of a kind, as ComfyUI lists them."""
        found: list[str] = []
        for folder in self._folders(kind):
            for path in folder.rglob("*"):
                if path.suffix.lower() in SUFFIXES:
                    found.append(path.relative_to(folder).as_posix())
                if len(found) >= MOST:
                    return found
        return sorted(found)

    def _folders(self, kind: str) -> Iterator[Path]:
        for root in self.roots:
            yield from (root / name for name in SUBFOLDERS.get(kind, ()) if (root / name).is_dir())
