"""What a header says of its pixels, once it was checked (``decode.describe``)."""

from __future__ import annotations

from dataclasses import dataclass

from pydicom import uid

NATIVE = (uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian, uid.ExplicitVRBigEndian)


@dataclass(frozen=True)
class Description:
    """The header's description of the pixels, checked.

    Attributes:
        rows, columns, frames, samples: Counts.
        allocated, stored: Bits.
        signed: Whether stored values are two's complement.
        photometric: The header's photometric interpretation.
        syntax: The transfer syntax UID.
        keyword: The element that holds the pixels.
    """

    rows: int
    columns: int
    frames: int
    samples: int
    allocated: int
    stored: int
    signed: bool
    photometric: str
    syntax: str
    keyword: str

    @property
    def native(self) -> bool:
        """Whether the pixels are uncompressed, so that no decoder of compiled code sees them."""
        return self.syntax in NATIVE

    @property
    def frame_bytes(self) -> int:
        """Bytes of one decoded frame."""
        return self.rows * self.columns * self.samples * max(1, self.allocated // 8)
