"""What PEFT and diffusers keep beside a LoRA: its ``adapter_config.json``, without which its scale would be another."""

from __future__ import annotations

from dataclasses import replace

from ...engine.errors import FoundryError
from .names import WEB, Remote
from .objects import Asking
from .opening import object_of

CONFIG_FILE, MAX_CONFIG = "adapter_config.json", 4 << 20  # bytes
CONFIG_HOMES = ("adapter_model", "pytorch_lora_weights", "diffusion_pytorch_model")  # what they save LoRAs as
NONE = ("remote.no_file", "remote.denied", "remote.empty")  # S3 denies what is not there to who may not list


def may_have_config(remote: Remote) -> bool:
    """Whether a config that lies in its folder is its own."""
    return remote.scheme != WEB and remote.file.startswith(CONFIG_HOMES)


def config_beside(remote: Remote, asking: Asking) -> bytes | None:
    """The config that lies beside a LoRA of such a name, None where there is none.

    Raises FoundryError ``remote`` when the server cannot be asked.
    """
    if not may_have_config(remote):
        return None
    beside = replace(remote, key=f"{remote.key.rpartition('/')[0]}/{CONFIG_FILE}".lstrip("/"), sha256="")
    try:
        found = object_of(beside, asking)
        facts = found.facts()
        return bytes(found.read(0, facts.size, facts)) if facts.size <= MAX_CONFIG else None
    except FoundryError as error:
        if error.text not in NONE:
            raise
    return None
