"""Generic scenes that medkit draws itself: shapes, textures, letters and digits on plain grounds.

They stand in for the general web images that a large base checkpoint has seen: the tiny general checkpoint
learns to see and to answer on them, and they measure what an adaptation forgets.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

SIDE_PX = 64
OVERSAMPLE = 3  # drawn three times larger, then reduced: smooth edges at 64 px
CANVAS_PX = SIDE_PX * OVERSAMPLE

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (214, 40, 40), "green": (44, 160, 60), "blue": (40, 80, 214), "yellow": (240, 220, 50),
    "orange": (245, 140, 30), "purple": (130, 50, 170), "pink": (250, 150, 190), "cyan": (60, 210, 220),
    "brown": (120, 75, 40), "white": (246, 246, 246), "black": (16, 16, 16), "gray": (130, 130, 130),
}  # fmt: skip
SHAPES = ("circle", "square", "triangle", "star", "cross", "ring", "diamond", "heart")
TEXTURES = ("plain", "striped", "dotted", "checkered")
LETTERS = "ABCDEFGHJKLMNPQRSTUVWXYZ"  # no I and O: at this size they are the digits 1 and 0
DIGITS = "0123456789"
SMALL_PX, LARGE_PX = (10, 14), (20, 27)
CHARACTER_PX = {"small": (13, 16), "large": (21, 27)}
COUNT_WEIGHTS = np.array([0.22, 0.22, 0.20, 0.16, 0.12, 0.08])  # one to six objects


def draw(seed: int, index: int) -> tuple[np.ndarray, dict[str, Any]]:
    """Draws scene ``index`` of the series ``seed``.

    Returns:
        The picture (uint8 [64, 64, 3], RGB) and its facts: label, box and attributes of every object.
    """
    rng = np.random.default_rng([seed, index])
    ground = _choice(rng, list(COLOURS))
    canvas = _ground(rng, COLOURS[ground])
    objects: list[dict[str, Any]] = []
    wanted = 1 + int(rng.choice(len(COUNT_WEIGHTS), p=COUNT_WEIGHTS))
    # Scenes that repeat a kind make counting worth learning; scenes of mixed kinds do so for binding.
    repeated = _kind(rng, ground) if rng.random() < 0.45 else None
    for _ in range(wanted):
        kind = dict(repeated) if repeated and rng.random() < 0.7 else _kind(rng, ground)
        side = int(rng.integers(kind["low_px"], kind["high_px"] + 1))
        corner = _free_corner(rng, side, objects)
        if corner is None:
            continue
        objects.append(_place(canvas, rng, kind, corner, side))
    image = canvas.resize((SIDE_PX, SIDE_PX), Image.Resampling.BOX)
    if rng.random() < 0.15:
        image = image.filter(ImageFilter.GaussianBlur(float(rng.uniform(0.3, 0.8))))
    pixels = np.asarray(image, dtype=np.float32)
    pixels = pixels + rng.normal(0, float(rng.uniform(0, 7)), pixels.shape)
    facts = {
        "modality": "drawing", "width": SIDE_PX, "height": SIDE_PX, "labels": {"background": ground},
        "objects": objects, "complete": True,
    }  # fmt: skip
    return np.clip(pixels, 0, 255).astype(np.uint8), facts


def _choice(rng: np.random.Generator, options: Any) -> Any:
    return options[int(rng.integers(len(options)))]


def _kind(rng: np.random.Generator, ground: str) -> dict[str, Any]:
    """Chooses what an object is: its label, colour, texture and size range."""
    colour = _choice(rng, [name for name in COLOURS if not _alike(name, ground)])
    size = _choice(rng, ("small", "large"))
    if rng.random() < 0.2:
        label = _choice(rng, ("letter", "digit"))
        low, high = CHARACTER_PX[size]
        return {"label": label, "character": _choice(rng, LETTERS if label == "letter" else DIGITS),
                "colour": colour, "size": size, "low_px": low, "high_px": high}  # fmt: skip
    low, high = SMALL_PX if size == "small" else LARGE_PX
    # A texture shows only on a large object: stripes on ten pixels are a blur.
    texture = _choice(rng, TEXTURES) if size == "large" and rng.random() < 0.5 else "plain"
    return {"label": _choice(rng, SHAPES), "colour": colour, "size": size, "texture": texture,
            "low_px": low, "high_px": high}  # fmt: skip


ALIKE = (
    {"red", "orange", "brown"}, {"white", "pink"}, {"yellow", "white"}, {"blue", "purple"},
    {"black", "brown"}, {"orange", "yellow"}, {"cyan", "white"},
    {"gray", "brown"}, {"purple", "brown"}, {"pink", "orange"},
)  # fmt: skip


def _alike(first: str, second: str) -> bool:
    return first == second or any(first in pair and second in pair for pair in ALIKE)


def _ground(rng: np.random.Generator, colour: tuple[int, int, int]) -> Image.Image:
    """Makes the ground, one in three with a soft gradient."""
    base = np.array(colour, dtype=np.float32) + rng.normal(0, 8, 3)
    small = np.broadcast_to(base, (SIDE_PX, SIDE_PX, 3)).copy()
    if rng.random() < 0.33:
        angle = rng.uniform(0, 2 * math.pi)
        ramp = np.linspace(-1, 1, SIDE_PX, dtype=np.float32)
        field = math.cos(angle) * ramp[None, :] + math.sin(angle) * ramp[:, None]
        small += field[..., None] * float(rng.uniform(5, 22))
    picture = Image.fromarray(np.clip(small, 0, 255).astype(np.uint8))
    return picture.resize((CANVAS_PX, CANVAS_PX), Image.Resampling.NEAREST)


def _free_corner(rng: np.random.Generator, side: int, placed: list[dict[str, Any]]) -> tuple[int, int] | None:
    """Finds a corner (x, y in px of the small image) where a square of ``side`` px touches no object."""
    for _ in range(25):
        x, y = (int(value) for value in rng.integers(1, SIDE_PX - side, 2))
        boxes = ([edge * SIDE_PX for edge in other["box"]] for other in placed)
        if all(x + side + 1 < b[0] or x > b[2] + 1 or y + side + 1 < b[1] or y > b[3] + 1 for b in boxes):
            return x, y
    return None


def _place(
    canvas: Image.Image, rng: np.random.Generator, kind: dict[str, Any], corner: tuple[int, int], side: int
) -> dict[str, Any]:
    """Draws one object on the canvas and gives its fact."""
    x, y = corner
    big = side * OVERSAMPLE
    if "character" in kind:
        mask = _character_mask(kind["character"], big)
    else:
        mask = _shape_mask(kind["label"], big, rng)
    colour = np.clip(np.array(COLOURS[kind["colour"]]) + rng.normal(0, 9, 3), 0, 255).astype(int)
    fill = _fill(rng, kind.get("texture", "plain"), tuple(int(value) for value in colour), big)
    canvas.paste(fill, (x * OVERSAMPLE, y * OVERSAMPLE), mask)
    attributes = {key: kind[key] for key in ("colour", "size", "texture", "character") if key in kind}
    box = [x / SIDE_PX, y / SIDE_PX, (x + side) / SIDE_PX, (y + side) / SIDE_PX]
    return {"label": kind["label"], "box": [round(edge, 4) for edge in box], "attributes": attributes}


@functools.lru_cache(maxsize=512)
def _character_mask(character: str, side: int) -> Image.Image:
    font = ImageFont.load_default(size=side * 1.25)
    left, top, right, bottom = font.getbbox(character)
    glyph = Image.new("L", (math.ceil(right - left) + 2, math.ceil(bottom - top) + 2), 0)
    ImageDraw.Draw(glyph).text((1 - left, 1 - top), character, fill=255, font=font, stroke_width=1)
    glyph.thumbnail((side, side))
    mask = Image.new("L", (side, side), 0)
    mask.paste(glyph, ((side - glyph.width) // 2, (side - glyph.height) // 2))
    return mask


def _shape_mask(shape: str, side: int, rng: np.random.Generator) -> Image.Image:
    mask = Image.new("L", (side, side), 0)
    pen = ImageDraw.Draw(mask)
    last = side - 1
    if shape == "circle":
        pen.ellipse((0, 0, last, last), fill=255)
    elif shape == "ring":
        pen.ellipse((0, 0, last, last), fill=255)
        rim = round(side * 0.24)
        pen.ellipse((rim, rim, last - rim, last - rim), fill=0)
    elif shape == "square":
        inset = round(side * 0.06)
        pen.rectangle((inset, inset, last - inset, last - inset), fill=255)
    elif shape == "heart":
        pen.polygon(_heart(side), fill=255)
    else:
        pen.polygon(_corners(shape, side), fill=255)
    # A little turn, so that an edge direction alone does not name the shape.
    turn = float(rng.uniform(-9, 9))
    return mask.rotate(turn, resample=Image.Resampling.BILINEAR) if shape not in ("circle", "ring") else mask


def _corners(shape: str, side: int) -> list[tuple[float, float]]:
    last = side - 1
    if shape == "triangle":
        return [(last / 2, 0), (last, last * 0.95), (0, last * 0.95)]
    if shape == "diamond":
        return [(last / 2, 0), (last * 0.88, last / 2), (last / 2, last), (last * 0.12, last / 2)]
    if shape == "cross":
        near, far = last * 0.34, last * 0.66
        return [(near, 0), (far, 0), (far, near), (last, near), (last, far), (far, far),
                (far, last), (near, last), (near, far), (0, far), (0, near), (near, near)]  # fmt: skip
    points = []  # star with five rays
    for ray in range(10):
        radius = last / 2 if ray % 2 == 0 else last / 2 * 0.42
        angle = math.pi * ray / 5 - math.pi / 2
        points.append((last / 2 + radius * math.cos(angle), last / 2 + radius * math.sin(angle)))
    return points


def _heart(side: int) -> list[tuple[float, float]]:
    points = []
    for step in range(40):
        t = 2 * math.pi * step / 40
        x = 16 * math.sin(t) ** 3
        y = 13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)
        points.append(((x + 17) / 34 * (side - 1), (13 - y) / 31 * (side - 1)))
    return points


def _fill(rng: np.random.Generator, texture: str, colour: tuple[int, ...], side: int) -> Image.Image:
    """Makes the object's fill: its colour, with a lighter or darker pattern where it has a texture."""
    fill = Image.new("RGB", (side, side), colour)
    if texture == "plain":
        return fill
    dark = sum(colour) > 330
    second = tuple(int(value * 0.35) if dark else int(value + (255 - value) * 0.65) for value in colour)
    pen = ImageDraw.Draw(fill)
    pitch = max(4 * OVERSAMPLE, round(side * 0.24))
    start = int(rng.integers(0, pitch))
    if texture == "striped":
        for offset in range(start - pitch, side, pitch):
            pen.rectangle((0, offset, side, offset + pitch // 2), fill=second)
    elif texture == "dotted":
        radius = pitch * 0.3
        for cx in range(pitch // 2, side, pitch):
            for cy in range(pitch // 2, side, pitch):
                pen.ellipse((cx - radius, cy - radius, cx + radius, cy + radius), fill=second)
    else:
        cell = max(3 * OVERSAMPLE, pitch * 3 // 4)
        for column, x in enumerate(range(0, side, cell)):
            for row, y in enumerate(range(0, side, cell)):
                if (column + row) % 2:
                    pen.rectangle((x, y, x + cell - 1, y + cell - 1), fill=second)
    return fill
