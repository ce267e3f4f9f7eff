"""Structured truth beside pictures: numbers in a table's cells, masks of COCO and of files.

Mask files are decoded in a worker process (``medkit.readers.worker``), as pictures are.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import numpy as np

from medkit import images as pictures
from medkit.errors import DataError
from medkit.readers import worker
from medkit.readers.refusal import Refusal, within_one_file

TASK = f"{__name__}:work"
MOST_POINTS = 500
MOST_MASK_PX = 1 << 26
# A lossy mask has greys around its edges and specks in its ground.
LOSSY_SUFFIXES, LOSSY_LEVEL = (".jpg", ".jpeg", ".webp"), 127
Note = tuple[str, str]
Corners = list[Any]

_NUMBER = re.compile(r"\s*([+-]?\d+(?:[.,]\d+)?(?:[eE][+-]?\d+)?)\s*")


class Refused(Refusal):
    """A mask file that can't be read."""

    reasons = {
        "image unreadable": "The file is missing, too large, broken, or no picture.",
        **worker.REASONS,
        "unforeseen fault": "Something in the file that medkit didn't foresee; the detail names the kind of error.",
    }


def measured(row: dict[str, Any], wanted: dict[str, str]) -> tuple[dict[str, float], list[Note]]:
    """Gives the numbers of a row.

    Args:
        row: Column -> cell.
        wanted: Name of the measurement, with its unit ("diameter_mm") -> column.

    Returns:
        ({name: number}, what the ledger should tell). An empty cell is no measurement.
    """
    found: dict[str, float] = {}
    notes: list[Note] = []
    for name, column in wanted.items():
        cell = row.get(column)
        if cell is None or not str(cell).strip():
            continue
        match = _NUMBER.fullmatch(str(cell)) if not isinstance(cell, bool) else None
        number = float(match[1].replace(",", ".")) if match else math.nan
        if math.isfinite(number):
            found[name] = number
        else:
            notes.append(("measurement unreadable", f"{name}: the cell is no number"))
    return found, notes


def check_measurements(given: Any, who: str) -> dict[str, str]:
    """Gives the card's measurements as name -> column.

    Raises:
        DataError: They are neither a list of columns nor a mapping of names to columns.
    """
    if isinstance(given, list | tuple) and all(isinstance(one, str) for one in given):
        return {name: name for name in given}
    if isinstance(given, dict) and all(isinstance(one, str) for pair in given.items() for one in pair):
        return dict(given)
    raise DataError(
        f"reader {who}: measurements is a list of columns, or a mapping of names with units to columns"
    )


def mask_object(path: Path, label: str) -> dict[str, Any] | None:
    """Gives what a mask file marks as an object with its box and its area; None where it marks nothing.

    Raises:
        DataError: The file can't be read, or its decoder crashed or was too slow.
    """
    answer = worker.shared(TASK).ask({"path": str(path.absolute())}, Refused, worker.Bounds())
    found = answer.head.get("found")
    return {"label": label, "box": found["box"], "attributes": {}, "mask": found["mask"]} if found else None


def work(order: dict[str, Any], _: bytes) -> tuple[dict[str, Any], list[np.ndarray]]:
    """Does an order of ``mask_object``."""
    with within_one_file(Refused, Refused("image unreadable", "it needs more memory than the limit")):
        try:
            return {"found": _marked(Path(order["path"]))}, []
        except DataError as error:
            raise Refused("image unreadable", str(error)) from None


def _marked(path: Path) -> dict[str, Any] | None:
    image = pictures.decode(pictures.read_limited(path)).image
    level = LOSSY_LEVEL if path.suffix.lower() in LOSSY_SUFFIXES else 0
    marked = np.any(np.asarray(image) > level, axis=2)  # [H, W]
    corners = _corners(marked)
    if corners is None:
        return None
    height, width = marked.shape[:2]
    box = [round(edge / side, 6) for edge, side in zip(corners, (width, height) * 2, strict=True)]
    return {"box": box, "mask": {"area": round(float(marked.mean()), 6)}}


def coco_mask(given: Any, size: tuple[float, float]) -> tuple[dict[str, Any] | None, Corners | None, str]:
    """Reads a COCO annotation's ``segmentation``.

    Args:
        given: Polygons (flat lists of x, y in px) or run lengths ({size, counts}, counts as a list or packed text).
        size: (width, height) of the annotated picture in px.

    Returns:
        (mask, its box in px, fault). A mask holds ``area``, the share of the picture that it covers, and its
        ``polygons`` in 0..1 or ``rle`` as given, unless those are very long. A fault is for the ledger.
    """
    if isinstance(given, list) and given:
        return _polygons(given, size)
    if isinstance(given, dict) and given:
        return _run_lengths(given)
    return None, None, ""


def _polygons(
    given: list[Any], size: tuple[float, float]
) -> tuple[dict[str, Any] | None, Corners | None, str]:
    width, height = size
    shapes = []
    for one in given:
        try:
            points = np.asarray(one, dtype=np.float64)
        except (TypeError, ValueError):
            return None, None, "a polygon isn't numbers"
        if points.ndim != 1 or points.size < 6 or points.size % 2 or not np.isfinite(points).all():
            return None, None, "a polygon has fewer than three points or half a point"
        shapes.append(points.reshape(-1, 2))
    x = np.concatenate([shape[:, 0] for shape in shapes])
    y = np.concatenate([shape[:, 1] for shape in shapes])
    area = sum(
        abs(float(np.dot(s[:, 0], np.roll(s[:, 1], -1)) - np.dot(s[:, 1], np.roll(s[:, 0], -1)))) / 2
        for s in shapes
    )
    mask: dict[str, Any] = {"area": round(min(area / (width * height), 1.0), 6)}
    box = [float(x.min()), float(y.min()), float(x.max()), float(y.max())]
    if x.size > MOST_POINTS:
        return mask, box, f"{x.size} points: kept as its area"
    scale = np.array([width, height])
    mask["polygons"] = [np.clip(shape / scale, 0, 1).round(5).ravel().tolist() for shape in shapes]
    return mask, box, ""


def _run_lengths(given: dict[str, Any]) -> tuple[dict[str, Any] | None, Corners | None, str]:
    size, counts = given.get("size"), given.get("counts")
    if not (isinstance(size, list) and len(size) == 2 and all(type(one) is int and one > 0 for one in size)):
        return None, None, "run lengths without a size"
    height, width = size
    if height * width > MOST_MASK_PX:
        return None, None, "more pixels than the limit"
    try:
        runs = np.array(_unpacked(counts) if isinstance(counts, str) else counts, dtype=np.int64)
    except (TypeError, ValueError, IndexError, OverflowError):
        return None, None, "run lengths aren't numbers"
    if runs.ndim != 1 or not runs.size or runs.min() < 0 or int(runs.sum()) != height * width:
        return None, None, "run lengths don't fill the size"
    marked = np.repeat(np.arange(runs.size) % 2 == 1, runs).reshape(width, height).T  # columns come first
    mask: dict[str, Any] = {"area": round(float(marked.mean()), 6)}
    corners = _corners(marked)
    if runs.size > MOST_POINTS:
        return mask, corners, f"{runs.size} runs: kept as its area"
    mask["rle"] = {"size": size, "counts": counts}
    return mask, corners, ""


def _unpacked(text: str) -> list[int]:
    """Unpacks COCO's text of run lengths: five bits a sign from "0" on, each run from the third on as a difference."""
    runs: list[int] = []
    place = 0
    while place < len(text):
        value, shift, more = 0, 0, True
        while more:
            sign = ord(text[place]) - 48
            if not 0 <= sign < 64:
                raise ValueError("not a packed run length")
            value |= (sign & 31) << shift
            shift, place, more = shift + 5, place + 1, bool(sign & 32)
            if not more and sign & 16:
                value -= 1 << shift
        runs.append(value + runs[-2] if len(runs) > 2 else value)
    return runs


def _corners(marked: np.ndarray) -> Corners | None:
    """Gives [left, top, right, bottom] in px of what a mask [H,W] marks, right and bottom exclusive."""
    rows, columns = np.flatnonzero(marked.any(axis=1)), np.flatnonzero(marked.any(axis=0))
    if not rows.size:
        return None
    return [int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1]
