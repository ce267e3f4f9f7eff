"""Scores of text read from images: ANLS, ChartQA's relaxed accuracy, OCRBench's containment.

Source: Biten et al. 2019, ST-VQA, section 4 (ANLS); Masry et al. 2022, ChartQA, section 5.1; Liu et al. 2023,
OCRBench, section 3.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence

ANLS_THRESHOLD = 0.5
RELAXED_TOLERANCE = 0.05
FORMULA_DATASET = "HME100k"
FORMULA_CATEGORY = "Handwritten Mathematical Expression Recognition"
_HALF_WIDTH = {sign + 0xFEE0: sign for sign in range(0x21, 0x7F)}


def anls(said: str, references: Sequence[str]) -> float:
    """Gives the portal's ANLS (lmms-eval and VLMEvalKit have the same).

    The distance is between collapsed, lower-cased texts, the length that it is divided by the originals' in capitals:
    extra spaces make an error smaller, and an "ß" counts as two. Below 0.5 the score is 0.
    """
    shares = []
    for gold in references:
        distance = edit_distance(_collapsed(said), _collapsed(gold))
        length = max(len(said.upper()), len(gold.upper()))
        shares.append(distance / length if length else 0.0)
    best = 1 - min(shares)
    return best if best >= ANLS_THRESHOLD else 0.0


def anls_stvqa(said: str, references: Sequence[str]) -> float:
    """Gives the ANLS of LLaVA's ST-VQA evaluator: no collapsing, lengths of the stripped texts.

    Raises:
        ZeroDivisionError: Reply and one reference are empty.
    """
    said, *golds = (text.strip().lower() for text in (said, *references))
    best = max(1 - edit_distance(said, gold) / max(len(said), len(gold)) for gold in golds)
    return best if best >= ANLS_THRESHOLD else 0.0


def anls_pix2struct(said: str, references: Sequence[str]) -> float:
    """Gives pix2struct's ANLS: only case is folded, and exactly 0.5 counts as 0.

    Raises:
        ZeroDivisionError: Reply and one reference are empty.
    """
    said, *golds = (text.lower() for text in (said, *references))
    shares = [edit_distance(said, gold) / max(len(said), len(gold)) for gold in golds]
    return max(1 - share if share < ANLS_THRESHOLD else 0.0 for share in shares)


def relaxed(said: str, gold: str) -> bool:
    """Says whether a number is within 5 % of the reference, or a text equal to it without case.

    A trailing % divides by 100. Thousands separators and units make a number a text.
    """
    number, target = _number(said), _number(gold)
    if number is not None and target:
        return abs(number - target) / abs(target) <= RELAXED_TOLERANCE
    return said.lower() == gold.lower()


def relaxed_vlmevalkit(said: str, gold: str) -> bool:
    """Says the same after the reply is stripped; a reference written as a list is several references."""
    return any(relaxed(said.strip(), str(one)) for one in _listed(gold))


def relaxed_qwen(said: str, gold: str) -> bool:
    """Says the same with the sides exchanged: the 5 % are of the reply."""
    return relaxed(gold, said.strip())


def ocr_contains(said: str, references: Sequence[str], formula: bool, fold_width: bool = False) -> bool:
    """Says whether a reference stands in the reply, line breaks as spaces.

    Args:
        said: The reply.
        references: Texts, any of which is right.
        formula: Compare with case and without spaces, as for formulas; else without case.
        fold_width: Take full-width signs for their plain ones first, as lmms-eval does since 2026.
    """
    said, *golds = (_ocr_form(text, formula, fold_width) for text in (said, *references))
    return any(gold in said for gold in golds)


def edit_distance(first: str, second: str) -> int:
    """Gives the Levenshtein distance in characters."""
    row = list(range(len(second) + 1))
    for index, sign in enumerate(first, start=1):
        above, row = row, [index]
        for column, other in enumerate(second):
            row.append(min(above[column] + (sign != other), above[column + 1] + 1, row[column] + 1))
    return row[-1]


def _collapsed(text: str) -> str:
    return " ".join(text.strip().lower().split())


def _number(text: str) -> float | None:
    try:
        return float(text.rstrip("%")) / 100 if text.endswith("%") else float(text)
    except ValueError:
        return None


def _listed(gold: str) -> list[object]:
    try:
        value = ast.literal_eval(gold)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return [gold]
    return value if isinstance(value, list) else [gold]


def _ocr_form(text: str, formula: bool, fold_width: bool) -> str:
    text = text.translate(_HALF_WIDTH) if fold_width else text
    text = text.strip().replace("\n", " ")
    return text.replace(" ", "") if formula else text.lower()
