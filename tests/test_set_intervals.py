"""Numbers of a whole set of answers have intervals that cover, resampled by image."""

from __future__ import annotations

import numpy as np

from medkit.evaluation.scoring.profile import Item
from medkit.evaluation.scoring.profiles import PROFILES
from medkit.evaluation.scoring.rescore import score_items
from medkit.evaluation.scoring.set_intervals import _taken, set_intervals


def test_the_interval_of_f1_covers_under_clustered_replies():
    """Of 100 drawn sets, 90 to 99 intervals hold the true F1; a point or a tenth of the width would fail."""
    rng = np.random.default_rng(5)
    covered = 0
    for _ in range(100):
        items = []
        for group in range(30):
            good = rng.beta(4, 2)  # an image is easy or hard: its four replies go together
            for _ in range(4):
                gold, other = ("yes", "no") if rng.random() < 0.5 else ("no", "yes")
                said = gold if rng.random() < good else other
                items.append(Item(said, (gold,), "yes_no", group=f"g{group}"))
        found = score_items(items, PROFILES["official"])["corpus"]["pope_f1"]
        assert found["low"] <= found["value"] <= found["high"] <= 1
        covered += found["low"] <= 2 / 3 <= found["high"]  # right 2/3 of the time, yes and no alike
    assert 90 <= covered <= 99


def test_one_group_or_no_spread_has_no_interval():
    entry = PROFILES["official"].corpus[0]
    right = [Item("yes", ("yes",), "yes_no", group=f"g{number}") for number in range(5)]
    assert set_intervals(entry, right, entry.function(right)) == {}
    one = [Item("yes", ("yes",), "yes_no", group="g"), Item("no", ("yes",), "yes_no", group="g")]
    assert set_intervals(entry, one, entry.function(one)) == {}
    assert "low" not in score_items(one, PROFILES["official"])["corpus"]["pope_f1"]


def test_an_image_drawn_twice_counts_as_two_images():
    """MME counts images with every question right: a repeated image must not melt into one."""
    items = [
        Item("yes", ("yes",), "yes_no", group=f"g{n}", category="existence", image=f"i{n}") for n in (0, 0, 1)
    ]
    taken = _taken([items[:2], items[2:]], [0, 0, 1, 0])
    assert [item.image for item in taken] == ["i0", "i0", "i0#1", "i0#1", "i1", "i0#2", "i0#2"]
