"""Boxes in tables: a row a box, as the sets of competitions have them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from medkit.errors import DataError
from medkit.readers import Rejected, split_in
from medkit.readers.table import find_tables, table_rows

Corners = list[Any]

# Column names of box tables that are taken when the card names none; the first that is there.
USUAL = {
    "image": ("image", "image_id", "filename", "file_name", "file", "path", "image_path", "patientId"),
    "label": ("label", "class", "class_name", "category", "name", "finding"),
    "left": ("left", "xmin", "x_min", "x0", "x1", "x"),
    "top": ("top", "ymin", "y_min", "y0", "y1", "y"),
    "right": ("right", "xmax", "x_max", "x2"),
    "bottom": ("bottom", "ymax", "y_max", "y2"),
    "width": ("width", "w"),
    "height": ("height", "h"),
}


def box_rows(
    root: Path, files: list[Path], options: dict[str, Any]
) -> Iterator[Rejected | tuple[str, Path | None, str | None, list[tuple[str, Corners]]]]:
    """Reads tables with a row a box.

    A row whose four places are empty says that its picture has no box.

    Yields:
        (name of the picture, its file or None, split, [(label, [left, top, right, bottom] as written)]), and what
        can't be read.

    Raises:
        DataError: There is no table, or it lacks a column.
    """
    by_name = {path.name: path for path in files} | {path.stem: path for path in reversed(files)}
    tables = find_tables(root, options.get("files") or "*.csv")
    if not tables:
        raise DataError(f"{root} holds no table that matches {options.get('files') or '*.csv'}")
    for path, split in tables:
        columns: dict[str, str] | None = None
        found: dict[str, list[tuple[str, Corners]]] = {}
        for number, row in table_rows(path):
            if isinstance(row, str):
                yield Rejected(f"{path.name}:{number}", "row unreadable", row)
                continue
            if columns is None:
                columns = _box_columns(path, row, options.get("columns") or {})
            name = str(row.get(columns["image"]) or "").strip()
            boxes = found.setdefault(name, [])
            corners = _row_corners(row, columns)
            if any(str(corner or "").strip() for corner in corners):
                boxes.append((str(row.get(columns.get("label", "")) or "").strip(), corners))
        for name, boxes in found.items():
            file = by_name.get(Path(name).name) if name else None
            yield name, file, split or split_in(path.stem, options.get("splits", ())), boxes


def _box_columns(path: Path, row: dict[str, Any], named: dict[str, str]) -> dict[str, str]:
    columns: dict[str, str] = {}
    for role, usual in USUAL.items():
        if role in named:
            if named[role] not in row:
                raise DataError(
                    f"{path.name} has no column {named[role]!r} ({role}); it has {', '.join(row)}"
                )
            columns[role] = named[role]
        else:
            found = next((name for name in usual if name in row and name not in columns.values()), None)
            columns |= {role: found} if found else {}
    unknown = sorted(set(named) - set(USUAL))
    if unknown:
        raise DataError(f"reader boxes: columns has no {', '.join(unknown)}; it has {', '.join(USUAL)}")
    ends = {"right", "bottom"} <= set(columns) or {"width", "height"} <= set(columns)
    if not {"image", "left", "top"} <= set(columns) or not ends:
        raise DataError(
            f"{path.name} has no columns for image, left, top and right, bottom (or width, height); name them "
            f"with the option columns (it has {', '.join(row)})"
        )
    return columns


def _row_corners(row: dict[str, Any], columns: dict[str, str]) -> Corners:
    left, top = row.get(columns["left"]), row.get(columns["top"])
    # With corners given, width and height are the picture's.
    if {"right", "bottom"} <= set(columns):
        return [left, top, row.get(columns["right"]), row.get(columns["bottom"])]
    ends = []
    for start, role in ((left, "width"), (top, "height")):
        try:
            ends.append(float(start or "") + float(row.get(columns[role]) or ""))
        except ValueError:
            ends.append(None if not str(start or "").strip() else row.get(columns[role]))
    return [left, top, *ends]
