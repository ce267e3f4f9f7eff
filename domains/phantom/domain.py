"""Phantoms that medkit draws itself: simple radiology-like films and scans, and a blood-smear-like field.

Five modalities at 64 px, each with findings that occur independently in about half of the images, so that a
question's wording says nothing about its answer. "Left" and "right" are sides of the image, never of a patient.
No patient's image went into them and none may be judged with them.
"""

from __future__ import annotations

from typing import Any

import numpy as np

SIDE_PX = 64
MODALITIES = ("chest x-ray", "head CT", "limb x-ray", "blood smear", "ultrasound")

Array = np.ndarray
Facts = list[dict[str, Any]]
_Y, _X = (axis + 0.5 for axis in np.mgrid[0:SIDE_PX, 0:SIDE_PX].astype(np.float32))


def draw(seed: int, index: int) -> tuple[Array, dict[str, Any]]:
    """Draws phantom ``index`` of the series ``seed``.

    Returns:
        The picture (uint8 [64, 64, 3], RGB) and its facts: modality and every finding with box and attributes.
    """
    rng = np.random.default_rng([seed, index])
    modality = MODALITIES[int(rng.integers(len(MODALITIES)))]
    picture, objects = _DRAWERS[modality](rng)
    if picture.ndim == 2:
        picture = np.repeat(picture[..., None], 3, axis=2)
        grain = rng.normal(0, float(rng.uniform(0.004, 0.03)), (SIDE_PX, SIDE_PX, 1))
    else:
        grain = rng.normal(0, float(rng.uniform(0.004, 0.02)), picture.shape)
    if rng.random() < 0.3:
        picture = _blurred(picture)
    picture = picture * float(rng.uniform(0.88, 1.06)) + float(rng.uniform(-0.03, 0.03)) + grain
    facts = {
        "modality": modality, "width": SIDE_PX, "height": SIDE_PX, "labels": {},
        "objects": objects, "complete": True,
    }  # fmt: skip
    return (np.clip(picture, 0, 1) * 255).round().astype(np.uint8), facts


def _chest(rng: np.random.Generator) -> tuple[Array, Facts]:
    """Two dark lungs in a bright torso; nodule, effusion, enlarged heart, pacemaker."""
    found: Facts = []
    dx, dy = rng.uniform(-1.5, 1.5, 2)
    picture = np.full((SIDE_PX, SIDE_PX), 0.05, dtype=np.float32)
    torso = _ellipse(32 + dx, 40 + dy, 29 + rng.uniform(-1, 1), 38, power=4)
    _paint(picture, torso, 0.52 + rng.uniform(-0.05, 0.05))
    _paint(picture, _ellipse(32 + dx, 2, 6, 10), 0.5)  # neck
    lung = {side: _lung(rng, side, dx, dy) for side in ("left", "right")}
    dark = 0.17 + rng.uniform(-0.03, 0.04)
    lungs = np.maximum(lung["left"], lung["right"])
    _paint(picture, lungs, dark)
    for rib in range(5):  # faint rib arcs over the lungs
        arc = 12 + rib * 8 + dy + ((_X - 32 - dx) / 11) ** 2 * 1.3
        _paint(picture, lungs * np.exp(-(((_Y - arc) / 1.1) ** 2)) * 0.3, 0.55)
    _paint(picture, _ellipse(32 + dx, 32, 3.6, 34) * torso * 0.7, 0.66)  # spine and mediastinum
    enlarged = rng.random() < 0.5
    width, height = (rng.uniform(14, 16), rng.uniform(10, 11)) if enlarged else (rng.uniform(7, 8.2), 8.5)
    x, y = 33.5 + dx + rng.uniform(-0.5, 0.5), 44 + dy
    heart = _ellipse(x, y, width, height)
    _paint(picture, heart, 0.68)
    if enlarged:
        found.append(_fact("enlarged heart", x, y, width, height))
    base = np.zeros_like(picture)
    if rng.random() < 0.5:
        side = _side(rng)
        level = 43 + dy + rng.uniform(-2, 2)
        outward = (_X - 32 - dx) * (1 if side == "right" else -1)
        meniscus = level - 0.012 * np.clip(outward - 8, 0, None) ** 2  # the level climbs at the chest wall
        base = lung[side] * np.clip(_Y - meniscus, 0, 1)
        _paint(picture, base, 0.8)
        found.append(
            _fact("effusion", 32 + dx + (13.5 if side == "right" else -13.5), level + 6, 9.5, 6.5, side=side)
        )
    if rng.random() < 0.5:
        found.append(_nodule(rng, picture, lung, np.maximum(heart, base)))
    if rng.random() < 0.5:
        side = _side(rng)
        x, y = (
            32 + dx + (17 if side == "right" else -17) + rng.uniform(-1.5, 1.5),
            9.5 + dy + rng.uniform(-1, 1),
        )
        lead = _line(x, y, 33 + dx, 22 + dy, 0.7)
        _paint(picture, np.maximum(lead, _line(33 + dx, 22 + dy, 35 + dx, 44 + dy, 0.7)), 0.97)
        _paint(picture, _ellipse(x, y, 4.6, 3.8, power=4), 1.0)
        found.append(_fact("pacemaker", x, y, 4.6, 3.8, side=side))
    return picture, found


def _lung(rng: np.random.Generator, side: str, dx: float, dy: float) -> Array:
    x = 32 + dx + (13.5 if side == "right" else -13.5)
    return _ellipse(x, 33 + dy, 10 + rng.uniform(-0.5, 0.5), 20, power=2.6) * np.clip(52 + dy - _Y, 0, 1)


def _nodule(
    rng: np.random.Generator, picture: Array, lung: dict[str, Array], hidden: Array
) -> dict[str, Any]:
    side, zone, size = _side(rng), _one(rng, ("upper", "lower")), _one(rng, ("small", "large"))
    radius = rng.uniform(2.5, 2.9) if size == "small" else rng.uniform(4.7, 5.4)
    rows = slice(18, 26) if zone == "upper" else slice(33, 47)
    free = lung[side] * (1 - hidden)
    # The centre lies where the lung is free two pixels around, as far as there is such a place.
    clear = np.minimum.reduce([np.roll(free, shift, (0, 1)) for shift in ((3, 0), (-3, 0), (0, 3), (0, -3))])
    rest = np.zeros_like(clear)
    rest[rows] = clear[rows]
    ys, xs = np.nonzero(rest > max(0.9 * float(rest.max()), 1e-6))
    spot = int(rng.integers(len(ys)))
    x, y = float(xs[spot]) + 0.5, float(ys[spot]) + 0.5
    _paint(picture, _ellipse(x, y, radius, radius), 0.88)
    return _fact("nodule", x, y, radius, radius, side=side, zone=zone, size=size)


def _head(rng: np.random.Generator) -> tuple[Array, Facts]:
    """A skull ring around gray brain; bright hemorrhage, dark infarct, midline shift."""
    found: Facts = []
    x0, y0 = 32 + rng.uniform(-1.5, 1.5), 32 + rng.uniform(-1.5, 1.5)
    rx, ry = rng.uniform(22, 24), rng.uniform(27, 29)
    picture = np.full((SIDE_PX, SIDE_PX), 0.03, dtype=np.float32)
    _paint(picture, _ellipse(x0, y0, rx, ry), 0.95)
    brain = _ellipse(x0, y0, rx - 3, ry - 3)
    _paint(picture, brain, 0.45 + rng.uniform(-0.04, 0.04))
    folds = np.sin(_X * rng.uniform(0.7, 1.0) + rng.uniform(0, 6)) * np.sin(_Y * rng.uniform(0.7, 1.0))
    picture += brain * 0.025 * folds
    bow = 0.0
    if rng.random() < 0.5:
        side = _side(rng)
        bow = rng.uniform(5.5, 7) * (1 if side == "right" else -1)
        found.append(_fact("midline shift", x0 + bow / 2, y0, abs(bow) / 2 + 2, 14, side=side))
    middle = x0 + bow * np.exp(-(((_Y - y0) / 11) ** 2))
    _paint(picture, brain * np.exp(-(((_X - middle) / 0.9) ** 2)), 0.72)
    for sign in (-1, 1):  # ventricles
        _paint(picture, _ellipse(x0 + bow + sign * 3.4, y0 - 1, 1.9, 6), 0.14)
    sides = [_side(rng), _side(rng)]
    rows = [-1, 1] if rng.random() < 0.5 else [1, -1]  # the two never overlap: one in front, one behind
    for label, value, side, row in zip(("hemorrhage", "infarct"), (0.92, 0.12), sides, rows, strict=True):
        if rng.random() < 0.5:
            continue
        size = _one(rng, ("small", "large"))
        radius = rng.uniform(2.7, 3.2) if size == "small" else rng.uniform(5, 5.8)
        x = x0 + (12.5 if side == "right" else -12.5) + rng.uniform(-1, 1)
        y = y0 + row * rng.uniform(8.5, 11)
        tall = radius * rng.uniform(0.9, 1.2)
        _paint(picture, _ellipse(x, y, radius, tall) * brain, value)
        found.append(_fact(label, x, y, radius, tall, side=side, size=size))
    return picture, found


def _limb(rng: np.random.Generator) -> tuple[Array, Facts]:
    """One long bone in soft tissue; fracture, plate, screws."""
    found: Facts = []
    tilt, x0 = rng.uniform(-0.14, 0.14), 32 + rng.uniform(-3, 3)
    axis = x0 + (_Y - 32) * tilt
    picture = np.full((SIDE_PX, SIDE_PX), 0.04, dtype=np.float32)
    _paint(picture, np.clip((16 + 2 * np.cos(_Y / 12) - np.abs(_X - axis)) / 3, 0, 1), 0.27)
    half = 4.6 + rng.uniform(-0.4, 0.4) + 3.6 * (np.abs(_Y - 32) / 30) ** 4  # the shaft flares at the joints
    bone = np.clip(half - np.abs(_X - axis) + 0.5, 0, 1) * np.clip(30.5 - np.abs(_Y - 32), 0, 1)
    _paint(picture, bone, 0.62 + rng.uniform(-0.04, 0.04))
    rim = np.clip(1.3 - np.abs(half - 1.2 - np.abs(_X - axis)), 0, 1) * bone
    _paint(picture, rim, 0.8)  # cortex
    spots = [11.0, 19.0, 45.0, 53.0]
    broken = rng.random() < 0.5
    if broken:
        zone = _one(rng, ("upper", "lower"))
        y = (26.0 if zone == "upper" else 38.0) + rng.uniform(-2, 2)
        x = x0 + (y - 32) * tilt
        slope = float(rng.choice([-1, 1])) * rng.uniform(0.25, 0.6)
        gap = np.clip(2.1 - np.abs(_Y - y - slope * (_X - x)), 0, 1) * (np.abs(_X - x) < 7.5)
        _paint(picture, gap, 0.16)
        found.append(_fact("fracture", x, y, 6, 3.5, zone=zone))
    if rng.random() < 0.5:
        side = _side(rng)
        shift = (7.2 if side == "right" else -7.2) + rng.uniform(-0.4, 0.4)
        top, bottom = 15.0, 49.0
        ends = [x0 + (y - 32) * tilt + shift for y in (top, bottom)]
        _paint(picture, _line(ends[0], top, ends[1], bottom, 1.6), 1.0)
        found.append(_fact("plate", sum(ends) / 2, 32, 1.8 + 17 * abs(tilt), 18.5, side=side))
    if rng.random() < 0.5:
        for y in sorted(rng.choice(spots, size=int(rng.integers(1, 5)), replace=False)):
            x = x0 + (y - 32) * tilt
            _paint(picture, np.maximum(_line(x - 7, y, x + 7, y, 0.9), _ellipse(x - 7, y, 1.7, 2.2)), 1.0)
            found.append(_fact("screw", x, y, 8, 2.2))
    return picture, found


def _smear(rng: np.random.Generator) -> tuple[Array, Facts]:
    """Pink red cells, purple-nucleated white cells, platelets and parasites on a pale ground."""
    found: Facts = []
    ground = np.array([0.95, 0.90, 0.88]) + rng.normal(0, 0.012, 3)
    picture = np.broadcast_to(ground, (SIDE_PX, SIDE_PX, 3)).astype(np.float32).copy()
    taken: list[tuple[float, float, float]] = []
    whites = int(rng.integers(1, 3)) if rng.random() < 0.5 else 0
    for radius in rng.uniform(8.6, 9.6, whites):
        spot = _free(rng, taken, radius)
        if spot:
            _white_cell(rng, picture, *spot, radius)
            found.append(_fact("white cell", *spot, radius, radius))
    reds: list[tuple[float, float, float]] = []
    for radius in rng.uniform(5.6, 6.6, int(rng.integers(1, 6))):
        spot = _free(rng, taken, radius)
        if spot:
            _red_cell(rng, picture, *spot, radius)
            reds.append((*spot, radius))
            found.append(_fact("red cell", *spot, radius, radius))
    if rng.random() < 0.5:
        for x, y, _ in reds[: int(rng.integers(1, 4))]:
            _paint(picture, _ellipse(x, y, 2.9, 2.9), (0.25, 0.10, 0.45))
            _paint(picture, _ellipse(x + 0.6, y - 0.6, 1.0, 1.0), (0.80, 0.55, 0.70))
            found.append(_fact("parasite", x, y, 2.9, 2.9))
    if rng.random() < 0.5:
        for _ in range(int(rng.integers(1, 6))):
            spot = _free(rng, taken, 2.6)
            if spot:
                _paint(picture, _ellipse(*spot, 2.6, 2.3), (0.52, 0.36, 0.70))
                found.append(_fact("platelet", *spot, 2.6, 2.3))
    return picture, found


def _white_cell(rng: np.random.Generator, picture: Array, x: float, y: float, radius: float) -> None:
    _paint(picture, _ellipse(x, y, radius, radius), (0.80, 0.74, 0.88))
    for lobe in range(int(rng.integers(2, 4))):
        angle = 2.1 * lobe + rng.uniform(-0.3, 0.3)
        nucleus = _ellipse(x + 3.2 * np.cos(angle), y + 3.2 * np.sin(angle), 4.2, 4.2)
        _paint(picture, nucleus, (0.36, 0.16, 0.56))


def _red_cell(rng: np.random.Generator, picture: Array, x: float, y: float, radius: float) -> None:
    tone = np.array([0.86, 0.47, 0.47]) + rng.normal(0, 0.02, 3)
    _paint(picture, _ellipse(x, y, radius, radius * rng.uniform(0.93, 1.0)), tone)
    _paint(picture, _ellipse(x, y, radius * 0.45, radius * 0.45, soft=2.5) * 0.55, (0.95, 0.74, 0.72))


def _ultrasound(rng: np.random.Generator) -> tuple[Array, Facts]:
    """A speckled fan; black cysts with a bright echo behind, a stone with a shadow."""
    found: Facts = []
    apex, reach = -6.0, 66.0
    x, y = _X - 32, _Y - apex
    angle, depth = np.arctan2(x, y), np.hypot(x, y)
    fan = (
        np.clip((0.62 - np.abs(angle)) * 40, 0, 1) * np.clip(reach - depth, 0, 1) * np.clip(depth - 12, 0, 1)
    )
    speckle = np.repeat(np.repeat(rng.gamma(4, 0.25, (32, 32)), 2, 0), 2, 1)
    tissue = fan * 0.40 * (0.55 + 0.45 * _blurred(speckle[..., None])[..., 0])
    shade = np.ones_like(tissue)
    taken: list[tuple[float, float, float]] = []
    stone = _in_fan(rng, taken, 4.5, low=16, high=40) if rng.random() < 0.5 else None
    cysts = int(rng.integers(1, 6)) if rng.random() < 0.5 else 0
    bright = np.zeros_like(tissue)
    for _ in range(cysts):
        size = _one(rng, ("small", "large"))
        radius = rng.uniform(2.8, 3.3) if size == "small" else rng.uniform(5.2, 6.2)
        spot = _in_fan(rng, taken, radius, low=15, high=52, lane=stone)
        if spot is None:
            continue
        shade *= 1 - _ellipse(*spot, radius, radius)
        bright += 0.3 * _ellipse(spot[0], spot[1] + radius + 1.6, radius * 0.7, 1.5)
        found.append(_fact("cyst", *spot, radius, radius, size=size, **_sided(spot[0])))
    picture = (tissue + bright * fan) * shade
    if stone:
        sx, sy = stone
        behind = np.clip(3.2 - np.abs(_X - sx - (_Y - sy) * (sx - 32) / (sy - apex)), 0, 1) * (sy < _Y)
        picture *= 1 - 0.9 * behind
        _paint(picture, _ellipse(sx, sy, 4.2, 2.6), 1.0)
        found.append(_fact("stone", sx, sy, 4.2, 2.6, **_sided(sx)))
    return picture.astype(np.float32), found


def _in_fan(
    rng: np.random.Generator,
    taken: list[tuple[float, float, float]],
    radius: float,
    *,
    low: float,
    high: float,
    lane: tuple[float, float] | None = None,
) -> tuple[float, float] | None:
    """Finds a free place inside the fan, off the image's middle line and out of a stone's shadow."""
    for _ in range(60):
        y = rng.uniform(low, high)
        room = (y + 6) * np.tan(0.62) * 0.87 - radius * 1.25 - 1
        x = 32 + rng.uniform(-room, room)
        if room <= 0 or abs(x - 32) < 3:
            continue
        if (
            lane
            and y > lane[1] - 6
            and abs(x - lane[0] - (y - lane[1]) * (lane[0] - 32) / (lane[1] + 6)) < radius + 5
        ):
            continue
        if np.hypot(x - 32, y + 6) + radius > 64:
            continue
        if all((x - a) ** 2 + (y - b) ** 2 > (radius + r + 2.5) ** 2 for a, b, r in taken):
            taken.append((x, y, radius))
            return float(x), float(y)
    return None


def _free(
    rng: np.random.Generator, taken: list[tuple[float, float, float]], radius: float
) -> tuple[float, float] | None:
    for _ in range(60):
        x, y = rng.uniform(radius + 1, SIDE_PX - radius - 1, 2)
        if all((x - a) ** 2 + (y - b) ** 2 > (radius + r + 1.5) ** 2 for a, b, r in taken):
            taken.append((x, y, radius))
            return float(x), float(y)
    return None


def _sided(x: float) -> dict[str, str]:
    return {"side": "left" if x < SIDE_PX / 2 else "right"}


def _fact(label: str, x: float, y: float, rx: float, ry: float, **attributes: str) -> dict[str, Any]:
    """Gives an object's fact from its centre and half axes in px; the box ends at the image's edge."""
    edges = ((x - rx) / SIDE_PX, (y - ry) / SIDE_PX, (x + rx) / SIDE_PX, (y + ry) / SIDE_PX)
    box = [round(min(max(float(edge), 0.0), 1.0), 4) for edge in edges]
    return {"label": label, "box": box, "attributes": attributes}


def _ellipse(x: float, y: float, rx: float, ry: float, *, power: float = 2.0, soft: float = 1.0) -> Array:
    """Gives the coverage (float32 [64, 64], 0..1) of an ellipse, ``power`` above 2 squares its corners."""
    if power == 2.0:
        distance = np.sqrt(((_X - x) / rx) ** 2 + ((_Y - y) / ry) ** 2)
    else:
        distance = (np.abs((_X - x) / rx) ** power + np.abs((_Y - y) / ry) ** power) ** (1 / power)
    return np.clip((1 - distance) * (min(rx, ry) / soft) + 0.5, 0, 1)


def _line(x0: float, y0: float, x1: float, y1: float, half: float) -> Array:
    """Gives the coverage of a line with round ends, ``half`` px to each side."""
    dx, dy = x1 - x0, y1 - y0
    along = np.clip(((_X - x0) * dx + (_Y - y0) * dy) / (dx * dx + dy * dy), 0, 1)
    return np.clip(half + 0.5 - np.hypot(_X - x0 - along * dx, _Y - y0 - along * dy), 0, 1)


def _paint(picture: Array, mask: Array, value: Any) -> None:
    if picture.ndim == 3:
        mask = mask[..., None]
    picture += mask * (np.asarray(value, dtype=np.float32) - picture)


def _blurred(picture: Array) -> Array:
    """Gives the picture [H, W, C] after a small binomial blur."""
    padded = np.pad(picture, ((1, 1), (1, 1), (0, 0)), mode="edge")
    rows = (padded[:-2] + 2 * padded[1:-1] + padded[2:]) / 4
    return (rows[:, :-2] + 2 * rows[:, 1:-1] + rows[:, 2:]) / 4


def _side(rng: np.random.Generator) -> str:
    return _one(rng, ("left", "right"))


def _one(rng: np.random.Generator, options: tuple[str, ...]) -> str:
    return options[int(rng.integers(len(options)))]


_DRAWERS = {
    "chest x-ray": _chest,
    "head CT": _head,
    "limb x-ray": _limb,
    "blood smear": _smear,
    "ultrasound": _ultrasound,
}
