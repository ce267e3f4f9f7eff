"""Names for files, series and patients that show nothing of them: keyed hashes, the same in every process."""

from __future__ import annotations

import csv
import hashlib
import hmac
import os
import secrets
from collections.abc import Iterable
from pathlib import Path

from pydicom.dataset import Dataset

from medkit.errors import DataError
from medkit.readers.dicom.files import value_of
from medkit.readers.dicom.reasons import Refused

KEY_VARIABLE = "MEDKIT_PATIENT_KEY"
LEAST_KEY = 16


class Pseudonyms:
    """Keyed hashes (HMAC-SHA256, 16 hex digits).

    Without a key a patient's number could be found by hashing all numbers. With the site's key in the
    environment the same patient keeps one group over runs; else a random key serves for this run only.
    """

    def __init__(self, key: bytes | None = None):
        given = os.environ.get(KEY_VARIABLE, "").encode() if key is None else key
        if given and len(given) < LEAST_KEY:
            raise DataError(
                f"{KEY_VARIABLE} has {len(given)} characters; a key that can't be guessed has at least {LEAST_KEY}"
            )
        self.random = not given
        self._key = given or secrets.token_bytes(32)

    def name(self, kind: str, value: str) -> str:
        """Gives the pseudonym of a value of a kind ("patient", "file", ...)."""
        return hmac.new(self._key, f"{kind}\0{value}".encode(), hashlib.sha256).hexdigest()[:16]

    def group(self, dataset: Dataset, file: str) -> tuple[str, str]:
        """Gives the group of a file's patient and what it was made of ("patient", "study", "series", "file")."""
        for kind, keyword in (
            ("patient", "PatientID"),
            ("study", "StudyInstanceUID"),
            ("series", "SeriesInstanceUID"),
        ):
            try:
                value = str(value_of(dataset, keyword, "")).strip()
            except Refused:
                continue
            if value:
                return self.name(kind, value), kind
        return self.name("file", file), "file"


def write_mapping(reader: str, path: str, rows: Iterable[tuple[str, str]]) -> None:
    """Writes which record is which file, readable by its owner only, even where the file was another's to read.

    Args:
        reader: Its name, for the message.
        path: The file.
        rows: (record, file) pairs.

    Raises:
        DataError: It can't be written.
    """
    try:
        place = Path(path).expanduser()
        place.unlink(missing_ok=True)
        target = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(target, "w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["record", "file"])
            writer.writerows(rows)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or type(error).__name__
        raise DataError(f"reader {reader}: the mapping file can't be written ({why})") from None
