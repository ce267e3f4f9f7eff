"""What files and patients are called in a dataset: keyed hashes, or their own names where those aren't secret."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from medkit.errors import DataError
from medkit.readers import check_kinds, group_of, hashed, ids_of
from medkit.readers.case_table import Case
from medkit.readers.dicom.identity import KEY_VARIABLE, Pseudonyms, write_mapping

OPTIONS = ("group_pattern", "names", "mapping")


class FileNames:
    """The names of a source's files.

    Options, all of them a card's:
        group_pattern: Regular expression whose first group, found in a file's name, is the patient; for files that
            no table gives one.
        names: "hashed" (default): files are known by a keyed hash; "kept": by their names.
        mapping: File that takes "record,file" lines, outside the data set.

    Raises:
        DataError: An option makes no sense.
    """

    def __init__(self, reader: str, root: Path, options: dict[str, Any], files: list[Path]):
        check_kinds(reader, options, text=("mapping",))
        given = options.get("names", "hashed")
        if given not in ("hashed", "kept"):
            raise DataError(f"reader {reader}: names {given!r} is none of hashed, kept")
        self.reader, self.root, self.options = reader, root, options
        self.pseudonyms = Pseudonyms()
        self._kept = ids_of(files, root) if given == "kept" else {}
        self._untold = given != "kept" and self.pseudonyms.random
        self._hides = given != "kept"

    def of(self, path: Path) -> str:
        """Gives a file's name in the dataset."""
        return self._kept.get(path) or self.pseudonyms.name("file", path.relative_to(self.root).as_posix())

    def group(self, path: Path, case: Case, own: str = "") -> str:
        """Gives the patient as a hash: of the table, of the file's header (``own``), of its name; else the file."""
        if case.group:
            return self.pseudonyms.name("patient", case.group) if self._hides else hashed(case.group)
        if own:
            return own
        found = group_of(path.stem, self.options.get("group_pattern"))
        if found == path.stem:
            return self.of(path)
        return self.pseudonyms.name("patient", found) if self._hides else found

    def notes(self) -> tuple[tuple[str, str], ...]:
        """Gives, once, what the ledger should tell of the key."""
        if not self._untold:
            return ()
        self._untold = False
        detail = f"names stand for files and patients in this run only; set {KEY_VARIABLE} to keep them"
        return (("random patient key", detail),)

    def write_mapping(self, files: Iterable[Path]) -> None:
        """Writes which record is which file, readable by its owner only, where the card wants it.

        Raises:
            DataError: It can't be written.
        """
        if not self.options.get("mapping"):
            return
        rows = [(self.of(path), path.relative_to(self.root).as_posix()) for path in files]
        write_mapping(self.reader, self.options["mapping"], sorted(rows, key=lambda row: row[1]))
