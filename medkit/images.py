"""Safe decoding: any picture file or array becomes upright RGB uint8, or is refused in one sentence.

Choices that a reader of pixels has to know:

* More than 8 bits a channel (16-bit PNG/TIFF, 32-bit integers, floats): values between the 0.1 and the 99.9
  percentile of the picture are spread over 0..255 and the rest is clipped. Containers are rarely filled (a
  12-bit radiograph in 16 bits uses 1/16 of the range), so dividing by the container's maximum gives black
  pictures, and Pillow's own conversion clamps everything above 255 to white. ``scale="full"`` divides by the
  type's full range where grey values must stay comparable between pictures.
* Pillow cuts 16-bit colour to its upper 8 bits. Where these hold less than half of the range they are spread
  like grey values, all channels alike; where fewer than 32 levels are left, the picture is refused.
* Transparency is laid on white, the paper of most figures.
* EXIF orientation is applied; of animations and multi-page files the first frame is taken.
* Size limits are checked on the header, before a pixel is decoded.
* What a file says beside its pixels (author, place, comments, thumbnails) isn't stored.
"""

from __future__ import annotations

import io
import re
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from medkit.errors import DataError
from medkit.plain_pictures import ORIENTATION_TAG, without_metadata

FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF", "PPM")
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".gif", ".ppm", ".pgm")
BITS_TAG, WHITE_TAG, NUMBERS_TAG = 258, 262, 339  # TIFF 6.0: BitsPerSample, Photometric..., SampleFormat
UNSIGNED, SIGNED = 1, 2
TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
LEAST_LEVELS = 32
Scale = Literal["percentile", "full"]


@dataclass(frozen=True)
class Limits:
    """What is refused before decoding.

    Attributes:
        bytes: Largest encoded size.
        pixels: Largest width x height; Pillow's own bomb limit by default.
        side: Largest width or height: a few bytes may claim a line of millions.
        frames: Most frames or pages of a file, of which the first is decoded.
    """

    bytes: int = 64 * 1024 * 1024
    pixels: int = 89_478_485
    side: int = 65_535
    frames: int = 10_000


DEFAULT_LIMITS = Limits()


@dataclass(frozen=True)
class Decoded:
    """A decoded picture.

    Attributes:
        image: RGB, upright.
        plain: Whether the file's own bytes already mean these pixels to every tool and hold nothing else (8-bit grey
            or RGB PNG/JPEG/WebP without orientation, transparency or metadata), so that they can be stored unchanged.
        note: What was done to the pixels that a user should know, or "".
    """

    image: Image.Image
    plain: bool
    note: str = ""


def decode(data: bytes, limits: Limits = DEFAULT_LIMITS, scale: Scale = "percentile") -> Decoded:
    """Decodes the bytes of a picture file.

    Args:
        data: The whole file.
        limits: What to refuse.
        scale: How more than 8 bits are brought to 8, see the module's text.

    Returns:
        The picture as RGB uint8 with what was done to it.

    Raises:
        DataError: The bytes are too many, no picture, broken, or unfold to too many pixels.
    """
    if len(data) > limits.bytes:
        raise DataError(f"the image file has {len(data)} bytes, more than the limit of {limits.bytes}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = Image.open(io.BytesIO(data), formats=FORMATS)
        width, height = image.size
        if width * height > limits.pixels:
            raise DataError(
                f"the image unfolds to {width} x {height} pixels, more than the limit of {limits.pixels}"
            )
        if max(width, height) > limits.side:
            raise DataError(
                f"the image claims {width} x {height} pixels, a side beyond the limit of {limits.side}"
            )
        if getattr(image, "n_frames", 1) > limits.frames:  # counted by the frames' headers
            raise DataError(f"the image has more frames than the limit of {limits.frames}")
        decoded = _decode_open(image, scale)
        return replace(decoded, plain=decoded.plain and without_metadata(data) == data)
    except DataError:
        raise
    except Image.DecompressionBombError:
        raise DataError(f"the image unfolds to more than the limit of {limits.pixels} pixels") from None
    except UnidentifiedImageError:
        # Pillow's own message holds an address in memory: another one in every run.
        why = f"its bytes are in none of the formats {', '.join(FORMATS)}"
        if data[:4] in TIFF_STARTS:
            why = "a TIFF that is damaged or of a number type that isn't read (64 bits, half floats)"
        raise DataError(f"the image can't be decoded: {why}") from None
    # Pillow's decoders raise nearly anything on hostile bytes; whatever it is, the file is the fault.
    except Exception as error:
        # An address in its text would make two ledgers of one source differ.
        text = re.sub(r"<[^<>]* at 0x[0-9a-f]+>", "the file", str(error))
        raise DataError(f"the image can't be decoded ({type(error).__name__}: {text})") from None


def read_limited(path: Path, limits: Limits = DEFAULT_LIMITS) -> bytes:
    """Reads a picture file without its metadata, refusing a missing or too large one.

    Raises:
        DataError: The file is missing, no file, or larger than the limit.
    """
    try:
        size = path.stat().st_size
        if size > limits.bytes:
            raise DataError(f"the image file has {size} bytes, more than the limit of {limits.bytes}")
        data = path.read_bytes()
        return without_metadata(data) or data
    except OSError as error:
        raise DataError(f"the image file can't be read ({error.strerror})") from None


def to_rgb(image: Image.Image, scale: Scale = "percentile") -> Image.Image:
    """Gives an opened picture of any mode as upright RGB uint8; never clamps deep grey values."""
    return _decode_open(image, scale).image


def array_to_rgb(array: np.ndarray, scale: Scale = "percentile") -> Image.Image:
    """Gives an array as RGB.

    Args:
        array: [H,W], [H,W,1], [H,W,3] or [H,W,4]; bool, any integer or float type. uint8 is taken as it is.
        scale: How other types are brought to 8 bits.

    Raises:
        DataError: The shape is none of these, or the array is empty.
    """
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))) or array.size == 0:
        raise DataError(
            f"an image array has the shape {list(array.shape)}; expected [H,W], [H,W,3] or [H,W,4]"
        )
    if array.dtype == np.bool_:
        array = array.astype(np.uint8) * 255
    if array.dtype != np.uint8:
        alpha = array[:, :, 3:] if array.ndim == 3 and array.shape[2] == 4 else None
        colour = array if alpha is None else array[:, :, :3]
        array = to_eight_bits(colour, scale)
        if alpha is not None:
            array = np.concatenate([array, to_eight_bits(alpha, "full")], axis=2)
    image = Image.fromarray(np.ascontiguousarray(array))
    return image if image.mode == "RGB" else _flatten(image)


def to_eight_bits(values: np.ndarray, scale: Scale = "percentile") -> np.ndarray:
    """Brings values of any number type to uint8 of the same shape.

    Values that are not finite become 0. A picture of one value keeps its place between 0 and the type's maximum.

    Args:
        values: Any shape, integers or floats (floats: full range is 0..1).
        scale: "percentile" spreads the 0.1..99.9 percentiles over 0..255, "full" 0 to the type's maximum.
    """
    if np.issubdtype(values.dtype, np.integer):
        floor, ceiling = 0.0, float(np.iinfo(values.dtype).max)
        numbers = values.astype(np.float64)
    else:
        floor, ceiling = 0.0, 1.0
        numbers = np.where(np.isfinite(values), values, np.nan).astype(np.float64)
    if scale == "percentile":
        finite = numbers[np.isfinite(numbers)]
        if finite.size:
            low, high = np.percentile(finite, [0.1, 99.9])
            if high <= low:  # a few bright pixels on a constant ground
                low, high = finite.min(), finite.max()
            if high > low:
                floor, ceiling = float(low), float(high)
    scaled = np.clip((numbers - floor) / (ceiling - floor), 0.0, 1.0) * 255.0
    return np.rint(np.nan_to_num(scaled, nan=0.0)).astype(np.uint8)


def encode_lossless(image: Image.Image) -> bytes:
    """Encodes RGB pixels without loss: WebP, or PNG beyond WebP's 16,383 pixels a side."""
    buffer = io.BytesIO()
    if max(image.size) > 16_383:
        image.save(buffer, format="PNG", compress_level=6)
    else:
        image.save(buffer, format="WEBP", lossless=True, quality=20, method=1)
    return buffer.getvalue()


def _decode_open(image: Image.Image, scale: Scale) -> Decoded:
    frames = getattr(image, "n_frames", 1)
    format_name = image.format
    deep_colour = _has_deep_colour(image)  # before anything loads the pixels
    orientation = image.getexif().get(ORIENTATION_TAG, 1)
    plain = (
        image.mode in ("RGB", "L")
        and format_name in ("PNG", "JPEG", "WEBP")
        and orientation == 1
        and frames == 1
        and "transparency" not in image.info
    )
    notes = [f"first of {frames} frames"] if frames > 1 else []
    image.load()
    values = _numbers(image)
    if values is not None:
        notes.append(f"{image.mode} scaled to 8 bits by {scale}")
        eight = to_eight_bits(values, scale)
        if _white_is_zero(image) and image.mode != "L":
            eight = 255 - eight
        flat = Image.fromarray(eight).convert("RGB")
    else:
        flat = _flatten(image)
    if deep_colour:
        plain = False
        flat, note = _spread_colour(flat, scale)
        notes += [note] if note else []
    if orientation != 1:
        flat = _upright(flat, orientation)
        notes.append("turned upright")
    return Decoded(flat, plain, ", ".join(notes))


def _numbers(image: Image.Image) -> np.ndarray | None:
    """Gives the values of a grey picture that 8 unsigned bits don't hold, None for all others."""
    kind = (getattr(image, "tag_v2", {}).get(NUMBERS_TAG) or (UNSIGNED,))[0]
    if image.mode == "L" and kind == SIGNED:  # Pillow takes signed bytes for unsigned ones
        return np.asarray(image).view(np.int8)
    if not image.mode.startswith("I") and image.mode != "F":
        return None
    values = np.asarray(image)
    if image.mode != "I":
        return values
    # Mode "I" is int32 in memory, yet most of its files are 16-bit pictures: the full range is theirs.
    if values.size and values.min() >= 0 and values.max() <= 65_535:
        return values.astype(np.uint16)
    bits = (getattr(image, "tag_v2", {}).get(BITS_TAG) or (0,))[0]
    return values.view(np.uint32) if image.format == "TIFF" and kind == UNSIGNED and bits == 32 else values


def _has_deep_colour(image: Image.Image) -> bool:
    """Says whether an opened, not yet loaded picture has 16-bit channels, of which Pillow keeps the upper 8."""
    return image.mode in ("RGB", "RGBA", "LA") and any(
        ";16" in str(tile[3]) for tile in getattr(image, "tile", ())
    )


def _spread_colour(image: Image.Image, scale: Scale) -> tuple[Image.Image, str]:
    """Gives colours cut from 16 to 8 bits as ``scale`` wants them, and a note.

    Raises:
        DataError: Too few levels are left.
    """
    values = np.asarray(image)
    most = int(values.max())
    if scale == "full" or most >= 128 or most == 0:
        return image, ""
    if most < LEAST_LEVELS:
        raise DataError(
            f"the image's 16-bit colours fill 1/{256 // (most + 1)} of their range, which leaves {most + 1} levels "
            f"of 8 bits; convert it to 8 bits first"
        )
    low, high = np.percentile(values, [0.1, 99.9])
    spread = (values.astype(np.float64) - low) / max(high - low, 1.0) * 255.0
    return (
        Image.fromarray(np.rint(np.clip(spread, 0, 255)).astype(np.uint8)),
        "16-bit colour scaled by percentile",
    )


def _white_is_zero(image: Image.Image) -> bool:
    # Pillow inverts 8-bit TIFF with PhotometricInterpretation 0 (TIFF 6.0, section 8) but not deeper ones.
    return image.format == "TIFF" and getattr(image, "tag_v2", {}).get(WHITE_TAG) == 0


def _flatten(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        ground = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        return Image.alpha_composite(ground, rgba).convert("RGB")
    return image.convert("RGB")


def _upright(image: Image.Image, orientation: int) -> Image.Image:
    exif = Image.Exif()
    exif[ORIENTATION_TAG] = orientation
    turned = image.copy()
    turned.info["exif"] = exif.tobytes()
    turned.getexif()[ORIENTATION_TAG] = orientation
    return ImageOps.exif_transpose(turned)
