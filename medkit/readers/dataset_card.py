"""A dataset folder's README.md in Hugging Face's form: counts, licences, what became of the inputs; no one's data.

What it shows are numbers and words of medkit's own or of the domain card. Names of records, groups and files,
details of the ledger and licence texts that aren't in the table stay out: any of them may name a person.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from medkit.errors import DataError
from medkit.readers.licences import read_licence
from medkit.store import Dataset, open_dataset, write_atomically

FILE = "README.md"
MARK = "<!-- written by medkit -->"
SPLITS = ("train", "valid", "test")
SIZES = (
    (1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"),
    (10_000_000, "1M<n<10M"), (100_000_000, "10M<n<100M"),
)  # fmt: skip
TASKS = {
    "caption": "image-to-text",
    "description": "image-to-text",
    "conversation": "visual-question-answering",
    "reasoning": "visual-question-answering",
    "question": "visual-question-answering",
}
NO_LICENCE, OTHER_LICENCE = "none stated", "not in the table of licences"
# A modality or a reason is a word or a short phrase; anything longer wasn't written by a reader.
_PHRASE = re.compile(r"[^\W_][\w ,.'()/+-]{0,59}")


@dataclass
class _Counts:
    """What is counted of the samples, one after the other."""

    kinds: Counter[tuple[str, str]] = field(default_factory=Counter)
    modalities: Counter[str] = field(default_factory=Counter)
    licences: Counter[str] = field(default_factory=Counter)
    sources: Counter[str] = field(default_factory=Counter)
    teachers: Counter[str] = field(default_factory=Counter)
    facts: Counter[str] = field(default_factory=Counter)


def about(domain: dict[str, Any]) -> dict[str, Any]:
    """Gives what a dataset's summary keeps of its domain card, for the dataset card."""
    data = domain.get("data", {})
    return {
        "title": domain.get("title", domain["name"]),
        "description": domain.get("description", ""),
        "licence": domain.get("licence", ""),
        "license": data.get("license", "any"),
        "reader": data.get("reader", ""),
        "where": data.get("where", ""),
    }


def write_card(folder: Path | str) -> Path:
    """Writes a dataset folder's card and gives its path.

    Raises:
        DataError: The folder is no finished dataset, or has a README.md that medkit didn't write.
    """
    dataset = open_dataset(folder)
    path = dataset.folder / FILE
    if path.exists() and MARK not in path.read_text(encoding="utf-8", errors="replace"):
        raise DataError(f"{path} was written by somebody; move it, then ask again")
    write_atomically(path, card_text(dataset))
    return path


def card_text(dataset: Dataset) -> str:
    """Gives a dataset's card: YAML front matter, then Markdown. Reads the samples one by one."""
    counts = _count(dataset)
    summary = dataset.summary
    told = summary.get("about", {})
    title = _line(told.get("title") or summary.get("name", "dataset"))
    parts = [f"# {title}", MARK, _line(told.get("description", ""))]
    parts += ["## How much", _numbers(summary), _kinds_table(counts)]
    if counts.modalities:
        parts += ["## Modalities", _table(("modality", "samples"), counts.modalities.most_common())]
    if counts.facts:
        parts += ["## Facts", _table(("samples with", "samples"), counts.facts.most_common())]
    parts += ["## Licences", _licences(counts, told)]
    parts += ["## Sources", _sources(counts, told)]
    parts += ["## What became of every input", _fates(dataset)]
    parts += ["## Splits", _splits(summary)]
    parts += [
        "## Privacy",
        "This page holds counts and words of medkit and of the domain card; no record's name, no value of a "
        "header, no text of a report. The dataset itself isn't anonymous for that: see its privacy settings.",
    ]
    front = yaml.safe_dump(_front(title, summary, counts), sort_keys=False, allow_unicode=True)
    return f"---\n{front}---\n\n" + "\n\n".join(part for part in parts if part) + "\n"


def _count(dataset: Dataset) -> _Counts:
    counts = _Counts()
    for kind, split, facts, source in dataset.values("kind", "split", "facts", "source"):
        counts.kinds[kind, split] += 1
        labels = facts.get("labels")
        modality = facts.get("modality") or (labels.get("modality") if isinstance(labels, dict) else "")
        if modality:
            counts.modalities[_phrase(modality)] += 1
        counts.licences[_licence(str(source.get("licence") or ""))] += 1
        counts.sources[_phrase(source.get("dataset", ""))] += 1
        if source.get("teacher"):
            counts.teachers[_phrase(source["teacher"])] += 1
        for name in ("labels", "objects", "measurements", "findings", "volume", "mentions", "question"):
            counts.facts[name] += bool(facts.get(name))
    counts.facts = +counts.facts
    return counts


def _licence(text: str) -> str:
    if not text.strip():
        return NO_LICENCE
    return read_licence(text).name or OTHER_LICENCE


def _front(title: str, summary: dict[str, Any], counts: _Counts) -> dict[str, Any]:
    hub = {read_licence(name).hub or "other" for name in counts.licences if name != NO_LICENCE}
    hub |= {"unknown"} if NO_LICENCE in counts.licences else set()
    samples = int(summary.get("samples", 0))
    size = next((name for most, name in SIZES if samples < most), "100M<n<1B")
    tasks = {TASKS[kind] for kind, _ in counts.kinds if kind in TASKS}
    tasks |= {"object-detection"} if counts.facts["objects"] else set()
    tasks |= {"image-classification"} if counts.facts["labels"] else set()
    modalities = [name.lower() for name, _ in counts.modalities.most_common(10)]
    front: dict[str, Any] = {
        "pretty_name": title,
        "license": sorted(hub) if len(hub) > 1 else next(iter(hub), "unknown"),
        "size_categories": [size],
    }
    if tasks:
        front["task_categories"] = sorted(tasks)
    front["tags"] = ["medkit", "image-text", *modalities]
    return front


def _numbers(summary: dict[str, Any]) -> str:
    rows = [(name, summary[name]) for name in ("samples", "images", "groups", "bytes") if name in summary]
    return _table(("", "count"), rows)


def _kinds_table(counts: _Counts) -> str:
    kinds = sorted({kind for kind, _ in counts.kinds})
    splits = [one for one in SPLITS if any(split == one for _, split in counts.kinds)]
    splits += sorted({split for _, split in counts.kinds} - set(splits))
    rows = [(kind, *(counts.kinds[kind, split] for split in splits)) for kind in kinds]
    return _table(("kind", *splits), rows)


def _licences(counts: _Counts, told: dict[str, Any]) -> str:
    rows = []
    for name, count in counts.licences.most_common():
        licence = read_licence(name)
        rows.append((name, count, _yes(licence.research), _yes(licence.commercial)))
    table = _table(("licence", "samples", "research", "commercial"), rows)
    use = told.get("license", "any")
    kept = "" if use == "any" else f"\n\nOnly records whose licence allows {use} use were taken."
    return f"{table}{kept}\n\nWhat a licence allows is medkit's table, no legal advice."


def _sources(counts: _Counts, told: dict[str, Any]) -> str:
    rows = [("dataset", name, count) for name, count in counts.sources.most_common()]
    rows += [("text made by", name, count) for name, count in counts.teachers.most_common()]
    lines = [_table(("", "name", "samples"), rows)]
    if told.get("reader"):
        lines.append(
            f"Read by medkit's reader `{_line(told['reader'])}`. {_line(told.get('where', ''))}".strip()
        )
    return "\n\n".join(lines)


def _fates(dataset: Dataset) -> str:
    fates: Counter[str] = Counter()
    reasons: Counter[tuple[str, str]] = Counter()
    with (dataset.folder / "ledger.jsonl").open(encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            fates[row["fate"]] += 1
            if row["reason"]:
                reasons[row["fate"], _phrase(row["reason"])] += 1
    tables = [_table(("fate", "records"), fates.most_common())]
    if reasons:
        rows = [(fate, reason, count) for (fate, reason), count in sorted(reasons.items(), key=_by_count)]
        tables.append(_table(("fate", "reason", "records"), rows))
    return "\n\n".join(tables)


def _by_count(item: tuple[tuple[str, str], int]) -> tuple[str, int, str]:
    (fate, reason), count = item
    return fate, -count, reason


def _splits(summary: dict[str, Any]) -> str:
    lines = [f"{summary.get('groups', 0)} groups (patients, articles or pictures); none is in two splits."]
    made = summary.get("splits_made_here")
    if made:
        lines.append(
            f"Cut here by a hash of the group: {', '.join(map(str, made))}. The others are the source's."
        )
    near = summary.get("near_duplicates_across_splits")
    if near is not None:
        pairs = ", ".join(
            f"{pair} {count}" for pair, count in summary.get("near_duplicate_pairs", {}).items()
        )
        lines.append(
            f"Held-out pictures with a near-duplicate in another split: {near}{f' ({pairs})' if pairs else ''}."
        )
    return "\n".join(lines)


def _table(head: tuple[str, ...], rows: Iterable[tuple[Any, ...]]) -> str:
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    lines += [f"| {' | '.join(str(cell) for cell in row)} |" for row in rows]
    return "\n".join(lines)


def _phrase(value: Any) -> str:
    text = str(value)
    return text if _PHRASE.fullmatch(text) else "other"


def _line(text: Any) -> str:
    """Gives a card's sentence on one line, which can't end the front matter or open a tag."""
    return " ".join(str(text).split()).replace("|", "/").replace("<", "‹").replace(">", "›")


def _yes(allowed: bool) -> str:
    return "yes" if allowed else "no"
