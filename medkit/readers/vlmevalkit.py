"""VLMEvalKit's tables: tab-separated, a row a question, pictures in base64. Cells are read as they are written.

VLMEvalKit itself reads them with pandas, to which "None", "NA" and "null" are missing values and a column of digits
is one of numbers; here nothing but text comes out.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from medkit.errors import DataError
from medkit.readers import Record, Rejected, check_options, hashed, table
from medkit.readers.question_pictures import Pictures, Shown
from medkit.readers.question_texts import LETTERS, asked_as, listed
from medkit.readers.table import question_facts
from medkit.sample import assistant_turn, user_turn

OPTIONS = ("files", "suffix", "licence")
COLUMN = "medkit"  # of medkit's own tables: the question's row as JSON, exact whatever the other columns went through
ASKED = ("kind", "answer_type", "choices", "references", "context")
GUARD = (
    "\u00a0"  # behind a cell that pandas would read as a missing value or a number; stripping takes it off
)


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
    packed, named = Pictures(root, {"base64": True}), Pictures(root, {})
    for path in tables:
        for number, row in table_rows(path):
            place = f"{path.name}:{number}"
            if isinstance(row, str):
                yield Rejected(place, "row unreadable", row)
                continue
            shown = packed.of(path, row, "image") if row.get("image") else named.of(path, row, "image_path")
            item = _record(place, row, shown, options)
            if isinstance(item, Record) and item.id in ids:  # tables that count from 0 each
                item = replace(item, id=f"{item.id}@{place}")
            ids.add(item.id if isinstance(item, Record) else "")
            yield item


def table_rows(path: Path) -> Iterator[tuple[int, dict[str, str] | str]]:
    """Gives (line number, cells by column) or (line number, what is wrong with it) of a TSV or CSV file in UTF-8.

    Raises:
        DataError: The file can't be read.
    """
    return table.table_rows(path, errors="strict")


def question_of(row: dict[str, str]) -> dict[str, Any]:
    """Gives what a row asks, from its plain columns.

    Returns:
        ``{question, choices, references, kind}``; references are texts, of a choice the option's. A row without answer
        has [] for references.
    """
    cells = {name: cell.strip() for name, cell in row.items()}  # takes the guard off too
    letters = [letter for letter in LETTERS if cells.get(letter)]
    answer = cells.get("answer", "")
    if letters:
        references = [cells[answer]] if answer in letters else [answer] if answer in cells.values() else []
    else:
        references = listed(answer) or [answer]
    question = "\n".join(text for text in (cells.get("hint", ""), cells.get("question", "")) if text)
    return {
        "question": question,
        "choices": [cells[letter] for letter in letters],
        "references": [one.strip() for one in references if one.strip()],
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


def _record(place: str, row: dict[str, str], shown: Shown, options: dict[str, Any]) -> Record | Rejected:
    if "question" not in row:
        raise DataError(f"{place} has no question column; it has {', '.join(map(str, row))}")
    try:
        own = own_row(row)
    except ValueError as error:
        return Rejected(place, "row unreadable", f"column {COLUMN}: {error}")
    identifier = row.get("index") or place
    if shown.fault or not shown.pictures:
        fault = shown.fault or ("image missing", "neither picture nor path")
        return Rejected(identifier, *fault)
    licence = options.get("licence", "")
    if own is not None:
        return Record(
            own["id"],
            shown.pictures,
            {**own.get("slices", {}), "question": {key: own[key] for key in ASKED if key in own}},
            messages=[*own["messages"], assistant_turn(own["references"][0])],
            group=own["group"],
            split="test",
            licence=licence,
            kind="question",
            extra={"question": own["question"]},
        )
    asked = question_of(row)
    if not asked["question"]:
        return Rejected(identifier, "question missing", place)
    if not asked["references"]:
        return Rejected(identifier, "question without answer", place)
    facts = question_facts(asked["references"][0], asked["kind"], asked["choices"])
    facts["references"] = asked["references"]
    text = asked_as(asked["question"], "", asked["choices"], {"suffix": options.get("suffix", "")})
    return Record(
        identifier,
        shown.pictures,
        {"question": facts},
        messages=[user_turn(text, len(shown.pictures)), assistant_turn(asked["references"][0])],
        group=hashed(shown.key),
        split=row.get("split") or None,
        licence=licence,
        kind="question",
        extra={"question": asked["question"]},
    )
