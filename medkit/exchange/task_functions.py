"""What lmms-eval calls for an exported task: prompts, pictures and the scores of one reply, from the folder's files.

The numbers are those of the profile ``lmms_eval`` (docs/scoring.md): the same functions that ``medkit score`` runs,
over the same rows.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from medkit.errors import DataError
from medkit.evaluation.scoring.answer_files import items_of
from medkit.evaluation.scoring.profile import Item, value_of
from medkit.evaluation.scoring.profiles import find_profiles
from medkit.exchange.rows import Row, answered
from medkit.sample import text_of
from medkit.store import Dataset, open_dataset

COLUMN = (
    "medkit"  # of docs.jsonl: the question's row as JSON text, which no table library reads as anything else
)
SETTINGS = "task.json"
ANSWERED = "medkit_answered"
(PROFILE,) = find_profiles("lmms_eval")


class TaskFolder:
    """An exported task's folder: ``task.json`` says which dataset folder holds the pictures.

    Args:
        folder: Where ``task.json`` lies.
    """

    def __init__(self, folder: Path | str):
        self.folder = Path(folder)
        self.settings: dict[str, Any] = json.loads((self.folder / SETTINGS).read_text(encoding="utf-8"))

    @cached_property
    def dataset(self) -> Dataset:
        """The dataset folder with the pictures.

        Raises:
            DataError: It isn't where it was when the task was written.
        """
        place = Path(self.settings["data"])
        if not place.is_dir():
            raise DataError(f"{self.folder}: the dataset folder {place} is gone; write the task again")
        return open_dataset(place)

    def doc_to_visual(self, doc: dict[str, Any]) -> list[Any]:
        """Gives the question's pictures, RGB."""
        return [self.dataset.image(ref) for ref in row_of(doc)["images"]]

    def doc_to_messages(self, doc: dict[str, Any]) -> list[dict[str, Any]]:
        """Gives the turns before the answer, pictures in their places."""
        pictures = iter(self.doc_to_visual(doc))
        return [
            {
                "role": turn["role"],
                "content": [
                    {"type": "image", "url": next(pictures)}
                    if part["type"] == "image"
                    else {"type": "text", "text": part["text"]}
                    for part in turn["content"]
                ],
            }
            for turn in row_of(doc)["messages"]
        ]

    def doc_to_text(self, doc: dict[str, Any]) -> str:
        """Gives the last user turn's text."""
        return text_of(row_of(doc)["messages"][-1])

    def doc_to_target(self, doc: dict[str, Any]) -> str:
        """Gives the first gold answer."""
        return row_of(doc)["references"][0]

    def process_results(self, doc: dict[str, Any], results: Sequence[str]) -> dict[str, dict[str, Any]]:
        """Scores one reply.

        Returns:
            Metric to ``{score, group, ...}``: each score of the profile that applies to the question; the rows that
            set-level numbers are counted from; and ``medkit_answered``, 1 for a reply that isn't empty, with the
            question's row.
        """
        row = row_of(doc)
        reply = results[0] if results else ""
        full = answered(row, reply)
        item = item_of(full)
        found = {
            ANSWERED: {"score": float(bool(reply.strip()))} | {k: v for k, v in full.items() if k != "prompt"}
        }
        for score in PROFILE.scores:
            mark = score.mark(item)
            if mark is not None:
                found[score.name] = {"score": mark.value, "id": row["id"], "group": row["group"]}
        for entry in PROFILE.corpus:
            if entry.applies(item):
                found |= {name: {"id": row["id"], "row": full} for name in entry.function([item])}
        return found


def row_of(doc: dict[str, Any]) -> Row:
    """Gives the question's row of a task's document."""
    return json.loads(doc[COLUMN])


def item_of(row: Row) -> Item:
    """Gives the row of an answer as scorers look at it, exactly as ``medkit score`` reads it."""
    (items,) = items_of([row], row["id"]).values()
    return items[0]


def metrics_of(rows: Sequence[Row]) -> tuple[list[str], list[str]]:
    """Gives the names of the profile's scores, and of its set-level numbers, that apply to any of the questions."""
    items = [item_of(answered(row, "")) for row in rows]
    scores = [score.name for score in PROFILE.scores if any(score.mark(item) is not None for item in items)]
    corpus: dict[str, None] = {}
    for entry in PROFILE.corpus:
        members = [item for item in items if entry.applies(item)]
        if members:
            corpus |= dict.fromkeys(entry.function(members))
    return scores, list(corpus)


def mean(values: Sequence[dict[str, Any]]) -> float:
    """Gives the mean of the values' scores."""
    return sum(value["score"] for value in values) / len(values)


def set_level(name: str) -> Callable[[Sequence[dict[str, Any]]], float]:
    """Gives the function that counts a set-level number of the profile from the values of its metric."""

    def aggregate(values: Sequence[dict[str, Any]]) -> float:
        items = [item_of(value["row"]) for value in values]
        for entry in PROFILE.corpus:
            members = [item for item in items if entry.applies(item)]
            numbers = entry.function(members) if members else {}
            if name in numbers:
                return value_of(numbers[name])
        raise DataError(f"the profile {PROFILE.name} has no number {name}; write the task again")

    return aggregate
