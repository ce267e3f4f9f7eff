"""VLMEvalKit's tables: tab-separated, a row a question, pictures in base64. Cells are read as they are written.

VLMEvalKit itself reads them with pandas, to which "None", "NA" and "null" are missing values and a column of digits
is one of numbers; here nothing but text comes out.
"""

from __future__ import annotations

import ast
import base64
import binascii
import csv
import json
import string
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from medkit.errors import DataError
from medkit.readers import Picture, Record, Rejected, check_options, hashed, inside
from medkit.readers.table import question_facts
from medkit.sample import assistant_turn, user_turn

OPTIONS = ("files", "suffix", "licence")
COLUMN = "medkit"  # of medkit's own tables: the question's row as JSON, exact whatever the other columns went through
GUARD = (
    "\u00a0"  # behind a cell that pandas would read as a missing value or a number; stripping takes it off
)
REFERENCE = 64  # an image cell of at most so many characters names the row whose picture is meant


def read(root: Path, options: dict[str, Any]) -> Iterator[Record | Rejected]:
    """Reads a benchmark's questions from VLMEvalKit's tables.

    Options:
        files: Pattern of the tables below the root (``*.tsv``), or a list of patterns.
        suffix: What is added to every question after a line break: the format of the answer.
        licence: As in class_folders.

    Raises:
        DataError: The folder or the tables are missing, or a table has no question column.
    """
    check_options("vlmevalkit", options, OPTIONS)
    root = Path(root)
    patterns = options.get("files", "*.tsv")
    patterns = [patterns] if isinstance(patterns, str) else patterns
    tables = sorted({path for one in patterns for path in root.glob(one)}) if root.is_dir() else []
    if not tables:
        raise DataError(f"{root} holds no table of VLMEvalKit; give the folder with its .tsv files")
    ids: set[str] = set()
    for table in tables:
        pictures: dict[str, str] = {}
        for number, row in table_rows(table):
            place = f"{table.name}:{number}"
            if isinstance(row, str):
                yield Rejected(place, "row unreadable", row)
                continue
            cell = row.get("image", "")
            if len(cell) > REFERENCE:
                pictures[row.get("index", "")] = cell
            else:
                row["image"] = pictures.get(cell.strip(), "")
            item = _record(root, place, row, options)
            if isinstance(item, Record) and item.id in ids:  # tables that count from 0 each
                item = replace(item, id=f"{item.id}@{place}")
            ids.add(item.id if isinstance(item, Record) else "")
            yield item


def table_rows(path: Path) -> Iterator[tuple[int, dict[str, str] | str]]:
    """Gives (row number from 1, cells by column) or (row number, what is wrong with it) of a TSV or CSV file.

    Raises:
        DataError: The file can't be read.
    """
    # A picture in base64 is one cell of any length.
    before = csv.field_size_limit(sys.maxsize)
    try:
        with path.open(encoding="utf-8-sig", newline="") as lines:
            reader = csv.DictReader(lines, delimiter="," if path.suffix == ".csv" else "\t")
            for number, row in enumerate(reader, start=1):
                crooked = None in row or None in row.values()
                yield number, "another number of fields than the header" if crooked else row
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} can't be read as a table ({error})") from None
    finally:
        csv.field_size_limit(before)


def question_of(row: dict[str, str]) -> dict[str, Any]:
    """Gives what a row asks, from its plain columns.

    Returns:
        ``{question, choices, references, kind}``; references are texts, of a choice the option's. A row without answer
        has [] for references.
    """
    cells = {name: cell.strip() for name, cell in row.items()}  # takes the guard off too
    letters = [letter for letter in string.ascii_uppercase if cells.get(letter)]
    answer = cells.get("answer", "")
    if letters:
        references = [cells[answer]] if answer in letters else [answer] if answer in cells.values() else []
    else:
        references = _listed(answer)
    question = "\n".join(text for text in (cells.get("hint", ""), cells.get("question", "")) if text)
    return {
        "question": question,
        "choices": [cells[letter] for letter in letters],
        "references": [one for one in references if one],
        "kind": cells.get("category", ""),
    }


def own_row(row: dict[str, str]) -> dict[str, Any] | None:
    """Gives the question's row that medkit wrote beside the plain columns; None in other tools' tables.

    Raises:
        ValueError: The cell is no JSON object any more.
    """
    if not row.get(COLUMN):
        return None
    found = json.loads(row[COLUMN])
    if not isinstance(found, dict) or not {"id", "messages", "references"} <= set(found):
        raise ValueError("it lacks the question")
    return found


def _record(root: Path, place: str, row: dict[str, str], options: dict[str, Any]) -> Record | Rejected:
    if "question" not in row:
        raise DataError(f"{place} has no question column; it has {', '.join(map(str, row))}")
    try:
        own = own_row(row)
    except ValueError as error:
        return Rejected(place, "row unreadable", f"column {COLUMN}: {error}")
    try:
        pictures, name = _pictures(root, row)
    except ValueError as error:
        return Rejected(row.get("index") or place, "image missing", str(error))
    licence = options.get("licence", "")
    if own is not None:
        return Record(
            own["id"],
            pictures,
            {"question": {key: own[key] for key in ("kind", "answer_type", "choices", "references")}},
            messages=[*own["messages"], assistant_turn(own["references"][0])],
            group=own["group"],
            split="test",
            licence=licence,
            kind="question",
            extra={"question": own["question"]},
        )
    asked = question_of(row)
    if not asked["question"]:
        return Rejected(row.get("index") or place, "question missing", place)
    if not asked["references"]:
        return Rejected(row.get("index") or place, "question without answer", place)
    facts = question_facts(asked["references"][0], asked["kind"], asked["choices"])
    facts["references"] = asked["references"]
    listed = [
        f"{letter}. {text}" for letter, text in zip(string.ascii_uppercase, asked["choices"], strict=False)
    ]
    text = "\n".join([asked["question"], *listed, *([options["suffix"]] if options.get("suffix") else [])])
    return Record(
        row.get("index") or place,
        pictures,
        {"question": facts},
        messages=[user_turn(text, len(pictures)), assistant_turn(asked["references"][0])],
        group=name,
        split=row.get("split") or None,
        licence=licence,
        kind="question",
        extra={"question": asked["question"]},
    )


def _pictures(root: Path, row: dict[str, str]) -> tuple[list[Picture], str]:
    """Gives a row's pictures and a name for all of them together.

    Raises:
        ValueError: A picture isn't there.
    """
    if row.get("image"):
        cells = _listed(row["image"])
        try:
            found = [base64.b64decode(cell, validate=True) for cell in cells]
        except (binascii.Error, ValueError):
            raise ValueError("the image cell is no base64") from None
        return list(found), hashed(row["image"])
    names = _listed(row.get("image_path", ""))
    paths = [inside(root, name) for name in names]
    missing = [name for name, path in zip(names, paths, strict=True) if path is None or not path.is_file()]
    if missing or not names:
        raise ValueError(f"{missing[0]} is in no folder" if missing else "neither picture nor path")
    return [path for path in paths if path is not None], hashed(" ".join(names))


def _listed(cell: str) -> list[str]:
    """Gives the texts of a cell that may hold a list in Python's or JSON's form."""
    cell = cell.strip()
    if cell.startswith("[") and cell.endswith("]"):
        try:
            found = ast.literal_eval(cell)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            return [cell]
        if isinstance(found, list) and found and all(isinstance(one, str | int | float) for one in found):
            return [str(one).strip() for one in found]
    return [cell] if cell else []
