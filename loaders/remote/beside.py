"""What PEFT and diffusers keep beside a LoRA: its ``adapter_config.json``, without which its scale would be another."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ...engine.errors import FoundryError
from ..disk.home import keep
from .names import WEB, Remote
from .objects import Asking
from .opening import object_of

CONFIG, MOST = "adapter_config.json", 4 << 20
HOMES = ("adapter_model", "pytorch_lora_weights", "diffusion_pytorch_model")  # what they save LoRAs as
NONE = ("remote.no_file", "remote.denied", "remote.empty")  # S3 denies what is not there to who may not list


def bring_config(remote: Remote, folder: Path, asking: Asking) -> None:
    """Put the config that lies beside a LoRA of such a name into the folder of its copy, where there is one.

    Raises FoundryError ``remote`` when the server cannot be asked.
    """
    if remote.scheme == WEB or not remote.file.startswith(HOMES):
        return
    beside = replace(remote, key=f"{remote.key.rpartition('/')[0]}/{CONFIG}".lstrip("/"), sha256="")
    try:
        found = object_of(beside, asking)
        facts = found.facts()
        if facts.size <= MOST:
            keep(folder / CONFIG, bytes(found.read(0, facts.size, facts)).decode("utf-8", "replace"))
    except FoundryError as error:
        if error.text not in NONE:
            raise
