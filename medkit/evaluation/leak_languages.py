"""Questions of one language that stand in another one about the same picture, found without translating.

SLAKE's two languages split the same 642 images differently: who trains on one and tests on the other has seen test
pictures with their answers. No text is equal across languages; what can be compared is the picture, the kind of the
question, its id, and which texts stand for each other at picture after picture.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

LEAST_PICTURES = 3  # measured on SLAKE: pairs of texts seen at two pictures are wrong every other time
EXAMPLES = 20


@dataclass(frozen=True)
class Row:
    """A question of a set: where it stands, what it shows, asks and is answered with (both normalised).

    ``slot`` is what a set says of a question in every language: its kind, and whether it is closed.
    """

    id: str
    images: tuple[str, ...]
    name: str
    question: str
    answer: str
    language: str
    slot: tuple[str, str] = ("", "")


Pairs = dict[tuple[str, str], int]


def text_pairs(pictures: Iterable[Sequence[Row]]) -> Pairs:
    """Finds texts of two languages that stand for each other.

    Two texts are counted where each is the only one of its language in a slot of a picture. What stands so at one
    picture may be two questions; what does at three or more nearly always is one.

    Args:
        pictures: Of each picture, all questions about it.

    Returns:
        Both directions of (text, text) to the number of pictures, for three and more.
    """
    seen: Counter[tuple[str, str]] = Counter()
    for rows in pictures:
        slots: dict[tuple[str, str], dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
        for row in rows:
            if row.slot[0] and row.language and row.question:
                slots[row.slot][row.language].add(row.question)
        found = set()
        for by_language in slots.values():
            alone = [(language, *texts) for language, texts in by_language.items() if len(texts) == 1]
            found |= {(one[1], two[1]) for one in alone for two in alone if one[0] != two[0]}
        seen.update(found)
    return {pair: count for pair, count in seen.items() if count >= LEAST_PICTURES}


def count_across(
    twins: Sequence[tuple[Row, Sequence[Row]]], pairs: Mapping[tuple[str, str], int]
) -> dict[str, Any]:
    """Counts the test questions that train has in another language.

    Args:
        twins: Each test question with the questions that train has about the same picture.
        pairs: As ``text_pairs`` gives them.

    Returns:
        ``questions`` (about a picture that train asks about in another language), ``same_kind`` (also with a
        question of the same kind: at most so many are the same question), ``paired`` (also with a text that stands
        for the question's text: at least about so many are), ``same_id`` (the same id about the same picture, the
        text in another language) and ``pairs``, up to 20 ``[test text, train text, pictures]``.
    """
    counts: Counter[str] = Counter()
    used: Counter[tuple[str, str]] = Counter()
    for row, others in twins:
        foreign = [twin for twin in others if row.language and twin.language not in ("", row.language)]
        if not foreign:
            continue
        counts["questions"] += 1
        counts["same_kind"] += any(row.slot[0] and twin.slot == row.slot for twin in foreign)
        counts["same_id"] += any(twin.id == row.id for twin in foreign)
        known = {(row.question, twin.question) for twin in foreign} & pairs.keys()
        counts["paired"] += bool(known)
        used.update(known)
    shown = sorted(used, key=lambda pair: (-pairs[pair], pair))[:EXAMPLES]
    return {
        **{name: counts[name] for name in ("questions", "same_kind", "paired", "same_id")},
        "pairs": [[*pair, pairs[pair]] for pair in shown],
    }


def told_across(found: Mapping[str, Any]) -> list[str]:
    """Gives the counts in lines; none where no picture is asked about in two languages."""
    if not found["questions"]:
        return []
    return [
        f"across languages: {found['questions']:,} questions are about a picture that train asks about in another "
        f"language; {found['same_kind']:,} of them have a question of the same kind there, at most so many are the "
        f"same question; {found['paired']:,} have a text there that stands for theirs at {LEAST_PICTURES} or more "
        f"pictures, at least about so many are; {found['same_id']:,} have the same id",
        *(f"example of texts: {mine[:40]} is {theirs[:40]}" for mine, theirs, _ in found["pairs"][:3]),
    ]
