"""Colour pictures to RGB: palettes, YBR, deep channels. Sources: PS3.3 C.7.6.3.1.2, C.7.9.1."""

from __future__ import annotations

import numpy as np
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_color_lut, convert_color_space

from medkit.readers.dicom.files import quiet
from medkit.readers.dicom.reasons import Refused


def to_rgb(values: np.ndarray, photometric: str, stored_bits: int) -> np.ndarray:
    """Gives a frame of three channels as RGB.

    Args:
        values: [R,C,3], unsigned.
        photometric: What the channels hold.
        stored_bits: Bits that are used; the upper eight of them are shown.

    Returns:
        uint8 [R,C,3].
    """
    if stored_bits > 8:
        values = values >> (stored_bits - 8)
    elif stored_bits < 8:
        values = values.astype(np.uint16) * 255 // (2**stored_bits - 1)
    values = values.astype(np.uint8)
    if photometric in ("YBR_FULL", "YBR_FULL_422"):
        return convert_color_space(values, "YBR_FULL", "RGB")
    if photometric != "RGB":
        raise Refused("incomplete pixel description", "PhotometricInterpretation")
    return values


def palette_to_rgb(values: np.ndarray, dataset: Dataset) -> np.ndarray:
    """Gives a frame of palette indices as RGB.

    Args:
        values: [R,C].
        dataset: Holds the palette, plain or segmented.

    Returns:
        uint8 [R,C,3]: the upper eight bits of a deep palette; dividing by 257 would darken the many palettes
        whose 8-bit entries lie in the upper byte.

    Raises:
        Refused: The palette is missing or damaged.
    """
    try:
        with quiet():
            coloured = np.asarray(apply_color_lut(values, dataset))
    except Exception as error:
        raise Refused("malformed element", f"palette ({type(error).__name__})") from None
    if coloured.dtype.itemsize > 1 and coloured.max() > 255:
        coloured = coloured >> 8
    return np.ascontiguousarray(coloured[..., :3].astype(np.uint8))
