"""Our nodes as the converter writes them are our nodes as they are declared."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from lora_foundry.engine.quantize import AUTO
from lora_foundry.loaders.converting.chains import MAX_STRENGTH
from lora_foundry.loaders.converting.kinds import APPLIERS, DTYPES, FORMS, STACKERS
from lora_foundry.loaders.documents.document import MAX_STRENGTH as OF_ROWS
from lora_foundry.loaders.workflows.lora_kinds import LORA_NODES
from lora_foundry.loaders.workflows.widget_names import ORDERS
from lora_foundry.validator.stacks import ALLOW

NODES = Path(__file__).resolve().parents[3] / "nodes"


def test_every_kind_is_one_whose_loras_are_read():
    assert {*APPLIERS, *STACKERS} <= LORA_NODES.keys()


@pytest.mark.parametrize("kind", FORMS)
def test_widgets_are_named_as_workflows_name_them(kind):
    form = FORMS[kind]
    names = tuple(name for name, _ in form.widgets)
    assert len(form.defaults) == len(names)
    assert names[: len(ORDERS.get(kind, ()))] == ORDERS.get(kind, ())[: len(names)]


def test_every_node_is_one_of_ours():
    tree = ast.parse((NODES / "__init__.py").read_text(encoding="utf-8"))
    ours = {each.value for node in ast.walk(tree) if isinstance(node, ast.Dict) for each in node.keys}
    assert FORMS.keys() <= ours


def test_limits_and_words_are_those_of_the_rest():
    assert MAX_STRENGTH == OF_ROWS
    assert FORMS["FoundryStackValidator"].defaults[0] == ALLOW and AUTO in FORMS["FoundryQuantizeFP8"].defaults
    assert {matmul for _, matmul in DTYPES.values()} == {"full precision", "fp8"}
