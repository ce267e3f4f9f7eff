"""Batches as a pure function of (seed, epoch): a resumed run sees the same data in the same order."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

POOL_BATCHES = 40  # batches whose samples are sorted by length together: little padding, still well mixed
SIDED = re.compile(r"\b(left|right)")


def epoch_batches(lengths: np.ndarray, batch: int, seed: int, epoch: int) -> list[np.ndarray]:
    """Deals all samples into batches of alike length.

    Args:
        lengths: int [N], tokens of every sample.
        batch: Samples a batch; the last may be smaller.
        seed: Of the run.
        epoch: 0-based.

    Returns:
        Index arrays; together a permutation of ``range(N)``.
    """
    rng = np.random.Generator(np.random.PCG64([seed, epoch]))
    order = rng.permutation(len(lengths))
    batches: list[np.ndarray] = []
    for start in range(0, len(order), batch * POOL_BATCHES):
        pool = order[start : start + batch * POOL_BATCHES]
        pool = pool[np.argsort(lengths[pool], kind="stable")]
        batches += [pool[at : at + batch] for at in range(0, len(pool), batch)]
    return [batches[index] for index in rng.permutation(len(batches))]


def batch_at(
    lengths: np.ndarray, batch: int, seed: int, steps: range
) -> Iterator[tuple[int, int, np.ndarray]]:
    """Walks over (step, epoch, indices) for a range of optimiser steps, across epochs."""
    per_epoch = -(-len(lengths) // batch)
    planned, current = -1, []
    for step in steps:
        epoch = step // per_epoch
        if epoch != planned:
            planned, current = epoch, epoch_batches(lengths, batch, seed, epoch)
        yield step, epoch, current[step % per_epoch]


def prefetch(items: Iterator[Any], make: Callable[[Any], Any], depth: int = 2) -> Iterator[Any]:
    """Makes the next batches on a thread while the current one is trained on."""
    with ThreadPoolExecutor(1) as pool:
        waiting = []
        for item in items:
            waiting.append(pool.submit(make, item))
            if len(waiting) > depth:
                yield waiting.pop(0).result()
        while waiting:
            yield waiting.pop(0).result()


@dataclass(frozen=True)
class Move:
    """A small change of a picture's geometry: mirrored, then scaled about its middle and moved.

    Attributes:
        flip: Left and right are swapped.
        scale: What the picture shows of the original: 1.05 is a little more, smaller.
        dx, dy: How far the window moves, in shares of width and height.
    """

    flip: bool = False
    scale: float = 1.0
    dx: float = 0.0
    dy: float = 0.0

    def box(self, box: list[float]) -> list[float]:
        """Gives where a box (x0, y0, x1, y1 in 0..1) comes to lie, cut at the edges."""
        x0, y0, x1, y1 = box
        if self.flip:
            x0, x1 = 1 - x1, 1 - x0
        middle = (1 - self.scale) / 2
        moved = [(edge - move - middle) / self.scale
                 for edge, move in ((x0, self.dx), (y0, self.dy), (x1, self.dx), (y1, self.dy))]  # fmt: skip
        return [min(1.0, max(0.0, edge)) for edge in moved]


def draw_move(kinds: list[str], rng: np.random.Generator, text: str = "") -> Move:
    """Draws the geometry of a varied picture.

    Args:
        kinds: Of ``flip`` (never when the text speaks of left or right) and ``shift`` (moved and scaled by up
            to a twelfth).
        rng: Of this sample in this epoch.
        text: The conversation, lower case.
    """
    flip = "flip" in kinds and bool(rng.random() < 0.5) and not SIDED.search(text)
    if "shift" not in kinds:
        return Move(flip)
    scale = float(rng.uniform(0.92, 1.08))
    dx, dy = (float(value) for value in rng.uniform(-1 / 12, 1 / 12, 2))
    return Move(flip, scale, dx, dy)


def augment_image(
    image: Image.Image, kinds: list[str], rng: np.random.Generator, text: str = ""
) -> Image.Image:
    """Varies a training picture.

    Args:
        image: RGB.
        kinds: Of ``flip`` and ``shift`` (see ``draw_move``) and ``colour`` (brightness, contrast, saturation by
            up to a fifth).
        rng: Of this sample in this epoch.
        text: The conversation, lower case.
    """
    move = draw_move(kinds, rng, text)
    if move.flip:
        image = ImageOps.mirror(image)
    if "shift" in kinds:
        image = _shift(image, move)
    if "colour" in kinds:
        for enhancer in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
            image = enhancer(image).enhance(float(rng.uniform(0.8, 1.2)))
    return image


def _shift(image: Image.Image, move: Move) -> Image.Image:
    width, height = image.size
    scale, middle = move.scale, (1 - move.scale) / 2
    matrix = (scale, 0, width * (move.dx + middle), 0, scale, height * (move.dy + middle))
    ground = image.getpixel((0, 0))
    return image.transform(
        image.size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR, fillcolor=ground
    )
