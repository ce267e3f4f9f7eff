"""Reports to images by file rules: a pattern says which text file belongs to a record, and nothing is guessed."""

from __future__ import annotations

import fnmatch
import re
import string
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from medkit.errors import DataError
from medkit.privacy.presidio import Finder
from medkit.privacy.text import Cleaned, Known, clean
from medkit.readers import Merged, Record, Rejected, inside

MOST_BYTES = 1 << 20
GIVE = ("caption", "record")
Note = tuple[str, str]


class Reports:
    """The reports of a source.

    Args:
        reader: Its name, for messages.
        root: The data folder.
        pattern: Of a report's file below the root, with fields in braces: "reports/{study}.txt"; None: no reports.
        fields: Names that the reader can fill in.
        name: Gives a file's name in the ledger.
        give: What is made of a record with a report: the caption, a record of facts alone of which a teacher makes
            questions, or both.
        finder: Presidio, beside what the header knows and what the rules find.

    Raises:
        DataError: The pattern has another field, or none, or ``give`` holds something else.
    """

    def __init__(
        self,
        reader: str,
        root: Path,
        pattern: str | None,
        fields: tuple[str, ...],
        name: Callable[[Path], str],
        give: object = ("caption",),
        finder: Finder | None = None,
    ):
        if not isinstance(give, list | tuple) or not give or any(one not in GIVE for one in give):
            raise DataError(f"reader {reader}: give {give!r} is no list of {' and '.join(GIVE)}")
        self.give = tuple(give)
        self.root, self.pattern, self.name, self.finder = root, pattern, name, finder
        self._given: dict[Path, str] = {}
        self._faults: dict[Path, str] = {}
        self._cleaned: tuple[str, Known | None, Cleaned] | None = None
        self._glob = None
        if pattern is None:
            return
        try:
            parts = list(string.Formatter().parse(str(pattern)))
        except ValueError:
            parts = []
        used = [field for _, field, _, _ in parts if field is not None]
        if not used or any(field not in fields for field in used):
            listed = ", ".join(f"{{{field}}}" for field in fields)
            raise DataError(f"reader {reader}: reports {pattern!r} needs fields of {listed} and no others")
        glob = "".join(
            text.replace("[", "[[]") + ("*" if field is not None else "") for text, field, _, _ in parts
        )
        self._glob = re.compile(fnmatch.translate(glob))

    def holds(self, path: Path) -> bool:
        """Whether a file of the source is a report by its name."""
        return self._glob is not None and self._glob.match(path.relative_to(self.root).as_posix()) is not None

    def of(
        self, record: str, values: dict[str, str], known: Known | None = None
    ) -> tuple[str | None, tuple[Note, ...]]:
        """Gives a record's report without what identifies, and what the ledger should tell.

        Args:
            record: The record that takes it.
            values: The pattern's fields. One that is empty has no report.
            known: What the study's header knows of the patient.
        """
        if self.pattern is None:
            return None, ()
        fields = {field for _, field, _, _ in string.Formatter().parse(self.pattern) if field is not None}
        if any(not values.get(field) for field in fields):
            return None, (("no report", "a field of the pattern is empty"),)
        path = inside(self.root, self.pattern.format(**values))
        try:
            if path is None or "\0" in str(path) or not path.is_file():
                return None, (("no report", ""),)
            if path.stat().st_size > MOST_BYTES:
                raise ValueError
            text = path.read_bytes().decode("utf-8-sig").strip()
            if not text or "\0" in text:
                raise ValueError
        except (OSError, ValueError):
            if path is not None:
                self._faults[path] = "too long, empty or no UTF-8 text"
            return None, (("no report", "its file can't be used"),)
        # Every slice of a series asks for the same report.
        if self._cleaned is None or self._cleaned[:2] != (text, known):
            self._cleaned = text, known, clean(text, known, self.finder)
        cleaned = self._cleaned[2]
        self._given.setdefault(path, record)
        found = ", ".join(f"{count} {kind}" for kind, count in sorted(cleaned.found.items()))
        return cleaned.text, (("report cleaned", found),) if found else ()

    def made(self, record: Record) -> Iterator[Record]:
        """Gives a record as the card wants it: caption, facts alone, or both."""
        if record.caption is None or "caption" in self.give:
            yield record
        if record.caption is not None and "record" in self.give:
            again = f"{record.id}:facts" if "caption" in self.give else record.id
            yield replace(record, id=again, caption=None)

    def fates(self, paths: list[Path]) -> Iterator[Merged | Rejected]:
        """Gives what became of the report files, after all records were made."""
        for path in paths:
            if path in self._given:
                yield Merged(self.name(path), "report", f"in record {self._given[path]}")
            elif path in self._faults:
                yield Rejected(self.name(path), "report unreadable", self._faults[path])
            else:
                yield Rejected(self.name(path), "report without images", "no record's fields give its name")
