"""How numbers and names are written in the report: one spelling everywhere."""

from __future__ import annotations

import math
from typing import Any

SPACE = "\u00a0"  # a number and its unit stay on one line
MINUS = "\u2212"
CONTROL_LABELS = {
    "blank": "blank image",
    "shuffled": "another question’s image",
    "noise": "noise as image",
    "text": "no image",
}


def number(value: Any) -> float | None:
    """Gives a finite number, or None where a file holds none (missing, null, text, NaN)."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def percent(value: Any) -> str:
    """Writes a share of 0..1 as ``93.1 %``, or a dash when there is none."""
    share = number(value)
    return "–" if share is None else f"{100 * share:.1f}{SPACE}%"


def points(value: Any) -> str:
    """Writes a difference of shares as signed percentage points: ``+51.9``."""
    share = number(value)
    if share is None:
        return "–"
    rounded = round(100 * share, 1)
    sign = "+" if rounded > 0 else MINUS if rounded < 0 else ""
    return f"{sign}{abs(rounded):.1f}"


def interval(entry: Any) -> str:
    """Writes the 95 % interval of an accuracy entry as ``91.6–94.5``, or "" when there is none."""
    low, high = bounds(entry)
    if low is None or high is None:
        return ""
    return f"{100 * low:.1f}–{100 * high:.1f}"


def points_interval(entry: Any) -> str:
    """Writes the 95 % interval of a difference in points as ``+49.0 to +54.8``."""
    low, high = bounds(entry)
    return "" if low is None or high is None else f"{points(low)} to {points(high)}"


def bounds(entry: Any) -> tuple[float | None, float | None]:
    """Gives ``low`` and ``high`` of an entry as numbers or None."""
    entry = entry if isinstance(entry, dict) else {}
    return number(entry.get("low")), number(entry.get("high"))


def p_value(value: Any) -> str:
    """Writes a p-value: ``p < 0.001`` below that, three decimals above."""
    p = number(value)
    if p is None:
        return ""
    return f"p{SPACE}<{SPACE}0.001" if p < 0.001 else f"p{SPACE}={SPACE}{p:.3f}"


def count(value: Any) -> str:
    """Writes a whole number with thousands separators."""
    whole = number(value)
    return "–" if whole is None else f"{whole:,.0f}"


def duration(value: Any) -> str:
    """Writes seconds as ``48 s``, ``3 min 05 s`` or ``2 h 10 min``."""
    seconds = number(value)
    if seconds is None:
        return "–"
    if seconds < 10:
        return f"{seconds:.1f}{SPACE}s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole}{SPACE}s"
    if whole < 3600:
        return f"{whole // 60}{SPACE}min {whole % 60:02d}{SPACE}s"
    return f"{whole // 3600}{SPACE}h {whole % 3600 // 60:02d}{SPACE}min"


def figure(value: Any) -> str:
    """Writes a loss or a rate with three significant digits."""
    amount = number(value)
    if amount is None:
        return "–"
    return f"{amount:,.0f}" if abs(amount) >= 1000 else f"{amount:.3g}"


def plural(amount: Any, noun: str) -> str:
    """Writes ``1 question`` or ``1,200 questions``."""
    return f"{count(amount)}{SPACE}{noun}" + ("" if amount == 1 else "s")


def listed(names: list[str], most: int = 6) -> str:
    """Writes names as a sentence part: ``a, b and c``, the rest counted beyond ``most``."""
    if len(names) > most:
        return ", ".join(names[:most]) + f" and {len(names) - most} more"
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def words(name: str) -> str:
    """Writes an identifier as words: ``same_kind`` as ``same kind``, ``yes_no`` as ``yes/no``."""
    return str(name).replace("yes_no", "yes/no").replace("_", " ")
