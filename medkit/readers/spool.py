"""A file of samples that wait for their split."""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medkit.sample import Sample


@dataclass(frozen=True)
class Stored:
    """A record whose pictures are stored; its split is still the source's name."""

    sample: Sample
    split: str | None
    notes: tuple[tuple[str, str], ...]
    learnt_as: str


class Spool:
    """Samples on disk in order, 8 bytes of memory each; a context that removes the file.

    Args:
        path: Where the file lies meanwhile.
    """

    def __init__(self, path: Path):
        self._path = path
        self._places = array("q")
        self._end = 0

    def __enter__(self) -> Spool:
        self._file = self._path.open("w+b")
        return self

    def __exit__(self, *_: Any) -> None:
        self._file.close()
        self._path.unlink(missing_ok=True)

    def __len__(self) -> int:
        return len(self._places)

    def add(self, one: Stored) -> None:
        """Takes a sample."""
        sample = one.sample
        row = [
            sample.id, sample.messages, sample.images, sample.facts, sample.source, one.split, one.notes, one.learnt_as,
        ]  # fmt: skip
        line = json.dumps(row).encode() + b"\n"
        self._file.write(line)
        self._places.append(self._end)
        self._end += len(line)

    def __getitem__(self, place: int) -> Stored:
        self._file.seek(self._places[place])
        return _stored(self._file.readline())

    def __iter__(self) -> Iterator[Stored]:
        self._file.flush()
        with self._path.open("rb") as lines:
            yield from map(_stored, lines)


def _stored(line: bytes) -> Stored:
    identifier, messages, images, facts, source, split, notes, learnt_as = json.loads(line)
    told = tuple((reason, detail) for reason, detail in notes)
    return Stored(Sample(identifier, messages, images, facts, source), split, told, learnt_as)
