"""LoRAs of an S3 server, whole and checked, in the cache: loaded once, gone on with after a kill, found again."""

from __future__ import annotations

import hashlib
import threading
import time

import pytest
from fault_server import Reply
from lora_foundry.engine.errors import FoundryError
from lora_foundry.loaders.remote import cache as caches
from lora_foundry.loaders.remote.cache import Cache
from remote_parts import NAME, PATH, get, leftovers, lora_bytes, state_of


def test_a_lora_is_loaded_once_and_asked_for_again(server, pack_home):
    data = server.files[PATH] = lora_bytes()
    first = get()
    assert first.path.read_bytes() == data and first.name == "style.safetensors" and not first.notes
    assert first.path.parent.name == hashlib.sha256(data).hexdigest() and not leftovers(pack_home)
    server.sent = 0
    assert get().path == first.path and server.sent <= 1  # one byte tells that it is the same


def test_what_was_replaced_is_loaded_anew(server):
    server.files[PATH] = lora_bytes(0)
    first, state = get(), state_of(NAME)
    server.files[PATH] = lora_bytes(1)
    assert state_of(NAME) != state
    assert get().path.read_bytes() == server.files[PATH] and first.path.is_file()


def test_one_file_under_two_names_is_there_once(server, pack_home):
    server.files[PATH] = server.files["/loras/b/other.safetensors"] = lora_bytes()
    first, second = get(), get("s3://loras/b/other.safetensors")
    assert first.path == second.path and second.name == "other.safetensors"


def test_a_hash_in_the_name_needs_no_second_question(server):
    data = server.files[PATH] = lora_bytes()
    name = f"{NAME}#sha256={hashlib.sha256(data).hexdigest()}"
    first, asked = get(name), len(server.asked)
    assert get(name) == first and len(server.asked) == asked
    assert state_of(name) and len(server.asked) == asked


def test_another_file_than_its_hash_is_refused(server, pack_home):
    server.files[PATH] = lora_bytes()
    with pytest.raises(FoundryError, match="another file than it has to be"):
        get(f"{NAME}#sha256={'0' * 64}")
    assert not leftovers(pack_home)


@pytest.mark.parametrize("third", [1, 2, 3])
def test_what_was_loaded_before_a_kill_is_not_loaded_again(server, monkeypatch, pack_home, third):
    """Cut after a third, two thirds, or all but the end: the second run asks only for the rest."""
    monkeypatch.setattr(caches, "RANGE", 1 << 12)
    data = server.files[PATH] = lora_bytes(width=3000)
    stop = len(data) * third // 3 - (third == 3)

    def cut(done: int, total: int) -> None:
        if done >= stop - (1 << 12) and done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        get(on_bytes=lambda name, done, total: cut(done, total))
    (part,) = (pack_home / "remote" / "parts").glob("*.safetensors")
    there = part.stat().st_size
    assert 0 < there < len(data) and there >= stop - (2 << 12)
    time.sleep(0.1)  # what was under way when it was cut
    begin = len(server.asked)
    assert get().path.read_bytes() == data
    spans = sorted(each.span for each in server.asked[begin + 1 :])  # the first one asks how it is
    assert spans[0][0] == there and sum(end - start for start, end in spans) == len(data) - there


def test_a_part_that_is_no_beginning_of_the_file_is_begun_anew(server, monkeypatch, pack_home):
    monkeypatch.setattr(caches, "RANGE", 1 << 12)
    data = server.files[PATH] = lora_bytes(width=2000)

    def stop(name: str, done: int, total: int) -> None:
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        get(on_bytes=stop)
    (part,) = (pack_home / "remote" / "parts").glob("*.safetensors")
    part.write_bytes(b"\0" * part.stat().st_size)
    assert get().path.read_bytes() == data


def test_two_at_once_load_it_once(server, monkeypatch):
    data = server.files[PATH] = lora_bytes(width=2000)
    server.fault = lambda server, asked: Reply(**{**vars(server.plain(asked)), "slow": 0.05})
    found = []
    threads = [threading.Thread(target=lambda: found.append(get().path)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({*found}) == 1 and len(found) == 3 and server.sent <= len(data) + 3


def test_offline_the_last_copy_serves_with_a_note(server, monkeypatch):
    server.files[PATH] = lora_bytes()
    first = get()
    server.fault = lambda server, asked: Reply(503)
    again = get()
    assert again.path == first.path and again.notes[0].severity == "note" and "answered 503" in again.notes[0].seen
    assert state_of(NAME).endswith(f":{len(server.files[PATH])}")
    with pytest.raises(FoundryError, match="cannot be asked"):
        get("s3://loras/another.safetensors")


def test_what_is_gone_or_forbidden_is_not_served_from_the_cache(server):
    server.files[PATH] = lora_bytes()
    get()
    for reply in (Reply(403), Reply(404)):
        server.fault = lambda server, asked, reply=reply: reply
        with pytest.raises(FoundryError):
            get()


def test_a_damaged_copy_is_loaded_again(server):
    data = server.files[PATH] = lora_bytes()
    path = get().path
    path.write_bytes(data[:-1] + b"\1")
    assert get().path.read_bytes() == data


def test_progress_tells_bytes_and_the_whole(server, monkeypatch):
    monkeypatch.setattr(caches, "RANGE", 1 << 12)
    data = server.files[PATH] = lora_bytes(width=1000)
    told = []
    get(on_bytes=lambda *step: told.append(step))
    assert told[-1] == ("style.safetensors", len(data), len(data)) and len(told) > 3
    assert [step[1] for step in told] == sorted(step[1] for step in told)


def test_a_cancel_is_heard_within_a_second_while_the_server_hangs(server):
    server.files[PATH] = lora_bytes(width=4000)
    release = threading.Event()

    def hang(server, asked):
        if asked.span != (0, 1):
            release.wait(20)

    server.fault = hang
    started, seen = time.monotonic(), []

    def cancel(name: str, done: int, total: int) -> None:
        seen.append(time.monotonic())
        if time.monotonic() - started > 0.7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        get(on_bytes=cancel)
    assert time.monotonic() - started < 1.7
    release.set()


def test_a_cache_elsewhere_is_named_by_the_environment(server, monkeypatch, tmp_path):
    server.files[PATH] = lora_bytes()
    monkeypatch.setenv("LORA_FOUNDRY_REMOTE_CACHE", str(tmp_path / "cache"))
    assert get().path.is_relative_to(tmp_path / "cache")
    assert Cache.of({}).limit == 50 * 10**9
