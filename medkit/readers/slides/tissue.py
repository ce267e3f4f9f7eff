"""Where the tissue is: saturation above Otsu's threshold, on a low-power picture of the whole slide.

Glass is grey and stain is coloured, so tissue is what has saturation. Otsu's threshold lies between the two where
both are there; it is held between ``LEAST`` and ``MOST``, because on a slide of glass alone it divides noise, and on
one that is full of tissue it divides strong from pale stain. Dark pixels (edges, folds, black ink: their saturation
is noise) and green ones (marker ink; no stain is green) count as glass. Meant for stained bright-field slides.

Source: N. Otsu 1979, A Threshold Selection Method from Gray-Level Histograms.
"""

from __future__ import annotations

import numpy as np

LEAST, MOST = 15, 25
DARK = 50
# A green pixel's green exceeds both others by this many levels.
GREEN_LEAD = 12
OPAQUE = 128


def tissue_mask(pixels: np.ndarray) -> np.ndarray:
    """Gives where the tissue is.

    Args:
        pixels: uint8 [H,W,4], RGB and opacity; 0 is what the scanner left out.

    Returns:
        bool [H,W].
    """
    colours = pixels[:, :, :3]
    red, green, blue = (colours[:, :, channel].astype(np.int16) for channel in range(3))
    bright = np.maximum(np.maximum(red, green), blue)
    dull = np.minimum(np.minimum(red, green), blue)
    saturation = ((bright - dull).astype(np.int32) * 255 // np.maximum(bright, 1)).astype(np.uint8)
    usable = (pixels[:, :, 3] >= OPAQUE) & (bright > DARK)
    usable &= ~((green > red + GREEN_LEAD) & (green > blue + GREEN_LEAD))
    if not usable.any():
        return usable
    threshold = min(max(otsu(saturation[usable]), LEAST), MOST)
    return usable & (saturation > threshold)


def otsu(values: np.ndarray) -> int:
    """Gives the threshold t that separates values <= t from values > t with the largest variance between them.

    Args:
        values: uint8 of any shape, at least one.
    """
    counts = np.bincount(values.ravel(), minlength=256).astype(np.float64)
    below = np.cumsum(counts)
    sums = np.cumsum(counts * np.arange(256))
    above = below[-1] - below
    with np.errstate(divide="ignore", invalid="ignore"):
        between = below * above * (sums / below - (sums[-1] - sums) / above) ** 2
    return int(np.argmax(np.nan_to_num(between)))
