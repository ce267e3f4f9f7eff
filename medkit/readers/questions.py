"""Questions of benchmarks in the layouts that they circulate in: tables in text, JSON or Parquet, a row a question."""

from __future__ import annotations

import glob
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

from medkit.errors import DataError
from medkit.readers import Record, Rejected, check_options, hashed, inside
from medkit.readers.question_pictures import Pictures, columns_in
from medkit.readers.question_rows import rows_of
from medkit.readers.question_texts import Notes, asked_as, check_forms, choices_of, gold_of
from medkit.readers.table import find_tables, question_facts
from medkit.sample import assistant_turn, user_turn

OPTIONS = (
    "files", "images", "archive", "base64", "id", "image", "question", "ask", "cut", "answer", "answers_from",
    "answer_is", "answer_type", "choices", "open", "context", "known", "known_from", "prompt", "choice", "between",
    "suffix", "kind", "closed", "language", "facts", "group", "split", "only", "text_only", "licence",
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
ROLES = (
    "id", "image", "question", "answer", "kind", "split", "group", "closed", "language", "context", "known",
)  # fmt: skip
ANSWER_TYPES = ("yes_no", "number", "choice", "open", "report")
NO_PICTURE = ("no picture", "the row names none; its text is asked alone")
_MARK = re.compile(r"<image (\d)>")  # how MMMU's texts name their pictures


def read(root: Path, options: dict[str, Any]) -> Iterator[Record | Rejected]:
    """Reads a benchmark's questions as they were published, and tells their defects.

    Options:
        files: Pattern of the tables below the root, or a list of patterns; ``{split}`` stands for a split's name.
        images: Folder that picture names are relative to (the root). A name that isn't there is looked for
            below the root, then in ``archive``, with other outer folders or none, and taken when one file alone
            has it.
        archive: Pattern of zip files, or a list of patterns, that hold pictures; they are read as they are.
        base64: The picture column holds pictures in base64, or the index of the row of the same table that has it
            (false).
        id, image, question, answer, kind, split: Columns; the usual names are found. An answer may be a list
            of accepted ones. ``kind: "{split}"`` is the name that the file's pattern found. ``image`` may be
            a list of columns (those that the text names as ``<image 1>``, else all), or a name with columns in
            braces: ``"val2014/COCO_val2014_{image_id:012d}.jpg"``. A picture column may hold a list.
        ask: The one question that is asked of every row, where the set has no column with questions.
        cut: Text that is taken off the end of questions.
        answers_from: A table with the answers, joined on the id.
        answer_is: ``text``, ``letter`` (of a choice) or ``index`` (of a choice, from 0).
        answer_type: The type of every answer, where its form doesn't say it: ``report``, ``open``.
        choices: A column (a list, letters to texts, or text as ``a|b``, ``['a', 'b']``, ``A: a B: b``), or a list of
            columns, one a choice.
        open: Column -> value: rows without choices, whose answer is text.
        context: A column whose text is put before the question; the texts of a list with commas.
        known: A column with what is known of the picture (a caption), for judges; models don't see it.
        known_from: ``{file, key, column}``: it stands in a file of its own, joined on the column ``key``.
        prompt: How a question is asked, with the places {question}, {context} ("N/A" where there is none),
            {choices}, {list} and {count} (of the choices). Without it context, question and choices in lines.
        choice, between: How a choice is written ("{letter}. {text}") and what stands between two (a line break).
        suffix: What is added to every question after a line break: the format of the answer. Or one for questions
            with choices and one for others: ``{choice: ..., open: ...}``.
        closed: Column that says CLOSED or OPEN; the set's own definition, kept beside the answer's form.
        facts: Name -> column, of what slices and judges may ask for: ``{modality: modality, organ: location}``. Rows
            may lack it.
        language, group: Columns; the group is hashed, without one the picture is it.
        only: Column -> value, or list of values: other rows are left out.
        text_only: Questions without their pictures (false): for audits and normalisation, not for asking.
        licence: As in class_folders.

    Raises:
        DataError: The folder or the tables are missing, the first row lacks a named column, or an option has a
            value that it can't have.
    """
    check_options("questions", options, OPTIONS)
    check_forms(options)
    if options.get("answer_type", "open") not in ANSWER_TYPES:
        raise DataError(
            f"reader questions: answer_type {options['answer_type']!r} is none of {', '.join(ANSWER_TYPES)}"
        )
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
            elif all(_is_one_of(row.get(key), value) for key, value in options.get("only", {}).items()):
                yield reading.record(path, place, row, split)


def _is_one_of(value: Any, wanted: Any) -> bool:
    return str(value) in [str(one) for one in (wanted if isinstance(wanted, list) else [wanted])]


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


@dataclass
class _Reading:
    root: Path
    options: dict[str, Any]
    columns: dict[str, Any] = field(default_factory=dict)  # of the row that is read: role to column
    shapes: dict[tuple[str, ...], dict[str, Any]] = field(default_factory=dict)
    ids: set[str] = field(default_factory=set)
    asked: set[tuple[str, str, str, str]] = field(default_factory=set)

    def record(self, table: Path, place: str, row: dict[str, Any], split: str | None) -> Record | Rejected:
        """Gives a row's record, or why it can't be used."""
        self._find_columns(place, row)
        identifier = self._id(place, row)
        question = self.options.get("ask", self._value(row, "question"))
        if not isinstance(question, str) or not question.strip():
            return Rejected(identifier, "question missing", place)
        if "<image>" in question:  # LLaVA's question files mark the picture's place in the text
            question = question.replace("<image>", "")
        choices = self._choices(row)
        if self._gap(row):
            return Rejected(identifier, "choice missing", "a later one has text, so letters would move")
        gold, notes = self._gold(row, identifier, choices)
        if not gold:
            return Rejected(identifier, "question without answer", place)
        text = self._asked_as(row, question, choices)
        marks = sorted({int(mark) for mark in _MARK.findall(text)})
        shown = (
            self._pictures.of(table, row, self.columns["image"], marks) if "image" in self.columns else None
        )
        if shown is not None and shown.fault:
            return Rejected(identifier, *shown.fault)
        if shown is not None and not shown.name:
            notes.append(NO_PICTURE)
        if question != question.strip():
            notes.append(("spaces around text", "taken off"))
        facts = self._facts(row, split, gold, choices)
        images = shown.pictures if shown else []
        name, key = (shown.name, shown.key) if shown else ("", "")
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
        same = (own_split or "", key or place, question.strip().lower(), gold[0].lower())
        if key and same in self.asked:
            notes.append(("question repeated", "the same question with the same answer stands above"))
        self.asked.add(same)
        return Record(
            identifier,
            images,
            {**self._told_of(row), "question": facts},
            messages=[user_turn(text, len(images)), assistant_turn(gold[0])],
            group=hashed(str(group)) if group not in (None, "") else key or identifier,
            split=own_split,
            licence=self.options.get("licence", ""),
            kind="question",
            notes=tuple(notes),
            extra={**extra, "question": question.strip()},
        )

    def _find_columns(self, place: str, row: dict[str, Any]) -> None:
        shape = tuple(row)
        if shape in self.shapes:
            self.columns = self.shapes[shape]
            return
        first = not self.shapes  # a later row may lack a column, or be of a table that has other names
        self.columns = self.shapes[shape] = {}
        for role in ROLES:
            named = self.options.get(role)
            if named == "{split}" or (role == "question" and "ask" in self.options):
                continue
            wanted = named if isinstance(named, list) else [named] if named else []
            if role == "image" and isinstance(named, str) and "{" in named:
                wanted = columns_in(named)
            lost = next((column for column in wanted if column not in row), None)
            if lost is not None and first:
                if role == "answer" and "answers_from" in self.options:
                    continue
                raise DataError(f"{place} has no column {lost!r} ({role}); it has {', '.join(map(str, row))}")
            usual = next((name for name in USUAL.get(role, ()) if name in row), None)
            if named or usual:
                self.columns[role] = named or str(usual)
        if first:
            self._check_choices(place, row)
        if first and "question" not in self.columns and "ask" not in self.options:
            raise DataError(
                f"{place} has no question column; name it with the option question ({', '.join(row)})"
            )

    def _check_choices(self, place: str, row: dict[str, Any]) -> None:
        named = self.options.get("choices", [])
        named = [named] if isinstance(named, str) else named
        if named and not any(column in row for column in named):  # a set may have fewer choices than columns
            raise DataError(
                f"{place} has no column {named[0]!r} (choices); it has {', '.join(map(str, row))}"
            )

    def _value(self, row: dict[str, Any], role: str) -> Any:
        return row.get(self.columns[role]) if role in self.columns else None

    def _kind(self, row: dict[str, Any], split: str | None) -> Any:
        return split if self.options.get("kind") == "{split}" else self._value(row, "kind")

    def _facts(
        self, row: dict[str, Any], split: str | None, gold: list[str], choices: list[str]
    ) -> dict[str, Any]:
        kind = self._kind(row, split)
        facts = question_facts(gold[0], kind, choices)
        stated = "choice" if choices else "open" if self._is_open(row) else self.options.get("answer_type")
        if stated:  # "Yes" among lettered choices is a choice, whatever its form
            facts["answer_type"] = stated
            facts["kind"] = facts["kind"] if kind not in (None, "") else stated
        facts["references"] = gold
        known = self._known_of(row)
        if known:
            facts["context"] = known
        return facts

    def _told_of(self, row: dict[str, Any]) -> dict[str, str]:
        """Gives the facts of the picture that columns of the set hold."""
        found = {name: row.get(column) for name, column in self.options.get("facts", {}).items()}
        return {name: str(value).strip() for name, value in found.items() if value not in (None, "", [])}

    def _known_of(self, row: dict[str, Any]) -> str:
        value = self._value(row, "known")
        where = self.options.get("known_from")
        if where:
            value = self._known.get(str(row.get(where["key"])))
        texts = value if isinstance(value, list) else [value]
        return "\n".join(str(one).strip() for one in texts if one not in (None, ""))

    def _id(self, place: str, row: dict[str, Any]) -> str:
        value = self._value(row, "id")
        identifier = place if value in (None, "") else str(value)
        if identifier in self.ids:  # files of one set that count from 1 each
            identifier = f"{identifier}@{place}"
        self.ids.add(identifier)
        return identifier

    def _is_open(self, row: dict[str, Any]) -> bool:
        open_rows = self.options.get("open", {})
        return bool(open_rows) and all(_is_one_of(row.get(key), value) for key, value in open_rows.items())

    def _choices(self, row: dict[str, Any]) -> list[str]:
        if self._is_open(row):
            return []
        named = self.options.get("choices")
        if isinstance(named, list):
            return choices_of([row.get(column) for column in named])
        return choices_of(row.get(named or next((name for name in USUAL["choices"] if name in row), "")))

    def _gap(self, row: dict[str, Any]) -> bool:
        """Whether a choice between others is empty where answers are letters of columns."""
        named = self.options.get("choices")
        if not isinstance(named, list) or self.options.get("answer_is", "text") == "text":
            return False
        filled = [row.get(column) not in (None, "") for column in named]
        return any(late and not early for early, late in pairwise(filled)) and sum(filled) > 1

    def _gold(self, row: dict[str, Any], identifier: str, choices: list[str]) -> tuple[list[str], Notes]:
        answer = (
            self._answers.get(identifier) if "answers_from" in self.options else self._value(row, "answer")
        )
        return gold_of(
            answer, choices, "text" if self._is_open(row) else self.options.get("answer_is", "text")
        )

    def _asked_as(self, row: dict[str, Any], question: str, choices: list[str]) -> str:
        question, cut = question.strip(), self.options.get("cut", "").strip()
        if cut:
            question = question.removesuffix(cut).strip()
        context = self._value(row, "context") or ""
        context = ", ".join(map(str, context)) if isinstance(context, list) else str(context)
        return asked_as(question, context.strip(), choices, self.options)

    @cached_property
    def _pictures(self) -> Pictures:
        return Pictures(self.root, self.options)

    @cached_property
    def _answers(self) -> dict[str, Any]:
        column = self.options.get("answer", "text")
        return self._joined(self.options["answers_from"], self.options.get("id", "question_id"), column)

    @cached_property
    def _known(self) -> dict[str, Any]:
        where = self.options["known_from"]
        return self._joined(where["file"], where["key"], where["column"])

    def _joined(self, file: str, key: str, column: str) -> dict[str, Any]:
        """Gives a column of another table by a key of its rows."""
        path = inside(self.root, file)
        if path is None or not path.is_file():
            raise DataError(f"{self.root} holds no {file}; give the set's folder with that file")
        return {str(row.get(key)): row.get(column) for _, row in rows_of(path) if isinstance(row, dict)}
