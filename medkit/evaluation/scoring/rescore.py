"""Stored answers scored under one profile or all: numbers with intervals, and what stands behind them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..statistics import score_interval, sums_interval
from .annotations import annotate, read_annotations, unused
from .answer_files import items_of, read_items
from .profile import Item, Mark, Profile, Score, Sums, value_of
from .profile_labelled import LABELLED
from .profiles import find_profiles
from .set_intervals import set_intervals

WHYS = {
    "unparsed": "unparsed",
    "random": "would_be_random",
    "refused": "refused",
    "failed": "failed",
}


def score_file(
    path: Path,
    profile: str = "medkit",
    references: Path | None = None,
    seed: int = 0,
    *,
    reports: bool = False,
    annotations: Sequence[Path] = (),
    reference_annotations: Sequence[Path] = (),
) -> dict[str, Any]:
    """Scores a file of stored answers.

    Args:
        path: See ``read_items``.
        profile: A profile's name, or ``all``.
        references: A file of gold answers, see ``read_items``.
        seed: Seed of the bootstrap.
        reports: Whether every answer is a report, whatever its row states.
        annotations, reference_annotations: Files of labels and annotations, see ``read_annotations``.

    Returns:
        ``{answers, benchmarks: {name: {questions, groups, failed, empty, truncated, profiles: {name: ...}}}}``, each
        profile as ``score_items`` gives it. With annotations also ``annotations: {files, unused}``, and for each
        benchmark with some ``annotated`` (``annotate``'s counts) and the profile ``labelled``.

    Raises:
        DataError: A file can't be read, there is no such profile, or annotations belong to no answer.
    """
    profiles = find_profiles(profile)
    items = {name: list(own) for name, own in read_items(path, references).items()}
    if reports:
        items = {
            name: [replace(item, answer_type="report", choices={}, closed=False) for item in own]
            for name, own in items.items()
        }
    annotated: dict[str, Any] = {}
    more: dict[str, Any] = {}
    if annotations or reference_annotations:
        said = read_annotations(annotations, reference_annotations)
        items, annotated = annotate(items, said)
        files = [str(one) for one in (*annotations, *reference_annotations)]
        more = {"annotations": {"files": files, "unused": unused(items, said)}}
    benchmarks = {}
    for name, own in items.items():
        benchmarks[name] = {
            "questions": len(own),
            "groups": len({item.group for item in own}),
            "failed": sum(bool(item.failed) for item in own),
            "empty": sum(not (item.answer.strip() or item.failed) for item in own),
            "truncated": sum(item.truncated for item in own),
            "profiles": {one.name: score_items(own, one, seed) for one in profiles},
        }
        if name in annotated:
            benchmarks[name]["annotated"] = annotated[name]
            benchmarks[name]["profiles"][LABELLED.name] = score_items(own, LABELLED, seed)
    found = {"answers": str(path), "interval": "95 %, bootstrap over groups", "benchmarks": benchmarks}
    return found | more


def score_rows(rows: Sequence[dict[str, Any]], profile: str, seed: int = 0) -> dict[str, Any]:
    """Scores the rows of one benchmark's ``answers.jsonl``, controls left out; profile name to ``score_items``."""
    items = [item for found in items_of(rows, "answers").values() for item in found]
    return {one.name: score_items(items, one, seed) for one in find_profiles(profile)}


def score_items(items: Sequence[Item], profile: Profile, seed: int = 0) -> dict[str, Any]:
    """Gives every score of a profile that applies to any item; items without a reply (``failed``) have none.

    Returns:
        ``{version, title, scores: {name: {value, low, high, count, definition, empty, truncated, unparsed,
        would_be_random, refused, failed}}, corpus: {name: {value, count, definition}}}``. Corpus numbers also have
        ``low`` and ``high``, missing or None for a single group or where nothing varies. Every count is of the items
        that the score applies to, and such an item counts with the value that the definition
        gives, never with one that is made up.
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
            groups, given = [item.group for item in members], entry.function(members)
            sums = {name: value for name, value in given.items() if isinstance(value, Sums)}
            plain = {name: value for name, value in given.items() if not isinstance(value, Sums)}
            ends = set_intervals(entry, members, plain, seed) if plain else {}
            numbers = {name: {"value": value} | ends.get(name, {}) for name, value in plain.items()}
            numbers |= {name: _number(value, groups, seed) for name, value in sums.items()}
            corpus |= {name: numbers[name] | about for name in given}
    return {"version": profile.version, "title": profile.title, "scores": scores, "corpus": corpus}


def _number(given: Sums, groups: Sequence[str], seed: int) -> dict[str, Any]:
    interval = sums_interval(given.rows, given.function, groups, seed)
    ends = (round(interval.low, 6), round(interval.high, 6)) if interval else (None, None)
    return {"value": value_of(given), "low": ends[0], "high": ends[1]}


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
