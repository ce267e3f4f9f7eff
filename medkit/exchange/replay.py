"""Stored answers by question: what a replay gives another tool in place of a model."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from medkit.errors import DataError
from medkit.evaluation.scoring.answer_files import id_of, read_rows
from medkit.exchange.rows import FAILED, Row

_SHOWN = 3


class Stored:
    """The answers of a file, found by the question's id or by its words.

    Args:
        path: ``answers.jsonl`` of an evaluation, or its folder. Rows of a control are left out.

    Raises:
        DataError: The file can't be read, has no answers, or answers a question twice and differently.
    """

    def __init__(self, path: Path):
        self.path = path / "answers.jsonl" if path.is_dir() else path
        rows = [row for row in read_rows(self.path) if row.get("control", "none") == "none"]
        if not rows:
            raise DataError(f"{self.path} holds no answers")
        self._by_id: dict[tuple[str, str], Row] = {}
        self._by_text: dict[str, list[Row]] = defaultdict(list)
        for number, row in enumerate(rows, start=1):
            if not isinstance(row.get("answer"), str) and not row.get(FAILED):
                raise DataError(f"{self.path}: row {number} has no answer; replay files of medkit evaluate")
            key = str(row.get("benchmark", "")), id_of(row)
            before = self._by_id.setdefault(key, row)
            if key[1] and before.get("answer") != row.get("answer"):
                raise DataError(f"{self.path}: question {key[1]} is answered twice, and differently")
            self._by_text[_words(str(row.get("question", "")))].append(row)

    def answer(self, doc: dict[str, Any], text: str) -> str | None:
        """Gives the stored answer to a question; None where it is unknown, or the model under test gave no reply.

        Args:
            doc: What is known of the question: a medkit row, or another task's document. An id counts only where the
                question's words are the same.
            text: The prompt; looked for where the document has no known id. An id or words that have several answers
                are unknown.
        """
        words = _words(str(doc.get("question", text)))
        said = id_of(doc)
        own = [str(doc["benchmark"])] if "benchmark" in doc else self._benchmarks()
        known = [self._by_id.get((benchmark, said)) for benchmark in own] if said else []
        same = [row for row in known if row and _words(str(row.get("question", words))) == words]
        if not same and "benchmark" not in doc:
            # not for medkit's own questions, of which equal words may be about another picture
            same = self._by_text.get(words) or self._by_text.get(_words(text)) or []
        # a call that failed is no answer: as an empty reply it would be scored
        answers = {None if row.get(FAILED) else row["answer"] for row in same}
        return answers.pop() if len(answers) == 1 else None

    def _benchmarks(self) -> list[str]:
        return list(dict.fromkeys(benchmark for benchmark, _ in self._by_id))


def unknown(path: Path, questions: Sequence[str]) -> DataError:
    """Gives the error that names questions which a file of answers doesn't answer."""
    shown = "; ".join(repr(text) for text in questions[:_SHOWN])
    more = f" and {len(questions) - _SHOWN:,} more" if len(questions) > _SHOWN else ""
    return DataError(
        f"{path} has no answer to {len(questions):,} of the questions that are asked: {shown}{more}; "
        "replay the answers of the same questions"
    )


def _words(text: str) -> str:
    return " ".join(text.split()).casefold()
