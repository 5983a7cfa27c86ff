"""The pictures of a check and a bake as pixels: each says what its data say, and none grows without end."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("PIL", reason="Pillow comes with ComfyUI: python tests/install.py host")

from lora_foundry.loaders.merges import heat
from lora_foundry.loaders.plans.pictures import BAR, EDGE, HEAD, LABEL, MOST_LORAS, ROW, WIDTH
from lora_foundry.loaders.plans.raster import COLOURS, pixels


def lora(path: str, gain: float | None, **more: object) -> dict[str, object]:
    return {"path": path, "gain": gain, "matched": 3, "modules": 4, **more}


def where(picture: np.ndarray, colour: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """(rows, columns) of every pixel of exactly this colour."""
    assert picture.dtype == np.float32 and picture.min() >= 0 and picture.max() <= 1
    return np.nonzero((np.rint(picture * 255) == np.array(colour)).all(axis=2))


def runs(picture: np.ndarray, kind: str) -> list[int]:
    """How long each bar of this kind is, from top to bottom, in pixels."""
    rows, _ = where(picture, COLOURS[kind])
    lines = [row for row, count in zip(*np.unique(rows, return_counts=True), strict=True) if count > 2]  # not in words
    tops = [row for row in lines if row - 1 not in lines]
    return [int(np.count_nonzero(rows == top)) for top in tops]


def test_bars_are_as_long_as_their_numbers():
    told = {"loras": [lora("good", 0.95), lora("bad", 0.5)], "size": {"before": 400, "after": 100}}
    drawn = pixels(told, "base")
    assert drawn.shape[1:] == (WIDTH, 3)
    assert runs(drawn, "good") == [round(0.95 * BAR)] and runs(drawn, "bad") == [round(0.5 * BAR)]
    assert runs(drawn, "plain") == [BAR, BAR // 4]
    assert min(where(drawn, COLOURS["good"])[1]) == EDGE + LABEL


def errors(limit: float | None) -> dict[str, object]:
    layers = {str(number): {"relative_error": error} for number, error in enumerate([0.01] * 3 + [0.02] * 6 + [0.04])}
    return {"loras": [], "layers": layers, "relative_error": 0.02, "budget": limit and {"max_error": limit}}


def test_the_line_of_the_histogram_stands_at_max_error():
    drawn = pixels(errors(0.03), "base")
    rows, columns = where(drawn, COLOURS["limit"])
    at = EDGE + round(0.03 / 0.04 * (WIDTH - 2 * EDGE))
    assert set(columns) == {at, at + 1} and len(rows) > 120
    assert len(where(pixels(errors(None), "base"), COLOURS["limit"])[0]) == 0


def test_the_histogram_is_as_tall_as_there_are_layers():
    drawn = pixels(errors(None), "base")
    _, columns = where(drawn, COLOURS["plain"])
    heights = [np.count_nonzero(columns == column) for column in range(WIDTH)]
    tall, short, single = (max(heights[first:last]) for first, last in ((290, 340), (150, 210), (590, WIDTH)))
    assert (round(tall / single), round(tall / short)) == (6, 2)


def test_the_strongest_block_is_the_darkest():
    told = {"loras": [lora("a", None, energy={"block.0": 0.2, "block.1": 0.8})]}
    strip = pixels(told, "base")[HEAD + 2 * ROW + 16 + ROW + 10]  # below two lines of modules and a heading
    weak, strong = (strip[EDGE + LABEL + place] for place in (40, 200))
    assert np.rint(strong * 255).tolist() == list(COLOURS["plain"]) and (weak > strong).all()


def test_many_loras_and_blocks_make_no_endless_picture():
    blocks = {f"block.{number}": 1 / 2000 for number in range(2000)}
    few, many = ([lora(f"{number}", 0.99, energy=blocks) for number in range(count)] for count in (MOST_LORAS, 5000))
    drawn = pixels({"loras": many}, "base")
    assert drawn.shape == pixels({"loras": few}, "base").shape and drawn.shape[0] < 1500


@pytest.mark.parametrize("name", ["a\x1b[2J\0\ufffe", "a\udce9", "水墨.safetensors", "x" * 5000, ""])
def test_any_name_can_be_drawn(name):
    drawn = pixels({"loras": [lora(name, 0.5, energy={name: 0.2, "b": 0.1})]}, name)
    assert runs(drawn, "bad") == [BAR // 2]


def test_an_old_pillow_draws_all_but_the_words(monkeypatch):
    from lora_foundry.loaders.plans import raster

    monkeypatch.setattr(raster, "_font", lambda size: None)
    drawn = pixels({"loras": [lora("good", 0.95)]}, "base")
    assert runs(drawn, "good") == [round(0.95 * BAR)] and (drawn[:HEAD] == 1).all()


def test_the_map_of_conflicts_has_its_colours_and_its_words():
    told = {"loras": [{"name": "ink"}, {"name": "line"}], "cosine": [[1.0, -0.5], [-0.5, 1.0]],
            "blocks": [{"block": "block.0", "loras": [0.5, 0.25], "stack": 1.0}]}  # fmt: skip
    drawn = heat.pixels(told)
    boxes, width, height = heat.boxes(told)
    assert drawn.shape == (height, width, 3)
    against = next(box for box in boxes if box.text == "-0.50")
    assert np.rint(drawn[against.y + 1, against.x + 1] * 255).tolist() == list(heat.shade(-0.5))
    inside = drawn[against.y : against.y + against.height, against.x : against.x + against.width]
    assert len(np.unique(inside.reshape(-1, 3), axis=0)) > 1, "no number is in it"


def test_a_map_of_many_loras_is_cut_and_says_so():
    def told(count: int) -> dict[str, object]:
        loras = [{"name": f"odd\n{number}"} for number in range(count)]
        blocks = [{"block": "block.0", "loras": [0.5] * count, "stack": 1.0}]
        return {"loras": loras, "cosine": [[0.5] * count] * count, "blocks": blocks}

    few, many = heat.pixels(told(MOST_LORAS)), heat.pixels(told(200))
    assert many.shape == (few.shape[0] + heat.LINE, *few.shape[1:]) and many[few.shape[0] - heat.GAP + 1 :].min() < 1
