"""Documents shared out by base: each base as few times as may be, the work in about equal shares."""

from __future__ import annotations

import pytest
from batch_parts import make_documents, make_models, write_document
from lora_foundry.engine.errors import FoundryError
from lora_foundry.loaders.bakes.wishes import Wishes
from lora_foundry.loaders.batches.places import Folder
from lora_foundry.loaders.batches.records import Task
from lora_foundry.loaders.batches.shares import TOGETHER, parts, parts_of, refuse_inputs, units_of
from lora_foundry.loaders.documents.document import load_document


def read(*paths):
    return [(Task(path.stem, str(path)), load_document(path)) for path in paths]


@pytest.mark.parametrize(
    ("documents", "shares", "wanted"),
    [(10, 1.0, 1), (10, 1.2, 1), (10, 1.3, 2), (20, 2.0, 2), (200, 2.0, 13), (3, 10.0, 3), (TOGETHER, 0.1, 1),
     (TOGETHER + 1, 0.1, 2)],
)  # fmt: skip
def test_the_number_of_parts(documents, shares, wanted):
    assert parts(documents, shares) == wanted


@pytest.mark.parametrize(
    ("groups", "workers", "wanted"),
    [([(24, 200)] * 5, 20, [16] * 5), ([(24, 200)] * 5, 10, [14] * 5), ([(1, 10), (1, 10)], 2, [1, 1]),
     ([(9, 10), (1, 10)], 2, [2, 1]), ([(0, 10)], 1, [1]), ([], 3, []),
     ([(2, 10), (1, 10)], 1, [1, 1]), ([(1, 40), (9, 3)], 1, [3, 1])],
)  # fmt: skip
def test_no_worker_is_idle_while_others_have_passes_left(groups, workers, wanted):
    assert parts_of(groups, workers) == wanted


@pytest.mark.parametrize(("workers", "counts"), [(1, [10, 10]), (2, [10, 10]), (4, [5, 5, 5, 5]), (99, [1] * 20)])
def test_a_base_is_in_as_few_units_as_there_are_workers_for(tmp_path, workers, counts):
    make_models(tmp_path)
    units = units_of(read(*make_documents(tmp_path)), Wishes(), workers, str(tmp_path), "run")
    assert sorted((len(unit.tasks) for unit in units), reverse=True) == counts
    names = [{int(task.name[1:]) % 2 for task in unit.tasks} for unit in units]
    assert all(len(each) == 1 for each in names), "no unit has two bases"
    assert sorted(task.name for unit in units for task in unit.tasks) == [f"d{number:02}" for number in range(20)]
    size = (tmp_path / "one.safetensors").stat().st_size
    assert all(unit.base_bytes == size and unit.memory_bytes > size for unit in units)


def test_one_base_under_two_names_is_one(tmp_path):
    make_models(tmp_path)
    (tmp_path / "link.safetensors").symlink_to(tmp_path / "one.safetensors")
    documents = [write_document(tmp_path, "a"), write_document(tmp_path, "b", base="link")]
    assert len(units_of(read(*documents), Wishes(), 1, str(tmp_path), "run")) == 1
    documents = [write_document(tmp_path, "a"), write_document(tmp_path, "b", base="nowhere")]
    assert len(units_of(read(*documents), Wishes(), 1, str(tmp_path), "run")) == 2


def test_no_result_takes_the_place_of_an_input(tmp_path):
    make_models(tmp_path)
    documents = [write_document(tmp_path, "two", base="one"), write_document(tmp_path, "other", base="two")]
    with pytest.raises(FoundryError, match=r"two\.safetensors would take the place"):
        refuse_inputs(read(*documents), Folder(tmp_path), Wishes(), {})
    refuse_inputs(read(*documents), Folder(tmp_path / "out"), Wishes(), {})


def test_no_result_takes_the_place_of_the_calibration(tmp_path):
    make_models(tmp_path)
    wishes = Wishes(calibration=str(tmp_path / "people.safetensors"))
    with pytest.raises(FoundryError, match=r"a file that the option --calibration reads"):
        refuse_inputs(read(write_document(tmp_path, "people")), Folder(tmp_path), wishes, {})
