"""Tables of 128-bit digests that stay small: a million keys take 34 to 50 MB, where a dict of strings takes 200."""

from __future__ import annotations

import hashlib
import re
import struct
from array import array

import numpy as np

BYTES = 16
REF = re.compile("[0-9a-f]{64}")
FULLEST = 2 / 3
_WORDS = struct.Struct("<QQ")


def digest_of(text: str) -> bytes:
    """Gives the 128-bit digest of a text; two texts share one with a chance of 1e-26 among a million."""
    # Names of files on disk may hold lone surrogates.
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=BYTES).digest()


class DigestTable:
    """Digest -> whole number, 24 bytes a slot; a plain set of digests (16 bytes a slot) without ``values``.

    Keys are the first 16 bytes of what is given: of a sha256 the first half. Open addressing with linear steps, at
    most two thirds full; digests are spread evenly by themselves.

    Args:
        values: Whether numbers are kept beside the keys.
    """

    def __init__(self, values: bool = True) -> None:
        self._keeps = values
        self._count = 0
        self._make(1 << 10)

    def __len__(self) -> int:
        return self._count

    def __contains__(self, digest: bytes) -> bool:
        return self._keys[2 * self._slot(*_words(digest))] != 0

    def get(self, digest: bytes) -> int | None:
        """Gives the number of a digest, None where it has none."""
        slot = self._slot(*_words(digest))
        return self._values[slot] if self._keys[2 * slot] else None

    def set(self, digest: bytes, value: int = 0) -> None:
        """Keeps a number (64 bits, signed) for a digest, in place of an older one."""
        low, high = _words(digest)
        slot = self._slot(low, high)
        if self._keys[2 * slot] == 0:
            if self._count >= self._most:
                self._grow()
                slot = self._slot(low, high)
            self._keys[2 * slot], self._keys[2 * slot + 1] = low, high
            self._count += 1
        if self._keeps:
            self._values[slot] = value

    def setdefault(self, digest: bytes, value: int) -> int:
        """Gives the number of a digest, which is ``value`` from now on where it had none."""
        slot = self._slot(*_words(digest))
        if self._keys[2 * slot]:
            return self._values[slot]
        self.set(digest, value)
        return value

    def add(self, digest: bytes) -> bool:
        """Puts a digest into the set; says whether it was new."""
        before = self._count
        self.set(digest)
        return self._count > before

    def _make(self, slots: int) -> None:
        self._mask = slots - 1
        self._most = int(slots * FULLEST)
        self._keys = array("Q", bytes(16 * slots))
        self._values = array("q", bytes(8 * slots if self._keeps else 0))

    def _grow(self) -> None:
        """Moves all keys to twice the slots at once: one by one, a million would hold the work up for seconds."""
        old = np.frombuffer(self._keys, dtype=np.uint64).reshape(-1, 2)
        full = np.flatnonzero(old[:, 0])
        keys = old[full]
        numbers = np.frombuffer(self._values, dtype=np.int64)[full] if self._keeps else None
        self._make(2 * (self._mask + 1))
        slots = (keys[:, 1] & np.uint64(self._mask)).astype(np.int64)
        table = np.frombuffer(self._keys, dtype=np.uint64).reshape(-1, 2)
        values = np.frombuffer(self._values, dtype=np.int64)
        waiting = np.arange(len(keys))
        while len(waiting):
            free = waiting[table[slots[waiting], 0] == 0]
            _, first = np.unique(slots[free], return_index=True)
            placed = free[first]
            table[slots[placed]] = keys[placed]
            if numbers is not None:
                values[slots[placed]] = numbers[placed]
            left = np.ones(len(keys), dtype=bool)
            left[placed] = False
            waiting = waiting[left[waiting]]
            slots[waiting] = (slots[waiting] + 1) & self._mask

    def _slot(self, low: int, high: int) -> int:
        """Gives the slot that holds a key, or the free one where it belongs."""
        keys, mask = self._keys, self._mask
        slot = high & mask
        while True:
            found = keys[2 * slot]
            if found == 0 or (found == low and keys[2 * slot + 1] == high):
                return slot
            slot = (slot + 1) & mask


def _words(digest: bytes) -> tuple[int, int]:
    low, high = _WORDS.unpack_from(digest)
    return low or 1, high  # 0 marks a free slot


class PictureTable:
    """Numbers pictures in the order in which they come, 90 bytes each; they are found by their pixels or reference."""

    def __init__(self) -> None:
        self._numbers = DigestTable()
        self._refs = bytearray()
        self._sizes = array("i")

    def __len__(self) -> int:
        return len(self._sizes) // 2

    def add(self, ref: str, pixels: bytes, size: tuple[int, int]) -> tuple[int, bool]:
        """Takes a picture.

        Args:
            ref: The sha256 of its stored bytes, hex.
            pixels: The sha256 of its pixels.
            size: (width, height) in px.

        Returns:
            (its number, whether its pixels are new).
        """
        number = len(self)
        found = self._numbers.setdefault(pixels, number)
        if found != number:
            return found, False
        self._numbers.set(bytes.fromhex(ref), number)
        self._refs += bytes.fromhex(ref)
        self._sizes.extend(size)
        return number, True

    def alias(self, digest: bytes, number: int) -> None:
        """Makes a picture known by another digest, such as that of the file it came in."""
        self._numbers.setdefault(digest, number)

    def number_of(self, digest: bytes) -> int | None:
        """Gives the number of a picture by a digest of its pixels, reference or alias; None where it is new."""
        return self._numbers.get(digest)

    def number_of_ref(self, ref: str) -> int | None:
        """Gives the number of a picture by its whole reference, None where it is new."""
        number = self._numbers.get(bytes.fromhex(ref)) if REF.fullmatch(ref) else None
        return number if number is not None and self.ref(number) == ref else None

    def ref(self, number: int) -> str:
        """Gives the reference of a picture."""
        return self._refs[32 * number : 32 * number + 32].hex()

    def size(self, number: int) -> tuple[int, int]:
        """Gives (width, height) in px."""
        return self._sizes[2 * number], self._sizes[2 * number + 1]
