"""What weights tell about a plan, from real files: said once with numbers, never of strangers, and kept."""

from __future__ import annotations

from dataclasses import replace

import pytest
from fakes import Cancelled
from lora_foundry.engine.errors import FoundryError
from lora_foundry.engine.grams import Sums
from lora_foundry.engine.lineage import Accelerator, Contained, Ingredient, Lineage
from lora_foundry.engine.plan import FUSE, STACK, Layer, Plan
from lora_foundry.loaders.bases import checkpoint as checkpoints
from lora_foundry.loaders.bases.checkpoint import open_checkpoint
from lora_foundry.loaders.lineage import probes
from lora_foundry.loaders.lineage.probes import NOT_FROM_WEIGHTS, fights, probe
from lora_foundry.loaders.loras.file import open_lora
from lora_foundry.loaders.names.lookup import BaseNames
from lora_foundry.loaders.plans.planner import make_layer
from probe_parts import (
    LIGHTNING,
    MODULES,
    OTHER,
    STYLE,
    Factors,
    add,
    factors,
    magnitudes,
    save_base,
    save_lora,
)


@pytest.fixture
def planned(tmp_path, base):
    """Call ``planned(fuse={name: factors}, stack={name: factors}, strengths={name: s})``: a plan of real files."""

    def plan(fuse=(), stack=(), strengths=None, blocks="", **more) -> Plan:
        layers = []
        for stage, files in ((FUSE, dict(fuse)), (STACK, dict(stack))):
            for name, parts in files.items():
                path = save_lora(tmp_path / f"{name}.safetensors", parts, **more.get(name, {}))
                strength = (strengths or {}).get(name, 1.0)
                matcher = BaseNames(base.source.tensors)
                layers.append(make_layer(base, open_lora(path), stage, strength, matcher, blocks=blocks))
        return Plan(base, tuple(layers))

    return plan


def with_lineage(plan: Plan, name: str, lineage: Lineage) -> Plan:
    def known(layer: Layer) -> Layer:
        return replace(layer, lineage=lineage) if layer.lora.name == name else layer

    return replace(plan, layers=tuple(known(layer) for layer in plan.layers))


# --- LF105


def test_a_merge_on_top_of_the_fused_lora_is_told_with_its_share(planned):
    merge = add(STYLE, LIGHTNING, 0.5)
    plan = planned({"lightning": LIGHTNING}, {"merge": merge, "other": OTHER}, {"merge": 0.8, "lightning": 0.9})
    probed = probe(plan)
    (finding,) = probed.findings
    assert (finding.code, finding.severity, finding.evidence) == ("LF105", "warning", "derived")
    assert finding.subject == "merge.safetensors"
    assert finding.text == "LF105.weights"
    values = dict(finding.values)
    assert int(values["share"].rstrip("%")) == pytest.approx(50, abs=1)
    assert values | {"share": ""} == {
        "upper": "merge.safetensors", "lower": "lightning.safetensors", "share": "", "weights": "16",
        "total": "1.3", "alone": "0.9",
    }  # fmt: skip
    assert "merge.safetensors already contains lightning.safetensors" in finding.seen
    assert probed.claims == {}


def test_block_weights_do_not_hide_what_is_inside(planned):
    merge = add(STYLE, LIGHTNING, 0.5)
    plan = planned({"lightning": LIGHTNING}, {"merge": merge}, {"lightning": 0.1}, blocks="blocks.0-3=0.2")
    assert [dict(finding.values)["share"] for finding in probe(plan).findings] == ["50%"]


def test_a_fused_merge_that_has_the_stacked_lora_inside_is_told_the_other_way(planned):
    plan = planned({"merge": add(LIGHTNING, STYLE, 1.0)}, {"style": STYLE})
    (finding,) = probe(plan).findings
    assert dict(finding.values)["upper"] == "merge.safetensors"
    assert dict(finding.values)["lower"] == "style.safetensors"


def test_two_fused_loras_are_compared_too(planned):
    plan = planned({"lightning": LIGHTNING, "merge": add(STYLE, LIGHTNING, 1.0)})
    assert [finding.code for finding in probe(plan).findings] == ["LF105"]


@pytest.mark.parametrize("first", ["merge", "lightning"])
def test_a_known_accelerator_in_the_stack_counts_as_a_base_lora(first, planned):
    files = {first: None, "merge": add(STYLE, LIGHTNING, 0.5), "lightning": LIGHTNING}
    plan = planned((), files)
    assert probe(plan).findings == ()
    known = Lineage(accelerator=Accelerator("known:x", "Lightning", "derived", "its hash"))
    (finding,) = probe(with_lineage(plan, "lightning.safetensors", known)).findings
    assert dict(finding.values)["upper"] == "merge.safetensors"


@pytest.mark.parametrize("off", ["merge", "lightning"])
def test_what_is_switched_off_is_not_looked_at(off, planned):
    plan = planned({"lightning": LIGHTNING}, {"merge": add(STYLE, LIGHTNING, 0.5)}, {off: 0.0})
    assert probe(plan).findings == ()


def test_the_same_file_twice_is_not_its_business(planned):
    """Hashes say that."""
    assert probe(planned({"a": LIGHTNING}, {"b": LIGHTNING, "c": LIGHTNING})).findings == ()


# --- LF402


def test_strangers_are_not_spoken_of(planned):
    plan = planned({"lightning": LIGHTNING}, {f"style{seed}": factors(10 + seed) for seed in range(6)})
    assert probe(plan) == probes.Probed((), {})


def against(share: float, modules=MODULES) -> Factors:
    """A LoRA of its own that takes away this share of STYLE in some modules."""
    return add(OTHER, STYLE, -share, modules)


def test_loras_that_fight_are_told_with_numbers_and_the_worst_blocks(planned):
    worst = [module for module in MODULES if module.startswith(("blocks.2.", "blocks.5."))]
    opponent = add(against(0.4), STYLE, -1.0, worst)
    (finding,) = probe(planned((), {"style": STYLE, "opponent": opponent})).findings
    assert (finding.code, finding.severity, finding.text) == ("LF402", "note", "LF402.fight")
    values = dict(finding.values)
    one = {m: (STYLE[m][0] @ STYLE[m][1], opponent[m][0] @ opponent[m][1]) for m in MODULES}
    dot, first, second = (
        sum(float((pair[i] * pair[j]).double().sum()) for pair in one.values()) for i, j in ((0, 1), (0, 0), (1, 1))
    )
    assert float(values["cosine"]) == pytest.approx(dot / (first * second) ** 0.5, abs=0.01)
    together = ((first + second + 2 * dot) / (first + second)) ** 0.5
    assert int(values["weaker"].rstrip("%")) == pytest.approx(100 * (1 - together), abs=1)
    assert 55 < int(values["clash"].rstrip("%")) < 75
    assert int(values["energy"].rstrip("%")) > 95
    assert {name.split(" ")[0] for name in values["blocks"].split(", ")[:2]} == {"blocks.2", "blocks.5"}


def test_a_negative_strength_turns_agreement_into_a_fight(planned):
    twin = add(factors(1), factors(5), 0.2)
    assert [f.text for f in probe(planned((), {"style": STYLE, "twin": twin})).findings] == ["LF402.alike"]
    plan = planned((), {"style": STYLE, "twin": twin}, {"twin": -0.7})
    (finding,) = probe(plan).findings
    assert finding.text == "LF402.fight"
    assert int(dict(finding.values)["clash"].rstrip("%")) > 80
    assert probe(planned((), {"style": STYLE, "opponent": against(0.5)}, {"style": -1.0})).findings == ()


def test_near_duplicates_are_told_how_strong_they_are_together(planned):
    twin = add(STYLE, OTHER, 0.3)
    (finding,) = probe(planned((), {"style": STYLE, "twin": twin}, {"twin": 0.5})).findings
    assert finding.text == "LF402.alike"
    assert dict(finding.values)["times"] == "1.5"


def test_a_base_lora_never_fights(planned):
    fused = planned({"lightning": against(0.9)}, {"style": STYLE})
    assert probe(fused).findings == ()
    stacked = planned((), {"lightning": against(0.9), "style": STYLE})
    assert len(probe(stacked).findings) == 1
    for known in (
        Lineage(accelerator=Accelerator("known:x", "Lightning", "guessed", "its name")),
        Lineage(accelerator=Accelerator("known:x", "Lightning", "derived", "its hash")),
    ):
        assert probe(with_lineage(stacked, "lightning.safetensors", known)).findings == ()


@pytest.mark.parametrize(
    ("cosine", "clash", "said"),
    [(-0.1, 0.5, True), (-0.09, 0.54, False), (-0.06, 0.56, True), (-0.04, 0.6, False), (0.5, 0.6, False)],
)
def test_when_two_loras_fight(cosine, clash, said):
    sums = Sums(cosine, 1.0, 1.0, 1e-8, cosine**2 / 100, 1.0, clashes=int(1000 * clash), sampled=1000, weights=100)
    assert fights(sums) is said
    assert not fights(replace(sums, chance=1.0))
    assert not fights(replace(sums, scatter=cosine**2))


def test_only_the_strongest_are_compared_with_each_other(planned, monkeypatch):
    seen = []
    monkeypatch.setattr(probes, "overlaps", lambda pairs, *_: seen.extend(pairs) or [probes.Overlap()] * len(pairs))
    names = {f"s{number}": factors(number, 1) for number in range(10)}
    probe(planned((), names, {f"s{number}": 0.1 * (number + 1) for number in range(10)}))
    assert len(seen) == 28
    assert {layer.lora.name for pair in seen for layer in pair} == {f"s{n}.safetensors" for n in range(2, 10)}


# --- DoRA


def test_a_dora_claims_what_it_was_trained_on(planned):
    for parts, names in ((None, ()), (LIGHTNING, ("lightning.safetensors",))):
        plan = planned(
            {"lightning": LIGHTNING}, {"style": OTHER, "dora": STYLE}, dora={"magnitudes": magnitudes(parts)}
        )
        probed = probe(plan)
        assert probed.findings == ()
        assert list(probed.claims) == [2]
        (claim,) = probed.claims[2]
        assert tuple(each.name for each in claim.trained_with) == names
        assert (claim.evidence.level, claim.evidence.source) == ("derived", "DoRA magnitudes")
        assert "16 of 16 modules" in claim.evidence.quote


def test_an_ingredient_of_a_claim_can_be_recognised(planned):
    dora = {"magnitudes": magnitudes(LIGHTNING)}
    plan = planned({"lightning": LIGHTNING}, {"dora": STYLE}, {"lightning": 1.0}, dora=dora)
    plan = with_lineage(plan, "lightning.safetensors", Lineage(ids=("sha256:12",)))
    (claim,) = probe(plan).claims[1]
    assert claim.trained_with == (Ingredient("lightning.safetensors", ("sha256:12",), 1.0, coverage=(16, 16)),)


def test_what_is_inside_the_base_was_below_it_too(planned):
    inside = Ingredient("turbo", strength=1.0)
    plan = planned({"lightning": LIGHTNING}, {"dora": STYLE}, dora={"magnitudes": magnitudes()})
    plan = replace(plan, base=replace(plan.base, contains=(Contained(inside, "declared", "its record"),)))
    (claim,) = probe(plan).claims[1]
    assert claim.trained_with == (inside,)


def test_a_dora_that_was_trained_for_long_says_nothing(planned):
    plan = planned({"lightning": LIGHTNING}, {"dora": STYLE}, dora={"magnitudes": magnitudes(LIGHTNING, 0.1)})
    assert probe(plan).claims == {}


def test_nothing_is_claimed_without_a_fused_lora_or_of_unknown_weights(planned):
    dora = {"magnitudes": magnitudes()}
    assert probe(planned((), {"dora": STYLE}, dora=dora)).claims == {}
    assert probe(planned({"lightning": LIGHTNING}, {"dora": STYLE}, {"dora": 0.0}, dora=dora)).claims == {}
    assert probe(planned({"lightning": LIGHTNING}, {"dora": STYLE}, {"lightning": 0.0}, dora=dora)).claims == {}
    plan = planned({"lightning": LIGHTNING}, {"dora": STYLE}, dora=dora)
    assert list(probe(plan).claims) == [1]
    assert probe(replace(plan, base=replace(plan.base, applied=("other.safetensors",)))).claims == {}


def test_nothing_is_claimed_of_plain_loras_and_a_sentence_says_why(planned):
    assert probe(planned({"lightning": LIGHTNING}, {"style": STYLE})).claims == {}
    assert "cannot be known from its weights" in NOT_FROM_WEIGHTS


# --- what is kept


@pytest.fixture
def everything(planned) -> Plan:
    return planned(
        {"lightning": LIGHTNING},
        {"merge": add(OTHER, LIGHTNING, 0.5), "style": STYLE, "opponent": against(0.9), "dora": factors(6)},
        dora={"magnitudes": magnitudes(LIGHTNING)},
    )


def test_the_second_look_reads_nothing_and_says_the_same(everything, monkeypatch, pack_home):
    first = probe(everything)
    assert sorted(finding.text for finding in first.findings) == ["LF105.weights", "LF402.fight"]
    assert list(first.claims) == [4]
    assert all(path.stat().st_size < 10_000 for path in (pack_home / probes.STORE.folder).iterdir())

    def refused(*_):
        raise AssertionError("looked at weights again")

    monkeypatch.setattr(probes.LoRAFile, "read", refused)
    monkeypatch.setattr(checkpoints.Checkpoint, "read", refused)
    assert probe(everything) == first


@pytest.mark.parametrize("change", ["damaged", "older"])
def test_what_cannot_be_used_again_is_made_again(change, everything, monkeypatch, pack_home):
    first = probe(everything)
    for path in (pack_home / probes.STORE.folder).iterdir():
        if change == "damaged":
            path.write_bytes(path.read_bytes()[:-2])
    if change == "older":
        monkeypatch.setattr(probes, "REV", probes.REV + 1)
    reads = []
    real = probes.LoRAFile.read
    monkeypatch.setattr(probes.LoRAFile, "read", lambda self, name: reads.append(name) or real(self, name))
    assert probe(everything) == first
    assert reads


def test_another_strength_needs_no_new_look_but_another_base_does(planned, monkeypatch, tmp_path):
    dora = {"dora": {"magnitudes": magnitudes(LIGHTNING)}}
    stack = {"style": STYLE, "opponent": against(0.9), "dora": factors(6)}
    probe(planned({"lightning": LIGHTNING}, stack, **dora))
    calls = []
    for name in ("overlaps", "nearest"):
        real = getattr(probes, name)

        def counted(first, *rest, name=name, real=real):
            calls.append((name, len(first) if name == "overlaps" else 1))
            return real(first, *rest)

        monkeypatch.setattr(probes, name, counted)
    again = planned({"lightning": LIGHTNING}, stack, {"style": -0.5, "opponent": 0.2}, **dora)
    assert probe(again).findings == ()
    assert not any(count for name, count in calls if name == "overlaps")
    calls.clear()
    source = open_checkpoint(save_base(tmp_path / "other.safetensors", OTHER, 0.1))
    probe(replace(again, base=replace(again.base, source=source)))
    assert ("nearest", 1) in calls


def test_a_home_that_cannot_be_written_to_costs_no_result(everything, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("LORA_FOUNDRY_HOME", str(tmp_path / "file" / "home"))
    assert len(probe(everything).findings) == 2


def test_progress_is_told_and_can_stop_it(everything):
    steps = []
    probe(everything, lambda *step: steps.append(step))
    assert all(0 <= done < total for done, total in steps)
    shares = [done / total for done, total in steps]
    assert shares == sorted(shares)
    assert shares[-1] > 0.9

    def stop(done, total):
        raise Cancelled

    for number in range(3):
        with pytest.raises(Cancelled):
            probe(with_factors(everything, 0.1 + number), stop)


def with_factors(plan: Plan, factor: float) -> Plan:
    """The plan with block weights that nothing is kept for yet."""

    def weighted(layer: Layer) -> Layer:
        return replace(layer, patches=tuple(replace(patch, factor=factor) for patch in layer.patches))

    return replace(plan, layers=tuple(map(weighted, plan.layers)))


def test_a_file_that_changed_meanwhile_is_an_error(planned, tmp_path):
    plan = planned({"lightning": LIGHTNING}, {"merge": add(STYLE, LIGHTNING, 0.5)})
    (tmp_path / "merge.safetensors").write_bytes(b"")
    with pytest.raises(FoundryError) as caught:
        probe(plan)
    assert "merge.safetensors" in caught.value.what
