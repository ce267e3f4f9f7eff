"""Rubrics: what a judge is asked about an answer, and in which form it says what it found."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any, Literal

from pydantic import model_validator

from medkit.cards.faults import validate
from medkit.cards.models import Card, Positive, Text
from medkit.cards.strict_yaml import read_card
from medkit.errors import CardError, MedkitError
from medkit.evaluation.endpoint import Request

SHIPPED = Path(__file__).with_name("rubrics")
ORDERS = ("reference_first", "answer_first")
NAMES = ("Reference report", "Candidate report")
_PLACE = re.compile(r"\{(\w+)\}")

Row = dict[str, Any]


class RubricCard(Card):
    """What a judge is asked.

    Attributes:
        version: Raised with every change; a number travels with it.
        reads: What a reply holds: two ``marks``, the ``report_errors`` of a candidate report by type, or GREEN's
            sections (``green``).
        ask: Text of a request. Of marks with {question}, {context}, {first}, {second} and {rubric}; of reports with
            {first}, {second} and their names, or with {reference} and {answer}, which then have one order only.
        context: What is put for {context} where something is {known} of the image.
        most_tokens: Longest reply.
        types: Type of question to its rubric; ``open`` serves types that have none. Reports need none.
    """

    version: Positive
    reads: Literal["marks", "report_errors", "green"] = "marks"
    system: Text
    ask: str
    context: str = ""
    most_tokens: Positive = 512
    types: dict[str, Text] = {}

    @model_validator(mode="after")
    def _is_whole(self) -> RubricCard:
        places = set(_PLACE.findall(self.ask))
        wanted = {"question", "first", "second", "rubric"}
        if self.reads != "marks":
            fixed = bool({"reference", "answer"} & places)
            wanted = {"reference", "answer"} if fixed else {"first", "second", "first_name", "second_name"}
        if wanted - places:
            raise ValueError(f"ask lacks {{{sorted(wanted - places)[0]}}}")
        if self.reads == "marks" and "open" not in self.types:
            raise ValueError("types lacks open, which serves all other types")
        return self

    @property
    def orders(self) -> tuple[str, ...]:
        """The orders in which the two sides are shown."""
        return ORDERS if "first" in _PLACE.findall(self.ask) else ORDERS[:1]


def read_rubric(name: str | Path | None) -> tuple[RubricCard, dict[str, Any]]:
    """Gives a rubric by its shipped name or its file, and what travels with its numbers.

    Args:
        name: ``marks`` (also None), ``report_errors``, ``green``, or a card's path.

    Raises:
        CardError: The card is missing or faulty.
        MedkitError: There is no such rubric.
    """
    shipped = SHIPPED / f"{name or 'marks'}.yaml"
    is_shipped = not isinstance(name, Path) and shipped.is_file()
    path = shipped if is_shipped else Path(str(name))
    if not path.is_file():
        names = ", ".join(sorted(one.stem for one in SHIPPED.glob("*.yaml")))
        raise MedkitError(f"{name} is no rubric; there are {names}, or give the path of a card")
    document = read_card(path, path.name if is_shipped else str(path))
    card, problems = validate(RubricCard, document)
    if problems or card is None:
        raise CardError(problems)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return card, {"version": card.version, "reads": card.reads, "sha256": digest}


def request_of(row: Row, order: str, card: RubricCard) -> Request:
    """Gives what a judge is asked about an answer with the two sides in an order."""
    report = card.reads != "marks"
    gold = str(row["references"][0]) if report else "; ".join(map(str, row["references"]))
    pair, names = (gold, row["answer"]), NAMES
    if order != ORDERS[0]:
        pair, names = pair[::-1], names[::-1]
    known = row.get("context")
    filled = {
        "question": _with_choices(row),
        "context": card.context.replace("{known}", str(known)) if known else "",
        "first": pair[0],
        "second": pair[1],
        "first_name": names[0],
        "second_name": names[1],
        "reference": gold,
        "answer": row["answer"],
        "rubric": card.types.get(row.get("answer_type", "open"), card.types.get("open", "")),
    }
    # One pass: what an answer holds is text, even where it looks like a place to fill.
    prompt = _PLACE.sub(lambda found: filled.get(found[1], found[0]), card.ask)
    sent = [{"role": "system", "content": card.system}, {"role": "user", "content": prompt}]
    benchmark, name = name_of(row)
    return Request((benchmark, order, name), prompt, lambda: sent, card.most_tokens)


def name_of(row: Row) -> tuple[str, str]:
    """Gives the benchmark and the id of an answer."""
    return str(row.get("benchmark", "answers")), str(row["id"])


def _with_choices(row: Row) -> str:
    choices = [str(choice) for choice in row.get("choices") or []]
    lettered = [f"{chr(ord('A') + place)}. {text}" for place, text in enumerate(choices)]
    return "\n".join([str(row.get("question", "")), *lettered])
