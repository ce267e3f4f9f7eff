"""Decodes frames of a video with PyAV (FFmpeg); runs in a worker process.

Only containers of ``CONTAINERS`` are opened and only local files: a playlist would name other files and addresses.
A video's own words (title, place, time of recording) are never read.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from medkit.readers.frames.reasons import Refused
from medkit.readers.slices import square

CONTAINERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,asf,flv,ogg,h264,hevc,m4v"
# A frame this far ahead is sought rather than decoded up to.
SEEK_SECONDS = 4.0
# Without a tag, pictures of this height and above are BT.709, as players take them; BT.601 below.
HIGH_DEFINITION = 720
UNSPECIFIED = 2  # AVCOL_SPC_UNSPECIFIED
ATTACHED_PICTURE = 0x400  # AV_DISPOSITION_ATTACHED_PIC


def survey(path: str, most_pixels: int) -> dict[str, Any]:
    """Gives {"seconds": length, "width", "height"} of a video."""
    errors = _package("av.error")
    try:
        with _opened(path) as container:
            stream = _stream(container)
            width, height = stream.codec_context.width, stream.codec_context.height
            if width < 1 or height < 1 or width * height > most_pixels:
                raise Refused("too many pixels", f"{width} x {height} pixels, limit {most_pixels}")
            return {"seconds": _length(container, stream), "width": width, "height": height}
    except (errors.FFmpegError, OSError, ValueError) as error:
        raise _fault(error) from None


def frames(path: str, seconds: list[float], most_pixels: int) -> tuple[list[np.ndarray], list[float]]:
    """Gives the frames that are on the screen at these times.

    Args:
        path: The file.
        seconds: Times from the video's begin, rising.
        most_pixels: Most pixels of a frame.

    Returns:
        (uint8 [H,W,3] each, upright and with square pixels; the time at which each frame begins).
    """

    pictures: list[np.ndarray] = []
    begins: list[float] = []
    errors = _package("av.error")
    try:
        with _opened(path) as container:
            stream = _stream(container)
            stream.codec_context.thread_count = 1
            start = _start(stream)
            running = container.decode(stream)
            shown: Any = None
            coming: Any = None
            for second in seconds:
                wanted = start + second + 1e-6
                at = coming.time if coming is not None else None
                if at is None or wanted - at > SEEK_SECONDS:
                    if wanted - start > SEEK_SECONDS:
                        container.seek(int(wanted / stream.time_base), stream=stream)
                        running, shown, coming = container.decode(stream), None, None
                    coming = _next(running) if coming is None else coming
                while coming is not None and coming.time <= wanted:
                    shown, coming = coming, _next(running)
                frame = shown if shown is not None else coming
                if frame is None:
                    raise Refused("video unreadable", f"no frame at {second:g} s")
                pictures.append(_picture(frame, stream, most_pixels))
                begins.append(round(frame.time - start, 3))
    except (errors.FFmpegError, OSError, ValueError) as error:
        raise _fault(error) from None
    return pictures, begins


def _package(name: str) -> Any:
    """Imports PyAV, which is installed with an extra only."""
    return importlib.import_module(name)


def _opened(path: str) -> Any:
    guard = {"format_whitelist": CONTAINERS, "protocol_whitelist": "file"}
    return _package("av").open(f"file:{path}", mode="r", container_options=guard, metadata_errors="ignore")


def _stream(container: Any) -> Any:
    """Gives the first stream of moving pictures; a cover picture is none."""
    for stream in container.streams.video:
        if not int(stream.disposition) & ATTACHED_PICTURE:
            return stream
    raise Refused("not a video", "no stream of pictures")


def _start(stream: Any) -> float:
    return float((stream.start_time or 0) * stream.time_base)


def _length(container: Any, stream: Any) -> float:
    if stream.duration:
        length = float(stream.duration * stream.time_base)
    elif container.duration:
        length = container.duration / 1e6
    else:  # a recording that was streamed doesn't say; its packets do
        last = max((packet.pts for packet in container.demux(stream) if packet.pts is not None), default=None)
        length = math.nan if last is None else float(last * stream.time_base) - _start(stream)
    if not math.isfinite(length) or length < 0:
        raise Refused("no duration")
    return length


def _next(running: Iterator[Any]) -> Any:
    """Gives the next frame whose time is known, None at the end."""
    return next((frame for frame in running if frame.time is not None), None)


def _picture(frame: Any, stream: Any, most_pixels: int) -> np.ndarray:
    if frame.width * frame.height > most_pixels:
        raise Refused("too many pixels", f"{frame.width} x {frame.height} pixels, limit {most_pixels}")
    colours = {}
    if int(frame.colorspace) == UNSPECIFIED:
        colours["src_colorspace"] = "ITU709" if frame.height >= HIGH_DEFINITION else "ITU601"
    picture = frame.to_ndarray(format="rgb24", **colours)
    aspect = float(stream.sample_aspect_ratio or 1)
    if 0.1 < aspect < 10:
        picture = square(picture, 1.0, aspect)
    return np.rot90(picture, round(frame.rotation / 90) % 4)


def _fault(error: Exception) -> Refused:
    # FFmpeg's messages hold the file's name; its kinds don't.
    if isinstance(error, _package("av.error").InvalidDataError):
        return Refused("video unreadable", "its content is damaged or of a kind that isn't opened")
    return Refused("video unreadable", type(error).__name__)
