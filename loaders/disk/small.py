"""Files of tensors that lie in memory, serialised by the safetensors library and put in place as every other file.

For what is small enough to be in memory three times: the demo's files, a LoRA that was just trained. What a bake writes
goes through ``writer.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save

from ...engine.texts.say import refuse
from .temps import sync_file, sync_folder, temporary
from .writer import check_target, writing


def save_small(path: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write ``path``, whole or not at all: until the new file is complete and on the disk, the old one stays.

    Needs memory for all tensors two or three times more, by the version of the library. Raises FoundryError ``file``.
    """
    data = serialised(tensors, {"format": "pt", **(metadata or {})})
    check_target(path, len(data))
    with temporary(path.parent) as temp, writing(path, len(data)):
        with temp.open("xb") as file:
            file.write(data)
            file.flush()
            sync_file(file.fileno())
        temp.replace(path)
        sync_folder(path.parent)


def serialised(tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str] | None = None) -> bytes:
    """The bytes of such a file. Their order depends on names and dtypes alone, not on the metadata.

    Raises FoundryError ``file`` for what safetensors cannot store.
    """
    plain: dict[str, torch.Tensor] = {}
    memory: set[int] = set()
    for name, tensor in tensors.items():
        own = tensor.detach().to("cpu").contiguous()
        start = own.untyped_storage().data_ptr()
        plain[name] = own.clone() if start in memory else own  # the library refuses tensors that share memory
        memory.add(start)
    try:
        return save(plain, dict(metadata) if metadata else None)
    except (SafetensorError, KeyError, ValueError) as error:
        raise refuse("file.stored", reason=error) from error


def data_of(file: bytes) -> memoryview:
    """The tensors' bytes in a serialised file: what follows its header."""
    return memoryview(file)[8 + int.from_bytes(file[:8], "little") :]
