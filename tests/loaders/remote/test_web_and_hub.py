"""Files of web servers and of the Hub: ranges of one state, redirects watched, the token told to nobody else."""

from __future__ import annotations

import hashlib

import pytest
from fault_server import Reply, fault_server
from lora_foundry.engine.errors import FoundryError
from lora_foundry.loaders.remote.http import number_of
from lora_foundry.loaders.remote.names import parse_remote
from lora_foundry.loaders.remote.web import WebObject
from remote_parts import get, lora_bytes

DATA = lora_bytes(width=2000)
SHA256 = hashlib.sha256(DATA).hexdigest()
WEB = f"https://example.org/loras/style.safetensors#sha256={SHA256}"
HUB = "hf://owner/repo/style.safetensors"
COMMIT = "c" * 40


@pytest.fixture
def web(server, monkeypatch):
    """The fault server as example.org: no certificate is to be had for a test, so its address is put in its place."""
    monkeypatch.setattr(WebObject, "address", property(lambda self: f"{server.url}/{self.remote.key}"))
    server.files["/loras/style.safetensors"] = DATA
    return server


@pytest.fixture
def hub(server, monkeypatch):
    """The fault server as the Hub, with a token; contents lie on another host, to which it redirects."""
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", "hf_geheim")
    with fault_server() as contents:
        contents.files["/blob"] = DATA
        facts = {"X-Repo-Commit": COMMIT, "X-Linked-Size": str(len(DATA)), "X-Linked-Etag": f'"{SHA256}"',
                 "Location": f"http://localhost:{contents.port}/blob"}  # fmt: skip
        known = {f"/owner/repo/resolve/{revision}/style.safetensors" for revision in ("main", "v1", COMMIT)}
        server.fault = lambda server, asked: Reply(302, b"", facts) if asked.path in known else Reply(404)
        server.contents = contents
        yield server


def test_a_file_of_a_web_server_is_loaded_and_needs_no_second_question(web):
    assert get(WEB).path.read_bytes() == DATA and get(WEB).name == "style.safetensors"
    assert sum(asked.span[1] - asked.span[0] for asked in web.asked) == len(DATA) + 1


@pytest.mark.parametrize(("reply", "says"), [
    (Reply(200, DATA), "sends no parts"),
    (Reply(200, b"<html>log in</html>"), "sends no parts"),
    (Reply(206, b"x", {"Content-Range": "bytes 5-5/100"}), "changed while it was read"),
    (Reply(206, b"x"), "changed while it was read"),
    (Reply(206, DATA, {"Content-Range": f"bytes 0-0/{len(DATA)}"}), "changed while it was read"),
    (Reply(403), "does not let"),
    (Reply(404), "is not there"),
    (Reply(418), "answered 418"),
    (Reply(503), "answered 503"),
    (Reply(429), "answered 429"),
    (Reply(206, DATA[:1], {"Content-Range": f"bytes 0-0/{len(DATA)}"}, cut=0), "it broke off"),
])  # fmt: skip
def test_what_a_web_server_does_wrong(web, reply, says):
    web.fault = lambda server, asked: reply
    with pytest.raises(FoundryError, match=says):
        get(WEB)


def test_a_server_that_sends_everything_is_not_listened_to(web):
    """64 MB for the one byte that is asked for first: what the buffers of a connection take, and no more."""
    web.fault = lambda server, asked: Reply(200, bytes(64 << 20), slow=1e-4)
    with pytest.raises(FoundryError, match="sends no parts"):
        get(WEB)
    assert web.sent < 32 << 20


def test_a_busy_server_is_asked_again_and_a_broken_body_loaded_again(web):
    def fault(server, asked):
        broken = Reply(**{**vars(server.plain(asked)), "cut": 10})
        return {0: Reply(503), 2: broken}.get(asked.number)

    web.fault = fault
    assert get(WEB).path.read_bytes() == DATA


def test_another_file_than_the_hash_is_refused(web):
    web.files["/loras/style.safetensors"] = lora_bytes(3, width=2000)
    with pytest.raises(FoundryError, match="another file than it has to be"):
        get(WEB)


def test_a_file_replaced_between_two_ranges_is_refused(web, monkeypatch):
    from lora_foundry.loaders.remote import cache

    monkeypatch.setattr(cache, "RANGE", 1 << 12)

    def replace(server, asked):
        if asked.number == 6:
            server.files["/loras/style.safetensors"] = lora_bytes(1, width=2000)

    web.fault = replace
    with pytest.raises(FoundryError, match="changed while it was read"):
        get(WEB)


def test_a_workflow_is_led_only_to_hosts_that_are_allowed(web, monkeypatch):
    with fault_server() as other:
        other.files["/inside"] = DATA
        web.fault = lambda server, asked: Reply(302, b"", {"Location": f"{other.url}/inside"})
        monkeypatch.setenv("LORA_FOUNDRY_HTTPS_ALLOW", "example.org")
        with pytest.raises(FoundryError, match=f"HTTPS_ALLOW=example.org,127.0.0.1:{other.port}"):
            get(WEB, strict=True)
        assert not other.asked
        monkeypatch.setenv("LORA_FOUNDRY_HTTPS_ALLOW", f"example.org,127.0.0.1:{other.port}")
        assert get(WEB, strict=True).path.is_file() and other.asked


def test_a_redirect_without_end_is_ended(web):
    web.fault = lambda server, asked: Reply(302, b"", {"Location": f"{server.url}{asked.path}?{asked.number}"})
    with pytest.raises(FoundryError, match="answered 302"):
        get(WEB)
    assert len(web.asked) < 20


def test_of_what_comes_with_a_redirect_nothing_is_read(web):
    with fault_server() as other:
        other.files["/x"] = DATA
        sent_along = Reply(302, bytes(64 << 20), {"Location": f"{other.url}/x"}, slow=1e-4)
        web.fault = lambda server, asked: sent_along if asked.number == 0 else server.plain(asked)
        assert WebObject(parse_remote(WEB), strict=False).facts().size == len(DATA)
    assert web.sent < 32 << 20


@pytest.mark.parametrize("place", ["[", "a" * 64 + ".org", "a..org", "ex\u00e4mple.org"])
def test_a_redirect_to_what_is_no_address_is_a_sentence(web, place):
    web.fault = lambda server, asked: Reply(302, b"", {"Location": f"http://{place}/x"})
    with pytest.raises(FoundryError, match="no server can have such an address"):
        get(WEB)
    assert len(web.asked) == 1


def test_an_address_that_no_server_has_is_a_sentence():
    with pytest.raises(FoundryError, match="no server can have such an address"):
        get(f"https://example..org/style.safetensors#sha256={SHA256}")


@pytest.mark.parametrize(("key", "asked"), [
    ("a b/\u00fc.safetensors", "a%20b/%C3%BC.safetensors"),
    ("a%20b/(x)+[1],y=2&z@~$!'.sft", "a%20b/(x)+[1],y=2&z@~$!'.sft"),
])  # fmt: skip
def test_a_web_server_is_asked_in_its_own_writing(key, asked):
    remote = parse_remote(f"https://example.org:8443/{key}#sha256={SHA256}")
    assert WebObject(remote, strict=False).address == f"https://example.org:8443/{asked}"


def test_a_redirect_away_from_https_is_refused():
    from email.message import Message
    from urllib.request import Request

    from lora_foundry.loaders.remote.http import _Redirects

    watched = _Redirects(parse_remote(WEB), lambda address: True)
    with pytest.raises(FoundryError, match="leads to 10.0.0.1 without encryption"):
        watched.redirect_request(
            Request("https://example.org/a"), None, 302, "", Message(), "http://10.0.0.1/x?k=geheim"
        )


# --- the Hub ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [HUB, "hf://owner/repo@v1/style.safetensors"])
def test_a_file_of_the_hub_is_loaded_at_its_commit_and_checked_by_its_hash(hub, name):
    assert get(name).path.read_bytes() == DATA
    assert {asked.path for asked in hub.gets()} == {f"/owner/repo/resolve/{COMMIT}/style.safetensors"}
    sent, asked = hub.contents.sent, len(hub.asked)
    assert get(name).path.is_file() and hub.contents.sent == sent and len(hub.asked) == asked + 1


def test_the_token_goes_to_the_hub_and_to_no_other_host(hub):
    get(HUB)
    assert {asked.headers["authorization"] for asked in hub.asked} == {"Bearer hf_geheim"}
    assert hub.contents.asked and not any("authorization" in asked.headers for asked in hub.contents.asked)


def test_a_host_that_is_redirected_to_is_asked_by_its_own_name(hub):
    """Hosts with several names answer by it, and those that sign addresses refuse another one."""
    get(HUB)
    assert {asked.headers["host"] for asked in hub.contents.asked} == {f"localhost:{hub.contents.port}"}


def test_other_bytes_than_the_hub_says_are_refused(hub):
    hub.contents.files["/blob"] = lora_bytes(5, width=2000)
    with pytest.raises(FoundryError, match="another file than it has to be"):
        get(HUB)


def test_a_hash_in_the_name_that_is_not_the_hubs_is_refused_before_it_is_loaded(hub):
    with pytest.raises(FoundryError, match="another file than it has to be"):
        get(f"{HUB}#sha256={'1' * 64}")
    assert not hub.contents.asked


@pytest.mark.parametrize(("status", "code", "says"), [
    (401, "RepoNotFound", "HF_TOKEN"), (403, "GatedRepo", "accept its terms"), (401, "", "HF_TOKEN"),
    (404, "EntryNotFound", "is not there"), (404, "RevisionNotFound", "is not there"),
    (404, "RepoNotFound", "HF_TOKEN"),
])  # fmt: skip
def test_what_the_hub_refuses(hub, status, code, says):
    hub.fault = lambda server, asked: Reply(status, b"", {"X-Error-Code": code} if code else {})
    with pytest.raises(FoundryError, match=says) as caught:
        get(HUB)
    assert "geheim" not in str(caught.value)


def test_offline_the_copy_serves_with_a_note(hub, monkeypatch):
    from huggingface_hub import constants

    first = get(HUB)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    asked = len(hub.asked)
    again = get(HUB)
    assert again.path == first.path and "HF_HUB_OFFLINE" in again.notes[0].seen and len(hub.asked) == asked


def test_a_repository_that_is_not_allowed_is_never_asked(hub):
    with pytest.raises(FoundryError, match="LORA_FOUNDRY_HUB_ALLOW=owner/repo"):
        get(HUB, strict=True)
    assert not hub.asked


def test_without_the_package_the_line_that_installs_it_is_told(server, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(FoundryError, match="pip install huggingface_hub"):
        get(HUB)


@pytest.mark.parametrize("told", ["", "-1", "\u00b2", "\u0663", "9" * 5000, "1 ", "0x10"])
def test_a_size_that_is_no_number(told):
    """Python's ``isdigit`` is true of some that ``int`` refuses, and of more digits than it reads."""
    assert number_of(told) is None and number_of("1234") == 1234
