"""Names of files elsewhere: ``s3://bucket/key``, ``hf://owner/repo[@revision]/file``, ``https://host/file#sha256=...``.

A name holds no credentials, no query and no way out of its folder: it travels with documents and workflows.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from ...engine.texts.say import refuse
from ..disk.suffixes import SUFFIXES

S3, HUB, WEB = "s3", "hf", "https"
SHA256 = re.compile(r"[0-9a-fA-F]{64}")
_SCHEME = re.compile(r"(\w[\w+.-]+)://")
_FORMS = {
    S3: "s3://BUCKET/FOLDER/FILE.safetensors",
    HUB: "hf://OWNER/REPO/FILE.safetensors, or with a revision: hf://OWNER/REPO@REVISION/FILE.safetensors",
    WEB: "https://HOST/FILE.safetensors#sha256=HASH",
}
_PLACES = {
    S3: re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,62}"),
    HUB: re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*", re.ASCII),
    WEB: re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?(?::\d{1,5})?"),
}
_REVISION = re.compile(r"[\w][\w./-]*", re.ASCII)
_ODD = re.compile(r"[^\w !$&'()+,./=@~\[\]-]")  # in a key; of an https path also %, for what has to be written so


@dataclass(frozen=True)
class Remote:
    """A checked name. ``place`` is the bucket, ``owner/repo`` or ``host[:port]``; ``key`` the file in it.

    ``revision`` is that of a Hub repository (empty: its main branch), ``sha256`` (hex) what the file must be.
    """

    scheme: str
    place: str
    key: str
    revision: str = ""
    sha256: str = ""

    @property
    def url(self) -> str:
        """The address, without what the file must be."""
        at = f"@{self.revision.replace('/', '%2F')}" if self.revision else ""
        return f"{self.scheme}://{self.place}{at}/{self.key}"

    @property
    def file(self) -> str:
        """Its name without folders, as the file on a disk would be called."""
        name = unquote(self.key).rpartition("/")[2]
        return name if name.lower().endswith(SUFFIXES) else f"{name}{SUFFIXES[0]}"


Where = Path | Remote  # of a file: on this machine, or elsewhere


def where_of(name: str) -> Where:
    """The file that a person names: a path, or an address. FoundryError ``remote`` for one that leads nowhere."""
    return parse_remote(name) if is_remote(name) else Path(name)


def label_of(where: Where) -> str:
    """What a file is called where it comes from, without its folders."""
    return where.file if isinstance(where, Remote) else where.name


def is_remote(name: object) -> bool:
    """Whether a name is an address, whatever its kind, and no path of a disk."""
    return isinstance(name, str) and bool(_SCHEME.match(name))


def masked(name: str) -> str:
    """An address made safe to print: without user, password, query and fragment (but a hash), which may be secrets.

    A password may have slashes in it, as keys of S3 do: behind a colon that no port follows nothing is shown up to @.
    """
    from ..disk.header import shown

    plain = re.sub(r"\A([^:/]*://)[^/:]*:(?!\d*(?:/|\Z))(?:.*(?=@)|.*)", r"\1***", name, flags=re.DOTALL)
    plain = re.sub(r"(?<=://)[^/]*@", "***@", plain)
    plain = re.sub(r"\?[^#]*", "?***", plain)
    return shown(re.sub(r"#(?!sha256=\w*$).*", "#***", plain, flags=re.DOTALL))


def parse_remote(name: str) -> Remote:
    """The parts of a name. Raises FoundryError ``remote`` for one that is not as it has to be; nothing is sent."""
    match = _SCHEME.match(name)
    scheme = match[1].lower() if match else ""
    if scheme == "http":
        raise refuse("remote.plain", name=masked(name))
    if match is None or scheme not in _FORMS:
        raise refuse("remote.scheme", name=masked(name))
    whole, _, fragment = name[match.end() :].partition("#")
    place, _, key = whole.partition("/")
    if "@" in place:
        raise refuse("remote.credentials", name=masked(name))
    if "?" in whole:
        raise refuse("remote.query", name=masked(name))
    revision = ""
    if scheme == HUB:
        place, revision, key = _hub_parts(place, key)
    remote = Remote(scheme, place, key, revision, _sha256_of(name, fragment))
    _check(remote, name)
    return remote


def _hub_parts(owner: str, rest: str) -> tuple[str, str, str]:
    """(owner/repo, revision, file); a slash in a revision is written %2F, as the Hub's own tools have it."""
    repo, _, key = rest.partition("/")
    repo, at, revision = repo.partition("@")
    return f"{owner}/{repo}", unquote(revision) if at else "", key


def _sha256_of(name: str, fragment: str) -> str:
    if not fragment:
        return ""
    key, _, value = fragment.partition("=")
    if key != "sha256" or not SHA256.fullmatch(value):
        raise refuse("remote.hash", name=masked(name))
    return value.lower()


def _check(remote: Remote, name: str) -> None:
    """Refuse a place, key or revision that no honest name has."""
    form = _FORMS[remote.scheme]
    if not remote.key or remote.key.endswith("/") or not _PLACES[remote.scheme].fullmatch(remote.place):
        raise refuse("remote.form", name=masked(name), form=form)
    odd = _ODD.sub("", remote.key) != remote.key
    if remote.scheme == WEB:
        path = re.sub(r"%(?!2[EeFf]|5[Cc]|[01][0-9A-Fa-f]|7[Ff])[0-9A-Fa-f]{2}", "", remote.key)
        odd = bool(_ODD.search(path))
    if odd or not unquote(remote.key).isprintable() or (remote.revision and not _REVISION.fullmatch(remote.revision)):
        raise refuse("remote.characters", name=masked(name))
    if {"", ".", ".."} & {*remote.key.split("/"), *(remote.revision.split("/") if remote.revision else ())}:
        raise refuse("remote.steps", name=masked(name))
    if remote.scheme != WEB and not remote.key.lower().endswith(SUFFIXES):
        raise refuse("remote.suffix", name=masked(name))
    if remote.scheme == WEB and not remote.sha256:
        raise refuse("remote.unhashed", name=masked(name))
