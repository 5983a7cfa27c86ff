"""LoRAs of an S3 server, whole and checked, in the cache: loaded once, gone on with, found again, kept small."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from pathlib import Path

import pytest
from fault_server import Reply
from lora_foundry.engine.errors import FoundryError
from lora_foundry.loaders.loras.file import open_lora
from lora_foundry.loaders.remote import cache as caches
from lora_foundry.loaders.remote import fetching, s3
from lora_foundry.loaders.remote.cache import Cache
from lora_foundry.loaders.remote.fetching import fetch, states_of
from lora_foundry.loaders.remote.names import parse_remote
from lora_foundry.loaders.remote.objects import Asking
from remote_parts import lora_bytes

NAME = "s3://loras/style.safetensors"
PATH = "/loras/style.safetensors"


def get(name: str = NAME, **asking):
    return fetch(parse_remote(name), Asking(**asking))


def leftovers(home) -> list[str]:
    """What lies in the cache beside finished files."""
    return sorted(path.name for path in (home / "remote" / "parts").glob("*"))


def test_a_lora_is_loaded_once_and_asked_for_again(server, pack_home):
    data = server.files[PATH] = lora_bytes()
    first = get()
    assert first.path.read_bytes() == data and first.name == "style.safetensors" and not first.notes
    assert first.path.parent.name == hashlib.sha256(data).hexdigest() and not leftovers(pack_home)
    server.sent = 0
    assert get().path == first.path and server.sent <= 1  # one byte tells that it is the same


def state_of(name: str = NAME) -> str:
    """What changes when a file elsewhere is replaced."""
    return states_of([parse_remote(name)], Asking())[parse_remote(name)]


def test_a_silent_server_does_not_hold_up_who_asks_whether_a_file_changed(server, monkeypatch):
    server.files[PATH] = lora_bytes()
    get()
    state, answer = state_of(NAME), threading.Event()
    monkeypatch.setattr(fetching, "SOON", 0.3)
    server.fault = lambda server, asked: answer.wait(30) and None
    begun = time.monotonic()
    assert state_of(NAME) == state
    assert time.monotonic() - begun < 10
    answer.set()


def test_all_files_of_a_prompt_wait_once_for_a_server_that_is_silent(server, monkeypatch):
    server.files[PATH] = lora_bytes()
    get()
    state, answer = state_of(NAME), threading.Event()
    monkeypatch.setattr(fetching, "SOON", 0.3)
    server.fault = lambda server, asked: answer.wait(30) and None
    others = [f"s3://loras/a/{number}.safetensors" for number in range(40)]
    begun = time.monotonic()
    states = states_of(map(parse_remote, [NAME, *others]), Asking())
    assert states[parse_remote(NAME)] == state and {*map(states.get, map(parse_remote, others))} == {
        "remote.unreachable"
    }
    asked = len(server.asked)
    assert {*map(state_of, others)} == {"remote.unreachable"}  # each of a node of its own
    assert len(server.asked) == asked and time.monotonic() - begun < 5
    answer.set()


def test_a_slow_server_is_asked_by_all_nodes_of_a_prompt_no_longer_than_a_silent_one(server, monkeypatch):
    monkeypatch.setattr(fetching, "SOON", 1.0)
    server.files[PATH] = lora_bytes()
    server.fault = lambda server, asked: time.sleep(0.5)
    begun = time.monotonic()
    states = [state_of(NAME) for _ in range(40)]
    assert states[0] != "remote.unreachable" == states[-1] and time.monotonic() - begun < 10


def test_a_server_that_answered_meanwhile_is_asked_again(server, monkeypatch):
    server.files[PATH] = lora_bytes()
    monkeypatch.setattr(fetching, "SOON", 0.01)
    server.fault = lambda server, asked: time.sleep(0.3)
    assert state_of(NAME) == "remote.unreachable"
    get()
    monkeypatch.setattr(fetching, "SOON", 5.0)
    server.files[PATH] = lora_bytes(1)
    assert state_of(NAME) == f'"{hashlib.md5(server.files[PATH]).hexdigest()}":{len(server.files[PATH])}'


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


def test_the_least_recently_used_make_room_but_nothing_in_use_goes(server, monkeypatch, pack_home):
    loras = {f"/loras/{i}.safetensors": lora_bytes(i) for i in range(3)}
    server.files.update(loras)
    monkeypatch.setenv("LORA_FOUNDRY_REMOTE_CACHE_SIZE", str(int(2.5 * len(loras["/loras/0.safetensors"]))))
    first, second = get("s3://loras/0.safetensors"), get("s3://loras/1.safetensors")
    assert get("s3://loras/2.safetensors").path.is_file() and first.path.is_file()  # all within the hour
    monkeypatch.setattr(caches, "IN_USE", -1.0)
    server.files["/loras/3.safetensors"] = lora_bytes(3)
    lock = pack_home / "remote" / "parts" / f"{'0' * 64}.lock"
    lock.touch()
    os.utime(lock, (1, 1))  # somebody loads a file for hours
    get("s3://loras/3.safetensors")
    assert lock.exists(), "a third one would begin with the same file"
    assert not first.path.exists() and not second.path.exists()


def test_an_entry_that_another_process_evicts_meanwhile_does_not_hide_the_others(server, monkeypatch, pack_home):
    data = lora_bytes(0)
    first, listed = get_with(server, "0", data), Path.iterdir
    monkeypatch.setattr(caches, "IN_USE", -1.0)
    monkeypatch.setenv("LORA_FOUNDRY_REMOTE_CACHE_SIZE", str(int(1.5 * len(data))))
    gone = [pack_home / "remote" / (f"{number}" * 64) for number in range(3)]
    monkeypatch.setattr(Path, "iterdir", lambda path: iter([*gone, *listed(path)]))
    get_with(server, "1", lora_bytes(1))
    assert not first.exists()


def get_with(server, name: str, data: bytes) -> Path:
    server.files[f"/loras/{name}.safetensors"] = data
    return get(f"s3://loras/{name}.safetensors").path


def test_what_the_cache_cannot_hold_is_refused_before_it_is_loaded(server, monkeypatch):
    server.files[PATH] = lora_bytes(width=2000)
    monkeypatch.setenv("LORA_FOUNDRY_REMOTE_CACHE_SIZE", "1KB")
    with pytest.raises(FoundryError, match="LORA_FOUNDRY_REMOTE_CACHE_SIZE"):
        get()
    assert server.sent <= 1


def test_a_disk_without_room_is_told_before_it_is_loaded(server, monkeypatch):
    server.files[PATH] = lora_bytes()
    monkeypatch.setattr(caches.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 10}))
    with pytest.raises(FoundryError, match="are free where the cache"):
        get()
    assert server.sent <= 1


def test_a_disk_that_fills_up_meanwhile_is_not_left_full(server, pack_home, monkeypatch):
    server.files[PATH] = lora_bytes()

    def full(self, *_: object):
        raise OSError(28, "No space left on device")

    real = caches.os.fsync
    monkeypatch.setattr(caches.os, "fsync", full)
    with pytest.raises(FoundryError, match="No space left"):
        get()
    assert not leftovers(pack_home)
    monkeypatch.setattr(caches.os, "fsync", real)
    assert get().path.is_file()


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


def test_the_config_that_peft_keeps_beside_a_lora_comes_along(server):
    """Without it the scale would be another one than that of the same folder on a disk."""
    server.files["/loras/peft/adapter_model.safetensors"] = lora_bytes(rank=4)
    server.files["/loras/peft/adapter_config.json"] = b'{"peft_type": "LORA", "r": 4, "lora_alpha": 2}'
    server.files["/loras/bare/adapter_model.safetensors"] = lora_bytes(1, rank=4)
    peft, bare = get("s3://loras/peft/adapter_model.safetensors"), get("s3://loras/bare/adapter_model.safetensors")
    scales = [open_lora(file.path, file.name).adapters[0].alpha for file in (peft, bare)]
    assert scales == [2.0, None]
    asked = len(server.asked)
    assert get("s3://loras/peft/adapter_model.safetensors") == peft and len(server.asked) == asked + 1


def test_a_server_that_breaks_off_before_the_config_came_is_asked_again(server, monkeypatch):
    server.files["/loras/adapter_model.safetensors"] = lora_bytes(rank=4)
    server.files["/loras/adapter_config.json"] = b'{"peft_type": "LORA", "r": 4, "lora_alpha": 2}'
    server.fault = lambda server, asked: Reply(500) if asked.path.endswith(".json") else None
    monkeypatch.setattr(s3, "RETRIES", 0)
    with pytest.raises(FoundryError, match="cannot be asked"):
        get("s3://loras/adapter_model.safetensors")
    server.fault = lambda server, asked: None
    file = get("s3://loras/adapter_model.safetensors")
    assert open_lora(file.path, file.name).adapters[0].alpha == 2.0


PEFT = "s3://loras/{}/adapter_model.safetensors"


def alpha_of(name: str) -> float | None:
    file = get(name)
    return open_lora(file.path, file.name).adapters[0].alpha


def put_peft(server, folder: str, alpha: int) -> str:
    """The same weights in any folder, under a config of its own; their address."""
    server.files[f"/loras/{folder}/adapter_model.safetensors"] = lora_bytes(rank=4)
    server.files[f"/loras/{folder}/adapter_config.json"] = b'{"peft_type": "LORA", "r": 4, "lora_alpha": %d}' % alpha
    return PEFT.format(folder)


def test_equal_weights_elsewhere_do_not_bring_their_scale(server):
    """A copy of a LoRA in a stranger's folder would change the one that people have, for as long as it is kept."""
    ours, theirs = put_peft(server, "ours", 2), put_peft(server, "theirs", 999)
    server.files["/loras/plain.safetensors"] = server.files["/loras/ours/adapter_model.safetensors"]
    assert [alpha_of(name) for name in (ours, theirs, ours, "s3://loras/plain.safetensors")] == [2, 999, 2, None]


def test_a_lora_with_a_hash_is_not_there_before_its_config_is(server, monkeypatch):
    name = f"{put_peft(server, 'ours', 2)}#sha256={hashlib.sha256(lora_bytes(rank=4)).hexdigest()}"
    server.fault = lambda server, asked: Reply(500) if asked.path.endswith(".json") else None
    monkeypatch.setattr(s3, "RETRIES", 0)
    with pytest.raises(FoundryError, match="cannot be asked"):
        get(name)
    server.fault = lambda server, asked: None
    assert alpha_of(name) == 2


def test_a_config_that_is_gone_when_the_lora_is_saved_anew_is_not_kept(server, tmp_path):
    name = put_peft(server, "ours", 2)
    assert alpha_of(name) == 2
    del server.files["/loras/ours/adapter_config.json"]
    first, server.files["/loras/ours/adapter_model.safetensors"] = lora_bytes(rank=4), lora_bytes(1, rank=4)
    assert alpha_of(name) is None
    server.files["/loras/ours/adapter_model.safetensors"] = first
    assert alpha_of(name) is None


def test_a_config_that_the_disk_refuses_is_no_other_scale(server, monkeypatch):
    name = put_peft(server, "ours", 2)

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(caches, "temporary", refuse)
    with pytest.raises(FoundryError, match="adapter_config.json"):
        get(name)
