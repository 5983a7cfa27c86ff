"""Files of the Hugging Face Hub: huggingface_hub says where that is and who asks, ranges come as from any server."""

from __future__ import annotations

import re
from urllib.parse import quote

from ...engine.errors import FoundryError
from ...engine.texts.say import refuse
from .http import Answer, ask, host_of, number_of, read_range, refused, total_of
from .names import Remote
from .objects import Facts
from .web import PLAIN

# What the Hub calls a fault -> the text of it.
CODES = {
    "RepoNotFound": "remote.repo",
    "GatedRepo": "remote.repo",
    "RevisionNotFound": "remote.no_file",
    "EntryNotFound": "remote.no_file",
}


class HubObject:
    """One file of a repository, at the commit that its revision is now."""

    def __init__(self, remote: Remote) -> None:
        try:
            from huggingface_hub import constants
            from huggingface_hub.utils import build_hf_headers
        except ImportError as error:
            raise refuse("remote.extra", name=remote.url, package="huggingface_hub", extra="hub") from error
        self.remote, self._endpoint = remote, str(constants.ENDPOINT)
        self._offline: bool = constants.HF_HUB_OFFLINE
        self._headers: dict[str, str] = {**build_hf_headers(), **PLAIN}
        self._address = ""  # at its commit

    def facts(self) -> Facts:
        """Ask for the commit, the size and the hash. The etag names the commit's file, which never changes."""
        if self._offline:
            raise refuse("remote.unreachable", name=self.remote.url, reason="HF_HUB_OFFLINE is set")
        address = self._url(self.remote.revision or "main")
        answer = ask(address, self.remote, self._headers, lambda to: host_of(to) == host_of(address), "HEAD")
        if answer.status >= 400:
            raise self._refused(answer)
        size = number_of(answer.headers.get("X-Linked-Size") or answer.headers.get("Content-Length") or "")
        etag = (answer.headers.get("X-Linked-Etag") or answer.headers.get("ETag") or "").removeprefix("W/").strip('"')
        commit = answer.headers.get("X-Repo-Commit", "")
        if size is None or not commit:
            raise refuse("remote.answer", name=self.remote.url, answer=f"{answer.status} without a size or commit")
        self._address = self._url(commit)
        sha256 = etag.lower() if re.fullmatch("[0-9a-fA-F]{64}", etag) else ""
        if sha256 and self.remote.sha256 not in ("", sha256):
            raise refuse("remote.another", name=self.remote.url, sha256=sha256, wanted=self.remote.sha256)
        return Facts(size, etag or commit, sha256 or self.remote.sha256)

    def read(self, begin: int, end: int, facts: Facts) -> memoryview:
        """Some bytes at that commit, from wherever the Hub keeps them."""
        answer = read_range(self._address, self.remote, self._headers, lambda to: True, (begin, end))
        if total_of(answer) != facts.size:
            raise refuse("remote.changed", name=self.remote.url)
        return memoryview(answer.body)

    def _url(self, revision: str) -> str:
        return f"{self._endpoint}/{self.remote.place}/resolve/{quote(revision, safe='')}/{quote(self.remote.key)}"

    def _refused(self, answer: Answer) -> FoundryError:
        code = answer.headers.get("X-Error-Code", "")
        key = CODES.get(code) or ("remote.repo" if answer.status in (401, 403) else "")
        return refuse(key, name=self.remote.url, repo=self.remote.place) if key else refused(answer, self.remote)
