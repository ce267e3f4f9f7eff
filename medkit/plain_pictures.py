"""Encoded pictures without their metadata: EXIF, XMP, comments and text chunks may name people and places."""

from __future__ import annotations

import re

from PIL import Image

ORIENTATION_TAG = 0x0112
# A marker in a JPEG's entropy-coded data is FF and neither a stuffed zero, a restart nor a fill byte (T.81 B.1.1).
_JPEG_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
_PNG_PIXELS = (
    b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"gAMA", b"cHRM", b"sRGB", b"iCCP", b"sBIT", b"bKGD", b"pHYs",
)  # fmt: skip
_WEBP_PIXELS = (b"VP8X", b"VP8 ", b"VP8L", b"ALPH", b"ICCP", b"ANIM", b"ANMF")
_WEBP_EXIF, _WEBP_XMP = 0x08, 0x04


def without_metadata(data: bytes) -> bytes | None:
    """Gives a JPEG, PNG or WebP file without what it says beside its pixels; these, and colour profiles, stay.

    Returns:
        The file's bytes without EXIF, XMP, IPTC, texts, comments, thumbnails and what follows its end; None where its
        structure is another or damaged, or its EXIF turns the picture.
    """
    try:
        if data[:2] == b"\xff\xd8":
            return _plain_jpeg(data)
        if data[:8] == b"\x89PNG\r\n\x1a\n":
            return _plain_png(data)
        if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
            return _plain_webp(data)
    except (IndexError, ValueError):
        pass
    return None


def _plain_jpeg(data: bytes) -> bytes:
    parts, at = [data[:2]], 2
    while True:
        found = _JPEG_MARKER.search(data, at)
        if found is None:
            raise ValueError
        parts.append(data[at : found.start()])
        kind = data[found.start() + 1]
        if kind == 0xD9:
            return b"".join(parts) + data[found.start() : found.end()]
        at = found.end() + int.from_bytes(data[found.end() : found.end() + 2], "big")
        segment = data[found.start() : at]
        if len(segment) < 4 or at > len(data):
            raise ValueError
        body = segment[4:]
        if kind == 0xE1 and body[:4] == b"Exif" and _turns(body[6:]):
            raise ValueError
        ours = {0xE0: b"JFIF", 0xE2: b"ICC_PROFILE", 0xEE: b"Adobe"}
        if (0xE0 <= kind <= 0xEF and not body.startswith(ours.get(kind, b"?"))) or kind == 0xFE:
            continue
        parts.append(segment)


def _plain_png(data: bytes) -> bytes:
    parts, at = [data[:8]], 8
    while True:
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        kind = data[at + 4 : at + 8]
        if end > len(data):
            raise ValueError
        if kind == b"eXIf" and _turns(data[at + 8 : end - 4]):
            raise ValueError
        if kind in _PNG_PIXELS:
            parts.append(data[at:end])
        if kind == b"IEND":
            return b"".join(parts)
        at = end


def _plain_webp(data: bytes) -> bytes:
    parts, at, last = [], 12, min(len(data), 8 + int.from_bytes(data[4:8], "little"))
    while at + 8 <= last:
        size = int.from_bytes(data[at + 4 : at + 8], "little")
        end = at + 8 + size + size % 2
        chunk = data[at:end]
        if end > last + size % 2:
            raise ValueError
        if chunk[:4] == b"EXIF" and _turns(chunk[8:].removeprefix(b"Exif\0\0")):
            raise ValueError
        if chunk[:4] == b"VP8X":
            chunk = chunk[:8] + bytes([chunk[8] & ~(_WEBP_EXIF | _WEBP_XMP)]) + chunk[9:]
        if chunk[:4] in _WEBP_PIXELS:
            parts.append(chunk)
        at = end
    body = b"WEBP" + b"".join(parts)
    return b"RIFF" + len(body).to_bytes(4, "little") + body


def _turns(exif: bytes) -> bool:
    """Whether EXIF data says that the picture lies on its side or may do so."""
    try:
        read = Image.Exif()
        read.load(b"Exif\0\0" + exif)
        return read.get(ORIENTATION_TAG, 1) != 1
    except Exception:
        return True
