"""Parses DICOM headers within limits; nothing that pydicom would say about a value gets out."""

from __future__ import annotations

import io
import logging
import os
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from pydicom import config, dcmread
from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filereader import read_dataset, read_file_meta_info
from pydicom.tag import BaseTag, Tag
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian

from medkit.readers.dicom.reasons import Refused

PREFIX_END = 132
GROUP_LENGTH_ELEMENT = 12
PIXEL_KEYWORDS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
# A file without the prefix may still be DICOM when it starts with an element of one of these groups.
FIRST_GROUPS = (b"\x02\x00", b"\x08\x00", b"\x00\x02", b"\x00\x08")


@dataclass(frozen=True)
class Limits:
    """What is refused before it is read or decoded.

    Attributes:
        file_bytes: Largest file, and largest content of a deflated one.
        pixels: Most rows x columns of a frame.
        frames: Most frames that a header may claim.
        decoded_bytes: Most bytes of stored values at once: all frames that are wanted.
        seconds: Longest time that a decoder may take for one file.
        worker_bytes: Address space of the decoding process.
    """

    file_bytes: int = 1 << 30
    pixels: int = 178_956_970
    frames: int = 100_000
    decoded_bytes: int = 1 << 30
    seconds: float = 60.0
    worker_bytes: int = 6 << 30


DEFAULT_LIMITS = Limits()
_logger = logging.getLogger("pydicom")
_quiet_lock = threading.RLock()
_depth = 0


@contextmanager
def quiet() -> Iterator[None]:
    """Keeps pydicom's warnings and log lines, which quote header values, from anybody's eyes."""
    global _depth
    with _quiet_lock:
        if _depth:
            yield
            return
        disabled, mode = _logger.disabled, config.settings.reading_validation_mode
        _logger.disabled = True
        config.settings.reading_validation_mode = config.IGNORE
        _depth += 1
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                yield
        finally:
            _depth -= 1
            _logger.disabled = disabled
            config.settings.reading_validation_mode = mode


def read_file(path: Path | str, limits: Limits = DEFAULT_LIMITS, pixels: bool = True) -> Dataset:
    """Parses a DICOM file.

    Args:
        path: The file; the prefix may be missing.
        limits: What to refuse.
        pixels: False leaves the pixel data out, which is several times faster.

    Returns:
        The dataset with ``file_meta``. That of a deflated file is inflated and says Explicit VR Little Endian.

    Raises:
        Refused: No DICOM, too large, or unreadable.
    """
    try:
        size = os.stat(path).st_size
        if size > limits.file_bytes:
            raise Refused("file too large", f"{size} bytes, limit {limits.file_bytes}")
        with open(path, "rb") as file:
            head = file.read(PREFIX_END)
            if head[128:] != b"DICM" and head[:2] not in FIRST_GROUPS:
                raise Refused("not DICOM")
            if b"1.2.840.10008.1.2.1.99" in head + file.read(1024):
                return _read_deflated(path, limits, pixels)
            file.seek(0)
            with quiet():
                return dcmread(file, force=True, stop_before_pixels=not pixels)
    except Refused:
        raise
    except OSError as error:
        raise Refused("header unreadable", error.strerror or type(error).__name__) from None
    # Hostile headers raise nearly anything, RecursionError included; the message may quote a value.
    except Exception as error:
        raise Refused("header unreadable", type(error).__name__) from None


def value_of(dataset: Dataset, keyword: str, default: Any = None) -> Any:
    """Gives an element's value, ``default`` when it is absent or empty.

    Raises:
        Refused: The element holds something of another type; only its keyword is told.
    """
    if not _depth:
        with quiet():
            return value_of(dataset, keyword, default)
    tag = _tag(keyword)
    if tag not in dataset.keys():  # noqa: SIM118 - pydicom's own "in" converts its argument and takes longer
        return default
    try:
        value = dataset[tag].value
    except Exception:
        raise Refused("malformed element", keyword) from None
    return default if value is None or (hasattr(value, "__len__") and len(value) == 0) else value


@cache
def _tag(keyword: str) -> BaseTag:
    tag = tag_for_keyword(keyword)
    if tag is None:
        raise KeyError(keyword)
    return Tag(tag)


def number_of(dataset: Dataset, keyword: str, default: float | None = None) -> float | None:
    """Gives a finite number, the first of several; None or the default when it is absent.

    Raises:
        Refused: The element holds no number.
    """
    numbers = numbers_of(dataset, keyword)
    return numbers[0] if numbers else default


def numbers_of(dataset: Dataset, keyword: str) -> list[float]:
    """Gives an element's values as floats, [] when it is absent.

    Raises:
        Refused: A value is no finite number.
    """
    value = value_of(dataset, keyword)
    if value is None:
        return []
    several: Any = [value] if isinstance(value, str | bytes) or not hasattr(value, "__iter__") else value
    try:
        numbers = [float(one) for one in several]
    except (TypeError, ValueError, OverflowError):
        raise Refused("malformed element", keyword) from None
    if any(number != number or abs(number) == float("inf") for number in numbers):
        raise Refused("malformed element", keyword)
    return numbers


def word_of(dataset: Dataset, keyword: str) -> str:
    """Gives a code string's first value in capitals, "" when it is absent; for medkit's own use only."""
    value = value_of(dataset, keyword, "")
    if not isinstance(value, str) and hasattr(value, "__iter__"):
        value = next(iter(value), "")
    return str(value).strip().upper()


def words_of(dataset: Dataset, keyword: str) -> list[str]:
    """Gives a code string's values in capitals; for medkit's own use only."""
    value = value_of(dataset, keyword, [])
    return [str(one).strip().upper() for one in ([value] if isinstance(value, str) else value)]


def transfer_syntax_of(dataset: Dataset) -> str:
    """Gives the transfer syntax UID.

    Raises:
        Refused: The header has none.
    """
    meta = getattr(dataset, "file_meta", None)
    syntax = value_of(meta, "TransferSyntaxUID", "") if meta is not None else ""
    if not syntax:
        raise Refused("no transfer syntax")
    return str(syntax)


def inflate(data: bytes, limit: int) -> bytes:
    """Inflates a raw deflate stream, never beyond the limit.

    Raises:
        Refused: The stream is damaged, cut short, or unfolds to more than ``limit`` bytes.
    """
    stream = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        content = stream.decompress(data, limit + 1)
    except zlib.error:
        raise Refused("header unreadable", "the deflated part is damaged") from None
    if len(content) > limit:
        raise Refused("inflates too far", f"more than {limit} bytes")
    if not stream.eof:
        raise Refused("truncated pixel data", "the deflated part ends early")
    return content


def _read_deflated(path: Path | str, limits: Limits, pixels: bool) -> Dataset:
    with quiet():
        meta: FileMetaDataset = read_file_meta_info(path)
        if value_of(meta, "TransferSyntaxUID") != DeflatedExplicitVRLittleEndian:
            return dcmread(path, force=True, stop_before_pixels=not pixels)
        length = int(number_of(meta, "FileMetaInformationGroupLength", -1) or -1)
        if length < 0:
            raise Refused("header unreadable", "a deflated file without FileMetaInformationGroupLength")
        with open(path, "rb") as file:
            file.seek(PREFIX_END + GROUP_LENGTH_ELEMENT + length)
            content = inflate(file.read(), limits.file_bytes)
        dataset = read_dataset(io.BytesIO(content), is_implicit_VR=False, is_little_endian=True)
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.file_meta = meta
        if not pixels:
            for keyword in PIXEL_KEYWORDS:
                if keyword in dataset:
                    delattr(dataset, keyword)
        return dataset
