"""A judge's counts of a report's errors, by type: read strictly or not at all, and summed up.

Source: Zambrano Chaves et al. 2025, LLaVA-Rad (CheXprompt: six types, significant or not); Ostmeier et al. 2024,
GREEN, section 3 (score from matched findings and significant errors).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from medkit.evaluation.scoring.judges import (
    CHEXPROMPT_TYPES,
    GREEN_SECTIONS,
    green,
    green_counts,
    green_error_counts,
)
from medkit.evaluation.scoring.profile import Sums, mean_of
from medkit.evaluation.statistics import score_interval, sums_interval

ERRORS_FAULT, GREEN_FAULT = "no counts of all types", "no whole GREEN sections"
MOST_MOVED = 0.5
KINDS = ("significant", "insignificant")
TYPES = tuple(CHEXPROMPT_TYPES.values())

_LIST = (
    r"\s*[\[(]\s*"
    + r"\s*,\s*".join(rf"\(\s*{letter}\s*,\s*([0-9]{{1,2}})\s*\)" for letter in CHEXPROMPT_TYPES)
    + r"\s*[\])]"
)
_TITLE = "Number of clinically {} errors by type:"
_BOTH = re.compile(rf"{_TITLE.format('significant')}{_LIST}\s*\n\s*{_TITLE.format('insignificant')}{_LIST}")
_LETTERS, _DIGITS = "abcdef", "123456"
_ERROR_LINE = re.compile(r"\(([a-f]|[1-6])\) [^\n]*?: ([0-9]{1,2})\.(?:\s[^\n]*)?")
_NONE = re.compile(r"No(?:ne)?\b[^\n]*")
_MATCHED = re.compile(r"[0-9]{1,3}\.(?:\s[^\n]*)?")

Row = dict[str, Any]


def read_errors(text: str, truncated: bool, reference_first: bool) -> Row | None:
    """Gives ``{significant: {type: count}, insignificant: {...}}`` of a reply, or None.

    Both lists must be there once, one below the other, with all six types in their order and counts below 100.
    CheXprompt's own reading is laxer and stricter: it takes lists with types missing, and of a list with a space
    before a comma the first pair alone. An explanation behind the lists may be cut.
    """
    found = _BOTH.findall(text)
    if len(found) != 1 or any(text.count(_TITLE.format(kind)) != 1 for kind in KINDS):
        return None
    counts = list(map(int, found[0]))
    parts = counts[: len(TYPES)], counts[len(TYPES) :]
    return {kind: dict(zip(TYPES, own, strict=True)) for kind, own in zip(KINDS, parts, strict=True)}


def read_green(text: str, truncated: bool, reference_first: bool) -> Row | None:
    """Gives ``{significant: {type: count}, insignificant: {...}, matched, green}`` of a reply, or None.

    All three sections must be there once and in order, those of errors with a count on each line, every type at
    most once, or with "No ...", and the last with a count, or with "No ...". GREEN's own reading takes a missing
    section for no errors, which would look like a good report.
    """
    parts = _green_parts(text.strip())
    if parts is None:
        return None
    *errors, matched = parts
    said = [_error_section(body) for body in errors]
    # What GREEN itself reads must be the same: it goes on past a title where no blank line stands before it.
    read = [green_error_counts(text), green_error_counts(text, significant=False)]
    if said != read or not _is_matched_section(matched):
        return None
    counts = {kind: dict(zip(TYPES, own, strict=True)) for kind, own in zip(KINDS, read, strict=True)}
    return {**counts, "matched": green_counts(text)[-1], "green": green(text)}


def settle(by_order: Sequence[Row]) -> Row:
    """Gives the means over the orders, and the totals."""
    found: Row = {}
    for kind in KINDS:
        found[kind] = {name: float(np.mean([one[kind][name] for one in by_order])) for name in TYPES}
        found[f"{kind}_total"] = sum(found[kind].values())
    for name in ("matched", "green"):
        if name in by_order[0]:
            found[name] = float(np.mean([one[name] for one in by_order]))
    return found


def aggregate_errors(judged: Sequence[Row], seed: int = 0) -> dict[str, Any]:
    """Gives errors a report, in all and by type, with 95 % intervals clustered by group.

    Args:
        judged: Rows with ``marks`` (as ``settle`` gives them, or None) and ``group``.
        seed: Seed of the bootstrap.

    Returns:
        ``{count, excluded}`` and, where ``count`` is above 0, ``significant`` and ``insignificant`` (mean a report,
        ``{value, low, high, types: {type: mean}}``; ends None for a single group, or where nothing varies) and
        ``without_significant``, the share of reports without a significant error in any order.
    """
    fine = [row for row in judged if row["marks"] is not None]
    found: dict[str, Any] = {"count": len(fine), "excluded": len(judged) - len(fine)}
    if not fine:
        return found
    groups = [row["group"] for row in fine]
    for kind in KINDS:
        totals = [row["marks"][f"{kind}_total"] for row in fine]
        types = {name: float(np.mean([row["marks"][kind][name] for row in fine])) for name in TYPES}
        found[kind] = {**_number(mean_of(totals), groups, seed), "types": types}
    free = [float(row["marks"]["significant_total"] == 0) for row in fine]
    interval = score_interval(free, groups, seed)
    found["without_significant"] = {name: round(end, 6) for name, end in interval._asdict().items()}
    return found


def aggregate_green(judged: Sequence[Row], seed: int = 0) -> dict[str, Any]:
    """Gives ``aggregate_errors`` with the GREEN score in both aggregations.

    ``mean_of_ratios`` is GREEN as it is published, the mean of each report's matched / (matched + significant
    errors), 0 where nothing is matched; ``ratio_of_means`` is the same of the sums over all reports.
    ``nothing_matched`` counts reports of score 0 for want of a match, two reports without any finding included.
    """
    found = aggregate_errors(judged, seed)
    fine = [row for row in judged if row["marks"] is not None]
    if not fine:
        return found
    groups = [row["group"] for row in fine]
    sums = np.array([[row["marks"]["matched"], row["marks"]["significant_total"]] for row in fine])
    whole = Sums(sums, lambda total: total[:, 0] / np.maximum(total.sum(1), 1e-12))
    return found | {
        "mean_of_ratios": _number(mean_of([row["marks"]["green"] for row in fine]), groups, seed),
        "ratio_of_means": _number(whole, groups, seed),
        "nothing_matched": sum(row["marks"]["matched"] == 0 for row in fine),
    }


def order_effect(pairs: Sequence[Sequence[Row]]) -> dict[str, Any]:
    """Says what the order alone changes in the count of significant errors: a fair judge gives 0 twice.

    Args:
        pairs: What was read with the reference first, and with the candidate first.
    """
    totals = np.array([[sum(one["significant"].values()) for one in pair] for pair in pairs], dtype=float)
    moved, mean = totals[:, 0] - totals[:, 1], float(totals.mean())
    return {
        "count": len(pairs),
        "answer_second_minus_first": float(moved.mean()),
        "moved": float(np.abs(moved).mean()),
        "moved_share": float(np.abs(moved).mean()) / mean if mean else 0.0,
    }


def order_fault(order: Row) -> str:
    """Gives why an order effect makes the counts worthless, or ""."""
    if order["moved_share"] <= MOST_MOVED:
        return ""
    return f"the order decides; it moves {100 * order['moved_share']:.0f} % of the significant errors"


def total_of(marks: Row) -> float:
    """Gives the significant errors, which human counts are compared with."""
    return marks["significant_total"]


def green_of(marks: Row) -> float:
    """Gives the GREEN score, which human marks from 0 to 1 are compared with."""
    return marks["green"]


def overall_lines(overall: Row) -> list[str]:
    """Writes the scores for the command line."""
    lines = []
    for name, title in (
        ("mean_of_ratios", "GREEN, mean of reports"),
        ("ratio_of_means", "GREEN of the sums"),
    ):
        if name in overall:
            lines.append(f"{title}: {overall[name]['value']:.3f}{_ends(overall[name], 3)}")
    if "significant" not in overall:
        return lines
    for kind in KINDS:
        score = overall[kind]
        lines.append(f"clinically {kind} errors a report: {score['value']:.2f}{_ends(score, 2)}")
    worst = sorted(overall["significant"]["types"].items(), key=lambda pair: -pair[1])
    told = ", ".join(f"{name.replace('_', ' ')} {mean:.2f}" for name, mean in worst if mean)
    if told:
        lines.append(f"  of which {told}")
    free = overall["without_significant"]
    lines.append(f"reports without a significant error: {100 * free['value']:.0f} %")
    return lines


def order_line(order: Row) -> str:
    """Writes the order effect for the command line."""
    return (
        f"Significant errors, candidate shown second against first: {order['answer_second_minus_first']:+.2f} a "
        f"report; the order moves {order['moved']:.2f}"
    )


def _number(sums: Sums, groups: Sequence[str], seed: int) -> dict[str, float | None]:
    interval = sums_interval(sums.rows, sums.function, groups, seed)
    value = float(sums.function(sums.rows.sum(0)[None])[0])
    ends = (round(interval.low, 6), round(interval.high, 6)) if interval else (None, None)
    return {"value": round(value, 6), "low": ends[0], "high": ends[1]}


def _ends(score: Mapping[str, Any], digits: int) -> str:
    return "" if score["low"] is None else f" ({score['low']:.{digits}f} to {score['high']:.{digits}f})"


def _green_parts(text: str) -> list[str] | None:
    """Gives the texts below the three titles, or None where one is missing, doubled or out of order."""
    titles = [f"[{title}]:" for title in GREEN_SECTIONS]
    if any(text.count(title) != 1 for title in titles):
        return None
    places = [text.index(title) for title in titles]
    if places != sorted(places):
        return None
    ends = [*places[1:], len(text)]
    return [
        text[place + len(title) : end].strip() for place, title, end in zip(places, titles, ends, strict=True)
    ]


def _error_section(body: str) -> list[int] | None:
    """Gives the counts of types a to f that a section states, or None where it is not whole."""
    lines = body.split("\n")
    if len(lines) == 1 and _NONE.fullmatch(body):
        return [0] * len(TYPES)
    found = [_ERROR_LINE.fullmatch(line.strip()) for line in lines]
    counts = {one[1]: int(one[2]) for one in found if one}
    alphabet = next((letters for letters in (_LETTERS, _DIGITS) if set(counts) <= set(letters)), "")
    if len(counts) != len(lines) or not alphabet:
        return None
    return [counts.get(letter, 0) for letter in alphabet]


def _is_matched_section(body: str) -> bool:
    first, _, rest = body.partition("\n")
    return bool(_NONE.fullmatch(first) or _MATCHED.fullmatch(first)) and not rest.strip()
