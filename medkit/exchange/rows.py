"""A question as one JSON-able row: what the other tools' files carry along, so that nothing has to be guessed back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from medkit.cards.models import Benchmark
from medkit.evaluation.pope import pope_questions
from medkit.evaluation.questions import Question, limited, read_questions
from medkit.store import Dataset, open_dataset

Row = dict[str, Any]

FAILED = "failed"


def question_row(question: Question) -> Row:
    """Gives a question as a row.

    Returns:
        The columns of ``answers.jsonl`` that don't depend on a reply (``benchmark``, ``control``, ``id``, ``image``,
        ``group``, ``kind``, ``answer_type``, ``question``, ``references``, ``choices``, and ``context`` and ``slices``
        where they are known), ``messages``, ``images``.
    """
    known = {"context": question.context, "slices": question.slices}
    return {
        "benchmark": question.benchmark,
        "control": "none",
        "id": question.id,
        "image": question.images[0] if question.images else "",
        "group": question.group,
        "kind": question.kind,
        "answer_type": question.answer_type,
        "question": question.text,
        "references": list(question.references),
        "choices": list(question.choices),
        **{name: value for name, value in known.items() if value},
        "messages": question.messages,
        "images": list(question.images),
    }


def answered(row: Row, answer: str, *, prompt: str = "", truncated: bool = False, failed: str = "") -> Row:
    """Gives the row of ``answers.jsonl`` for a question's row and a reply; with ``failed`` there was none."""
    about = {key: value for key, value in row.items() if key not in ("messages", "images")}
    reply = {"prompt": prompt, "answer": answer, "truncated": truncated}
    return about | reply | ({FAILED: failed} if failed else {})


def questions_of(card: Benchmark, data: Path) -> tuple[list[Question], Dataset]:
    """Reads the questions that a benchmark asks of a dataset folder, as ``medkit evaluate`` does; no controls.

    Raises:
        DataError: There is no dataset, or it holds no question of the benchmark's split.
    """
    dataset = open_dataset(data)
    split = "test" if card.data else card.source.split
    if card.source.ask == "pope":
        made = pope_questions(dataset, card.name, split, card.source.of)
        return limited(made, card.limit), dataset
    return read_questions(dataset, card.name, split, card.limit), dataset
