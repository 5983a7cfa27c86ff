"""Our delta of each kind against the host's own adapter, from one file; where they differ, and who is right."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from fakes import noise
from forms import Maker, every_form
from lora_foundry.cli.demo import tiny
from lora_foundry.engine.adapters import delta_rows
from safetensors.torch import load_file, save_file

SUFFIXES = {
    "lora": "lora_{}.weight",
    "loha": "hada_{}",
    "lokr": "lokr_{}",
    "glora": "{}.weight",
    "oft": "oft_{}",
    "boft": "oft_{}",
    "diff": "diff",
    "set": "set_weight",
}
MAKERS = {"linear": Maker(32, 16), "conv": Maker(32, 16, (3, 3), seed=1)}
FORMS = {  # the host knows no rotations of inputs
    f"{name}, {at}": (maker, form)
    for at, maker in MAKERS.items()
    for name, form in every_form(maker).items()
    if not name.startswith("inputs")
}
OTHERWISE = ("dora rows", "limit", "oft rescale, ")  # ComfyUI computes these in another way, see below
LEFT_ALONE = ("core, ", "glora 1.x, conv")  # it fails on these and leaves the weight as it is, with a line in its log
LIKE_HOST = [
    name
    for name in FORMS
    if name.startswith("boft rescale") or not any(mark in name for mark in OTHERWISE + LEFT_ALONE)
]


def file_of(form, module):
    """The tensors as LyCORIS names them."""
    parts = {"magnitude": "dora_scale", "rescale": "rescale"}
    named = {parts.get(part, SUFFIXES[form.kind].format(part)): value for part, value in form.parts.items()}
    alpha = 0.0 if form.alpha is None and "oft" in form.kind else form.alpha
    alpha = 3.0 if form.kind == "lokr" else alpha  # of two whole factors it counts nothing
    if form.kind == "diff":  # ComfyUI scales no difference; the loader gives a scale to biases of LoRAs only
        named, alpha = {suffix: value * form.scale for suffix, value in named.items()}, None
    extra = {} if alpha is None else {"alpha": torch.tensor(alpha)}
    return {f"{module}.{suffix}": value.contiguous() for suffix, value in {**named, **extra}.items()}


def hosts_results(lora, weights, out, strength):
    """Each module's weight after the host applied the file at a strength."""
    import comfy.lora
    from safetensors.torch import load_file, save_file

    weights = load_file(weights)
    patches = comfy.lora.load_lora(
        load_file(lora), {module: f"{module}.weight" for module in weights}, log_missing=False
    )
    results = {}
    for module, weight in weights.items():
        patch = (strength, patches[f"{module}.weight"], 1.0, None, None)
        results[module] = comfy.lora.calculate_weight([patch], weight.clone(), module)
    save_file(results, out)
    return len(patches)


@pytest.fixture(scope="module")
def hosts(inprocess, tmp_path_factory):
    """``hosts(strength)``: form -> (weight, what the host makes of it)."""
    folder = tmp_path_factory.mktemp("adapters")
    modules = {f"m{number}": name for number, name in enumerate(FORMS)}
    weights = {module: noise(FORMS[name][0].shape, 0.5, 3, torch.float32) for module, name in modules.items()}
    tensors = {key: value for module, name in modules.items() for key, value in file_of(FORMS[name][1], module).items()}
    save_file(tensors, folder / "lora.safetensors")
    save_file(weights, folder / "weights.safetensors")

    def run(strength):
        paths = [str(folder / f"{stem}.safetensors") for stem in ("lora", "weights", f"out{strength}")]
        assert inprocess(hosts_results, *paths, strength) == len(FORMS)
        made = load_file(paths[2])
        return {name: (weights[module], made[module]) for module, name in modules.items()}

    return {strength: run(strength) for strength in (1.0, 0.7)}


def delta(name, weight):
    form = FORMS[name][1]
    return delta_rows(form.adapter(), form.parts, weight.flatten(1))(slice(None)).reshape(weight.shape)


def off(got, want, weight):
    return float((got - want).abs().max() / (want - weight).abs().max())


@pytest.mark.parametrize("name", LIKE_HOST)
def test_equal_where_the_host_is_right(hosts, name):
    weight, theirs = hosts[1.0][name]
    assert off(weight + delta(name, weight), theirs, weight) < 1e-5


@pytest.mark.parametrize("name", [name for name in LIKE_HOST if "oft" not in name])
def test_equal_at_any_strength(hosts, name):
    weight, theirs = hosts[0.7][name]
    strength = 1.0 if FORMS[name][1].kind == "set" else 0.7
    assert off(weight + strength * delta(name, weight), theirs, weight) < 1e-5


@pytest.mark.parametrize("name", [name for name in FORMS if name.startswith("dora rows") and "core" not in name])
def test_dora_over_rows_is_divided_by_the_norm_of_the_base_there(hosts, name):
    """A magnitude is the norm of its row of the result, as LyCORIS and PEFT train it; the host divides by |W|."""
    (weight, theirs), form = hosts[1.0][name], FORMS[name][1]
    size = form.parts["magnitude"]
    ours = weight + delta(name, weight)

    def norms(of):
        return of.flatten(1).norm(dim=1).reshape(size.shape)

    torch.testing.assert_close(norms(ours), size, rtol=1e-5, atol=1e-5)
    changed = weight + delta_rows(bare(form), form.parts, weight.flatten(1))(slice(None)).reshape(weight.shape)
    torch.testing.assert_close(theirs, size * changed / norms(weight), rtol=1e-4, atol=1e-5)
    assert off(ours, theirs, weight) > 0.01


def bare(form):
    """The adapter without its magnitudes."""
    whole = form.adapter()
    return replace(whole, parts=tuple(part for part in whole.parts if part[0] != "magnitude"))


@pytest.mark.parametrize("name", [name for name in FORMS if any(mark in name for mark in LEFT_ALONE)])
def test_what_the_host_fails_on_it_leaves_alone(hosts, name):
    """A LoKr with a core: torch.kron wants contiguous factors. Old GLoRA on a convolution: flat shapes do not fit."""
    weight, theirs = hosts[1.0][name]
    assert torch.equal(theirs, weight) or off(weight + delta(name, weight), theirs, weight) < 1e-5


@pytest.mark.parametrize("at", MAKERS)
def test_a_rotation_at_a_strength_counts_twice_there(hosts, at):
    """The host multiplies an OFT by its strength two times; ours is the straight way of all kinds."""
    weight, theirs = hosts[0.7][f"oft, {at}"]
    assert off(weight + 0.49 * delta(f"oft, {at}", weight), theirs, weight) < 1e-5


@pytest.mark.parametrize("at", MAKERS)
def test_the_limit_of_a_rotation_is_one_number_for_each_row(hosts, at):
    """LyCORIS and sd-scripts allow alpha * rows; the host alpha, which leaves next to nothing of the rotation."""
    for kind in ("oft", "boft"):
        weight, theirs = hosts[1.0][f"{kind} limit, {at}"]
        assert float((theirs - weight).norm() / delta(f"{kind} limit, {at}", weight).norm()) < 0.1


@pytest.mark.parametrize("at", MAKERS)
def test_the_host_knows_no_rescale_of_oft(hosts, at):
    weight, theirs = hosts[1.0][f"oft rescale, {at}"]
    form = FORMS[f"oft rescale, {at}"][1]
    assert off((weight + delta(f"oft rescale, {at}", weight)) / form.parts["rescale"], theirs, weight) < 1e-5


def patched(base, tests):
    """Every kind on a real MODEL: what the host computes from our patches against what a bake stores, in fp32."""
    import sys
    from dataclasses import replace

    sys.path.append(tests)
    import comfy.lora
    import comfy.sd
    import torch
    from fakes import Collected
    from forms import Maker, every_form, form_layer
    from lora_foundry.engine.bake import bake
    from lora_foundry.engine.blueprint import blueprint
    from lora_foundry.engine.finish import Finish
    from lora_foundry.engine.grown import grown_base
    from lora_foundry.engine.plan import FUSE, STACK, Target
    from lora_foundry.nodes import apply, sources

    plan = sources.plan_of(comfy.sd.load_diffusion_model(base))
    infos = plan.base.source.tensors
    names = [name for name, info in infos.items() if name.startswith("blocks.") and len(info.shape) == 2]
    maker = Maker(*infos[names[0]].shape)
    fits = [name for name in names if infos[name].shape == maker.shape]
    kinds = [*every_form(maker).values(), maker.lora(), maker.diff()]
    bias = next(name for name in infos if name.endswith(".bias"))
    vector = maker.noise(*infos[bias].shape)
    change = type(kinds[0])("diff", tuple(vector.shape), {"diff": vector}, None)
    listed = [(form, Target(fits[number % (len(fits) - 2)])) for number, form in enumerate(kinds) if form.kind != "set"]
    half = Maker(maker.out // 2, maker.inp, seed=5)
    listed += [(half.dora(half.lora(), "rows"), Target(fits[0], (0, half.out, half.out))), (change, Target(bias))]
    for number, entry in enumerate(listed):
        plan = plan.add(form_layer([entry], 0.1, (FUSE, STACK)[number % 2], f"{number}"))
    pair = Maker(2 * maker.out, maker.inp, seed=6)  # one adapter on two weights, at half the strength
    for number, form in enumerate((pair.lora(), pair.loha(), pair.dora(pair.lora(), "rows"), pair.glora())):
        split = [Target(name, part=(0, at * maker.out, maker.out)) for at, name in enumerate(fits[:2])]
        entry = form_layer([(form, target) for target in split], 0.2, (FUSE, STACK)[number % 2], f"pair {number}")
        plan = plan.add(replace(entry, patches=tuple(replace(patch, factor=0.5) for patch in entry.patches)))
    plan = plan.add(form_layer([(maker.set(), Target(fits[-1]))], 1.0, FUSE, "set"))
    wider = Maker(maker.out, maker.inp + 32)
    grows = replace(wider.lora(), parts={**wider.lora().parts, "reshape": torch.tensor(wider.shape)})
    plan = plan.add(form_layer([(grows, Target(fits[-2]))], 0.1, STACK, "grows"))
    plan = replace(plan, base=grown_base(plan.base, plan.layers[-1].patches))
    sink = Collected()
    bake(plan, Finish("none", torch.float32), sink)
    model, made = apply.patched_model(blueprint(plan, Finish()), lambda done, total: None)
    worst = 0.0
    for key, patches in model.patches.items():
        weight = plan.base.source.read(key.removeprefix("diffusion_model.")).float()
        theirs = comfy.lora.calculate_weight(patches, model.model.state_dict()[key].float().clone(), key)
        ours = sink.values[key.removeprefix("diffusion_model.")]
        worst = max(worst, ((theirs - ours).norm() / (ours - weight).norm()).item())
    return {"worst": worst, "patched": len(model.patches), "touched": made.report.touched, "of": len(plan.by_weight())}


def test_patches_of_every_kind_are_the_bake_unrounded(inprocess, tmp_path):
    save_file(tiny.state_dict("wan"), tmp_path / "wan.safetensors")
    seen = inprocess(patched, str(tmp_path / "wan.safetensors"), str(Path(__file__).parents[1] / "helpers"))
    assert seen["patched"] == seen["touched"] == seen["of"] > 3
    assert seen["worst"] < 1e-5
