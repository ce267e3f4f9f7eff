"""Stored values of a file: explicitly chosen decoders, and every size checked before one of them runs.

The decoder of a transfer syntax is fixed (table ``DECODERS``), because decoders differ in the last bits of a
lossy picture and in what they survive; which packages happen to be installed must not choose.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from math import prod

import numpy as np
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.encaps import get_frame
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.utils import unpack_bits

from medkit.readers.dicom import plugin
from medkit.readers.dicom.codestream import Codestream, read_codestream
from medkit.readers.dicom.description import NATIVE, Description
from medkit.readers.dicom.files import (
    DEFAULT_LIMITS,
    PIXEL_KEYWORDS,
    Limits,
    inflate,
    number_of,
    quiet,
    transfer_syntax_of,
    value_of,
    word_of,
)
from medkit.readers.dicom.reasons import Refused
from medkit.readers.dicom.reduced import decode_reduced, halvings_of

DEFLATED_FRAMES = "1.2.840.10008.1.2.8.1"
# Transfer syntax -> (pydicom's name of the plug-in, the package that it needs).
DECODERS: dict[str, tuple[str, str]] = {
    **{syntax: ("", "") for syntax in NATIVE},
    **{syntax: (plugin.NAME, "imagecodecs") for syntax in plugin.SYNTAXES},
    uid.RLELossless: ("pylibjpeg", "rle"),
    DEFLATED_FRAMES: ("", ""),
}
LOSSY = (uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit, uid.JPEGLSNearLossless, uid.JPEG2000, uid.HTJ2K)
COLOURS = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
GREYS = ("MONOCHROME1", "MONOCHROME2", "PALETTE COLOR")


@dataclass(frozen=True)
class Stored:
    """Stored values as the file holds them, before any transform.

    Attributes:
        values: [F,R,C] or [F,R,C,3]; signed where the header says so; in the machine's byte order, perhaps
            read-only.
        photometric: What the colour channels mean now ("RGB" where the decoder undid a transform).
        notes: (reason, detail) pairs: what was mended.
    """

    values: np.ndarray
    photometric: str
    notes: tuple[tuple[str, str], ...] = ()


def describe(dataset: Dataset, limits: Limits = DEFAULT_LIMITS, has_pixels: bool = True) -> Description:
    """Reads and checks the description of the pixels.

    Args:
        dataset: A parsed header.
        limits: What to refuse.
        has_pixels: False for a header that was parsed without its pixels.

    Raises:
        Refused: A value is missing, impossible or beyond the limits, or no decoder reads the encoding.
    """
    keyword = next((one for one in PIXEL_KEYWORDS if one in dataset), "PixelData")
    if has_pixels and keyword not in dataset:
        raise Refused("no pixel data")
    syntax = transfer_syntax_of(dataset)
    _find_decoder(syntax)
    numbers = {}
    for name, keyword_of, default in (
        ("rows", "Rows", 0),
        ("columns", "Columns", 0),
        ("frames", "NumberOfFrames", 1),
        ("samples", "SamplesPerPixel", 1),
        ("allocated", "BitsAllocated", 0),
        ("stored", "BitsStored", 0),
        ("signed", "PixelRepresentation", 0),
    ):
        numbers[name] = int(number_of(dataset, keyword_of, default) or default)
    numbers["stored"] = numbers["stored"] or numbers["allocated"]
    signed = bool(numbers.pop("signed"))
    found = Description(
        **numbers,
        signed=signed,
        photometric=word_of(dataset, "PhotometricInterpretation"),
        syntax=syntax,
        keyword=keyword,
    )
    _check(found, limits)
    return found


def decode(
    dataset: Dataset,
    wanted: list[int] | None = None,
    limits: Limits = DEFAULT_LIMITS,
    side: int | None = None,
) -> Stored:
    """Decodes frames of a file.

    Args:
        dataset: A file parsed with its pixels.
        wanted: Frame numbers from 0; None: all.
        limits: What to refuse before decoding.
        side: Rows and columns in px that are enough: frames may come at a half, a quarter ... of their size as long as
            both stay at least so many. None: the whole size.

    Raises:
        Refused: With the reason; nothing of the header's text is in it.
    """
    about = describe(dataset, limits)
    wanted = list(range(about.frames)) if wanted is None else wanted
    if about.frame_bytes * len(wanted) > limits.decoded_bytes:
        size = f"{len(wanted)} frames of {about.frame_bytes} bytes"
        raise Refused("too many pixels", f"{size}, limit {limits.decoded_bytes} bytes")
    if about.native:
        return _decode_native(dataset, about, wanted)
    notes: dict[tuple[str, str], None] = {}
    frames, photometric = [], about.photometric
    for index in wanted:
        data = _encapsulated(dataset, about, index)
        if about.syntax == DEFLATED_FRAMES:
            frames.append(_inflated(data, about))
            continue
        stream = _checked(data, about) if about.syntax != uid.RLELossless else None
        values = None
        if side is not None and stream is not None:
            values = _decode_small(data, stream, dataset, about, side)
        if values is not None:
            photometric = "RGB" if about.photometric in ("YBR_ICT", "YBR_RCT") else about.photometric
        else:
            values, photometric = _decode_frame(dataset, about, index)
        if stream is not None:
            photometric = _colours(stream, photometric, about, notes)
            if stream.irregular:
                notes["irregular codestream", stream.irregular] = None
        frames.append(values)
    if len({one.shape for one in frames}) > 1:  # one frame's stream can't be halved as often as another's
        return decode(dataset, wanted, limits)
    return Stored(_native_order(np.stack(frames)), photometric, tuple(notes))


def _find_decoder(syntax: str) -> None:
    if syntax not in DECODERS:
        # A UID of the standard is no secret; anything else in this place may be.
        known = syntax.startswith("1.2.840.10008.1.2.") and len(syntax) < 40
        raise Refused("unknown transfer syntax", syntax if known else "")
    package = DECODERS[syntax][1]
    if package and importlib.util.find_spec(package) is None:
        raise Refused("decoder not installed", f"{package}; install medkit-lmm[dicom]")


def _check(about: Description, limits: Limits) -> None:
    floats = about.keyword != "PixelData"
    faults = {
        "Rows": about.rows < 1,
        "Columns": about.columns < 1,
        "NumberOfFrames": about.frames < 1,
        "SamplesPerPixel": about.samples not in (1, 3),
        "BitsAllocated": about.allocated not in ((32, 64) if floats else (1, 8, 16, 32, 64)),
        "BitsStored": not floats and not 0 < about.stored <= about.allocated,
        "PhotometricInterpretation": about.photometric not in (GREYS if about.samples == 1 else COLOURS),
    }
    wrong = [keyword for keyword, fault in faults.items() if fault]
    if wrong:
        raise Refused("incomplete pixel description", ", ".join(wrong))
    if about.rows * about.columns > limits.pixels:
        size = f"{about.columns} x {about.rows} pixels"
        raise Refused("too many pixels", f"{size}, limit {limits.pixels}")
    if about.frames > limits.frames:
        raise Refused("too many pixels", f"{about.frames} frames claimed, limit {limits.frames}")


def _decode_native(dataset: Dataset, about: Description, wanted: list[int]) -> Stored:
    data = value_of(dataset, about.keyword, b"")
    samples = about.rows * about.columns * about.samples
    if about.photometric == "YBR_FULL_422":
        samples = samples // 3 * 2
    needed = (samples * about.frames * about.allocated + 7) // 8
    if len(data) < needed:
        raise Refused("truncated pixel data", f"{len(data)} of {needed} bytes")
    if about.samples == 1 and about.allocated in (8, 16, 32) and about.syntax != uid.ExplicitVRBigEndian:
        values = _plain_grey(data, about, wanted)
        if values is not None:
            return Stored(values, about.photometric)
    decoder = get_decoder(uid.UID(about.syntax))
    single = wanted[0] if about.frames > 1 and len(wanted) == 1 else None
    try:
        with quiet():
            values, properties = decoder.as_array(dataset, raw=True, index=single)
    except Exception as error:
        raise Refused("decoder failed", type(error).__name__) from None
    values = values.reshape(-1, *_shape(about))
    if single is None and wanted != list(range(about.frames)):
        values = values[wanted]
    return Stored(_native_order(values), str(properties["photometric_interpretation"]))


def _plain_grey(data: bytes, about: Description, wanted: list[int]) -> np.ndarray | None:
    """Gives little-endian grey frames without a copy, or None where unused bits have to be cleared."""
    if about.keyword != "PixelData":
        return None
    count = about.rows * about.columns * about.frames
    kind = np.dtype(f"<{'i' if about.signed else 'u'}{about.allocated // 8}")
    values = np.frombuffer(data, kind, count).reshape(about.frames, about.rows, about.columns)
    values = values if len(wanted) == about.frames else values[wanted]
    top = 2 ** (about.stored - about.signed)
    clean = about.stored == about.allocated or (values.max() < top and values.min() >= -top * about.signed)
    return values if clean else None


def _encapsulated(dataset: Dataset, about: Description, index: int) -> bytes:
    """Gives a frame's compressed bytes."""
    try:
        with quiet():
            return get_frame(dataset.PixelData, index, number_of_frames=about.frames)
    except Exception:
        raise Refused("truncated pixel data", f"frame {index + 1} of {about.frames} is missing") from None


def _checked(data: bytes, about: Description) -> Codestream:
    """Compares the codestream's size with the header's: decoders believe the codestream."""
    stream = read_codestream(data)
    said = (stream.rows, stream.columns, stream.channels)
    if said != (about.rows, about.columns, about.samples):
        detail = f"{said[1]} x {said[0]} x {said[2]} against {about.columns} x {about.rows} x {about.samples}"
        raise Refused("codestream and header disagree", detail)
    return stream


def _decode_small(
    data: bytes, stream: Codestream, dataset: Dataset, about: Description, side: int
) -> np.ndarray | None:
    halvings = halvings_of(data, stream, dataset, about, side)
    return decode_reduced(data, stream, about, halvings) if halvings else None


def _decode_frame(dataset: Dataset, about: Description, index: int) -> tuple[np.ndarray, str]:
    plugin.register()
    decoder = get_decoder(uid.UID(about.syntax))
    name = DECODERS[about.syntax][0]
    try:
        with quiet():
            values, properties = decoder.as_array(dataset, raw=True, index=index, decoding_plugin=name)
    except Exception as error:
        raise Refused("decoder failed", f"{type(error).__name__} of {name}") from None
    if prod(values.shape) != prod(_shape(about)):
        raise Refused("codestream and header disagree", f"{list(values.shape)} decoded")
    return values.reshape(_shape(about)), str(properties["photometric_interpretation"])


def _colours(
    stream: Codestream, photometric: str, about: Description, notes: dict[tuple[str, str], None]
) -> str:
    """Says what a JPEG's channels hold where header and codestream contradict each other."""
    if about.samples == 1 or about.syntax not in plugin.JPEG:
        return photometric
    if photometric != about.photometric and "RGB" in (photometric, about.photometric):
        notes["colours corrected", f"the header says {about.photometric}, the codestream {photometric}"] = (
            None
        )
    # Red, green and blue are never subsampled against each other, and Adobe's marker 1 means YCbCr.
    if photometric == "RGB" and (stream.subsampled or stream.marker == "Adobe1"):
        notes["colours corrected", "the header says RGB, the codestream holds YCbCr"] = None
        return "YBR_FULL"
    if photometric.startswith("YBR") and stream.marker == "Adobe0" and not stream.subsampled:
        notes["colours corrected", "the header says YCbCr, the codestream holds RGB"] = None
        return "RGB"
    return photometric


def _inflated(data: bytes, about: Description) -> np.ndarray:
    """Gives a frame of the Deflated Image Frame syntax (PS3.5 A.4.12): each frame a deflate stream."""
    count = prod(_shape(about))
    needed = (count * about.allocated + 7) // 8
    content = inflate(data, needed + 1)
    if len(content) < needed:
        raise Refused("truncated pixel data", f"{len(content)} of {needed} bytes")
    if about.allocated == 1:
        return np.asarray(unpack_bits(content))[:count].reshape(_shape(about))
    kind = np.dtype(f"<{'i' if about.signed else 'u'}{about.allocated // 8}")
    return np.frombuffer(content[:needed], kind).reshape(_shape(about))


def _shape(about: Description) -> tuple[int, ...]:
    grid = (about.rows, about.columns)
    return grid if about.samples == 1 else (*grid, about.samples)


def _native_order(values: np.ndarray) -> np.ndarray:
    """Gives an array in the machine's byte order: others are refused by torch and misread by frombuffer."""
    return values if values.dtype.isnative else values.astype(values.dtype.newbyteorder("="))
