"""What a mask marks in a volume: where each label lies, how large it is, and its box on every slice that is shown."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from medkit.readers.volumes import ACROSS, SHOWN_AS, sides_of, slice_of


@dataclass(frozen=True)
class Finding:
    """What a mask marks under one label.

    Attributes:
        label: Its name.
        value: Its number in the mask.
        first, last, most: Slices from 0 along the plane: the ends, and the slice with most of it.
        volume_ml: Its size.
    """

    label: str
    value: int
    first: int
    last: int
    most: int
    volume_ml: float


def findings_of(
    mask: np.ndarray, plane: str, spacing_mm: tuple[float, float, float], labels: dict[int, str] | None
) -> list[Finding]:
    """Gives what a mask [X,Y,Z] of whole numbers marks, 0 being nothing; in the order of its values.

    Args:
        mask: Whole numbers of at least 0.
        plane: Of the slices.
        spacing_mm: Along the mask's axes.
        labels: Number -> name; numbers that it lacks are left out. None: every number is a label.
    """
    # Slice by slice: counting a whole mask at once takes eight bytes a value.
    slices = (part.astype(np.int64).ravel() for part in np.moveaxis(mask, 2, 0))
    values = sorted({int(value) for part in slices for value in np.flatnonzero(np.bincount(part))})
    voxel_ml = float(np.prod(spacing_mm)) / 1000.0
    found = []
    for value in values:
        if value == 0 or (labels is not None and value not in labels):
            continue
        marked = (mask == value).sum(axis=tuple(axis for axis in range(3) if axis != ACROSS[plane]))
        places = np.flatnonzero(marked)
        name = labels[value] if labels is not None else str(value)
        size = round(float(marked.sum()) * voxel_ml, 3)
        found.append(Finding(name, value, int(places[0]), int(places[-1]), int(marked.argmax()), size))
    return found


def extent_of(findings: list[Finding]) -> tuple[int, int] | None:
    """Gives the first and last slice with a finding, None where there is none."""
    if not findings:
        return None
    return min(one.first for one in findings), max(one.last for one in findings)


def finding_facts(
    findings: list[Finding],
    mask: np.ndarray,
    shown: list[int],
    plane: str,
    spacing_mm: tuple[float, float, float],
    code: str = SHOWN_AS,
) -> dict[str, Any]:
    """Gives the facts of a volume's findings.

    Args:
        findings: Of ``findings_of``.
        mask: Their mask, [X,Y,Z].
        shown: Slices from 0 that are shown.
        plane: Of the slices.
        spacing_mm: Along the mask's axes.
        code: Where these axes run to, see ``slice_of``.

    Returns:
        ``findings``: a row a label with ``label``, ``slices`` (first and last, from 1), ``largest`` (the slice with
        most of it), ``volume_ml`` and ``shown``: for every shown slice that has it ``slice``, ``box`` (left, top,
        right, bottom in 0..1 of the picture) and ``area_mm2``. ``slice_labels``: the labels on each shown slice.
        ``objects``: the boxes, where one slice alone is shown.
    """
    rows, on_slices = [], {index: [] for index in shown}
    row_mm, column_mm = sides_of(plane, spacing_mm)
    pictures = {index: slice_of(mask, plane, index, code) for index in shown}
    objects = []
    for one in findings:
        places = []
        for index in shown:
            box, count = _box(pictures[index] == one.value)
            if box is None:
                continue
            on_slices[index].append(one.label)
            places.append({"slice": index + 1, "box": box, "area_mm2": round(count * row_mm * column_mm, 2)})
            objects.append({"label": one.label, "box": box, "attributes": {}})
        rows.append(
            {
                "label": one.label,
                "slices": [one.first + 1, one.last + 1],
                "largest": one.most + 1,
                "volume_ml": one.volume_ml,
                "shown": places,
            }
        )
    facts: dict[str, Any] = {"findings": rows, "slice_labels": [on_slices[index] for index in shown]}
    if len(shown) == 1:
        facts["objects"] = objects
    return facts


def _box(marked: np.ndarray) -> tuple[list[float] | None, int]:
    rows, columns = np.flatnonzero(marked.any(axis=1)), np.flatnonzero(marked.any(axis=0))
    if rows.size == 0:
        return None, 0
    height, width = marked.shape
    edges = (columns[0] / width, rows[0] / height, (columns[-1] + 1) / width, (rows[-1] + 1) / height)
    return [round(float(edge), 4) for edge in edges], int(marked.sum())
