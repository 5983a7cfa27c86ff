"""Whether a file elsewhere was replaced, as nodes ask before a run: a server that is silent holds up nobody."""

from __future__ import annotations

import hashlib
import threading
import time

import pytest
from lora_foundry.loaders.remote import fetching
from lora_foundry.loaders.remote.fetching import states_of
from lora_foundry.loaders.remote.names import parse_remote
from lora_foundry.loaders.remote.objects import Asking
from remote_parts import NAME, PATH, get, lora_bytes, state_of


@pytest.fixture
def silent(server, monkeypatch):
    """A server that is silent since ``NAME`` came from it; its state from then."""
    server.files[PATH] = lora_bytes()
    get()
    state, answer = state_of(), threading.Event()
    monkeypatch.setattr(fetching, "SOON", 0.3)
    server.fault = lambda server, asked: answer.wait(30) and None
    yield state
    answer.set()


def test_a_silent_server_does_not_hold_up_who_asks_whether_a_file_changed(silent):
    begun = time.monotonic()
    assert state_of() == silent and time.monotonic() - begun < 10


def test_all_files_of_a_prompt_wait_once_for_a_server_that_is_silent(silent, server):
    others = [f"s3://loras/a/{number}.safetensors" for number in range(40)]
    begun = time.monotonic()
    states = states_of(map(parse_remote, [NAME, *others]), Asking())
    assert states[parse_remote(NAME)] == silent and {*map(states.get, map(parse_remote, others))} == {
        "remote.unreachable"
    }
    asked = len(server.asked)
    assert {*map(state_of, others)} == {"remote.unreachable"}  # each of a node of its own
    assert len(server.asked) == asked and time.monotonic() - begun < 5


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
