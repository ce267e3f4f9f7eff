"""Lines over an axis of their own, as inline SVG: accuracy against severity, reliability, share answered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from medkit.report import wording

LEFT, RIGHT, TOP, FLOOR, HEIGHT = 11.0, 98.0, 8.0, 168.0, 204
APART = (
    0.7  # percent of the width between two series at one place, so that their intervals don't hide each other
)


@dataclass(frozen=True)
class Point:
    """One value with its interval; ``x`` is a share 0..1 of the axis, the others shares of 0..1."""

    x: float
    y: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Series:
    """Points of one model, from left to right; ``style`` as in ``charts``."""

    label: str
    style: str
    points: list[Point]


def plot(
    series: Sequence[Series],
    ticks: Sequence[tuple[float, str]],
    axis: str,
    *,
    majority: float | None = None,
    diagonal: bool = False,
    dots: bool = True,
) -> Markup:
    """Draws values in 0..1 over an axis.

    Args:
        series: What to draw; those without points are left out.
        ticks: (place 0..1, label) of the horizontal axis.
        axis: What the horizontal axis is, in words; begins what is said to a reader who can't see it.
        majority: Accuracy of always giving the most frequent answer, a dashed line.
        diagonal: Draw the line on which value and axis are equal.
        dots: Mark every point; without, only the line is drawn.

    Returns:
        The drawing, empty when there is nothing to draw.
    """
    series = [one for one in series if one.points]
    if not series:
        return Markup("")
    body = [_grid(ticks), _lines(series, majority, diagonal)]
    if dots:
        for number, one in enumerate(series):
            shift = (number - (len(series) - 1) / 2) * APART
            body += [_mark(point, one.style, shift) for point in one.points]
    told = "; ".join(_told(one, ticks) for one in series)
    body.append(
        f'<text x="{(LEFT + RIGHT) / 2}%" y="{HEIGHT - 4}" text-anchor="middle">{escape(axis)}</text>'
    )
    label = escape(f"{axis}: {told}")
    head = f'<svg class="chart plot" width="100%" height="{HEIGHT}" role="img" aria-label="{label}">'
    return Markup(f"{head}{''.join(body)}</svg>")


def _told(one: Series, ticks: Sequence[tuple[float, str]]) -> str:
    names = {place: name for place, name in ticks}
    return f"{one.label} " + ", ".join(
        f"{wording.percent(point.y)} at {names.get(point.x, wording.percent(point.x))}"
        for point in one.points
    )


def _grid(ticks: Sequence[tuple[float, str]]) -> str:
    drawn = []
    for value in (0.0, 0.25, 0.5, 0.75, 1.0):
        y = _y(value)
        label = f"{100 * value:.0f}" + (f"{wording.SPACE}%" if value == 1 else "")
        drawn.append(f'<line class="grid" x1="{LEFT}%" x2="{RIGHT}%" y1="{y:.1f}" y2="{y:.1f}"/>')
        drawn.append(f'<text x="{LEFT - 1.5}%" y="{y + 3.5:.1f}" text-anchor="end">{label}</text>')
    for place, name in ticks:
        x = f"{_x(place):.2f}%"
        drawn.append(f'<line class="grid" x1="{x}" x2="{x}" y1="{FLOOR}" y2="{FLOOR + 4}"/>')
        drawn.append(f'<text x="{x}" y="{FLOOR + 16}" text-anchor="middle">{escape(name)}</text>')
    return "".join(drawn)


def _lines(series: Sequence[Series], majority: float | None, diagonal: bool) -> str:
    # Percent positions are not allowed in a path, so the lines live in a stretched inner drawing.
    paths = []
    if diagonal:
        paths.append(("diagonal", [(0.0, 0.0), (1.0, 1.0)]))
    if majority is not None:
        paths.append(("majority", [(0.0, majority), (1.0, majority)]))
    paths += [(one.style, [(point.x, point.y) for point in one.points]) for one in series]
    inner = "".join(
        f'<path class="line {style}" d="M{" L".join(f"{10 * _x(x):.1f} {_y(y):.1f}" for x, y in points)}"/>'
        for style, points in paths
        if len(points) > 1
    )
    size = f'width="100%" height="{HEIGHT}" viewBox="0 0 1000 {HEIGHT}" preserveAspectRatio="none"'
    return f"<svg {size}>{inner}</svg>"


def _mark(point: Point, style: str, shift: float) -> str:
    x = f"{_x(point.x) + shift:.2f}%"
    drawn = ""
    if point.low is not None and point.high is not None:
        ends = f'y1="{_y(point.low):.1f}" y2="{_y(point.high):.1f}"'
        drawn = f'<line class="whisker {style}" x1="{x}" x2="{x}" {ends}/>'
    return f'{drawn}<circle class="dot {style}" cx="{x}" cy="{_y(point.y):.1f}" r="4"/>'


def _x(place: float) -> float:
    return LEFT + (RIGHT - LEFT) * min(1.0, max(0.0, place))


def _y(value: float) -> float:
    return FLOOR - (FLOOR - TOP) * min(1.0, max(0.0, value))
