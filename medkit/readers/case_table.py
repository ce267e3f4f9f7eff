"""What a table says of files: labels, patient, split and caption, a row a file.

Shared by readers whose files can't hold such words themselves (slides, videos). A row that fits no file and a file
that no row names are both told; nothing is guessed from a name.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medkit.errors import DataError
from medkit.privacy.text import clean
from medkit.readers import Rejected, check_kinds, inside
from medkit.readers.table import table_rows

OPTIONS = ("table", "key", "labels", "unknown", "group", "split", "caption")
USUAL_KEYS = ("slide_id", "slide", "file_name", "filename", "file", "video", "id", "name", "path")


@dataclass(frozen=True)
class Case:
    """What a row says; ``group`` as written, to be hashed by the reader."""

    labels: dict[str, str] = field(default_factory=dict)
    group: str = ""
    split: str | None = None
    caption: str | None = None
    notes: tuple[tuple[str, str], ...] = ()


class CaseTable:
    """The rows of a table, by the name of their file.

    Options, all of them a card's:
        table: The CSV, TSV, JSON or JSON Lines file below the root.
        key: Column with the file's name (with or without suffix or folder); the usual names are found.
        labels: List of columns that hold labels.
        unknown: List of values that are no label.
        group, split, caption: Columns.

    Raises:
        DataError: The table or a named column is missing, or an option needs a table that isn't named.
    """

    def __init__(self, reader: str, root: Path, options: dict[str, Any]):
        self._rows: dict[str, tuple[str, Case]] = {}
        self._faults: list[Rejected] = []
        self._used: set[str] = set()
        self.path: Path | None = None
        check_kinds(reader, options, ("table", "key", "group", "split", "caption"), ("labels", "unknown"))
        given = options.get("table")
        if given is None:
            idle = [name for name in OPTIONS if name in options]
            if idle:
                raise DataError(f"reader {reader}: {', '.join(idle)} need table, the file that holds them")
            return
        self.path = inside(root, str(given))
        if self.path is None or not self.path.is_file():
            raise DataError(f"reader {reader}: there is no table {given} below the data folder")
        columns: dict[str, str] = {}
        for number, row in table_rows(self.path):
            place = f"{self.path.name}:{number}"
            if isinstance(row, str):
                self._faults.append(Rejected(place, "row unreadable", row))
                continue
            columns = columns or _columns(reader, self.path, row, options)
            key = str(row.get(columns["key"]) or "").strip()
            if not key:
                self._faults.append(Rejected(place, "row unreadable", "no file is named"))
            elif key in self._rows:
                self._faults.append(Rejected(place, "repeated row", f"as {self._rows[key][0]}"))
            else:
                self._rows[key] = (place, _case(row, columns, options))

    def __bool__(self) -> bool:
        return self.path is not None

    def of(self, path: Path, root: Path) -> Case | None:
        """Gives what the table says of a file, None where no row names it."""
        relative = path.relative_to(root)
        for key in (relative.as_posix(), relative.with_suffix("").as_posix(), path.name, path.stem):
            if key in self._rows:
                self._used.add(key)
                return self._rows[key][1]
        return None

    def faults(self, reason: str) -> Iterator[Rejected]:
        """Gives the rows that can't be used and, for ``reason``, those that fit no file; after all files."""
        yield from self._faults
        for key, (place, _) in self._rows.items():
            if key not in self._used:
                yield Rejected(place, reason, "no file has the name in this row")


def _columns(reader: str, path: Path, row: dict[str, Any], options: dict[str, Any]) -> dict[str, str]:
    columns = {role: options[role] for role in ("key", "group", "split", "caption") if role in options}
    if "key" not in columns:
        usual = next((name for name in USUAL_KEYS if name in row), None)
        if usual is None:
            raise DataError(
                f"reader {reader}: {path.name} has no column with the files' names; name it with key"
            )
        columns["key"] = usual
    missing = [name for name in [*columns.values(), *options.get("labels", ())] if name not in row]
    if missing:
        listed = ", ".join(map(str, row))
        raise DataError(
            f"reader {reader}: {path.name} has no column {', '.join(map(repr, missing))}; it has {listed}"
        )
    return columns


def _case(row: dict[str, Any], columns: dict[str, str], options: dict[str, Any]) -> Case:
    def text(column: str | None) -> str:
        value = row.get(column) if column else None
        return "" if value is None else str(value).strip()

    labels = {name: text(name) for name in options.get("labels", ())}
    unknown = {str(one) for one in options.get("unknown", ())}
    caption, notes = text(columns.get("caption")), ()
    if caption:
        cleaned = clean(caption)
        found = ", ".join(f"{count} {kind}" for kind, count in sorted(cleaned.found.items()))
        caption, notes = cleaned.text, (("caption cleaned", found),) if found else ()
    return Case(
        {name: value for name, value in labels.items() if value and value not in unknown},
        text(columns.get("group")),
        text(columns.get("split")) or None,
        caption or None,
        notes,
    )
