"""Objects of S3 and of servers that speak like it, through obstore.

Credentials, region and endpoint come from the environment, profiles of ``~/.aws`` through boto3 where that is there.
Without credentials nothing is sent: the library would ask the metadata address of the machine, which not everyone has.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from ...engine.errors import FoundryError
from ...engine.texts.say import refuse
from .names import Remote
from .objects import ENDPOINTS, Facts, server_of

if TYPE_CHECKING:
    from obstore.store import S3Store

INSTANCE_ROLE = "LORA_FOUNDRY_S3_INSTANCE_ROLE"
TIMEOUT, CONNECT = timedelta(seconds=120), timedelta(seconds=5)  # of one range of a few MB; of reaching the server
RETRIES, RETRY_FOR = 4, timedelta(seconds=30)
BUSY = "429"
# What S3 calls a fault -> the text of it.
CODES = {
    "SignatureDoesNotMatch": "remote.secret",
    "InvalidAccessKeyId": "remote.access_key",
    "ExpiredToken": "remote.token",
    "ExpiredTokenException": "remote.token",
    "TokenRefreshRequired": "remote.token",
    "InvalidToken": "remote.token",
    "InvalidTokenId": "remote.token",
    "AuthorizationHeaderMalformed": "remote.region",
    "PermanentRedirect": "remote.region",
    "AccessDenied": "remote.denied",
    "NoSuchBucket": "remote.no_bucket",
    "NoSuchKey": "remote.no_file",
    "RequestTimeTooSkewed": "remote.clock",
    "InvalidRange": "remote.empty",
    "PreconditionFailed": "remote.changed",
    "InvalidObjectState": "remote.archived",
}
STATUSES = {"401": "remote.denied", "403": "remote.denied", "404": "remote.no_file", "412": "remote.changed",
            "416": "remote.empty"}  # fmt: skip
# What the library says of an answer that is none of S3's: a page, or more or other bytes than were asked for.
STRANGE = re.compile(
    r"non-partial|Content-Range|Requested \S+, got|utf-8|[Ii]nvalid \w+ response|missing field|expected `"
)


class S3Object:
    """One object of a bucket; ``store`` is a client of it that is there already."""

    def __init__(self, remote: Remote, store: S3Store | None = None) -> None:
        self.remote = remote
        self._store = store or open_bucket(remote)

    def facts(self) -> Facts:
        """Ask for one byte: unlike a HEAD, its refusal says why."""
        import obstore

        with s3_errors(self.remote):
            meta = obstore.get(self._store, self.remote.key, options={"range": (0, 1)}).meta
        etag = meta["e_tag"] or ""
        md5 = etag.strip('"').lower()
        return Facts(meta["size"], etag, self.remote.sha256, md5 if re.fullmatch("[0-9a-f]{32}", md5) else "")

    def read(self, begin: int, end: int, facts: Facts) -> memoryview:
        """Some bytes; the server is asked for that state only, and what it sends is compared, for it may not care."""
        import obstore

        options: Any = {"range": (begin, end)}
        if facts.etag and not facts.etag.startswith("W/"):
            options["if_match"] = facts.etag
        with s3_errors(self.remote):
            got = obstore.get(self._store, self.remote.key, options=options)
            data = memoryview(got.bytes())
        if ((got.meta["e_tag"] or ""), got.meta["size"], len(data)) != (facts.etag, facts.size, end - begin):
            raise refuse("remote.changed", name=self.remote.url)
        return data


def open_bucket(remote: Remote) -> S3Store:
    """A client of the bucket; nothing is sent. FoundryError ``remote`` for what is not set up."""
    try:
        from obstore.exceptions import BaseError
        from obstore.store import S3Store
    except ImportError as error:
        raise refuse("remote.extra", name=remote.url, package="obstore", extra="s3") from error
    access = _access(os.environ, remote)
    plain = server_of(remote).lower().startswith("http://")
    if plain and not is_set(os.environ, "AWS_ALLOW_HTTP"):
        raise refuse("remote.plain_endpoint", variable=next(each for each in ENDPOINTS if os.environ.get(each)))
    try:
        return S3Store(
            remote.place,
            client_options={"timeout": TIMEOUT, "connect_timeout": CONNECT, "allow_http": plain},
            retry_config={"max_retries": RETRIES, "retry_timeout": RETRY_FOR},
            **access,
        )
    except (BaseError, ValueError) as error:
        raise refuse("remote.setup", name=remote.url) from error


def is_set(environment: Mapping[str, str], name: str) -> bool:
    """Whether a switch of the environment is on."""
    return environment.get(name, "").strip().lower() in ("1", "true", "yes", "on")


def _access(environment: Mapping[str, str], remote: Remote) -> dict[str, Any]:
    """How the client signs: not at all, from the environment, a profile, or this machine's role where that is wanted.

    Raises FoundryError ``remote`` without any of them.
    """
    if is_set(environment, "AWS_SKIP_SIGNATURE"):
        return {"skip_signature": True}
    pairs = (("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), ("AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_ROLE_ARN"))
    if any(all(environment.get(name, "").strip() for name in pair) for pair in pairs):
        return {}
    if (profile := _profile(remote)) is not None:
        return {"credential_provider": profile}
    if is_set(environment, INSTANCE_ROLE):
        return {}
    raise refuse("remote.no_credentials", name=remote.url, variable=INSTANCE_ROLE)


def _profile(remote: Remote) -> Any:
    """What boto3 finds in ``~/.aws``, or None; it is kept from asking the machine for its role."""
    try:
        import boto3
        import botocore.exceptions
        import botocore.session
        from obstore.auth.boto3 import Boto3CredentialProvider
    except ImportError:
        return None
    try:
        session = botocore.session.get_session()
        chain = session.get_component("credential_provider")
        for asks_the_machine in ("iam-role", "container-role"):
            chain.remove(asks_the_machine)
        if session.get_credentials() is None:
            return None
        return Boto3CredentialProvider(boto3.Session(botocore_session=session))
    except botocore.exceptions.BotoCoreError as error:
        raise refuse("remote.profile", name=remote.url, kind=type(error).__name__) from error


@contextmanager
def s3_errors(remote: Remote) -> Iterator[None]:
    """What the library raises, as one sentence: its own texts run over pages, and may quote what was sent."""
    from obstore.exceptions import BaseError

    try:
        yield
    except (BaseError, OSError, ValueError) as error:
        raise s3_fault(str(error), remote) from None


def s3_fault(text: str, remote: Remote) -> FoundryError:
    """The sentence for what the library says: by the code of the answer, else its status, else that none came."""
    text = re.sub(r'https?://[^\s"<>]+', "", text)  # words of a file's name say nothing of the fault
    said = text.partition("Debug source")[0]
    code = match[1] if (match := re.search(r"<Code>([\w.]+)</Code>", said)) else ""
    status = match[1] if (match := re.search(r"status code: (\d{3})", said)) else ""
    if "redirect" in said.lower() and not code:
        code = "PermanentRedirect"
    key = CODES.get(code) or STATUSES.get(status)
    if key == "remote.region":
        region = re.search(r"expecting (?:&#39;|')([\w-]+)", said) or re.search(r"<Region>([\w-]+)</Region>", said)
        return refuse(key, name=remote.url, region=region[1] if region else "the bucket's own")
    if key == "remote.no_bucket":
        return refuse(key, name=remote.url, bucket=remote.place)
    if key is not None:
        return refuse(key, name=remote.url)
    if not status and STRANGE.search(said):
        return refuse("remote.strange", name=remote.url)
    if status and status != BUSY and not status.startswith("5"):
        return refuse("remote.answer", name=remote.url, answer=" ".join(filter(None, (status, code))))
    reason = f"it answered {status}" if status else _silence(text)
    return refuse("remote.unreachable", name=remote.url, reason=reason)


def _silence(text: str) -> str:
    """Why no answer came, in a few words."""
    words = {
        "dns error": "its name is not known here",
        "Connection refused": "nothing listens there",
        "TimedOut": "it took too long",
        "timed out": "it took too long",
        "certificate": "its certificate is not valid",
        "body error": "it broke off",
    }
    return next((told for word, told in words.items() if word in text), "no answer came")
