"""The second pass of ingest: every sample its split, records that say nothing new merged, near-duplicates told."""

from __future__ import annotations

import json
import os
from array import array
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from medkit.digests import DigestTable, digest_of
from medkit.readers.duplicates import LOOK_BYTES, coarse_of, greys_of, hashes_of, near_pairs
from medkit.readers.known import LOOK_ROW
from medkit.readers.splits import STRICT, Splitter
from medkit.readers.spool import Spool, Stored
from medkit.sample import Sample
from medkit.store import DatasetWriter

EXAMPLES = 10
ROWS_AT_ONCE = 1 << 14


class Unsettled:
    """Samples that wait for their split: on disk as a whole, in memory with what decides it.

    Args:
        folder: Where their file lies meanwhile.
        seed: Of the splits that are made.
    """

    def __init__(self, folder: Path, seed: int):
        self.spool = Spool(folder / "samples.jsonl")
        self.splitter = Splitter(seed)
        self.usable, self.unknown = array("i"), array("i")  # places in the spool
        self.pictures = 0

    def __enter__(self) -> Unsettled:
        self.spool.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self.spool.__exit__(*error)

    def __len__(self) -> int:
        return len(self.spool)

    def add(self, one: Stored, split: str | None, pictures: list[int]) -> None:
        """Takes a sample.

        Args:
            one: The sample with the source's own split name.
            split: The same as train, valid or test; None where the name is unknown or there is none.
            pictures: Numbers of its pictures in the dataset.
        """
        if one.split is not None and split is None:
            self.unknown.append(len(self.spool))
        else:
            self.usable.append(len(self.spool))
            self.splitter.add(one.sample.group, split, pictures)
        self.pictures = max([self.pictures, *(number + 1 for number in pictures)])
        self.spool.add(one)


def settle(samples: Unsettled, looks: Path, max_peak: float, to: DatasetWriter) -> None:
    """Gives every sample its split and writes it; what must stay out goes to the ledger with the reason.

    Args:
        samples: All of the source.
        looks: File with the looks of the dataset's pictures, in their order.
        max_peak: See ``duplicates.near_pairs``.
        to: The dataset.
    """
    spool = samples.spool
    for place in samples.unknown:
        one = spool[place]
        to.reject(one.sample.id, "unknown split", f"{one.split!r} is not in the domain card's splits")
    splits, made = samples.splitter.assign()
    to.note("splits_made_here", made)
    given = samples.splitter.given()
    astray = samples.splitter.torn() & (given >= 0) & (given != splits)
    usable = np.array(samples.usable, dtype=np.int32)
    for row in np.flatnonzero(astray):
        sample = spool[usable[row]].sample
        into, out_of = STRICT[splits[row]], STRICT[given[row]]
        detail = f"its group {sample.group} is also in {into}, so it stays out of {out_of}"
        to.reject(sample.id, "group in two splits", detail)
    split_of = np.full(len(spool), -1, dtype=np.int8)
    split_of[usable[~astray]] = splits[~astray]
    shown = _write(spool, split_of, samples.pictures, to)
    _tell_near_duplicates(shown, spool, looks, max_peak, to)


class _Shown:
    """Which pictures a split shows: in order of appearance, and the sample that showed each first."""

    def __init__(self, pictures: int):
        self.order = [array("i") for _ in STRICT]
        self.first = np.full((len(STRICT), pictures), -1, dtype=np.int32)

    def add(self, split: int, picture: int, place: int) -> None:
        if self.first[split, picture] < 0:
            self.first[split, picture] = place
            self.order[split].append(picture)


def _write(spool: Spool, split_of: np.ndarray, pictures: int, to: DatasetWriter) -> _Shown:
    """Writes the samples; records that say nothing new about a picture of their split are merged."""
    seen, shown = DigestTable(), _Shown(pictures)
    for place, one in enumerate(spool):
        if split_of[place] < 0:
            continue
        sample = _ready(one, STRICT[split_of[place]])
        if sample.id in to:
            to.reject(sample.id, "repeated id", "an earlier record has the same id")
            continue
        if sample.kind == "record" and sample.images:
            facts = json.dumps([sample.split, sample.images, sample.facts], sort_keys=True)
            first = seen.setdefault(digest_of(facts), place)
            if first != place:
                to.merge(sample.id, "same picture and facts", f"as {spool[first].sample.id}")
                continue
        to.add(sample)
        for ref in sample.images:
            shown.add(int(split_of[place]), to.pictures.number_of_ref(ref) or 0, place)
        for reason, detail in one.notes:
            to.tell(sample.id, reason, detail)
    return shown


def _ready(one: Stored, split: str) -> Sample:
    source = {**one.sample.source, "split": split}
    # A question of the training splits is something to learn from, not to ask.
    if source["kind"] == "question" and split != "test":
        source["kind"] = one.learnt_as or "conversation"
    return replace(one.sample, source=source)


def _tell_near_duplicates(
    shown: _Shown, spool: Spool, looks: Path, max_peak: float, to: DatasetWriter
) -> None:
    """Writes into ledger and summary which held-out pictures have a near-duplicate in another split."""
    told: set[int] = set()
    pairs: Counter[str] = Counter()
    examples = []
    with looks.open("rb") as file:
        hashes, coarse = _read(looks)

        def grey_of(rows: np.ndarray) -> np.ndarray:
            parts = [os.pread(file.fileno(), LOOK_BYTES, row * LOOK_ROW + 32) for row in rows.tolist()]
            return greys_of(np.frombuffer(b"".join(parts), dtype=np.uint8).reshape(-1, LOOK_BYTES))

        for split, other in (("test", "train"), ("test", "valid"), ("valid", "train")):
            one, two = STRICT.index(split), STRICT.index(other)
            rows = np.array(shown.order[one], dtype=np.int64), np.array(shown.order[two], dtype=np.int64)
            for picture, twin_picture, distance in near_pairs(hashes, coarse, grey_of, rows, max_peak):
                record = spool[int(shown.first[one, picture])].sample.id
                twin = spool[int(shown.first[two, twin_picture])].sample.id
                detail = f"{split} looks like {other} {twin}, {distance} of 64 hash bits apart"
                to.tell(record, "near-duplicate across splits", detail)
                told.add(picture)
                pairs[f"{split}~{other}"] += 1
                if len(examples) < EXAMPLES:
                    examples.append(
                        {"record": record, "twin": twin, "splits": [split, other], "distance": distance}
                    )
    to.note("near_duplicates_across_splits", len(told))
    to.note("near_duplicate_pairs", dict(pairs))
    to.note("near_duplicate_examples", examples)


def _read(looks: Path) -> tuple[np.ndarray, np.ndarray]:
    """Gives hashes, uint64 [N], and coarse greys, uint8 [N, 16], of a file of looks."""
    hashes, coarse = [np.zeros(0, np.uint64)], [np.zeros((0, 16), np.uint8)]
    with looks.open("rb") as file:
        while data := file.read(ROWS_AT_ONCE * LOOK_ROW):
            rows = np.frombuffer(data, dtype=np.uint8).reshape(-1, LOOK_ROW)[:, 32:]
            hashes.append(hashes_of(rows))
            coarse.append(coarse_of(rows))
    return np.concatenate(hashes), np.concatenate(coarse)
