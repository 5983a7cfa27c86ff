"""Addresses: what one may be, what is refused before anything is sent, and that no secret is printed."""

from __future__ import annotations

import pytest
from lora_foundry.engine.errors import FoundryError
from lora_foundry.loaders.documents.document import parse_document, parse_rows
from lora_foundry.loaders.remote.allowed import require_allowed
from lora_foundry.loaders.remote.names import Remote, is_remote, masked, parse_remote

HASH = "0a" * 32
HASHED = f"#sha256={HASH}"


@pytest.mark.parametrize(("name", "parts"), [
    ("s3://loras/style.safetensors", Remote("s3", "loras", "style.safetensors")),
    ("S3://my.bucket-1/a b/ü (v2)/x+y=1.sft", Remote("s3", "my.bucket-1", "a b/ü (v2)/x+y=1.sft")),
    (f"s3://loras/a.safetensors#sha256={HASH.upper()}", Remote("s3", "loras", "a.safetensors", "", HASH)),
    ("hf://owner/repo/a.safetensors", Remote("hf", "owner/repo", "a.safetensors")),
    ("hf://owner/repo@v1.0/sub/a.safetensors", Remote("hf", "owner/repo", "sub/a.safetensors", "v1.0")),
    ("hf://owner/repo@refs%2Fpr%2F1/a.safetensors", Remote("hf", "owner/repo", "a.safetensors", "refs/pr/1")),
    (f"https://example.org:8443/l/a%20b.safetensors{HASHED}",
     Remote("https", "example.org:8443", "l/a%20b.safetensors", "", HASH)),
    (f"https://example.org/api/download/models/12{HASHED}",
     Remote("https", "example.org", "api/download/models/12", "", HASH)),
])  # fmt: skip
def test_an_address_has_parts(name, parts):
    assert is_remote(name) and parse_remote(name) == parts
    again = parts.url + (f"#sha256={parts.sha256}" if parts.sha256 else "")
    assert parse_remote(again) == parts and parts.file.endswith((".safetensors", ".sft"))


@pytest.mark.parametrize(("name", "says"), [
    ("ftp://x/a.safetensors", "kind of address"),
    ("file:///etc/a.safetensors", "kind of address"),
    ("http://x/a.safetensors", "without encryption"),
    ("s3://me:geheim@bucket/a.safetensors", "user name or a password"),
    (f"https://geheim@host/a.safetensors{HASHED}", "user name or a password"),
    ("hf://geheim@owner/repo/a.safetensors", "user name or a password"),
    ("s3://bucket/a.safetensors?X-Amz-Signature=geheim", "query"),
    (f"https://host/a.safetensors?token=geheim{HASHED}", "query"),
    ("s3://bucket", "names no file"),
    ("s3://bucket/", "names no file"),
    ("s3:///a.safetensors", "names no file"),
    ("s3://169.254.169.254:80/a.safetensors", "names no file"),
    ("hf://owner/repo", "names no file"),
    ("hf://owner/a.safetensors", "names no file"),
    (f"https:///a.safetensors{HASHED}", "names no file"),
    (f"https://[::1]/a.safetensors{HASHED}", "names no file"),
    ("s3://bucket/../x.safetensors", "between its slashes"),
    ("s3://bucket/a/./x.safetensors", "between its slashes"),
    ("s3://bucket//x.safetensors", "between its slashes"),
    ("hf://o/r@../x.safetensors", "character|between its slashes"),
    ("hf://o/r@a%2F..%2Fb/x.safetensors", "between its slashes"),
    ("s3://bucket/a\\..\\x.safetensors", "character"),
    ("s3://bucket/a%2e%2e/x.safetensors", "character"),
    ("s3://bucket/a\n.safetensors", "character"),
    ("s3://bucket/a\u202e.safetensors", "character"),
    (f"https://host/%2e%2E/a.safetensors{HASHED}", "character"),
    (f"https://host/a%00.safetensors{HASHED}", "character"),
    (f"https://host/a%C2%9Bb.safetensors{HASHED}", "character"),
    (f"https://host/a%E2%80%AEb.safetensors{HASHED}", "character"),
    (f"https://host/a%2fb.safetensors{HASHED}", "character"),
    (f"https://host/a%zz.safetensors{HASHED}", "character"),
    ("https://host/a.safetensors", "does not say what the file must be"),
    ("https://host/a.safetensors#sha256=12", "hash"),
    ("s3://bucket/a.safetensors#md5=0", "hash"),
    ("s3://bucket/a.ckpt", "no .safetensors file by its name"),
    ("hf://o/r/pytorch_model.bin", "no .safetensors file by its name"),
])  # fmt: skip
def test_what_no_honest_address_has_is_refused_and_no_secret_is_told(name, says):
    with pytest.raises(FoundryError, match=says) as caught:
        parse_remote(name)
    assert caught.value.code == "remote" and "geheim" not in str(caught.value) and str(caught.value).isprintable()


@pytest.mark.parametrize("name", ["a.safetensors", "C:\\x", "c://x", "a/b://c", "", None, 3])
def test_a_path_is_no_address(name):
    assert not is_remote(name)


def test_masked_hides_what_may_be_a_secret():
    assert masked("https://a:b@h/x?k=s#sha256=1") == "https://***@h/x?***#sha256=1"
    assert masked("hf://o/r@v/x.safetensors") == "hf://o/r@v/x.safetensors"
    assert masked("https://h:8443/x@y.safetensors#sha256=1") == "https://h:8443/x@y.safetensors#sha256=1"


@pytest.mark.parametrize("name", [
    "s3://AKIA:ab/geheim+c@bucket/a.safetensors", "s3://AKIA:geheim%40bucket/a.safetensors",
    "hf://me:hf/geheim@owner/repo/a.safetensors", f"https://me:x/geheim@host/a.safetensors{HASHED}",
    "https://host/a.safetensors#access_token=geheim", "http://host/a#geheim", "s3://AKIA:a@b/geheim@bucket/a.safetensors",
    "ftp://me:a/geheim@x/y", "s3://bucket/https://me:geheim@x",
])  # fmt: skip
def test_a_secret_with_slashes_in_it_is_not_told(name):
    with pytest.raises(FoundryError) as caught:
        parse_remote(name)
    assert "geheim" not in str(caught.value)


def test_masking_takes_no_longer_for_a_name_that_is_made_for_it():
    assert len(masked("s3" + "://:a" * 200_000)) < 1000


S3 = parse_remote("s3://loras/team/a.safetensors")
HUB = parse_remote("hf://owner/repo/a.safetensors")
WEB = parse_remote(f"https://example.org/a.safetensors{HASHED}")
VARIABLES = ("LORA_FOUNDRY_S3_ALLOW", "LORA_FOUNDRY_HUB_ALLOW", "LORA_FOUNDRY_HTTPS_ALLOW")


@pytest.mark.parametrize(("remote", "text"), [
    (S3, "loras"), (S3, "x, loras/team"), (S3, "loras/team/"), (S3, "x s3://loras"),
    (HUB, "owner"), (HUB, "other,owner/repo"), (HUB, "*"), (WEB, "Example.org"), (WEB, "example.org:443"),
    (WEB, "https://example.org/"),
])  # fmt: skip
def test_the_owner_allows(remote, text):
    require_allowed(remote, dict.fromkeys(VARIABLES, text))


@pytest.mark.parametrize(("remote", "text"), [
    (S3, ""), (S3, "lora"), (S3, "loras2"), (S3, "loras/tea"), (S3, "*"), (S3, "/"), (S3, "s3://"), (HUB, "own"),
    (HUB, "owner/rep"), (HUB, "repo"), (WEB, "org"), (WEB, "example.org:8443"), (WEB, "*"), (WEB, "x.example.org"),
])  # fmt: skip
def test_anything_else_is_refused_with_the_line_that_would_allow_it(remote, text):
    with pytest.raises(FoundryError, match="Nothing was sent") as caught:
        require_allowed(remote, dict.fromkeys(VARIABLES, text))
    line = str(caught.value).rpartition(" with ")[2].removesuffix(" in its environment.")
    variable, _, value = line.partition("=")
    require_allowed(remote, {variable: value})


def test_one_list_says_nothing_of_the_others():
    for remote, variable in ((S3, VARIABLES[1]), (HUB, VARIABLES[2]), (WEB, VARIABLES[0])):
        with pytest.raises(FoundryError, match="Nothing was sent"):
            require_allowed(remote, {variable: "loras,owner,example.org,*"})


def test_a_row_may_say_the_hash_beside_the_path():
    address = "https://example.org/a.safetensors"
    rows = parse_rows([{"path": address, "sha256": HASH.upper()}, {"path": address + HASHED, "sha256": HASH}], "here")
    assert [row.path for row in rows] == [address + HASHED] * 2
    document = parse_document({"base": "b", "lora_paths": [{"path": "s3://l/a.safetensors", "sha256": HASH}]}, "here")
    assert document.stack[0].path == f"s3://l/a.safetensors{HASHED}"


@pytest.mark.parametrize(("row", "says"), [
    ({"path": "a.safetensors", "sha256": HASH}, "file of this machine"),
    ({"path": "s3://l/a.safetensors", "sha256": "12"}, "64 hex digits"),
    ({"path": "s3://l/a.safetensors", "sha256": 12}, "64 hex digits"),
    ({"path": f"s3://l/a.safetensors#sha256={'1' * 64}", "sha256": HASH}, "two hashes"),
])  # fmt: skip
def test_a_hash_that_means_nothing_is_refused(row, says):
    with pytest.raises(FoundryError, match=says):
        parse_rows([row], "here")
