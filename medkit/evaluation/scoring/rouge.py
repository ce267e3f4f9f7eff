"""ROUGE as the package ``rouge`` 1.0.1 counts it: sets of n-grams, sentences cut at full stops.

Source: Lin 2004, ROUGE, sections 2 and 3; PyPI ``rouge`` 1.0.1 with its defaults.
"""

from __future__ import annotations

from collections.abc import Sequence

_TINY = 1e-8  # the package adds it to the F-measure's denominator


def rouge_sets(said: str, gold: str) -> dict[str, float]:
    """Gives the F-measures of ``rouge-1``, ``rouge-2`` and ``rouge-l``, each word counted once.

    Raises:
        ValueError: One side has nothing besides full stops.
    """
    hypothesis, reference = _sentences(said), _sentences(gold)
    if not hypothesis or not reference:
        raise ValueError("ROUGE needs words on both sides; count empty replies apart")
    scores = {f"rouge-{order}": _ngram_f(hypothesis, reference, order) for order in (1, 2)}
    scores["rouge-l"] = _summary_lcs_f(hypothesis, reference)
    return scores


def _sentences(text: str) -> list[list[str]]:
    # A piece of spaces alone stays as a sentence of one empty word, as splitting at single spaces gives it.
    return [" ".join(piece.split()).split(" ") for piece in text.split(".") if piece]


def _ngram_f(hypothesis: Sequence[Sequence[str]], reference: Sequence[Sequence[str]], order: int) -> float:
    said, gold = (
        _ngram_set([word for one in side for word in one], order) for side in (hypothesis, reference)
    )
    return _f_measure(len(said & gold), len(said), len(gold))


def _ngram_set(words: Sequence[str], order: int) -> set[tuple[str, ...]]:
    return {tuple(words[start : start + order]) for start in range(len(words) - order + 1)}


def _summary_lcs_f(hypothesis: Sequence[Sequence[str]], reference: Sequence[Sequence[str]]) -> float:
    shared: set[str] = set()
    for gold in reference:
        for said in hypothesis:
            shared.update(common_subsequence(gold, said))
    sizes = [len({word for sentence in side for word in sentence}) for side in (hypothesis, reference)]
    return _f_measure(len(shared), *sizes)


def _f_measure(shared: int, said: int, gold: int) -> float:
    precision, recall = (shared / said if said else 0.0), (shared / gold if gold else 0.0)
    return 2 * precision * recall / (precision + recall + _TINY)


def common_subsequence(first: Sequence[str], second: Sequence[str]) -> list[str]:
    """Gives one longest common subsequence; of equals the one that keeps the later words of ``first``."""
    table = lcs_table(first, second)
    row, column = len(first), len(second)
    found: list[str] = []
    while row and column:
        if first[row - 1] == second[column - 1]:
            row, column = row - 1, column - 1
            found.append(first[row])
        elif table[row - 1][column] > table[row][column - 1]:
            row -= 1
        else:
            column -= 1
    return found[::-1]


def lcs_table(first: Sequence[str], second: Sequence[str]) -> list[list[int]]:
    """Gives the lengths of the longest common subsequences of all prefixes, [len(first)+1, len(second)+1]."""
    table = [[0] * (len(second) + 1)]
    for word in first:
        above, row = table[-1], [0]
        for column, other in enumerate(second):
            row.append(above[column] + 1 if word == other else max(above[column + 1], row[column]))
        table.append(row)
    return table
