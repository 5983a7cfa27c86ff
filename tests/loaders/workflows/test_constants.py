"""Values that come by wire: primitives, holders of one value, converters, switches; and what only the run knows."""

from __future__ import annotations

import pytest
from drawings import SUB, Drawing
from lint_parts import stacks_of
from lora_foundry.loaders.lint.lint import lint
from lora_foundry.loaders.workflows.constants import with_constants
from lora_foundry.loaders.workflows.reading import graph_of
from sketches import LIGHTNING_4, LIGHTNING_8, Sketch


def arrived(g: Sketch, name: str = "steps"):
    """What the last node of a sketch has for an input, and whether a link is left."""
    graph = with_constants(graph_of(g.prompt))
    node = graph.nodes[str(len(g.prompt))]
    return node.values.get(name), name in node.links


HOLDERS = [
    ("PrimitiveInt", {"value": 30}),
    ("INTConstant", {"value": 30}),
    ("easy int", {"value": 30}),
    ("Primitive integer [Crystools]", {"int": 30}),
    ("Int Literal", {"Number": 30}),
    ("Int Literal", {"int": 30, "control_after_generate": "fixed"}),
    ("JWInteger", {"value": 30}),
    ("Int", {"Number": "30"}),
    ("Float", {"Number": "30.0"}),
    ("Float", {"Number": "30,0"}),
]


@pytest.mark.parametrize(("kind", "values"), HOLDERS)
def test_a_node_that_holds_one_value_hands_it_on(kind, values):
    g = Sketch()
    g("KSampler", steps=g(kind, **values))
    assert arrived(g) == (30, False)


@pytest.mark.parametrize("text", ["nan", "inf", "1_0", "thirty"])
def test_a_text_that_is_no_number_where_it_stands_is_none_by_wire(text):
    g = Sketch()
    g("KSampler", steps=g("Float", Number=text))
    assert arrived(g) == (None, True)


def test_a_node_that_holds_the_name_of_a_lora_hands_it_on():
    g = Sketch()
    g("LoraLoaderModelOnly", lora_name=g("easy loraNames", lora_name="CausVid.safetensors"), strength_model=0.7)
    assert arrived(g, "lora_name") == ("CausVid.safetensors", False)


def test_converters_and_wired_primitives_are_passed():
    g = Sketch()
    number = g("PrimitiveFloat", value=g("FloatConstant", value=8.0))
    g("KSampler", steps=g("ComfyNumberConvert", value=g("LTXFloatToInt", a=number)))
    assert arrived(g) == (8.0, False)


@pytest.mark.parametrize(("on", "steps"), [(True, 8), (False, 40)])
@pytest.mark.parametrize("selector", ["plain", "wired", "by a switch"])
def test_a_switch_of_values_is_followed_by_its_selector(on, steps, selector):
    g = Sketch()
    chosen = on
    if selector == "wired":
        chosen = g("PrimitiveBoolean", value=on)
    elif selector == "by a switch":
        chosen = g("ComfySwitchNode", switch=g("PrimitiveBoolean", value=True), on_true=on, on_false=not on)
    g("KSampler", steps=g("ComfySwitchNode", switch=chosen, on_true=g("PrimitiveInt", value=8), on_false=40))
    assert arrived(g) == (steps, False)


@pytest.mark.parametrize("kind,selector,names", [
    ("easy ifElse", "boolean", ("on_false", "on_true")),
    ("LazySwitchKJ", "switch", ("on_false", "on_true")),
    ("ImpactConditionalBranch", "cond", ("ff_value", "tt_value")),
])  # fmt: skip
def test_switches_of_other_packs(kind, selector, names):
    g = Sketch()
    g("KSampler", cfg=g(kind, **{selector: g("BOOLConstant", value=True), names[0]: 4.0, names[1]: 1.0}))
    assert arrived(g, "cfg") == (1.0, False)


UNKNOWN = [
    lambda g: g("Seed Math", a=g("PrimitiveInt", value=3)),
    lambda g: g("ComfySwitchNode", switch=g("Compare"), on_true=8, on_false=40),
    lambda g: g("INTConstant", value=30)(1),  # another output is a number of its own
    lambda g: g("PrimitiveInt", value=[1, 2, 3]),
    lambda g: g("PrimitiveInt", value=["no such node", 0]),
    lambda g: g("CheckpointLoaderSimple", ckpt_name="Print.safetensors"),
    lambda g: ["2", 0],  # itself
    lambda g: g("Int", Number="many"),
    lambda g: g("Float", Number="inf"),
]


@pytest.mark.parametrize("source", UNKNOWN)
def test_what_only_the_run_knows_stays_a_link(source):
    g = Sketch()
    wired = source(g)
    g("KSampler", steps=wired)
    assert arrived(g)[0] is None


def test_rings_and_long_chains_end():
    g = Sketch()
    g("PrimitiveInt", value=["2", 0])
    g("ComfySwitchNode", switch=["1", 0], on_true=["1", 0], on_false=["2", 0])
    value = g("PrimitiveInt", value=5)
    for _ in range(3000):
        value = g("PrimitiveInt", value=value)
    g("KSampler", steps=value, cfg=["2", 0])
    assert arrived(g, "cfg")[0] is None


def test_a_node_that_makes_something_else_stays_wired():
    """One word beside no other value is a name where the socket takes a model, and no value."""
    g = Sketch()
    g("KSampler", model=g("UnetLoaderGGUF", unet_name="x.gguf"), sampler=g("KSamplerSelect", sampler_name="euler"))
    graph = with_constants(graph_of(g.prompt))
    assert graph.nodes["3"].links == {"model": ("1", 0), "sampler": ("2", 0)}


def official(on: bool, fast: tuple[int, float] = (4, 1.0), lora: str = LIGHTNING_4) -> Sketch:
    """The commonest official form: one boolean sets the model, the steps and the CFG."""
    g = Sketch()
    flag, plain = g("PrimitiveBoolean", value=on), g.unet("qwen_image_bf16.safetensors")
    model = g("ComfySwitchNode", switch=flag, on_false=plain, on_true=g.lora(plain, lora))
    steps = g(
        "ComfySwitchNode", switch=flag, on_false=g("PrimitiveInt", value=40), on_true=g("PrimitiveInt", value=fast[0])
    )
    cfg = g(
        "ComfySwitchNode",
        switch=flag,
        on_false=g("PrimitiveFloat", value=4.0),
        on_true=g("PrimitiveFloat", value=fast[1]),
    )
    g.sample(model, g("CLIPLoader"), steps, cfg)
    return g


def told(g: Sketch):
    result = lint(graph_of(g.prompt))
    stacks = result.to_json()["stacks"]
    rows = [
        ([row["path"] for row in each["loras"]], each["sampling"][0]["steps"], each["sampling"][0]["cfg"])
        for each in stacks
    ]
    return rows, [finding.text for finding in result.findings]


def test_an_official_switch_that_is_off_leaves_the_lora_out():
    assert told(official(False)) == ([([], 40, 4.0)], [])


def test_an_official_switch_that_is_on_is_judged_as_what_runs():
    assert told(official(True)) == ([([LIGHTNING_4], 4, 1.0)], [])
    assert told(official(True, (40, 4.0))) == ([([LIGHTNING_4], 40, 4.0)], ["LF403.sampling"])
    assert told(official(True, (40, 4.0), LIGHTNING_8)) == ([([LIGHTNING_8], 40, 4.0)], ["LF403.sampling"])


def test_a_switch_inside_a_subgraph_is_set_from_outside():
    """The switch's selector is an input of the subgraph, whose widget holds it; or a primitive is wired in."""
    inside = Drawing()
    inside.add(2, "LoraLoaderModelOnly", "model:MODEL", "MODEL", widgets_values=[LIGHTNING_8, 1.0])
    inside.add(3, "ComfySwitchNode", "on_false:MODEL on_true:MODEL switch:BOOLEAN!", "MODEL", widgets_values=[False])
    inside.wire(-10, 0, 2, "model").wire(-10, 0, 3, "on_false").wire(2, 0, 3, "on_true").wire(-10, 1, 3, "switch")
    inside.wire(3, 0, -20, 0)
    for on, wired in ((True, False), (False, False), (True, True), (False, True)):
        drawing = Drawing().add(1, "UNETLoader", "", "MODEL", widgets_values=["b.safetensors", "default"])
        drawing.add(5, SUB, "model:MODEL switch:BOOLEAN!", "MODEL", widgets_values=[on is not wired]).wire(
            1, 0, 5, "model"
        )
        if wired:
            drawing.add(7, "PrimitiveBoolean", "", "BOOLEAN", widgets_values=[on]).wire(7, 0, 5, "switch")
        drawing.add(9, "KSampler", "model:MODEL", "LATENT", widgets_values=[1, "fixed", 8, 1.0, "euler", "simple", 1.0])
        drawing.wire(5, 0, 9, "model")
        saved = drawing.saved(definitions={"subgraphs": [inside.definition(SUB, "model switch", "model")]})
        (stack,) = lint(graph_of(saved)).to_json()["stacks"]
        assert [row["path"] for row in stack["loras"]] == ([LIGHTNING_8] if on else []), (on, wired)


def test_the_text_of_a_stacker_is_not_its_list():
    g = Sketch()
    rows = [{"name": "detail", "strength": "0.5", "active": True, "clipStrength": "0.25"}]
    stack = g("Lora Stacker (LoraManager)", text="<lora:detail:0.5>", loras={"__value__": rows})
    base = g("CheckpointLoaderSimple", ckpt_name="sd_xl_base_1.0.safetensors")
    model = g("Lora Loader (LoraManager)", model=base, clip=base(1), text="", loras={"__value__": []}, lora_stack=stack)
    g.save(g.sample(model, model(1), 28, 6.0), base(2))
    assert stacks_of(g) == [("sd_xl_base_1.0.safetensors", [("detail", "stack", 0.5, "3")])]
