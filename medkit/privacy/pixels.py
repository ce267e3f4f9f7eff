"""Pixel data without what is hidden in or after it, and without the text that a device burns in."""

from __future__ import annotations

import numpy as np
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import UID

from medkit.errors import DataError
from medkit.privacy.profile import Box, Mask

_NATIVE = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99")
_JPEG = frozenset(f"1.2.840.10008.1.2.4.{number}" for number in (50, 51, 57, 70, 80, 81))
_JPEG_2000 = frozenset(f"1.2.840.10008.1.2.4.{number}" for number in (90, 91, 92, 93, 201, 202, 203))
# JFIF, SPIFF with the colour transform of JPEG-LS, Adobe's colour transform: decoders need these.
_NEEDED = (0xE0, 0xE8, 0xEE)
_J2K_COMMENT, _J2K_TILE, _J2K_START = 0x64, 0x90, b"\xff\x4f\xff\x51"


def syntax_of(dataset: Dataset) -> str:
    """Gives the transfer syntax that a data set's pixel bytes are in; a guess where no file meta says it."""
    try:
        named = str(dataset.file_meta.TransferSyntaxUID)
    # No file meta, no such element, or one that pydicom can't convert.
    except Exception:
        named = ""
    if UID(named).is_valid:
        return named
    implicit, little = dataset.original_encoding
    if little is False:
        return "1.2.840.10008.1.2.2"
    return "1.2.840.10008.1.2" if implicit else "1.2.840.10008.1.2.1"


def strip(dataset: Dataset, syntax: str) -> None:
    """Takes comments out of compressed frames and bytes from after the last uncompressed one, in place.

    Pixel data that has neither stays the same bytes. What can't be taken apart is left as it is: a decoder
    won't read it either.
    """
    if "PixelData" not in dataset or not isinstance(dataset.PixelData, bytes | bytearray):
        return
    data = bytes(dataset.PixelData)
    if syntax not in _NATIVE:
        cleaner = _jpeg if syntax in _JPEG else _jpeg_2000 if syntax in _JPEG_2000 else None
        if cleaner is None:
            return
        try:
            frames = list(generate_frames(data, number_of_frames=int(dataset.get("NumberOfFrames") or 1)))
            cleaned = [cleaner(frame) for frame in frames]
        except Exception:
            return
        if cleaned != frames:
            dataset.PixelData = encapsulate(cleaned)
            # Tables of offsets were of the longer frames.
            for keyword in ("ExtendedOffsetTable", "ExtendedOffsetTableLengths"):
                if keyword in dataset:
                    del dataset[keyword]
        return
    length = _native_length(dataset)
    if length and len(data) > length + length % 2:
        dataset.PixelData = data[: length + length % 2]


def boxes_for(dataset: Dataset, masks: tuple[Mask, ...]) -> tuple[Box, ...]:
    """Gives the boxes of every mask that fits a picture's device and size, () where none does."""
    boxes: list[Box] = []
    for mask in masks:
        size = dataset.get("Rows"), dataset.get("Columns")
        wanted = (mask.manufacturer, mask.model, mask.station)
        names = ("Manufacturer", "ManufacturerModelName", "StationName")
        device = [str(dataset.get(name) or "").strip() for name in names]
        if size == (mask.rows, mask.columns) and all(
            not want or want == have for want, have in zip(wanted, device, strict=True)
        ):
            boxes += mask.boxes
    return tuple(boxes)


def blacken(dataset: Dataset, boxes: tuple[Box, ...]) -> None:
    """Sets regions of every frame to the darkest grey, in place; compressed pixels become uncompressed.

    Raises:
        DataError: The pixels can't be decoded, so nothing could be blackened.
    """
    try:
        if dataset.file_meta.TransferSyntaxUID.is_compressed:
            dataset.decompress(generate_instance_uid=False)
        rows, columns = int(dataset.Rows), int(dataset.Columns)
        samples = int(dataset.get("SamplesPerPixel") or 1)
        frames = int(dataset.get("NumberOfFrames") or 1)
        kind = np.dtype(f"u{int(dataset.BitsAllocated) // 8}")
        count = rows * columns * samples * frames
        values = np.frombuffer(dataset.PixelData, kind, count).copy()
    # Whatever a decoder says of a broken file, it can't be passed on with its text in it.
    except Exception as error:
        raise DataError(
            f"burned-in text can't be blackened: the pixels can't be read ({type(error).__name__})"
        ) from None
    planar = samples > 1 and int(dataset.get("PlanarConfiguration") or 0) == 1
    shape = (frames, samples, rows, columns) if planar else (frames, rows, columns, samples)
    picture = values.reshape(shape)
    fill = _darkest(dataset)
    for left, top, right, bottom in boxes:
        if planar:
            picture[:, :, top:bottom, left:right] = fill
        else:
            picture[:, top:bottom, left:right, :] = fill
    data = values.tobytes()
    dataset.PixelData = data + b"\0" * (len(data) % 2)


def _darkest(dataset: Dataset) -> int:
    if dataset.get("PhotometricInterpretation") == "MONOCHROME1":
        return (1 << int(dataset.BitsStored)) - 1
    return 0


def _native_length(dataset: Dataset) -> int:
    try:
        numbers = [int(dataset.get(name) or 0) for name in ("Rows", "Columns", "BitsAllocated")]
        samples = int(dataset.get("SamplesPerPixel") or 1)
        frames = int(dataset.get("NumberOfFrames") or 1)
    except (TypeError, ValueError):
        return 0
    rows, columns, bits = numbers
    if dataset.get("PhotometricInterpretation") == "YBR_FULL_422":
        samples = 2
    return (rows * columns * samples * frames * bits + 7) // 8


def _jpeg(frame: bytes) -> bytes:
    """Drops comments and application data that no decoder needs from a JPEG or JPEG-LS frame."""
    if frame[:2] != b"\xff\xd8":
        return frame
    kept = [frame[:2]]
    place = 2
    while place + 4 <= len(frame) and frame[place] == 0xFF:
        marker = frame[place + 1]
        if marker == 0xFF:  # fill
            place += 1
            continue
        if marker == 0xDA:
            break
        length = 2 + int.from_bytes(frame[place + 2 : place + 4], "big")
        droppable = marker == 0xFE or (0xE0 <= marker <= 0xEF and marker not in _NEEDED)
        if not droppable:
            kept.append(frame[place : place + length])
        place += length
    kept.append(frame[place:])
    return b"".join(kept)


def _jpeg_2000(frame: bytes) -> bytes:
    """Drops comments from the main header of a JPEG 2000 codestream."""
    if not frame.startswith(_J2K_START):
        return frame
    kept = [frame[:2]]
    place = 2
    while place + 4 <= len(frame) and frame[place] == 0xFF and frame[place + 1] != _J2K_TILE:
        length = 2 + int.from_bytes(frame[place + 2 : place + 4], "big")
        if frame[place + 1] != _J2K_COMMENT:
            kept.append(frame[place : place + length])
        place += length
    kept.append(frame[place:])
    return b"".join(kept)
