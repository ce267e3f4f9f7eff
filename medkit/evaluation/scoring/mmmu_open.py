"""MMMU's reading of an open reply: the shortest tail behind a key word, and every number in it.

Source: Yue et al. 2024, MMMU, appendix (evaluation); lmms-eval 0.7.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

Parsed = str | float

_KEYS = ("could be ", "so ", "is ", "thus ", "therefore ", "final ", "answer ", "result ")
_TRIVIAL = frozenset(":,.!?;'")
_THOUSANDS = re.compile(r"-?\b\d{1,3}(?:,\d{3})+\b")
_SCIENTIFIC = re.compile(r"-?\d+(?:\.\d+)?[eE][+-]?\d+")
_SIMPLE = re.compile(r"-?(?:\d+\.\d+|\.\d+|\d+\b)(?![eE][+-]?\d)(?![,\d])")


def parse(said: str) -> list[Parsed]:
    """Gives what a reply is taken to say: texts and numbers (to two decimals), floats first, else by text."""
    texts = _tails(said)
    pieces = [*texts, *(number for text in texts for number in _numbers(text))]
    found = {form for piece in pieces for form in _forms(piece)}
    return sorted(found, key=lambda form: (isinstance(form, str), str(form)))


def is_right(parsed: Sequence[Parsed] | str, gold: str | Sequence[str]) -> bool:
    """Says whether a gold text stands in a parsed text, or a gold number is among the parsed ones."""
    golds = [form for one in ([gold] if isinstance(gold, str) else gold) for form in _forms(one)]
    return any(
        any(isinstance(one, str) and one in form for one in golds) if isinstance(form, str) else form in golds
        for form in parsed
    )


def is_right_lmms_072(parsed: Sequence[Parsed], gold: str | Sequence[str]) -> bool:
    """Says what lmms-eval up to 0.7.2 does: only the first parsed form is kept, and compared sign by sign.

    Nothing longer than one sign can be right; fixed in 0.7.3.
    """
    return is_right(str(parsed[0]), gold)


def _tails(said: str) -> list[str]:
    text = said.strip().strip(".").lower()
    lines = text.split("\n")
    found = []
    for index, line in enumerate(lines):
        keys = (*_KEYS, "=") if index == len(lines) - 1 else _KEYS
        tails = [line.split(key)[-1].strip() for key in keys if key in line]
        # An empty tail gives way to the next one, however long that is.
        shortest = ""
        for tail in tails:
            if not shortest or len(tail) < len(shortest):
                shortest = tail
        if shortest and shortest not in _TRIVIAL:
            found.append(shortest)
    return found or [text]


def _numbers(text: str) -> list[str]:
    return [found for pattern in (_THOUSANDS, _SCIENTIFIC, _SIMPLE) for found in pattern.findall(text)]


def _forms(text: str) -> list[Parsed]:
    text = text.strip()
    try:
        return [round(float(text.replace(",", "")), 2)]
    except ValueError:
        text = text.lower()
    # A single letter must stand at the edge of a word.
    return [f" {text}", f"{text} "] if len(text) == 1 else [text]
