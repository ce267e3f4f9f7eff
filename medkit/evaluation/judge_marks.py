"""A judge's two marks of an answer and its reference: read strictly or not at all, and summed up."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from medkit.evaluation.scoring.judges import relative_scores
from medkit.evaluation.statistics import ratio_interval

FAULT = "no two marks"
LOWEST, HIGHEST = 1.0, 10.0
LEAST_SAME_SIDE = 0.5
_MARK = r"([0-9]{1,2}(?:\.[0-9]+)?)"
_MARKS = re.compile(rf"{_MARK}(?: +|, +){_MARK}")

Row = dict[str, Any]


def parse_marks(text: str, truncated: bool = False) -> tuple[float, float] | None:
    """Gives the two marks of a judge's first line, or None.

    The line must be two numbers from 1 to 10, apart by spaces or a comma with a space, and nothing else; a
    line that was cut ("8 1" of "8 10") does not count.

    Args:
        text: The reply.
        truncated: Whether it was cut at its limit.
    """
    line, newline, _ = text.strip().partition("\n")
    if truncated and not newline:
        return None
    found = _MARKS.fullmatch(line.strip())
    marks = (float(found[1]), float(found[2])) if found else None
    return marks if marks and all(LOWEST <= mark <= HIGHEST for mark in marks) else None


def read_marks(text: str, truncated: bool, reference_first: bool) -> Row | None:
    """Gives ``{reference, answer}`` of a reply, or None."""
    pair = parse_marks(text, truncated)
    if pair is None:
        return None
    return dict(zip(("reference", "answer"), pair if reference_first else pair[::-1], strict=True))


def aggregate(judged: Sequence[Row], seed: int = 0) -> dict[str, Any]:
    """Gives both relative scores, in percent of the reference, with 95 % intervals clustered by group.

    Args:
        judged: Rows with ``marks`` (``{reference, answer}``, means over the orders, or None) and ``group``.
        seed: Seed of the bootstrap.

    Returns:
        ``{count, excluded}`` and, where ``count`` is above 0, ``ratio_of_means``, ``mean_of_ratios`` (each
        ``{value, low, high}``, ends None for a single group), ``answer_mark`` and ``reference_mark``.
    """
    fine = [row for row in judged if row["marks"] is not None]
    counts: dict[str, Any] = {"count": len(fine), "excluded": len(judged) - len(fine)}
    if not fine:
        return counts
    said = [row["marks"]["answer"] for row in fine]
    gold = [row["marks"]["reference"] for row in fine]
    groups = [row["group"] for row in fine]
    values = relative_scores([list(pair) for pair in zip(gold, said, strict=True)])
    ratios = [answer / reference for answer, reference in zip(said, gold, strict=True)]
    intervals = {
        "ratio_of_means": ratio_interval(said, gold, groups, seed),
        "mean_of_ratios": ratio_interval(ratios, [1.0] * len(ratios), groups, seed),
    }
    for name, interval in intervals.items():
        ends = (round(100 * interval.low, 4), round(100 * interval.high, 4)) if interval else (None, None)
        counts[name] = {"value": round(values[name], 4), "low": ends[0], "high": ends[1]}
    return counts | {"answer_mark": sum(said) / len(said), "reference_mark": sum(gold) / len(gold)}


def settle(by_order: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Gives the means over the orders."""
    return {side: sum(one[side] for one in by_order) / len(by_order) for side in by_order[0]}


def order_effect(pairs: Sequence[Sequence[Row]]) -> dict[str, Any]:
    """Says what the order alone changes: a fair judge gives 0 and 1.

    Args:
        pairs: What was read with the reference first, and with the answer first.
    """
    moved = [first["answer"] - second["answer"] for first, second in pairs]  # second place less first place
    same = [_side(first) == _side(second) for first, second in pairs]
    return {
        "count": len(pairs),
        "answer_second_minus_first": sum(moved) / len(pairs),
        "same_side": sum(same) / len(pairs),
    }


def order_fault(order: Row) -> str:
    """Gives why an order effect makes the marks worthless, or ""."""
    if order["same_side"] >= LEAST_SAME_SIDE:
        return ""
    return f"the order decides; the same side wins in both orders in {100 * order['same_side']:.0f} % only"


def value_of(marks: Row) -> float:
    """Gives the mark that human marks are compared with."""
    return marks["answer"]


def overall_lines(overall: Row) -> list[str]:
    """Writes the scores for the command line."""
    lines = []
    for name in ("ratio_of_means", "mean_of_ratios"):
        if name in overall:
            score = overall[name]
            ends = "" if score["low"] is None else f" ({score['low']:.1f} to {score['high']:.1f})"
            lines.append(f"{name.replace('_', ' ')}: {score['value']:.1f} % of the reference{ends}")
    return lines


def order_line(order: Row) -> str:
    """Writes the order effect for the command line."""
    return (
        f"The answer's mark, shown second against first: {order['answer_second_minus_first']:+.2f}; the same side "
        f"wins in both orders {100 * order['same_side']:.0f} %"
    )


def _side(marks: Mapping[str, float]) -> int:
    return (marks["answer"] > marks["reference"]) - (marks["answer"] < marks["reference"])
