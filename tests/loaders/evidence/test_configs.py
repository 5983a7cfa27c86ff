"""Trainers' configs: what each says about base LoRAs, and what it does not say."""

from __future__ import annotations

import json
from contextlib import suppress

import pytest
from evidence_checks import claims, sound
from hypothesis import given, settings
from hypothesis import strategies as st
from lora_foundry.engine.errors import FoundryError
from lora_foundry.engine.lineage import DECLARED, GUESSED, Ingredient
from lora_foundry.loaders.evidence import configs as evidence_configs
from lora_foundry.loaders.evidence.configs import read_readme, read_toml, read_yaml
from lora_foundry.loaders.evidence.sidecars import read_json

A = Ingredient("adapters/training_adapter_v2.safetensors", strength=1.0)


def job(model: str, kind: str = "diffusion_trainer", network: str = "network: {type: lora, linear: 16}") -> str:
    return f"""
job: extension
config:
  name: my_style_v1
  process:
    - type: {kind}
      {network}
      model:
        name_or_path: Tongyi-MAI/Z-Image-Turbo
{"".join(f"        {line}{chr(10)}" for line in model.splitlines())}
meta: {{version: '1.0'}}
"""


# The five practices of formats.md 3c: what a config or script of each says.
@pytest.mark.parametrize(
    ("statements", "expected"),
    [
        pytest.param(read_yaml(job(""), "c.yaml"), [((), None, DECLARED, False)], id="P1 vanilla"),
        pytest.param(
            read_yaml(job("lora_path: loras/L.safetensors"), "c.yaml"),
            [((Ingredient("loras/L.safetensors", strength=1.0),),) * 2 + (DECLARED, False)],
            id="P2 fused base",
        ),
        pytest.param(
            read_yaml(job(f"assistant_lora_path: {A.name}"), "c.yaml"),
            [((A,), (), DECLARED, False)],
            id="P3 training adapter",
        ),
        pytest.param(
            read_json(json.dumps({"preset_lora_path": "one.safetensors", "preset_lora_model": "dit"}), "args.json"),
            [((Ingredient("one.safetensors", strength=1.0),), None, DECLARED, True)],
            id="P4 differential",
        ),
        pytest.param(
            read_yaml(job("inference_lora_path: DistillPatch.safetensors"), "c.yaml"),
            [((), (Ingredient("DistillPatch.safetensors"),), DECLARED, False)],
            id="P5 repair",
        ),
    ],
)
def test_the_five_practices(statements, expected):
    assert claims(statements) == expected


def test_ai_toolkit_lists_and_weights():
    rows = ["{path: a, weight: 0.6}", "{path: b}", "c", "{weight: 1}", "5", "{path: d, weight: junk}"]
    (statement,) = read_yaml(job("lora_paths:\n" + "\n".join(f"  - {row}" for row in rows)), "c.yaml")
    strengths = {"a": 0.6, "b": 1.0, "c": 1.0, "d": None}
    expected = tuple(Ingredient(name, strength=strength) for name, strength in strengths.items())
    assert statement.claim.trained_with == statement.claim.use_with == expected
    assert statement.outputs == ("my_style_v1",)


def test_ai_toolkit_quotes_what_it_rests_on():
    model = f'assistant_lora_path: {A.name}\nqtype: "qfloat8|qwen/accuracy_recovery_adapter.safetensors"'
    (statement,) = read_yaml(job(model), "c.yaml")
    assert statement.claim.trained_with == (A,)  # the repair of the quantization is none
    assert statement.claim.evidence.quote.startswith(f"assistant_lora_path: {A.name}; qtype: qfloat8|qwen/")


@pytest.mark.parametrize(
    "text",
    [
        job("lora_path: a", kind="generate"),
        job("lora_path: a", kind="extract"),
        job("", network=""),  # a full fine-tune
        job("").replace("Tongyi-MAI/Z-Image-Turbo", "/models/my-Lightning-merged"),
        job("unconditional_lora_path: a", network=""),
        "model: {name_or_path: x, lora_path: a}",  # a stack document
        "config: {process: 5}",
        "config: {process: [5, {type: 5}, {type: sd_trainer, model: 5}]}",
        "- a",
        "",
    ],
)
def test_other_yaml_says_nothing(text):
    assert read_yaml(text, "c.yaml") == []


KOHYA = """
[model_arguments]
pretrained_model_name_or_path = "base.safetensors"
[additional_network_arguments]
network_module = "networks.lora"
network_weights = "old.safetensors"
base_weights = ["C:\\\\l\\\\a.safetensors", "b.safetensors"]
base_weights_multiplier = [0.8]
[saving_arguments]
output_dir = "./out"
output_name = "my_lora"
"""


def test_kohya_toml():
    (statement,) = read_toml(KOHYA, "c.toml")
    assert statement.claim.trained_with == (
        Ingredient("C:\\l\\a.safetensors", strength=0.8),
        Ingredient("b.safetensors", strength=1.0),
    )
    assert statement.claim.ask and statement.claim.use_with is None and statement.outputs == ("my_lora",)
    assert "base_weights_multiplier = 0.8" in statement.claim.evidence.quote


def test_toml_without_base_weights_says_nothing():
    assert read_toml("\n".join(line for line in KOHYA.splitlines() if "base_weights" not in line), "c.toml") == []


@pytest.mark.parametrize("text", ["a = ", "a" * 200_000, "x = " + "[" * 50_000])
def test_broken_toml_is_one_sentence(text):
    with pytest.raises(FoundryError, match=r"\[evidence\] c.toml: it is "):
        read_toml(text, "c.toml")


def test_without_a_toml_reader_the_package_is_named(monkeypatch):
    monkeypatch.setattr(evidence_configs, "TOML_READER", "no_such_reader")
    with pytest.raises(FoundryError, match="pip install tomli"):
        read_toml(KOHYA, "c.toml")


def simple_tuner(**options):
    return read_json(json.dumps({"model_type": "lora", "output_dir": "out/mine", **options}), "config.json")


def test_simple_tuner():
    path = {"assistant_lora_path": "org/assistant"}
    name = "org/assistant"
    assert claims(simple_tuner(**path)) == [((Ingredient(name, strength=1.0),), (), DECLARED, False)]
    kept = simple_tuner(**path, assistant_lora_strength=0.5, assistant_lora_inference_strength=0.25)
    expected = (Ingredient(name, strength=0.5),), (Ingredient(name, strength=0.25),)
    assert claims(kept) == [(*expected, DECLARED, False)] and kept[0].outputs == ("mine",)
    assert claims(simple_tuner(**path, assistant_lora_inference_strength="junk"))[0][1:] == (None, DECLARED, True)
    (weights,) = simple_tuner(**path, assistant_lora_weight_name="v2.safetensors")
    assert weights.claim.trained_with[0].name == "org/assistant/v2.safetensors"
    assert claims(simple_tuner(disable_assistant_lora=True, **path)) == [((), None, DECLARED, False)]
    assert simple_tuner() == []  # some models bring an assistant that no config names
    assert simple_tuner(**path, model_type="full") == []
    assert simple_tuner(**{"--assistant_lora_path": name}) == simple_tuner(**path)


@pytest.mark.parametrize(
    ("entries", "found"),
    [
        ({"peft_type": "LORA", "base_model_name_or_path": "me/Qwen-Image-Lightning-fused"}, True),
        ({"peft_type": "LORA", "base_model_name_or_path": "stabilityai/stable-diffusion-xl-base-1.0"}, False),
        ({"peft_type": "LORA", "base_model_name_or_path": None, "init_lora_weights": "pissa"}, False),
        ({"training_method": "LORA", "base_model_name": "/m/sdxl_lightning.safetensors", "lora_model_name": "L"}, True),
        ({"training_method": "LORA", "base_model_name": "Qwen/Qwen-Image", "lora_model_name": "Lightning"}, False),
        ({"training_method": "LORA", "base_model_name": "a/diffusion_pytorch_model.safetensors"}, False),
    ],
)
def test_a_base_that_is_named_like_an_accelerator_is_a_guess(entries, found):
    said = read_json(json.dumps(entries), "adapter_config.json")
    assert [s.claim.evidence.level for s in said] == [GUESSED] * found
    assert all(len(s.claim.trained_with) == 1 for s in said)


def test_readme():
    models = "base_model:\n- Qwen/Qwen-Image\n- lightx2v/Qwen-Image-Lightning\nbase_model_relation: adapter"
    card = f"---\n{models}\n---\n# Hi\n"
    (statement,) = read_readme(card, "README.md")
    assert statement.claim.trained_with == (Ingredient("lightx2v/Qwen-Image-Lightning"),)
    assert statement.claim.evidence.level == GUESSED
    plain = card.replace("lightx2v", "x").replace("-Lightning", "")
    for other in (models, plain, "---\n- a\n---\n", "---"):
        assert read_readme(other, "README.md") == []


KEYS = (
    "config process model lora_path lora_paths path weight type network base_weights base_weights_multiplier "
    "lora_fused preset_lora_path preset_lora_model usage_tips strength name assistant_lora_path qtype "
    "assistant_lora_inference_strength disable_assistant_lora peft_type base_model_name_or_path base_model_name "
    "assistant_lora_strength training_method output_name name_or_path model_type sha256 strengthmin"
)
PLAIN = st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=8)
JSON = st.recursive(
    PLAIN | st.sampled_from(["LoRA-Lightning", "lora"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["preferred weight", *KEYS.split()]), inner, max_size=6)
    ),
    max_leaves=12,
)


@settings(max_examples=300, deadline=None)
@given(JSON)
def test_any_json_or_yaml_is_survived(data):
    process = {"type": "sd_trainer", "network": {}, "model": data}
    texts = [json.dumps(data), json.dumps({"config": {"name": "x", "process": [process]}})]
    for text in texts:
        assert sound(read_json(text, "x.json"))
        with suppress(FoundryError):
            assert sound(read_yaml(text, "x.yaml"))


TOML_TEXT = st.lists(st.sampled_from(["base_weights = ", '["a"]', "1", "[b]", "\n", "---", "base_model: x-lightning"]))


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=60) | TOML_TEXT.map("".join), st.sampled_from([read_readme, read_toml, read_yaml]))
def test_any_text_is_survived(text, read):
    try:
        assert sound(read(text, "x"))
    except FoundryError as error:
        assert error.code in ("evidence", "document")
