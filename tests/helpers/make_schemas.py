"""Write docs/*.schema.json: the JSON that leaves, for programs. Run it after changing a type of engine/json_*.py.

``python tests/helpers/make_schemas.py``; the types are the source; a test compares. A type becomes an entry of
``$defs`` under its name without ``JSON``, its docstring the description; see engine/json_types.py for ``Annotated``.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints, is_typeddict

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # for conftest, where pytest does not do it

from conftest import ROOT  # noqa: E402
from lora_foundry.engine.json_bake import BakeJSON, HeaderJSON, ResultsJSON  # noqa: E402
from lora_foundry.engine.json_batch import BatchJSON, BatchRecordJSON, DryRunJSON, ManifestJSON  # noqa: E402
from lora_foundry.engine.json_demo import BenchmarkJSON, DemoJSON, HostDemoJSON  # noqa: E402
from lora_foundry.engine.json_lineage import (  # noqa: E402
    ExportJSON,
    InsideJSON,
    RecordJSON,
    ShownBaseJSON,
    ShownLoRAJSON,
)
from lora_foundry.engine.json_merge import ConflictsJSON, ExtractJSON, MergeHeaderJSON, MergeJSON, VerifyJSON  # noqa: E402
from lora_foundry.engine.json_types import (  # noqa: E402
    ChecksJSON,
    ConvertJSON,
    DocumentJSON,
    FailureJSON,
    FindingJSON,
    LintJSON,
    ReportJSON,
)
from lora_foundry.engine.json_verbs import (  # noqa: E402
    DeclaredJSON,
    DialectsJSON,
    DoctorJSON,
    ExportedJSON,
    ForgottenJSON,
    ImportedJSON,
    InitJSON,
    InspectedBaseJSON,
    InspectedCalibrationJSON,
    InspectedLoRAJSON,
    ReadJSON,
    StampedJSON,
    WeighJSON,
)

DOCS = ROOT / "docs"
# name -> (what the file is, the types of which one fits)
SCHEMAS: dict[str, tuple[str, tuple[Any, ...]]] = {
    "findings": (
        "What the Stack Validator, `lora-foundry check`, POST /lora_foundry/lint and the browser show: the same "
        "findings everywhere.",
        (FindingJSON, ReportJSON, DocumentJSON, LintJSON, ChecksJSON, FailureJSON),
    ),
    "convert": (
        "What `lora-foundry convert --json` and POST /lora_foundry/convert tell: a workflow with the stages of this "
        "pack, and what stays as it was.",
        (ConvertJSON,),
    ),
    "bake": (
        "What `lora-foundry bake --json` and the finishing nodes tell of a bake, and what a result says in its header "
        "of how it was made.",
        (BakeJSON, ResultsJSON, HeaderJSON),
    ),
    "batch": (
        "What `lora-foundry batch` tells and leaves beside its results: `manifest.json`, and a record of each document "
        "in `records`.",
        (BatchJSON, DryRunJSON, ManifestJSON, BatchRecordJSON),
    ),
    "merge": (
        "What `lora-foundry merge --json` and the node Merge LoRAs tell of a merge, and what a merged file says of it "
        "in its header.",
        (MergeJSON, VerifyJSON, MergeHeaderJSON, ConflictsJSON, ExtractJSON),
    ),
    "lineage": (
        "What LoRAs were trained with and are to be used with, and which LoRAs are inside a base model. Nothing in a "
        "record is believed beyond its evidence, and no text in it is ever used as a path.",
        (
            RecordJSON,
            ExportJSON,
            ShownLoRAJSON,
            ShownBaseJSON,
            InsideJSON,
            DeclaredJSON,
            ForgottenJSON,
            ExportedJSON,
            ImportedJSON,
            ReadJSON,
            WeighJSON,
            StampedJSON,
        ),
    ),
    "inspect": (
        "What `lora-foundry inspect --json` tells of a file. A key that only a LoRA that can be used has is absent "
        "otherwise.",
        (InspectedLoRAJSON, InspectedBaseJSON, InspectedCalibrationJSON, DialectsJSON),
    ),
    "doctor": ("What `lora-foundry doctor --json` tells of a machine.", (DoctorJSON,)),
    "init": ("What `lora-foundry init --json` tells of the document it wrote.", (InitJSON,)),
    "demo": ("What `lora-foundry demo --json` tells, with and without `--host`.", (DemoJSON, HostDemoJSON)),
    "benchmark": ("What `lora-foundry benchmark --json` tells, and `benchmark.json`.", (BenchmarkJSON,)),
}
CLOSED = (FindingJSON, InsideJSON)  # no further key, in no version
SIMPLE = {str: "string", bool: "boolean", int: "integer", float: "number", NoneType: "null"}


def schema(name: str) -> str:
    """The text of ``docs/<name>.schema.json`` as it has to be."""
    description, kinds = SCHEMAS[name]
    parts: dict[str, Any] = {}
    root = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"LoRA Foundry: {name}",
        "description": description,
        "oneOf": [_form(kind, parts) for kind in kinds],
        "$defs": parts,
    }
    return json.dumps(root, indent=1) + "\n"


def _form(kind: Any, parts: dict[str, Any]) -> dict[str, Any]:
    """A type as a schema; TypedDicts become entries of ``parts``, which are referred to."""
    if kind is Any:
        return {}
    if kind in SIMPLE:
        return {"type": SIMPLE[kind]}
    if is_typeddict(kind):
        return _part(kind, parts)
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        told = dict(("description", each) if isinstance(each, str) else each for each in kind.__metadata__)
        form = {**_form(arguments[0], parts), **told}
        return {key: value for key, value in form.items() if key != "type" or not {"enum", "const"} & form.keys()}
    if origin in (Union, UnionType):
        return _or_null(*(_form(each, parts) for each in arguments if each is not NoneType))
    if origin is list:
        return {"type": "array", "items": _form(arguments[0], parts)}
    if origin is dict and arguments[0] is str:
        return {"type": "object", "additionalProperties": _form(arguments[1], parts)}
    raise TypeError(f"{kind} has no form in JSON Schema here")


def _or_null(form: dict[str, Any]) -> dict[str, Any]:
    if "enum" in form:
        return {**form, "enum": [*form["enum"], None]}
    return {**form, "type": [form["type"], "null"]} if "type" in form else {"anyOf": [form, {"type": "null"}]}


def part_name(name: str) -> str:
    """``StackLoRAJSON`` -> ``stack_lora``."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name.removesuffix("JSON").replace("LoRA", "Lora")).lower()


def _part(kind: Any, parts: dict[str, Any]) -> dict[str, Any]:
    """The reference to a TypedDict."""
    name = part_name(kind.__name__)
    if name not in parts:
        parts[name] = {}  # its place in the order
        hints = get_type_hints(kind, include_extras=True)
        parts[name] = {
            "description": " ".join(str(kind.__doc__).split()),
            "type": "object",
            "required": [key for key in hints if key in kind.__required_keys__],
            **({"additionalProperties": False} if kind in CLOSED else {}),
            "properties": {key: _form(hint, parts) for key, hint in hints.items()},
        }
    return {"$ref": f"#/$defs/{name}"}


def main(folder: Path = DOCS) -> None:
    """Write the files."""
    for name in SCHEMAS:
        (folder / f"{name}.schema.json").write_text(schema(name), encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
