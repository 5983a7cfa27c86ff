"""ComfyUI's folders: where model files are, by name, and where this pack may write. Only this file asks for them."""

from __future__ import annotations

import itertools
import posixpath
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import folder_paths

from ..engine.errors import FoundryError
from ..engine.texts.say import refuse
from ..loaders.disk.home import is_synced

BASE_KINDS = ("diffusion_models", "checkpoints")


def model_files(*kinds: str) -> list[str]:
    """Names a user may choose in these model folders, each once."""
    return list(dict.fromkeys(name for kind in kinds for name in folder_paths.get_filename_list(kind)))


def folders_of(names: Iterable[str], kind: str) -> list[Path]:
    """Every folder of this kind in which one of these files may lie."""
    parents = {Path(name).parent for name in names}
    return [root / parent for root in map(Path, folder_paths.get_folder_paths(kind)) for parent in parents]


def find_file(name: str | None, *kinds: str) -> Path:
    """The file of that name inside ComfyUI's folders of these kinds; either slash is understood."""
    return locate(name, *kinds)[0]


def locate(name: str | None, *kinds: str) -> tuple[Path, str]:
    """(path, kind of folder) of the file; FoundryError ``file`` for a missing one, and for a name that is no text."""
    for spelling in dict.fromkeys((name, name.replace("\\", "/"))) if isinstance(name, str) else ():
        for kind in kinds:
            path = folder_paths.get_full_path(kind, spelling)
            if path is not None:
                return Path(path), kind
    raise refuse("file.not_listed", name=repr(name), folders=" or ".join(kinds))


def sharded_folders() -> list[str]:
    """Folders below diffusion_models that hold a sharded model, as names relative to it."""
    found: list[str] = []
    for root in map(Path, folder_paths.get_folder_paths("diffusion_models")):
        found += [
            index.parent.relative_to(root).as_posix() for index in sorted(root.glob("*/*.safetensors.index.json"))
        ]
    return list(dict.fromkeys(found))


def find_base(name: str, *kinds: str) -> tuple[Path, str]:
    """(path, kind) of a base: a file of diffusion_models or checkpoints, or a sharded folder of diffusion_models."""
    if not kinds and name in sharded_folders():
        for root in map(Path, folder_paths.get_folder_paths("diffusion_models")):
            if (root / name).is_dir():
                return root / name, "diffusion_models"
    return locate(name, *(kinds or BASE_KINDS))


def files_of(name: str, *kinds: str) -> list[Path]:
    """The file of that name, or every shard of a sharded folder."""
    path = find_base(name)[0] if kinds == BASE_KINDS else find_file(name, *kinds)
    return sorted(path.glob("*.safetensors*")) if path.is_dir() else [path]


def output_file(prefix: str, steps: int | None = None) -> Path:
    """A new numbered .safetensors path below ComfyUI's output folder; ``steps`` of a training go into its name."""
    folder, stem, counter, _, _ = folder_paths.get_save_image_path(prefix, folder_paths.get_output_directory())
    stem += "" if steps is None else f"_{steps}_steps"  # so Train LoRA reads how far an existing LoRA is
    numbered = (Path(folder) / f"{stem}_{number:05}_.safetensors" for number in itertools.count(counter))
    return next(path for path in numbered if not path.exists())


def name_below(path: Path, kind: str) -> str:
    """What ComfyUI lists a file of its output folder as, in a folder of this kind: a path with forward slashes."""
    return path.relative_to(Path(folder_paths.get_output_directory()) / kind).as_posix()


def user_folder() -> Path:
    """This pack's folder in ComfyUI's user folder; it need not exist."""
    return Path(folder_paths.get_user_directory()) / "lora_foundry"


def bakes_folder() -> Path:
    """Where finished models are kept: below the user folder, or where that is synced beside the models."""
    usual = user_folder() / "bakes"
    return usual if usual.is_dir() or not is_synced(usual) else Path(folder_paths.models_dir) / "lora_foundry_bakes"


def embedding_folders() -> list[str]:
    """Where textual inversions lie, for ComfyUI's own loaders."""
    folders: list[str] = folder_paths.get_folder_paths("embeddings")
    return folders


class Listed:
    """Finds a file that ComfyUI lists, by (kind of folder, name): the path, or None; either slash will do.

    Each kind is listed once, for a workflow names hundreds: make one for each request.
    """

    def __init__(self) -> None:
        self.names = cache(self._names)

    def __call__(self, kind: str, name: str) -> Path | None:
        """The file, or the sharded folder, of that name."""
        if posixpath.normpath(name.replace("\\", "/")) not in self.names(kind):
            return None
        try:
            return find_base(name)[0] if kind == BASE_KINDS[0] else find_file(name, kind)
        except FoundryError:  # listed and not there: a dead link, a pipe
            return None

    def _names(self, kind: str) -> dict[str, None]:
        """What is there, with forward slashes: looked up, not searched."""
        names = [*model_files(kind), *(sharded_folders() if kind == BASE_KINDS[0] else ())]
        return dict.fromkeys(name.replace("\\", "/") for name in names)
