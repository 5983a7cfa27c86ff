"""Files elsewhere in the graph: what may be asked for, checked when a prompt is queued and at its run."""

from __future__ import annotations

from ..engine.texts.say import refuse
from ..loaders.remote.allowed import require_allowed
from ..loaders.remote.names import Remote, masked, parse_remote
from .folders import BASE_KINDS

LORAS = "loras"


def allowed(name: str, *kinds: str) -> Remote:
    """The parts of an address that a node of these folders may use; FoundryError ``remote`` for any other.

    LoRAs, and base models by Load Base Model; what brings a CLIP and a VAE has to be a file here.
    """
    remote = parse_remote(name)
    if kinds not in ((LORAS,), BASE_KINDS):
        raise refuse("remote.elsewhere", name=masked(name))
    require_allowed(remote)
    return remote
