"""The operations behind question kinds: each gives a question whose answer is unique and certain, or None."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from random import Random

from medkit.teacher.card import Question, TeacherCard
from medkit.teacher.view import (
    NUMBERS,
    Pairs,
    View,
    count_of,
    counted,
    say,
    shown,
    vocabulary,
    with_article,
)

Fact = frozenset[tuple[str, object]]


@dataclass(frozen=True)
class Draft:
    """A question before its words: the template fields, the answer and what asking it gives away.

    Attributes:
        fields: What the templates may name.
        answer: The short answer.
        answer_type: ``yes_no``, ``number``, ``choice`` or ``open``.
        needs: What a reader must know for the answer: facts, each a set of attribute values of one thing.
        told: Facts that question and answer together reveal to a reader.
        choices: Possible answers of a choice.
        references: Other ways to write the answer.
    """

    fields: dict[str, object]
    answer: str
    answer_type: str
    needs: list[Fact]
    told: list[Fact]
    choices: list[str] = field(default_factory=list)
    references: list[str] = field(default_factory=list)


def draft(view: View, card: TeacherCard, question: Question, rng: Random, want: bool) -> Draft | None:
    """Drafts a question of the kind; ``want`` is the wanted direction of a yes/no answer.

    Returns:
        None when the facts hold no such question with a unique and certain answer in that direction.
    """
    for name, values in question.when.items():
        if view.labels.get(name) not in values:
            return None
    return _ASKS[question.ask](view, card, question, rng, want)


def _present(view: View, card: TeacherCard, question: Question, rng: Random, want: bool) -> Draft | None:
    by = rng.choice(question.by)
    seen = [pairs for pairs in _described(view, question, by) if pairs]
    if want:
        pairs = rng.choice(seen) if seen else None
    else:
        pairs = _absent(view, card, question, by, seen, rng)
    if not pairs:
        return None
    answer = "yes" if want else "no"
    fields = _subject(card, pairs)
    fields["count_subjects"] = say(card, pairs, plural=True) if want else counted(card, pairs, 0)
    return _yes_no(fields, answer, [frozenset(pairs)], [frozenset(pairs)])


def _absent(
    view: View, card: TeacherCard, question: Question, by: list[str], seen: list[Pairs], rng: Random
) -> Pairs | None:
    """Gives a subject that certainly isn't there and shares all but one attribute with one that is."""
    if not view.complete:
        return None
    words = {name: _swaps(view, card, question, name) for name in by}
    near: list[Pairs] = []
    if seen:
        for pairs in [rng.choice(seen)]:
            for place, (name, value) in enumerate(pairs):
                attribute = card.attributes.get(name)
                near_words = attribute.confusable.get(value, []) if attribute else []
                swaps = [word for word in near_words if word in words[name]] or words[name]
                near += [
                    (*pairs[:place], (name, swap), *pairs[place + 1 :]) for swap in swaps if swap != value
                ]
    elif len(by) == 1:
        # Nothing to swap from; a description by several attributes would be a soft negative.
        near = [((by[0], word),) for word in words[by[0]]]
    rng.shuffle(near)
    return next((pairs for pairs in near if count_of(view, pairs) == 0), None)


def _swaps(view: View, card: TeacherCard, question: Question, name: str) -> list[str]:
    words, among = vocabulary(view, card, name), question.among.get(name)
    if among is None:
        return words
    return [word for word in words if word in among] if words else among


def _count(view: View, card: TeacherCard, question: Question, rng: Random, want: bool) -> Draft | None:
    by = rng.choice(question.by)
    seen = _described(view, question, by)
    if by and rng.random() < question.zero:
        pairs = _absent(view, card, question, by, seen, rng)
    else:
        pairs = _evenly(view, seen, rng) if by else ()
    number = None if pairs is None else count_of(view, pairs)
    if pairs is None or number is None or number > question.most:
        return None
    fields = _subject(card, pairs) | _counts(card, pairs, number)
    return _number(fields, number, [_how_many(pairs)], [_how_many(pairs), frozenset(pairs)])


def _evenly(view: View, seen: list[Pairs], rng: Random) -> Pairs | None:
    """Chooses a count first and then a subject that has it: else nearly every answer would be 1."""
    by_count: dict[int, list[Pairs]] = {}
    for pairs in seen:
        number = count_of(view, pairs)
        if number is not None:
            by_count.setdefault(number, []).append(pairs)
    return rng.choice(by_count[rng.choice(sorted(by_count))]) if by_count else None


def _sum(view: View, card: TeacherCard, question: Question, rng: Random, want: bool) -> Draft | None:
    two = _two_counts(view, card, question, rng)
    if two is None or two[2] + two[3] > question.most:
        return None
    needs = [_how_many(two[0]), _how_many(two[1])]
    return _number(_two_fields(card, *two), two[2] + two[3], needs, [])


def _compare(view: View, card: TeacherCard, question: Question, rng: Random, want: bool) -> Draft | None:
    two = _two_counts(view, card, question, rng)
    if two is None or two[2] == two[3]:
        return None
    one, other, count, other_count = two
    if (count > other_count) != want:
        one, other, count, other_count = other, one, other_count, count
    fields = _two_fields(card, one, other, count, other_count)
    return _yes_no(fields, "yes" if want else "no", [_how_many(one), _how_many(other)], [])


def _two_counts(
    view: View, card: TeacherCard, question: Question, rng: Random
) -> tuple[Pairs, Pairs, int, int] | None:
    by = rng.choice(question.by)
    found = sorted(set(_described(view, question, by)))
    rng.shuffle(found)
    if question.zero and (len(found) < 2 or rng.random() < question.zero):
        absent = _absent(view, card, question, by, found, rng)
        found = [*found[:1], absent] if absent else found
    if len(found) < 2:
        return None
    counts = [count_of(view, pairs) for pairs in found[:2]]
    if counts[0] is None or counts[1] is None:
        return None
    return found[0], found[1], counts[0], counts[1]


def _value(view: View, card: TeacherCard, question: Question, rng: Random, want: bool) -> Draft | None:
    assert question.of is not None
    by = rng.choice(question.by)
    subjects = [
        (pairs, item[question.of])
        for pairs, item in _with_items(view, question, by)
        if question.of in item and count_of(view, pairs) == 1
    ]
    if not subjects:
        return None
    pairs, value = rng.choice(subjects)
    fields = _subject(card, pairs) | _said_value(card, value)
    choices = vocabulary(view, card, question.of)
    whole = frozenset((*pairs, (question.of, value)))
    return _choice(card, fields, value, choices, [whole], [whole, _how_many(pairs)])


def _relation(view: View, card: TeacherCard, question: Question, rng: Random, want: bool) -> Draft | None:
    subjects = _named(view, card, question)
    rng.shuffle(subjects)
    for (one, first), (other, second) in pairwise(subjects):
        gap = second - first
        if abs(gap) < question.margin:
            continue
        truth, opposite = question.words if gap > 0 else question.words[::-1]
        relation = truth if want else opposite
        fields = _subject(card, one) | {
            "other": say(card, other),
            "others": say(card, other, plural=True),
            "a_other": with_article(say(card, other)),
            "relation": relation,
            "opposite": opposite if want else truth,
            "truth": truth,
        }
        between: Fact = frozenset({(question.measure, frozenset((one, other)))})
        told = [between, frozenset(one), frozenset(other), _how_many(one), _how_many(other)]
        return _yes_no(fields, "yes" if want else "no", [between], told)
    return None


def _named(view: View, card: TeacherCard, question: Question) -> list[tuple[Pairs, float]]:
    """Gives each object that a description of the card singles out, with its measure."""
    named = []
    for item, measure in zip(view.objects, view.measures, strict=True):
        if question.measure not in measure or not _is_among(item, question):
            continue
        for by in question.by:
            pairs = _pairs(item, by)
            if pairs is not None and count_of(view, pairs) == 1:
                named.append((pairs, measure[question.measure]))
                break
    return named


def _extreme(view: View, card: TeacherCard, question: Question, rng: Random, want: bool) -> Draft | None:
    assert question.of is not None
    rows = [
        (measure.get(question.measure), item)
        for item, measure in zip(view.objects, view.measures, strict=True)
        if _is_among(item, question)
    ]
    if (
        not view.complete
        or len(rows) < 2
        or any(size is None or question.of not in item for size, item in rows)
    ):
        return None
    rows.sort(key=lambda row: row[0] or 0.0, reverse=question.direction == "most")
    (first, winner), (second, runner_up) = rows[:2]
    assert first is not None and second is not None
    sure = abs(first - second)
    if question.measure == "area":
        sure = max(first, second) / max(min(first, second), 1e-9) - 1
    if sure < question.margin or winner[question.of] == runner_up[question.of]:
        return None
    by = question.by[0]
    phrase, next_phrase = (say(card, _pairs(item, by) or ()) for item in (winner, runner_up))
    fields: dict[str, object] = _said_value(card, winner[question.of])
    fields |= {"subject": phrase, "a_subject": with_article(phrase)}
    fields |= {"runner_up": next_phrase, "a_runner_up": with_article(next_phrase)}
    choices = vocabulary(view, card, question.of)
    end: Fact = frozenset({(question.measure, question.direction)})
    told: list[Fact] = [end, frozenset({(question.of, winner[question.of])})]
    return _choice(card, fields, winner[question.of], choices, [end], told)


def _label(view: View, card: TeacherCard, question: Question, rng: Random, want: bool) -> Draft | None:
    assert question.of is not None
    value = view.labels.get(question.of)
    if value is None:
        return None
    label = card.labels[question.of]
    choices = label.values or sorted(set(label.table.values()))
    told = _labels_told(view, card, question.of)
    return _choice(card, _said_value(card, value), value, choices, told[:1], told)


def _label_is(view: View, card: TeacherCard, question: Question, rng: Random, want: bool) -> Draft | None:
    assert question.of is not None
    truth = view.labels.get(question.of)
    if truth is None:
        return None
    label = card.labels[question.of]
    value = truth
    if not want:
        others = label.confusable.get(truth) or label.values or sorted(set(label.table.values()))
        others = [other for other in others if other != truth]
        if not others:
            return None
        value = rng.choice(others)
    said = shown(card, truth)
    plural = card.nouns[value][1] if value in card.nouns else value
    fields = _said_value(card, value) | {"values": plural, "truth": said, "a_truth": with_article(said)}
    told = _labels_told(view, card, question.of)
    refused: Fact = frozenset({(question.of, f"not {value}")})
    return _yes_no(fields, "yes" if want else "no", told[:1], told if want else [refused])


def _labels_told(view: View, card: TeacherCard, name: str) -> list[Fact]:
    """Gives the label's value as a fact, then what follows from it by the card's tables, either way."""
    follow = [other for other, label in card.labels.items() if label.source == name and other in view.labels]
    label = card.labels[name]
    if label.source and list(label.table.values()).count(view.labels[name]) == 1:
        follow.append(label.source)
    return [frozenset({(one, view.labels[one])}) for one in (name, *follow)]


_ASKS: dict[str, Callable[[View, TeacherCard, Question, Random, bool], Draft | None]] = {
    "present": _present,
    "count": _count,
    "sum": _sum,
    "compare": _compare,
    "value": _value,
    "relation": _relation,
    "extreme": _extreme,
    "label": _label,
    "label_is": _label_is,
}


def _pairs(item: dict[str, str], by: list[str]) -> Pairs | None:
    if any(name not in item for name in by):
        return None
    return tuple((name, item[name]) for name in by)


def _is_among(item: dict[str, str], question: Question) -> bool:
    return all(item.get(name) in values for name, values in question.among.items())


def _with_items(view: View, question: Question, by: list[str]) -> list[tuple[Pairs, dict[str, str]]]:
    found = []
    for item in view.objects:
        pairs = _pairs(item, by)
        if pairs is not None and _is_among(item, question):
            found.append((pairs, item))
    return found


def _described(view: View, question: Question, by: list[str]) -> list[Pairs]:
    # Each description once: three circles must not make "circle" three times as likely a subject.
    return list(dict.fromkeys(pairs for pairs, _ in _with_items(view, question, by)))


def _subject(card: TeacherCard, pairs: Pairs) -> dict[str, object]:
    phrase = say(card, pairs)
    return {
        "subject": phrase,
        "subjects": say(card, pairs, plural=True),
        "a_subject": with_article(phrase),
    }


def _counts(card: TeacherCard, pairs: Pairs, number: int) -> dict[str, object]:
    word = NUMBERS[number] if 0 < number < len(NUMBERS) else str(number)
    is_or_are = "is" if number == 1 else "are"
    return {"count": number, "number": word, "is": is_or_are, "count_subjects": counted(card, pairs, number)}


def _two_fields(
    card: TeacherCard, one: Pairs, other: Pairs, count: int, other_count: int
) -> dict[str, object]:
    fields = _subject(card, one) | _counts(card, one, count)
    fields |= {"other": say(card, other), "others": say(card, other, plural=True)}
    fields |= {"a_other": with_article(say(card, other)), "other_count": other_count}
    return fields | {
        "count_others": counted(card, other, other_count),
        "difference": abs(count - other_count),
    }


def _said_value(card: TeacherCard, value: str) -> dict[str, object]:
    said = shown(card, value)
    return {"value": said, "a_value": with_article(said)}


def _how_many(pairs: Pairs) -> Fact:
    return frozenset({("count", frozenset(pairs))})


def _yes_no(fields: dict[str, object], answer: str, needs: list[Fact], told: list[Fact]) -> Draft:
    return Draft(fields | {"answer": answer}, answer, "yes_no", needs, told, ["yes", "no"], [answer])


def _number(fields: dict[str, object], number: int, needs: list[Fact], told: list[Fact]) -> Draft:
    answer = str(number)
    word = "zero" if number == 0 else NUMBERS[number] if number < len(NUMBERS) else answer
    references = [answer, *([word] if word != answer else []), *(["none"] if number == 0 else [])]
    return Draft(fields | {"answer": answer}, answer, "number", needs, told, [], references)


def _choice(
    card: TeacherCard,
    fields: dict[str, object],
    value: str,
    choices: list[str],
    needs: list[Fact],
    told: list[Fact],
) -> Draft:
    answer = shown(card, value)
    said = [shown(card, choice) for choice in choices]
    kind = "yes_no" if set(said) == {"yes", "no"} else "choice" if answer in said else "open"
    fields = fields | {"answer": answer}
    return Draft(fields, answer, kind, needs, told, said if kind != "open" else [], [answer])
