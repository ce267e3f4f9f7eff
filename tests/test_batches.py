"""Batches are a pure function of seed and epoch, of alike lengths, made ahead in order."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from PIL import Image

from medkit.training.batches import Move, augment_image, batch_at, draw_move, epoch_batches, prefetch

LENGTHS = np.random.default_rng(0).integers(20, 400, 1003)


def test_an_epoch_deals_every_sample_once():
    batches = epoch_batches(LENGTHS, 8, seed=3, epoch=0)
    assert sorted(np.concatenate(batches).tolist()) == list(range(1003))
    assert [len(batch) for batch in batches].count(8) == 125
    assert sorted(len(batch) for batch in batches)[:2] == [3, 8]


def test_batches_depend_on_seed_and_epoch_alone():
    first, again = epoch_batches(LENGTHS, 8, 3, 1), epoch_batches(LENGTHS, 8, 3, 1)
    assert all((one == other).all() for one, other in zip(first, again, strict=True))
    orders = {tuple(np.concatenate(epoch_batches(LENGTHS, 8, *key))) for key in ((3, 1), (3, 2), (4, 1))}
    assert len(orders) == 3


def test_a_batch_holds_alike_lengths_and_wastes_little():
    def padding(batches):
        return (
            sum(len(batch) * LENGTHS[batch].max() - LENGTHS[batch].sum() for batch in batches) / LENGTHS.sum()
        )

    shuffled = np.array_split(np.random.default_rng(1).permutation(1003), 126)
    assert padding(epoch_batches(LENGTHS, 8, 0, 0)) < 0.06
    assert padding(shuffled) > 0.5


def test_long_and_short_batches_are_mixed_over_the_epoch():
    means = np.array([LENGTHS[batch].mean() for batch in epoch_batches(LENGTHS, 8, 0, 0)])
    assert abs(np.corrcoef(np.arange(len(means)), means)[0, 1]) < 0.3


def test_steps_walk_across_epochs_and_can_start_anywhere():
    lengths = np.array([5, 5, 5, 5, 5])
    walked = list(batch_at(lengths, 2, 7, range(0, 7)))
    assert [(step, epoch, len(batch)) for step, epoch, batch in walked] == [
        (0, 0, len(walked[0][2])),
        (1, 0, len(walked[1][2])),
        (2, 0, len(walked[2][2])),
        (3, 1, len(walked[3][2])),
        (4, 1, len(walked[4][2])),
        (5, 1, len(walked[5][2])),
        (6, 2, len(walked[6][2])),
    ]
    for epoch in (0, 1):
        dealt = np.concatenate([batch for _, of, batch in walked if of == epoch])
        assert sorted(dealt.tolist()) == [0, 1, 2, 3, 4]
    later = list(batch_at(lengths, 2, 7, range(4, 7)))
    for (_, _, one), (_, _, other) in zip(walked[4:], later, strict=True):
        assert one.tolist() == other.tolist()


def test_prefetching_keeps_the_order():
    assert list(prefetch(iter(range(20)), lambda item: item * item)) == [item * item for item in range(20)]
    assert list(prefetch(iter([]), str)) == []


def test_prefetching_works_on_another_thread_a_few_items_ahead():
    seen: list[int] = []
    names: set[str] = set()

    def make(item: int) -> int:
        seen.append(item)
        names.add(threading.current_thread().name)
        return item

    ahead = prefetch(iter(range(100)), make, depth=2)
    next(ahead)
    ahead.close()
    assert len(seen) <= 4
    assert threading.current_thread().name not in names


def test_what_goes_wrong_in_the_thread_comes_out_at_its_place():
    def make(item: int) -> int:
        if item == 3:
            raise OSError("picture 3 is broken")
        return item

    got = []
    with pytest.raises(OSError, match="picture 3 is broken"):
        for item in prefetch(iter(range(9)), make):
            got.append(item)
    assert got == [0, 1, 2]


def _sided():
    image = Image.new("RGB", (8, 8), (0, 0, 0))
    image.paste((255, 0, 0), (0, 0, 4, 8))
    return image


def _mirrored(text: str, tries: int = 40) -> int:
    reds = [
        augment_image(_sided(), ["flip"], np.random.default_rng(seed), text).getpixel((0, 0))
        for seed in range(tries)
    ]
    return reds.count((0, 0, 0))


def test_half_of_the_pictures_are_mirrored():
    assert 10 <= _mirrored("what colour is it? red") <= 30


@pytest.mark.parametrize(
    "text", ["which side? left", "left", "the right-hand cell", "at the upper\nleft", "(leftmost)"]
)
def test_a_picture_whose_text_speaks_of_sides_is_never_mirrored(text):
    assert _mirrored(text) == 0


def test_bright_is_no_side():
    assert _mirrored("a bright circle") > 0


def test_variations_keep_size_and_come_from_the_generator_alone():
    kinds = ["flip", "shift", "colour"]
    one, same = (augment_image(_sided(), kinds, np.random.default_rng(5), "") for _ in range(2))
    other = augment_image(_sided(), kinds, np.random.default_rng(6), "")
    assert one.size == (8, 8) and one.mode == "RGB"
    assert one.tobytes() == same.tobytes() != other.tobytes()
    assert augment_image(_sided(), [], np.random.default_rng(5), "").tobytes() == _sided().tobytes()


def _spot(image: Image.Image) -> list[float]:
    """Gives the middle of the white part, in 0..1."""
    rows, columns = np.nonzero(np.asarray(image)[..., 0] > 127)
    return [(columns.mean() + 0.5) / image.width, (rows.mean() + 0.5) / image.height]


@pytest.mark.parametrize("seed", range(6))
def test_a_box_goes_where_its_object_goes(seed):
    pixels = np.zeros((96, 128, 3), dtype=np.uint8)
    pixels[30:46, 20:36] = 255
    box = [20 / 128, 30 / 96, 36 / 128, 46 / 96]
    varied = augment_image(Image.fromarray(pixels), ["flip", "shift"], np.random.default_rng(seed))
    x0, y0, x1, y1 = draw_move(["flip", "shift"], np.random.default_rng(seed)).box(box)
    assert _spot(varied) == pytest.approx([(x0 + x1) / 2, (y0 + y1) / 2], abs=0.01)
    assert np.asarray(varied)[..., 0].astype(float).sum() / 255 == pytest.approx(
        (x1 - x0) * 128 * (y1 - y0) * 96, rel=0.06
    )


def test_boxes_end_at_the_edges():
    assert Move(dx=0.1).box([0.0, 0.0, 0.5, 0.5]) == pytest.approx([0.0, 0.0, 0.4, 0.5])
    assert Move(flip=True).box([0.0, 0.2, 0.25, 0.5]) == pytest.approx([0.75, 0.2, 1.0, 0.5])
    x0, _, x1, _ = Move(dx=0.1).box([0.0, 0.0, 0.05, 0.5])
    assert x0 == x1 == 0.0  # gone
