"""Stored answers of medkit or of any other tool: JSON Lines, JSON with a list, or CSV, columns by many names."""

from __future__ import annotations

import ast
import csv
import io
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from medkit.errors import DataError

from .. import scorers
from .profile import ANSWER_TYPES, Item

Row = dict[str, Any]

IDS = ("id", "question_id", "qid", "questionId", "doc_id", "index")
REPLIES = (
    "prediction", "pred", "predict", "response", "reply", "model_answer", "model_output", "output", "generated",
    "filtered_resps", "resps", "text",
)  # fmt: skip
GOLDS = (
    "references", "reference", "ground_truth", "gt_answer", "gts", "gt", "gold", "target", "label", "answers",
)  # fmt: skip
EITHER = "answer"  # medkit's reply, other tools' gold answer
TYPES = ("answer_type", "type", "question_type")
CHOICES = ("choices", "options")
GROUPS = (
    "group",
    "patient",
    "patient_id",
    "image",
    "img_name",
    "image_id",
    "image_name",
    "img_id",
    "image_path",
)
IMAGES = GROUPS[3:]
CATEGORIES = ("category", "kind", "content_type", "subfield")

_CLOSED = frozenset({"closed", "close", "yes_no", "yesno", "choice", "multiple-choice"})
_TYPE_WORDS = {
    "yes_no": "yes_no", "yesno": "yes_no", "number": "number", "choice": "choice", "multiple-choice": "choice",
    "open": "open", "report": "report", "caption": "report",
}  # fmt: skip


def read_items(path: Path, references: Path | None = None) -> dict[str, list[Item]]:
    """Reads stored answers, by benchmark.

    Rows of a control (a blank or another group's image) are left out.

    Args:
        path: A file, or a folder with ``answers.jsonl``.
        references: A file with the gold answers, for tools that keep them apart; joined by id.

    Raises:
        DataError: A column is missing, ids are not the same in both files, or there is no answer.
    """
    path = path / "answers.jsonl" if path.is_dir() else path
    rows = read_rows(path)
    if references is not None:
        rows = _joined(rows, [_flat(row) for row in read_rows(references)], (path, references))
    return items_of(rows, str(path), path.stem)


def items_of(rows: Sequence[Row], where: str, benchmark: str = "answers") -> dict[str, list[Item]]:
    """Gives rows of stored answers as items, by benchmark; rows of a control are left out.

    Args:
        rows: Mappings of columns to values.
        where: The rows' origin, for messages.
        benchmark: Name of rows that state none.

    Raises:
        DataError: A column is missing or there is no answer.
    """
    rows = [row for row in rows if row.get("control", "none") == "none"]
    if not rows:
        raise DataError(f"{where} holds no answers")
    reply = _column(rows, REPLIES) or _column(rows, (EITHER,))
    if reply is None:
        raise DataError(
            f"{where}: no column with the replies among {_names(rows)}; give it one of these names: "
            f"{', '.join((*REPLIES, EITHER))}"
        )
    found: dict[str, list[Item]] = {}
    golds = tuple(name for name in (*GOLDS, EITHER) if name != reply)
    for number, row in enumerate(rows, start=1):
        item = _item(row, reply, golds, f"{where}: row {number}")
        found.setdefault(str(row.get("benchmark", benchmark)), []).append(item)
    return found


def read_rows(path: Path) -> list[Row]:
    """Gives the mappings of a JSON Lines file, of a JSON file with a list, or of a CSV or TSV file.

    Raises:
        DataError: The file can't be read.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DataError(f"{path} can't be read: {error.strerror}") from error
    except UnicodeDecodeError:
        raise DataError(f"{path} can't be read: it is no text in UTF-8") from None
    if path.suffix.lower() in (".csv", ".tsv"):
        return _table(text, path)
    if text.lstrip().startswith("["):
        rows = _parsed(text, str(path))
    else:
        lines = enumerate(text.split("\n"), start=1)
        rows = [_parsed(line, f"{path}:{number}") for number, line in lines if line.strip()]
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            raise DataError(f"{path}: row {number} is no mapping of columns to values")
    return rows


def _table(text: str, path: Path) -> list[Row]:
    try:
        lines = csv.DictReader(
            io.StringIO(text, newline=""), delimiter="," if path.suffix.lower() == ".csv" else "\t"
        )
        rows: list[Row] = list(lines)
    except csv.Error as error:
        raise DataError(f"{path} can't be read as a table: {error}") from None
    for number, row in enumerate(rows, start=1):
        if None in row or None in row.values():
            raise DataError(f"{path}: row {number} has more or fewer cells than the header")
    return rows


def _parsed(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(f"{where}: not valid JSON: {error.msg}") from error


def _names(rows: Sequence[Row]) -> str:
    return ", ".join(sorted({name for row in rows for name in row})) or "none"


def _column(rows: Sequence[Row], names: Iterable[str]) -> str | None:
    return next((name for name in names if any(name in row for row in rows)), None)


def first_of(row: Row, names: Iterable[str]) -> Any:
    """Gives the first value of these columns that is there and not empty, else None."""
    return next((row[name] for name in names if row.get(name) not in (None, "", [])), None)


def _flat(row: Row) -> Row:
    """Gives a row of LLaVA's JSON as question and reference, the spelling mistake of its name included."""
    turns = row.get("conversations") or row.get("conversatons")
    if not isinstance(turns, list) or len(turns) < 2:
        return row
    return row | {"question": turns[0].get("value", ""), "references": turns[1].get("value", "")}


def _joined(rows: list[Row], gold: list[Row], paths: tuple[Path, Path]) -> list[Row]:
    ids, gold_ids = ([first_of(row, IDS) for row in side] for side in (rows, gold))
    for path, side in zip(paths, (ids, gold_ids), strict=True):
        if None in side:
            raise DataError(f"{path}: a row has no id; it needs one of {', '.join(IDS)}")
        twice = [one for one, count in Counter(map(str, side)).items() if count > 1]
        if twice:
            raise DataError(f"{path}: id {twice[0]} comes {Counter(map(str, side))[twice[0]]} times")
    known = {str(one): row for one, row in zip(gold_ids, gold, strict=True)}
    said = {str(one) for one in ids}
    if said != set(known):
        lost = sorted(set(known) - said)[:3], sorted(said - set(known))[:3]
        raise DataError(
            f"{paths[0]} and {paths[1]} hold other questions: without a reply {lost[0] or 'none'}, without a "
            f"reference {lost[1] or 'none'}; score files of the same questions"
        )
    return [known[str(one)] | row for one, row in zip(ids, rows, strict=True)]


def _item(row: Row, reply: str, gold_names: Sequence[str], where: str) -> Item:
    golds = _texts(first_of(row, gold_names))
    if not golds:
        raise DataError(
            f"{where} has no gold answer; it needs one of {', '.join(gold_names)}, or a file of references"
        )
    choices = _choices(first_of(row, CHOICES))
    stated = str(first_of(row, TYPES) or "").strip().lower()
    if choices:
        golds = [_letter(golds[0], choices)]
    group = first_of(row, GROUPS)
    return Item(
        answer=_reply(row.get(reply)),
        references=tuple(golds),
        answer_type=_answer_type(stated, golds, choices),
        closed=stated in _CLOSED if stated else bool(choices) or _is_yes_no(golds),
        choices=choices,
        group=str(group if group is not None else first_of(row, IDS) or where),
        category=str(first_of(row, CATEGORIES) or ""),
        image=str(first_of(row, IMAGES) or ""),
        truncated=bool(row.get("truncated", False)),
        id=id_of(row),
        failed=str(row.get("failed") or ""),
    )


def id_of(row: Row) -> str:
    """Gives a row's id by any of its usual names, "" where it has none."""
    found = first_of(row, IDS)
    return "" if found is None else str(found)


def _reply(value: Any) -> str:
    while isinstance(value, list) and value:
        value = value[0]
    return "" if value is None or value == [] else str(value)


def _texts(value: Any) -> list[str]:
    if value is None:
        return []
    values = value if isinstance(value, list) else [value]
    texts = [one.get("answer") if isinstance(one, dict) else one for one in values]
    return [str(text) for text in texts if text is not None]


def _choices(value: Any) -> dict[str, str]:
    if isinstance(value, str):
        try:
            value = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            return {}
    if isinstance(value, dict):
        return {str(letter): str(text) for letter, text in value.items() if text is not None}
    texts = [str(text) for text in value or []]
    return {chr(ord("A") + place): text for place, text in enumerate(texts[:26])}


def _letter(gold: str, choices: dict[str, str]) -> str:
    """Gives the letter of the gold option, from its text or its letter; the gold itself where it is neither."""
    same = [letter for letter, text in choices.items() if text == gold]
    if len(same) == 1:
        return same[0]
    if gold.strip().upper() in choices:
        return gold.strip().upper()
    index = scorers.parse_choice(gold, list(choices.values()))
    return gold if index is None else list(choices)[index]


def _answer_type(stated: str, golds: Sequence[str], choices: dict[str, str]) -> str:
    if choices:
        return "choice"
    known = _TYPE_WORDS.get(stated, "")
    # CLOSED and OPEN are annotations of a question; what can be decided depends on the gold answer.
    if known in ANSWER_TYPES and known not in ("open", "choice"):
        return known
    if _is_yes_no(golds) and known != "open":
        return "yes_no"
    return "open"


def _is_yes_no(golds: Sequence[str]) -> bool:
    return all(gold.strip().lower().rstrip(".") in ("yes", "no") for gold in golds)
