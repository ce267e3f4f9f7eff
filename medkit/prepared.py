"""Pictures made ready to be stored: decoded, encoded where need be, and known by their bytes and by their pixels."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from PIL import Image

from medkit.images import DEFAULT_LIMITS, Limits, array_to_rgb, decode, encode_lossless, to_rgb


@dataclass(frozen=True)
class Prepared:
    """A picture as it is stored.

    Attributes:
        ref: The sha256 of ``data``, hex.
        pixels: The sha256 of size and RGB values (32 bytes): equal for equal pictures, however they are encoded.
        width, height: In px.
        data: Encoded: PNG, JPEG or WebP.
    """

    ref: str
    pixels: bytes
    width: int
    height: int
    data: bytes


def prepare(
    data: bytes | Image.Image | np.ndarray, limits: Limits = DEFAULT_LIMITS
) -> tuple[Prepared, Image.Image]:
    """Decodes and encodes a picture for a dataset folder.

    Encoded 8-bit grey or RGB PNG, JPEG and WebP are kept byte for byte; everything else is brought to RGB uint8 and
    encoded as lossless WebP.

    Args:
        data: An encoded file, a Pillow image, or an array [H,W], [H,W,3] or [H,W,4].
        limits: What to refuse of encoded files.

    Returns:
        What is stored, and the picture in RGB.

    Raises:
        DataError: The picture is broken or beyond the limits.
    """
    encoded = None
    if isinstance(data, bytes):
        decoded = decode(data, limits)
        image, encoded = decoded.image, data if decoded.plain else None
    else:
        image = array_to_rgb(data) if isinstance(data, np.ndarray) else to_rgb(data)
    pixels = hashlib.sha256(repr(image.size).encode() + image.tobytes()).digest()
    encoded = encoded if encoded is not None else encode_lossless(image)
    ref = hashlib.sha256(encoded).hexdigest()
    return Prepared(ref, pixels, image.width, image.height, encoded), image
