"""Text in pixels, found by optical character recognition: where it stands and how much, never what it says.

It flags, and never edits: OCR misses faint, rotated and hand-written text, so a picture in which it finds none
isn't proven free of text. What it reads is compared with what the header knows and is then forgotten.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from PIL import Image

from medkit.errors import MissingExtra
from medkit.privacy.profile import Box
from medkit.privacy.text import Known, clean

PACKAGE = "rapidocr"
CHOICES = ("off", "flag", "quarantine")
# What every reading room's pictures carry and what names nobody.
MARKERS = frozenset((
    "L", "R", "LEFT", "RIGHT", "AP", "PA", "LAT", "LATERAL", "ERECT", "UPRIGHT", "SUPINE", "PRONE", "SITTING",
    "STANDING", "PORTABLE", "MOBILE", "DECUB", "DECUBITUS", "INSPIRATION", "EXPIRATION", "CC", "MLO", "LCC", "RCC",
    "LMLO", "RMLO", "SEMI",
))  # fmt: skip
LEAST_SCORE = 0.5
LEAST_LETTERS = 3
PART, OVERLAP, FLAT = 1024, 128, 4


@dataclass(frozen=True)
class Line:
    """A line of text in a picture.

    Attributes:
        box: (left, top, right, bottom) in px, right and bottom exclusive.
        letters: Its letters and digits.
        known: What of the header stands in it ("NAME", "ID", "PLACE", "DATE"), "" for nothing.
        like: What the rules of reports find in it ("DATE", "PHONE"), "" for nothing.
    """

    box: Box
    letters: int
    known: str = ""
    like: str = ""


def check_installed(who: str) -> None:
    """Says how to get OCR where it is missing.

    Raises:
        MissingExtra: The extra isn't installed.
    """
    if any(importlib.util.find_spec(name) is None for name in (PACKAGE, "onnxruntime")):
        raise MissingExtra(f'{who}: ocr needs the extra "ocr": pip install "medkit-lmm[ocr]"')


def find_text(picture: np.ndarray, known: Known | None = None) -> list[Line]:
    """Finds lines of text; view and side markers ("L", "AP erect") are left out.

    Args:
        picture: uint8 [H,W] or [H,W,3].
        known: What the header of the same study knows.

    Raises:
        MissingExtra: The extra isn't installed.
    """
    found = []
    for left, top, scale, part in _parts(picture):
        for line in _read(part, known):
            places = zip(line.box, (left, top, left, top), strict=True)
            x0, y0, x1, y1 = (offset + round(edge * scale) for edge, offset in places)
            found.append(replace(line, box=(x0, y0, x1, y1)))
    return _once(found)


def say(lines: list[Line]) -> str:
    """Gives what was found as counts: "3 lines, 1 with a name of the header, 1 like a date"."""
    parts = [f"{len(lines)} line{'s' if len(lines) != 1 else ''}"]
    known = Counter(line.known.lower() for line in lines if line.known)
    like = Counter(line.like.lower() for line in lines if line.like and not line.known)
    parts += [f"{count} with a {kind} of the header" for kind, count in sorted(known.items())]
    parts += [f"{count} like a {kind}" for kind, count in sorted(like.items())]
    return ", ".join(parts)


def _parts(picture: np.ndarray) -> Iterator[tuple[int, int, float, np.ndarray]]:
    """Gives (left, top, px of the picture in one of the part, part) of what is read at once.

    The finder misses a line that is small beside the whole: 20 px of 1900 weren't seen. So a large picture is read
    in overlapping parts of its own size, and once more reduced, for letters larger than the overlap.
    """
    height, width = picture.shape[:2]
    if max(height, width) <= PART:
        yield 0, 0, 1.0, picture
        return
    for top in _starts(height):
        for left in _starts(width):
            part = picture[top : top + PART, left : left + PART]
            if int(part.max()) - int(part.min()) > FLAT:
                yield left, top, 1.0, part
    scale = max(height, width) / PART
    image = Image.fromarray(picture)
    small = image.resize((max(1, round(width / scale)), max(1, round(height / scale))), Image.Resampling.BOX)
    yield 0, 0, scale, np.asarray(small)


def _starts(side: int) -> list[int]:
    """Gives where parts begin, evenly spread, each sharing ``OVERLAP`` or more with the next."""
    if side <= PART:
        return [0]
    count = -(-(side - OVERLAP) // (PART - OVERLAP))
    return [round(index * (side - PART) / (count - 1)) for index in range(count)]


def _once(found: list[Line]) -> list[Line]:
    """Gives lines that several parts hold once, in reading order; of a line that a part's edge cut, the longest."""
    kept: list[Line] = []
    for line in sorted(found, key=lambda line: -_area(line.box)):
        place = next((index for index, one in enumerate(kept) if _same(line.box, one.box)), None)
        if place is None:
            kept.append(line)
        else:
            one = kept[place]
            kept[place] = replace(one, known=one.known or line.known, like=one.like or line.like)
    return sorted(kept, key=lambda line: (line.box[1], line.box[0]))


def _same(one: Box, other: Box) -> bool:
    """Says whether two boxes share half of the smaller one's area."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    return width > 0 and height > 0 and 2 * width * height >= min(_area(one), _area(other))


def _area(box: Box) -> int:
    return (box[2] - box[0]) * (box[3] - box[1])


def _read(picture: np.ndarray, known: Known | None) -> list[Line]:
    colour = np.repeat(picture[..., None], 3, axis=2) if picture.ndim == 2 else picture
    found = _engine()(np.ascontiguousarray(colour[..., ::-1]))  # the engine takes BGR
    lines = []
    for corners, text, score in zip(
        _given(found.boxes), _given(found.txts), _given(found.scores), strict=True
    ):
        letters = sum(letter.isalnum() for letter in text)
        if score < LEAST_SCORE or letters < LEAST_LETTERS or _is_marker(text):
            continue
        left, top = np.floor(np.min(corners, axis=0)).astype(int)
        right, bottom = np.ceil(np.max(corners, axis=0)).astype(int)
        box = (max(0, int(left)), max(0, int(top)), int(right), int(bottom))
        lines.append(Line(box, letters, *_meaning(text, known)))
    return lines


def _is_marker(text: str) -> bool:
    words = re.findall(r"[A-Z0-9]+", text.upper())
    return bool(words) and all(word in MARKERS for word in words)


def _meaning(text: str, known: Known | None) -> tuple[str, str]:
    match = known.pattern.search(_spaced(text)) if known is not None and known.pattern is not None else None
    kind = known.kinds.get(match.group(0).upper(), "NAME") if known is not None and match is not None else ""
    found = clean(text).found
    return kind, min(found, default="")


def _spaced(text: str) -> str:
    """Writes a name as a header's ("MEYER^HANS") in words; numbers and dates keep their marks."""
    return re.sub(r"[\^_|]+", " ", text)


def _given(values: Any) -> list[Any]:
    return [] if values is None else list(values)


@lru_cache(maxsize=1)
def _engine() -> Any:
    """Gives the engine; its models are files of its package, so nothing is fetched."""
    check_installed("text in pixels")
    threads = {f"EngineConfig.onnxruntime.{kind}_op_num_threads": 1 for kind in ("intra", "inter")}
    # Its log lines stay silent: whoever reads a log may not read the picture.
    return importlib.import_module(PACKAGE).RapidOCR(params={"Global.log_level": "critical", **threads})
