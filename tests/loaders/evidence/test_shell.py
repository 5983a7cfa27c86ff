"""Training scripts: a flag counts where a shell would pass it to a trainer, and nowhere else."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lora_foundry.engine.errors import FoundryError
from lora_foundry.engine.lineage import DECLARED, GUESSED, Ingredient
from lora_foundry.loaders.evidence.shell import read_shell
from lora_foundry.loaders.evidence.words import commands

L = "./models/Foo-Lightning-4steps.safetensors"
BASE = '--model_id_with_origin_paths "Qwen/Qwen-Image-Edit:transformer/diffusion_pytorch_model*.safetensors"'
HEAD = f"accelerate launch --config_file acc.yaml train.py --lora_base_model dit {BASE} --output_path ./out/my_lora"


def said(text: str):
    """(names of trained_with, names of use_with, level, ask) of every claim."""
    return [
        (
            [each.name for each in claim.trained_with],
            None if claim.use_with is None else [each.name for each in claim.use_with],
            claim.evidence.level,
            claim.ask,
        )
        for claim in (statement.claim for statement in read_shell(text, "train.sh"))
    ]


VANILLA = [([], None, DECLARED, False)]
FUSED = [([L], [L], DECLARED, False)]
MAYBE = [([L], [L], GUESSED, False)]


@pytest.mark.parametrize(
    "text",
    [
        f"{HEAD} --lora_fused {L}",
        f"{HEAD} --lora_fused={L}",
        f'{HEAD} \\\n  --lora_fused "{L}" \\\n  --lora_rank 32\n',
        f"{HEAD} \\\r\n  --lora_fused '{L}' \\\r\n  --lora_rank 32\r\n",
        f"{HEAD} --lora_fused {L}  # this one\n",
        f"cd /somewhere && CUDA_VISIBLE_DEVICES=0 {HEAD} --lora_fused {L} 2>&1 | tee log.txt",
        f'X="{L}"\n{HEAD} --lora_fused "$X"',
        f"X={L}\n{HEAD} --lora_fused ${{X}}",
        f"export D=./models F=Foo-Lightning-4steps\n{HEAD} --lora_fused $D/$F.safetensors",
        f"A=(--lora_fused '{L}'\n # --lora_fused other\n --x 1)\n{HEAD} \"${{A[@]}}\"",
        f'A=(--x 1)\nA+=(--lora_fused {L})\n{HEAD} "${{A[@]}}"',
        f"A='--lora_fused {L}'\n{HEAD} $A",
        f'A="--rank 3"\nA+=" --lora_fused {L}"\n{HEAD} $A',
        f"python -m torch.distributed.run --nproc 2 train.py --lora_fused {L}",
        f"$PYTHON examples/train_merged_qkv.py --lora_fused {L}",
        f"cat > notes <<'EOF'\n{HEAD} --lora_fused other\nEOF\n{HEAD} --lora_fused {L}",
        f"{HEAD} --lora_fused other --lora_fused {L}",
        f"{{\n{HEAD} --lora_fused {L}\n}} > log",
        f"while true; do {HEAD} --lora_fused {L}; done",
        f"echo it\\'s on; {HEAD} --lora_fused {L}",
        f'cd "$(dirname "$0")/.."\n{HEAD} --lora_fused {L}',
    ],
)
def test_a_flag_that_the_trainer_gets(text):
    assert said(text) == FUSED


@pytest.mark.parametrize(
    "text",
    [
        # Ten ways people take the flag out. The first four are those of real scripts.
        f'{HEAD}\n\n# --lora_fused "{L}" \\\n',
        f'{HEAD} \\\n\n# Note:\n# --lora_fused "{L}" \\\n  # --lora_rank 8 \\\n',
        f'{HEAD} \\\n  # --lora_fused "{L}" \\\n',
        f"{HEAD} \\\n--num 1 # --lora_fused {L}",
        f"{HEAD} #--lora_fused {L}",
        f": '\n{HEAD} --lora_fused {L}\n'\n{HEAD}",
        f": <<'OFF'\n{HEAD} --lora_fused {L}\nOFF\n{HEAD}",
        f"if false; then\n{HEAD} --lora_fused {L}\nfi\n{HEAD}",
        f"{HEAD}\nexit 0\n{HEAD} --lora_fused {L}",
        f'A=(\n  --lora_rank 32\n  # --lora_fused {L}\n)\n{HEAD} "${{A[@]}}"',
        # More of them
        f"false && {HEAD} --lora_fused {L}\n{HEAD}",
        f"echo {HEAD} --lora_fused {L}\n{HEAD}",
        f'echo "{HEAD} --lora_fused {L}"\n{HEAD}',
        f"python infer.py --lora_fused {L}\n{HEAD}",
        f"python fuse_lora_weights.py --lora_fused {L}\n{HEAD}",
        f"grep -- --lora_fused {L} train.py\n{HEAD}",
        f"{HEAD} --prompt '--lora_fused {L}'",
        f"X=--lora_fused\n{HEAD}",
    ],
)
def test_a_flag_that_the_trainer_does_not_get(text):
    assert said(text) == VANILLA


def test_the_absence_is_quoted():
    (statement,) = read_shell(HEAD, "t.sh")
    assert statement.claim.evidence.quote == "train.py is run with no --lora_fused and no --preset_lora_path"
    assert statement.outputs == ("my_lora",)


@pytest.mark.parametrize(
    "text",
    [
        f"{HEAD} \\\n  # --lora_fused {L} \\\n  --lora_rank 32\n",  # the shell cut it: it did not run like this
        f'{HEAD} "$@"',
        f"{HEAD} $EXTRA",
        f'{HEAD} "${{EXTRA[@]}}"',
        f"{HEAD} ${{FUSED:+--lora_fused $FUSED}}",
        f'{HEAD} --lora_fused ""',
        f"{HEAD} --lora_checkpoint before.safetensors",
        f"{HEAD} --preset_lora_path x --preset_lora_model text_encoder",
        f"if [ -n x ]; then {HEAD}; fi",
        "accelerate launch train.py --lora_base_model dit --output_path x",  # which base?
        "accelerate launch train.py --lora_base_model dit --model_paths $BASE",
        'accelerate launch train.py --lora_base_model dit --model_paths "$BASE"',
        f"vim train.py --lora_fused {L}",
        "accelerate launch train.py --lora_base_model dit --model_paths '[\"./Qwen-Lightning-Fused/transformer.sft\"]'",
        f"accelerate launch train.py {BASE}",  # a full fine-tune
        "accelerate launch wan_train_network.py --dit w.sft --network_module networks.lora_wan --config_file a.toml",
        "accelerate launch wan_train_network.py --dit w.sft --network_module networks.lora_wan --network_weights old",
        "",
        "#!/bin/sh",
        "python train.py",
    ],
)
def test_where_absence_is_no_statement(text):
    assert said(text) == []


@pytest.mark.parametrize(
    "text",
    [
        f"if [ -n $1 ]; then\n{HEAD} --lora_fused {L}\nfi",
        f"if [ $1 ]; then X={L}; else X={L}; fi\n{HEAD} --lora_fused $X",
        f"{HEAD} --lora_fused ${{FUSED:-{L}}}",
        f"[ -f x ] && {HEAD} --lora_fused {L}",
        f"if false; then echo; else {HEAD} --lora_fused {L}; fi",
        f"test -f x || {HEAD} --lora_fused {L}",
        f"case $1 in\n a) {HEAD} --lora_fused {L};;\nesac",
        f"run() {{\n{HEAD} --lora_fused {L}\n}}",
        f"function run {{\n{HEAD} --lora_fused {L}\n}}",
    ],
)
def test_what_may_run_is_a_guess(text):
    assert said(text) == MAYBE


def test_after_the_branch_things_are_certain_again():
    assert said(f"if [ $1 ]; then\n{HEAD} --lora_fused {L}\nfi\n{HEAD} --lora_fused {L}") == MAYBE + FUSED
    assert said(f"run() {{\n:\n}}\n{HEAD} --lora_fused {L}") == FUSED
    assert said(f"if [ $1 ]; then exit; fi\n{HEAD} --lora_fused {L}") == FUSED


def test_an_unknown_variable_is_kept_as_it_is_written():
    assert said(f'{HEAD} --lora_fused "$FUSED"') == [(["$FUSED"], ["$FUSED"], GUESSED, False)]
    assert said(f"{HEAD} --lora_fused ~/l.safetensors") == [(["~/l.safetensors"],) * 2 + (DECLARED, False)]


def test_preset_lora_asks():
    (statement,) = read_shell(f"{HEAD} --preset_lora_path {L} --preset_lora_model dit", "t.sh")
    claim = statement.claim
    assert (claim.trained_with, claim.use_with, claim.ask) == ((Ingredient(L, strength=1.0),), None, True)
    assert claim.evidence.quote == f"--preset_lora_path {L} --preset_lora_model dit"


MUSUBI = "accelerate launch src/musubi_tuner/zimage_train_network.py --dit z.safetensors --network_module networks.lora"


def test_base_weights_ask_and_have_strengths():
    text = f"{MUSUBI} --base_weights a.sft b.sft c.sft \\\n --base_weights_multiplier 0.5 -1 --output_name x"
    (statement,) = read_shell(text, "t.sh")
    strengths = [(each.name, each.strength) for each in statement.claim.trained_with]
    assert strengths == [("a.sft", 0.5), ("b.sft", -1.0), ("c.sft", 1.0)]
    assert statement.claim.ask and statement.claim.use_with is None and statement.outputs == ("x",)


def test_a_junk_strength_is_none():
    for junk in ("nan", "1e999", "x", "1" * 400):
        (statement,) = read_shell(f"{MUSUBI} --base_weights a --base_weights_multiplier {junk}", "t.sh")
        assert statement.claim.trained_with == (Ingredient("a"),)


def test_kohya_without_base_weights():
    assert said(MUSUBI) == VANILLA
    as_module = MUSUBI.replace("src/musubi_tuner/zimage_train_network.py", "-m musubi_tuner.zimage_train_network")
    assert said(as_module) == VANILLA
    assert said(MUSUBI.replace("--network_module networks.lora", "")) == []


def test_network_weights_are_no_base_lora():
    assert said(f"{MUSUBI} --network_weights {L}") == []


def test_several_runs_and_their_outputs():
    text = f"{HEAD} --lora_fused {L}\n{MUSUBI} --output_name second --output_dir ./d\n{MUSUBI} --output_name '$X'"
    assert [statement.outputs for statement in read_shell(text, "t.sh")] == [("my_lora",), ("second",), ("$X",)]


def words(text: str):
    return [["".join(part.text for part in word) for word in command.words] for command in commands(text, "t")]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a b#c '#d' \"#e\" # f", [["a", "b#c", "#d", "#e"]]),
        ("a\\\nb c\\ d", [["ab", "c d"]]),
        ('a "b\\"c" "\\n" \'\\n\'', [["a", 'b"c', "\\n", "\\n"]]),
        ("a > x 2>&1 b; c | d & e && f || g", [["a", "b"], ["c"], ["d"], ["e"], ["f"], ["g"]]),
        ("a <<X b\nin X\nX\nc", [["a", "b"], ["c"]]),
        ("a <<-X\n\tin\n\tX\nc", [["a"], ["c"]]),
        ("a <<never\nb\nc", [["a"]]),
        ("(a; b)", [["a"], ["b"]]),
        ("a $(b; c) `d;e`", [["a", "$(b; c)", "`d;e`"]]),
        ("a ''", [["a", ""]]),
        ("", []),
    ],
)
def test_words_of_a_shell(text, expected):
    assert words(text) == expected


def test_what_is_never_closed_is_told_with_its_line():
    for text in ("a\nb 'c", 'a\nb "c', "a\nb $(c", "a\nb `c"):
        with pytest.raises(FoundryError, match=r"\[evidence\] t.sh: line 2: a (quote|bracket) is never closed"):
            read_shell(text, "t.sh")


def test_variables_cannot_grow_without_end():
    doubling = "A=xxxxxxxxxxxxxxxxxxxxxxxx\n" + "A=$A$A$A$A$A$A$A$A\n" * 30
    with pytest.raises(FoundryError, match="its variables grow"):
        read_shell(doubling, "t.sh")
    lists = "A=(a a)\n" + 'A=("${A[@]}" "${A[@]}")\n' * 60 + f'{HEAD} "${{A[@]}}"'
    assert said(lists) == []


PIECES = [
    "(",
    "${",
    "#",
    "a#",
    "'",
    "<#",
    "$(",
    "`",
    "<<a\n",
    "{",
    "if ",
    "a=(",
    "\\",
    "rem ",
    "<<",
    "%",
    "a ",
    "a=$a ",
]


@pytest.mark.parametrize("piece", PIECES)
def test_a_lot_of_anything_ends_soon(piece):
    text = piece * (40_000 // len(piece))
    try:
        assert read_shell(text, "t") == []
    except FoundryError as error:
        assert error.code == "evidence"


TOKENS = [
    *(
        "accelerate launch train.py",
        " --lora_fused ",
        "x.safetensors",
        "\n",
        "\\\n",
        " # ",
        "'",
        '"',
        "$A",
        "${A[@]}",
        "A=",
    ),
    *(
        "A=(",
        ")",
        "(",
        "{",
        "}",
        "if ",
        "fi",
        "then ",
        ";",
        "&&",
        "||",
        "<<E\n",
        "E\n",
        "$(",
        "`",
        "^",
        "%A%",
        "set A=",
    ),
    *("else", "for x in", "exit", "function f ", "@(", "--", "=", "\0", "\ud800", "é", " "),
]
SHELL_TEXT = st.lists(st.sampled_from(TOKENS), max_size=30).map("".join)


@settings(max_examples=300, deadline=None)
@given(st.one_of(SHELL_TEXT, st.text(max_size=80)))
def test_any_text_gives_claims_or_one_sentence(text):
    try:
        for statement in read_shell(text, "t"):
            assert statement.claim.evidence.quote.isprintable()
    except FoundryError as error:
        assert error.code == "evidence" and str(error).isprintable()
