"""Near-duplicate pictures between splits: perceptual hashes first, a look at the pixels second."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image

HASH_DISTANCE = 6
SIDE = 16
MIN_CORRELATION = 0.985
MAX_DIFFERENCE = 5.0
ROWS_AT_ONCE = 512


@dataclass(frozen=True)
class Twins:
    """Two pictures that look alike.

    Attributes:
        first, second: References.
        distance: Bits in which their 64-bit perceptual hashes differ; 0 for equal pictures.
    """

    first: str
    second: str
    distance: int


class Fingerprints:
    """Collects perceptual hashes and tiny grey copies of pictures."""

    def __init__(self) -> None:
        self._rows: dict[str, int] = {}
        self._hashes: list[np.uint64] = []
        self._grey: list[np.ndarray] = []

    def add(self, ref: str, image: Image.Image) -> None:
        """Takes a picture's fingerprint, once a reference."""
        if ref in self._rows:
            return
        self._rows[ref] = len(self._hashes)
        number, grey = fingerprint(image)
        self._hashes.append(number)
        self._grey.append(grey)

    def twins(self, first: Iterable[str], second: Iterable[str], max_peak: float = 255.0) -> Iterator[Twins]:
        """Gives, for each picture of ``first`` that has any, its nearest near-duplicate in ``second``.

        A pair counts when the 64-bit hashes (imagehash.phash) differ in at most 6 bits and the 16 x 16
        grey copies correlate at 0.985 or more with a mean difference of at most 5 of 255: plain drawings
        share hashes without being copies of one another.

        Args:
            first, second: References.
            max_peak: Largest difference (of 255) of any of the 256 grey cells. Drawings of one generator
                need a low one: they share their ground and differ in a small object, as a cropped copy
                does at its edges.
        """
        a = [ref for ref in dict.fromkeys(first) if ref in self._rows]
        b = [ref for ref in dict.fromkeys(second) if ref in self._rows]
        if not a or not b:
            return
        rows_a, rows_b = ([self._rows[ref] for ref in refs] for refs in (a, b))
        hashes = np.array(self._hashes, dtype=np.uint64)
        hashes_a, hashes_b = hashes[rows_a], hashes[rows_b]
        grey_b = np.stack([self._grey[row] for row in rows_b]).astype(np.float32)  # [N, 256]
        for start in range(0, len(a), ROWS_AT_ONCE):
            block = hashes_a[start : start + ROWS_AT_ONCE]
            distance = np.bitwise_count(block[:, None] ^ hashes_b[None, :])  # [rows, N] uint8
            for offset in np.flatnonzero((distance <= HASH_DISTANCE).any(axis=1)):
                ref = a[start + offset]
                near = np.flatnonzero(distance[offset] <= HASH_DISTANCE)
                own = self._grey[rows_a[start + offset]].astype(np.float32)
                same = _look_alike(own, grey_b[near], max_peak)
                near = near[same]
                if near.size:
                    # An equal reference is the same picture, whatever else is at distance 0.
                    best = min(near, key=lambda column: (b[column] != ref, distance[offset, column]))
                    yield Twins(ref, b[best], int(distance[offset, best]))


def fingerprint(image: Image.Image) -> tuple[np.uint64, np.ndarray]:
    """Gives a picture's 64-bit perceptual hash and its 16 x 16 grey copy, uint8 [256]."""
    import imagehash  # brings scipy along, which only this needs

    grey = image.convert("L")
    if min(grey.size) > 256:  # a quarter of a second saved per hundred photographs, the same hash
        grey = grey.reduce(min(grey.size) // 128)
    bits = imagehash.phash(grey).hash
    number = np.packbits(bits.reshape(-1)).view(np.uint64)[0]
    return number, np.asarray(grey.resize((SIDE, SIDE), Image.Resampling.BOX), dtype=np.uint8).reshape(-1)


def _look_alike(own: np.ndarray, others: np.ndarray, max_peak: float) -> np.ndarray:
    """Compares a grey copy [256] with others [N, 256]; gives bool [N]."""
    cells = np.abs(others - own)
    x = own - own.mean()
    y = others - others.mean(axis=1, keepdims=True)
    scale = np.sqrt((x * x).sum() * (y * y).sum(axis=1))
    # Two flat pictures have no pattern to correlate; their grey decides alone.
    correlation = np.where(scale > 1e-6, (y @ x) / np.maximum(scale, 1e-6), (x * x).sum() < 1e-6)
    return (
        (cells.mean(axis=1) <= MAX_DIFFERENCE)
        & (cells.max(axis=1) <= max_peak)
        & (correlation >= MIN_CORRELATION)
    )
