"""The ingest step: reads a domain's source into a dataset folder, with splits by group."""

from __future__ import annotations

import json
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from PIL import Image

from medkit import images as pictures
from medkit.cards.shelf import open_shelf
from medkit.errors import DataError
from medkit.readers import SPLIT_NAMES, Merged, Record, Rejected, get_reader
from medkit.readers.dataset_card import about, write_card
from medkit.readers.duplicates import Fingerprints
from medkit.readers.licences import licensed
from medkit.readers.splits import Member, assign_splits, rank
from medkit.sample import Sample, assistant_turn, user_turn
from medkit.store import DatasetWriter

EXAMPLES = 10
DRAWN_PEAK = 16.0
CAPTION_PROMPT = "Describe the picture."


def ingest(settings: dict[str, Any], inputs: dict[str, Path], out: Path) -> dict[str, Any]:
    """Reads a domain's source into a dataset folder.

    The source's own splits are kept, as the card maps them; a group that is in test leaves the others.
    Where the source has no test split, 15 % of the groups become it; ``valid`` is cut from the train
    groups (5 %, at most 400) by a hash of seed and group.

    Args:
        settings: ``domain`` (the card as a mapping), ``data`` (path of the source, or None: the card's
            environment variable), ``seed`` of the splits that are made here, ``limit`` (at most so many
            records of each split, chosen by a hash), ``count`` (at most so many training records).
        inputs: Not used; the step reads a source outside the run.
        out: Where the dataset folder goes.

    Returns:
        The dataset's summary: samples, images, kinds, splits, groups, fates, rejected {reason: n}, bytes,
        near_duplicates_across_splits and examples of them.

    Raises:
        DataError: The source is missing, or no record of it could be used.
    """
    domain = settings["domain"]
    data = domain["data"]
    root = source_root(settings)
    options = dict(data.get("options", {}))
    limit, count = settings.get("limit"), settings.get("count")
    if data["reader"] == "drawn":
        for split, most in (("train", _least(limit, count)), ("valid", limit), ("test", limit)):
            if most is not None and split in options:
                options[split] = min(options[split], most)
    options.setdefault("splits", list(data.get("splits", {})))
    seed = int(settings.get("seed", 0))
    prints = Prints()
    with DatasetWriter(out, name=domain["name"], on_image=prints.add) as to:
        items = licensed(get_reader(data["reader"])(root, options), domain)
        if limit is not None or count is not None:
            items = _limited(items, data.get("splits", {}), limit, count, seed)
        read = [sample for item in items if (sample := stored(item, domain, to, prints)) is not None]
        if not read:
            raise DataError(_nothing(root, to))
        samples = _with_splits(read, data.get("splits", {}), seed, to)
        written = _write(samples, to)
        max_peak = DRAWN_PEAK if data["reader"] == "drawn" else 255.0
        _tell_near_duplicates(written, prints.fingerprints, max_peak, to)
        if not written:
            raise DataError(_nothing(root, to))
        to.note("about", about(domain))
    write_card(out)
    return to.summary


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


class Prints:
    """Sizes and perceptual fingerprints of the stored pictures."""

    def __init__(self) -> None:
        self.sizes: dict[str, tuple[int, int]] = {}
        self.fingerprints = Fingerprints()

    def add(self, ref: str, image: Image.Image) -> None:
        self.sizes[ref] = image.size
        self.fingerprints.add(ref, image)


@dataclass(frozen=True)
class Stored:
    """A record whose pictures are stored; its split is still the source's name."""

    sample: Sample
    split: str | None
    notes: tuple[tuple[str, str], ...]
    learnt_as: str


def _limited(
    items: Iterable[Record | Rejected | Merged],
    names: dict[str, str],
    limit: int | None,
    count: int | None,
    seed: int,
) -> Iterator[Record | Rejected | Merged]:
    """Keeps at most ``limit`` records a split (``count`` of train), chosen by a hash, in their order."""
    everything = list(items)
    by_split: dict[str, list[Record]] = defaultdict(list)
    for item in everything:
        if isinstance(item, Record):
            by_split[our_split(item.split, names) or "train"].append(item)
    kept: set[int] = set()
    for split, records in by_split.items():
        most = _least(limit, count) if split == "train" else limit
        ranked = sorted(records, key=lambda record: rank(seed, record.id))
        kept.update(id(record) for record in (ranked if most is None else ranked[:most]))
    for item in everything:
        if not isinstance(item, Record) or id(item) in kept:
            yield item


def stored(
    item: Record | Rejected | Merged, domain: dict[str, Any], to: DatasetWriter, prints: Prints
) -> Stored | None:
    """Stores a record's pictures and gives its sample, or writes why not into the ledger."""
    if isinstance(item, Rejected):
        to.reject(item.record, item.reason, item.detail)
        return None
    if isinstance(item, Merged):
        to.merge(item.record, item.reason, item.detail)
        return None
    refs, notes = [], item.notes
    try:
        images: Any = item.image if isinstance(item.image, list) else [item.image]
        if callable(item.image):
            loaded = item.image()
            images, notes = loaded.images, notes + loaded.notes
        for image in images:
            data = pictures.read_limited(image, to.limits) if isinstance(image, Path) else image
            refs.append(to.add_image(data))
    except DataError as error:
        # A loader's error says its own reason.
        reason, detail = getattr(error, "reason", "image unreadable"), getattr(error, "detail", str(error))
        to.reject(item.id, reason, detail)
        return None
    messages, kind = item.messages or [], "record"
    if messages:
        kind = "question" if "question" in item.facts else "conversation"
    elif item.caption:
        kind = "caption"
        shows = str(item.facts.get("shows", ""))
        messages = [user_turn(CAPTION_PROMPT, len(refs), shows), assistant_turn(item.caption)]
    facts = dict(item.facts)
    if refs:
        facts["width"], facts["height"] = prints.sizes[refs[0]]
    source = {
        **item.extra,
        "dataset": domain["name"],
        "record": item.id,
        "licence": item.licence or domain.get("licence", ""),
        "group": item.group or item.id,
        "kind": kind,
    }
    return Stored(Sample(item.id, messages, refs, facts, source), item.split, notes, item.kind)


def _with_splits(
    read: list[Stored], names: dict[str, str], seed: int, to: DatasetWriter
) -> list[tuple[Sample, Stored]]:
    """Gives every sample its split; records that must stay out of one go to the ledger."""
    usable = []
    for one in read:
        if one.split is not None and our_split(one.split, names) is None:
            to.reject(one.sample.id, "unknown split", f"{one.split!r} is not in the domain card's splits")
        else:
            usable.append(one)
    members = [
        Member(one.sample.group, our_split(one.split, names), tuple(one.sample.images)) for one in usable
    ]
    splits, made = assign_splits(members, seed)
    to.note("splits_made_here", made)
    in_splits: dict[str, set[str]] = defaultdict(set)
    for member in members:
        if member.split is not None:
            in_splits[member.group].add(member.split)
    ready = []
    for one, member, split in zip(usable, members, splits, strict=True):
        if member.split not in (None, split) and len(in_splits[member.group]) > 1:
            detail = f"its group {member.group} is also in {split}, so it stays out of {member.split}"
            to.reject(one.sample.id, "group in two splits", detail)
            continue
        source = {**one.sample.source, "split": split}
        # A question of the training splits is something to learn from, not to ask.
        if source["kind"] == "question" and split != "test":
            source["kind"] = one.learnt_as or "conversation"
        ready.append((replace(one.sample, source=source), one))
    return ready


def _write(samples: list[tuple[Sample, Stored]], to: DatasetWriter) -> list[Sample]:
    """Writes the samples; records that say nothing new about a picture of their split are merged."""
    seen: dict[tuple[str, ...], str] = {}
    written = []
    for sample, one in samples:
        if sample.id in to:
            to.reject(sample.id, "repeated id", "an earlier record has the same id")
            continue
        if sample.kind == "record" and sample.images:
            key = (sample.split, *sample.images, json.dumps(sample.facts, sort_keys=True))
            first = seen.setdefault(key, sample.id)
            if first != sample.id:
                to.merge(sample.id, "same picture and facts", f"as {first}")
                continue
        to.add(sample)
        written.append(sample)
        for reason, detail in one.notes:
            to.tell(sample.id, reason, detail)
    return written


def _tell_near_duplicates(
    samples: list[Sample], fingerprints: Fingerprints, max_peak: float, to: DatasetWriter
) -> None:
    """Writes into ledger and summary which held-out pictures have a near-duplicate in another split."""
    refs: dict[str, list[str]] = defaultdict(list)
    records: dict[tuple[str, str], str] = {}
    for sample in samples:
        for ref in sample.images:
            refs[sample.split].append(ref)
            records.setdefault((sample.split, ref), sample.id)
    told: set[str] = set()
    pairs: Counter[str] = Counter()
    examples = []
    for split, other in (("test", "train"), ("test", "valid"), ("valid", "train")):
        for twins in fingerprints.twins(refs[split], refs[other], max_peak):
            record, twin = records[split, twins.first], records[other, twins.second]
            detail = f"{split} looks like {other} {twin}, {twins.distance} of 64 hash bits apart"
            to.tell(record, "near-duplicate across splits", detail)
            told.add(twins.first)
            pairs[f"{split}~{other}"] += 1
            if len(examples) < EXAMPLES:
                examples.append(
                    {"record": record, "twin": twin, "splits": [split, other], "distance": twins.distance}
                )
    to.note("near_duplicates_across_splits", len(told))
    to.note("near_duplicate_pairs", dict(pairs))
    to.note("near_duplicate_examples", examples)


def our_split(split: str | None, names: dict[str, str]) -> str | None:
    if split is None:
        return None
    return names.get(split) or SPLIT_NAMES.get(split.strip().lower())


def _least(*numbers: int | None) -> int | None:
    return min((number for number in numbers if number is not None), default=None)


def _nothing(root: Path, to: DatasetWriter) -> str:
    reasons = ", ".join(f"{reason} ({count})" for reason, count in to.rejections.most_common(3))
    return f"no record under {root} could be used" + (
        f": {reasons}" if reasons else "; is it the right folder?"
    )
