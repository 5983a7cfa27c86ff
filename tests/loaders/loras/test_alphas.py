"""Where the scale comes from: alpha tensors, the header, adapter_config.json beside the file, in this order."""

from __future__ import annotations

import json
import math

import pytest
import torch
from fixtures_parts import ZOO, numbers, pair
from lora_foundry.engine.adapters import scale_of
from lora_foundry.engine.errors import FoundryError
from lora_foundry.loaders.loras.file import LoRAFile, open_lora
from safetensors.torch import save_file
from samples import ShapeSource


def lora(tensors, metadata=None):
    return LoRAFile(ShapeSource({}, tensors), "x.safetensors", "0" * 64, metadata)


def peft(*modules, rank=2):
    return {key: value for module in modules for key, value in pair(module, rank=rank, ab=True).items()}


def header(**entries):
    return {"lora_adapter_metadata": json.dumps(entries)}


def scales(file):
    return {adapter.module: adapter.scale for adapter in file.adapters}


def codes(file):
    return [(finding.code, finding.severity) for finding in file.findings]


Q, K = "transformer.blocks.0.attn.to_q", "transformer.blocks.0.attn.to_k"
BOTH = peft(Q, K)


def test_alpha_in_the_header_counts():
    file = lora(BOTH, header(**{"transformer.r": 2, "transformer.lora_alpha": 8}))
    assert scales(file) == {Q: 4.0, K: 4.0} and file.alpha_sources == {"lora_adapter_metadata": 2}
    assert scales(lora(BOTH, header(r=2, lora_alpha=8))) == {Q: 4.0, K: 4.0}
    assert scales(lora(BOTH, header(**{"transformer.r": 2}))) == {Q: 1.0, K: 1.0}


def test_rs_lora():
    file = lora(BOTH, header(**{"transformer.r": 2, "transformer.lora_alpha": 8, "transformer.use_rslora": True}))
    assert scales(file)[Q] == pytest.approx(8 / math.sqrt(2))


PATTERNS = [
    ("to_q", True, False), ("attn.to_q", True, False), ("blocks.0.attn.to_q", True, False), ("tn.to_q", False, False),
    ("to_", False, False), (r"blocks\.\d+\.attn\.to_q", True, False), ("^blocks.0.attn.to_k", False, True),
    (".*to_[qk]", True, True), ("^to_q", False, False), ("to_q|to_k", True, True),
]  # fmt: skip


@pytest.mark.parametrize(("pattern", "q", "k"), PATTERNS)
def test_alpha_patterns(pattern, q, k):
    stated = {"transformer.r": 2, "transformer.lora_alpha": 2, "transformer.alpha_pattern": {pattern: 6}}
    assert scales(lora(BOTH, header(**stated))) == {Q: 3.0 if q else 1.0, K: 3.0 if k else 1.0}


def test_rank_patterns_go_with_the_ranks_of_the_factors():
    tensors = {**peft(Q), **peft(K, rank=3)}
    stated = {"transformer.r": 2, "transformer.lora_alpha": 6}
    right = lora(tensors, header(**stated, **{"transformer.rank_pattern": {"to_k": 3}}))
    assert scales(right) == {Q: 3.0, K: 2.0} and not right.findings
    wrong = lora(tensors, header(**stated))
    assert scales(wrong) == {Q: 1.0, K: 1.0} and codes(wrong) == [("LF305", "warning")]
    assert "other ranks" in wrong.findings[0].seen


@pytest.mark.parametrize("pattern", ["(a+)+", "(.*)*x", "a{9}", "(", "[", "a?a?a?a", "x" * 300 + "|", "(a|b)*", "a b"])
def test_a_pattern_that_could_hang_or_means_nothing_is_refused(pattern):
    with pytest.raises(FoundryError, match="LF304.*pattern"):
        lora(BOTH, header(alpha_pattern={pattern: 2}))


def test_parts_of_the_model_have_settings_of_their_own():
    text = "text_encoder.text_model.encoder.layers.0.self_attn.q_proj"
    stated = {"unet.r": 2, "unet.lora_alpha": 4, "text_encoder.r": 2, "text_encoder.lora_alpha": 8}
    file = lora(peft("unet.mid_block.x", text), header(**stated))
    assert scales(file) == {"unet.mid_block.x": 2.0} and file.text_encoder == (text,)
    assert file.read(f"{text}.alpha").item() == 8.0, "the host applies these and knows alpha tensors only"
    assert f"{text}.alpha" in file.text_encoder_tensors() and "unet.mid_block.x.alpha" not in file.tensors


def test_the_tensor_counts_more_and_a_disagreement_is_told():
    file = lora({**BOTH, f"{Q}.alpha": torch.tensor(1.0)}, header(**{"transformer.r": 2, "transformer.lora_alpha": 8}))
    assert scales(file) == {Q: 0.5, K: 4.0}
    (finding,) = file.findings
    assert (finding.code, finding.severity) == ("LF305", "warning")
    assert Q in finding.seen and "alpha 1" in finding.seen and "states 8" in finding.seen
    same = lora({**BOTH, f"{Q}.alpha": torch.tensor(8.0)}, header(r=2, lora_alpha=8))
    assert not same.findings


@pytest.mark.parametrize("text", ["", "{", "[1]", "null", '"x"', "[" * 100000])
def test_an_unreadable_header_entry_is_told(text):
    file = lora(BOTH, {"lora_adapter_metadata": text})
    assert scales(file) == {Q: 1.0, K: 1.0} and codes(file) == [("LF305", "warning")]


@pytest.mark.parametrize("value", ["8", None, True, [8], math.nan, math.inf, 10**400])
def test_an_alpha_that_is_no_number_is_none(value):
    assert scales(lora(BOTH, header(**{"transformer.lora_alpha": value}))) == {Q: 1.0, K: 1.0}


def test_dora_without_magnitudes_is_told():
    (finding,) = lora(BOTH, header(**{"transformer.use_dora": True})).findings
    assert finding.severity == "warning" and "no magnitudes" in finding.seen
    whole = {**BOTH, f"{Q}.lora_magnitude_vector": numbers(6)}
    assert not lora(whole, header(**{"transformer.use_dora": True})).findings


def test_a_bias_of_up_follows_its_module():
    tensors = {**BOTH, f"{Q}.lora_B.bias": numbers(6)}
    file = lora(tensors, header(**{"transformer.r": 2, "transformer.alpha_pattern": {"to_q": 6}}))
    assert scales(file) == {Q: 3.0, f"{Q}.bias": 3.0, K: 1.0}


def test_what_trainers_note_down_is_told_and_not_applied():
    noted = {"ss_network_dim": "2", "ss_network_alpha": "1.0"}
    file = lora(BOTH, noted)
    assert scales(file) == {Q: 1.0, K: 1.0} and codes(file) == [("LF305", "warning")] and "0.5" in file.findings[0].fix
    assert not lora(BOTH, {"ss_network_dim": "2", "ss_network_alpha": "2"}).findings
    assert not lora(BOTH, {"ss_network_dim": "x", "ss_network_alpha": "nan"}).findings
    assert not lora({**BOTH, f"{Q}.alpha": torch.tensor(1.0), f"{K}.alpha": torch.tensor(1.0)}, noted).findings


# --- adapter_config.json


RAW = "base_model.model.blocks.0.q"


def saved(folder, name="adapter_model.safetensors", config=None, tensors=None, metadata=None):
    save_file(tensors or peft(RAW), folder / name, metadata=metadata)
    if config is not None:
        text = config if isinstance(config, str) else json.dumps(config)
        (folder / "adapter_config.json").write_text(text, encoding="utf-8")
    return folder / name


def test_the_config_beside_the_file_counts(tmp_path):
    file = open_lora(saved(tmp_path, config={"r": 2, "lora_alpha": 6, "use_rslora": False}))
    assert scales(file) == {RAW: 3.0} and file.alpha_sources == {"adapter_config.json": 1} and not file.findings
    other = open_lora(saved(tmp_path, "mine.safetensors"))
    assert scales(other) == {RAW: 1.0}, "it may be of its neighbour"
    assert codes(other) == [("LF305", "warning")] and "scale of 3; it is not used" in other.findings[0].seen
    (tmp_path / "adapter_model.safetensors").unlink()
    assert scales(open_lora(tmp_path / "mine.safetensors")) == {RAW: 3.0}


def test_a_config_in_another_folder_is_not_looked_for(tmp_path):
    (tmp_path / "loras").mkdir()
    (tmp_path / "adapter_config.json").write_text('{"r": 2, "lora_alpha": 6}', encoding="utf-8")
    file = open_lora(saved(tmp_path / "loras"))
    assert scales(file) == {RAW: 1.0} and "without its adapter_config.json" in file.findings[0].seen


def test_header_before_config(tmp_path):
    path = saved(tmp_path, config={"r": 2, "lora_alpha": 6}, metadata=header(r=2, lora_alpha=4))
    file = open_lora(path)
    assert scales(file) == {RAW: 2.0} and codes(file) == [("LF305", "warning")]
    assert "adapter_config.json states 6" in file.findings[0].seen


def test_adapter_names_other_than_default(tmp_path):
    tensors = {key.replace(".weight", ".style.weight"): value for key, value in peft(RAW).items()}
    file = open_lora(saved(tmp_path, config={"r": 2, "lora_alpha": 6}, tensors=tensors))
    assert scales(file) == {RAW: 3.0} and file.info.dialect == "A/B named"


@pytest.mark.parametrize("text", ["", "{", "[]", "\0", "{'r': 2}"])
def test_an_unreadable_config_is_told(text, tmp_path):
    file = open_lora(saved(tmp_path, config=text))
    assert ("LF305", "warning") in codes(file) and "cannot be read as JSON" in file.findings[0].seen


def test_a_config_of_another_file_is_told(tmp_path):
    file = open_lora(saved(tmp_path, config={"r": 16, "lora_alpha": 32}))
    assert scales(file) == {RAW: 1.0} and "states other ranks" in file.findings[0].seen


@pytest.mark.parametrize("start", ["pissa", "pissa_niter_4", "olora", "CorDA", "loftq"])
def test_loras_of_a_residual_base_are_refused(start, tmp_path):
    with pytest.raises(FoundryError, match=f"LF304.*started with {start}"):
        open_lora(saved(tmp_path, config={"r": 2, "lora_alpha": 6, "init_lora_weights": start}))


@pytest.mark.parametrize("start", [True, False, "gaussian", "eva", None])
def test_other_starts_are_fine(start, tmp_path):
    assert scales(open_lora(saved(tmp_path, config={"r": 2, "lora_alpha": 6, "init_lora_weights": start}))) == {RAW: 3}


def test_loha_and_lokr_of_peft(tmp_path):
    def of(name):
        return {key.replace("m.", f"{RAW}.", 1): t for key, t in ZOO[name][2].items() if not key.endswith("alpha")}

    loha = open_lora(saved(tmp_path, config={"r": 2, "alpha": 6}, tensors=of("loha")))
    assert scales(loha) == {RAW: 3.0}
    split = open_lora(saved(tmp_path, config={"r": 1, "alpha": 6}, tensors=of("lokr right split")))
    assert scales(split) == {RAW: 6.0}
    same = open_lora(saved(tmp_path, config={"r": 4, "alpha": 4}, tensors=of("lokr dense")))
    assert scales(same) == {RAW: 1.0}
    made = open_lora(saved(tmp_path, config={"r": 4, "alpha": 6}, tensors=of("lokr dense")))
    assert scales(made) == {RAW: 1.5} and scale_of(made.adapters[0]) == 1.5
    text = {key.replace(RAW, "text_model.encoder.layers.0.mlp.fc1"): value for key, value in of("lokr dense").items()}
    with pytest.raises(FoundryError, match="whole factors.*scale of 1.5.*text encoder"):
        open_lora(saved(tmp_path, config={"r": 4, "alpha": 6}, tensors=text))


def test_the_series_of_an_oft_is_told_by_its_config(tmp_path):
    tensors = {f"{RAW}.oft_R.weight": numbers(2, 6)}
    for stated, terms in (({}, None), ({"use_cayley_neumann": True}, 5), ({"use_cayley_neumann": False}, 0),
                          ({"use_cayley_neumann": True, "num_cayley_neumann_terms": 3}, 3),
                          ({"use_cayley_neumann": True, "num_cayley_neumann_terms": 10**8}, 64)):  # fmt: skip
        config = {"peft_type": "OFT", "r": 0, "oft_block_size": 4, **stated}
        file = open_lora(saved(tmp_path, config=config, tensors=tensors))
        assert file.adapters[0].alpha == terms and not file.findings
