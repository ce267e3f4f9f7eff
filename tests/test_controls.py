"""Controls show what they promise: one colour, or another group's image."""

from __future__ import annotations

import numpy as np
import pytest

from medkit.evaluation.controls import blank_image, shuffled_images


def test_blank_image_has_the_size_and_one_colour():
    image = blank_image((30, 20), (122, 116, 104))
    assert image.size == (30, 20) and image.mode == "RGB"
    assert image.getcolors() == [(600, (122, 116, 104))]
    assert blank_image((1, 1)).getpixel((0, 0)) == (128, 128, 128)


def _case(groups: int, questions: int) -> tuple[list[str], list[list[str]]]:
    names = [f"g{group}" for group in range(groups) for _ in range(questions)]
    return names, [[name.replace("g", "image")] for name in names]


@pytest.mark.parametrize("groups", [2, 3, 50])
def test_every_question_sees_another_groups_image(groups):
    names, images = _case(groups, 4)
    shown = shuffled_images(names, images)
    assert shown is not None
    assert all(new != old for new, old in zip(shown, images, strict=True))
    # every image is still shown, equally often, and questions about one image share theirs
    assert sorted(ref for refs in shown for ref in refs) == sorted(ref for refs in images for ref in refs)
    assert all(shown[4 * group] == shown[4 * group + 3] for group in range(groups))


def test_the_shuffle_is_seeded():
    names, images = _case(50, 2)
    assert shuffled_images(names, images, 1) == shuffled_images(names, images, 1)
    assert shuffled_images(names, images, 1) != shuffled_images(names, images, 2)


def test_images_of_one_patient_never_go_to_the_same_patient():
    groups = ["p1", "p1", "p1", "p2", "p3", "p3"]
    images = [["a"], ["b"], ["c"], ["d"], ["e"], ["f"]]
    owner = dict(zip("abcdef", groups, strict=True))
    for seed in range(20):
        shown = shuffled_images(groups, images, seed)
        assert shown is not None
        assert all(owner[refs[0]] != group for refs, group in zip(shown, groups, strict=True))


def test_a_picture_in_two_groups_is_not_its_own_replacement():
    for seed in range(20):
        shown = shuffled_images(["g1", "g2", "g3", "g4"], [["same"], ["same"], ["x"], ["y"]], seed)
        assert shown is not None
        assert shown[0] != ["same"] and shown[1] != ["same"]


def test_a_single_group_rotates_and_a_single_image_has_no_control():
    assert shuffled_images(["g", "g", "g"], [["a"], ["b"], ["c"]]) == [["b"], ["c"], ["a"]]
    assert shuffled_images(["g1", "g2"], [["a"], ["a"]]) is None
    assert shuffled_images([], []) is None


def test_several_images_of_a_question_keep_their_number():
    shown = shuffled_images(["g1", "g2"], [["a", "b"], ["c"]])
    assert shown == [["c", "c"], ["a"]]


def test_large_shuffles_have_no_fixed_point():
    groups = [f"g{index}" for index in np.arange(2000)]
    shown = shuffled_images(groups, [[group] for group in groups], seed=7)
    assert shown is not None
    assert sum(refs == [group] for refs, group in zip(shown, groups, strict=True)) == 0
