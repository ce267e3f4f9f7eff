"""Splits by group: what belongs to one patient or one picture is never divided between train and test."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

VALID_SHARE, VALID_GROUPS = 0.05, 400
TEST_SHARE = 0.15
STRICT = ("train", "valid", "test")


@dataclass(frozen=True)
class Member:
    """What of a record decides its split.

    Attributes:
        group: Its group.
        split: The source's split as train, valid or test, or None.
        images: References of its pictures; groups with the very same picture are kept together.
    """

    group: str
    split: str | None
    images: tuple[str, ...] = ()


def assign_splits(members: Sequence[Member], seed: int) -> tuple[list[str], list[str]]:
    """Gives every record its split.

    A split that the source gives is kept, except that a group in several splits counts as the strictest
    (test, then valid) and that groups are taken out of train where a split is missing: test (15 % of them,
    only when the source has none) and valid (5 %, at most 400). Which ones is decided by a hash of seed
    and group.

    Returns:
        (the split of every record, the names of the splits that were made here).
    """
    kin = _kin(members)
    given: dict[str, str] = {}
    for member in members:
        if member.split is not None:
            given[member.group] = max(given.get(member.group, "train"), member.split, key=STRICT.index)
    splits = [given.get(member.group, "train") for member in members]
    made = []
    for name in ("test", "valid"):
        if name in splits:
            continue
        # Where the source names splits for a part only, the rest is free and its training part is left whole.
        free = {
            kin[m.group]
            for m, split in zip(members, splits, strict=True)
            if split == "train" and m.split is None
        }
        pool = free or {kin[m.group] for m, split in zip(members, splits, strict=True) if split == "train"}
        taken = _first(pool, seed, _size(name, len(pool)))
        if taken:
            made.append(name)
        splits = [
            name if split == "train" and kin[member.group] in taken else split
            for member, split in zip(members, splits, strict=True)
        ]
    return splits, made


def rank(seed: int, key: str) -> bytes:
    """Gives a key's place in an order that only the seed decides."""
    return hashlib.sha256(f"{seed}:{key}".encode()).digest()


def _size(name: str, groups: int) -> int:
    if groups < 2:
        return 0
    if name == "test":
        return max(1, round(TEST_SHARE * groups))
    return min(VALID_GROUPS, round(VALID_SHARE * groups))


def _kin(members: Iterable[Member]) -> dict[str, str]:
    """Gives every group a representative that it shares with groups of the very same pictures."""
    parent: dict[str, str] = {}

    def root(group: str) -> str:
        while parent.setdefault(group, group) != group:
            parent[group] = parent[parent[group]]
            group = parent[group]
        return group

    owner: dict[str, str] = {}
    for member in members:
        root(member.group)
        for ref in member.images:
            parent[root(member.group)] = root(owner.setdefault(ref, member.group))
    return {group: root(group) for group in list(parent)}


def _first(groups: Iterable[str], seed: int, count: int) -> set[str]:
    return set(sorted(groups, key=lambda group: rank(seed, group))[:count])
