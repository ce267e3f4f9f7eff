"""Near-duplicate pictures between splits: perceptual hashes first, a look at the pixels second.

What is kept of a picture is its look: a 64-bit hash and a 16 x 16 grey copy, 264 bytes that may lie in a file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from PIL import Image

HASH_DISTANCE = 6
SIDE = 16
LOOK_BYTES = 8 + SIDE * SIDE
MIN_CORRELATION = 0.985
MAX_DIFFERENCE = 5.0
QUERIES_AT_ONCE = 4096
PAIRS_AT_ONCE = 1 << 21
LOOKS_AT_ONCE = 4096
# Two hashes within 6 bits of one another are within 1 bit in at least one of four parts of 16 bits.
PARTS = 4
FLIPS = np.array([0, *(1 << bit for bit in range(16))], dtype=np.uint16)


def near_pairs(
    hashes: np.ndarray,
    coarse: np.ndarray,
    grey_of: Callable[[np.ndarray], np.ndarray],
    rows: tuple[np.ndarray, np.ndarray],
    max_peak: float = 255.0,
) -> Iterator[tuple[int, int, int]]:
    """Gives, for each picture of the first rows that has any, its nearest near-duplicate in the second.

    A pair counts when the 64-bit hashes (imagehash.phash) differ in at most 6 bits and the 16 x 16
    grey copies correlate at 0.985 or more with a mean difference of at most 5 of 255: plain drawings
    share hashes without being copies of one another. Of several the same picture comes first, then the
    nearest hash, then the first in the order of the rows.

    Args:
        hashes: uint64 [N].
        coarse: uint8 [N, 16], see ``coarse_of``.
        grey_of: Gives the grey copies of rows, uint8 [k, 256].
        rows: Two int arrays of rows of the arrays above.
        max_peak: Largest difference (of 255) of any of the 256 grey cells. Drawings of one generator
            need a low one: they share their ground and differ in a small object, as a cropped copy
            does at its edges.

    Yields:
        (row, row of its near-duplicate, bits in which their hashes differ), in the order of the first rows.
    """
    first, second = rows
    if not len(first) or not len(second):
        return
    near = _Near(hashes[second])
    shared = np.zeros(len(hashes), dtype=bool)
    shared[second] = True
    for start in range(0, len(first), QUERIES_AT_ONCE):
        block = first[start : start + QUERIES_AT_ONCE]
        asked, place = np.unique(hashes[block], return_inverse=True)
        query, column, distance = near.within(asked)
        begins = np.searchsorted(query, np.arange(len(asked) + 1))
        for row, at in zip(block.tolist(), place.tolist(), strict=True):
            if shared[row]:
                yield row, row, 0
                continue
            some = slice(begins[at], begins[at + 1])
            if some.start == some.stop:
                continue
            own = grey_of(np.array([row]))[0]
            for bits in np.unique(distance[some]).tolist():
                others = second[near.columns(column[some][distance[some] == bits])]
                twin = _first_alike(own, coarse[row], others, coarse, grey_of, max_peak)
                if twin is not None:
                    yield row, twin, bits
                    break


def _first_alike(
    own: np.ndarray,
    own_coarse: np.ndarray,
    others: np.ndarray,
    coarse: np.ndarray,
    grey_of: Callable[[np.ndarray], np.ndarray],
    max_peak: float,
) -> int | None:
    for start in range(0, len(others), LOOKS_AT_ONCE):
        part = others[start : start + LOOKS_AT_ONCE]
        apart = np.abs(coarse[part].astype(np.int16) - own_coarse).mean(axis=1)
        part = part[
            apart <= MAX_DIFFERENCE + 1.0
        ]  # means can't differ more than their cells; 1 is for rounding
        if len(part):
            greys = grey_of(part).astype(np.float32)
            alike = np.flatnonzero(_look_alike(own.astype(np.float32), greys, max_peak))
            if alike.size:
                return int(part[alike[0]])
    return None


def look_of(image: Image.Image) -> bytes:
    """Gives a picture's 64-bit perceptual hash (native bytes) and its 16 x 16 grey copy: 264 bytes.

    The copy is kept as differences from one grey to the next: the greys of a flat picture would read as a number
    of one repeated digit, such as made-up patient numbers are, to whoever searches the files for one.
    """
    import imagehash  # brings scipy along, which only this needs

    grey = image.convert("L")
    if min(grey.size) > 256:  # a quarter of a second saved per hundred photographs, the same hash
        grey = grey.reduce(min(grey.size) // 128)
    bits = imagehash.phash(grey).hash
    small = np.asarray(grey.resize((SIDE, SIDE), Image.Resampling.BOX), dtype=np.uint8)
    steps = np.diff(small.reshape(-1), prepend=np.uint8(0))  # modulo 256
    return np.packbits(bits.reshape(-1)).tobytes() + steps.astype(np.uint8).tobytes()


def hashes_of(looks: np.ndarray) -> np.ndarray:
    """Gives the hashes of looks [N, 264], uint64 [N]."""
    return np.ascontiguousarray(looks[:, :8]).view(np.uint64)[:, 0]


def greys_of(looks: np.ndarray) -> np.ndarray:
    """Gives the grey copies of looks [N, 264], uint8 [N, 256]."""
    return np.cumsum(looks[:, 8:], axis=1, dtype=np.uint8)


def coarse_of(looks: np.ndarray) -> np.ndarray:
    """Gives the mean greys of 4 x 4 parts of looks [N, 264], uint8 [N, 16]: they tell most strangers apart."""
    cells = greys_of(looks).reshape(-1, 4, 4, 4, 4).astype(np.uint16)
    return ((cells.sum(axis=(2, 4)) + 8) // 16).astype(np.uint8).reshape(-1, 16)


class _Near:
    """Finds hashes within ``HASH_DISTANCE`` bits without comparing all with all (multi-index hashing).

    Source: Norouzi, Punjani, Fleet, Fast search in Hamming space with multi-index hashing, CVPR 2012.
    """

    def __init__(self, hashes: np.ndarray):
        # Equal hashes stand for one another: flat pictures share theirs by the thousand.
        self.hashes, place = np.unique(hashes, return_inverse=True)
        self._members = np.argsort(place, kind="stable")
        self._begins = np.searchsorted(place[self._members], np.arange(len(self.hashes) + 1))
        parts = _parts(self.hashes)
        self._orders = [np.argsort(part, kind="stable").astype(np.int32) for part in parts]
        self._starts = [
            np.searchsorted(part[order], np.arange((1 << 16) + 1))
            for part, order in zip(parts, self._orders, strict=True)
        ]

    def within(self, queries: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Gives (query, place of a hash, distance) of all near pairs, each once, ordered by query."""
        found = [(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.uint8))]
        every = np.arange(len(queries))
        for part, order, starts in zip(_parts(queries), self._orders, self._starts, strict=True):
            for flip in FLIPS:
                wanted = part ^ flip
                begins = starts[wanted]
                lengths = starts[wanted.astype(np.int64) + 1] - begins
                for some in _portions(lengths):
                    count = lengths[some]
                    query = np.repeat(every[some], count)
                    inside = np.arange(len(query)) - np.repeat(np.cumsum(count) - count, count)
                    column = order[np.repeat(begins[some], count) + inside].astype(np.int64)
                    distance = np.bitwise_count(queries[query] ^ self.hashes[column])
                    close = distance <= HASH_DISTANCE
                    found.append((query[close], column[close], distance[close]))
        query, column, distance = (np.concatenate(each) for each in zip(*found, strict=True))
        _, once = np.unique(query * len(self.hashes) + column, return_index=True)
        return query[once], column[once], distance[once]

    def columns(self, places: np.ndarray) -> np.ndarray:
        """Gives where the given hashes stand in what was put in, ascending."""
        found = [self._members[self._begins[place] : self._begins[place + 1]] for place in places.tolist()]
        return np.sort(np.concatenate(found))


def _parts(hashes: np.ndarray) -> list[np.ndarray]:
    words = np.ascontiguousarray(hashes).view(np.uint16).reshape(-1, PARTS)
    return [np.ascontiguousarray(words[:, part]) for part in range(PARTS)]


def _portions(lengths: np.ndarray) -> Iterator[slice]:
    """Cuts queries into runs of about ``PAIRS_AT_ONCE`` pairs."""
    ends = np.cumsum(lengths)
    begin = 0
    while begin < len(lengths):
        before = ends[begin - 1] if begin else 0
        end = max(begin + 1, int(np.searchsorted(ends, before + PAIRS_AT_ONCE, side="right")))
        if ends[end - 1] > before:
            yield slice(begin, end)
        begin = end


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
