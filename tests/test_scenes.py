"""Drawn scenes: the same for the same number, boxes where the objects are, facts complete, quick."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from medkit.readers.drawn import load_draw

draw = load_draw(Path(__file__).resolve().parents[1] / "domains" / "scenes" / "domain.py")
COLOURS = {
    "red": (214, 40, 40),
    "green": (44, 160, 60),
    "blue": (40, 80, 214),
    "yellow": (240, 220, 50),
    "orange": (245, 140, 30),
    "purple": (130, 50, 170),
    "pink": (250, 150, 190),
    "cyan": (60, 210, 220),
    "brown": (120, 75, 40),
    "white": (246, 246, 246),
    "black": (16, 16, 16),
    "gray": (130, 130, 130),
}
SHAPES = {"circle", "square", "triangle", "star", "cross", "ring", "diamond", "heart"}


@pytest.fixture(scope="module")
def _drawn():
    return [draw(7, index) for index in range(200)]


def _nearest(pixel: np.ndarray) -> str:
    return min(COLOURS, key=lambda name: float(np.abs(pixel - np.array(COLOURS[name])).sum()))


def test_a_scene_is_the_same_whenever_it_is_drawn(_drawn):
    for index in (0, 3, 117):
        pixels, facts = draw(7, index)
        assert (pixels == _drawn[index][0]).all() and facts == _drawn[index][1]
    assert not (draw(8, 0)[0] == _drawn[0][0]).all()
    assert not (_drawn[0][0] == _drawn[1][0]).all()


def test_facts_say_everything_and_only_what_can_be_drawn(_drawn):
    for pixels, facts in _drawn:
        assert pixels.shape == (64, 64, 3) and pixels.dtype == np.uint8
        assert set(facts) == {"modality", "width", "height", "labels", "objects", "complete"}
        assert (facts["width"], facts["height"], facts["complete"]) == (64, 64, True)
        assert facts["labels"]["background"] in COLOURS
        assert 1 <= len(facts["objects"]) <= 6
        for thing in facts["objects"]:
            character = thing["label"] in ("letter", "digit")
            assert character or thing["label"] in SHAPES
            assert set(thing["attributes"]) == {"colour", "size", "character" if character else "texture"}
            assert thing["attributes"]["colour"] in COLOURS
            assert thing["attributes"]["colour"] != facts["labels"]["background"]


def test_boxes_lie_inside_apart_and_have_the_size_that_is_said(_drawn):
    for _, facts in _drawn:
        boxes = [np.array(thing["box"]) * 64 for thing in facts["objects"]]
        for box, thing in zip(boxes, facts["objects"], strict=True):
            assert 0 < box[0] < box[2] < 64 and 0 < box[1] < box[3] < 64
            side = box[2] - box[0]
            assert abs(side - (box[3] - box[1])) < 0.02
            assert (side > 18) == (thing["attributes"]["size"] == "large")
        for number, one in enumerate(boxes):
            for other in boxes[number + 1 :]:
                assert one[2] < other[0] or other[2] < one[0] or one[3] < other[1] or other[3] < one[1]


def test_colours_are_where_the_facts_put_them(_drawn):
    right = checked = 0
    for pixels, facts in _drawn:
        ground = pixels[[0, 0, -1, -1], [0, -1, 0, -1]].astype(float).mean(axis=0)
        right, checked = right + (_nearest(ground) == facts["labels"]["background"]), checked + 1
        for thing in facts["objects"]:
            if (
                thing["label"] in ("circle", "square", "diamond")
                and thing["attributes"].get("texture") == "plain"
            ):
                x0, y0, x1, y1 = (edge * 64 for edge in thing["box"])
                x, y = round((x0 + x1) / 2), round((y0 + y1) / 2)
                centre = pixels[y - 1 : y + 2, x - 1 : x + 2].reshape(-1, 3).mean(axis=0)
                right, checked = right + (_nearest(centre) == thing["attributes"]["colour"]), checked + 1
    assert checked > 300
    assert right / checked > 0.97


def test_every_word_of_the_domain_is_drawn(_drawn):
    labels = {thing["label"] for _, facts in _drawn for thing in facts["objects"]}
    assert labels == SHAPES | {"letter", "digit"}
    textures = {thing["attributes"].get("texture") for _, facts in _drawn for thing in facts["objects"]}
    assert textures >= {"plain", "striped", "dotted", "checkered"}
    assert {facts["labels"]["background"] for _, facts in _drawn} == set(COLOURS)


def test_a_scene_takes_a_few_milliseconds(_drawn):
    started = time.process_time()
    for index in range(100):
        draw(9, index)
    assert (time.process_time() - started) / 100 < 0.02
