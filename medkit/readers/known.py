"""What ingest remembers of pictures, so that none is decoded twice: after a kill, and when files were added.

Beside the dataset's files lie::

    reading/                  of a reading under way: outcomes.jsonl, data.bin, on disk every 2 seconds
    known.jsonl, known.bin    of the finished dataset: outcomes and looks; its images.arrow holds the bytes

A picture is known by a key: a hash of where it comes from (paths with size and times of change, or the bytes
themselves), of how it is rendered, and of the versions of the decoders. Names don't stand in the files. All of them
may be deleted; the pictures are then decoded again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import time
from dataclasses import fields, is_dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from medkit import __version__
from medkit.arrow_files import ArrowBatches, RefIndex
from medkit.digests import BYTES, DigestTable
from medkit.errors import DataError
from medkit.images import Limits
from medkit.readers.duplicates import LOOK_BYTES
from medkit.readers.prepare import Outcome, Picture, filled, from_head, head_of

VERSION = 1
DECODERS = (
    "pillow", "numpy", "pydicom", "imagecodecs", "pylibjpeg", "pylibjpeg-rle", "pylibjpeg-libjpeg",
    "pylibjpeg-openjpeg", "nibabel", "openslide-python", "openslide-bin", "imagehash", "av", "monai", "torch",
    "rapidocr", "onnxruntime",
)  # fmt: skip
COMMIT_SECONDS = 2.0
COMMIT_BYTES = 32 * 1024 * 1024
# They may come from a busy machine, and another try may end otherwise.
PASSING = frozenset({"decoder too slow", "decoder crashed", "worker too slow", "worker crashed"})
LOOK_ROW = 32 + LOOK_BYTES
WAITING = -1
OLD, NEW = 0, 1


class Known:
    """Outcomes by key, and the pictures' looks; a context that ends before the dataset's own does no harm.

    Leaving it without ``finish`` keeps what was read for the next time; a source of which nothing could be used
    leaves nothing behind.

    Args:
        folder: The dataset folder, which may be new, half read or finished.
    """

    def __init__(self, folder: Path) -> None:
        self.reading, self.folder = folder / "reading", folder
        self.outcomes, self.old_looks = folder / "known.jsonl", folder / "known.bin"
        self.looks = self.reading / "looks.bin"
        self._where = DigestTable()
        self._recent: dict[bytes, Outcome] = {}
        self._lines: list[str] = []
        self._waiting_bytes, self._committed = 0, time.monotonic()
        self._old: tuple[ArrowBatches, RefIndex] | None = None
        self._old_files: list[Any] = []

    def __enter__(self) -> Known:
        self.reading.mkdir(parents=True, exist_ok=True)
        self._remember_old()
        log = self.reading / "outcomes.jsonl"
        end = self._load(log, NEW) if log.is_file() else 0
        self._log = log.open("r+b" if log.is_file() else "w+b")
        self._log.truncate(end)  # a kill may have cut the last line
        self._log.seek(end)
        self._end = end
        self._data = (self.reading / "data.bin").open("a+b")
        self._data_end = self._data.seek(0, os.SEEK_END)
        # Written anew by every reading, in its order.
        self._kept = (self.reading / "kept.jsonl").open("wb")
        self._looks = self.looks.open("wb")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        if self._data.closed:
            return
        with contextlib.suppress(OSError):  # a full disk is told by the error that is under way
            self._commit()
        self._close()
        if kind is not None and issubclass(kind, DataError) and self._data_end == 0:
            shutil.rmtree(self.reading, ignore_errors=True)

    def has(self, key: bytes) -> bool:
        """Says whether a key's outcome is there, or on its way in this reading."""
        return key in self._where

    def expect(self, key: bytes) -> None:
        """Takes note that a key's outcome will come."""
        self._where.set(key, WAITING)

    def get(self, key: bytes) -> Outcome | None:
        """Gives the outcome of a key without the pictures' bytes, or None when it can't be read."""
        if key in self._recent:
            return self._recent[key]
        place = self._where.get(key)
        if place is None or place == WAITING:
            return None
        file = self._log if place >> 1 & 1 == NEW else self._old_files[0]
        if file is self._log:
            file.flush()
        with contextlib.suppress(ValueError, KeyError, OSError):
            return from_head(json.loads(_line(file.fileno(), place >> 2)[2 * BYTES :]))
        return None

    def fetch(self, picture: Picture) -> Picture | None:
        """Gives a remembered picture with its bytes, or None where they are gone."""
        if picture.at >= 0:
            self._data.flush()
            head = os.pread(self._data.fileno(), 8 + LOOK_BYTES, picture.at)
            size = int.from_bytes(head[:8], "little")
            data = os.pread(self._data.fileno(), size, picture.at + len(head))
            look = head[8:]
        elif self._old is not None:
            batches, index = self._old
            row = index.get(picture.stored.ref)
            if row is None:
                return None
            batch, offset = batches.place(row)
            data = batch.column(3).field(0)[offset].as_py()
            seen = os.pread(self._old_files[1].fileno(), LOOK_ROW, row * LOOK_ROW)
            look = seen[32:]
            if seen[:32].hex() != picture.stored.ref:
                return None
        else:
            return None
        if len(look) != LOOK_BYTES or hashlib.sha256(data).hexdigest() != picture.stored.ref:
            return None
        return filled(picture, look, data)

    def keep(self, key: bytes, outcome: Outcome) -> None:
        """Remembers an outcome that was made in this reading."""
        places = []
        for picture in outcome.pictures:
            data = picture.stored.data
            places.append(self._data_end)
            self._data.write(len(data).to_bytes(8, "little") + picture.look + data)
            self._data_end += 8 + len(picture.look) + len(data)
            self._waiting_bytes += len(data)
        line = key.hex() + json.dumps(head_of(outcome, places)) + "\n"
        self._where.set(key, self._end << 2 | NEW << 1)
        self._end += len(line)
        self._lines.append(line)
        self._recent[key] = from_head(head_of(outcome, places))
        since = time.monotonic() - self._committed
        if since > COMMIT_SECONDS or self._waiting_bytes > COMMIT_BYTES:
            self._commit()

    def use(self, key: bytes, outcome: Outcome) -> None:
        """Takes note that the dataset of this reading holds a key's outcome, so that the next one knows it."""
        place = self._where.get(key)
        if place is None or place & 1 or outcome.reason in PASSING:
            return
        self._where.set(key, place | 1)
        line = key.hex() + json.dumps(head_of(outcome, [-1] * len(outcome.pictures))) + "\n"
        self._kept.write(line.encode())

    def add_look(self, picture: Picture) -> None:
        """Takes the look of the next picture of the dataset."""
        self._looks.write(bytes.fromhex(picture.stored.ref) + picture.look)

    def close_reading(self) -> None:
        """Brings the looks to their file and frees the table of keys: no more records come."""
        self._commit()
        self._looks.flush()
        self._where, self._recent = DigestTable(), {}

    def finish(self) -> None:
        """Makes this reading's memory that of the finished dataset."""
        self._close()
        os.replace(self.reading / "kept.jsonl", self.outcomes)
        os.replace(self.looks, self.old_looks)
        shutil.rmtree(self.reading)

    def _commit(self) -> None:
        """Brings to disk what was made, the pictures before the lines that point to them."""
        if self._lines:
            self._data.flush()
            os.fsync(self._data.fileno())
            self._log.write("".join(self._lines).encode())
            self._log.flush()
            os.fsync(self._log.fileno())
        self._lines, self._recent, self._waiting_bytes = [], {}, 0
        self._committed = time.monotonic()

    def _close(self) -> None:
        for file in (self._log, self._data, self._kept, self._looks, *self._old_files):
            file.close()

    def _remember_old(self) -> None:
        with contextlib.suppress(OSError, pa.ArrowInvalid, DataError):
            batches = ArrowBatches(self.folder / "images.arrow")
            files = [self.outcomes.open("rb")]
            files.append(self.old_looks.open("rb"))
            self._old, self._old_files = (batches, RefIndex(batches)), files
            self._load(self.outcomes, OLD)

    def _load(self, path: Path, source: int) -> int:
        """Reads the keys of a file of outcomes; gives where its last whole line ends."""
        at = 0
        with path.open("rb") as lines:
            for line in lines:
                if not line.endswith(b"}\n"):
                    break
                with contextlib.suppress(ValueError):
                    self._where.set(bytes.fromhex(line[: 2 * BYTES].decode("ascii")), at << 2 | source << 1)
                at += len(line)
        return at


def key_of(image: Any, limits: Limits) -> bytes | None:
    """Gives the key of a record's ``image``, 16 bytes; None where nothing tells whether it changed.

    Loaders are known when they are dataclasses, by all their fields.
    """
    total = hashlib.sha256(_versions())
    if not _feed(total, (limits.bytes, limits.pixels, limits.side, limits.frames)) or not _feed(total, image):
        return None
    return total.digest()[:BYTES]


def _feed(total: Any, value: Any) -> bool:
    """Adds a value to a hash, with its type and length; says whether it could."""
    if isinstance(value, Path):
        try:
            stat = value.stat()
        except OSError:
            return False
        # A program can set the time of the last write back, that of the last change it can't.
        total.update(
            f"P{value}\0{stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns}\0".encode(errors="replace")
        )
    elif value is None or isinstance(value, bool | int | float | str):
        total.update(f"{type(value).__name__}{value!r}\0".encode(errors="replace"))
    elif isinstance(value, bytes):
        total.update(b"B%d\0" % len(value) + value)
    elif isinstance(value, np.ndarray):
        if value.dtype.hasobject:
            return False
        total.update(f"A{value.dtype.str}{value.shape}\0".encode())
        total.update(np.ascontiguousarray(value).data)
    elif isinstance(value, tuple | list):
        total.update(b"(%d\0" % len(value))
        return all(_feed(total, one) for one in value)
    elif isinstance(value, dict):
        total.update(b"{%d\0" % len(value))
        return all(_feed(total, key) and _feed(total, one) for key, one in value.items())
    elif is_dataclass(value) and not isinstance(value, type):
        total.update(f"D{type(value).__module__}.{type(value).__qualname__}\0".encode())
        return all(_feed(total, getattr(value, field.name)) for field in fields(value))
    else:
        return False
    return True


@cache
def _versions() -> bytes:
    found = [f"{VERSION} {__version__}"]
    for name in DECODERS:
        with contextlib.suppress(PackageNotFoundError):
            found.append(f"{name} {version(name)}")
    return "\0".join(found).encode()


def _line(file: int, at: int) -> bytes:
    """Reads the line that starts at a place of a file."""
    size, got = 1024, b""
    while not (end := got.find(b"\n") + 1):
        size *= 2
        longer = os.pread(file, size, at)
        if len(longer) == len(got):
            raise ValueError("no whole line")
        got = longer
    return got[:end]
