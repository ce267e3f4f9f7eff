"""Site masks as people write them: which regions of which device's pictures hold burned-in text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from medkit.errors import DataError
from medkit.privacy.profile import Box, Mask

NUMBERS, WORDS = ("rows", "columns"), ("manufacturer", "model", "station")
MOST_SIDE = 1 << 16


def read_masks(given: Any, who: str) -> tuple[Mask, ...]:
    """Gives the masks of a card's list.

    Args:
        given: A list of mappings: ``rows`` and ``columns`` of the picture in px, ``boxes`` as [left, top, right,
            bottom] lists (right and bottom exclusive), and any of ``manufacturer``, ``model`` and ``station`` as the
            header has them. None: no masks.
        who: Who asks, for messages.

    Raises:
        DataError: An entry says something else, or a box lies outside of its picture.
    """
    if given is None:
        return ()
    if not isinstance(given, list):
        raise DataError(f"{who}: masks must be a list of mappings with rows, columns and boxes")
    return tuple(_mask(one, f"{who}: masks[{number}]") for number, one in enumerate(given))


def masks_of_file(path: Path) -> tuple[Mask, ...]:
    """Gives the masks of a YAML file that holds a list of them, or a mapping with ``masks``.

    Raises:
        DataError: The file is missing or holds something else.
    """
    try:
        given = yaml.safe_load(path.expanduser().read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise DataError(f"{path} holds no masks ({type(error).__name__})") from None
    return read_masks(given.get("masks") if isinstance(given, dict) else given, path.name)


def _mask(given: Any, where: str) -> Mask:
    if not isinstance(given, dict):
        raise DataError(f"{where} is no mapping with rows, columns and boxes")
    unknown = sorted(str(key) for key in given if key not in (*NUMBERS, *WORDS, "boxes"))
    if unknown:
        raise DataError(
            f"{where} has no key {', '.join(unknown)}; keys: rows, columns, boxes, {', '.join(WORDS)}"
        )
    for key in NUMBERS:
        if not _is_count(given.get(key)) or not 1 <= given[key] <= MOST_SIDE:
            raise DataError(f"{where}: {key} must be the picture's number of {key} in px")
    for key in WORDS:
        if not isinstance(given.get(key, ""), str):
            raise DataError(f"{where}: {key} must be text as in the header")
    rows, columns, boxes = given["rows"], given["columns"], given.get("boxes")
    if not isinstance(boxes, list) or not boxes:
        raise DataError(f"{where}: boxes must be a list of [left, top, right, bottom] in px")
    placed = tuple(_box(one, rows, columns, where) for one in boxes)
    return Mask(rows, columns, placed, **{key: given.get(key, "").strip() for key in WORDS})


def _box(given: Any, rows: int, columns: int, where: str) -> Box:
    if isinstance(given, list) and len(given) == 4 and all(_is_count(one) for one in given):
        left, top, right, bottom = given
        if 0 <= left < right <= columns and 0 <= top < bottom <= rows:
            return left, top, right, bottom
    raise DataError(f"{where}: a box must be [left, top, right, bottom] within {columns} x {rows} px")


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
