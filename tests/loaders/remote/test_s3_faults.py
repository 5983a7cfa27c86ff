"""What an S3 server, a network or a set-up does wrong: each a sentence, no secret, nothing half kept."""

from __future__ import annotations

import time

import pytest
from fault_server import Reply, error
from lora_foundry.engine.errors import FoundryError
from lora_foundry.loaders.remote import s3
from lora_foundry.loaders.remote.fetching import fetch
from lora_foundry.loaders.remote.names import parse_remote
from lora_foundry.loaders.remote.objects import Asking
from lora_foundry.loaders.remote.uploads import require_writable
from remote_parts import NAME, PATH, get, lora_bytes


def refused(says: str, home) -> str:
    """The sentence; it has a way out, and no secret, page or address with a key in it."""
    with pytest.raises(FoundryError, match=says) as caught:
        get()
    text = str(caught.value)
    assert caught.value.code in ("remote", "file") and caught.value.fix and text.isprintable()
    assert not [word for word in ("geheim", "zugang", "Debug source", "<Code>", "http://") if word in text]
    assert not list(home.glob("remote/*/lora.safetensors"))
    return text


@pytest.mark.parametrize(("reply", "says"), [
    (error(403, "SignatureDoesNotMatch"), "AWS_SECRET_ACCESS_KEY"),
    (error(403, "InvalidAccessKeyId"), "AWS_ACCESS_KEY_ID"),
    (error(400, "ExpiredToken"), "Log in again"),
    (error(403, "InvalidTokenId"), "Log in again"),
    (error(403, "RequestTimeTooSkewed"), "Set the clock"),
    (error(400, "AuthorizationHeaderMalformed", Region="eu-west-1"), "AWS_REGION to eu-west-1"),
    (Reply(301), "another region"),
    (error(403, "AccessDenied"), "does not let these credentials"),
    (Reply(403), "does not let these credentials"),
    (error(404, "NoSuchBucket"), "no bucket loras"),
    (error(404, "NoSuchKey"), "is not there"),
    (error(400, "SomethingNew"), "answered 400 SomethingNew"),
    (Reply(500), "answered 500"),
    (error(503, "SlowDown"), "answered 503"),
    (error(429, "TooManyRequests"), "cannot be asked: it answered 429"),
    (error(403, "InvalidObjectState"), "lies in an archive"),
    (error(400, "KMS.DisabledException"), "answered 400 KMS.DisabledException"),
    (Reply(403, b"\xff<Code>AccessDenied</Code>"), "something else than was asked for"),
    (Reply(302, b"", {"Location": "http://127.0.0.1:1/elsewhere"}), "cannot be asked: nothing listens there"),
])  # fmt: skip
def test_what_the_server_refuses(server, pack_home, monkeypatch, reply, says):
    monkeypatch.setattr(s3, "RETRIES", 1)
    server.files[PATH] = lora_bytes()
    server.fault = lambda server, asked: reply
    refused(says, pack_home)


def test_a_server_that_is_busy_twice_is_asked_again(server):
    server.files[PATH] = lora_bytes()
    server.fault = lambda server, asked: error(503, "SlowDown") if asked.number in (0, 1, 4) else None
    assert get().path.read_bytes() == server.files[PATH]


def test_a_body_that_breaks_off_is_gone_on_with(server):
    data = server.files[PATH] = lora_bytes(width=2000)
    server.fault = lambda server, asked: (
        Reply(**{**vars(server.plain(asked)), "cut": 5000}) if asked.number == 1 else None
    )
    assert get().path.read_bytes() == data


@pytest.mark.parametrize("body", [b"<html><body>Please log in</body></html>", lora_bytes(7)[:-4], b"{}"])
def test_a_login_page_or_a_file_cut_short_is_not_kept(server, pack_home, body):
    server.files[PATH] = body
    text = refused("no safetensors file", pack_home)
    assert "login page" in text and not list((pack_home / "remote" / "parts").glob("*"))


@pytest.mark.parametrize(("status", "span"), [(200, None), (206, None), (206, "bytes 5-5/100")])
def test_a_page_or_other_bytes_than_the_range_are_refused(server, pack_home, monkeypatch, status, span):
    monkeypatch.setattr(s3, "RETRIES", 1)
    headers = {"ETag": '"x"', "Last-Modified": "Mon, 30 Nov 2026 12:00:00 GMT"}
    headers |= {"Content-Range": span} if span else {}
    server.fault = lambda server, asked: Reply(status, b"<html>Please log in</html>"[: 1 if span else None], headers)
    assert "login page" in refused("something else than was asked for", pack_home)


def test_a_page_is_no_answer_to_an_upload(server, tmp_path):
    """Of one who asks whether it may write, before the work."""
    server.fault = lambda server, asked: Reply(200, b"<html>Please log in</html>", {"ETag": '"x"'})
    with pytest.raises(FoundryError, match="something else than was asked for"):
        require_writable(parse_remote(NAME))


def test_shifted_bytes_under_a_right_header_are_found_by_the_hash(server, pack_home):
    data = server.files[PATH] = lora_bytes(width=2000)

    def shifted(server, asked):
        reply = server.plain(asked)
        begin = asked.span[0] + (asked.span != (0, 1)) * 8
        return Reply(reply.status, (data[begin:] + b"\0" * 8)[: len(reply.body)], reply.headers)

    server.fault = shifted
    assert "MD5" in refused("what the server says it has", pack_home)
    assert not list((pack_home / "remote" / "parts").glob("*"))


@pytest.mark.parametrize("honest", [True, False], ids=["If-Match is heard", "If-Match is not heard"])
def test_a_file_replaced_between_two_ranges_is_refused(server, pack_home, monkeypatch, honest):
    from lora_foundry.loaders.remote import cache

    monkeypatch.setattr(cache, "RANGE", 1 << 12)
    server.files[PATH] = lora_bytes(0, width=2000)

    def replace(server, asked):
        if asked.number == 6:
            server.files[PATH] = lora_bytes(1, width=2000)
        if not honest:
            asked.headers.pop("if-match", None)

    server.fault = replace
    refused("changed while it was read", pack_home)
    assert get().path.read_bytes() == server.files[PATH]


def test_a_slow_body_is_waited_for(server):
    """Each range may take as long as it takes; a limit of 30 s for the whole would end it."""
    data = server.files[PATH] = lora_bytes(width=8000)
    server.fault = lambda server, asked: Reply(**{**vars(server.plain(asked)), "slow": 0.3})
    assert get().path.read_bytes() == data and s3.TIMEOUT.total_seconds() > 30


@pytest.mark.parametrize(("address", "says"), [
    ("http://127.0.0.1:1", "nothing listens there"), ("http://nowhere.invalid", "name is not known here"),
])  # fmt: skip
def test_a_server_that_is_not_there(server, pack_home, monkeypatch, address, says):
    monkeypatch.setenv("AWS_ENDPOINT_URL", address)
    started = time.monotonic()
    refused(says, pack_home)
    assert time.monotonic() - started < 10


def test_words_of_a_files_name_are_no_fault(server, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setattr(s3, "RETRIES", 0)
    for key in ("redirect", "dns error", "certificate timed out"):
        with pytest.raises(FoundryError, match="cannot be asked: nothing listens there"):
            get(f"s3://loras/{key}.safetensors")


# --- what is refused before anything is sent --------------------------------------------------------------------------


def test_without_credentials_nothing_is_sent(server, pack_home, monkeypatch):
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    assert "Nothing was sent" in refused("no credentials", pack_home) and not server.asked


def test_half_of_what_belongs_together_is_told(server, pack_home, monkeypatch):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.setenv("AWS_SKIP_SIGNATURE", "true")
    assert "pairs" in refused("do not go together", pack_home) and not server.asked


def test_a_public_bucket_needs_none(server, monkeypatch):
    server.files[PATH] = lora_bytes()
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_SKIP_SIGNATURE", "true")
    assert get().path.is_file() and not any("authorization" in asked.headers for asked in server.asked)


def test_the_machines_role_is_asked_for_only_where_that_is_wanted(server, monkeypatch):
    """The metadata address, here the fault server, sees a request only with the variable."""
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_METADATA_ENDPOINT", server.url)
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", server.url)
    monkeypatch.setattr(s3, "RETRIES", 0)
    with pytest.raises(FoundryError, match="no credentials"):
        get()
    assert not server.asked
    monkeypatch.setenv("LORA_FOUNDRY_S3_INSTANCE_ROLE", "1")
    with pytest.raises(FoundryError):
        get()
    assert any("meta-data" in asked.path or "token" in asked.path for asked in server.asked)


def test_an_endpoint_without_encryption_has_to_be_meant(server, pack_home, monkeypatch):
    monkeypatch.delenv("AWS_ALLOW_HTTP")
    refused("AWS_ALLOW_HTTP", pack_home)
    assert not server.asked


def test_without_the_package_the_line_that_installs_it_is_told(server, monkeypatch):
    import sys

    for name in [name for name in sys.modules if name.partition(".")[0] == "obstore"]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(FoundryError, match="pip install obstore"):
        get()
    assert not server.asked


def test_a_bucket_that_is_not_allowed_is_never_asked(server):
    with pytest.raises(FoundryError, match="LORA_FOUNDRY_S3_ALLOW=loras"):
        fetch(parse_remote(NAME), Asking(strict=True))
    assert not server.asked


class Chain(list):
    """The ways in which a session of botocore looks for credentials."""

    def get_component(self, name: str):
        assert name == "credential_provider"
        return self

    def get_credentials(self):
        if "missing" in self:
            raise self.fault
        return "credentials" if "shared-credentials-file" in self and len(self) == 1 else None


@pytest.mark.parametrize(("ways", "says"), [
    (["shared-credentials-file", "iam-role", "container-role"], ""),
    (["iam-role", "container-role"], "no credentials"),
    (["iam-role", "container-role", "missing"], r"boto3 could not read .*ProfileNotFound"),
])  # fmt: skip
def test_a_profile_is_read_by_boto3_which_asks_the_machine_for_nothing(server, monkeypatch, ways, says):
    """Where boto3 is installed; the two ways that ask the metadata address are taken out of its chain."""
    import sys
    from types import ModuleType

    class BotoCoreError(Exception):
        pass

    session, fault = Chain(ways), type("ProfileNotFound", (BotoCoreError,), {})
    session.fault = fault("geheim")
    parts = {
        "boto3": {"Session": lambda botocore_session: botocore_session},
        "botocore": {},
        "botocore.exceptions": {"BotoCoreError": BotoCoreError},
        "botocore.session": {"get_session": lambda: session},
        "obstore.auth.boto3": {"Boto3CredentialProvider": lambda session: ("of", session)},
    }
    for name, contents in parts.items():
        module = ModuleType(name)
        vars(module).update(contents)
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(sys.modules["botocore"], "exceptions", sys.modules["botocore.exceptions"], raising=False)
    monkeypatch.setattr(sys.modules["botocore"], "session", sys.modules["botocore.session"], raising=False)
    access = s3._access
    if says:
        with pytest.raises(FoundryError, match=says) as caught:
            access({}, parse_remote(NAME))
        assert "geheim" not in str(caught.value)
    else:
        assert access({}, parse_remote(NAME)) == {"credential_provider": ("of", ["shared-credentials-file"])}
    assert not {"iam-role", "container-role"} & {*session}
