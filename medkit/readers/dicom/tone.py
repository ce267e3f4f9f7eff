"""From stored grey values to 0..255, as one small table where values have 16 bits or fewer.

Order: padding is found on stored values, then modality transform, VOI transform, the fixed map to 0..255, and
only then the inversion of MONOCHROME1. Sources: PS3.3 C.7.5.1.1.2, C.11.1, C.11.2, C.7.6.3.1.2, C.11.6.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from pydicom.dataset import Dataset

from medkit.readers.dicom.files import numbers_of, value_of
from medkit.readers.dicom.reasons import Refused

Kind = Literal["LINEAR", "LINEAR_EXACT", "SIGMOID"]


@dataclass(frozen=True)
class Ramp:
    """A window (PS3.3 C.11.2.1.2 and C.11.2.1.3)."""

    centre: float
    width: float
    kind: Kind = "LINEAR"

    def apply(self, values: np.ndarray) -> np.ndarray:
        """Gives 0..1, float64."""
        if self.kind == "SIGMOID":
            with np.errstate(over="ignore"):
                return 1.0 / (1.0 + np.exp(-4.0 * (values - self.centre) / self.width))
        if self.kind == "LINEAR_EXACT":
            return np.clip((values - self.centre) / self.width + 0.5, 0.0, 1.0)
        if self.width <= 1:  # the standard's step: nothing lies between the two limits
            return (values > self.centre - 0.5).astype(np.float64)
        return np.clip((values - (self.centre - 0.5)) / (self.width - 1.0) + 0.5, 0.0, 1.0)


@dataclass(frozen=True)
class Table:
    """A lookup table of a modality or VOI LUT sequence: entries as uint16 bytes, their bits, the first input."""

    first: int
    bits: int
    entries: bytes

    def apply(self, values: np.ndarray) -> np.ndarray:
        """Gives the entries for values, which are rounded and held within the table's ends; float64."""
        entries = np.frombuffer(self.entries, np.uint16)
        index = np.clip(np.rint(values) - self.first, 0, len(entries) - 1).astype(np.int64)
        return entries[index].astype(np.float64)


@dataclass(frozen=True)
class Modality:
    """Stored values to the modality's unit: a table, or slope and intercept."""

    slope: float = 1.0
    intercept: float = 0.0
    table: Table | None = None

    def apply(self, stored: np.ndarray) -> np.ndarray:
        """Gives float64 values of the same shape; never the stored type, into which HU don't fit."""
        values = stored.astype(np.float64)
        return self.table.apply(values) if self.table else values * self.slope + self.intercept


@dataclass(frozen=True)
class Tone:
    """The whole way from a stored value to grey or red, green and blue.

    Attributes:
        modality: The first step.
        shows: One ramp or VOI table, or three ramps.
        inverted: Whether white stands for the least value.
        padding: Stored values from..to that are no picture and become black, or None.
    """

    modality: Modality
    shows: tuple[Ramp | Table, ...]
    inverted: bool = False
    padding: tuple[float, float] | None = None

    def apply(self, stored: np.ndarray) -> np.ndarray:
        """Gives uint8 [...] for one ramp, [...,3] for three."""
        if stored.dtype.itemsize <= 2 and stored.dtype.kind in "iu":
            codes = stored.view(np.dtype(f"u{stored.dtype.itemsize}"))
            table = _table(self, stored.dtype.str)
            out = np.take(table, codes)
            return out if len(self.shows) == 1 else _unpacked(out)
        return np.stack(self._channels(stored), axis=-1) if len(self.shows) > 1 else self._channels(stored)[0]

    def _channels(self, stored: np.ndarray) -> list[np.ndarray]:
        values = self.modality.apply(stored)
        channels = []
        for show in self.shows:
            if isinstance(show, Table):
                share = np.clip(show.apply(values) / (2**show.bits - 1), 0.0, 1.0)
            else:
                share = show.apply(values)
            if self.inverted:
                share = 1.0 - share
            grey = np.rint(np.nan_to_num(share) * 255.0).astype(np.uint8)
            if self.padding:
                grey[(stored >= self.padding[0]) & (stored <= self.padding[1])] = 0
            channels.append(grey)
        return channels


@lru_cache(maxsize=256)
def _table(tone: Tone, kind: str) -> np.ndarray:
    """Gives the tone of every possible stored value, indexed by its bits; three channels packed in uint32."""
    dtype = np.dtype(kind)
    codes = np.arange(256**dtype.itemsize, dtype=f"u{dtype.itemsize}")
    channels = tone._channels(codes.view(dtype))
    if len(channels) == 1:
        return channels[0]
    packed = np.zeros((len(codes), 4), np.uint8)
    packed[:, :3] = np.stack(channels, axis=-1)
    return packed.view(np.uint32)[:, 0]


def _unpacked(packed: np.ndarray) -> np.ndarray:
    channels = packed.view(np.uint8).reshape(*packed.shape, 4)
    out = np.empty((*packed.shape, 3), np.uint8)
    for index in range(3):  # several times faster than one strided copy
        out[..., index] = channels[..., index]
    return out


def between(low: float, high: float) -> Ramp:
    """Gives the ramp that shows ``low`` as 0 and ``high`` as 255."""
    return Ramp((low + high) / 2.0, max(high - low, 1e-9), "LINEAR_EXACT")


def read_table(item: Dataset, signed: bool) -> Table:
    """Reads an item of a modality or VOI LUT sequence.

    Args:
        item: Holds LUTDescriptor and LUTData.
        signed: Whether the table's inputs may be negative; the first one is then two's complement.

    Raises:
        Refused: Descriptor and data don't fit.
    """
    descriptor = numbers_of(item, "LUTDescriptor")
    data = value_of(item, "LUTData")
    if len(descriptor) != 3 or data is None:
        raise Refused("malformed element", "LUTDescriptor or LUTData")
    count = int(descriptor[0]) or 65_536
    first = int(descriptor[1])
    if signed and first >= 32_768:
        first -= 65_536
    if not signed and first < 0:
        first += 65_536
    bits = int(descriptor[2])
    if isinstance(data, bytes | bytearray):
        narrow = len(data) < 2 * count
        entries = np.frombuffer(bytes(data), np.uint8 if narrow else "<u2").astype(np.uint16)
    else:
        numbers = np.asarray(data if hasattr(data, "__len__") else [data], np.float64).astype(np.int64)
        entries = (numbers & 0xFFFF).astype(np.uint16)
    if len(entries) < count or not 1 <= bits <= 16:
        raise Refused("malformed element", "LUTData")
    return Table(first, bits, entries[:count].tobytes())
