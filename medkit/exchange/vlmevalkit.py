"""Benchmarks as VLMEvalKit's tables, which its pandas can't misread, and such tables as dataset folders."""

from __future__ import annotations

import base64
import csv
import glob
import io
import json
from collections.abc import Sequence
from pathlib import Path

from medkit.cards.models import Benchmark
from medkit.errors import DataError
from medkit.evaluation.questions import Question
from medkit.exchange.rows import question_row, questions_of
from medkit.readers.benchmarks import read_benchmark, told
from medkit.readers.question_texts import LETTERS, options_block
from medkit.readers.vlmevalkit import COLUMN, GUARD, table_rows
from medkit.store import Dataset, is_dataset, write_atomically

# What pandas.read_csv takes for a missing value.
MISSING = frozenset({
    "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A", "NA", "NULL",
    "NaN", "None", "n/a", "nan", "null",
})  # fmt: skip
TRUTHS = frozenset({"true", "false"})


def write_tables(cards: Sequence[Benchmark], data: Path, out: Path) -> list[str]:
    """Writes benchmarks as tables ``NAME_mcq.tsv``, ``NAME_yorn.tsv`` and ``NAME_vqa.tsv``, as far as each has rows.

    VLMEvalKit scores a table as a whole, so kinds of questions are apart. Every row carries the question in the column
    ``medkit`` too, which VLMEvalKit copies into its prediction files: what comes back is exact.

    Args:
        cards: The benchmarks.
        data: The dataset folder with their questions.
        out: Folder of the tables, VLMEvalKit's ``LMUData``; tables of the same names are replaced.

    Returns:
        What was written, left out and guarded, in lines.

    Raises:
        DataError: There are no questions, or none with a picture.
    """
    if out.is_file():
        raise DataError(f"{out} is a file; give --out a folder")
    lines = []
    for card in cards:
        questions, dataset = questions_of(card, data)
        shown = [question for question in questions if question.images]
        if not shown:
            raise DataError(
                f"benchmark {card.name}: no question has a picture, and VLMEvalKit's tables need one"
            )
        if len(shown) < len(questions):
            lines.append(
                f"left out: {len(questions) - len(shown):,} questions of {card.name} without a picture"
            )
        by_kind: dict[str, list[Question]] = {}
        for question in shown:
            by_kind.setdefault(_kind(question), []).append(question)
        for kind, members in by_kind.items():
            path = out / f"{card.name}_{kind}.tsv"
            out.mkdir(parents=True, exist_ok=True)
            text, guarded = table_text(members, dataset)
            write_atomically(path, text)
            lines.append(f"wrote {path}: {len(members):,} questions")
            lines += [f"guarded: {count:,} cells of {column} ({why})" for column, why, count in guarded]
    return lines


def table_text(questions: Sequence[Question], dataset: Dataset) -> tuple[str, list[tuple[str, str, int]]]:
    """Gives a table of questions of one kind, at least one.

    Returns:
        The text, and (column, why, count) of the cells that got a no-break space behind them: to pandas "None" is a
        missing value (VLMEvalKit drops such an option, and an answer becomes "nan"), and "5" beside an empty cell 5.0.
    """
    first: dict[tuple[str, ...], int] = {}
    rows: list[dict[str, str]] = []
    most = max(len(question.choices) if _kind(question) == "mcq" else 0 for question in questions)
    for index, question in enumerate(questions):
        before = first.setdefault(tuple(question.images), index)
        rows.append({
            "index": str(index),
            "image": _image(question, dataset) if before == index else str(before),
            "question": _plain(question),
            **{letter: text for letter, text in zip(LETTERS[:most], [*question.choices, *[""] * most], strict=False)},
            "answer": _answer(question),
            "category": question.kind,
            COLUMN: json.dumps(question_row(question), ensure_ascii=False),
        })  # fmt: skip
    texts = [column for column in rows[0] if column not in ("index", "image", COLUMN)]
    guarded = [found for column in texts for found in _guard(rows, column)]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), delimiter="\t", quoting=csv.QUOTE_ALL, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue(), guarded


def read_tables(tables: Sequence[Path], out: Path) -> list[str]:
    """Reads tables of VLMEvalKit into one dataset folder and gives what is to be said, in lines.

    Raises:
        DataError: A table can't be read, they lie in different folders, there is no question that can be asked, or
            something else lies at ``out``.
    """
    tables = [table.expanduser() for table in tables]
    absent = [table for table in tables if not table.is_file()]
    if absent:
        raise DataError(f"{absent[0]} is no file; give a .tsv of VLMEvalKit")
    if len({table.parent.absolute() for table in tables}) > 1:
        raise DataError("the tables lie in different folders; read each into a dataset folder of its own")
    if out.exists() and not is_dataset(out) and (out.is_file() or any(out.iterdir())):
        raise DataError(f"{out} is there and is no dataset folder; give --out another name")
    files = [glob.escape(table.name) for table in tables]
    # whatever the tables call their parts, all of their questions are to be asked
    names = (row.get("split") for path in tables for _, row in table_rows(path) if isinstance(row, dict))
    splits = {name: "test" for name in names if name}
    card = Benchmark.model_validate(
        {
            "name": _card_name(tables[0].stem),
            "title": tables[0].stem,
            "description": "A table of VLMEvalKit.",
            "licence": "unknown",
            "data": {"reader": "vlmevalkit", "options": {"files": files}, "splits": splits},
        }
    )
    out.mkdir(parents=True, exist_ok=True)
    settings = {"benchmark": card.model_dump(), "data": str(tables[0].parent)}
    return [*told(read_benchmark(settings, {}, out)), f"wrote {out}"]


def _card_name(stem: str) -> str:
    return (
        "".join(sign if sign.isalnum() and sign.isascii() else "-" for sign in stem.lower()).strip("-")
        or "table"
    )


def _image(question: Question, dataset: Dataset) -> str:
    cells = [base64.b64encode(dataset.image_bytes(ref)).decode() for ref in question.images]
    return cells[0] if len(cells) == 1 else json.dumps(cells)


def _plain(question: Question) -> str:
    """Gives the question without its list of options: VLMEvalKit writes its own behind it."""
    block = options_block(question.choices)
    place = question.text.find(block) if question.choices else -1
    return question.text[:place].strip() if place > 0 else question.text


def _kind(question: Question) -> str:
    if 1 < len(question.choices) <= len(LETTERS):
        return "mcq"
    return "yorn" if question.answer_type == "yes_no" else "vqa"


def _answer(question: Question) -> str:
    gold = question.references[0]
    if _kind(question) == "mcq" and gold in question.choices:
        return LETTERS[question.choices.index(gold)]
    if question.answer_type == "yes_no":
        return gold.strip().strip(".").capitalize()  # VLMEvalKit compares with Yes and No as they stand
    return gold if len(question.references) == 1 else json.dumps(question.references, ensure_ascii=False)


def _guard(rows: Sequence[dict[str, str]], column: str) -> list[tuple[str, str, int]]:
    cells = [row[column] for row in rows if row[column]]
    # pandas decides by column whether it holds numbers or truth values, and by cell whether a value is missing
    as_numbers = bool(cells) and all(cell in MISSING or _is_number(cell) for cell in cells)
    counts = {"else a missing value": 0, "else numbers or truth values": 0}
    for row in rows:
        cell = row[column]
        if cell in MISSING:
            counts["else a missing value"] += 1
        elif as_numbers and cell:
            counts["else numbers or truth values"] += 1
        else:
            continue
        row[column] = cell + GUARD
    return [(column, why, count) for why, count in counts.items() if count]


def _is_number(cell: str) -> bool:
    if cell.strip().lower() in TRUTHS:
        return True
    try:
        float(cell)
    except ValueError:
        return False
    return True
