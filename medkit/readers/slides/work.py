"""All that touches OpenSlide; runs in a worker process.

Two orders: "survey" looks at a slide's geometry and finds its tissue, "tile" reads one tile. Of a slide's properties
only pixel size, objective, bounds and the format's name leave: others hold barcodes, dates, and names of files and
people. ``associated_images`` (label and macro photographs) is never touched.
"""

from __future__ import annotations

import math
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from medkit.readers import worker
from medkit.readers.slides.grid import Place, Survey
from medkit.readers.slides.reasons import Refused, one_file
from medkit.readers.slides.tissue import tissue_mask

TASK = f"{__name__}:work"
# Longest side of the picture on which tissue is looked for.
MASK_PX = 4096


@dataclass(frozen=True)
class Limits:
    """What is refused.

    Attributes:
        file_bytes: Largest file.
        side: Longest side of level 0 in px.
        region_pixels: Most pixels that one reading may decode.
        seconds: Longest time for a survey or a tile.
        worker_bytes: Address space of the process.
    """

    file_bytes: int = 1 << 36
    side: int = 1 << 20
    region_pixels: int = 1 << 27
    seconds: float = 60.0
    worker_bytes: int = 6 << 30


DEFAULT_LIMITS = Limits()


def survey_apart(path: Path, limits: Limits = DEFAULT_LIMITS) -> Survey:
    """Gives a slide's geometry and tissue, found in the worker.

    Raises:
        Refused: With the reason; nothing of the file's text is in it.
    """
    child = worker.shared(TASK)
    answer = child.ask(_order("survey", path, limits), Refused, _bounds(limits))
    try:
        head, (mask,) = answer.head, answer.arrays
        mpp = head["mpp"]
        return Survey(
            int(head["width"]),
            int(head["height"]),
            _four(head["bounds"]),
            None if mpp is None else (float(mpp[0]), float(mpp[1])),
            None if head["power"] is None else float(head["power"]),
            str(head["vendor"]),
            mask.astype(bool),
        )
    except (KeyError, TypeError, ValueError, IndexError):
        child.stop()
        raise Refused(worker.CRASHED) from None


def tiles_apart(
    path: Path, places: list[Place], tile: int, limits: Limits = DEFAULT_LIMITS
) -> list[np.ndarray]:
    """Reads tiles in the worker, each uint8 [tile, tile, 3].

    Raises:
        Refused: With the reason.
    """
    child, bounds = worker.shared(TASK), _bounds(limits)
    orders = [
        {**_order("tile", path, limits), "x": one.x, "y": one.y, "side": one.side, "tile": tile}
        for one in places
    ]
    child.send(orders, [b""] * len(orders), Refused, bounds)
    tiles = []
    try:
        for _ in orders:
            (pixels,) = child.receive(Refused, bounds).arrays
            if pixels.shape != (tile, tile, 3) or pixels.dtype != np.uint8:
                raise ValueError
            tiles.append(pixels)
    except Refused:
        child.stop()  # the answers behind it are not wanted
        raise
    except ValueError:
        child.stop()
        raise Refused(worker.CRASHED) from None
    return tiles


def work(order: dict[str, Any], _: bytes) -> tuple[dict[str, Any], list[np.ndarray]]:
    """Does one order."""
    limits = Limits(**order["limits"])
    with one_file():
        slide = _opened(order["path"], limits)
        if order["do"] == "survey":
            return survey(slide, limits)
        return {}, [read_tile(slide, (order["x"], order["y"]), order["side"], order["tile"], limits)]


def survey(slide: Any, limits: Limits = DEFAULT_LIMITS) -> tuple[dict[str, Any], list[np.ndarray]]:
    """Gives a slide's geometry as JSON values, and its tissue as uint8 [H,W] of 0 and 1.

    Args:
        slide: An ``openslide.OpenSlide``.
        limits: What is refused.
    """
    width, height = slide.dimensions
    if max(width, height) > limits.side:
        raise Refused("too many pixels", f"{width} x {height} pixels, side limit {limits.side}")
    properties = slide.properties
    sizes = [_number(properties.get(f"openslide.mpp-{axis}")) for axis in "xy"]
    box = [_number(properties.get(f"openslide.bounds-{name}")) for name in ("x", "y", "width", "height")]
    head = {
        "width": width,
        "height": height,
        "bounds": _inside([0, 0, width, height] if None in box else box, width, height),
        "mpp": None if None in sizes else sizes,
        "power": _number(properties.get("openslide.objective-power")),
        "vendor": properties.get("openslide.vendor", ""),
    }
    shrink = max(1.0, max(width, height) / MASK_PX)
    level = slide.get_best_level_for_downsample(shrink)
    seen = slide.level_dimensions[level]
    if seen[0] * seen[1] > limits.region_pixels:
        detail = f"{seen[0]} x {seen[1]} pixels at the lowest power, limit {limits.region_pixels}"
        raise Refused("too many pixels", detail)
    picture = _region(slide, (0, 0), level, seen)
    factor = max(1, int(max(seen) / MASK_PX))
    if factor > 1:
        picture = picture.reduce(factor)
    return head, [tissue_mask(np.asarray(picture)).astype(np.uint8)]


def read_tile(
    slide: Any, corner: tuple[int, int], side: int, tile: int, limits: Limits = DEFAULT_LIMITS
) -> np.ndarray:
    """Reads a square of a slide, uint8 [tile, tile, 3]; what the scanner left out is white.

    Args:
        slide: An ``openslide.OpenSlide``.
        corner: Left and top in px of level 0.
        side: In px of level 0.
        tile: Side of the result in px; no larger than ``side``.
        limits: What is refused.
    """
    # The next finer level, so that a tile is only ever made smaller; scans name 3.9998 what is 4.
    level = slide.get_best_level_for_downsample(side / tile * 1.01)
    seen = max(1, round(side / slide.level_downsamples[level]))
    if seen * seen > limits.region_pixels:
        raise Refused("too many pixels", f"{seen} x {seen} pixels for one tile")
    rgba = _region(slide, corner, level, (seen, seen))
    if np.asarray(rgba)[:, :, 3].min() == 255:
        picture = rgba.convert("RGB")
    else:
        picture = Image.alpha_composite(Image.new("RGBA", rgba.size, (255, 255, 255, 255)), rgba).convert(
            "RGB"
        )
    if seen >= 2 * tile:  # whole pixels first, as scanners make their levels
        picture = picture.reduce(seen // tile)
    if picture.size != (tile, tile):
        picture = picture.resize((tile, tile), Image.Resampling.LANCZOS)
    return np.asarray(picture)


def is_installed() -> bool:
    """Says whether OpenSlide can be imported."""
    from importlib.util import find_spec

    return find_spec("openslide") is not None


_open: list[tuple[tuple[str, int, int], Any]] = []


def _opened(path: str, limits: Limits) -> Any:
    """Gives an open slide; the last one stays open for its next tile."""
    import openslide

    try:
        told = os.stat(path)
    except OSError as error:
        raise Refused("slide unreadable", error.strerror or "") from None
    if told.st_size > limits.file_bytes:
        raise Refused("file too large", f"{told.st_size} bytes, limit {limits.file_bytes}")
    key = (path, told.st_mtime_ns, told.st_size)
    if _open and _open[0][0] == key:
        return _open[0][1]
    while _open:
        _open.pop()[1].close()
    # OpenSlide's messages name files and quote their text.
    try:
        slide = openslide.OpenSlide(path)
    except openslide.OpenSlideUnsupportedFormatError:
        raise Refused("not a slide") from None
    except openslide.OpenSlideError as error:
        # The one message that a user can act on without seeing the file.
        if "transfer syntax" in str(error).lower():
            raise Refused("unknown transfer syntax") from None
        raise Refused("slide unreadable", "opening it fails") from None
    _open.append((key, slide))
    return slide


def _region(slide: Any, corner: tuple[int, int], level: int, size: tuple[int, int]) -> Image.Image:
    import openslide

    try:
        return slide.read_region(corner, level, size)
    except openslide.OpenSlideError:
        _open.clear()  # an error closes a slide for good
        raise Refused("slide unreadable", f"reading level {level} fails") from None


def _number(text: str | None) -> float | None:
    try:
        number = float(text) if text is not None else math.nan
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _inside(box: list[Any], width: int, height: int) -> list[int]:
    """Gives a box (left, top, width, height) that lies within the slide."""
    left, top = (min(max(int(one), 0), most) for one, most in zip(box[:2], (width, height), strict=True))
    return [left, top, min(max(int(box[2]), 0), width - left), min(max(int(box[3]), 0), height - top)]


def _order(do: str, path: Path, limits: Limits) -> dict[str, Any]:
    return {"do": do, "path": str(Path(path).absolute()), "limits": asdict(limits)}


def _bounds(limits: Limits) -> worker.Bounds:
    return worker.Bounds(limits.seconds, limits.worker_bytes)


def _four(values: Any) -> tuple[int, int, int, int]:
    left, top, width, height = (int(one) for one in values)
    return left, top, width, height
