"""Splits by group: what belongs to one patient or one picture is never divided between train and test."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Sequence

import numpy as np

from medkit.digests import DigestTable, digest_of

VALID_SHARE, VALID_GROUPS = 0.05, 400
TEST_SHARE = 0.15
STRICT = ("train", "valid", "test")


def rank(seed: int, key: str) -> bytes:
    """Gives a key's place in an order that only the seed decides."""
    return hashlib.sha256(f"{seed}:{key}".encode(errors="surrogatepass")).digest()


class Splitter:
    """Gathers what decides the splits, in some 10 bytes a record and 70 a group, and assigns them.

    A split that the source gives is kept, except that a group in several splits counts as the strictest
    (test, then valid) and that groups are taken out of train where a split is missing: test (15 % of them,
    only when the source has none) and valid (5 %, at most 400). Which ones is decided by a hash of seed
    and group. Splits are numbers in the order of ``STRICT``.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._numbers = DigestTable()
        self._ranks = bytearray()
        self._parent = array("i")  # of a group: one that it shares a picture with, or itself
        self._owner = array("i")  # of a picture: the first group that has it, or -1
        self._group = array("i")  # of a record
        self._given = array("b")  # of a record: the source's split, or -1

    def add(self, group: str, split: str | None, pictures: Sequence[int]) -> None:
        """Takes a record.

        Args:
            group: Its group; groups with the very same picture are kept together where splits are made.
            split: The source's split as train, valid or test, or None.
            pictures: Numbers of its pictures, from 0.
        """
        number = self._numbers.setdefault(digest_of(group), len(self._parent))
        if number == len(self._parent):
            self._parent.append(number)
            self._ranks += rank(self.seed, group)[:16]
        self._group.append(number)
        self._given.append(-1 if split is None else STRICT.index(split))
        for picture in pictures:
            while picture >= len(self._owner):
                self._owner.append(-1)
            if self._owner[picture] < 0:
                self._owner[picture] = number
            root = self._root(self._owner[picture])
            self._parent[self._root(number)] = root

    def assign(self) -> tuple[np.ndarray, list[str]]:
        """Gives (the split of every record, int8 [N]; the names of the splits that were made here)."""
        group, own = self._columns()
        kin = np.fromiter(map(self._root, range(len(self._parent))), np.int32, len(self._parent))[group]
        given = np.full(len(self._parent), -1, dtype=np.int8)
        np.maximum.at(given, group, own)
        splits = np.maximum(given[group], 0)
        made = []
        for name in ("test", "valid"):
            code = STRICT.index(name)
            if (splits == code).any():
                continue
            # Where the source names splits for a part only, the rest is free and its training part is left whole.
            free = np.unique(kin[(splits == 0) & (own < 0)])
            pool = free if len(free) else np.unique(kin[splits == 0])
            taken = self._first(pool, _size(name, len(pool)))
            if len(taken):
                made.append(name)
                splits[(splits == 0) & np.isin(kin, taken)] = code
        return splits, made

    def torn(self) -> np.ndarray:
        """Says of every record whether the source gives its group several splits, bool [N]."""
        group, own = self._columns()
        seen = np.zeros(len(self._parent), dtype=np.uint8)
        named = own >= 0
        np.bitwise_or.at(seen, group[named], np.left_shift(1, own[named]).astype(np.uint8))
        return (np.bitwise_count(seen) > 1)[group]

    def given(self) -> np.ndarray:
        """Gives the source's own split of every record, int8 [N], -1 where it names none."""
        return self._columns()[1]

    def _columns(self) -> tuple[np.ndarray, np.ndarray]:
        return np.array(self._group, dtype=np.int32), np.array(self._given, dtype=np.int8)

    def _root(self, group: int) -> int:
        parent = self._parent
        while parent[group] != group:
            parent[group] = parent[parent[group]]
            group = parent[group]
        return group

    def _first(self, groups: np.ndarray, count: int) -> np.ndarray:
        """Gives the groups of the lowest ranks, in no order."""
        ranks = np.frombuffer(self._ranks, dtype=">u8").reshape(-1, 2)[groups]
        return groups[np.lexsort((ranks[:, 1], ranks[:, 0]))[:count]]


def _size(name: str, groups: int) -> int:
    if groups < 2:
        return 0
    if name == "test":
        return max(1, round(TEST_SHARE * groups))
    return min(VALID_GROUPS, round(VALID_SHARE * groups))
