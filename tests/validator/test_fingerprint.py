"""A LoRA stays the same one however it is saved, and another one is another one."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from fixtures_parts import ZOO
from lora_foundry.engine.adapters import delta_rows, needs_weight
from lora_foundry.engine.dense import as_rows
from lora_foundry.engine.lineage import alike
from lora_foundry.engine.plan import Adapter
from lora_foundry.loaders.lineage import fingerprints
from lora_foundry.loaders.lineage.fingerprints import STORE, lora_fingerprint
from lora_foundry.loaders.loras.file import LoRAFile, open_lora
from lora_foundry.validator import fingerprint as engine
from lora_foundry.validator.fingerprint import Fingerprint, _signs, make_fingerprint
from safetensors.torch import save_file
from samples import ShapeSource

RANK = 8
SHAPES = {  # as in a block of a DiT, several modules of one shape
    **{f"transformer_blocks.{i}.attn.to_{part}": (96, 96) for i in range(8) for part in ("q", "k", "v")},
    **{f"transformer_blocks.{i}.ff.net.0.proj": (192, 96) for i in range(8)},
    **{f"transformer_blocks.{i}.ff.net.2": (96, 192) for i in range(8)},
}
KOHYA, PEFT, NAMED = (".lora_up.weight", ".lora_down.weight"), (".lora_B.weight", ".lora_A.weight"), (
    ".lora_B.default.weight", ".lora_A.default.weight",
)  # fmt: skip


def trained(seed: int = 0, spread: float = 0.0) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """module -> (up, down); all norms lie within a few per cent unless there is a ``spread``."""
    source = torch.Generator().manual_seed(seed)
    made = {}
    for number, (module, (rows, columns)) in enumerate(SHAPES.items()):
        up, down = (torch.randn(shape, generator=source) for shape in ((rows, RANK), (RANK, columns)))
        made[module] = up * 1e-3 * (1 + spread * number), down * 0.02
    return made


def tensors(factors, suffixes=KOHYA, prefix="", alpha: float | None = None, dtype=torch.float32):
    flat = prefix.endswith("_")
    found = {}
    for module, (up, down) in factors.items():
        name = prefix + (module.replace(".", "_") if flat else module)
        found |= {name + suffixes[0]: up.to(dtype), name + suffixes[1]: down.to(dtype)}
        if alpha is not None:
            found[name + ".alpha"] = torch.tensor(alpha)
    return found


def of(stored) -> Fingerprint:
    return lora_fingerprint(LoRAFile(ShapeSource({}, stored), "x", "0" * 64))


def scaled(factors, up: float, down: float = 1.0):
    return {module: (first * up, second * down) for module, (first, second) in factors.items()}


def noisy(factors, share: float):
    source = torch.Generator().manual_seed(99)

    def blur(factor):
        noise = torch.randn(factor.shape, generator=source)
        return factor + share * factor.norm() / noise.norm() * noise

    return {module: (blur(up), blur(down)) for module, (up, down) in factors.items()}


def refactored(factors):
    """The same products with other factors: a balanced SVD of each."""
    made = {}
    for module, (up, down) in factors.items():
        left, values, right = torch.linalg.svd(up.double() @ down.double(), full_matrices=False)
        root = values[:RANK].sqrt()
        made[module] = (left[:, :RANK] * root).float(), (root[:, None] * right[:RANK]).float()
    return made


BASE = trained()
SAME = {
    "kohya names": tensors(BASE, prefix="lora_unet_"),
    "diffusers names": tensors(BASE, PEFT, "transformer."),
    "PEFT names": tensors(BASE, PEFT, "base_model.model."),
    "DiffSynth names": tensors(BASE, NAMED),
    "ComfyUI names": tensors(BASE, KOHYA, "diffusion_model."),
    "other order of keys": dict(reversed(tensors(BASE).items())),
    "bf16": tensors(BASE, dtype=torch.bfloat16),
    "fp16": tensors(BASE, dtype=torch.float16),
    "fp16 of bf16": {name: tensor.half() for name, tensor in tensors(BASE, dtype=torch.bfloat16).items()},
    "alpha as stated": tensors(scaled(BASE, 8), alpha=RANK / 8),
    "alpha folded into up": tensors(scaled(BASE, RANK / 4 * 0.5), alpha=8.0),
    "factors scaled": tensors(scaled(BASE, 1000, 1e-3)),
    "factors of an SVD": tensors(refactored(BASE)),
    "SVD, bf16, kohya": tensors(refactored(BASE), prefix="lora_unet_", dtype=torch.bfloat16),
    "0.4 % stronger": tensors(scaled(BASE, 1.004)),
    "a module that does nothing more": {
        **tensors(BASE), "x.q.lora_up.weight": torch.zeros(96, 2), "x.q.lora_down.weight": torch.ones(2, 96),
    },
}  # fmt: skip
OTHER = {
    "another seed": tensors(trained(1)),
    "5 % of noise": tensors(noisy(BASE, 0.05)),
    "half the strength": tensors(scaled(BASE, 0.5)),
    "5 % stronger": tensors(scaled(BASE, 1.05)),
    "negative": tensors(scaled(BASE, -1)),
    "a module less": tensors(dict(list(BASE.items())[1:])),
    "a module more": tensors(BASE) | tensors({"x.q": BASE["transformer_blocks.0.attn.to_q"]}),
    "one block only": tensors(dict(list(BASE.items())[:3])),
    "alpha ignored": tensors(BASE, alpha=1.0),
    "half its rank": tensors({module: (up[:, :4], down[:4]) for module, (up, down) in BASE.items()}),
    "transposed": tensors({module: (down.T, up.T) for module, (up, down) in BASE.items()}),
    "rows in another order": tensors({module: (up.flip(0), down) for module, (up, down) in BASE.items()}),
}


@pytest.fixture(scope="module")
def base() -> Fingerprint:
    return of(tensors(BASE))


@pytest.mark.parametrize("how", SAME)
def test_the_same_lora_however_it_is_saved(how, base):
    assert len(base) == len(SHAPES)
    found = of(SAME[how])
    assert base.matches(found) and found.matches(base)
    assert alike(base.sketch(), found.sketch()) and alike(found.sketch(), base.sketch())


@pytest.mark.parametrize("how", OTHER)
def test_another_lora_is_another_one(how, base):
    found = of(OTHER[how])
    assert len(found) and not base.matches(found) and not found.matches(base)
    assert not alike(base.sketch(), found.sketch()) and not alike(found.sketch(), base.sketch())


def test_one_module_of_many_that_was_trained_on(base):
    """The mean over hundreds of modules would hide it; the norms do not."""
    changed = {**BASE, "transformer_blocks.3.attn.to_k": scaled(BASE, 1.03)["transformer_blocks.3.attn.to_k"]}
    assert not base.matches(of(tensors(changed)))


def test_modules_of_one_strength_change_places_when_they_are_rounded():
    level = {module: (up / (up @ down).norm(), down) for module, (up, down) in BASE.items()}
    one, two = of(tensors(level)), of(tensors(level, dtype=torch.bfloat16))
    places = [[mark[1] for mark in each.marks[(96, 96)]] for each in (one, two)]
    assert places[0] != pytest.approx(places[1], rel=0.1)
    assert one.matches(two) and not one.matches(of(tensors(noisy(level, 0.05))))


def test_modules_of_very_different_strength():
    strong = {module: (up * 10.0 ** (number % 5), down) for number, (module, (up, down)) in enumerate(BASE.items())}
    one, two = of(tensors(strong)), of(tensors(strong, prefix="lora_unet_", dtype=torch.bfloat16))
    assert one.matches(two) and not one.matches(of(tensors(noisy(strong, 0.05))))


def test_a_sketch_is_a_row_a_shape(base):
    rows = base.sketch()
    assert [row[:3] for row in rows] == [(96.0, 96.0, 24.0), (96.0, 192.0, 8.0), (192.0, 96.0, 8.0)]
    for row in rows:
        marks = torch.tensor(base.marks[(int(row[0]), int(row[1]))], dtype=torch.float64)
        wanted = [float(marks[:, 0].norm()), *marks[:, 1:].sum(0).tolist()]
        torch.testing.assert_close(torch.tensor(row[3:]), torch.tensor(wanted), rtol=1e-4, atol=1e-4 * wanted[0])


@pytest.mark.parametrize("factors", [{}, {"x.q": (torch.zeros(4, 2), torch.ones(2, 4))}])
def test_what_does_nothing_matches_nothing(factors):
    empty = of(tensors(factors)) if factors else Fingerprint({})
    assert len(empty) == 0 and not empty.matches(empty)


def test_norm_and_projections_are_those_of_the_delta():
    up, down = BASE["transformer_blocks.0.ff.net.2"]
    adapter = Adapter("a.b", "lora", (), RANK, (96, 192), -2.0)
    ((norm, *projections),) = make_fingerprint([(adapter, {"up": up, "down": down})]).marks[(96, 192)]
    delta = (up.double() @ down.double()) * -2.0 / RANK
    expected = _signs(96, "rows").double() @ delta @ _signs(192, "columns").double().T
    assert norm == pytest.approx(float(delta.norm()), rel=1e-4)
    assert projections == pytest.approx(expected.flatten().tolist(), rel=1e-3, abs=1e-4 * norm)


def test_signs_are_the_same_on_every_machine():
    """Fingerprints are exchanged: these bits are a promise."""
    drawn = ["".join("-+"[number > 0] for number in row) for row in _signs(12, "rows").tolist()]
    assert drawn == ["-++-+--+++++", "-+---+++-++-"]
    assert set(_signs(1001, "columns").flatten().tolist()) == {1.0, -1.0}
    assert abs(float(_signs(3072, "rows").mean())) < 0.05
    assert not torch.equal(_signs(64, "rows"), _signs(64, "columns"))


@pytest.mark.parametrize("form", ZOO)
def test_every_kind_has_a_fingerprint_that_survives_fp16(form):
    """In bf16 a module of so few numbers as these moves by more than 1 %; rounding errors of real ones average out."""
    stored = ZOO[form][2]
    ours = of(stored)
    again = of({name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in stored.items()})
    changed = of({name: tensor * 1.5 if tensor.is_floating_point() else tensor for name, tensor in stored.items()})
    assert len(ours) and ours.matches(again) and not ours.matches(changed)


def test_magnitudes_of_dora_count():
    stored = ZOO["dora rows"][2]
    other = {**stored, "m.dora_scale": stored["m.dora_scale"] * 1.5}
    plain = {name: tensor for name, tensor in stored.items() if "dora" not in name}
    assert len(of(stored)) == 2 and not of(stored).matches(of(other)) and not of(stored).matches(of(plain))


@pytest.mark.parametrize("form", ["loha", "lokr both split", "diff", "lokr dense"])
def test_other_kinds_are_their_dense_deltas(form, monkeypatch):
    whole = of(ZOO[form][2])
    monkeypatch.setattr(engine, "BLOCK", 8)  # two rows at a time
    file = LoRAFile(ShapeSource({}, ZOO[form][2]), "x", "0" * 64)
    (adapter,) = file.adapters
    assert not needs_weight(adapter)
    parts = {part: file.read(name) for part, name in adapter.parts if part != "alpha"}
    delta = delta_rows(adapter, parts, as_rows(torch.empty(adapter.delta_shape, device="meta")))(slice(None))
    ((shape, ((norm, *_),)),) = lora_fingerprint(file).marks.items()
    assert lora_fingerprint(file).matches(whole)
    assert shape == tuple(delta.shape) and norm == pytest.approx(float(delta.double().norm()), rel=1e-4)


def test_json_is_small_and_comes_back(base):
    text = json.dumps(base.to_json(), separators=(",", ":"))
    assert Fingerprint.from_json(json.loads(text)) == base
    assert len(text) < 60 * len(base)


@pytest.mark.parametrize(
    "data",
    [None, {}, {"version": 2, "shapes": {}}, {"version": 1, "shapes": {"3": []}},
     {"version": 1, "shapes": {"3x4": [[1]]}}, {"version": 1, "shapes": {"3x4": [[1, 2, 3, 4, "x"]]}},
     {"version": 1, "shapes": {"3x4": [[float("nan")] * 5]}},
     {"version": 1, "shapes": {"3x4": [[10**400] * 5]}}, {"version": 1, "shapes": [[3, 4]]},
     {"version": 1, "shapes": [1]}],
)  # fmt: skip
def test_damaged_json_is_refused(data):
    with pytest.raises((KeyError, TypeError, ValueError)):
        Fingerprint.from_json(data)


# --- the file's fingerprint is kept


@pytest.fixture
def counted(monkeypatch):
    calls = []
    monkeypatch.setattr(fingerprints, "make_fingerprint", lambda found: calls.append(1) or make_fingerprint(found))
    return calls


def test_a_file_is_worked_out_once(tmp_path, pack_home, counted, base):
    path = tmp_path / "a.safetensors"
    save_file(tensors(BASE), path)
    found = lora_fingerprint(open_lora(path))
    copy = tmp_path / "copy.safetensors"
    save_file(tensors(BASE), copy, metadata={"title": "edited"})
    assert found == lora_fingerprint(open_lora(copy)) and found.matches(base)
    assert len(counted) == 1 and len(list((pack_home / STORE.folder).iterdir())) == 1


def test_what_changes_the_scale_is_another_fingerprint(tmp_path, counted):
    """The bytes of the tensors are the same; PEFT's alpha is in the metadata."""
    files = [tmp_path / f"{alpha}.safetensors" for alpha in (1, 8)]
    for path in files:
        told = json.dumps({"r": RANK, "lora_alpha": int(path.stem)})
        save_file(tensors(BASE, PEFT, "transformer."), path, metadata={"lora_adapter_metadata": told})
    assert not lora_fingerprint(open_lora(files[0])).matches(lora_fingerprint(open_lora(files[1])))
    assert len(counted) == 2


@pytest.mark.parametrize("damage", ["", "x", "0" * 50, '00000000 {"version": 1}'])
def test_a_damaged_record_is_made_again(damage, tmp_path, pack_home, counted):
    path = tmp_path / "a.safetensors"
    save_file(tensors(BASE), path)
    first = lora_fingerprint(open_lora(path))
    (record,) = (pack_home / STORE.folder).iterdir()
    record.write_text(damage)
    assert lora_fingerprint(open_lora(path)) == first and len(counted) == 2
    assert lora_fingerprint(open_lora(path)) == first and len(counted) == 2


def test_the_oldest_records_go(tmp_path, pack_home, monkeypatch):
    monkeypatch.setattr(fingerprints, "STORE", replace(STORE, most=3))
    for number in range(5):
        path = tmp_path / f"{number}.safetensors"
        save_file(tensors(dict(list(trained(number).items())[:2])), path)
        lora_fingerprint(open_lora(path))
    assert len(list((pack_home / STORE.folder).iterdir())) == 3


def test_a_home_that_refuses_it_stops_nothing(tmp_path, monkeypatch, base):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LORA_FOUNDRY_HOME", str(tmp_path / "file"))
    path = tmp_path / "a.safetensors"
    save_file(tensors(BASE), path)
    assert lora_fingerprint(open_lora(path)).matches(base)
