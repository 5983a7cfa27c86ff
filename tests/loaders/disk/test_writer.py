"""The streamed writer: readable by the reference reader, tensors whole, by rows or out of another file."""

from __future__ import annotations

import hashlib
import os
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lora_foundry.engine.errors import FoundryError
from lora_foundry.engine.tensors import Extent
from lora_foundry.loaders.disk import writer
from lora_foundry.loaders.disk.header import DTYPES, read_header
from lora_foundry.loaders.disk.layout import layout
from lora_foundry.loaders.disk.source import FileSource
from lora_foundry.loaders.disk.writer import write_safetensors
from safetensors import safe_open
from writer_parts import TENSORS, assert_untouched, infos, same, write


def test_reference_reader_and_our_own_read_it_back(target):
    metadata = {"format": "pt", "text": "ü🎨\n\x1b"}
    write(target, metadata=metadata)
    with safe_open(target, "pt") as file:
        assert file.metadata() == metadata
        assert all(same(file.get_tensor(name), tensor) for name, tensor in TENSORS.items())
    source = FileSource(target)
    assert source.metadata == metadata
    assert all(same(source.read(name), tensor) for name, tensor in TENSORS.items())
    assert [entry.name for entry in target.parent.iterdir()] == [target.name]


def test_layout_is_aligned_complete_and_in_order():
    header, offsets = layout(infos(TENSORS), {"format": "pt"})
    assert len(header) % 8 == 0
    assert list(offsets) == ["wide", "a_scale", "none", "b", "a"]
    assert all(offsets[name] % tensor.dtype.itemsize == 0 for name, tensor in TENSORS.items())
    assert layout(infos(TENSORS), {"format": "pt"}) == (header, offsets)
    assert layout([], {})[0] == b"\x08" + bytes(7) + b"{}      "


def test_a_listed_order_is_kept_where_every_tensor_then_lies_well():
    fits = {"up": torch.ones(2, 3).bfloat16(), "alpha": torch.tensor(4.0), "down": torch.ones(3).bfloat16()}
    assert list(layout(infos(fits), {}, as_listed=True)[1]) == ["up", "alpha", "down"]
    odd = {"down": torch.ones(3).bfloat16(), "alpha": torch.tensor(4.0)}  # six bytes before an fp32 number
    assert layout(infos(odd), {}, as_listed=True) == layout(infos(odd), {}) == layout(infos(odd)[::-1], {})


@pytest.mark.parametrize("names", [["up", "alpha", "down"], ["alpha", "down", "up"], ["up", "down", "alpha"]])
def test_the_hash_of_a_file_is_that_of_its_tensors_in_whatever_order_they_came(target, names):
    tensors = {"up": torch.randn(4, 3).bfloat16(), "alpha": torch.tensor(4.0), "down": torch.randn(3, 6).bfloat16()}
    with write_safetensors(target, infos(tensors), {"a": "b"}, 64, hashed=True) as sink:
        for name in names:
            sink.write(name, tensors[name])
        told = sink.sha256()
        assert sink.sha256() == told
        sink.restate({"a": told[:32]})
    data = target.read_bytes()
    assert told == hashlib.sha256(data[8 + int.from_bytes(data[:8], "little") :]).hexdigest()
    assert all(same(FileSource(target).read(name), tensor) for name, tensor in tensors.items())


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(list(DTYPES.values())), st.lists(st.integers(0, 3), max_size=3)), max_size=6))
def test_any_shapes_and_dtypes_make_a_valid_file(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("w") / "a.safetensors"
    tensors = {f"t{i}": torch.ones(shape, dtype=torch.uint8).to(dtype) for i, (dtype, shape) in enumerate(rows)}
    write(path, tensors)
    header = read_header(path)
    assert {info.name: info.shape for info in header.tensors.values()} == {
        n: tuple(t.shape) for n, t in tensors.items()
    }
    with safe_open(path, "pt") as file:
        assert set(file.keys()) == set(tensors)


def test_strides_views_and_gradients_are_written_as_seen(target):
    matrix = torch.arange(12.0, requires_grad=True).reshape(3, 4)
    tensors = {"t": matrix.t(), "row": matrix[1], "wide": torch.ones(1, 2).expand(3, 2)}
    write(target, tensors)
    source = FileSource(target)
    assert all(torch.equal(source.read(name), tensor) for name, tensor in tensors.items())


def test_tensors_may_come_in_any_order(target):
    with write_safetensors(target, infos(TENSORS), {}) as sink:
        for name in reversed(TENSORS):
            sink.write(name, TENSORS[name])
    assert all(same(FileSource(target).read(name), tensor) for name, tensor in TENSORS.items())


@pytest.mark.parametrize(
    ("name", "tensor", "says"),
    [
        ("c", torch.ones(1), "'c' twice or unannounced"),
        ("a_scale", torch.ones(1), r"'a_scale' as torch.float32 \(1,\) instead of torch.float32 \(\)"),
        ("a_scale", torch.ones((), dtype=torch.float16), "instead of torch.float32"),
    ],
)
def test_tensor_that_was_not_announced_so_is_refused(name, tensor, says, target):
    with pytest.raises(FoundryError, match=says), write_safetensors(target, infos(TENSORS), {}) as sink:
        sink.write(name, tensor)
    assert_untouched(target)


def test_tensor_written_twice_is_refused(target):
    with pytest.raises(FoundryError, match="twice"), write_safetensors(target, infos(TENSORS), {}) as sink:
        sink.write("b", TENSORS["b"])
        sink.write("b", TENSORS["b"])
    assert_untouched(target)


def test_missing_tensor_is_an_error_at_the_end(target):
    with (
        pytest.raises(FoundryError, match="lacks 4 announced tensors, the first is 'a'"),
        write_safetensors(target, infos(TENSORS), {}) as sink,
    ):
        sink.write("b", TENSORS["b"])
    assert_untouched(target)


@pytest.mark.parametrize("order", [[(0, 1), (1, 4), (4, 7)], [(5, 7), (0, 2), (2, 5)], [(0, 7)], [(3, 3), (0, 7)]])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float8_e4m3fn])
def test_rows_come_in_any_pieces_and_order(order, dtype, target):
    tensor = torch.arange(7 * 6.0).reshape(7, 3, 2).to(dtype)
    tensors = {"w": tensor, "b": torch.ones(2)}
    with write_safetensors(target, infos(tensors), {}) as sink:
        for first, stop in order:
            sink.write_rows("w", first, tensor[first:stop])
        sink.write("b", tensors["b"])
    assert all(same(FileSource(target).read(name), value) for name, value in tensors.items())


def test_rows_of_nothing_and_of_one_dimension(target):
    tensors = {"none": torch.empty(0, 4), "flat": torch.arange(5.0), "thin": torch.empty(3, 0)}
    with write_safetensors(target, infos(tensors), {}) as sink:
        sink.write_rows("none", 0, tensors["none"])
        sink.write_rows("flat", 2, tensors["flat"][2:])
        sink.write_rows("flat", 0, tensors["flat"][:2])
        sink.write_rows("thin", 0, tensors["thin"])
    assert FileSource(target).read("flat").tolist() == [0, 1, 2, 3, 4]


ROWS = [
    ([(0, 4), (3, 7)], "rows 3 to 7 of the tensor 'w', but some of them came before"),
    ([(4, 7), (0, 5)], "rows 0 to 5 of the tensor 'w', but some of them came before"),
    ([(0, 3), (3, 7), (0, 3)], "'w' twice or unannounced"),
    ([(0, 2), (4, 7)], r"lacks 1 announced tensors, the first is 'w' \(5 of its 7 rows came\)"),
    ([(0, 7, 1)], "rows 1 to 8 of the tensor 'w', but it has 7"),
    ([(0, 2, -1)], "rows -1 to 1 of the tensor 'w', but it has 7"),
]


@pytest.mark.parametrize(("pieces", "says"), ROWS, ids=[says for _, says in ROWS])
def test_rows_that_overlap_are_missing_or_too_many_are_refused(pieces, says, target):
    tensor = torch.arange(14.0).reshape(7, 2)
    with pytest.raises(FoundryError, match=says), write_safetensors(target, infos({"w": tensor}), {}) as sink:
        for first, stop, *place in pieces:
            sink.write_rows("w", *(place or [first]), tensor[first:stop])
    assert_untouched(target)


@pytest.mark.parametrize(
    ("name", "rows", "says"),
    [
        ("w", torch.ones(1, 3), r"as torch.float32 \(1, 3\) instead of torch.float32 \(7, 2\)"),
        ("w", torch.ones(()), r"as torch.float32 \(\) instead"),
        ("w", torch.ones(1, 2).half(), "as torch.float16"),
        ("s", torch.ones(()), "rows of 's', which is a single number"),
        ("x", torch.ones(1), "'x' twice or unannounced"),
    ],
)
def test_rows_that_were_not_announced_so_are_refused(name, rows, says, target):
    entries = infos({"w": torch.ones(7, 2), "s": torch.ones(())})
    with pytest.raises(FoundryError, match=says), write_safetensors(target, entries, {}) as sink:
        sink.write_rows(name, 0, rows)
    assert_untouched(target)


def test_a_whole_tensor_after_some_of_its_rows_is_refused(target):
    tensor = torch.ones(7, 2)
    with (
        pytest.raises(FoundryError, match="'w' whole after some of its rows"),
        write_safetensors(target, infos({"w": tensor}), {}) as sink,
    ):
        sink.write_rows("w", 0, tensor[:1])
        sink.write("w", tensor)
    assert_untouched(target)


# --- tensors out of another file


@pytest.fixture
def earlier(tmp_path):
    """An open file, and a way to get the place of one of its tensors."""
    path = tmp_path / "earlier.safetensors"
    write(path)
    offsets = read_header(path).offsets
    with path.open("rb", buffering=0) as file:
        yield lambda name: Extent(file, *offsets[name])


def test_a_copied_tensor_is_the_same(earlier, tmp_path):
    path = tmp_path / "new.safetensors"
    with write_safetensors(path, infos(TENSORS), {"other": "header" * 99}) as sink:
        for name in reversed(TENSORS):
            sink.copy(name, earlier(name))
    with safe_open(path, "pt") as file:
        assert all(same(file.get_tensor(name), tensor) for name, tensor in TENSORS.items())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("a", "b"), r"was given 12 bytes for 'a', which has 15"),
        (("other", "a"), "twice or unannounced"),
        (("a", "a", "a", "a"), "twice or unannounced"),
    ],
)
def test_a_copy_must_be_what_was_announced(given, message, earlier, target):
    with pytest.raises(FoundryError, match=message), write_safetensors(target, infos(TENSORS), {}) as sink:
        for name, place in zip(given[::2], given[1::2], strict=True):
            sink.copy(name, earlier(place))
    assert target.read_bytes() == b"old"


def test_a_copy_goes_on_in_its_own_files_when_they_are_closed_under_it(earlier, tmp_path, monkeypatch):
    """After a second Ctrl+C: the numbers of closed files may be those of unrelated ones by then."""
    path, victim, other, copy = (tmp_path / "new.safetensors", *(tmp_path / n for n in "vo"), writer.copy_range)
    other.write_bytes(b"x" * 5000)

    def closing(*given):
        extent.file.close()
        sink._file.close()
        with other.open("rb", buffering=0), victim.open("wb", buffering=0):  # in the order the closed ones were opened
            return [max(copy(*given))]

    extent = earlier("a")
    monkeypatch.setattr(writer, "copy_range", closing)
    with pytest.raises((FoundryError, ValueError)), write_safetensors(path, infos(TENSORS), {}) as sink:
        sink.copy("a", extent)
    assert not path.exists() and not victim.read_bytes()
    with pytest.raises(ValueError, match="closed"), write_safetensors(path, infos(TENSORS), {}) as sink:
        sink.copy("a", extent)


def test_a_copy_whose_file_ends_early_is_refused(earlier, target):
    place = earlier("b")
    end = os.fstat(place.file.fileno()).st_size + 1
    cut = Extent(place.file, end - (place.end - place.begin), end)
    with pytest.raises(FoundryError, match="ends within 'b'"), write_safetensors(target, infos(TENSORS), {}) as sink:
        sink.copy("b", cut)
    assert target.read_bytes() == b"old"


def test_a_copy_does_not_cover_rows_that_came(earlier, target):
    with pytest.raises(FoundryError, match="was given 15 bytes"), write_safetensors(target, infos(TENSORS), {}) as sink:
        sink.write_rows("a", 0, TENSORS["a"][:1])
        sink.copy("a", earlier("a"))
    assert target.read_bytes() == b"old"


def test_only_the_memory_of_the_replaced_file_is_given_back(tmp_path, monkeypatch):
    forgotten = []
    monkeypatch.setattr(writer, "LARGE", 1)
    monkeypatch.setattr(writer, "forget", lambda handle, *_: forgotten.append(handle))
    path = tmp_path / "model.safetensors"
    write(path)
    for out, count in ((tmp_path / "other.safetensors", 0), (path, 1)):
        with path.open("rb", buffering=0) as file, write_safetensors(out, infos(TENSORS), {}) as sink:
            sink.copy("a", Extent(file, *read_header(path).offsets["a"]))
            for name in list(TENSORS)[1:]:
                sink.write(name, TENSORS[name])
            assert len(forgotten) == count


def test_two_threads_that_write_one_file_do_not_mix_up_their_places(target):
    """A thread that comes between finding the place and writing there must wait."""
    large = {f"{number}": torch.full((4096,), float(number)) for number in range(8)}

    class Slow:
        def __init__(self, file):
            self._file, self.write, self.fileno = file, file.write, file.fileno

        def seek(self, offset):
            self._file.seek(offset)
            time.sleep(0.002)

    with write_safetensors(target, infos(large), {}) as sink:
        file, sink._file = sink._file, Slow(sink._file)
        with ThreadPoolExecutor(2) as threads:
            for done in [threads.submit(sink.write, name, tensor) for name, tensor in large.items()]:
                done.result()
        sink._file = file
    source = FileSource(target)
    assert all(same(source.read(name), tensor) for name, tensor in large.items())
