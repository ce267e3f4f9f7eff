"""Answers that lmms-eval and VLMEvalKit stored, as rows of ``answers.jsonl``."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from medkit.errors import DataError, MedkitError
from medkit.evaluation.questions import read_questions
from medkit.evaluation.scoring.answer_files import IDS, id_of, read_rows
from medkit.exchange.rows import FAILED, Row, answered, question_row
from medkit.exchange.task_functions import ANSWERED
from medkit.exchange.vlmevalkit import MISSING
from medkit.readers.table import question_facts
from medkit.readers.vlmevalkit import own_row, question_of, table_rows
from medkit.store import open_dataset, write_atomically

LONGEST_CELL = 32_767  # of an Excel sheet; what is longer was cut there
NO_REPLY = "Failed to obtain answer"  # VLMEvalKit's text where a model's API failed
_SAMPLES = re.compile(r"(?:\d{8}_\d{6}_)?samples_(?P<task>.+)")
_ESCAPED = re.compile(r"_x([0-9A-Fa-f]{4})_")


def import_answers(files: Sequence[Path], out: Path, questions: Path | None = None) -> list[str]:
    """Writes the answers of other tools' files as one ``answers.jsonl``.

    Args:
        files: Samples of lmms-eval (``*_samples_TASK.jsonl``), or predictions of VLMEvalKit (.tsv, .xlsx, .json).
        out: The file to write.
        questions: A dataset folder with the questions; they are joined by id. Not needed where medkit wrote the task or
            the table: then the files carry the questions.

    Returns:
        What was read, in lines.

    Raises:
        DataError: A file can't be read, lacks replies or gold answers, or asks other questions than the folder.
        MedkitError: An Excel file, and openpyxl is not installed.
    """
    known = _known(questions) if questions is not None else None
    rows: list[Row] = []
    for path in files:
        found = list(read_predictions(path))
        if not found:
            raise DataError(f"{path} holds no answers")
        rows += [_joined(row, known, path) for row in found] if known is not None else found
    twice = [
        key for key, count in Counter((row["benchmark"], row["id"]) for row in rows).items() if count > 1
    ]
    if twice:
        raise DataError(
            f"question {twice[0][1]} of {twice[0][0]} is answered more than once; give one run's files"
        )
    without = [row["id"] for row in rows if not row["references"]]
    if without:
        raise DataError(
            f"{len(without):,} questions have no gold answer, for example {without[0]}; give the dataset folder that "
            "has them: --questions FOLDER"
        )
    write_atomically(out, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return [f"{len(rows):,} answers", *_told(rows), f"wrote {out}"]


def read_predictions(path: Path) -> Iterator[Row]:
    """Gives the rows of one file; where it lacks a question's particulars they are as far as the file tells.

    Raises:
        DataError: The file can't be read or is none of the two tools'.
        MedkitError: An Excel file, and openpyxl is not installed.
    """
    if not path.is_file():
        raise DataError(f"{path} is no file")
    if path.suffix == ".jsonl":
        named = _SAMPLES.fullmatch(path.stem)
        for number, sample in enumerate(read_rows(path), start=1):
            yield _of_sample(sample, named["task"] if named else path.stem, f"{path}: row {number}")
        return
    for number, cells in enumerate(_tabled(path), start=1):
        yield _of_cells(cells, path.stem, f"{path}: row {number}")


def _of_sample(sample: Row, task: str, where: str) -> Row:
    """Gives a sample of lmms-eval; those of medkit's own tasks carry the question."""
    asked = sample.get("input")
    prompt = asked if isinstance(asked, str) else json.dumps(asked, ensure_ascii=False)
    own = sample.get(ANSWERED)
    if isinstance(own, dict) and "references" in own:
        return answered(
            {key: own[key] for key in own if key not in ("score", "answer")}, own["answer"], prompt=prompt
        )
    reply = sample.get("filtered_resps", sample.get("resps"))
    while isinstance(reply, list) and reply:
        reply = reply[0]
    if reply is None:
        raise DataError(f"{where} has no reply (filtered_resps); give a samples file of lmms-eval")
    target = sample.get("target")
    golds = [str(one) for one in (target if isinstance(target, list) else [target]) if one is not None]
    # lmms-eval's own number is the place in the run; a task that knows its questions has their ids in its values
    inner = [id_of(value) for value in sample.values() if isinstance(value, dict) and id_of(value)]
    about = {"question": prompt, "references": golds, "choices": [], "kind": ""}
    return _row(task, inner[0] if inner else id_of(sample), about, "" if reply == [] else str(reply), where)


def _of_cells(cells: dict[str, str], table: str, where: str) -> Row:
    """Gives a row of VLMEvalKit's predictions; those of medkit's own tables carry the question."""
    if "prediction" not in cells:
        raise DataError(
            f"{where} has no column prediction; give VLMEvalKit's file MODEL_DATASET.tsv, .xlsx or .json"
        )
    reply = cells["prediction"]
    failed = NO_REPLY if reply.startswith(NO_REPLY) else ""
    try:
        own = own_row(cells)
    except ValueError as error:
        raise DataError(
            f"{where}: the column medkit is damaged ({error}); an Excel cell ends at {LONGEST_CELL:,} signs: "
            "predict again with PRED_FORMAT=tsv"
        ) from None
    cut = len(reply) >= LONGEST_CELL
    if own is not None:
        return answered(own, "" if failed else reply, truncated=cut, failed=failed)
    row = _row(table, id_of(cells), question_of(cells), "" if failed else reply, where)
    return row | {"truncated": cut} | ({FAILED: failed} if failed else {})


def _row(benchmark: str, identity: str, asked: Row, reply: str, where: str) -> Row:
    if not identity:
        raise DataError(f"{where} has no id; it needs one of {', '.join(IDS)}")
    golds = asked["references"]
    facts = question_facts(golds[0] if golds else "", asked["kind"], asked["choices"])
    return {
        "benchmark": benchmark,
        "control": "none",
        "id": identity,
        "image": "",
        "group": identity,
        "kind": facts["kind"],
        "answer_type": facts["answer_type"],
        "question": asked["question"],
        "references": golds,
        "choices": asked["choices"],
        "prompt": "",
        "answer": reply,
        "truncated": False,
    }


def _tabled(path: Path) -> Iterator[dict[str, str]]:
    if path.suffix in (".tsv", ".csv"):
        for number, row in table_rows(path):
            if isinstance(row, str):
                raise DataError(f"{path}: line {number}: {row}")
            yield row
    elif path.suffix == ".json":
        for row in read_rows(path):
            yield {str(name): _cell(value) for name, value in row.items()}
    elif path.suffix == ".xlsx":
        yield from _sheet(path)
    else:
        raise DataError(f"{path}: must be .jsonl of lmms-eval, or .tsv, .csv, .json or .xlsx of VLMEvalKit")


def _sheet(path: Path) -> Iterator[dict[str, str]]:
    try:
        import openpyxl
    except ImportError:
        raise MedkitError(
            f"{path}: reading Excel files needs openpyxl: pip install medkit-lmm[exchange], or predict with "
            "PRED_FORMAT=tsv"
        ) from None
    try:
        book = openpyxl.load_workbook(path, read_only=True)
        lines = list(book.worksheets[0].iter_rows(values_only=True))
        book.close()
    except Exception as error:  # a damaged archive raises nearly anything
        raise DataError(f"{path} can't be read as an Excel file ({type(error).__name__}: {error})") from None
    names = [_cell(name) for name in lines[0]] if lines else []
    for line in lines[1:]:
        # Excel likes to leave empty rows behind the last one
        if any(value not in (None, "") for value in line):
            yield dict(zip(names, (_cell(value) for value in line), strict=False))


def _cell(value: Any) -> str:
    """Gives a cell's text: nothing for a missing value, the sign itself for Excel's escaped control signs."""
    if value is None or value != value:  # NaN
        return ""
    if isinstance(value, str):
        return _ESCAPED.sub(lambda found: chr(int(found[1], 16)), value)
    return json.dumps(value) if isinstance(value, list | dict) else str(value)


def _known(folder: Path) -> dict[str, Row]:
    """Gives the test questions of a dataset folder by id."""
    return {
        question.id: question_row(question) for question in read_questions(open_dataset(folder), folder.name)
    }


def _joined(row: Row, known: dict[str, Row], path: Path) -> Row:
    """Gives an answer with what the dataset folder knows of its question; the words must be the same."""
    own = known.get(row["id"])
    if own is None:
        raise DataError(
            f"{path}: question {row['id']} is not in the dataset folder; give the folder that was asked"
        )
    said, meant = (" ".join(str(text).split()).casefold() for text in (row["question"], own["question"]))
    if said and said not in meant and meant not in said:
        raise DataError(
            f"{path}: question {row['id']} is {row['question'][:60]!r} there and {own['question'][:60]!r} in the "
            "dataset folder; give the folder that was asked"
        )
    about = own | {"benchmark": row["benchmark"]}
    failed = str(row.get(FAILED, ""))
    return answered(about, row["answer"], prompt=row["prompt"], truncated=row["truncated"], failed=failed)


def _told(rows: Sequence[Row]) -> list[str]:
    counts = {
        "without a reply: the model's API failed": sum(FAILED in row for row in rows),
        "empty": sum(not row["answer"].strip() and FAILED not in row for row in rows),
        f"cut at {LONGEST_CELL:,} signs, as an Excel cell is": sum(row["truncated"] for row in rows),
        "are words that pandas reads as missing values; they are kept, and a reply that was lost before looks so too":
            sum(row["answer"].strip() in MISSING for row in rows),
    }  # fmt: skip
    return [f"{count:,} {about}" for about, count in counts.items() if count]
