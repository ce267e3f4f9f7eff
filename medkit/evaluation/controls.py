"""Controls: what a model scores when it can't have seen the image. A model that looks falls under each."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from medkit.evaluation.corruptions import corrupted, grid_of, random_of, read_corruption

MID_GREY = (128, 128, 128)
TRIES = 64


def blank_image(size: tuple[int, int], colour: tuple[int, int, int] = MID_GREY) -> Image.Image:
    """Gives an image of one colour in place of a real one.

    Args:
        size: Width and height of the real image, in pixels, so that prompt and padding stay as they were.
        colour: RGB 0..255; the contract's mean colour, which after normalisation is close to zero everywhere.

    Returns:
        RGB image.
    """
    return Image.new("RGB", size, colour)


def noise_image(size: tuple[int, int], ref: str) -> Image.Image:
    """Gives noise in place of a real image: no content, yet far from one colour, and each picture its own.

    Args:
        size: Width and height of the real image, in pixels.
        ref: Reference of the real image, from which the noise is drawn; equal references give equal noise.

    Returns:
        RGB image, every channel of every point uniform in 0..255. Points of images with a side above 336 px
        are larger than a pixel, or else making the image smaller would leave plain grey.
    """
    width, height = grid_of(size)
    drawn = random_of(ref, "noise image").integers(0, 256, (height, width, 3), dtype=np.uint8)  # [H, W, 3]
    return Image.fromarray(drawn).resize(size, Image.Resampling.NEAREST)


def changes_image(control: str) -> bool:
    """Says whether a control shows something else in a picture's place, or the picture changed."""
    return control in ("blank", "noise") or read_corruption(control) is not None


def shown_image(
    image: Image.Image, ref: str, control: str, colour: tuple[int, int, int] = MID_GREY
) -> Image.Image:
    """Gives what a question's picture looks like under a control.

    Args:
        image: RGB picture that the question's reference names (under ``shuffled`` already another one).
        ref: Its reference.
        control: ``none``, ``shuffled``, ``blank``, ``noise``, or a corruption (``blur:3``).
        colour: RGB 0..255 of the blank image.
    """
    if control == "blank":
        return blank_image(image.size, colour)
    if control == "noise":
        return noise_image(image.size, ref)
    corruption = read_corruption(control)
    return image if corruption is None else corrupted(image, corruption, ref)


def shuffled_images(
    groups: Sequence[str], images: Sequence[Sequence[str]], seed: int = 0
) -> list[list[str]] | None:
    """Gives every question another group's images, by a seeded derangement.

    Groups are put on one random cycle and each takes the images of the next: every image is still shown, as
    often as groups of like size allow, and no question sees an image of its own group. Questions about one
    image share their new one. Where one picture occurs in several groups, the cycle out of ``TRIES`` that
    leaves the fewest questions with their own picture is taken. With a single group its images are rotated
    within it.

    That the question's true answer for the other image differs is not arranged: a chosen wrong image would
    push a model that does look below chance, and what is wanted is what chance and priors alone give.

    Args:
        groups: [N] group of each question.
        images: [N] image references of each question, at least one each.
        seed: Seed of the cycle.

    Returns:
        [N] lists of references as long as the given ones, or None when there is no other image to show.
    """
    if len({ref for refs in images for ref in refs}) < 2:
        return None
    shown: dict[str, list[tuple[str, ...]]] = {}
    for group, refs in zip(groups, images, strict=True):
        pictures = shown.setdefault(group, [])
        if tuple(refs) not in pictures:
            pictures.append(tuple(refs))
    rng = np.random.Generator(np.random.PCG64(seed))
    best: list[list[str]] | None = None
    fewest = len(groups) + 1
    for _ in range(TRIES):
        dealt = _deal(groups, images, shown, rng)
        same = sum(list(refs) == new for refs, new in zip(images, dealt, strict=True))
        if same < fewest:
            best, fewest = dealt, same
        if not fewest or len(shown) == 1:
            break
    return best


def _deal(
    groups: Sequence[str],
    images: Sequence[Sequence[str]],
    shown: dict[str, list[tuple[str, ...]]],
    rng: np.random.Generator,
) -> list[list[str]]:
    names = list(shown)
    cycle = [names[index] for index in rng.permutation(len(names))]
    following = dict(zip(cycle, cycle[1:] + cycle[:1], strict=True))
    shift = 1 if len(names) == 1 else 0
    dealt = []
    for group, refs in zip(groups, images, strict=True):
        donors = shown[following[group]]
        donor = donors[(shown[group].index(tuple(refs)) + shift) % len(donors)]
        dealt.append([donor[place % len(donor)] for place in range(len(refs))])
    return dealt
