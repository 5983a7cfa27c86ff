"""One range, or the headers, of an address of the web: redirects watched, tried again where that helps."""

from __future__ import annotations

import http.client
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.message import Message
from typing import IO
from urllib.parse import urlsplit

from ...engine.errors import FoundryError
from ...engine.texts.say import refuse
from .names import Remote

TIMEOUT = 20.0  # seconds without a byte
PAUSES = (0.2, 0.5, 1.0, 2.0)  # before another try, in seconds
MOST_REDIRECTS = 5
PARTIAL = 206
AGENT = "lora-foundry"
PRIVATE = ("authorization", "cookie")  # headers that go to no other host
Follow = Callable[[str], bool]  # whether to go on to an address; raises FoundryError for one that is refused


@dataclass(frozen=True)
class Answer:
    """Status, headers and body of an answer."""

    status: int
    headers: Message
    body: bytes


def ask(
    address: str, remote: Remote, headers: Mapping[str, str], follow: Follow, method: str = "GET", most: int = 0
) -> Answer:
    """The answer of a server, an error or a redirect that is not followed among them. ``remote`` is named in faults.

    Of a body at most ``most`` bytes are read, and only of a range: whoever ignores that one was asked for may send a
    whole disk. A server that is busy, breaks off or is silent is asked again.
    Raises FoundryError ``remote.unreachable``, at once for an address, or one that it leads to, that no server has.
    """
    reason = ""
    for pause in (0.0, *PAUSES):
        time.sleep(pause)
        try:
            answer = _once(address, remote, headers, follow, method, most)
        except (OSError, http.client.HTTPException) as error:  # URLError and timeouts are OSErrors
            reason = _in_words(error)
            continue
        except ValueError as error:  # the codec of host names has no error of its own
            raise refuse("remote.unreachable", name=remote.url, reason="no server can have such an address") from error
        if answer.status < 500 and answer.status != 429:
            return answer
        reason = f"it answered {answer.status}"
    raise refuse("remote.unreachable", name=remote.url, reason=reason)


def read_range(
    address: str, remote: Remote, headers: Mapping[str, str], follow: Follow, span: tuple[int, int]
) -> Answer:
    """Bytes ``begin`` to ``end`` (not included) of a file. FoundryError ``remote`` for any other answer."""
    begin, end = span
    wanted = {**headers, "Range": f"bytes={begin}-{end - 1}"}
    answer = ask(address, remote, wanted, follow, most=end - begin)
    if answer.status == 200:
        raise refuse("remote.no_ranges", name=remote.url)
    if answer.status != PARTIAL:
        raise refused(answer, remote)
    sent = re.fullmatch(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18}|\*)", answer.headers.get("Content-Range", ""))
    if sent is None or (int(sent[1]), int(sent[2]) + 1) != span or len(answer.body) != end - begin:
        raise refuse("remote.changed", name=remote.url)
    return answer


def total_of(answer: Answer) -> int | None:
    """The size of the whole file that a range is of; None where it is not told."""
    total = answer.headers.get("Content-Range", "").rpartition("/")[2]
    return number_of(total)


def number_of(text: str) -> int | None:
    """A number of bytes in a header; None where it is none: ``isdigit`` is true of more than ``int`` reads."""
    return int(text) if re.fullmatch("[0-9]{1,18}", text) else None


def refused(answer: Answer, remote: Remote) -> FoundryError:
    """The sentence for a status that is no success."""
    keys = {401: "remote.denied", 403: "remote.denied", 404: "remote.no_file", 410: "remote.no_file",
            412: "remote.changed", 416: "remote.empty"}  # fmt: skip
    if answer.status in keys:
        return refuse(keys[answer.status], name=remote.url)
    return refuse("remote.answer", name=remote.url, answer=answer.status)


def host_of(address: str) -> str:
    """``host`` or ``host:port`` of an address, in lower case."""
    return urlsplit(address).netloc.rpartition("@")[2].lower()


def _once(address: str, remote: Remote, headers: Mapping[str, str], follow: Follow, method: str, most: int) -> Answer:
    request = urllib.request.Request(address, headers={"User-Agent": AGENT, **headers}, method=method)  # noqa: S310
    opener = urllib.request.build_opener(_Redirects(remote, follow))
    try:
        with opener.open(request, timeout=TIMEOUT) as answer:
            if answer.status != PARTIAL:
                return Answer(answer.status, answer.headers, b"")
            body = answer.read(most)
            if len(body) < most and answer.length:
                raise http.client.IncompleteRead(body, answer.length)
            whole = not answer.read(1)  # more than was asked for is no answer to it
            return Answer(answer.status, answer.headers, body if whole else b"")
    except urllib.error.HTTPError as error:
        error.close()
        return Answer(error.code, error.headers, b"")


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Redirects, as far as ``follow`` lets them go; never from https to anything else, and no secret goes along."""

    max_redirections = MOST_REDIRECTS

    def __init__(self, remote: Remote, follow: Follow) -> None:
        self._remote, self._follow = remote, follow

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str
    ) -> urllib.request.Request | None:
        """The next request, or None to take the redirect for the answer."""
        if urlsplit(newurl).scheme != "https" and urlsplit(req.full_url).scheme == "https":
            raise refuse("remote.redirect", name=self._remote.url, host=host_of(newurl))
        if not self._follow(newurl):
            return None
        fp.close()  # else all of what comes with a redirect would be read
        elsewhere = host_of(newurl) != host_of(req.full_url)
        kept = {key: text for key, text in req.headers.items() if not (elsewhere and key.lower() in PRIVATE)}
        return urllib.request.Request(newurl, headers=kept, method=req.get_method())  # noqa: S310


def _in_words(error: Exception) -> str:
    """Why no whole answer came; never the text of the error, which may quote an address."""
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    kinds: tuple[tuple[type | tuple[type, ...], str], ...] = (
        (TimeoutError, "it took too long"),
        (ConnectionRefusedError, "nothing listens there"),
        ((http.client.IncompleteRead, ConnectionError), "it broke off"),
    )
    name = type(cause).__name__
    words = {"gaierror": "its name is not known here", "SSLCertVerificationError": "its certificate is not valid"}
    return next((told for kind, told in kinds if isinstance(cause, kind)), words.get(name, "no answer came"))
