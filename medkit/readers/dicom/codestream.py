"""What a compressed frame says of itself, read from its first markers without decoding.

Sources: ITU-T T.81 B.2 (JPEG), T.87 C.2 (JPEG-LS), T.800 A.5.1 (JPEG 2000 SIZ, the same in HTJ2K).
"""

from __future__ import annotations

from dataclasses import dataclass

from medkit.readers.dicom.reasons import Refused

SOI, SOS = b"\xff\xd8", 0xDA
# Start-of-frame markers; C4, C8 and CC are tables.
FRAMES = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}
SEQUENTIAL = (0xC0, 0xC1)
J2K_START = b"\xff\x4f\xff\x51"


@dataclass(frozen=True)
class Codestream:
    """A frame's own header.

    Attributes:
        rows, columns, channels, bits: As the codestream says.
        component_ids: The components' numbers.
        subsampled: Whether the components have different sampling factors.
        marker: "JFIF", "Adobe0" (no colour transform), "Adobe1" (YCbCr) or "".
        irregular: What breaks the standard though it can be decoded, or "".
        signed: Whether a JPEG 2000 stream's components are signed.
        levels: How often a JPEG 2000 stream can be halved, 0 where that isn't known.
        sequential: Whether it is a sequential JPEG of Huffman codes.
    """

    rows: int
    columns: int
    channels: int
    bits: int
    component_ids: tuple[int, ...] = ()
    subsampled: bool = False
    marker: str = ""
    irregular: str = ""
    signed: bool = False
    levels: int = 0
    sequential: bool = False


def read_codestream(data: bytes) -> Codestream:
    """Reads the size and kind of a JPEG, JPEG-LS, JPEG 2000 or HTJ2K frame.

    Raises:
        Refused: The first markers are damaged.
    """
    try:
        return _read_jpeg(data) if data[:2] == SOI else _read_j2k(data)
    except (IndexError, ValueError):
        raise Refused("decoder failed", "the codestream's header is damaged") from None


def _read_jpeg(data: bytes) -> Codestream:
    at, marker, frame, kind = 2, "", None, 0
    for _ in range(10_000):
        while data[at] == 0xFF and data[at + 1] == 0xFF:
            at += 1
        if data[at] != 0xFF:
            raise ValueError
        kind_here, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        body = data[at + 4 : at + 2 + length]
        if length < 2:
            raise ValueError
        if kind_here == 0xE0 and body[:4] == b"JFIF":
            marker = marker or "JFIF"
        elif kind_here == 0xEE and body[:5] == b"Adobe" and len(body) >= 12:
            marker = "Adobe0" if body[11] == 0 else "Adobe1"
        elif kind_here in FRAMES and frame is None:
            kind, frame = kind_here, body
        elif kind_here == SOS:
            if frame is None:
                raise ValueError
            return _jpeg_frame(kind, frame, marker, body)
        at += 2 + length
    raise ValueError


def _jpeg_frame(kind: int, body: bytes, marker: str, scan: bytes) -> Codestream:
    channels = body[5]
    parts = [body[6 + 3 * index : 9 + 3 * index] for index in range(channels)]
    irregular = ""
    if kind in SEQUENTIAL and (scan[-3], scan[-2]) != (0, 63):
        irregular = f"spectral selection {scan[-3]} to {scan[-2]} in a sequential scan, must be 0 to 63"
    return Codestream(
        int.from_bytes(body[1:3], "big"),
        int.from_bytes(body[3:5], "big"),
        channels,
        body[0],
        tuple(part[0] for part in parts),
        len({part[1] for part in parts}) > 1,
        marker,
        irregular,
        sequential=kind in SEQUENTIAL,
    )


def _read_j2k(data: bytes) -> Codestream:
    at = 0 if data[:4] == J2K_START else data.index(J2K_START)
    at += 6  # behind SOC, the SIZ marker and its length
    width, height, left, top = (
        int.from_bytes(data[at + 2 + 4 * index : at + 6 + 4 * index], "big") for index in range(4)
    )
    channels = int.from_bytes(data[at + 34 : at + 36], "big")
    parts = [data[at + 36 + 3 * index : at + 39 + 3 * index] for index in range(min(channels, 4))]
    subsampled = any(part[1:3] != b"\x01\x01" for part in parts)
    return Codestream(
        height - top,
        width - left,
        channels,
        (parts[0][0] & 0x7F) + 1,
        subsampled=subsampled,
        signed=bool(parts[0][0] & 0x80),
        # A stream in a file's boxes or with a shifted origin is left to the decoder of whole pictures.
        levels=0 if top or left or data[:4] != J2K_START else _levels(data),
    )


def _levels(data: bytes) -> int:
    """Gives the levels of the wavelet of a codestream's main header (T.800 A.6.1: COD), 0 where it has none."""
    at = 2
    while at + 10 <= len(data) and data[at] == 0xFF and data[at + 1] not in (0x90, 0x93, 0xD9):
        if data[at + 1] == 0x52:
            return data[at + 9]
        if data[at + 1] == 0x53:  # a component with levels of its own
            return 0
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return 0
