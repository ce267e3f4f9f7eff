"""Charts as inline SVG: positions in percent, so that they stretch while text and dots keep their size.

Colours are CSS classes (``style.css``), so one drawing serves light, dark and print. Every mark also has a
shape of its own, and every drawing an ``aria-label`` that says its numbers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from markupsafe import Markup, escape

from medkit.report import wording

LEFT, SPAN = 2.0, 96.0  # percent of the width: a dot at 0 or 100 % is not cut


@dataclass(frozen=True)
class Mark:
    """One value with its interval: all shares of 0..1, ``style`` one of base, stage, final, control."""

    label: str
    value: float
    low: float | None
    high: float | None
    style: str


def mark(label: str, entry: object, style: str) -> Mark | None:
    """Makes a mark of an accuracy entry ``{"value", "low", "high"}``; None when it has no value."""
    value = wording.number(entry.get("value")) if isinstance(entry, dict) else None
    if value is None:
        return None
    low, high = wording.bounds(entry)
    return Mark(label, value, low, high, style)


def dots(marks: list[Mark | None], majority: float | None = None, pitch: int = 11) -> Markup:
    """Draws values with intervals on the line from 0 to 100 %, one below the other, in one row.

    Args:
        marks: What to draw, from top to bottom; None is left out.
        majority: Accuracy of always giving the most frequent answer, drawn as a dashed upright.
        pitch: Pixels from one mark to the next.
    """
    shown = [entry for entry in marks if entry is not None]
    height = max(1, len(shown)) * pitch + 9
    body = [_grid(height)]
    if majority is not None:
        x = _x(majority)
        body.append(f'<line class="majority" x1="{x}" x2="{x}" y1="1" y2="{height - 1}"/>')
    spoken = []
    for place, entry in enumerate(shown):
        y = 4.5 + pitch * (place + 0.5)
        body.append(_whisker(entry, y))
        body.append(_dot(entry, y))
        spoken.append(
            f"{entry.label} {wording.percent(entry.value)} ({wording.interval(vars(entry)) or '–'})"
        )
    if majority is not None:
        spoken.append(f"most frequent answer {wording.percent(majority)}")
    return _svg("".join(body), height, "; ".join(spoken) or "no value", "dots")


def bar(entry: Mark | None, majority: float | None = None) -> Markup:
    """Draws one value as a bar from 0 with its interval on top."""
    height = 22
    body = [_grid(height)]
    label = "no value"
    if entry is not None:
        width = SPAN * min(1.0, max(0.0, entry.value))
        body.append(
            f'<rect class="bar {entry.style}" x="{LEFT}%" y="5" width="{width:.2f}%" height="12" rx="2"/>'
        )
        body.append(_whisker(entry, 11))
        label = f"{entry.label} {wording.percent(entry.value)} ({wording.interval(vars(entry)) or '–'})"
    if majority is not None:
        x = _x(majority)
        body.append(f'<line class="majority" x1="{x}" x2="{x}" y1="1" y2="{height - 1}"/>')
        label += f"; most frequent answer {wording.percent(majority)}"
    return _svg("".join(body), height, label, "bars")


def axis() -> Markup:
    """Draws the tick labels 0 to 100 % that belong to ``dots`` and ``bar``."""
    ticks = "".join(
        f'<text x="{_x(value)}" y="11" text-anchor="{anchor}">{label}</text>'
        for value, anchor, label in (
            (0, "start", "0"),
            (0.25, "middle", "25"),
            (0.5, "middle", "50"),
            (0.75, "middle", "75"),
            (1, "end", "100\u00a0%"),
        )
    )
    return Markup(f'<svg class="axis" width="100%" height="14" aria-hidden="true">{ticks}</svg>')


def curves(train: list[tuple[float, float]], valid: list[tuple[float, float]], label: str) -> Markup:
    """Draws the loss over steps (line) and the validation loss (line with dots).

    Args:
        train: (step, loss) in order; thinned to means of at most 240 bins.
        valid: (step, validation loss).
        label: What the drawing says to a reader who can't see it.
    """
    train = _thin([point for point in train if _finite(point)], 240)
    valid = [point for point in valid if _finite(point)]
    every = train + valid
    if not every:
        return Markup("")
    first, last = min(x for x, _ in every), max(x for x, _ in every)
    lowest, highest = min(y for _, y in every), max(y for _, y in every)
    logarithmic = lowest > 0 and highest / lowest > 20
    ticks = _log_ticks(lowest, highest) if logarithmic else _ticks(highest)
    scale = math.log10 if logarithmic else float
    bottom = scale(lowest) if logarithmic else 0.0
    top = max(scale(ticks[-1]), scale(highest))
    height, floor = 190, 168
    left, right = 9.0, 98.5

    def place(point: tuple[float, float]) -> tuple[float, float]:
        x = left + (right - left) * (point[0] - first) / ((last - first) or 1)
        y = 10 + (floor - 10) * (1 - (scale(point[1]) - bottom) / ((top - bottom) or 1))
        return x, y

    body = []
    for tick in ticks:
        y = place((first, tick))[1]
        body.append(f'<line class="grid" x1="{left}%" x2="{right}%" y1="{y:.1f}" y2="{y:.1f}"/>')
        body.append(f'<text x="{left - 1.2}%" y="{y + 3.5:.1f}" text-anchor="end">{tick:g}</text>')
    for x, anchor in ((first, "start"), ((first + last) / 2, "middle"), (last, "end")):
        text = f"step {x:,.0f}" if anchor == "start" else f"{x:,.0f}"
        position = place((x, lowest))[0]
        body.append(f'<text x="{position:.1f}%" y="{height - 6}" text-anchor="{anchor}">{text}</text>')
    # Percent positions are not allowed in a path, so the lines live in a stretched inner drawing.
    lines = "".join(
        f'<path class="{style}" d="M{" L".join(f"{x * 10:.1f} {y:.1f}" for x, y in map(place, points))}"/>'
        for style, points in (("loss", train), ("valid", valid))
        if len(points) > 1
    )
    inner = f'<svg width="100%" height="{height}" viewBox="0 0 1000 {height}" preserveAspectRatio="none">'
    body.append(f"{inner}{lines}</svg>")
    for x, y in map(place, _thin(valid, 40)):
        body.append(f'<circle class="valid" cx="{x:.2f}%" cy="{y:.1f}" r="3"/>')
    note = ", log scale" if logarithmic else ""
    return _svg("".join(body), height, f"{label}{note}", "curves")


def key(style: str) -> Markup:
    """Draws the sign of one style for a legend."""
    if style in ("loss", "valid"):
        dot = '<circle class="valid" cx="11" cy="6" r="3"/>' if style == "valid" else ""
        body = f'<path class="{style}" d="M1 6 L21 6"/>{dot}'
        return Markup(f'<svg class="key curves" width="22" height="12" aria-hidden="true">{body}</svg>')
    if style == "diagonal":
        body = '<path class="line diagonal" d="M1 11 L21 1"/>'
    elif style == "majority":
        body = '<line class="majority" x1="11" x2="11" y1="0" y2="12"/>'
    else:
        body = f'<line class="whisker {style}" x1="1" x2="21" y1="6" y2="6"/>' + _shape(style, "11", 6)
    return Markup(f'<svg class="key" width="22" height="12" aria-hidden="true">{body}</svg>')


def _svg(body: str, height: float, label: str, kind: str) -> Markup:
    head = (
        f'<svg class="chart {kind}" width="100%" height="{height:g}" role="img" aria-label="{escape(label)}">'
    )
    return Markup(f"{head}{body}</svg>")


def _x(value: float) -> str:
    return f"{LEFT + SPAN * min(1.0, max(0.0, value)):.2f}%"


def _grid(height: float) -> str:
    return "".join(
        f'<line class="grid" x1="{_x(tick)}" x2="{_x(tick)}" y1="0" y2="{height:g}"/>'
        for tick in (0, 0.25, 0.5, 0.75, 1)
    )


def _whisker(entry: Mark, y: float) -> str:
    if entry.low is None or entry.high is None:
        return ""
    low, high = _x(entry.low), _x(entry.high)
    return f'<line class="whisker {entry.style}" x1="{low}" x2="{high}" y1="{y:g}" y2="{y:g}"/>'


def _dot(entry: Mark, y: float) -> str:
    return _shape(entry.style, _x(entry.value), y)


def _shape(style: str, x: str, y: float) -> str:
    if style == "control":
        # A square in a zero-sized inner drawing, because a rect can't be centred on a percent position.
        square = '<rect class="dot control" x="-4" y="-4" width="8" height="8"/>'
        return f'<svg x="{x}" y="{y:g}" overflow="visible">{square}</svg>'
    return f'<circle class="dot {style}" cx="{x}" cy="{y:g}" r="{5 if style == "final" else 4.25:g}"/>'


def _finite(point: tuple[float, float]) -> bool:
    return math.isfinite(point[0]) and math.isfinite(point[1])


def _thin(points: list[tuple[float, float]], most: int) -> list[tuple[float, float]]:
    if len(points) <= most:
        return points
    bins = [points[i * len(points) // most : (i + 1) * len(points) // most] for i in range(most)]
    return [(part[-1][0], sum(y for _, y in part) / len(part)) for part in bins]


def _ticks(highest: float) -> list[float]:
    if highest <= 0:
        return [0.0, 1.0]
    unit = 10 ** math.floor(math.log10(highest))
    step = next(unit * part for part in (0.2, 0.5, 1, 2, 5) if highest / (unit * part) <= 5)
    return [round(step * i, 10) for i in range(math.ceil(highest / step) + 1)]


def _log_ticks(lowest: float, highest: float) -> list[float]:
    exponents = range(math.floor(math.log10(lowest)), math.ceil(math.log10(highest)) + 1)
    fine = [part * 10.0**exponent for exponent in exponents for part in (1, 2, 5)]
    fine = [tick for tick in fine if lowest <= tick <= highest]
    coarse = [10.0**exponent for exponent in exponents if lowest <= 10.0**exponent <= highest]
    return coarse if len(fine) > 7 else fine
