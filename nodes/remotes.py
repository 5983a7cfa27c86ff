"""Files elsewhere in the graph: what may be asked for, checked when a prompt is queued and at its run."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path

from ..engine.errors import FoundryError
from ..engine.texts.say import refuse
from ..loaders.remote.allowed import require_allowed
from ..loaders.remote.fetching import Fetched, cached, fetch, states_of
from ..loaders.remote.names import Remote, is_remote, masked, parse_remote
from ..loaders.remote.objects import Asking, Transfer
from . import folders, host
from .folders import BASE_KINDS
from .server import show_text

LORAS = "loras"


def lora_file(name: str) -> Fetched:
    """A LoRA by the name that a node gives it: of ComfyUI's folder, or from elsewhere, with progress on the node.

    Raises FoundryError ``file`` or ``remote``, and what the host raises when the user pressed Cancel.
    """
    if is_remote(name):
        return fetch(allowed(name, LORAS), Asking(strict=True, on_bytes=transfers()))
    return Fetched(folders.find_file(name, LORAS), name)


def lora_here(name: str | None) -> Path:
    """A LoRA of ComfyUI's folder, or the copy of one from elsewhere that is here already: nothing is sent.

    Raises FoundryError ``file`` or ``remote``.
    """
    if name is None or not is_remote(name):
        return folders.find_file(name, LORAS)
    path = cached(allowed(name, LORAS))
    if path is None:
        raise refuse("remote.not_here", name=masked(name))
    return path


def lora_copy(name: str) -> Path:
    """A LoRA of ComfyUI's folder, or of one from elsewhere the copy that is here; it is loaded where there is none."""
    here = cached(allowed(name, LORAS)) if is_remote(name) else None
    return here or lora_file(name).path


def transfers() -> Transfer:
    """Shows bytes and speed of what is on its way on the node, and raises when the user pressed Cancel."""
    step, begun = host.progress(), dict[str, tuple[float, int]]()

    def on_bytes(file: str, done: int, total: int) -> None:
        step(done, total)
        if total:
            began, before = begun.setdefault(file, (time.monotonic(), done))  # what was here before is not of the speed
            speed = (done - before) / max(time.monotonic() - began, 1e-3)
            show_text(f"{file}: {done / 1e6:,.1f} of {total / 1e6:,.1f} MB, {speed / 1e6:,.1f} MB/s")

    return on_bytes


def remote_states(names: Iterable[str], *kinds: str) -> dict[str, str]:
    """What changes when files elsewhere are replaced, for IS_CHANGED; only what is allowed is asked for, together."""
    found, asked = dict[str, str](), dict[str, Remote]()
    for name in dict.fromkeys(names):
        try:
            asked[name] = allowed(name, *kinds)
        except FoundryError as error:
            found[name] = error.text
    states = states_of(asked.values(), Asking(strict=True))
    return found | {name: states[remote] for name, remote in asked.items()}


def allowed(name: str, *kinds: str) -> Remote:
    """The parts of an address that a node of these folders may use; FoundryError ``remote`` for any other.

    LoRAs, and base models by Load Base Model; what brings a CLIP and a VAE has to be a file here.
    """
    remote = parse_remote(name)
    if kinds not in ((LORAS,), BASE_KINDS):
        raise refuse("remote.elsewhere", name=masked(name))
    require_allowed(remote)
    return remote
