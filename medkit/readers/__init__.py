"""Readers of what users have: one file a source kind, each with ``read(root, options)``.

A reader yields a ``Record`` for every input it understands, a ``Rejected`` for every one it doesn't and a
``Merged`` for every one that went into another's record; it never raises on a bad record. It decodes no pixels:
ingest does, with the size limits, or calls the record's loader. It raises ``DataError`` only when the source as a
whole can't be read.

``options`` are a domain card's ``data.options``; ingest adds ``splits``, the source's split names that the
card knows, so that a reader can find them in folder and file names.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from medkit.errors import DataError
from medkit.images import SUFFIXES

READERS: dict[str, str] = {
    "arrays": "medkit.readers.arrays",
    "boxes": "medkit.readers.boxes",
    "chest_reports": "medkit.readers.chest_reports",
    "class_folders": "medkit.readers.class_folders",
    "dicom": "medkit.readers.dicom.reader",
    "drawn": "medkit.readers.drawn",
    "figures": "medkit.readers.figures",
    "frames": "medkit.readers.frames.reader",
    "llava_json": "medkit.readers.llava_json",
    "nifti": "medkit.readers.nifti.reader",
    "questions": "medkit.readers.questions",
    "slides": "medkit.readers.slides.reader",
    "table": "medkit.readers.table",
    "vlmevalkit": "medkit.readers.vlmevalkit",
    "vqa_rad": "medkit.readers.vqa_rad",
}
SPLIT_NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("valid", "val", "validate", "validation", "dev"), "valid"),
    **dict.fromkeys(("test", "testing", "holdout", "heldout"), "test"),
}

Picture = bytes | Path | np.ndarray | Image.Image


@dataclass(frozen=True)
class Loaded:
    """What a record's loader gives: its pictures, and (reason, detail) pairs of what was done to them."""

    images: list[Picture]
    notes: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Record:
    """One input record as a reader gives it.

    Attributes:
        id: Unique within the source.
        image: The picture: encoded bytes, a path, an array or a Pillow image; a list of them for a record of
            several pictures, empty for one of text alone; or a function that makes them when they are wanted,
            whose ``DataError`` may carry a ledger ``reason`` and ``detail``.
        facts: Structured truth (``labels``, ``objects`` with boxes in 0..1, ``modality``, ``complete``).
        caption: The picture's caption, or None.
        messages: A conversation in the form of ``medkit.sample``, or None.
        group: What must not be split between train and test; a patient only as a hash (``hashed``).
        split: The source's own split name, or None.
        licence: The source's licence, "" for the domain card's.
        notes: (reason, detail) pairs for the ledger: what was skipped or mended inside the record.
        extra: Further values for ``Sample.source``.
        kind: What it is for in the training splits where its form says otherwise: a ``question`` is learnt as
            one, not as a conversation.
    """

    id: str
    image: Picture | list[Picture] | Callable[[], Loaded]
    facts: dict[str, Any] = field(default_factory=dict)
    caption: str | None = None
    messages: list[dict[str, Any]] | None = None
    group: str = ""
    split: str | None = None
    licence: str = ""
    notes: tuple[tuple[str, str], ...] = ()
    extra: dict[str, Any] = field(default_factory=dict)
    kind: str = ""


@dataclass(frozen=True)
class Rejected:
    """An input record that can't be used: a short fixed reason and the particulars."""

    record: str
    reason: str
    detail: str = ""


@dataclass(frozen=True)
class Merged:
    """An input that is part of another one's record (a slice of a volume)."""

    record: str
    reason: str
    detail: str = ""


Reader = Callable[[Path, dict[str, Any]], Iterator[Record | Rejected | Merged]]


def get_reader(name: str) -> Reader:
    """Gives the ``read`` function of a reader.

    Raises:
        DataError: No reader has the name.
    """
    if name not in READERS:
        raise DataError(
            f"there is no reader {name!r}{_did_you_mean(name, READERS)}; readers: {', '.join(READERS)}"
        )
    return importlib.import_module(READERS[name]).read


def options_of(name: str) -> tuple[str, ...]:
    """Gives the names of a reader's options."""
    return importlib.import_module(READERS[name]).OPTIONS


def check_options(reader: str, options: dict[str, Any], allowed: Iterable[str]) -> None:
    """Refuses options that the reader doesn't have, all at once, and a ``group_pattern`` that is no expression.

    Raises:
        DataError: Names every unknown option and what may have been meant.
    """
    pattern = options.get("group_pattern")
    try:
        re.compile(pattern or "")
    except (re.error, TypeError) as error:
        raise DataError(
            f"reader {reader}: group_pattern {pattern!r} is no regular expression ({error})"
        ) from None
    allowed = [*allowed, "splits"]
    unknown = [f"{key!r}{_did_you_mean(key, allowed)}" for key in options if key not in allowed]
    if unknown:
        raise DataError(
            f"reader {reader} has no option {', '.join(unknown)}; its options: {', '.join(sorted(allowed))}"
        )


def check_kinds(
    reader: str,
    options: dict[str, Any],
    text: Iterable[str] = (),
    lists: Iterable[str] = (),
    switches: Iterable[str] = (),
) -> None:
    """Refuses option values of another kind than the reader takes, all at once.

    Args:
        reader: Its name, for the message.
        options: The card's.
        text: Names of options that are one text.
        lists: That are a list of words or numbers.
        switches: That are true or false.

    Raises:
        DataError: Names every value that can't be meant.
    """
    faults = [
        f"{name} {options[name]!r} is no text" for name in text if not isinstance(options.get(name, ""), str)
    ]
    for name in lists:
        given = options.get(name, [])
        if not isinstance(given, list | tuple) or not all(
            isinstance(one, str | int | float) for one in given
        ):
            faults.append(f"{name} {given!r} is no list of words")
    faults += [
        f"{name} {options[name]!r} is neither true nor false"
        for name in switches
        if not isinstance(options.get(name, False), bool)
    ]
    if faults:
        raise DataError(f"reader {reader}: {'; '.join(faults)}")


def hashed(key: str) -> str:
    """Gives a group key that doesn't show the patient or file it stands for (16 hex digits)."""
    return hashlib.sha256(f"medkit group:{key}".encode()).hexdigest()[:16]


def our_split(split: str | None, names: dict[str, str]) -> str | None:
    """Gives train, valid or test for a source's split name, None for one that neither card nor medkit knows."""
    if split is None:
        return None
    return names.get(split) or SPLIT_NAMES.get(split.strip().lower())


def image_files(folder: Path) -> list[Path]:
    """Gives the picture files below a folder, sorted; hidden files and folders are left out.

    Raises:
        DataError: The folder is missing.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder; give the path of the data set")
    found = []
    for parent, folders, names in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [
            Path(parent, name)
            for name in names
            if name.lower().endswith(SUFFIXES) and not name.startswith(".")
        ]
    return sorted(found)


def files_below(folder: Path) -> list[Path]:
    """Gives every file below a folder, sorted; hidden files and folders are left out."""
    found = []
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [Path(parent, name) for name in names if not name.startswith(".")]
    return sorted(path for path in found if path.is_file())


def ids_of(paths: list[Path], root: Path) -> dict[Path, str]:
    """Gives every file an id: its name without suffix where that is unique, else its path below the root."""
    stems = Counter(path.stem for path in paths)
    return {path: path.stem if stems[path.stem] == 1 else path.relative_to(root).as_posix() for path in paths}


def split_in(name: str, known: Iterable[str]) -> str | None:
    """Finds a split's name in a folder or file name: "png_sample_dev" holds "dev"."""
    words = re.split(r"[^a-z]+", name.lower())
    for split in [*known, *SPLIT_NAMES]:
        if split.lower() in words:
            return split
    return None


def split_of(path: Path, root: Path, known: Iterable[str]) -> str | None:
    """Finds a split's name among the folders between the root and a file, the outermost first."""
    known = list(known)
    for part in path.relative_to(root).parent.parts:
        found = split_in(part, known)
        if found:
            return found
    return None


def group_of(record_id: str, pattern: str | None) -> str:
    """Gives a record's group: what ``pattern`` captures of its id (hashed), or the id itself."""
    match = re.search(pattern, record_id) if pattern else None
    if match is None:
        return record_id
    return hashed(match.group(1) if match.groups() else match.group(0))


def inside(root: Path, name: str) -> Path | None:
    """Gives the path of a file that a table names, or None when the name leads out of the data folder."""
    path = os.path.normpath(os.path.join(root, name))
    below = os.path.relpath(path, root)
    return None if below == os.curdir or below.split(os.sep)[0] == os.pardir else Path(path)


def _did_you_mean(name: str, choices: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(choices), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""
