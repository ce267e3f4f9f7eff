"""Splits a compound figure's caption by its panel letters, with a confidence."""

from __future__ import annotations

import re
from dataclasses import dataclass

# "(A)", "(a-c)", "(A, B)", "(A and B)", "[a]": the marks that publishers set before a panel's text.
_BRACKETS = re.compile(r"[(\[](?P<letters>[A-Za-z](?:\s*(?:[-–—−,&]|and|to)\s*[A-Za-z])*)[)\]]:?(?=\s|$)")
# "A, ..." "A: ..." "A-C, ..." "A. ..." at the start of a sentence.
_BARE = re.compile(r"(?:(?<=^)|(?<=[.;:] ))(?P<letters>[A-Za-z](?:\s*[-–—−,&]\s*[A-Za-z])*)(?:[,:.)])(?=\s)")
_JOIN = re.compile(r"\s*(?P<dash>[-–—−]|\bto\b)\s*|\s*(?:,|&|\band\b)\s*")
MOST = 26


@dataclass(frozen=True)
class Panels:
    """A caption in parts.

    Attributes:
        lead: What is said before the first panel, for all of them.
        parts: (letters, text) in the order of the caption; letters are upper case.
        confidence: 0..1; 0.9 where bracketed letters run A, B, C ... without a gap, less for bare letters,
            for gaps and for letters that come back.
    """

    lead: str
    parts: tuple[tuple[tuple[str, ...], str], ...]
    confidence: float


def split_panels(caption: str) -> Panels:
    """Splits a caption; one without at least two panels comes back whole with confidence 0."""
    best = Panels(caption, (), 0.0)
    for pattern, trust in ((_BRACKETS, 0.9), (_BARE, 0.6)):
        found = _split(caption, pattern, trust)
        if found.confidence > best.confidence:
            best = found
    return best


def _split(caption: str, pattern: re.Pattern[str], trust: float) -> Panels:
    marks: list[tuple[int, int, tuple[str, ...]]] = []
    expected = 0
    skipped = 0
    for match in pattern.finditer(caption):
        letters = _letters(match["letters"])
        numbers = [ord(letter) - ord("A") for letter in letters]
        # A panel's text may point back at an earlier one; only the next letters open a part.
        if numbers and numbers[0] == expected and numbers == sorted(set(numbers)):
            marks.append((match.start(), match.end(), letters))
            expected = numbers[-1] + 1
        elif numbers and numbers[0] > expected:
            skipped += 1
    if expected < 2 or not marks:
        return Panels(caption, (), 0.0)
    if marks[0][0] > 0 and all(_opens_nothing(caption, start) for start, _, _ in marks):
        # "... in lungs (A) and liver (B)": the letters close what they name.
        return Panels(caption, (), 0.0)
    ends = [start for start, _, _ in marks[1:]] + [len(caption)]
    parts = []
    for (_, after, letters), end in zip(marks, ends, strict=True):
        parts.append((letters, caption[after:end].strip(" ;,:-–—")))
    if any(not text for _, text in parts):
        return Panels(caption, (), 0.0)
    confidence = trust - 0.2 * min(skipped, 3)
    return Panels(caption[: marks[0][0]].strip(), tuple(parts), round(max(confidence, 0.0), 2))


def _opens_nothing(caption: str, start: int) -> bool:
    before = caption[:start].rstrip()
    return bool(before) and before[-1] not in ".;:!?"


def _letters(text: str) -> tuple[str, ...]:
    letters: list[str] = []
    position = 0
    joined = ""
    for match in [*_JOIN.finditer(text), None]:
        letter = text[position : match.start() if match else len(text)].strip().upper()
        if len(letter) != 1:
            return ()
        if joined and letters:
            low, high = ord(letters[-1]), ord(letter)
            if not 0 < high - low < MOST:
                return ()
            letters += [chr(code) for code in range(low + 1, high)]
        letters.append(letter)
        if match:
            joined = match["dash"] or ""
            position = match.end()
    return tuple(letters)
