"""The heavy part of reading: a record's pictures decoded, rendered, encoded and looked at.

A pure function of the record's ``image``, so that it can run here, in worker processes or on a cluster. What comes
back over a pipe is a JSON head and raw bytes, never a pickle: a worker may be in the hands of a hostile file. Run as
a module it is such a worker.
"""

from __future__ import annotations

import json
import pickle
import struct
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medkit import images as pictures
from medkit import prepared
from medkit.digests import REF
from medkit.errors import DataError
from medkit.readers.child import serve
from medkit.readers.duplicates import LOOK_BYTES, look_of

HEAD = struct.Struct("<I")
# Never in a ledger: the record is then made where it was read.
NOT_THERE = "not to be loaded in a worker"


@dataclass(frozen=True)
class Picture:
    """A picture that is ready to be stored, or the memory of one.

    Attributes:
        stored: What goes into the dataset; its ``data`` is empty in a memory.
        look: For the search of near-duplicates, see ``duplicates.look_of``; empty in a memory.
        at: Where its bytes lie in the file of a memory, or -1.
    """

    stored: prepared.Prepared
    look: bytes = b""
    at: int = -1


@dataclass(frozen=True)
class Outcome:
    """What became of a record's pictures: all of them, or none and the ``reason`` against one."""

    pictures: tuple[Picture, ...]
    notes: tuple[tuple[str, str], ...] = ()
    reason: str = ""
    detail: str = ""


def prepare(image: Any, limits: pictures.Limits = pictures.DEFAULT_LIMITS) -> Outcome:
    """Makes a record's pictures.

    Args:
        image: A record's ``image``: a picture, a list of them, or a loader.
        limits: What is refused of encoded files.
    """
    made: list[Picture] = []
    notes: tuple[tuple[str, str], ...] = ()
    try:
        parts: list[Any] = image if isinstance(image, list) else [image]
        if callable(image):
            loaded: Any = image()
            parts, notes = loaded.images, tuple(loaded.notes)
        for part in parts:
            data = pictures.read_limited(part, limits) if isinstance(part, Path) else part
            stored, rgb = prepared.prepare(data, limits)
            made.append(Picture(stored, look_of(rgb)))
    except DataError as error:
        # A loader's error says its own reason.
        reason, detail = getattr(error, "reason", "image unreadable"), getattr(error, "detail", str(error))
        return Outcome((), (), reason, detail)
    except MemoryError:
        return Outcome((), (), "image unreadable", "it needs more memory than the limit")
    except Exception as error:  # its text may quote a header's value
        return Outcome((), (), "unforeseen fault", type(error).__name__)
    return Outcome(tuple(made), notes)


def order_of(packed: list[bytes], limits: pictures.Limits) -> bytes:
    """Gives the order for some pickled images."""
    return pickle.dumps((limits, packed), protocol=pickle.HIGHEST_PROTOCOL)


def answer(order: bytes) -> bytes:
    """Gives the packed outcomes of an order's images; what every worker runs, wherever it is."""
    limits, packed = pickle.loads(order)
    return pack(_unpickled(image, limits) for image in packed)


def _unpickled(packed: bytes, limits: pictures.Limits) -> Outcome:
    try:
        image = pickle.loads(packed)
    except (ImportError, AttributeError):  # its loader's module is only known to the process that sent it
        return Outcome((), (), NOT_THERE)
    except MemoryError:
        return Outcome((), (), "image unreadable", "it needs more memory than the limit")
    except Exception as error:
        return Outcome((), (), "unforeseen fault", type(error).__name__)
    return prepare(image, limits)


def pack(outcomes: Iterable[Outcome]) -> bytes:
    """Gives outcomes as bytes: a JSON head, then look and data of every picture."""
    head, parts = [], []
    for outcome in outcomes:
        head.append(head_of(outcome))
        for picture in outcome.pictures:
            parts += [picture.look, picture.stored.data]
    text = json.dumps(head).encode()
    return b"".join([HEAD.pack(len(text)), text, *parts])


def unpack(packed: bytes) -> list[Outcome]:
    """Gives packed outcomes.

    Raises:
        ValueError: The bytes are none.
    """
    try:
        return _unpack(packed)
    except (struct.error, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"no packed outcomes ({type(error).__name__})") from None


def _unpack(packed: bytes) -> list[Outcome]:
    (length,) = HEAD.unpack_from(packed)
    at = HEAD.size + length
    outcomes = []
    for head in json.loads(packed[HEAD.size : at]):
        outcome = from_head(head)
        made = []
        for memory, (*_, size, _) in zip(outcome.pictures, head["pictures"], strict=True):
            look, data = packed[at : at + LOOK_BYTES], packed[at + LOOK_BYTES : at + LOOK_BYTES + size]
            at += LOOK_BYTES + size
            if not _is_sound(memory.stored) or len(look) != LOOK_BYTES or not 0 < size == len(data):
                raise ValueError("no picture")
            made.append(filled(memory, look, data))
        outcomes.append(Outcome(tuple(made), outcome.notes, outcome.reason, outcome.detail))
    return outcomes


def _is_sound(stored: prepared.Prepared) -> bool:
    sides = (stored.width, stored.height)
    whole = all(type(side) is int and 0 < side < 1 << 31 for side in sides)
    return whole and REF.fullmatch(stored.ref) is not None and len(stored.pixels) == 32


def head_of(outcome: Outcome, places: list[int] | None = None) -> dict[str, Any]:
    """Gives an outcome without its pictures' bytes, JSON-able; ``places`` says where they are put."""
    places = [picture.at for picture in outcome.pictures] if places is None else places
    rows = [
        [
            one.stored.ref,
            one.stored.pixels.hex(),
            one.stored.width,
            one.stored.height,
            len(one.stored.data),
            at,
        ]
        for one, at in zip(outcome.pictures, places, strict=True)
    ]
    head: dict[str, Any] = {"pictures": rows}
    if outcome.notes:
        head["notes"] = outcome.notes
    if outcome.reason:
        head |= {"reason": outcome.reason, "detail": outcome.detail}
    return head


def from_head(head: dict[str, Any]) -> Outcome:
    """Gives the memory of an outcome."""
    made = tuple(
        Picture(prepared.Prepared(ref, bytes.fromhex(pixels), width, height, b""), at=at)
        for ref, pixels, width, height, _, at in head["pictures"]
    )
    notes = tuple((reason, detail) for reason, detail in head.get("notes", ()))
    return Outcome(made, notes, head.get("reason", ""), head.get("detail", ""))


def without_bytes(outcome: Outcome) -> Outcome:
    """Gives the memory of an outcome whose pictures are stored."""
    return from_head(head_of(outcome))


def filled(memory: Picture, look: bytes, data: bytes) -> Picture:
    """Gives a picture with its bytes."""
    stored = memory.stored
    return Picture(
        prepared.Prepared(stored.ref, stored.pixels, stored.width, stored.height, data), look, memory.at
    )


if __name__ == "__main__":
    serve(answer, int(sys.argv[1]))
