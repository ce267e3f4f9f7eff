"""Pictures made worse on purpose: does a model that looks still see when the picture is poor?

A corruption works on the stored 8-bit picture, before the checkpoint's own preparation. What depends on scale
is given in shares of the longer side: a picture of 3,000 px that the model sees at 336 is blurred as much, to
the model, as one of 336.
"""

from __future__ import annotations

import hashlib
import io
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageFilter

GRID_PX = 336  # what most towers see; finer noise would be averaged away when a large picture is made smaller
SEVERITIES = (1, 2, 3, 4, 5)

# By severity 1 to 5. Noise and contrast after Hendrycks and Dietterich 2019, ICLR (ImageNet-C).
NOISE_SD = (0.08, 0.12, 0.18, 0.26, 0.38)  # of the range 0..1
BLUR_RADIUS = (0.003, 0.006, 0.010, 0.015, 0.025)  # Gaussian sd in shares of the longer side
CONTRAST = (0.4, 0.3, 0.2, 0.1, 0.05)  # what is left of each pixel's distance from the picture's mean
JPEG_QUALITY = (25, 18, 15, 10, 7)
WINDOW_WIDTH = (0.80, 0.65, 0.50, 0.35, 0.20)  # of the range; the window lies at one end of it


class Corruption(NamedTuple):
    """What is done to a picture.

    Attributes:
        kind: A key of ``KINDS``.
        severity: 1 (slight) to 5 (hardly anything is left).
    """

    kind: str
    severity: int

    @property
    def control(self) -> str:
        """The name under which questions are asked with such pictures: ``blur:3``."""
        return f"{self.kind}:{self.severity}"


def read_corruption(control: str) -> Corruption | None:
    """Gives the corruption that a control's name means, None for the other controls."""
    kind, colon, severity = control.partition(":")
    return Corruption(kind, int(severity)) if colon else None


def corrupted(image: Image.Image, corruption: Corruption, ref: str) -> Image.Image:
    """Gives a picture made worse; the same picture always in the same way.

    ``window`` shows a narrower window at the dark or the bright end of the range, drawn for each picture: grey
    values change linearly and what lies outside is cut. Of a picture rendered from DICOM by a linear window that
    is a window set wrongly, up to rounding to 8 bits; what the stored window had cut can't come back, so windows
    that are too wide are not tried. Of other pictures it is gain and offset of a badly exposed one.

    Args:
        image: RGB picture.
        corruption: Kind and severity.
        ref: The picture's reference, from which everything random is drawn.

    Returns:
        RGB picture of the same size.
    """
    return KINDS[corruption.kind](image, corruption.severity - 1, ref)


def random_of(ref: str, purpose: str) -> np.random.Generator:
    """Gives the random numbers of one picture for one purpose."""
    return np.random.Generator(np.random.PCG64(list(hashlib.sha256(f"{purpose}/{ref}".encode()).digest())))


def grid_of(size: tuple[int, int]) -> tuple[int, int]:
    """Gives (width, height) of the grid on which noise is drawn: the picture's own, or a coarser one."""
    scale = min(1.0, GRID_PX / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _noise(image: Image.Image, level: int, ref: str) -> Image.Image:
    width, height = grid_of(image.size)
    # Drawn in one unit for all severities: a severer picture has more of the same noise.
    drawn = random_of(ref, "noise").standard_normal((height, width, 3)).astype(np.float32)  # [H, W, 3]
    columns = np.arange(image.width) * width // image.width
    rows = np.arange(image.height) * height // image.height
    values = np.asarray(image, dtype=np.float32) + 255 * NOISE_SD[level] * drawn[rows][:, columns]
    return _picture(values)


def _blur(image: Image.Image, level: int, ref: str) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(BLUR_RADIUS[level] * max(image.size)))


def _contrast(image: Image.Image, level: int, ref: str) -> Image.Image:
    values = np.asarray(image, dtype=np.float32)
    mean = values.mean(axis=(0, 1))
    return _picture(mean + CONTRAST[level] * (values - mean))


def _jpeg(image: Image.Image, level: int, ref: str) -> Image.Image:
    file = io.BytesIO()
    image.save(file, format="JPEG", quality=JPEG_QUALITY[level])
    return Image.open(file).convert("RGB")


def _window(image: Image.Image, level: int, ref: str) -> Image.Image:
    width = WINDOW_WIDTH[level]
    low = 0.0 if random_of(ref, "window").random() < 0.5 else 1.0 - width
    return _picture((np.asarray(image, dtype=np.float32) - 255 * low) / width)


def _picture(values: np.ndarray) -> Image.Image:
    return Image.fromarray(np.clip(np.rint(values), 0, 255).astype(np.uint8))


KINDS = {"noise": _noise, "blur": _blur, "contrast": _contrast, "jpeg": _jpeg, "window": _window}
