"""Bases elsewhere: read by ranges, each byte once and some ahead; what changes, hangs or is cut ends in a sentence."""

from __future__ import annotations

import hashlib
import threading
import time
import weakref

import numpy as np
import pytest
import torch
from fault_server import Reply
from lora_foundry.cli.demo import tiny
from lora_foundry.engine.bake import bake_all
from lora_foundry.engine.errors import FoundryError
from lora_foundry.engine.pipeline import Read, read_in_order
from lora_foundry.loaders.bases.checkpoint import open_checkpoint, open_elsewhere
from lora_foundry.loaders.bases.dequantize import DEQUANTIZE, opened
from lora_foundry.loaders.disk.small import save_small, serialised
from lora_foundry.loaders.disk.source import base_fingerprint, states_of
from lora_foundry.loaders.remote import ranged, source
from lora_foundry.loaders.remote.names import parse_remote
from lora_foundry.loaders.remote.objects import Asking
from lora_foundry.loaders.remote.source import RemoteSource, shards_of

NAME, PATH = "s3://models/base.safetensors", "/models/base.safetensors"
SIZE = 1 << 16  # of a range in these tests


@pytest.fixture(autouse=True)
def small_ranges(monkeypatch):
    monkeypatch.setattr(ranged, "RANGE", SIZE)
    monkeypatch.setattr(ranged, "SMALL", 1 << 12)


@pytest.fixture
def base(server, tmp_path):
    """A base here and on the server."""
    save_small(tmp_path / "base.safetensors", tiny.state_dict("wan", width=128, layers=2))
    server.files[PATH] = (tmp_path / "base.safetensors").read_bytes()
    return tmp_path / "base.safetensors"


def elsewhere(name: str = NAME, **asking):
    return open_elsewhere(parse_remote(name), Asking(**asking))


def test_every_tensor_is_that_of_the_file(base):
    there, here = elsewhere(), open_checkpoint(base)
    assert there.tensors == here.tensors and there.metadata == here.metadata and there.label == here.label
    with there.reader() as reader:
        for name in here.tensors:
            assert torch.equal(reader.read(name), here.read(name)) and torch.equal(there.read(name), here.read(name))
        for name in [name for name, info in here.tensors.items() if info.shape and info.shape[0] > 2]:
            assert torch.equal(reader.read_rows(name, 1, 3), here.read(name)[1:3])


def test_the_fingerprint_is_that_of_the_file_and_needs_the_edges_only(server, tmp_path):
    numbers = torch.Generator().manual_seed(0)
    tensors = {f"blocks.{i}.weight": torch.randn(512, 512, generator=numbers) for i in range(6)}
    save_small(tmp_path / "base.safetensors", tensors)
    server.files[PATH] = (tmp_path / "base.safetensors").read_bytes()
    there, server.sent = elsewhere(), 0
    assert base_fingerprint(there) == base_fingerprint(open_checkpoint(tmp_path / "base.safetensors"))
    assert server.sent <= 7 * 8192 and states_of(there) == [there.identity]


def test_each_byte_is_read_once_and_some_ahead(base, server):
    there = elsewhere()
    server.asked.clear()
    with there.reader() as reader:
        names = list(there.tensors)
        reader.read(names[0])
        time.sleep(0.2)
        assert 1 < len(server.asked) <= 1 + ranged.AHEAD + 1
        for name in names[1:]:
            reader.read(name)
    spans = sorted(asked.span for asked in server.asked)
    assert all(first[1] == second[0] for first, second in zip(spans, spans[1:], strict=False))
    assert spans[0][1] - spans[0][0] == SIZE and spans[-1][1] == len(server.files[PATH])


def test_after_a_jump_nothing_is_read_ahead_until_it_goes_on(base, server):
    there = elsewhere()
    order = [name for name in there.tensors if there.tensors[name].nbytes > 4096]
    server.asked.clear()
    with there.reader() as reader:
        reader.read(order[-6])
        time.sleep(0.2)
        jumped = len(server.asked)
        reader.read(order[-5])
        reader.read(order[-4])
        time.sleep(0.2)
    span = there.source.place(order[-6])
    assert jumped <= (span.end - span.begin) // SIZE + 2 < len(server.asked)


def test_of_an_all_in_one_checkpoint_only_the_network_is_read(base, server, tmp_path):
    plain = tiny.state_dict("wan", width=128, layers=2)
    model = {f"model.diffusion_model.{name}": each for name, each in plain.items()}
    other = {f"a{i}.{name}": torch.zeros(512, 512) for i in range(4) for name in ("vae", "clip")}
    server.files[PATH] = serialised({**other, **model})
    there = elsewhere()
    server.asked.clear()
    with there.reader() as reader:
        for name in there.tensors:
            reader.read(name)
    read = sum(asked.span[1] - asked.span[0] for asked in server.asked)
    assert read < sum(info.nbytes for info in there.tensors.values()) + 2 * SIZE < len(server.files[PATH])


def test_a_tensor_without_numbers_needs_no_request(server):
    """As the marker of scaled fp8 files, which lies among large weights."""
    model = tiny.state_dict("wan", width=128, layers=2)
    large = {name: torch.ones(256, 256) for name in ("a", "z")}
    server.files[PATH] = serialised({**large, "marker": torch.zeros(0, 4), **model})
    there = RemoteSource([parse_remote(NAME)], Asking())
    server.asked.clear()
    assert there.read("marker").shape == (0, 4) and there.edges("marker") == b""
    assert torch.equal(there.read("a"), large["a"]) and all(
        begin < end for begin, end in (a.span for a in server.asked)
    )


def test_a_server_without_an_etag_does_not_tell_one_file_from_another(base, server):
    def plain(server, asked):
        reply = server.plain(asked)
        del reply.headers["ETag"]
        return reply

    assert states_of(elsewhere()) == states_of(elsewhere())
    server.fault = plain
    assert states_of(elsewhere()) != states_of(elsewhere())


def test_a_quantized_base_is_dequantized_and_each_byte_read_once(server, tmp_path):
    numbers = torch.Generator().manual_seed(1)
    tensors = {}
    for i in range(8):
        tensors[f"blocks.{i}.weight"] = torch.randn(256, 256, generator=numbers).to(torch.float8_e4m3fn)
        tensors[f"blocks.{i}.scale_weight"] = torch.tensor(0.5 + i)
    tensors["scaled_fp8"] = torch.zeros(2, dtype=torch.float8_e4m3fn)
    save_small(tmp_path / "base.safetensors", tensors)
    server.files[PATH] = (tmp_path / "base.safetensors").read_bytes()
    here = opened(open_checkpoint(tmp_path / "base.safetensors"), DEQUANTIZE)
    there = opened(elsewhere(), DEQUANTIZE)
    assert len(server.asked) < 8  # the scales come together
    server.asked.clear()
    with there.reader() as reader:
        for name in here.tensors:
            assert torch.equal(reader.read(name), here.read(name))
    spans = sorted(asked.span for asked in server.asked)
    assert all(first[1] <= second[0] for first, second in zip(spans, spans[1:], strict=False))


def test_one_shard_names_all_of_them(server, tmp_path):
    whole = tiny.state_dict("wan", width=128, layers=2)
    names = list(whole)
    for number in (1, 2):
        part = {name: whole[name] for name in names[number - 1 :: 2]}
        server.files[f"/models/m-0000{number}-of-00002.safetensors"] = serialised(part)
    there = elsewhere("s3://models/m-00002-of-00002.safetensors")
    assert set(there.tensors) == set(names)
    with there.reader() as reader:
        assert all(torch.equal(reader.read(name), whole[name]) for name in there.tensors)
    assert len(shards_of(parse_remote("s3://models/a-00001-of-99999.safetensors"))) == 1


def test_a_base_replaced_while_it_is_read_is_refused(base, server):
    there = elsewhere()
    with there.reader() as reader, pytest.raises(FoundryError, match="changed while it was read"):
        for number, name in enumerate(there.tensors):
            if number == 4:
                server.files[PATH] = server.files[PATH][:-1] + b"\1"
            reader.read(name)


def test_a_base_with_a_hash_is_that_file_or_refused(base, server):
    """The hash is of the whole file: ranges alone cannot tell."""
    here, sha256 = open_checkpoint(base), hashlib.sha256(base.read_bytes()).hexdigest()
    there = elsewhere(f"{NAME}#sha256={sha256}")
    assert all(torch.equal(there.read(name), here.read(name)) for name in here.tensors) and there.label == here.label
    with pytest.raises(FoundryError, match="another file than it has to be"):
        elsewhere(f"{NAME}#sha256={'0' * 64}")


def test_a_login_page_is_no_base(server):
    server.files[PATH] = b"<html>log in</html>" * 100
    with pytest.raises(FoundryError, match="no safetensors file"):
        elsewhere()


def test_a_base_that_is_no_base_is_told_by_its_name(server):
    from remote_parts import lora_bytes

    server.files[PATH] = lora_bytes()
    with pytest.raises(FoundryError, match=r"base.safetensors is a LoRA"):
        elsewhere()


def test_a_cancel_is_heard_within_a_second_while_the_server_hangs(base, server):
    """A cancel in the thread that reads (the host's), and one in the main thread that waits for it (Ctrl-C)."""
    seen, release = threading.Event(), threading.Event()

    def cancelled(file: str, done: int, total: int) -> None:
        if seen.is_set():
            raise KeyboardInterrupt

    there = elsewhere(on_bytes=cancelled)
    server.fault = lambda server, asked: (seen.set(), release.wait(20), None)[2]
    started = time.monotonic()
    with there.reader() as reader, pytest.raises(KeyboardInterrupt):
        reader.read(next(iter(there.tensors)))
    assert time.monotonic() - started < 10
    release.set()


def test_what_waits_ahead_ends_with_the_loop(base, server):
    there, release = elsewhere(), threading.Event()
    server.fault = lambda server, asked: (release.wait(20), None)[1] if asked.span[0] > 3 * SIZE else None
    started = time.monotonic()
    with there.reader() as reader:
        stream = read_in_order([Read(reader, name) for name in there.tensors], stop=there.source.stop)
        next(stream)
        stream.close()
    assert time.monotonic() - started < 10
    release.set()


def test_a_bake_stops_reading_when_it_is_cancelled(base, server, tmp_path):
    """The engine tells the source, through whatever it is shown."""
    from lora_foundry.engine.blueprint import blueprint
    from lora_foundry.engine.finish import Finish
    from lora_foundry.engine.job import BakeRequest
    from lora_foundry.engine.plan import Base, Plan
    from lora_foundry.engine.tensors import Nowhere

    there, release = elsewhere(), threading.Event()
    wanted = blueprint(Plan(Base("base", "wan", there)), Finish("float8_e4m3fn"))
    server.fault = lambda server, asked: (release.wait(20), None)[1] if asked.span[0] > 3 * SIZE else None
    started = time.monotonic()

    def cancel(done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bake_all([BakeRequest(wanted, Nowhere())], cancel)
    assert time.monotonic() - started < 10
    release.set()


def test_a_server_that_breaks_off_is_asked_again(base, server):
    def cut(server, asked):
        large = asked.span[1] - asked.span[0] > 200
        return Reply(**{**vars(server.plain(asked)), "cut": 100}) if large and asked.number in (5, 7) else None

    server.fault = cut
    here, there = open_checkpoint(base), elsewhere()
    with there.reader() as reader:
        assert all(torch.equal(reader.read(name), here.read(name)) for name in here.tensors)


def test_samples_of_weights_are_asked_for_at_once(base, server):
    there, here = elsewhere(), open_checkpoint(base)
    names = [name for name, info in here.tensors.items() if len(info.shape) == 2 and info.shape[0] >= 64]
    rows = [(name, first, first + 2) for name in names[: source.AT_ONCE // 2] for first in (0, 30)]
    together = threading.Barrier(source.AT_ONCE, timeout=20)
    server.fault = lambda server, asked: (together.wait(), None)[1]
    server.asked.clear()
    with there.reader() as reader:
        reader.expect(rows)
        for name, first, stop in rows:
            assert torch.equal(reader.read_rows(name, first, stop), here.read(name)[first:stop])
    assert len(server.asked) == len(rows) == source.AT_ONCE


def test_all_shards_are_opened_at_once(server):
    together = threading.Barrier(4, timeout=20)
    for number in range(1, 5):
        part = serialised({f"blocks.{number}.weight": torch.full((8, 8), float(number))})
        server.files[f"/models/m-0000{number}-of-00004.safetensors"] = part
    server.fault = lambda server, asked: (together.wait(), None)[1] if asked.span == (0, 1) else None
    there = RemoteSource(shards_of(parse_remote("s3://models/m-00002-of-00004.safetensors")), Asking())
    assert [there.read(f"blocks.{number}.weight")[0, 0] for number in range(1, 5)] == [1, 2, 3, 4]


def test_what_came_is_kept_by_no_thread_that_waits(base, server, monkeypatch):
    alive, fetched = [], set()

    class Came(np.ndarray):
        """Bytes that can be followed."""

    real = source.Part.read

    def read(part, begin, end):
        came = np.frombuffer(real(part, begin, end), dtype=np.uint8).view(Came)
        if end - begin > ranged.SMALL:
            alive.append(weakref.ref(came))
            fetched.add(threading.get_ident())
        return came

    there = elsewhere()
    monkeypatch.setattr(source.Part, "read", read)
    with there.reader() as reader:
        for name in there.tensors:
            reader.read(name)
        most = ranged.AHEAD + 1
        assert len(alive) > 3 * most  # so that threads came back for more
        reader.forget()
        end = time.monotonic() + 10
        while any(each() is not None for each in alive) and time.monotonic() < end:
            time.sleep(0.01)
        assert not any(each() is not None for each in alive) and len(fetched) <= most
