"""What a judge's text says: LLaVA-Bench's pairs of marks, CheXprompt's error counts, GREEN's sections.

Source: Liu et al. 2023, LLaVA, section 5.1 (relative score); Zambrano Chaves et al. 2025, LLaVA-Rad
(CheXprompt); Ostmeier et al. 2024, GREEN, section 3.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

Marks = list[float]
MALFORMED: Marks = [-1, -1]

CHEXPROMPT_TYPES = {
    "A": "false_positive_finding",
    "B": "omission_finding",
    "C": "incorrect_location",
    "D": "incorrect_severity",
    "E": "false_positive_comparison",
    "F": "omission_comparison",
}
_SIGNIFICANT = "Number of clinically significant errors by type:"
_INSIGNIFICANT = "Number of clinically insignificant errors by type:"
_BRACKETS = str.maketrans("", "", "[]()")

GREEN_SECTIONS = ("Clinically Significant Errors", "Clinically Insignificant Errors", "Matched Findings")
_GREEN_TYPES = 6
_GREEN_COUNT = re.compile(r"(?<=: )\d+\b(?=\.)")
_GREEN_MATCHED = re.compile(r"\d+\b(?=\.)")
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")


def marks_llava(reply: str) -> Marks:
    """Gives the two marks of the first line, commas as spaces, apart by one space; else ``[-1, -1]``.

    LLaVA and VLMEvalKit leave the -1 in their means; ``relative_scores`` does not.
    """
    fields = reply.split("\n")[0].replace(",", " ").split(" ")
    if len(fields) != 2:
        return MALFORMED
    try:
        return [float(field) for field in fields]
    except ValueError:
        return MALFORMED


def marks_lmms(reply: str) -> Marks:
    """Gives the first two numbers of the first line ("Assistant 1: 8" gives 1 and 8), else ``[-1, -1]``."""
    found = _NUMBER.findall(reply.strip().split("\n")[0])
    return [float(number) for number in found[:2]] if len(found) > 1 else MALFORMED


def marks_llava_med(reply: str) -> Marks:
    """Gives the two marks of the stripped reply's first line.

    Raises:
        ValueError: The line is not two numbers apart by one space.
    """
    first, second = reply.strip().split("\n")[0].split(" ")
    return [float(first), float(second)]


def relative_scores(marks: Sequence[Marks]) -> dict[str, float]:
    """Gives both relative scores in percent of well-formed pairs, and how many pairs there were.

    ``ratio_of_means`` is LLaVA-Bench's, ``mean_of_ratios`` LLaVA-Med's. Malformed pairs are counted, never
    averaged.

    Args:
        marks: Pairs of the reference's and the model's mark.
    """
    fine = [pair for pair in marks if pair != MALFORMED and pair[0] > 0]
    counts: dict[str, float] = {"count": len(fine), "malformed": len(marks) - len(fine)}
    if not fine:
        return counts
    reference, model = (sum(side) for side in zip(*fine, strict=True))
    ratios = sum(said / gold for gold, said in fine) / len(fine)
    return counts | {"ratio_of_means": 100 * model / reference, "mean_of_ratios": 100 * ratios}


def chexprompt_counts(reply: str) -> dict[str, dict[str, int] | int | None]:
    """Gives the error counts by type that a CheXprompt reply lists; None where a list can't be read.

    Pairs are apart by "),(" with at most spaces behind the comma; a space before it ends the list after its
    first pair.
    """
    counts: dict[str, dict[str, int] | int | None]
    counts = {"significant": None, "insignificant": None, "total_significant": None}
    text = reply.split("\nExplanation")[0]
    head, *tails = text.split(_INSIGNIFICANT)
    parts = head.split(_SIGNIFICANT)
    if not tails or len(parts) < 2:
        return counts
    significant = _pairs(parts[1])
    counts |= {"significant": significant, "insignificant": _pairs(tails[-1])}
    return counts | {"total_significant": None if significant is None else sum(significant.values())}


def green_counts(reply: str) -> list[int]:
    """Gives GREEN's significant errors of types a to f, then the matched findings; 0 where none is stated."""
    found = _GREEN_MATCHED.match(_green_section(reply, GREEN_SECTIONS[2]))
    return [*green_error_counts(reply), int(found[0]) if found else 0]


def green_error_counts(reply: str, significant: bool = True) -> list[int]:
    """Gives GREEN's errors of types a to f, the significant or the other ones; 0 where none is stated."""
    return _green_errors(_green_section(reply, GREEN_SECTIONS[0 if significant else 1]))


def green(reply: str) -> float:
    """Gives the GREEN score, matched / (matched + significant errors); 0 where nothing is matched."""
    *errors, matched = green_counts(reply)
    return matched / (matched + sum(errors)) if matched else 0.0


def _pairs(text: str) -> dict[str, int] | None:
    counts = {}
    for piece in re.split(r"\),\s*\(", text):
        fields = piece.translate(_BRACKETS).split(",")
        try:
            letter, count = fields[0].strip(), int(fields[1])
        except (IndexError, ValueError):
            return None
        counts[CHEXPROMPT_TYPES.get(letter, letter)] = count
    return counts


def _green_section(reply: str, title: str) -> str:
    """Gives a section's text up to a blank line; empty where it is missing or says No."""
    found = re.search(rf"\[{title}\]:\s*(.*?)(?:\n\s*\n|\Z)", reply, re.DOTALL)
    return "" if found is None or found[1].startswith("No") else found[1]


def _green_errors(section: str) -> list[int]:
    counts = [0] * _GREEN_TYPES
    for names in ("abcdef", "123456"):
        # Where a type comes twice, the line that sorts last and has a count stands.
        lines = sorted(re.findall(rf"\([{names}]\) .*", section))
        for line in lines:
            count = _GREEN_COUNT.search(line)
            if count:
                counts[names.index(line[1])] = int(count[0])
        if lines:
            break
    return counts
