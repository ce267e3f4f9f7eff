"""Files that survive a crash: text replaced atomically, and Arrow streams written beside their final name.

The schemas of a dataset folder's two Arrow files stand here too; ``medkit.store`` is the room's front door.
"""

from __future__ import annotations

import errno
import json
import os
from bisect import bisect_right
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from medkit.errors import DataError

BATCH_BYTES = 32 * 1024 * 1024
BATCH_ROWS = 1024

IMAGE_SCHEMA = pa.schema(
    [
        ("ref", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
    ],
    # So that the datasets library shows the column as pictures.
    metadata={
        "huggingface": json.dumps(
            {
                "info": {
                    "features": {
                        "ref": {"dtype": "string", "_type": "Value"},
                        "width": {"dtype": "int32", "_type": "Value"},
                        "height": {"dtype": "int32", "_type": "Value"},
                        "image": {"_type": "Image"},
                    }
                }
            }
        )
    },
)
PART = pa.struct([("type", pa.string()), ("text", pa.string())])
SAMPLE_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("kind", pa.string()),
        ("split", pa.string()),
        ("group", pa.string()),
        ("messages", pa.list_(pa.struct([("role", pa.string()), ("content", pa.list_(PART))]))),
        ("images", pa.list_(pa.string())),
        ("facts", pa.string()),
        ("source", pa.string()),
    ]
)


def write_atomically(path: Path, text: str) -> None:
    """Writes a text file so that a reader or a crash sees the old content or the new, never a part.

    Raises:
        DataError: A folder lies in its place, its folder is missing, or the disk is full.
    """
    partial = path.with_name(path.name + ".partial")
    try:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        with partial.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError as error:
        raise DataError(f"{path} can't be written: {error.strerror}") from error
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    if os.name == "posix":  # elsewhere folders can't be opened
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


class ArrowWriter:
    """An Arrow stream written batch by batch beside its final name."""

    def __init__(self, path: Path, schema: pa.Schema):
        self.path = path
        self.partial = path.with_name(path.name + ".partial")
        self.schema = schema
        self.rows = 0
        self._pending: list[dict[str, Any]] = []
        self._pending_bytes = 0
        self._sink = self.partial.open("wb")
        self._writer = pa.ipc.new_stream(self._sink, schema)

    def append(self, row: dict[str, Any], size: int) -> None:
        self._pending.append(row)
        self._pending_bytes += size
        self.rows += 1
        if len(self._pending) >= BATCH_ROWS or self._pending_bytes >= BATCH_BYTES:
            self._flush()

    def finish(self) -> int:
        self._flush()
        self._writer.close()
        self._sink.flush()
        os.fsync(self._sink.fileno())
        self._sink.close()
        os.replace(self.partial, self.path)
        return self.path.stat().st_size

    def abandon(self) -> None:
        self._writer.close()
        self._sink.close()
        self.partial.unlink(missing_ok=True)

    def _flush(self) -> None:
        if self._pending:
            self._writer.write_batch(pa.RecordBatch.from_pylist(self._pending, schema=self.schema))
            self._pending, self._pending_bytes = [], 0


class ArrowBatches:
    """The record batches of a memory-mapped Arrow stream, indexed by row without copying."""

    def __init__(self, path: Path):
        with pa.memory_map(str(path)) as source, pa.ipc.open_stream(source) as reader:
            self.batches: list[pa.RecordBatch] = list(reader)
        self._ends: list[int] = np.cumsum([batch.num_rows for batch in self.batches]).tolist()

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def place(self, row: int) -> tuple[pa.RecordBatch, int]:
        number = bisect_right(self._ends, row)
        return self.batches[number], row - (self._ends[number - 1] if number else 0)

    def row(self, row: int) -> dict[str, Any]:
        batch, offset = self.place(row)
        return {name: batch.column(k)[offset].as_py() for k, name in enumerate(batch.schema.names)}


class RefIndex:
    """Reference -> row of an images file: 12 bytes a picture, where a dict of the references takes 200."""

    def __init__(self, rows: ArrowBatches):
        self._rows = rows
        prefixes = [_prefixes(batch.column(0)) for batch in rows.batches]
        every = np.concatenate(prefixes) if prefixes else np.zeros(0, dtype=np.uint64)
        order = np.argsort(every, kind="stable")
        self._order, self._sorted = order.astype(np.int32), every[order]

    def get(self, ref: str) -> int | None:
        """Gives the row of a reference, None where the file lacks it."""
        try:
            prefix = np.uint64(int(ref[:16], 16))
        except ValueError:
            return None
        at = int(np.searchsorted(self._sorted, prefix))
        while at < len(self._sorted) and self._sorted[at] == prefix:
            row = int(self._order[at])
            batch, offset = self._rows.place(row)
            if batch.column(0)[offset].as_py() == ref:
                return row
            at += 1
        return None


def _prefixes(refs: pa.StringArray) -> np.ndarray:
    """Gives the first 64 bits of sha256 hex strings, uint64 [N].

    Raises:
        DataError: A reference is none.
    """
    _, offsets, letters = refs.buffers()
    ends = np.frombuffer(offsets, dtype=np.int32)[refs.offset : refs.offset + len(refs) + 1]
    if len(refs) and not (np.diff(ends) == 64).all():
        raise DataError(
            "a dataset's images file holds a reference that is no sha256; write the dataset again"
        )
    text = np.frombuffer(letters, dtype=np.uint8)[ends[0] : ends[-1]] if len(refs) else np.zeros(0, np.uint8)
    text = text.reshape(-1, 64)[:, :16]
    digits = ((text & 15) + 9 * (text >> 6)).astype(np.uint64)  # [N, 16] values of "0".."9", "a".."f"
    return (digits << np.arange(60, -4, -4, dtype=np.uint64)).sum(axis=1, dtype=np.uint64)
