"""Pictures made worse: the same way each time, more with severity, and never another size."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from medkit.evaluation.controls import noise_image, shown_image
from medkit.evaluation.corruptions import KINDS, SEVERITIES, Corruption, corrupted, read_corruption


@pytest.fixture(scope="module")
def picture() -> Image.Image:
    rows, columns = np.mgrid[0:90, 0:120]
    values = np.stack([columns * 2, rows * 2, 255 * ((columns // 10 + rows // 10) % 2)], axis=-1)
    return Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))


def _values(image: Image.Image) -> np.ndarray:
    return np.asarray(image, dtype=np.float64)


@pytest.mark.parametrize("kind", KINDS)
def test_severity_orders_the_damage_and_it_is_the_same_each_time(picture, kind):
    before = picture.tobytes()
    damage = []
    for severity in SEVERITIES:
        worse = corrupted(picture, Corruption(kind, severity), "ref")
        assert worse.mode == "RGB" and worse.size == picture.size
        assert worse.tobytes() == corrupted(picture, Corruption(kind, severity), "ref").tobytes()
        damage.append(np.abs(_values(worse) - _values(picture)).mean())
    assert damage == sorted(damage) and damage[0] > 0.5
    assert picture.tobytes() == before


def test_noise_has_the_stated_deviation():
    grey = Image.new("RGB", (300, 200), (128, 128, 128))
    drawn = _values(corrupted(grey, Corruption("noise", 2), "a")) / 255
    assert drawn.std() == pytest.approx(0.12, abs=0.003)
    assert drawn.tobytes() != (_values(corrupted(grey, Corruption("noise", 2), "b")) / 255).tobytes()


def test_what_a_tower_sees_of_noise_and_blur_does_not_depend_on_the_pictures_size():
    def seen(image: Image.Image) -> np.ndarray:
        return _values(image.resize((336, 336), Image.Resampling.BOX))

    small, large = (Image.new("RGB", (side, side), (128, 128, 128)) for side in (336, 1344))
    for image in (small, large):
        assert seen(corrupted(image, Corruption("noise", 1), "a")).std() == pytest.approx(
            255 * 0.08, rel=0.02
        )
        assert seen(noise_image(image.size, "a")).std() == pytest.approx(255 / 12**0.5, rel=0.02)
    edges = []
    for side in (336, 1344):
        half = np.zeros((side, side, 3), dtype=np.uint8)
        half[:, side // 2 :] = 255
        edges.append(seen(corrupted(Image.fromarray(half), Corruption("blur", 3), "a"))[0, :, 0])
    assert np.abs(edges[0] - edges[1]).max() < 12


def test_contrast_keeps_the_mean(picture):
    worse = _values(corrupted(picture, Corruption("contrast", 3), "a"))
    assert worse.mean() == pytest.approx(_values(picture).mean(), abs=0.5)
    assert worse.std(axis=(0, 1)) == pytest.approx(0.2 * _values(picture).std(axis=(0, 1)), abs=0.5)


def test_a_window_is_linear_inside_and_cut_outside():
    ramp = Image.fromarray(np.tile(np.arange(256, dtype=np.uint8)[None, :, None], (4, 1, 3)))
    ends = set()
    for ref in "abcdefgh":
        values = _values(corrupted(ramp, Corruption("window", 3), ref))[0, :, 0]
        dark = values[127] > 250
        ends.add(dark)
        expected = np.clip(2 * np.arange(256) if dark else 2 * np.arange(256) - 255, 0, 255)
        assert np.abs(values - expected).max() <= 1
    assert ends == {True, False}


def test_names_of_controls():
    assert Corruption("blur", 3).control == "blur:3"
    assert read_corruption("blur:3") == Corruption("blur", 3)
    assert [read_corruption(name) for name in ("none", "blank", "noise", "text", "shuffled")] == [None] * 5


def test_each_control_shows_what_it_says(picture):
    assert shown_image(picture, "a", "shuffled") is picture
    assert shown_image(picture, "a", "blank", (1, 2, 3)).getcolors() == [(90 * 120, (1, 2, 3))]
    noise = shown_image(picture, "a", "noise")
    assert noise.size == picture.size and noise.tobytes() == noise_image(picture.size, "a").tobytes()
    assert noise.tobytes() != shown_image(picture, "b", "noise").tobytes()
    correlation = np.corrcoef(_values(noise).ravel(), _values(picture).ravel())[0, 1]
    assert abs(correlation) < 0.03
    assert shown_image(picture, "a", "blur:5").tobytes() != picture.tobytes()


@pytest.mark.parametrize("kind", KINDS)
def test_one_pixel_survives(kind):
    assert corrupted(Image.new("RGB", (1, 1), (9, 9, 9)), Corruption(kind, 5), "a").size == (1, 1)
