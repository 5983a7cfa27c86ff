"""Which files elsewhere a workflow may name: what the owner of the server wrote into its environment, and no other.

The command line does not ask: who sits there may read what they can reach. A workflow may come from a stranger.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from ...engine.texts.say import refuse
from .names import HUB, S3, WEB, Remote

VARIABLES = {S3: "LORA_FOUNDRY_S3_ALLOW", HUB: "LORA_FOUNDRY_HUB_ALLOW", WEB: "LORA_FOUNDRY_HTTPS_ALLOW"}
ANY = "*"  # of the Hub, which is one server: of a bucket or a host there is no "any"


def require_allowed(remote: Remote, environment: Mapping[str, str] = os.environ) -> None:
    """FoundryError ``remote`` for a bucket (or folder in it), repository or host that the owner did not allow.

    Entries are parted by commas or blanks: ``bucket`` or ``bucket/folder``, ``owner`` or ``owner/repo`` or ``*``,
    ``host`` or ``host:port``. A folder is whole: ``bucket/team`` is not ``bucket/team2``.
    """
    variable = VARIABLES[remote.scheme]
    entries = [entry for entry in re.split(r"[,\s]+", environment.get(variable, "")) if entry]
    if not any(_covers(entry, remote) for entry in entries):
        values = {"place": f"{remote.scheme}://{remote.place}", "variable": variable}
        raise refuse("remote.not_allowed", **values, line=f"{variable}={','.join([*entries, remote.place])}")


def _covers(entry: str, remote: Remote) -> bool:
    if remote.scheme == HUB and entry == ANY:
        return True
    allowed = entry.removeprefix(f"{remote.scheme}://").rstrip("/")
    if remote.scheme == WEB:
        return allowed.lower().removesuffix(":443") == remote.place.lower().removesuffix(":443")
    return bool(allowed) and f"{remote.place}/{remote.key}".startswith(f"{allowed}/")
