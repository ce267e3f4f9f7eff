"""From a volume to pictures: which slices are shown, as several pictures or as one montage, and what they are called.

Shared by the readers of DICOM series and NIfTI volumes, so that both mean the same by ``slices``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from medkit.errors import DataError

SHOWS = ("uniform", "finding", "montage")
KEYS = ("most", "show", "tile", "margin")
SQUARE_WITHIN = 0.01
DIRECTIONS = {
    "axial": "from the feet to the head",
    "coronal": "from front to back",
    "sagittal": "from right to left",
}
BACKWARDS = {
    "axial": "from the head to the feet",
    "coronal": "from back to front",
    "sagittal": "from left to right",
}


@dataclass(frozen=True)
class SlicePlan:
    """What a card's option ``slices`` says.

    Attributes:
        most: Most slices of a volume.
        show: "uniform" (evenly from first to last), "finding" (evenly over the slices that a mask or box marks) or
            "montage" (evenly, in one picture).
        tile: Longest side of a montage's tile in px.
        margin: Share of the finding's height that is shown beyond it at both ends.
    """

    most: int = 16
    show: str = "uniform"
    tile: int = 224
    margin: float = 0.1


def read_plan(reader: str, given: Any, shows: tuple[str, ...] = SHOWS) -> SlicePlan:
    """Reads a number of slices, or a mapping of ``SlicePlan``'s attributes.

    Raises:
        DataError: A key or value of it makes no sense.
    """
    row = {"most": given} if not isinstance(given, dict) else given
    unknown = sorted(set(map(str, row)) - set(KEYS))
    if unknown:
        raise DataError(
            f"reader {reader}: slices has no key {', '.join(unknown)}; its keys: {', '.join(KEYS)}"
        )
    plan = SlicePlan(**{"most": 16, **row})
    for name in ("most", "tile"):
        number = getattr(plan, name)
        if not isinstance(number, int) or isinstance(number, bool) or number < 1:
            what = "slices" if name == "most" else "slices.tile"
            raise DataError(f"reader {reader}: {what} {number!r} is no whole number of at least 1")
    if plan.show not in shows:
        raise DataError(f"reader {reader}: slices.show {plan.show!r} is none of {', '.join(shows)}")
    if (
        isinstance(plan.margin, bool)
        or not isinstance(plan.margin, int | float)
        or not 0 <= plan.margin <= 10
    ):
        raise DataError(f"reader {reader}: slices.margin {plan.margin!r} is no share from 0 to 10")
    return plan


def choose(count: int, plan: SlicePlan, finding: tuple[int, int] | None = None) -> list[int]:
    """Gives the numbers from 0 of the slices that are shown, in order.

    Args:
        count: How many slices the volume has.
        plan: How many are wanted, and which.
        finding: First and last slice of the finding, both inside; None: there is none, and the choice is even.
    """
    if plan.show != "finding" or finding is None:
        return choose_slices(count, plan.most)
    first, last = finding
    beyond = math.ceil(plan.margin * (last - first + 1))
    first, last = max(first - beyond, 0), min(last + beyond, count - 1)
    return [first + index for index in choose_slices(last - first + 1, plan.most)]


def choose_slices(count: int, most: int) -> list[int]:
    """Gives at most ``most`` slice numbers from 0, evenly from the first to the last."""
    if count <= most:
        return list(range(count))
    if most == 1:
        return [count // 2]
    return [round(index * (count - 1) / (most - 1)) for index in range(most)]


def say(shown: list[int], count: int, plane: str, montage: bool = False, backwards: bool = False) -> str:
    """Gives the sentence that tells a model which slices it sees: "Axial slices 1, 20 and 40 of 40, ..."."""
    numbers = [str(index + 1) for index in shown]
    listed = " and ".join([", ".join(numbers[:-1]), numbers[-1]] if len(numbers) > 1 else numbers)
    noun = f"{plane} slice{'s' if len(numbers) > 1 else ''}".strip()
    order = (BACKWARDS if backwards else DIRECTIONS).get(plane, "") if len(numbers) > 1 else ""
    sentence = f"{noun} {listed} of {count}" + (f", {order}" if order else "") + "."
    if montage:
        return f"One picture of {sentence[:-1]}, row by row."
    return sentence[0].upper() + sentence[1:]


def montage(pictures: list[np.ndarray], tile: int) -> np.ndarray:
    """Lays pictures row by row on black, each at most ``tile`` px a side.

    Args:
        pictures: uint8 [H,W] or [H,W,3], all of one shape.
        tile: Longest side of a picture in the montage; smaller ones stay as they are.

    Returns:
        uint8 [rows*h, columns*w] or [rows*h, columns*w, 3], columns = ceil(sqrt(count)).
    """
    height, width = pictures[0].shape[:2]
    share = min(1.0, tile / max(height, width))
    size = (max(1, round(width * share)), max(1, round(height * share)))
    columns = math.ceil(math.sqrt(len(pictures)))
    rows = math.ceil(len(pictures) / columns)
    out = np.zeros((rows * size[1], columns * size[0], *pictures[0].shape[2:]), np.uint8)
    for index, picture in enumerate(pictures):
        small = np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BOX))
        top, left = index // columns * size[1], index % columns * size[0]
        out[top : top + size[1], left : left + size[0]] = small
    return out


def square(picture: np.ndarray, row_mm: float, column_mm: float) -> np.ndarray:
    """Stretches the coarser axis of uint8 [H,W] or [H,W,3] until pixels are square.

    Args:
        picture: The picture.
        row_mm: Distance between rows.
        column_mm: Distance between columns.
    """
    ratio = row_mm / column_mm
    if abs(ratio - 1.0) <= SQUARE_WITHIN:
        return picture
    height, width = picture.shape[:2]
    size = (width, round(height * ratio)) if ratio > 1 else (round(width / ratio), height)
    return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BILINEAR))


def shrink(picture: np.ndarray, side: int | None) -> np.ndarray:
    """Shrinks uint8 [H,W] or [H,W,3] until its shorter side is ``side`` px; smaller ones and None change nothing."""
    height, width = picture.shape[:2]
    if side is None or min(height, width) <= side:
        return picture
    share = side / min(height, width)
    size = (max(1, round(width * share)), max(1, round(height * share)))
    return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BICUBIC))


def read_side(reader: str, given: Any) -> int | None:
    """Reads a card's option ``side_px``.

    Raises:
        DataError: It is no whole number from 16 to 16384.
    """
    whole = isinstance(given, int) and not isinstance(given, bool)
    if given is not None and not (whole and 16 <= given <= 16_384):
        raise DataError(f"reader {reader}: side_px {given!r} is no whole number from 16 to 16384")
    return given
