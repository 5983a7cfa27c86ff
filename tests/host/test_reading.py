"""A base file under the names of the host's model: its reader gives what its plain reads give."""

from __future__ import annotations

import pytest
from lora_foundry.cli.demo import tiny
from safetensors.torch import save_file


def read_both_ways(path, mapped):
    """Which names differ between ``read`` and the reader, whole and by rows; one name is another in the model."""
    from pathlib import Path

    import torch
    from lora_foundry.loaders.bases.checkpoint import open_checkpoint
    from lora_foundry.nodes import host, sources

    checkpoint = open_checkpoint(Path(path))
    facts, real = host.file_facts(checkpoint), host.file_facts
    facts.names["renamed.weight"] = "blocks.0.ffn.0.weight"
    sources.host.file_facts = lambda _: facts
    try:
        base = sources.BaseFile(checkpoint, Path(path), "diffusion_models")
    finally:
        sources.host.file_facts = real
    with base.reader(mapped) as reader:
        other = [name for name in base.tensors if not torch.equal(reader.read(name), base.read(name))]
        rows = torch.equal(reader.read_rows("renamed.weight", 2, 5), base.read("renamed.weight")[2:5])
    return {"other": other, "rows": rows, "renamed": "renamed.weight" in base.tensors, "count": len(base.tensors)}


@pytest.mark.parametrize("mapped", [True, False, None])
def test_reader_speaks_the_names_of_the_model(mapped, inprocess, tmp_path):
    weights = tiny.state_dict("wan")
    save_file(weights, tmp_path / "wan.safetensors")
    seen = inprocess(read_both_ways, str(tmp_path / "wan.safetensors"), mapped)
    assert seen == {"other": [], "rows": True, "renamed": True, "count": len(weights)}
