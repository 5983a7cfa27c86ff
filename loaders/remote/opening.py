"""Which store an address needs. The packages for it are imported when they are needed, and told of when missing."""

from __future__ import annotations

from .allowed import require_allowed
from .hub import HubObject
from .names import HUB, S3, Remote
from .objects import Asking, RemoteObject
from .s3 import S3Object
from .web import WebObject


def object_of(remote: Remote, asking: Asking) -> RemoteObject:
    """The file of an address; nothing is sent yet. FoundryError ``remote`` for what is missing or not allowed here."""
    if asking.strict:
        require_allowed(remote)
    if remote.scheme == S3:
        return S3Object(remote)
    if remote.scheme == HUB:
        return HubObject(remote)
    return WebObject(remote, asking.strict)
