"""Pictures of benchmark rows: files by name, members of archives, bytes or base64 in the row, one or several."""

from __future__ import annotations

import base64
import binascii
import hashlib
import string
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePath, PurePosixPath
from typing import Any

from medkit.errors import DataError
from medkit.images import DEFAULT_LIMITS, SUFFIXES
from medkit.readers import Picture, image_files, inside
from medkit.readers.question_rows import rows_of
from medkit.readers.question_texts import listed

REFERENCE = 64  # VLMEvalKit writes another row's index in place of a picture that was there before


@dataclass(frozen=True)
class Shown:
    """The pictures of a row.

    Attributes:
        pictures: Paths or encoded bytes, in the order of the row.
        name: The first picture's name, or "".
        key: What is the same for questions about the same pictures, or "".
        fault: (reason, detail) where the row can't be asked.
    """

    pictures: list[Picture] = field(default_factory=list)
    name: str = ""
    key: str = ""
    fault: tuple[str, str] | None = None


class Pictures:
    """Finds the pictures of rows.

    Args:
        root: The data folder.
        options: The reader's ``images``, ``archive``, ``base64``, ``text_only``, and ``id`` (the column that rows
            refer to).
    """

    def __init__(self, root: Path, options: dict[str, Any]):
        self.root, self.options = root, options
        self._references: tuple[Path, dict[str, str]] | None = None  # of one table: a set has gigabytes

    def of(
        self, table: Path, row: dict[str, Any], image: str | Sequence[str], marks: Sequence[int] = ()
    ) -> Shown:
        """Gives a row's pictures.

        Args:
            table: The row's, whose rows it may refer to.
            row: The row.
            image: A column; a name with columns in braces ("{split}/{id}/{image}"); or several columns.
            marks: With several columns, which of them the text names, from 1; all where it names none.
        """
        values = self._values(table, row, image, marks)
        if marks and not isinstance(image, str) and len(values) < len(marks):
            return Shown(fault=("image missing", "the text names a picture that the row has not"))
        shown = [self._one(value) for value in values]
        faulty = next((one for one in shown if one.fault), None)
        if faulty or not shown:
            return faulty or Shown()
        pictures = [picture for one in shown for picture in one.pictures]
        return Shown(pictures, shown[0].name, "+".join(one.key for one in shown))

    def _values(
        self, table: Path, row: dict[str, Any], image: str | Sequence[str], marks: Sequence[int]
    ) -> list[Any]:
        if not isinstance(image, str):
            wanted = [image[mark - 1] for mark in marks if 0 < mark <= len(image)] if marks else image
            values = [row.get(column) for column in wanted]
        elif "{" in image:
            values = [_filled(image, row)]
        else:
            value = row.get(image)
            if self.options.get("base64") and 0 < len(_text(value)) <= REFERENCE:
                value = self._referred(table, image).get(_text(value), value)
            if isinstance(value, str):
                value = listed(value) or value
            values = value if isinstance(value, list) else [value]
        return [value for value in values if value not in (None, "", "nan")]

    def _one(self, value: Any) -> Shown:
        data, name = None, value
        if isinstance(value, dict):  # as the datasets library stores a picture
            data, name = value.get("bytes"), value.get("path") or ""
        elif isinstance(value, bytes):
            data, name = value, ""
        elif self.options.get("base64") and isinstance(value, str):
            data, name = _decoded(value), ""
            if data is None:
                return Shown(fault=("image missing", "its text is no picture in base64"))
        if isinstance(data, bytes) and data:
            digest = hashlib.sha256(data).hexdigest()[:16]
            # Many sets call every picture image.png: what two questions share is the content.
            return Shown([] if self.options.get("text_only") else [data], str(name or digest), digest)
        if not isinstance(name, str) or not name.strip():
            return Shown(fault=("image missing", f"{type(value).__name__} is no picture's name"))
        return self._named(name.strip())

    def _named(self, name: str) -> Shown:
        if self.options.get("text_only"):
            return Shown([], name, name)
        path = inside(self.root, str(Path(self.options.get("images", "")) / name))
        if path is None:
            return Shown(fault=("image outside the data folder", name))
        if _is_file(path):
            return Shown([path], name, name)
        base = self.root / self.options.get("images", "")
        known = self._by_name.get(Path(name).name, [])
        same = [one for one in known if one.parent == base or _fits(one.relative_to(self.root), name)]
        packed = [] if same else self._packed(name)
        if len(same) == 1:
            return Shown([same[0]], name, name)
        if len(packed) == 1:
            return self._unpacked(name, *packed[0])
        found = len(same) or len(packed)
        what = f"is there {found} times" if found else "is in no folder"
        return Shown(fault=("image missing", f"{name[:200]} {what}"))

    def _packed(self, name: str) -> list[tuple[zipfile.ZipFile, zipfile.ZipInfo]]:
        """Gives the members of the archives with a name: those whose whole path ends with it, else those that fit."""
        known = self._members.get(PurePosixPath(name).name, [])
        same = [one for one in known if _fits(PurePosixPath(one[1].filename), name)]
        exact = [one for one in same if f"/{one[1].filename}".endswith(f"/{name}")]
        return exact or same

    def _unpacked(self, name: str, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Shown:
        if member.file_size > DEFAULT_LIMITS.bytes:
            return Shown(fault=("image missing", f"{name} is {member.file_size:,} bytes large"))
        try:
            return Shown([archive.read(member)], name, name)
        # zipfile raises RuntimeError for passwords and for compressions that it doesn't know.
        except (zipfile.BadZipFile, RuntimeError, OSError, EOFError, zlib.error) as error:
            return Shown(fault=("image missing", f"{name} can't be unpacked ({error})"))

    @cached_property
    def _by_name(self) -> dict[str, list[Path]]:
        found: dict[str, list[Path]] = {}
        for path in image_files(self.root):
            found.setdefault(path.name, []).append(path)
        return found

    @cached_property
    def _members(self) -> dict[str, list[tuple[zipfile.ZipFile, zipfile.ZipInfo]]]:
        patterns = self.options.get("archive", [])
        found: dict[str, list[tuple[zipfile.ZipFile, zipfile.ZipInfo]]] = {}
        for pattern in [patterns] if isinstance(patterns, str) else patterns:
            for path in sorted(self.root.glob(pattern)):
                try:
                    archive = zipfile.ZipFile(path)
                except (zipfile.BadZipFile, OSError) as error:
                    raise DataError(f"{path} can't be read as a zip archive ({error})") from None
                for member in archive.infolist():
                    name = PurePosixPath(member.filename).name
                    if name.lower().endswith(SUFFIXES) and not name.startswith("."):
                        found.setdefault(name, []).append((archive, member))
        return found

    def _referred(self, table: Path, image: str) -> dict[str, str]:
        """Gives the pictures that rows of a table refer to by another row's index, and no others."""
        if self._references is None or self._references[0] != table:
            index = self.options.get("id", "index")
            wanted = {_text(row.get(image)) for row in _rows(table)}
            found = {
                _text(row.get(index)): _text(row.get(image))
                for row in _rows(table)
                if _text(row.get(index)) in wanted and len(_text(row.get(image))) > REFERENCE
            }
            self._references = table, found
        return self._references[1]


def _rows(table: Path) -> Iterator[dict[str, Any]]:
    return (row for _, row in rows_of(table) if isinstance(row, dict))


def _text(cell: Any) -> str:
    return str(cell).strip() if isinstance(cell, str | int) else ""


def columns_in(image: str) -> list[str]:
    """Gives the columns in the braces of a picture's name.

    Raises:
        DataError: The braces don't match.
    """
    try:
        return [name for _, name, _, _ in string.Formatter().parse(image) if name]
    except ValueError as error:
        raise DataError(f"reader questions: image {image!r}: {error}") from None


def _filled(image: str, row: dict[str, Any]) -> str | None:
    """Gives the name with the row's values, None where one of them is empty: a question without picture."""
    filled = ""
    for text, column, form, _ in string.Formatter().parse(image):
        filled += text
        if column is None:
            continue
        value = row.get(column)
        if value in (None, ""):
            return None
        try:
            filled += format(int(str(value)), form or "") if form else str(value)
        except ValueError:
            return None
    return filled


def _fits(found: PurePath, name: str) -> bool:
    """Whether a file is one that a row names, up to outer folders: no other picture that is called source.jpg too."""
    wanted = PurePosixPath(name).parts
    return len(wanted) == 1 or len(found.parts) == 1 or found.parts[-2:] == wanted[-2:]


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a text that is too long for a name
        return False


def _decoded(text: str) -> bytes | None:
    try:
        return base64.b64decode(text, validate=True) or None
    except (binascii.Error, ValueError):
        return None
