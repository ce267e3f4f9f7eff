"""Questions of benchmarks in the layouts that they circulate in: CSV, JSON, JSON Lines or Parquet, a row a question."""

from __future__ import annotations

import glob
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from medkit.errors import DataError
from medkit.readers import Picture, Record, Rejected, check_options, hashed, image_files, inside
from medkit.readers.table import find_tables, question_facts, table_rows
from medkit.sample import assistant_turn, user_turn

OPTIONS = (
    "files", "images", "id", "image", "question", "answer", "answers_from", "answer_is", "choices", "context",
    "suffix", "kind", "closed", "language", "group", "split", "only", "text_only", "licence",
)  # fmt: skip
# Column names that are taken when the card names none.
USUAL = {
    "id": ("id", "qid", "question_id", "index"),
    "image": ("image", "image_path", "img_name", "image_name", "img", "file_name", "filename", "path"),
    "question": ("question", "text"),
    "answer": ("answer",),
    "choices": ("options", "choices"),
    "kind": ("kind",),
    "split": ("split",),
}
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_PARQUET_ROWS = 64


def read(root: Path, options: dict[str, Any]) -> Iterator[Record | Rejected]:
    """Reads a benchmark's questions as they were published, and tells their defects.

    Options:
        files: Pattern of the tables below the root, or a list of patterns; ``{split}`` stands for a split's name.
        images: Folder that picture names are relative to (the root). A name that isn't there is looked for
            below the root, and taken when one file alone has it.
        id, image, question, answer, kind, split: Columns; the usual names are found. An answer may be a list
            of accepted ones. ``kind: "{split}"`` is the name that the file's pattern found.
        answers_from: A table with the answers, joined on the id.
        answer_is: ``text``, ``letter`` (of a choice) or ``index`` (of a choice, from 0).
        choices: A column (a list, or text with ``|`` between), or a list of columns, one a choice.
        context: A column whose text is put before the question.
        suffix: What is added to every question after a line break: the format of the answer.
        closed: Column that says CLOSED or OPEN; the set's own definition, kept beside the answer's form.
        language, group: Columns; the group is hashed, without one the picture is it.
        only: Column -> value: other rows are left out.
        text_only: Questions without their pictures (false): for audits and normalisation, not for asking.
        licence: As in class_folders.

    Raises:
        DataError: The folder or the tables are missing, or a named column is in none of them.
    """
    check_options("questions", options, OPTIONS)
    root = Path(root)
    if not root.is_dir():
        raise DataError(f"{root} is no folder; give the folder that holds the questions")
    patterns = options.get("files", ["*.csv", "*.tsv", "*.jsonl", "*.json", "*.parquet"])
    patterns = [patterns] if isinstance(patterns, str) else patterns
    tables = [table for pattern in patterns for table in find_tables(root, pattern)]
    if not tables:
        raise DataError(f"{root} holds no table that matches {', '.join(patterns)}; give the set's folder")
    reading = _Reading(root, options)
    for path, split in tables:
        for number, row in rows_of(path):
            place = f"{path.name}:{number}"
            if isinstance(row, str):
                yield Rejected(place, "row unreadable", row)
            elif all(str(row.get(key)) == str(value) for key, value in options.get("only", {}).items()):
                yield reading.record(place, row, split)


def count_questions(table: Path) -> int:
    """Gives how many questions of a table can be asked.

    Raises:
        DataError: The table isn't there, or none can; says why of the first.
    """
    path = table.expanduser()
    if not path.is_file():
        raise DataError(f"{table} is no file; give a table with the columns image, question and answer")
    items = list(read(path.parent, {"files": glob.escape(path.name)}))
    count = sum(isinstance(item, Record) for item in items)
    if not count:
        first = next((item for item in items if isinstance(item, Rejected)), None)
        why = f": {first.record}: {first.reason} ({first.detail})" if first else "; it is empty"
        raise DataError(f"{table} has no question that can be asked{why}")
    return count


def rows_of(path: Path) -> Iterator[tuple[int, dict[str, Any] | str]]:
    """Gives (number, row) or (number, what is wrong with it); JSON may be a list, lines, or rows by their id."""
    if path.suffix == ".parquet":
        yield from _parquet_rows(path)
    elif path.suffix != ".json":
        yield from table_rows(path)
    else:
        text = path.read_text(encoding="utf-8-sig")
        try:
            content = json.loads(text)
        except ValueError:
            content = [_line(line) for line in text.splitlines() if line.strip()]
            if not any(isinstance(row, dict) for row in content):
                raise DataError(f"{path} is no JSON") from None
        except RecursionError:
            raise DataError(f"{path} is no JSON: it is nested too deeply") from None
        if isinstance(content, dict):
            by_id = all(isinstance(row, dict) for row in content.values())
            content = [{"id": key, **row} for key, row in content.items()] if by_id else [content]
        for number, row in enumerate(content if isinstance(content, list) else [content], 1):
            yield number, row if isinstance(row, dict) else "not an object"


def _line(line: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _parquet_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=_PARQUET_ROWS):
                for row in batch.to_pylist():
                    number += 1
                    yield number, row
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{path} can't be read as Parquet ({error})") from None


@dataclass
class _Reading:
    root: Path
    options: dict[str, Any]
    columns: dict[str, str] = field(default_factory=dict)
    ids: set[str] = field(default_factory=set)
    asked: set[tuple[str, str, str, str]] = field(default_factory=set)

    def record(self, place: str, row: dict[str, Any], split: str | None) -> Record | Rejected:
        """Gives a row's record, or why it can't be used."""
        self._find_columns(place, row)
        identifier = self._id(place, row)
        question = self._value(row, "question")
        if not isinstance(question, str) or not question.strip():
            return Rejected(identifier, "question missing", place)
        if "<image>" in question:  # LLaVA's question files mark the picture's place in the text
            question = question.replace("<image>", "")
        choices = self._choices(row)
        gold, notes = self._gold(row, identifier, choices)
        if not gold:
            return Rejected(identifier, "question without answer", place)
        images, name, fault = self._images(row)
        if fault:
            return Rejected(identifier, *fault)
        if question != question.strip():
            notes.append(("spaces around text", "taken off"))
        facts = question_facts(gold[0], self._kind(row, split), choices)
        facts["references"] = gold
        extra: dict[str, Any] = {"image_name": name} if name else {}
        if "closed" in self.options:
            word = self._value(row, "closed")
            extra["closed"] = closed = str(word).strip().upper() == "CLOSED"
            if word not in ("OPEN", "CLOSED"):
                notes.append(("answer_type misspelt", repr(word)))
            if closed and facts["answer_type"] != "yes_no":
                notes.append(("closed question without yes or no", gold[0]))
        if "language" in self.options:
            extra["language"] = str(self._value(row, "language"))
        group, own_split = self._value(row, "group"), self._value(row, "split")
        own_split = str(own_split).strip() if own_split not in (None, "") else split
        key = (own_split or "", name or place, question.strip().lower(), gold[0].lower())
        if name and key in self.asked:
            notes.append(("question repeated", "the same question with the same answer stands above"))
        self.asked.add(key)
        return Record(
            identifier,
            images,
            {"question": facts},
            messages=[
                user_turn(self._asked_as(row, question, choices), len(images)),
                assistant_turn(gold[0]),
            ],
            group=hashed(str(group)) if group not in (None, "") else name or identifier,
            split=own_split,
            licence=self.options.get("licence", ""),
            kind="question",
            notes=tuple(notes),
            extra={**extra, "question": question.strip()},
        )

    def _find_columns(self, place: str, row: dict[str, Any]) -> None:
        if self.columns:
            return
        for role in (
            "id",
            "image",
            "question",
            "answer",
            "kind",
            "split",
            "group",
            "closed",
            "language",
            "context",
        ):
            named = self.options.get(role)
            if named == "{split}":
                continue
            if named is not None and named not in row:
                if role == "answer" and "answers_from" in self.options:
                    continue
                raise DataError(
                    f"{place} has no column {named!r} ({role}); it has {', '.join(map(str, row))}"
                )
            usual = next((name for name in USUAL.get(role, ()) if name in row), None)
            if named or usual:
                self.columns[role] = named or str(usual)
        if "question" not in self.columns:
            raise DataError(
                f"{place} has no question column; name it with the option question ({', '.join(row)})"
            )

    def _value(self, row: dict[str, Any], role: str) -> Any:
        return row.get(self.columns[role]) if role in self.columns else None

    def _kind(self, row: dict[str, Any], split: str | None) -> Any:
        return split if self.options.get("kind") == "{split}" else self._value(row, "kind")

    def _id(self, place: str, row: dict[str, Any]) -> str:
        value = self._value(row, "id")
        identifier = place if value in (None, "") else str(value)
        if identifier in self.ids:  # files of one set that count from 1 each
            identifier = f"{identifier}@{place}"
        self.ids.add(identifier)
        return identifier

    def _choices(self, row: dict[str, Any]) -> list[str]:
        named = self.options.get("choices")
        if isinstance(named, list):
            found = [row.get(column) for column in named]
        else:
            column = named or next((name for name in USUAL["choices"] if name in row), "")
            found = row.get(column) or []
            if isinstance(found, str):
                found = found.split("|")
        texts = [str(one).strip() for one in found if one is not None and str(one).strip()]
        # " A:Right lung" is how PMC-VQA writes a choice.
        return [
            text[2:].strip() if text[:2] in (f"{letter}:", f"{letter}.") else text
            for letter, text in zip(LETTERS, texts, strict=False)
        ]

    def _gold(
        self, row: dict[str, Any], identifier: str, choices: list[str]
    ) -> tuple[list[str], list[tuple[str, str]]]:
        answer = (
            self._answers.get(identifier) if "answers_from" in self.options else self._value(row, "answer")
        )
        given = [one for one in (answer if isinstance(answer, list) else [answer]) if one is not None]
        notes: list[tuple[str, str]] = []
        kind = self.options.get("answer_is", "text")
        if kind != "text":
            places = [
                LETTERS.find(str(one).strip().upper()[:1] or "?") if kind == "letter" else int(one)
                for one in given
                if kind == "letter" or str(one).isdigit()
            ]
            return [choices[place] for place in places if 0 <= place < len(choices)], notes
        if any(not isinstance(one, str) for one in given):
            notes.append(("answer is a number", f"{answer!r} is read as text"))
        if any(isinstance(one, str) and one != one.strip() for one in given):
            notes.append(("spaces around text", "taken off"))
        return [str(one).strip() for one in given if str(one).strip()], notes

    @cached_property
    def _answers(self) -> dict[str, Any]:
        path = inside(self.root, self.options["answers_from"])
        if path is None or not path.is_file():
            raise DataError(
                f"{self.root} holds no {self.options['answers_from']}; give the file of the answers"
            )
        column = self.options.get("answer", "text")
        found = {}
        for _, row in rows_of(path):
            if isinstance(row, dict):
                found[str(row.get(self.options.get("id", "question_id")))] = row.get(column)
        return found

    def _asked_as(self, row: dict[str, Any], question: str, choices: list[str]) -> str:
        context = str(self._value(row, "context") or "").strip()
        lines = [context] if context else []
        lines += [
            question.strip(),
            *(f"{letter}. {text}" for letter, text in zip(LETTERS, choices, strict=False)),
        ]
        return "\n".join([*lines, *([self.options["suffix"]] if self.options.get("suffix") else [])])

    def _images(self, row: dict[str, Any]) -> tuple[list[Picture], str, tuple[str, str] | None]:
        """Gives (pictures, the picture's name, what is wrong)."""
        value = self._value(row, "image")
        if isinstance(value, dict):  # as the datasets library stores a picture
            data, value = value.get("bytes"), value.get("path")
            if data:
                return [data], str(value or hashed(data.hex())), None
        if value in (None, "", "nan"):
            return [], "", None
        if not isinstance(value, str):
            return [], "", ("image missing", f"{type(value).__name__} is no picture's name")
        name = value.strip()
        if self.options.get("text_only"):
            return [], name, None
        path = inside(self.root, str(Path(self.options.get("images", "")) / name))
        if path is None:
            return [], name, ("image outside the data folder", name)
        if not path.is_file():
            same = self._by_name.get(Path(name).name, [])
            if len(same) != 1:
                what = "is in no folder" if not same else f"is there {len(same)} times"
                return [], name, ("image missing", f"{name} {what}")
            path = same[0]
        return [path], name, None

    @cached_property
    def _by_name(self) -> dict[str, list[Path]]:
        found: dict[str, list[Path]] = {}
        for path in image_files(self.root):
            found.setdefault(path.name, []).append(path)
        return found
