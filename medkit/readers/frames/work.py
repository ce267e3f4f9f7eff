"""Surveys and decodes videos and stacks; runs in a worker process."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from medkit.errors import DataError
from medkit.images import to_rgb
from medkit.readers import worker
from medkit.readers.frames import video
from medkit.readers.frames.reasons import Refused, one_file

TASK = f"{__name__}:work"
VIDEOS = (".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".ts", ".wmv", ".flv", ".ogv")
STACKS = (".tif", ".tiff", ".gif", ".webp", ".png", ".apng")
# Named one by one: no other format of Pillow's ever sees the file.
FORMATS = ("TIFF", "GIF", "WEBP", "PNG")


@dataclass(frozen=True)
class Limits:
    """What is refused.

    Attributes:
        file_bytes: Largest file.
        pixels: Most width x height of a frame.
        length_s: Longest video.
        pages: Most pages of a stack.
        seconds: Longest time for a survey, and for the frames of one record.
        worker_bytes: Address space of the process.
    """

    file_bytes: int = 1 << 35
    pixels: int = 89_478_485
    length_s: float = 4 * 3600.0
    pages: int = 10_000
    seconds: float = 60.0
    worker_bytes: int = 6 << 30


DEFAULT_LIMITS = Limits()


@dataclass(frozen=True)
class Survey:
    """What is known before a frame is decoded: a video's length in s, or a stack's number of pages."""

    length_s: float | None
    pages: int | None


def survey_apart(path: Path, limits: Limits = DEFAULT_LIMITS) -> Survey:
    """Looks at a file in the worker.

    Raises:
        Refused: With the reason; nothing of the file's text is in it.
    """
    head = worker.shared(TASK).ask(_order("survey", path, limits), Refused, _bounds(limits)).head
    try:
        if "pages" in head:
            return Survey(None, int(head["pages"]))
        return Survey(float(head["seconds"]), None)
    except (KeyError, TypeError, ValueError):
        raise Refused(worker.CRASHED) from None


def frames_apart(path: Path, places: list[float], limits: Limits = DEFAULT_LIMITS) -> list[np.ndarray]:
    """Decodes frames in the worker, each uint8 [H,W,3].

    Args:
        path: The file.
        places: Times in s of a video, numbers from 0 of a stack's pages; rising.
        limits: What is refused.

    Raises:
        Refused: With the reason.
    """
    order = {**_order("frames", path, limits), "places": places}
    pictures = worker.shared(TASK).ask(order, Refused, _bounds(limits)).arrays
    if len(pictures) != len(places) or any(one.ndim != 3 or one.dtype != np.uint8 for one in pictures):
        raise Refused(worker.CRASHED)
    return pictures


def work(order: dict[str, Any], _: bytes) -> tuple[dict[str, Any], list[np.ndarray]]:
    """Does one order."""
    limits, path = Limits(**order["limits"]), order["path"]
    with one_file():
        try:
            size = os.stat(path).st_size
        except OSError as error:
            raise Refused("video unreadable", error.strerror or "") from None
        if size > limits.file_bytes:
            raise Refused("file too large", f"{size} bytes, limit {limits.file_bytes}")
        if path.lower().endswith(STACKS):
            return _stack(path, order.get("places"), limits)
        if order["do"] == "frames":
            pictures, begins = video.frames(path, order["places"], limits.pixels)
            return {"begins": begins}, pictures
        head = video.survey(path, limits.pixels)
        if head["seconds"] > limits.length_s:
            raise Refused("too long", f"{head['seconds']:.0f} s, limit {limits.length_s:g} s")
        return head, []


def _stack(path: str, places: list[int] | None, limits: Limits) -> tuple[dict[str, Any], list[np.ndarray]]:
    """Counts a stack's pages, or decodes some."""
    Image.MAX_IMAGE_PIXELS = None  # checked here, for every page
    try:
        with Image.open(path, formats=FORMATS) as image:
            pages = getattr(image, "n_frames", 1)
            if pages > limits.pages:
                raise Refused("too long", f"{pages} pages, limit {limits.pages}")
            pictures = []
            for place in places or ():
                image.seek(int(place))
                if image.width * image.height > limits.pixels:
                    size = f"{image.width} x {image.height} pixels, limit {limits.pixels}"
                    raise Refused("too many pixels", size)
                pictures.append(np.asarray(to_rgb(image)))
            return {"pages": pages}, pictures
    except (OSError, SyntaxError, ValueError, EOFError, DataError) as error:
        if isinstance(error, Refused):
            raise
        raise Refused("video unreadable", type(error).__name__) from None


def is_installed() -> bool:
    """Says whether PyAV can be imported."""
    from importlib.util import find_spec

    return find_spec("av") is not None


def _order(do: str, path: Path, limits: Limits) -> dict[str, Any]:
    return {"do": do, "path": str(Path(path).absolute()), "limits": asdict(limits)}


def _bounds(limits: Limits) -> worker.Bounds:
    return worker.Bounds(limits.seconds, limits.worker_bytes)
