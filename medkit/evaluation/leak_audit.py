"""The leak audit between two sets: what a test set shares with the set that a model was trained on."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from medkit.errors import DataError
from medkit.evaluation.leak_languages import Row, count_across, text_pairs, told_across
from medkit.evaluation.leaks import EXAMPLES, match_fingerprints
from medkit.evaluation.scorers import normalise
from medkit.sample import Sample, text_of
from medkit.store import Dataset, is_dataset, open_dataset, write_atomically

# A name such as 1.jpg or source.jpg says nothing about whose picture it is.
_LEAST_NAME = 6


@dataclass
class Side:
    """One of the two sets: its rows, and its datasets with the pictures."""

    title: str
    rows: list[Row] = field(default_factory=list)
    datasets: dict[str, Dataset] = field(default_factory=dict)  # picture -> where it is

    @property
    def images(self) -> list[str]:
        """References of its pictures, in order."""
        return list(self.datasets)


def audit_leaks(train: Dataset, test: Dataset) -> dict[str, Any]:
    """Counts what a test set shares with a training set.

    Of the training folder the train and valid splits count, of the test folder the test split; a folder without
    them counts whole. Pictures are the same by their stored content, near-duplicates by difference hash,
    confirmed on a thumbnail. Texts are compared normalised (case, accents, punctuation, articles, number words).

    Returns:
        ``images`` (test pictures that are in train), ``near_duplicate_images`` (further ones that look the
        same), ``questions_about_them``, ``questions`` (also the same question about such a picture), ``rows``
        (also the same answer), ``question_texts`` (the text alone; for questions from templates no leak),
        ``names`` (test pictures, not found by content, whose file name train has too), ``by_language`` ("train
        language > test language" -> questions about shared pictures), ``across_languages`` (``count_across``'s
        counts of questions that train has in another language), the totals, and ``examples`` of pictures, rows and
        names, up to 20 each.
    """
    return compare_sides(_side(train, ("train", "valid")), _side(test, ("test",)))


def compare_sides(train: Side, test: Side) -> dict[str, Any]:
    """Does what `audit_leaks` says, on two sides that are read already."""
    same = {ref: ref for ref in test.images if ref in train.datasets}
    rest = [ref for ref in test.images if ref not in same]
    near = match_fingerprints(
        [(ref, test.datasets[ref]) for ref in rest], [(ref, train.datasets[ref]) for ref in train.images]
    )
    shared = {**near, **same}
    names = {_name(row.name) for row in train.rows} - {""}
    by_name: dict[str, list[Row]] = defaultdict(list)
    by_image: dict[str, list[Row]] = defaultdict(list)
    for row in train.rows:
        by_name[_name(row.name)].append(row)
        for ref in row.images:
            by_image[ref].append(row)
    texts = {row.question for row in train.rows} - {""}
    counts: Counter[str] = Counter()
    languages: Counter[str] = Counter()
    repeated: list[list[str]] = []
    named: dict[str, str] = {}
    with_twins: list[tuple[Row, list[Row]]] = []
    for row in test.rows:
        counts["question_texts"] += row.question in texts
        twins = [twin for ref in row.images for twin in by_image.get(shared.get(ref, ""), [])]
        if not twins and _name(row.name) in names:
            named.setdefault(row.name, by_name[_name(row.name)][0].name)
            counts["questions_about_names"] += 1
            if not row.images:  # without pictures the name stands for one
                twins = by_name[_name(row.name)]
        if any(ref in shared for ref in row.images):
            counts["questions_about_them"] += 1
        with_twins.append((row, twins))
        languages.update(
            {f"{twin.language} > {row.language}" for twin in twins if twin.language and row.language}
        )
        same_question = [twin for twin in twins if row.question and twin.question == row.question]
        counts["questions"] += bool(same_question)
        equal = next((twin for twin in same_question if twin.answer == row.answer), None)
        if equal:
            repeated.append([row.id, equal.id])
    pictures = [[ref, ref] for ref in sorted(same)] + [[a, b] for a, b in sorted(near.items())]
    return {
        "train": train.title,
        "test": test.title,
        "train_images": len(train.images),
        "test_images": len(test.images),
        "train_questions": len(train.rows),
        "test_questions": len(test.rows),
        "images": len(same),
        "near_duplicate_images": len(near),
        "questions_about_them": counts["questions_about_them"],
        "questions": counts["questions"],
        "rows": len(repeated),
        "question_texts": counts["question_texts"],
        "names": len(named),
        "questions_about_names": counts["questions_about_names"],
        "by_language": dict(sorted(languages.items())),
        "across_languages": count_across(with_twins, text_pairs(_by_picture(train, test, shared))),
        "examples": {
            "images": pictures[:EXAMPLES],
            "rows": repeated[:EXAMPLES],
            "names": [[a, b] for a, b in sorted(named.items())][:EXAMPLES],
        },
    }


def audit_places(train: str, test: str) -> dict[str, Any]:
    """Audits two sets that are named as on the command line.

    Args:
        train, test: A dataset folder (a run's ``1-ingest``, ``2-teach`` or ``benchmark-NAME``).

    Raises:
        DataError: One of them is no dataset folder.
    """
    sides = []
    for place in (train, test):
        if not is_dataset(place):
            raise DataError(
                f"{place} is no dataset folder; name one, such as runs/NAME/1-ingest, or read a benchmark into one "
                f"with medkit data benchmark NAME --part train --out FOLDER"
            )
        sides.append(open_dataset(place))
    return audit_leaks(sides[0], sides[1])


def write_audit(train: str, test: str, out: Path | None = None) -> str:
    """Audits two sets as `audit_places` does, writes the audit as JSON where asked, and gives it in lines."""
    found = audit_places(train, test)
    lines = told(found)
    if out is not None:
        write_atomically(out, json.dumps(found, indent=1, ensure_ascii=False) + "\n")
        lines.append(f"wrote {out}")
    return "\n".join(lines)


def told(found: dict[str, Any]) -> list[str]:
    """Gives an audit in lines."""
    asked, pictures = found["test_questions"], found["test_images"]
    lines = [
        f"train {found['train']}: {found['train_questions']:,} texts, {found['train_images']:,} images; "
        f"test {found['test']}: {asked:,} questions, {pictures:,} images",
        f"{found['images']:,} of {pictures:,} test images are in train, {found['near_duplicate_images']:,} more "
        f"look the same; {found['questions_about_them']:,} of {asked:,} questions are about them",
        f"{found['questions']:,} questions stand in train about the same image, {found['rows']:,} of them with the "
        f"same answer",
        f"{found['question_texts']:,} questions have a text that train has, about whatever image",
    ]
    if found["names"]:
        lines.append(
            f"{found['names']:,} image names are in both without the same picture being found "
            f"({found['questions_about_names']:,} questions): perhaps the same images, saved anew or not given"
        )
    lines += [f"language {pair}: {count:,} questions" for pair, count in found["by_language"].items()]
    lines += told_across(found["across_languages"])
    for what, pairs in found["examples"].items():
        lines += [
            f"example of {what}: {mine[:40]} of test is {'in train' if mine == theirs else f'{theirs[:40]} of train'}"
            for mine, theirs in pairs[:3]
        ]
    return lines


def _by_picture(train: Side, test: Side, shared: dict[str, str]) -> list[list[Row]]:
    """Gives the questions of both sets by picture; a picture that looks the same is the same."""
    found: dict[str, list[Row]] = defaultdict(list)
    for row in (*train.rows, *test.rows):
        for ref in row.images or ((f"name {row.name}",) if _name(row.name) else ()):
            found[shared.get(ref, ref)].append(row)
    return list(found.values())


def _side(dataset: Dataset, splits: Sequence[str]) -> Side:
    chosen = dataset.select(splits=splits) or list(range(len(dataset)))
    side = Side(str(dataset.summary.get("name") or dataset.folder.name))
    for index in chosen:
        sample = dataset[index]
        side.datasets.update(dict.fromkeys(sample.images, dataset))
        side.rows += _rows(sample)
    return side


def _rows(sample: Sample) -> Iterator[Row]:
    """Gives a row for every question of a sample, with the answer that follows it."""
    name = str(sample.source.get("image_name", ""))
    language = str(sample.source.get("language", ""))
    facts = (tuple(sample.images), name)
    asked = sample.facts.get("question", {})
    kind = str(asked.get("kind", "")) if isinstance(asked, dict) else ""
    if kind and kind == asked.get("answer_type"):  # what stands in for a kind that a set does not name
        kind = ""
    slot = (kind, str(sample.source.get("closed", "")))
    turns = sample.messages
    for turn, following in zip(turns, [*turns[1:], None], strict=True):
        if turn["role"] != "user":
            continue
        answer = text_of(following) if following and following["role"] == "assistant" else ""
        # The question as it was published, without the format that a benchmark adds to it.
        question = str(sample.source.get("question") or text_of(turn))
        yield Row(sample.id, *facts, normalise(question), normalise(answer), language, slot)


def _name(name: str) -> str:
    """Gives what two sets call the same picture: the file's name, or the path where that says too little."""
    path = PurePosixPath(name)
    plain = (
        path.stem if path.suffix.lower() in (".jpg", ".jpeg", ".png", ".webp", ".tif", ".bmp") else path.name
    )
    digits = any(sign.isdigit() for sign in plain)
    if len(plain) >= _LEAST_NAME and digits:
        return plain.lower()
    return name.lower() if len(path.parts) > 1 else ""
