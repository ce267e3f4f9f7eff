"""The profile medkit: the definitions of ``medkit.evaluation.scorers``, with medical words and units alike."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from .. import scorers
from .profile import CorpusScores, Given, Item, Mark, Profile, Score, is_report
from .report_numbers import caption_numbers

TABLE = Path(__file__).with_name("equivalents.yaml")
_ALTERNATIVES = re.compile(r"\s+or\s+|\s*\|\s*", re.IGNORECASE)
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
_GLUED = re.compile(r"(-?\d+(?:\.\d+)?)([^\W\d_]+)")


@lru_cache(maxsize=65536)
def canonical(text: str) -> str:
    """Gives the normalised text with units converted ("3 cm" is "30 mm") and synonyms replaced.

    The longest synonym wins, each word is replaced once. Nothing else changes: "3 cm" is not "3".
    """
    words = _with_units(scorers.normalise(text).split())
    synonyms, longest = _tables()[0], _tables()[2]
    found: list[str] = []
    start = 0
    while start < len(words):
        for length in range(min(longest, len(words) - start), 0, -1):
            run = " ".join(words[start : start + length])
            if run in synonyms or length == 1:
                found.append(synonyms.get(run, run))
                start += length
                break
    return " ".join(found)


def alternatives(reference: str) -> list[str]:
    """Gives the reference and, where it names several answers ("CT or MRI", "CT|MRI"), each of them.

    A list ("liver; spleen") is one answer.
    """
    parts = [part for part in _ALTERNATIVES.split(reference.strip()) if part]
    return [reference, *parts] if len(parts) > 1 else [reference]


def scores_of(item: Item) -> dict[str, float | None]:
    """Gives every score of the profile for one answer, see ``scorers.score``."""
    golds = [item.gold] if item.choices else [one for gold in item.references for one in alternatives(gold)]
    said, same = canonical(item.answer), [canonical(gold) for gold in golds]
    answer_type = "open" if item.answer_type == "report" else item.answer_type
    choices = list(item.choices.values())
    if choices and item.gold in item.choices:
        # The gold's text, so that an option that reads like another's letter is not mistaken.
        golds = [item.choices[item.gold]]
        same = [canonical(golds[0])]
    values = scorers.score(said, same, (), answer_type)
    values["yes_no"] = scorers.yes_no(item.answer, item.references) if answer_type == "yes_no" else None
    values["choice"] = _choice(item, choices, golds) if choices else None
    decided = values.get(answer_type)
    values["answer"] = values["exact"] if decided is None else decided
    return values


def is_parsed(item: Item) -> bool:
    """Says whether a decision was found in the reply; open ones always have one."""
    if item.answer_type == "choice":
        return parse_choice(item) is not None
    return scorers.is_parsed(item.answer, item.answer_type)


def parse_choice(item: Item) -> int | None:
    """Gives the index of the option that a reply names, by letter or by text, synonyms included."""
    choices = list(item.choices.values())
    index = scorers.parse_choice(item.answer, choices)
    if index is not None:
        return index
    return scorers.parse_choice(canonical(item.answer), [canonical(choice) for choice in choices])


def _choice(item: Item, choices: list[str], golds: list[str]) -> float | None:
    gold = scorers.parse_choice(golds[0], choices)
    return None if gold is None else float(parse_choice(item) == gold)


def _with_units(words: list[str]) -> list[str]:
    units = _tables()[1]
    apart: list[str] = []
    for word in words:
        glued = _GLUED.fullmatch(word)
        apart += list(glued.groups()) if glued and glued[2] in units else [word]
    for place in range(1, len(apart)):
        if apart[place] in units and _NUMBER.fullmatch(apart[place - 1]):
            factor, unit = units[apart[place]]
            apart[place - 1 : place + 1] = [f"{float(apart[place - 1]) * factor:.10g}", unit]
    return apart


@lru_cache(maxsize=1)
def _tables() -> tuple[Mapping[str, str], Mapping[str, tuple[float, str]], int]:
    table: dict[str, Any] = yaml.safe_load(TABLE.read_text(encoding="utf-8"))
    synonyms = {}
    for form, others in table["synonyms"].items():
        # The form itself too: as a whole it is not looked at word by word.
        for other in (form, *others):
            synonyms[scorers.normalise(other)] = scorers.normalise(form)
    units = {unit: (float(factor), into) for unit, (factor, into) in table["units"].items()}
    return synonyms, units, max(len(one.split()) for one in synonyms)


def _score(name: str) -> Callable[[Item], Given]:
    def mark(item: Item) -> Given:
        if is_report(item):
            return None
        value = scores_of(item)[name]
        decides = name in ("answer", "yes_no", "number", "choice")
        if value == 0.0 and decides and item.answer.strip() and not is_parsed(item):
            return Mark(0.0, "unparsed")
        return value

    return mark


MEDKIT = Profile(
    "medkit",
    1,
    "medkit: corrected definitions",
    tuple(
        Score(name, f"{definition} Synonyms, units and named alternatives count as equal.", _score(name))
        for name, definition in scorers.DEFINITIONS.items()
    ),
    (
        CorpusScores(
            "pycocoevalcap's BLEU, ROUGE-L and CIDEr of reports whose words are normalised (case, accents, "
            "punctuation, articles, number words).",
            is_report,
            lambda items: caption_numbers(items, scorers.normalise),
        ),
    ),
)
