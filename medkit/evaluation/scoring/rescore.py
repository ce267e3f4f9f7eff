"""Stored answers scored under one profile or all: numbers with intervals, and what stands behind them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..statistics import score_interval
from .answer_files import items_of, read_items
from .profile import Item, Mark, Profile, Score
from .profiles import find_profiles
from .set_intervals import set_intervals

WHYS = {
    "unparsed": "unparsed",
    "random": "would_be_random",
    "refused": "refused",
    "failed": "failed",
}


def score_file(
    path: Path, profile: str = "medkit", references: Path | None = None, seed: int = 0
) -> dict[str, Any]:
    """Scores a file of stored answers.

    Args:
        path: See ``read_items``.
        profile: A profile's name, or ``all``.
        references: A file of gold answers, see ``read_items``.
        seed: Seed of the bootstrap.

    Returns:
        ``{answers, benchmarks: {name: {questions, groups, failed, empty, truncated, profiles: {name: ...}}}}``, each
        profile as ``score_items`` gives it.

    Raises:
        DataError: The file can't be read or there is no such profile.
    """
    profiles = find_profiles(profile)
    benchmarks = {}
    for name, items in read_items(path, references).items():
        benchmarks[name] = {
            "questions": len(items),
            "groups": len({item.group for item in items}),
            "failed": sum(bool(item.failed) for item in items),
            "empty": sum(not (item.answer.strip() or item.failed) for item in items),
            "truncated": sum(item.truncated for item in items),
            "profiles": {one.name: score_items(items, one, seed) for one in profiles},
        }
    return {"answers": str(path), "interval": "95 %, bootstrap over groups", "benchmarks": benchmarks}


def score_rows(rows: Sequence[dict[str, Any]], profile: str, seed: int = 0) -> dict[str, Any]:
    """Scores the rows of one benchmark's ``answers.jsonl``, controls left out; profile name to ``score_items``."""
    items = [item for found in items_of(rows, "answers").values() for item in found]
    return {one.name: score_items(items, one, seed) for one in find_profiles(profile)}


def score_items(items: Sequence[Item], profile: Profile, seed: int = 0) -> dict[str, Any]:
    """Gives every score of a profile that applies to any item; items without a reply (``failed``) have none.

    Returns:
        ``{version, title, scores: {name: {value, low, high, count, definition, empty, truncated, unparsed,
        would_be_random, refused, failed}}, corpus: {name: {value, low, high, count, definition}}}`` (a number of
        a set has no interval where there is a single group). Every count is of the items that the score applies
        to, and such an item counts with the value that the definition gives, never with one that is made up.
    """
    items = [item for item in items if not item.failed]
    scores = {}
    for score in profile.scores:
        found = _score(items, score, seed)
        if found:
            scores[score.name] = found
    corpus: dict[str, dict[str, Any]] = {}
    for entry in profile.corpus:
        members = [item for item in items if entry.applies(item)]
        if members:
            about = {"count": len(members), "definition": entry.definition}
            values = entry.function(members)
            ends = set_intervals(entry, members, values, seed)
            corpus |= {name: {"value": value} | ends.get(name, {}) | about for name, value in values.items()}
    return {"version": profile.version, "title": profile.title, "scores": scores, "corpus": corpus}


def _score(items: Sequence[Item], score: Score, seed: int) -> dict[str, Any] | None:
    marked: list[tuple[Item, Mark]] = []
    for item in items:
        mark = score.mark(item)
        if mark is not None:
            marked.append((item, mark))
    if not marked:
        return None
    interval = score_interval([mark.value for _, mark in marked], [item.group for item, _ in marked], seed)
    whys = Counter(mark.why for _, mark in marked)
    return {
        **{name: round(value, 6) for name, value in interval._asdict().items()},
        "count": len(marked),
        "definition": score.definition,
        "empty": sum(not item.answer.strip() for item, _ in marked),
        "truncated": sum(item.truncated for item, _ in marked),
        **{column: whys[why] for why, column in WHYS.items()},
    }
