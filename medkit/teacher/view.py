"""A record's facts as the rule teacher sees them, and how it says things."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from medkit.teacher.card import Attribute, TeacherCard

Pairs = tuple[tuple[str, str], ...]

NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
CELLS = (
    ("top left", "top", "top right"),
    ("left", "center", "right"),
    ("bottom left", "bottom", "bottom right"),
)
_PLACE_VALUES = {
    "position": [cell for row in CELLS for cell in row],
    "side": ["left", "right"],
    "half": ["top", "bottom"],
}
_UNNAMED = Attribute()


@dataclass(frozen=True)
class View:
    """Facts flattened: each object is one mapping of attributes (strings) and measures (``x y area``).

    Attributes:
        labels: Image labels with the modality and the card's derived labels.
        objects: Attributes of each object, with the card's ``places`` where they are certain.
        measures: Centre ``x`` and ``y`` and ``area`` of each object's box, shares of the image in 0..1.
        complete: True when an object that isn't listed isn't there.
        uncounted: Labels to which that doesn't apply, from the card and ``facts["incomplete"]``.
    """

    labels: dict[str, str]
    objects: list[dict[str, str]]
    measures: list[dict[str, float]]
    complete: bool
    uncounted: frozenset[str]


def view_of(facts: Mapping[str, Any], card: TeacherCard) -> View:
    """Gives the facts as a View; objects with a broken box keep their attributes and lose their place."""
    labels = {name: str(value) for name, value in facts.get("labels", {}).items() if value not in (None, "")}
    if facts.get("modality"):
        labels.setdefault("modality", facts["modality"])
    for name, label in card.labels.items():
        derived = label.table.get(labels.get(label.source, "")) if label.source else None
        if derived is not None:
            labels[name] = derived
    objects, measures = [], []
    for item in facts.get("objects", []):
        place, measure = _place(item.get("box"), card)
        own = {name: str(value) for name, value in item.get("attributes", {}).items() if value is not None}
        objects.append({**place, "label": str(item["label"]), **own})
        measures.append(measure)
    uncounted = frozenset([*card.uncounted, *facts.get("incomplete", [])])
    return View(labels, objects, measures, facts.get("complete") is True, uncounted)


def _place(box: Any, card: TeacherCard) -> tuple[dict[str, str], dict[str, float]]:
    if not box or len(box) != 4 or not (box[2] > box[0] and box[3] > box[1]):
        return {}, {}
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    place: dict[str, str] = {}
    edge = card.edge
    if min(abs(v - border) for v in (x, y) for border in (1 / 3, 2 / 3)) >= edge:
        place["position"] = CELLS[min(int(y * 3), 2)][min(int(x * 3), 2)]
    if abs(x - 0.5) >= edge:
        place["side"] = "left" if x < 0.5 else "right"
    if abs(y - 0.5) >= edge:
        place["half"] = "top" if y < 0.5 else "bottom"
    place = {name: value for name, value in place.items() if name in card.places}
    return place, {"x": x, "y": y, "area": (box[2] - box[0]) * (box[3] - box[1])}


def vocabulary(view: View, card: TeacherCard, name: str) -> list[str]:
    """Gives the values that an attribute can have in this image."""
    attribute = card.attributes.get(name, _UNNAMED)
    if attribute.scope:
        return attribute.scope.values.get(view.labels.get(attribute.scope.by, ""), [])
    return attribute.values or _PLACE_VALUES.get(name, [])


def fits(item: dict[str, str], pairs: Pairs) -> bool | None:
    """Tells whether an object has all the attribute values; None when one that decides is not known."""
    unknown = False
    for name, value in pairs:
        own = item.get(name)
        if own is None:
            unknown = True
        elif own != value:
            return False
    return None if unknown else True


def count_of(view: View, pairs: Pairs) -> int | None:
    """Gives how many objects fit, or None where the facts can't tell."""
    if not view.complete or not _countable(view, pairs):
        return None
    total = 0
    for item in view.objects:
        fit = fits(item, pairs)
        if fit is None:
            return None
        total += fit
    return total


def _countable(view: View, pairs: Pairs) -> bool:
    """Tells whether no object outside the annotations could fit."""
    if not view.uncounted:
        return True
    label = next((value for name, value in pairs if name == "label"), None)
    return label is not None and label not in view.uncounted


def say(card: TeacherCard, pairs: Pairs, plural: bool = False) -> str:
    """Gives the phrase of a subject: adjectives in the card's order, noun, what comes after."""
    values = dict(pairs)
    noun = card.nouns.get(values["label"], (values["label"],) * 2) if "label" in values else card.thing
    before, after = [], []
    for name, attribute in card.attributes.items():
        if name != "label" and name in values:
            word = attribute.phrase.format(value=shown(card, values[name]))
            (before if attribute.before else after).append(word)
    return " ".join([*before, noun[1] if plural else noun[0], *after])


def shown(card: TeacherCard, value: str) -> str:
    """Gives how a stored value is said."""
    noun = card.nouns.get(value)
    return noun[0] if noun else value


def with_article(phrase: str) -> str:
    """Gives the phrase with "a" or "an"."""
    # A plural or pair noun ("trousers") would read badly with an article; cards write it as "pair of trousers".
    return f"{'an' if phrase[:1].lower() in 'aeiou' else 'a'} {phrase}"


def counted(card: TeacherCard, pairs: Pairs, number: int) -> str:
    """Gives "no circles", "one circle", "two circles"."""
    word = NUMBERS[number] if number < len(NUMBERS) else str(number)
    return f"{word} {say(card, pairs, plural=number != 1)}"


def listed(phrases: list[str]) -> str:
    """Gives "a, b and c"."""
    return phrases[0] if len(phrases) == 1 else f"{', '.join(phrases[:-1])} and {phrases[-1]}"
