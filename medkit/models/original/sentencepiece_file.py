"""SentencePiece model files (``tokenizer.model``): read and written without the sentencepiece package.

The file is one protocol buffer message. Source: sentencepiece_model.proto of google/sentencepiece.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...errors import ModelError

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
UNIGRAM, BPE = 1, 2
SPACE = "▁"


@dataclass
class SentencePieceFile:
    """What a ``tokenizer.model`` holds.

    Attributes:
        pieces: (text, score, type) in the order of their ids.
        algorithm: ``UNIGRAM`` (1) or ``BPE`` (2).
        prefix: A space is put before the text.
        collapse: Runs of spaces become one, and outer ones vanish.
        characters: Compiled character map of the normaliser; empty for the identity.
    """

    pieces: list[tuple[str, float, int]] = field(default_factory=list)
    algorithm: int = UNIGRAM
    prefix: bool = True
    collapse: bool = True
    characters: bytes = b""

    def merges(self) -> list[tuple[str, str]]:
        """Gives the pairs that byte-pair encoding joins, the first to be joined first."""
        known = {text: score for text, score, kind in self.pieces if kind == NORMAL}
        found: list[tuple[float, int, int, str, str]] = []
        order = {text: place for place, (text, _, _) in enumerate(self.pieces)}
        for text, score in known.items():
            for cut in range(1, len(text)):
                left, right = text[:cut], text[cut:]
                if left in known and right in known:
                    found.append((-score, order[left], order[right], left, right))
        found.sort(key=lambda one: one[:3])
        return [(left, right) for *_, left, right in found]


def read_sentencepiece(path: Path) -> SentencePieceFile:
    """Reads a ``tokenizer.model``.

    Raises:
        ModelError: It is no SentencePiece file.
    """
    found = SentencePieceFile()
    try:
        for number, value in _fields(path.read_bytes()):
            if number == 1:
                found.pieces.append(_piece(value))
            elif number == 2:
                trainer = dict(_fields(value))
                found.algorithm = trainer.get(3, UNIGRAM)
            elif number == 3:
                normaliser = dict(_fields(value))
                found.characters = normaliser.get(2, b"")
                found.prefix = bool(normaliser.get(3, 1))
                found.collapse = bool(normaliser.get(4, 1))
    except (ValueError, IndexError, struct.error, TypeError, AttributeError) as error:
        raise ModelError(
            f"{path}: not a SentencePiece file ({error}); copy it again from its source"
        ) from error
    if not found.pieces:
        raise ModelError(f"{path}: holds no pieces; copy it again from its source")
    return found


def write_sentencepiece(path: Path, model: SentencePieceFile) -> None:
    """Writes a ``tokenizer.model`` that the sentencepiece package reads."""
    out = bytearray()
    ids: dict[str, int] = {}
    for place, (text, score, kind) in enumerate(model.pieces):
        ids.setdefault({UNKNOWN: "unk"}.get(kind, text), place)
        body = _bytes(1, text.encode()) + b"\x15" + struct.pack("<f", score)
        if kind != NORMAL:
            body += _number(3, kind)
        out += _bytes(1, body)
    byte_fallback = any(kind == BYTE for _, _, kind in model.pieces)
    trainer = _number(3, model.algorithm) + _number(4, len(model.pieces)) + _number(35, int(byte_fallback))
    for number, name in ((40, "unk"), (41, "<s>"), (42, "</s>")):
        trainer += _number(number, ids.get(name, -1))
    trainer += _number(43, -1)
    normaliser = _bytes(1, b"identity") + _bytes(2, model.characters)
    normaliser += _number(3, int(model.prefix)) + _number(4, int(model.collapse)) + _number(5, 1)
    path.write_bytes(bytes(out) + _bytes(2, trainer) + _bytes(3, normaliser))


def _piece(data: bytes) -> tuple[str, float, int]:
    fields = dict(_fields(data))
    score = struct.unpack("<f", fields[2])[0] if 2 in fields else 0.0
    return fields.get(1, b"").decode(), score, fields.get(3, NORMAL)


def _fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """Gives (field number, value) of a message: an int for varints, bytes for everything else."""
    place = 0
    while place < len(data):
        key, place = _varint(data, place)
        number, wire = key >> 3, key & 7
        if wire == 0:
            value, place = _varint(data, place)
        elif wire in (1, 5):
            length = 8 if wire == 1 else 4
            value, place = data[place : place + length], place + length
        elif wire == 2:
            length, place = _varint(data, place)
            value, place = data[place : place + length], place + length
            if len(value) != length:
                raise ValueError("it ends too early")
        else:
            raise ValueError(f"wire type {wire}")
        yield number, value


def _varint(data: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[place]
        place += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, place
        if shift > 63:
            raise ValueError("a number is too long")


def _number(number: int, value: int) -> bytes:
    return _encoded(number << 3) + _encoded(value & 0xFFFFFFFFFFFFFFFF)


def _bytes(number: int, value: bytes) -> bytes:
    return _encoded(number << 3 | 2) + _encoded(len(value)) + value


def _encoded(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
