"""The ingest step: reads a domain's source into a dataset folder, with splits by group.

Records stream through: a reader names them, workers make their pictures, and the samples wait on disk until every
group is known and the splits can be cut. What stays in memory is some 400 bytes a record, whatever a record holds.
"""

from __future__ import annotations

import heapq
import os
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from medkit.cards.shelf import open_shelf
from medkit.errors import DataError
from medkit.progress import bar
from medkit.readers import Merged, Record, Rejected, get_reader, our_split
from medkit.readers.dataset_card import about, write_card
from medkit.readers.engines import open_engine
from medkit.readers.known import Known
from medkit.readers.licences import licensed
from medkit.readers.settle import Unsettled, settle
from medkit.readers.splits import rank
from medkit.readers.take import taken
from medkit.readers.workers import in_order
from medkit.store import DatasetWriter

DRAWN_PEAK = 16.0


def ingest(settings: dict[str, Any], inputs: dict[str, Path], out: Path) -> dict[str, Any]:
    """Reads a domain's source into a dataset folder.

    The source's own splits are kept, as the card maps them; a group that is in test leaves the others.
    Where the source has no test split, 15 % of the groups become it; ``valid`` is cut from the train
    groups (5 %, at most 400) by a hash of seed and group.

    Args:
        settings: ``domain`` (the card as a mapping), ``data`` (path of the source, or None: the card's
            environment variable), ``seed`` of the splits that are made here, ``limit`` (at most so many
            records of each split, chosen by a hash), ``count`` (at most so many training records),
            ``workers`` (processes that make the pictures, or "auto"; absent: this process makes them) and
            ``engine`` (local or ray): they change no byte of the dataset.
        inputs: Not used; the step reads a source outside the run.
        out: Where the dataset folder goes. What an earlier or a stopped reading left there is not decoded again,
            see ``medkit.readers.known``.

    Returns:
        The dataset's summary: samples, images, kinds, splits, groups, fates, rejected {reason: n}, bytes,
        near_duplicates_across_splits and examples of them; with ``reading``: how many records' pictures
        were made and how many remembered, and the seconds.

    Raises:
        DataError: The source is missing, or no record of it could be used.
    """
    domain = settings["domain"]
    names = domain["data"].get("splits", {})
    root = source_root(settings)
    seed = int(settings.get("seed", 0))
    counts = Counter[str](made=0, remembered=0)
    begun = time.monotonic()
    with Known(out) as known:
        with DatasetWriter(out, name=domain["name"]) as to, Unsettled(known.reading, seed) as samples:
            engine = open_engine(settings.get("workers"), settings.get("engine", "local"), to.limits)
            with engine, bar(f"{domain['name']}: records", None) as progress:
                for item, key, outcome in in_order(_items(root, settings, seed), known, engine, to.limits):
                    one = taken(item, key, outcome, domain, to, known, engine, counts)
                    if one is not None:
                        numbers = [to.pictures.number_of_ref(ref) or 0 for ref in one.sample.images]
                        samples.add(one, our_split(one.split, names), numbers)
                    progress.advance()
            known.close_reading()
            if len(samples):
                max_peak = DRAWN_PEAK if domain["data"]["reader"] == "drawn" else 255.0
                settle(samples, known.looks, max_peak, to)
            if not to.rows:
                raise DataError(_nothing(root, to))
            to.note("about", about(domain))
        known.finish()
    write_card(out)
    return {**to.summary, "reading": {**counts, "seconds": round(time.monotonic() - begun, 3)}}


def source_root(settings: dict[str, Any]) -> Path:
    """Gives the folder that a domain's reader reads.

    Raises:
        DataError: No path is given or it doesn't exist; says where the set can be had.
    """
    domain = settings["domain"]
    data = domain["data"]
    if data["reader"] == "drawn":
        folder = domain.get("folder") or settings.get("folder")
        card = Path(folder) / "domain.yaml" if folder else open_shelf().find("domain", domain["name"])
        if card is None:
            raise DataError(f"domain {domain['name']} is on no shelf, so its domain.py can't be found")
        return card.parent
    variable = data.get("env", "")
    path = settings.get("data") or (os.environ.get(variable) if variable else None)
    where = f" {data['where']}" if data.get("where") else ""
    if not path:
        hint = f" or the environment variable {variable}" if variable else ""
        raise DataError(f"domain {domain['name']} needs a data path: give --set data=FOLDER{hint}.{where}")
    root = Path(path).expanduser()
    if not root.exists():
        raise DataError(f"the data path {path} of domain {domain['name']} doesn't exist.{where}")
    return root


def _items(root: Path, settings: dict[str, Any], seed: int) -> Iterator[Record | Rejected | Merged]:
    """Gives what the reader gives, within the limits."""
    data = settings["domain"]["data"]
    options = dict(data.get("options", {}))
    limit, count = settings.get("limit"), settings.get("count")
    if data["reader"] == "drawn":
        for split, most in (("train", _least(limit, count)), ("valid", limit), ("test", limit)):
            if most is not None and split in options:
                options[split] = min(options[split], most)
    options.setdefault("splits", list(data.get("splits", {})))
    items = licensed(get_reader(data["reader"])(root, options), settings["domain"])
    if limit is None and count is None:
        return items
    return _limited(items, data.get("splits", {}), limit, count, seed)


def _limited(
    items: Iterable[Record | Rejected | Merged],
    names: dict[str, str],
    limit: int | None,
    count: int | None,
    seed: int,
) -> Iterator[Record | Rejected | Merged]:
    """Keeps at most ``limit`` records a split (``count`` of train), chosen by a hash, in their order."""
    kept: dict[int, Record | Rejected | Merged] = {}
    highest: dict[str, list[tuple[int, int]]] = defaultdict(list)  # heaps: the record to give up stands first
    for number, item in enumerate(items):
        kept[number] = item
        if not isinstance(item, Record):
            continue
        split = our_split(item.split, names) or "train"
        most = _least(limit, count) if split == "train" else limit
        if most is None:
            continue
        heapq.heappush(highest[split], (-int.from_bytes(rank(seed, item.id)), -number))
        if len(highest[split]) > most:
            del kept[-heapq.heappop(highest[split])[1]]
    yield from kept.values()


def _least(*numbers: int | None) -> int | None:
    return min((number for number in numbers if number is not None), default=None)


def _nothing(root: Path, to: DatasetWriter) -> str:
    reasons = ", ".join(f"{reason} ({count})" for reason, count in to.rejections.most_common(3))
    return f"no record under {root} could be used" + (
        f": {reasons}" if reasons else "; is it the right folder?"
    )
