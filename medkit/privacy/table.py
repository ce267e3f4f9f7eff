"""The Basic Application Level Confidentiality Profile as data: PS3.15 Annex E, Table E.1-1, by version.

The table grows by some fifteen attributes a year; what it doesn't know is not kept (see ``decide``). Actions:
X remove, Z empty, D a dummy, U another UID; two or three of them where the type of the attribute decides.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from pathlib import Path

VERSION = "2026c"
ACTIONS = ("X", "Z", "D", "U", "X/Z", "X/D", "X/Z/D", "Z/D", "X/Z/U*")


@dataclass(frozen=True)
class Row:
    """One attribute of the table.

    Attributes:
        tag: 8 hexadecimal digits, with ``x`` for the repeating ones.
        action: One of ``ACTIONS``.
        vr: Value representation, "" where no dictionary of this version has it.
        name: As in the standard.
    """

    tag: str
    action: str
    vr: str
    name: str


@cache
def table(version: str = VERSION) -> dict[str, Row]:
    """Gives the table's rows by tag.

    Source: PS3.15 Annex E, Table E.1-1, Basic Profile column.
    """
    path = Path(__file__).with_name(f"annex_e_{version}.csv")
    with path.open(encoding="utf-8", newline="") as lines:
        return {row["tag"]: Row(**row) for row in csv.DictReader(lines)}


@cache
def _by_number(version: str) -> dict[int, Row]:
    return {int(tag, 16): row for tag, row in table(version).items() if "x" not in tag}


def row_of(tag: int, version: str = VERSION) -> Row | None:
    """Gives the row of a tag, repeating groups included; None where the table has none."""
    row = _by_number(version).get(tag)
    if row is not None:
        return row
    group, element = tag >> 16, tag & 0xFFFF
    if group >> 8 == 0x50 and not group & 1:
        return table(version)["50xxxxxx"]
    if group >> 8 == 0x60 and not group & 1:
        return table(version).get(f"60xx{element:04X}")
    return None
