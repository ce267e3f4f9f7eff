"""The benchmark step: a benchmark's own rows as a dataset folder, with its counts held against the card's."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

from medkit.cards.faults import did_you_mean, validate
from medkit.cards.models import Benchmark
from medkit.cards.shelf import open_shelf, shown_path
from medkit.cards.sources import benchmark_path
from medkit.cards.strict_yaml import read_card
from medkit.errors import CardError, DataError
from medkit.readers import Merged, Record, Rejected, get_reader, options_of, our_split
from medkit.readers.engines import open_engine
from medkit.readers.known import key_of
from medkit.readers.prepare import Outcome, without_bytes
from medkit.readers.spool import Stored
from medkit.readers.take import stored
from medkit.readers.workers import Engine, made_by
from medkit.store import DatasetWriter, is_dataset

MADE = "test"  # the split that every question of a benchmark's folder has, whichever part was read


def read_benchmark(settings: dict[str, Any], inputs: dict[str, Path], out: Path) -> dict[str, Any]:
    """Reads one part of a benchmark into a dataset folder; all of its questions are in its test split.

    Args:
        settings: ``benchmark`` (the card as a mapping), ``data`` (a folder, or ``hub:ID@REVISION``), and
            optionally ``part`` (train, valid or test; else the card's ``source.split``).
        inputs: Not used; the step reads a source outside the run.
        out: Where the dataset folder goes.

    Returns:
        The dataset's summary with ``part``, ``expected`` and ``found`` counts, ``differs`` (a sentence for each
        count that isn't the card's), ``defects`` {what was mended or noted: rows} and ``revision``.

    Raises:
        DataError: The source is missing, or no question of the part could be used.
    """
    card = settings["benchmark"]
    data, name = card["data"], card["name"]
    root, revision = _folder(settings.get("data") or "", data, name)
    part = settings.get("part") or card["source"]["split"]
    options = {**data["options"], "splits": list(data["splits"])}
    if "part" in options_of(data["reader"]):  # reading the reports of a large train part takes minutes
        options["part"] = part
    counts, told = Counter[str](), Counter[str]()
    seen: set[str] = set()
    made: dict[bytes, Outcome] = {}
    with DatasetWriter(out, name=name) as to, open_engine(1, "local", to.limits) as engine:
        about = {"name": name, "licence": card["licence"]}
        for item in get_reader(data["reader"])(root, options):
            if isinstance(item, Record):
                split = our_split(item.split, data["splits"]) if item.split is not None else part
                if split != part or "question" not in item.facts:
                    reason = "another split" if split != part else "no question"
                    to.reject(item.id, reason, f"{part} is asked" if split != part else "nothing to ask")
                    continue
            one = _stored(item, about, to, engine, made)
            if one is None:
                continue
            sample = replace(one.sample, source={**one.sample.source, "split": MADE, "part": part})
            if sample.id in to:
                to.reject(sample.id, "repeated id", "an earlier record has the same id")
                continue
            to.add(sample)
            for reason, detail in one.notes:
                to.tell(sample.id, reason, detail)
            told.update(reason for reason, _ in one.notes)
            seen.update(sample.images)
            asked = sample.facts["question"]
            counts["questions"] += 1
            counts["closed"] += sample.source.get("closed") is True
            counts[asked["answer_type"]] += 1
        if not counts["questions"]:
            reasons = ", ".join(f"{reason} ({count})" for reason, count in to.rejections.most_common(3))
            raise DataError(
                f"benchmark {name}: {root} has no question of the {part} part"
                + (f": {reasons}" if reasons else "; is it the right folder?")
            )
        found = {"questions": counts["questions"], "images": len(seen)}
        found |= {key: counts[key] for key in ("closed", "yes_no", "choice")}
        expected = data["expected"] if part == card["source"]["split"] else {}
        to.note("part", part)
        to.note("expected", expected)
        to.note("found", found)
        to.note("differs", differences(expected, found))
        to.note("defects", dict(told.most_common()))
        to.note("revision", revision)
    return to.summary


def _stored(
    item: Record | Rejected | Merged,
    about: dict[str, str],
    to: DatasetWriter,
    engine: Engine,
    made: dict[bytes, Outcome],
) -> Stored | None:
    """Stores an item; a picture that many questions ask about is decoded once."""
    if not isinstance(item, Record):
        return stored(item, None, about, to)
    key = key_of(item.image, to.limits)
    outcome = made.get(key) if key is not None else None
    if outcome is None:
        outcome = made_by(engine, item.image, to.limits)
        if key is not None:
            made[key] = without_bytes(outcome)
    return stored(item, outcome, about, to)


def differences(expected: dict[str, int], found: dict[str, int]) -> list[str]:
    """Gives a sentence for each count that isn't the card's."""
    words = {"yes_no": "yes/no answers", "closed": "closed questions", "choice": "questions with choices"}
    return [
        f"{found.get(key, 0):,} {words.get(key, key)} where the card says {count:,}"
        for key, count in expected.items()
        if found.get(key, 0) != count
    ]


def find_benchmark(name: str, data: str | None = None) -> dict[str, Any]:
    """Gives ``read_benchmark``'s settings for a card of the shelf.

    Args:
        name: The card's name.
        data: Folder of its data, in place of the card's own.

    Raises:
        DataError: There is no such card, or it has no data of its own.
        CardError: The card is faulty, or its data isn't there.
    """
    shelf = open_shelf()
    path = shelf.find("benchmark", name)
    if path is None:
        hint = did_you_mean(name, shelf.names("benchmark")) or "medkit list benchmarks names those that are"
        raise DataError(f"there is no benchmark {name} on the shelf; {hint}")
    document = read_card(path, shown_path(path))
    if document.problems:
        raise CardError(document.problems)
    card, problems = validate(Benchmark, document)
    if card is None or problems:
        raise CardError(problems)
    if card.data is None:
        raise DataError(f"benchmark {name} has no data of its own: its questions are those of a domain")
    if data is None:
        data, problems = benchmark_path(card, document, ("data",))
        if problems:
            raise CardError(problems)
    return {"benchmark": card.model_dump(), "data": data}


def write_benchmark(name: str, out: Path, data: str | None = None, part: str | None = None) -> str:
    """Reads a benchmark of the shelf into a new dataset folder and gives what is to be said, in lines.

    Raises:
        DataError: The part has no such name, or something else lies at the folder's place.
    """
    if part not in (None, "train", "valid", "test"):
        raise DataError(f"--part {part}: must be train, valid or test")
    if out.exists() and not is_dataset(out) and (out.is_file() or any(out.iterdir())):
        raise DataError(f"{out} is there and is no dataset folder; give --out another name")
    settings = find_benchmark(name, data)
    out.mkdir(parents=True, exist_ok=True)
    return "\n".join([*told(read_benchmark({**settings, "part": part}, {}, out)), f"wrote {out}"])


def told(summary: dict[str, Any]) -> list[str]:
    """Gives a benchmark's summary in lines: counts, what differs from the card, defects, refused rows."""
    found = summary["found"]
    lines = [
        f"{summary['part']}: {found['questions']:,} questions about {found['images']:,} images, "
        f"{found['yes_no']:,} with a yes/no answer, {found['closed']:,} called closed, {found['choice']:,} with choices"
    ]
    if summary["expected"]:
        lines += [f"differs: {line}" for line in summary["differs"]] or ["counts: as the card says"]
    lines += [f"told: {reason} ({count:,})" for reason, count in summary["defects"].items()]
    lines += [f"left out: {reason} ({count:,})" for reason, count in summary.get("rejected", {}).items()]
    return lines


def _folder(place: str, data: dict[str, Any], name: str) -> tuple[Path, str]:
    """Gives the folder of a benchmark's files and, from the hub, the commit that they are of."""
    if not place.startswith("hub:"):
        root = Path(place).expanduser()
        if not place or not root.is_dir():
            where = f"; where to get it: {data['where']}" if data["where"] else ""
            raise DataError(f"benchmark {name}: the data folder {place or '(none)'} isn't there{where}")
        return root, ""
    from huggingface_hub import snapshot_download

    hub, _, revision = place.removeprefix("hub:").partition("@")
    try:
        root = Path(
            snapshot_download(
                hub, repo_type="dataset", revision=revision, allow_patterns=data["hub_files"] or None
            )
        )
    except Exception as error:  # whatever the network or the hub says
        raise DataError(
            f"benchmark {name}: {hub} at {revision} can't be fetched ({type(error).__name__}); "
            f"give its files as a folder{' in ' + data['env'] if data['env'] else ''}, or check the network"
        ) from error
    return root, root.name
