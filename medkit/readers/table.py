"""Pictures listed in a table (CSV, TSV, JSON Lines, JSON list) with captions, labels or questions."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from medkit.errors import DataError
from medkit.readers import Record, Rejected, check_options, hashed, inside, split_in
from medkit.readers.truths import Note, check_measurements, mask_object, measured
from medkit.sample import assistant_turn, user_turn

OPTIONS = (
    "files", "images", "id", "image", "caption", "question", "answer", "choices", "kind", "labels", "group",
    "split", "measurements", "masks", "modality", "licence", "licence_column", "unknown",
)  # fmt: skip
# Column names that are taken when the card names none.
USUAL = {
    "id": ("id", "qid", "question_id"),
    "image": ("image", "image_path", "img", "file_name", "filename", "file", "path", "image_name"),
    "caption": ("caption", "report", "text", "description"),
    "question": ("question",),
    "answer": ("answer",),
}
MAX_FIELD = 90_000_000  # characters: the largest picture that is read (64 MiB), in base64


def read(root: Path, options: dict[str, Any]) -> Iterator[Record | Rejected]:
    """Reads a table with one row a caption, a labelled picture or a question.

    Options:
        files: Pattern of the tables below the root ("*.csv", "*.jsonl", ...); ``{split}`` in it stands
            for the split's name: "questions_{split}.jsonl".
        images: Folder that the image column is relative to (the root).
        id, image, caption, question, answer, choices, kind, group, split: Columns; the usual names are found.
        labels: List of columns that hold image-level labels; "metadata.view" is the key view of the column metadata.
        unknown: List of values that are no label ("todo", "Unknown").
        measurements: Numbers for ``facts["measurements"]``: a list of columns, or name with unit -> column
            ({diameter_mm: size}).
        masks: Label -> column with a mask file, relative as the pictures: its box and area become an object.
        licence_column: Column with each picture's own licence.
        modality, licence: As in class_folders.

    A row with question and answer becomes a question, one with a caption a caption, any other a record of its
    labels. The group is the group column's hash, or the picture.

    Raises:
        DataError: The folder is missing, no table is found, or a named column is in none of its tables.
    """
    check_options("table", options, OPTIONS)
    measurements = check_measurements(options.get("measurements", []), "table")
    masks = options.get("masks", {})
    if not isinstance(masks, dict) or not all(isinstance(one, str) for pair in masks.items() for one in pair):
        raise DataError("reader table: masks is a mapping of labels to columns with mask files")
    root = Path(root)
    if not root.is_dir():
        raise DataError(f"{root} is no folder; give the folder that holds the table")
    tables = find_tables(root, options.get("files"))
    if not tables:
        pattern = options.get("files", "*.csv, *.tsv, *.jsonl, *.json")
        raise DataError(f"{root} holds no table that matches {pattern}")
    for path, split in tables:
        columns: dict[str, str] | None = None
        for number, row in table_rows(path):
            place = f"{path.name}:{number}"
            if isinstance(row, str):
                yield Rejected(place, "row unreadable", row)
                continue
            if columns is None:
                columns = _columns(path, row, options)
                _check_columns(path, row, [*measurements.values(), *masks.values()])
            yield _record(root, place, row, columns, split, options)


def find_tables(root: Path, pattern: str | None) -> list[tuple[Path, str | None]]:
    """Gives the tables with the split that their name holds.

    Args:
        root: The data folder.
        pattern: Of the names below it, with ``{split}`` for a split's name; None for the usual endings.
    """
    if pattern is None:
        found = [
            path for ending in ("csv", "tsv", "jsonl", "json") for path in sorted(root.glob(f"*.{ending}"))
        ]
        return [(path, split_in(path.stem, ())) for path in found]
    if "{split}" not in pattern:
        return [(path, split_in(path.stem, ())) for path in sorted(root.glob(pattern))]
    shape = re.escape(pattern).replace(r"\{split\}", "(?P<split>[^/]+?)").replace(r"\*", "[^/]*")
    named = re.compile(shape)
    tables = []
    for path in sorted(root.glob(pattern.replace("{split}", "*"))):
        match = named.fullmatch(path.relative_to(root).as_posix())
        tables.append((path, match.group("split") if match else None))
    return tables


def table_rows(path: Path, errors: str = "replace") -> Iterator[tuple[int, dict[str, Any] | str]]:
    """Gives (line number, row) or (line number, what is wrong with it) of a CSV, TSV, JSON or JSON Lines file.

    Args:
        path: The file.
        errors: What becomes of bytes that are no UTF-8: ``replace`` or ``strict``, then the file is refused.

    Raises:
        DataError: The file can't be read.
    """
    if path.suffix == ".json":
        try:
            content = json.loads(path.read_text(encoding="utf-8-sig"))
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path} is no JSON ({error})") from None
        if not isinstance(content, list):
            raise DataError(f"{path} holds no list of rows")
        for number, row in enumerate(content, 1):
            yield number, row if isinstance(row, dict) else "not an object"
        return
    try:
        with path.open(encoding="utf-8-sig", errors=errors, newline="") as lines:
            if path.suffix == ".jsonl":
                for number, line in enumerate(lines, 1):
                    if line.strip():
                        yield number, _json_row(line)
            else:
                yield from _cells(lines, "\t" if path.suffix == ".tsv" else ",")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} can't be read as a table ({error})") from None


def _cells(lines: Iterable[str], delimiter: str) -> Iterator[tuple[int, dict[str, Any] | str]]:
    csv.field_size_limit(MAX_FIELD)
    reader = csv.DictReader(lines, delimiter=delimiter)
    headed = False
    while True:
        try:
            headed = headed or reader.fieldnames is not None
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield reader.line_num, str(error)
            if not headed:
                return
            continue
        crooked = None in row or None in row.values()
        yield reader.line_num, "another number of fields than the header" if crooked else row


def _json_row(line: str) -> dict[str, Any] | str:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        return f"no JSON ({error})"
    return row if isinstance(row, dict) else "not an object"


def _columns(path: Path, row: dict[str, Any], options: dict[str, Any]) -> dict[str, str]:
    columns: dict[str, str] = {}
    for role in ("id", "image", "caption", "question", "answer", "choices", "kind", "group", "split"):
        named = options.get(role)
        if named is not None:
            if named not in row:
                raise DataError(
                    f"{path.name} has no column {named!r} ({role}); it has {', '.join(map(str, row))}"
                )
            columns[role] = named
        else:
            usual = next((name for name in USUAL.get(role, ()) if name in row), None)
            if usual is not None:
                columns[role] = usual
    if "image" not in columns:
        raise DataError(
            f"{path.name} has no image column; name it with the option image (columns: {', '.join(row)})"
        )
    return columns


def _check_columns(path: Path, row: dict[str, Any], named: list[str]) -> None:
    for column in named:
        if column not in row:
            raise DataError(f"{path.name} has no column {column!r}; it has {', '.join(map(str, row))}")


def _record(
    root: Path,
    place: str,
    row: dict[str, Any],
    columns: dict[str, str],
    split: str | None,
    options: dict[str, Any],
) -> Record | Rejected:
    def value(role: str) -> Any:
        return row.get(columns[role]) if role in columns else None

    record_id = str(value("id")) if value("id") not in (None, "") else place
    name = value("image")
    if not isinstance(name, str) or not name.strip():
        return Rejected(record_id, "image missing", f"{place}: the image column is empty")
    base = root / options.get("images", "")
    image = inside(root, str(base.relative_to(root) / name.strip()))
    if image is None:
        return Rejected(record_id, "image outside the data folder", name)
    if not image.is_file():
        return Rejected(record_id, "image missing", name)
    facts: dict[str, Any] = {"labels": {}, "objects": [], "complete": False}
    for column in options.get("labels", ()):
        label = _inner(row, column)
        if label not in (None, "") and label not in options.get("unknown", ()):
            facts["labels"][column.rpartition(".")[2]] = str(label).strip()
    if options.get("modality"):
        facts["modality"] = options["modality"]
    notes = _add_truths(facts, row, (root, base), options)
    question, answer, caption = value("question"), value("answer"), value("caption")
    messages = None
    if question not in (None, ""):
        # Some tables hold numbers as answers; 0 is one of them.
        if answer is None or str(answer).strip() == "":
            return Rejected(record_id, "question without answer", place)
        question, answer = str(question).strip(), str(answer).strip()
        messages = [user_turn(question, images=1), assistant_turn(answer)]
        facts["question"] = question_facts(answer, value("kind"), value("choices"))
    elif caption is not None and not str(caption).strip():
        return Rejected(record_id, "empty caption", place)
    group = value("group")
    own_split = value("split")
    return Record(
        record_id,
        image,
        facts,
        caption=str(caption).strip() if caption is not None and messages is None else None,
        messages=messages,
        group=hashed(str(group)) if group not in (None, "") else image.relative_to(root).as_posix(),
        split=str(own_split).strip() if own_split not in (None, "") else split,
        licence=str(row.get(options.get("licence_column", "")) or options.get("licence", "")),
        notes=tuple(notes),
    )


def _add_truths(
    facts: dict[str, Any], row: dict[str, Any], places: tuple[Path, Path], options: dict[str, Any]
) -> list[Note]:
    """Puts a row's measurements and masks into the facts and gives what the ledger should tell."""
    root, base = places
    notes: list[Note] = []
    if options.get("measurements"):
        numbers, notes = measured(row, check_measurements(options["measurements"], "table"))
        if numbers:
            facts["measurements"] = numbers
    for label, column in options.get("masks", {}).items():
        name = row.get(column)
        if not isinstance(name, str) or not name.strip():
            continue
        path = inside(root, str(base.relative_to(root) / name.strip()))
        if path is None or not path.is_file():
            notes.append(("mask missing", f"{label}: {name}"))
            continue
        try:
            found = mask_object(path, label)
        except DataError as error:
            notes.append(("mask unreadable", f"{label}: {error}"))
            continue
        if found is None:
            notes.append(("empty mask", label))
        else:
            facts["objects"].append(found)
    return notes


def _inner(row: dict[str, Any], column: str) -> Any:
    """Gives a column's value, or that of a key inside it: "metadata.view"."""
    if column in row or "." not in column:
        return row.get(column)
    outer, _, key = column.partition(".")
    inner = row.get(outer)
    return inner.get(key) if isinstance(inner, dict) else None


def question_facts(answer: str, kind: Any = None, choices: Any = None) -> dict[str, Any]:
    """Gives ``facts["question"]`` of a gold answer: yes_no, number, choice or open, by its own form."""
    if isinstance(choices, str):
        choices = [choice.strip() for choice in choices.split("|") if choice.strip()]
    choices = [str(choice) for choice in choices] if isinstance(choices, list) else []
    plain = answer.strip().strip(".").lower()
    if plain in ("yes", "no"):
        answer_type = "yes_no"
    elif choices:
        answer_type = "choice"
    elif re.fullmatch(r"[+-]?\d+([.,]\d+)?", plain):
        answer_type = "number"
    else:
        answer_type = "open"
    named = str(kind).strip().lower() if kind not in (None, "") else answer_type
    return {"kind": named, "answer_type": answer_type, "choices": choices, "references": [answer]}
