"""Boxes that somebody drew on slides: a table with a row a box, in px of level 0."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from medkit.errors import DataError
from medkit.readers import Rejected, inside
from medkit.readers.case_table import USUAL_KEYS
from medkit.readers.slides.grid import Place
from medkit.readers.table import table_rows

COLUMNS = ("label", "x", "y", "width", "height")
# A box counts for a tile that holds this share of it, or that it covers by this share.
LEAST_SHARE = 0.25

Box = tuple[str, float, float, float, float]


class SlideBoxes:
    """The boxes of a source, by the name of their slide.

    The table has a column with the slide's name and the columns label, x, y, width, height.

    Raises:
        DataError: The table or one of its columns is missing.
    """

    def __init__(self, root: Path, given: str | None):
        self._boxes: dict[str, list[tuple[str, Box]]] = defaultdict(list)
        self._faults: list[Rejected] = []
        self._used: set[str] = set()
        self.path: Path | None = None
        if given is None:
            return
        self.path = inside(root, str(given))
        if self.path is None or not self.path.is_file():
            raise DataError(f"reader slides: there is no table of boxes {given} below the data folder")
        key = ""
        for number, row in table_rows(self.path):
            place = f"{self.path.name}:{number}"
            if isinstance(row, str):
                self._faults.append(Rejected(place, "row unreadable", row))
                continue
            key = key or _key(self.path, row)
            name, box = str(row.get(key) or "").strip(), _box(row)
            if not name or box is None:
                self._faults.append(Rejected(place, "row unreadable", "no slide, no label or no box"))
            else:
                self._boxes[name].append((place, box))

    def of(self, path: Path, root: Path) -> list[Box]:
        """Gives a slide's boxes as (label, left, top, right, bottom)."""
        relative = path.relative_to(root)
        for name in (relative.as_posix(), relative.with_suffix("").as_posix(), path.name, path.stem):
            if name in self._boxes:
                self._used.add(name)
                return [box for _, box in self._boxes[name]]
        return []

    def faults(self) -> Iterator[Rejected]:
        """Gives the rows that can't be used; after all slides."""
        yield from self._faults
        for name, rows in self._boxes.items():
            if name not in self._used:
                for place, _ in rows:
                    yield Rejected(place, "slide missing", "no file has the name in this row")


def objects_of(boxes: list[Box], place: Place) -> list[dict[str, Any]]:
    """Gives the boxes that lie in a tile as ``facts["objects"]``, cut at its edges."""
    found = []
    for label, left, top, right, bottom in boxes:
        cut = (
            max(left, place.x),
            max(top, place.y),
            min(right, place.x + place.side),
            min(bottom, place.y + place.side),
        )
        if cut[0] >= cut[2] or cut[1] >= cut[3]:
            continue
        area = (cut[2] - cut[0]) * (cut[3] - cut[1])
        if area < LEAST_SHARE * min((right - left) * (bottom - top), float(place.side) ** 2):
            continue
        box = [
            (cut[0] - place.x) / place.side,
            (cut[1] - place.y) / place.side,
            (cut[2] - place.x) / place.side,
            (cut[3] - place.y) / place.side,
        ]
        found.append({"label": label, "box": [round(one, 5) for one in box], "attributes": {}})
    return found


def _key(path: Path, row: dict[str, Any]) -> str:
    missing = [name for name in COLUMNS if name not in row]
    key = next((name for name in USUAL_KEYS if name in row), None)
    if missing or key is None:
        wanted = ", ".join(["slide", *COLUMNS])
        raise DataError(f"reader slides: {path.name} needs the columns {wanted}; it has {', '.join(row)}")
    return key


def _box(row: dict[str, Any]) -> Box | None:
    try:
        left, top, width, height = (float(row[name]) for name in COLUMNS[1:])
    except (TypeError, ValueError):
        return None
    label = str(row["label"] or "").strip()
    if not label or not all(map(math.isfinite, (left, top, width, height))) or width <= 0 or height <= 0:
        return None
    return label, left, top, left + width, top + height
