"""Compressed frames decoded at half, a quarter ... of their size, where a model needs no more.

A JPEG 2000 stream holds the picture at all these sizes (T.800 annex B.6), and the inverse cosine transform of a JPEG
can be taken at a half or less. A frame comes small only where that shows the same: no padding, whose value would mix
with its neighbours; no palette, whose indices can't be averaged; no disagreement about the sign, which wraps values.
"""

from __future__ import annotations

import io
import math

import numpy as np
from PIL import Image
from pydicom import uid
from pydicom.dataset import Dataset

from medkit.readers.dicom import plugin
from medkit.readers.dicom.codestream import Codestream
from medkit.readers.dicom.description import Description
from medkit.readers.dicom.files import value_of

MOST_HALVINGS = 5
# Below, a whole decode takes milliseconds, and fine detail would suffer from the wavelet's coarse low-pass.
LEAST_PIXELS = 1 << 20
DRAFTS = 3  # a JPEG comes at a half, a quarter or an eighth
END = b"\xff\xd9"


def halvings_of(data: bytes, stream: Codestream, dataset: Dataset, about: Description, side: int) -> int:
    """Says how often a frame may be halved.

    Args:
        data: The compressed frame.
        stream: Its own header.
        dataset: The file's header.
        about: Its description of the pixels.
        side: Rows and columns that must be left, in px.

    Returns:
        0: only a whole decode shows the same.
    """
    if about.rows * about.columns < LEAST_PIXELS:
        return 0
    if about.photometric == "PALETTE COLOR" or value_of(dataset, "PixelPaddingValue") is not None:
        return 0
    # What ends early must meet the decoder that notices it.
    if END not in data[-4:]:
        return 0
    most = 0
    if about.syntax in (*plugin.JPEG_2000, *plugin.HTJ2K):
        deep = stream.bits > (16 if about.samples == 1 else 8)
        if not deep and stream.signed == about.signed and not stream.subsampled:
            most = min(stream.levels, MOST_HALVINGS)
    elif about.syntax == uid.JPEGBaseline8Bit and about.samples == 1 and stream.bits == 8:
        most = DRAFTS if stream.sequential and not about.signed and not stream.irregular else 0
    while most and min(-(-about.rows >> most), -(-about.columns >> most)) < side:
        most -= 1
    # OpenJPEG halves an HTJ2K picture no faster than OpenJPH decodes the whole.
    return 0 if most == 1 and about.syntax in plugin.HTJ2K else most


def decode_reduced(data: bytes, stream: Codestream, about: Description, halvings: int) -> np.ndarray | None:
    """Decodes a frame at a 2**halvings-th of its size.

    Returns:
        [r,c] or [r,c,3], r = ceil(rows / 2**halvings), in the type of the stored values; None where the decoder gives
        anything else.
    """
    size = (-(-about.rows // 2**halvings), -(-about.columns // 2**halvings))
    try:
        if about.syntax in (*plugin.JPEG_2000, *plugin.HTJ2K):
            values = _jpeg_2000(data, stream, halvings, size)
        else:
            values = _jpeg(data, (about.rows >> halvings, about.columns >> halvings))
    # Whatever the small decode stumbles over, the whole one refuses with its reason.
    except Exception:
        return None
    if values.shape != (size if about.samples == 1 else (*size, about.samples)):
        return None
    return values.astype(f"{'i' if about.signed else 'u'}{about.allocated // 8}", copy=False)


def fit_small(picture: np.ndarray, small: tuple[int, int], about: Description, frame_side: int) -> np.ndarray:
    """Gives what a picture of the whole size would be, shrunk: everything lies at the same place in it.

    The wavelet's small samples stand for the first of their 2**n pixels, not for the middle (T.800 annex F: even
    samples), so that without this the picture would be shifted by up to half a small pixel.

    Args:
        picture: uint8 [H,W] or [H,W,3], rendered from a small frame, perhaps stretched to square pixels.
        small: Rows and columns of the small frame.
        about: The file's description of the pixels, with the whole size.
        frame_side: The shorter side to give, in px.
    """
    boxes, sizes, padding = [], [], []
    for axis, (less, whole) in enumerate(zip(small, (about.rows, about.columns), strict=True)):
        step = 2 ** round(math.log2(whole / less))
        stretch = picture.shape[axis] / less
        early = 0.0 if about.syntax == uid.JPEGBaseline8Bit else 0.5 - 0.5 / step
        boxes.append((early * stretch, (whole / step + early) * stretch))
        sizes.append(whole * stretch)
        padding.append((0, max(0, math.ceil(boxes[-1][1]) - picture.shape[axis])))
    share = frame_side / min(sizes)
    rows, columns = (max(1, round(size * share)) for size in sizes)
    # The last samples' pixels may lie beyond the picture's edge by less than one of its own.
    wide = np.pad(picture, [*padding, (0, 0)][: picture.ndim], mode="edge")
    box = (boxes[1][0], boxes[0][0], boxes[1][1], boxes[0][1])
    return np.asarray(Image.fromarray(wide).resize((columns, rows), Image.Resampling.BICUBIC, box))


def _jpeg_2000(data: bytes, stream: Codestream, halvings: int, size: tuple[int, int]) -> np.ndarray:
    """Decodes by Pillow (OpenJPEG).

    imagecodecs' JPEG 2000 decoder gives whole pictures only, and small ones of its HTJ2K decoder (OpenJPH) wrap where
    the low-pass falls below 0: black beside white becomes white.
    """
    with Image.open(io.BytesIO(data), formats=["JPEG2000"]) as image:
        image.reduce = halvings  # type: ignore[method-assign,assignment]
        # Pillow expects the nearest size where the standard rounds up, and refuses what doesn't fit.
        image._size = (size[1] << halvings, size[0] << halvings)
        values = np.asarray(image)
    if stream.channels == 3:
        return values
    # Pillow moves signed values up by half their range and fills 8 or 16 bits from above.
    unused = (8 if values.dtype.itemsize == 1 else 16) - stream.bits
    plain = (values >> unused).astype(np.int32)
    return plain - (1 << (stream.bits - 1)) if stream.signed else plain


def _jpeg(data: bytes, size: tuple[int, int]) -> np.ndarray:
    """Decodes a grey JPEG at the smallest size that is no less than the given one, sides rounded up."""
    with Image.open(io.BytesIO(data), formats=["JPEG"]) as image:
        image.draft("L", (size[1], size[0]))
        return np.asarray(image)
