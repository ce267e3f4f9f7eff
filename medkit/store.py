"""A dataset folder on disk: images stored once, samples that point to them, and every input's fate.

Layout (few files at any size)::

    images.arrow    ref, width, height, image {bytes, path}     Arrow IPC stream
    samples.arrow   id, kind, split, group, messages, images, facts (JSON), source (JSON)
    ledger.jsonl    {record, fate: kept | rejected | merged | told, reason, detail}
    dataset.json    the summary; written last, so a folder without it is unfinished

Both Arrow files open with plain ``datasets.Dataset.from_file``. The summary has its own file name because a
step's folder, which a dataset usually is, ends with a ``summary.json`` of the step that wrote it.

A picture's reference is the sha256 of its stored bytes; pictures with equal pixels are stored once.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import pyarrow as pa
from PIL import Image

from medkit import images as pictures
from medkit.arrow_files import (
    IMAGE_SCHEMA,
    SAMPLE_SCHEMA,
    ArrowBatches,
    ArrowWriter,
    RefIndex,
    write_atomically,
)
from medkit.digests import DigestTable, PictureTable, digest_of
from medkit.errors import DataError
from medkit.prepared import Prepared, prepare
from medkit.sample import Sample

__all__ = ["Dataset", "DatasetWriter", "is_dataset", "open_dataset", "writable", "write_atomically"]

VERSION = 1


class DatasetWriter:
    """Writes a dataset folder; what a crash leaves behind is never mistaken for a dataset.

    Use as a context manager: leaving it without an exception finishes the folder, with one removes what was
    written. The folder may exist and hold other files (a step's ``started.json``).

    Args:
        folder: Where the dataset goes.
        name: The dataset's name, kept in the summary.
        images_from: Other dataset folders whose images samples may refer to; nothing is copied.
        limits: Size limits of images given as bytes.

    Attributes:
        pictures: The numbers of what was stored.
    """

    def __init__(
        self,
        folder: Path | str,
        name: str,
        images_from: Iterable[Path | str] = (),
        limits: pictures.Limits = pictures.DEFAULT_LIMITS,
    ):
        self.folder = Path(folder)
        self.name = name
        self.limits = limits
        self.images_from = [Path(other) for other in images_from]
        self.summary: dict[str, Any] = {}
        self._others = [open_dataset(other) for other in self.images_from]
        self.pictures = PictureTable()
        self._ids, self._kept, self._groups = (DigestTable(values=False) for _ in range(3))
        self._counts: dict[str, Counter[str]] = {
            key: Counter() for key in ("kinds", "splits", "fates", "reasons")
        }

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        # An older dataset here stops being one now: its files are about to be replaced one by one.
        (self.folder / "dataset.json").unlink(missing_ok=True)
        self._images = ArrowWriter(self.folder / "images.arrow", IMAGE_SCHEMA)
        self._samples = ArrowWriter(self.folder / "samples.arrow", SAMPLE_SCHEMA)
        self._ledger_path = self.folder / "ledger.jsonl.partial"
        self._ledger = self._ledger_path.open("w", encoding="utf-8")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._finish()
        else:
            self._ledger.close()
            self._ledger_path.unlink(missing_ok=True)
            self._images.abandon()
            self._samples.abandon()

    def __contains__(self, sample_id: str) -> bool:
        return digest_of(sample_id) in self._ids

    @property
    def rejections(self) -> Counter[str]:
        """How many records were rejected so far, by reason."""
        return self._counts["reasons"]

    @property
    def rows(self) -> int:
        """How many samples were written so far."""
        return self._samples.rows

    def add_image(self, data: bytes | Image.Image | np.ndarray) -> str:
        """Stores a picture once and gives its reference.

        Encoded 8-bit grey or RGB PNG, JPEG and WebP are kept byte for byte; everything else is brought to RGB
        uint8 (see ``medkit.images``) and stored as lossless WebP.

        Args:
            data: An encoded file, a Pillow image, or an array [H,W], [H,W,3] or [H,W,4].

        Returns:
            The sha256 of the stored bytes, hex.

        Raises:
            DataError: The picture is broken or beyond the limits.
        """
        came = hashlib.sha256(data).digest() if isinstance(data, bytes) else None
        number = self.pictures.number_of(came) if came is not None else None
        if number is None:
            number, _ = self.put_image(prepare(data, self.limits)[0])
            if came is not None:
                self.pictures.alias(came, number)
        return self.pictures.ref(number)

    def put_image(self, prepared: Prepared) -> tuple[int, bool]:
        """Stores a prepared picture once.

        Returns:
            (the number of the picture in the order of first appearance, from 0; whether it is new).
        """
        size = (prepared.width, prepared.height)
        number, new = self.pictures.add(prepared.ref, prepared.pixels, size)
        if new and not any(prepared.ref in other for other in self._others):
            image = {"bytes": prepared.data, "path": None}
            row = {"ref": prepared.ref, "width": size[0], "height": size[1], "image": image}
            self._images.append(row, len(prepared.data))
        return number, new

    def add(self, sample: Sample) -> None:
        """Writes a sample and, the first time one of its record comes, the record's "kept" ledger row.

        Raises:
            DataError: The id was used before, an image part has no reference or a reference no image: faults
                of the caller, who sends bad input records to ``reject``.
        """
        if sample.id in self:
            raise DataError(f"two samples of dataset {self.name} have the id {sample.id!r}")
        for ref in sample.images:
            if not self._has(ref):
                raise DataError(f"sample {sample.id!r} refers to image {ref[:12]}, which the dataset lacks")
        parts = sum(part["type"] == "image" for message in sample.messages for part in message["content"])
        if sample.messages and parts != len(sample.images):
            raise DataError(f"sample {sample.id!r} has {parts} image parts and {len(sample.images)} images")
        row = {
            "id": sample.id,
            "kind": sample.kind,
            "split": sample.split,
            "group": sample.group,
            "messages": sample.messages,
            "images": sample.images,
            "facts": json.dumps(sample.facts, ensure_ascii=False),
            "source": json.dumps(sample.source, ensure_ascii=False),
        }
        self._samples.append(row, 512 + len(row["facts"]))
        self._ids.add(digest_of(sample.id))
        self._groups.add(digest_of(sample.group))
        self._counts["kinds"][sample.kind] += 1
        self._counts["splits"][sample.split] += 1
        record = str(sample.source.get("record", sample.id))
        if self._kept.add(digest_of(record)):
            self._write_fate(record, "kept", "", "")

    def reject(self, record: str, reason: str, detail: str = "") -> None:
        """Writes into the ledger that an input record gave no sample; ``reason`` is a short fixed phrase."""
        self._counts["reasons"][reason] += 1
        self._write_fate(record, "rejected", reason, detail)

    def merge(self, record: str, reason: str, detail: str = "") -> None:
        """Writes into the ledger that a record went into another one's sample."""
        self._write_fate(record, "merged", reason, detail)

    def tell(self, record: str, reason: str, detail: str = "") -> None:
        """Writes something into the ledger that a user should know of a record, whatever its fate."""
        self._write_fate(record, "told", reason, detail)

    def note(self, key: str, value: Any) -> None:
        """Adds a JSON-able value to the summary, for instance ``near_duplicates_across_splits``."""
        self.summary[key] = value

    def _has(self, ref: str) -> bool:
        return self.pictures.number_of_ref(ref) is not None or any(ref in one for one in self._others)

    def _write_fate(self, record: str, fate: str, reason: str, detail: str) -> None:
        self._counts["fates"][fate] += 1
        row = {"record": writable(record), "fate": fate, "reason": reason, "detail": writable(detail)}
        self._ledger.write(json.dumps(row, ensure_ascii=False) + "\n")

    def _finish(self) -> None:
        self._ledger.flush()
        os.fsync(self._ledger.fileno())
        self._ledger.close()
        image_bytes = self._images.finish()
        sample_bytes = self._samples.finish()
        os.replace(self._ledger_path, self.folder / "ledger.jsonl")
        self.summary = {
            "name": self.name,
            "version": VERSION,
            "samples": self._samples.rows,
            "images": self._images.rows,
            "kinds": dict(sorted(self._counts["kinds"].items())),
            "splits": dict(sorted(self._counts["splits"].items())),
            "groups": len(self._groups),
            "fates": dict(sorted(self._counts["fates"].items())),
            "rejected": dict(sorted(self._counts["reasons"].items())),
            "bytes": image_bytes + sample_bytes,
            "images_from": [
                Path(os.path.relpath(other.resolve(), self.folder.resolve())).as_posix()
                for other in self.images_from
            ],
            **self.summary,
        }
        write_atomically(self.folder / "dataset.json", json.dumps(self.summary, indent=1, ensure_ascii=False))


class Dataset:
    """A finished dataset folder, memory-mapped: cheap to open, to pickle and to index at random."""

    def __init__(self, folder: Path | str):
        self.folder = Path(folder)
        try:
            self.summary: dict[str, Any] = json.loads(
                (self.folder / "dataset.json").read_text(encoding="utf-8")
            )
            self._samples = ArrowBatches(self.folder / "samples.arrow")
            self._pictures = ArrowBatches(self.folder / "images.arrow")
        except (OSError, ValueError, pa.ArrowInvalid) as error:
            state = "an unfinished or damaged dataset" if self.folder.is_dir() else "no folder"
            raise DataError(
                f"{self.folder} is {state} ({error}); run the step that writes it again"
            ) from None
        self._rows: RefIndex | None = None
        self._others: list[Dataset] | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return open_dataset, (self.folder.absolute(),)

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> Sample:
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        return _sample(self._samples.row(index % len(self)))

    def __iter__(self) -> Iterator[Sample]:
        for batch in self._samples.batches:
            for row in batch.to_pylist():
                yield _sample(row)

    def image(self, ref: str) -> Image.Image:
        """Gives a picture as RGB.

        Raises:
            DataError: Neither this folder nor those it takes images from hold the reference.
        """
        image = Image.open(io.BytesIO(self.image_bytes(ref)))
        image.load()
        return image if image.mode == "RGB" else image.convert("RGB")

    def image_size(self, ref: str) -> tuple[int, int]:
        """Gives (width, height) in px without decoding the picture.

        Raises:
            DataError: The reference is unknown.
        """
        row = self._index().get(ref)
        if row is not None:
            batch, offset = self._pictures.place(row)
            return batch.column(1)[offset].as_py(), batch.column(2)[offset].as_py()
        for other in self._sources():
            if ref in other:
                return other.image_size(ref)
        raise DataError(f"dataset {self.folder} has no image {ref[:12]}")

    def image_bytes(self, ref: str) -> bytes:
        """Gives a picture's stored, encoded bytes (PNG, JPEG or WebP).

        Raises:
            DataError: The reference is unknown.
        """
        row = self._index().get(ref)
        if row is not None:
            batch, offset = self._pictures.place(row)
            return batch.column(3).field(0)[offset].as_py()
        for other in self._sources():
            if ref in other:
                return other.image_bytes(ref)
        raise DataError(f"dataset {self.folder} has no image {ref[:12]}")

    def __contains__(self, ref: str) -> bool:
        return self._index().get(ref) is not None or any(ref in other for other in self._sources())

    def select(self, kinds: Iterable[str] | None = None, splits: Iterable[str] | None = None) -> list[int]:
        """Gives the indices of the samples of these kinds and splits (None: all), in order."""
        keep = np.ones(len(self), dtype=bool)
        for name, wanted in (("kind", kinds), ("split", splits)):
            if wanted is not None:
                keep &= np.isin(np.array(self.column(name), dtype=object), list(wanted))
        return np.flatnonzero(keep).tolist()

    def column(self, name: str) -> list[Any]:
        """Gives one column of samples.arrow as a list; ``facts`` and ``source`` as dicts."""
        values = [value for batch in self._samples.batches for value in batch.column(name).to_pylist()]
        return [json.loads(value) for value in values] if name in ("facts", "source") else values

    def ledger(self) -> list[dict[str, Any]]:
        """Gives the ledger's rows."""
        with (self.folder / "ledger.jsonl").open(encoding="utf-8") as lines:
            return [json.loads(line) for line in lines]

    def refs(self) -> list[str]:
        """Gives the references of every image that can be read through this dataset, its own first."""
        found = dict.fromkeys(ref for batch in self._pictures.batches for ref in batch.column(0).to_pylist())
        for other in self._sources():
            found.update(dict.fromkeys(other.refs()))
        return list(found)

    def _index(self) -> RefIndex:
        if self._rows is None:
            self._rows = RefIndex(self._pictures)
        return self._rows

    def _sources(self) -> list[Dataset]:
        if self._others is None:
            self._others = [
                open_dataset(self.folder / other) for other in self.summary.get("images_from", [])
            ]
        return self._others


def writable(text: str) -> str:
    """Gives a text with backslash and code for half characters, which names of files may hold and no file of text."""
    return text.encode(errors="backslashreplace").decode()


def open_dataset(folder: Path | str) -> Dataset:
    """Opens a dataset folder.

    Raises:
        DataError: The folder is missing, unfinished or damaged.
    """
    return Dataset(folder)


def is_dataset(folder: Path | str) -> bool:
    """Says whether a folder holds a finished dataset."""
    return (Path(folder) / "dataset.json").is_file()


def _sample(row: dict[str, Any]) -> Sample:
    for message in row["messages"]:
        for part in message["content"]:
            if part["text"] is None:
                del part["text"]
    return Sample(
        row["id"], row["messages"], row["images"], json.loads(row["facts"]), json.loads(row["source"])
    )
