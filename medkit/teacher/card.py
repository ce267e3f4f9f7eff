"""The teacher card: a domain's words and question templates. The engine in ``asks.py`` knows no domain."""

from __future__ import annotations

from pathlib import Path
from string import Formatter
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from medkit.cards.faults import validate
from medkit.cards.strict_yaml import read_card
from medkit.errors import CardError

Ask = Literal["present", "count", "sum", "compare", "value", "relation", "extreme", "label", "label_is"]

_SUBJECT = {"subject", "subjects", "a_subject", "answer"}
_OTHER = {"other", "others", "a_other"}
_COUNT = {"count", "number", "is", "count_subjects"}
_COUNTS = _COUNT | {"other_count", "count_others", "difference"}
# What a template of each operation may name; checked when the card is read, so rendering can't fail later.
FIELDS: dict[str, set[str]] = {
    "present": _SUBJECT | {"count_subjects"},
    "count": _SUBJECT | _COUNT,
    "sum": _SUBJECT | _OTHER | _COUNTS,
    "compare": _SUBJECT | _OTHER | _COUNTS,
    "value": _SUBJECT | {"value", "a_value"},
    "relation": _SUBJECT | _OTHER | {"relation", "opposite", "truth"},
    "extreme": {"answer", "value", "a_value", "subject", "a_subject", "runner_up", "a_runner_up"},
    "label": {"answer", "value", "a_value"},
    "label_is": {"answer", "value", "a_value", "values", "truth", "a_truth"},
}
YES_NO = {"present", "compare", "relation", "label_is"}
PLACES = ("position", "side", "half")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Scope(_Strict):
    """Values that only exist for some images: ``by`` names an image label, ``values`` its vocabulary each."""

    by: str
    values: dict[str, list[str]]


class Attribute(_Strict):
    """What an object may be: its vocabulary, and how the value joins the noun.

    Attributes:
        values: Vocabulary; negatives and choices come from it.
        scope: Vocabulary that depends on an image label (findings of a modality); wins over ``values``.
        before: True puts the phrase before the noun ("red circle"), False after ("nodule on the left").
        phrase: How the value is said, with ``{value}``.
        confusable: Values that are easily mistaken for one another; negatives prefer them.
    """

    values: list[str] = []
    scope: Scope | None = None
    before: bool = True
    phrase: str = "{value}"
    confusable: dict[str, list[str]] = {}


class Label(_Strict):
    """A single-valued image label, read from the facts or derived from another label by a table."""

    values: list[str] = []
    source: str | None = None
    table: dict[str, str] = {}
    confusable: dict[str, list[str]] = {}


class Question(_Strict):
    """One kind of question.

    Attributes:
        kind: Name in scores ("count").
        ask: The engine's operation.
        of: The attribute or image label that is asked for.
        by: Attribute sets that a subject is described with; ``[[]]`` means all objects.
        among: Only objects with these attribute values serve as subjects (and as swapped values).
        when: Asked only where an image label has one of these values.
        templates: Wordings of the question.
        because: Wordings of the reasoned answer, one list or a list for "yes" and one for "no".
        most: Largest count that is asked for.
        zero: Share of count questions about something absent.
        measure: What ``relation`` and ``extreme`` compare.
        direction: Which end ``extreme`` asks for.
        words: For ``relation``: how "smaller" and "larger" on the measure are said.
        margin: Least difference (share of the image's side; ratio of areas less one) that is certain.
        weight: How often the kind is drawn next to the others.
    """

    kind: str
    ask: Ask
    of: str | None = None
    by: list[list[str]] = [[]]
    among: dict[str, list[str]] = {}
    when: dict[str, list[str]] = {}
    templates: list[str] = Field(min_length=4)
    because: dict[Literal["yes", "no"], list[str]] | list[str] = []
    most: int = 9
    zero: float = 0.15
    measure: Literal["x", "y", "area"] = "x"
    direction: Literal["least", "most"] = "least"
    words: tuple[str, str] = ("to the left of", "to the right of")
    margin: float = 0.12
    weight: float = Field(1.0, gt=0)

    @property
    def yes_no(self) -> bool:
        """True where the answer is yes or no, whose two directions must balance."""
        return self.ask in YES_NO

    def reasons(self, answer: str) -> list[str]:
        """Gives the wordings of the reasoned answer that fit the short answer."""
        return self.because.get(answer, []) if isinstance(self.because, dict) else self.because  # type: ignore[call-overload]

    @model_validator(mode="after")
    def _fields_exist(self) -> Question:
        because = [self.because] if isinstance(self.because, list) else self.because.values()
        for template in [*self.templates, *(one for reasons in because for one in reasons)]:
            unknown = template_fields(template) - FIELDS[self.ask]
            if unknown:
                known = ", ".join(sorted(FIELDS[self.ask]))
                raise ValueError(f"{template!r} names {sorted(unknown)}; ask: {self.ask} gives {known}")
        if self.ask in ("value", "extreme", "label", "label_is") and not self.of:
            raise ValueError(f"ask: {self.ask} needs of: (what is asked for)")
        return self


class Description(_Strict):
    """A detailed description: an opening, a sentence an object (left to right), sentences on labels."""

    prompts: list[str] = Field(min_length=2)
    opening: list[str] = Field(min_length=1)
    objects: list[str] = []
    labels: list[str] = []
    most_objects: int = 6


class TeacherCard(_Strict):
    """What a domain tells the rule teacher.

    Attributes:
        version: Goes into ``source.prompt_version`` of every made sample.
        thing: Noun (singular, plural) for an object of any label.
        nothing: What is said for "no objects" in captions.
        nouns: Value -> (singular, plural), for labels and any value that is said otherwise than stored.
        attributes: Attributes of objects; "label" is the object's label. Their order is the order of words.
        labels: Image labels ("modality" is read from ``facts.modality``).
        wordings: Named lists of templates; a question may give such a name in place of its own list.
        uncounted: Labels whose boxes are known not to be exhaustive: never counted, never said absent.
        things_by: Attributes that captions group and name objects by.
        places: Attributes read off an object's box; the facts' own attributes of that name win.
        edge: Half-width of the band between image cells in which a position is not certain.
        turns: Least and most question turns in a conversation.
        checklist: Kind of a question with ``ask: present`` and ``among: {label: [...]}``; a conversation of its own
            then goes through all of those labels, as a reader goes through a checklist.
    """

    version: str
    teacher: Literal["rules"] = "rules"
    derived_from: Literal["annotations"] = "annotations"
    thing: tuple[str, str] = ("object", "objects")
    nothing: str = "nothing"
    nouns: dict[str, tuple[str, str]] = {}
    attributes: dict[str, Attribute] = {}
    labels: dict[str, Label] = {}
    wordings: dict[str, list[str]] = {}
    uncounted: list[str] = []
    things_by: list[str] = ["label"]
    places: list[Literal["position", "side", "half"]] = ["position"]
    edge: float = Field(0.03, ge=0, lt=0.16)
    turns: tuple[int, int] = (3, 8)
    checklist: str = ""
    caption_prompts: list[str] = Field(min_length=2)
    captions: list[str] = Field(min_length=1)
    description: Description
    reasoning_prompts: list[str] = Field(["{question} Explain your answer."], min_length=1)
    questions: list[Question] = Field(min_length=1)

    def tells_other_labels(self, question: Question) -> bool:
        """Says whether the question is for a label that the card derives others from."""
        by_label = question.ask in ("label", "label_is")
        return by_label and any(label.source == question.of for label in self.labels.values())

    @model_validator(mode="before")
    @classmethod
    def _wordings_put_in(cls, data: Any) -> Any:
        wordings = data.get("wordings") if isinstance(data, dict) else None
        if not isinstance(wordings, dict) or not isinstance(data.get("questions"), list):
            return data
        named = [
            {**one, "templates": wordings.get(one["templates"], one["templates"])}
            if isinstance(one, dict) and isinstance(one.get("templates"), str)
            else one
            for one in data["questions"]
        ]
        return {**data, "questions": named}

    @field_validator("version")
    @classmethod
    def _version_said(cls, value: str) -> str:
        if not value.strip():
            raise ValueError("is empty; name a version such as scenes-1")
        return value

    @model_validator(mode="after")
    def _names_exist(self) -> TeacherCard:
        attributes, labels = set(self.attributes) | set(self.places), set(self.labels)
        for question in self.questions:
            where = f"question kind {question.kind!r}"
            names = {name for by in question.by for name in by} | set(question.among)
            _refuse(names - set(self.attributes), f"{where}: by/among", set(self.attributes))
            _refuse(set(question.when) - labels, f"{where}: when", labels)
            if question.of:
                known = labels if question.ask in ("label", "label_is") else attributes
                _refuse({question.of} - known, f"{where}: of", known)
        kinds = {one.kind for one in self.questions if one.ask == "present" and "label" in one.among}
        _refuse({self.checklist} - {""} - kinds, "checklist", kinds)
        sentences = [*self.captions, *self.description.opening, *self.description.labels]
        for template in sentences:
            known = labels | {"things", "total"} | {f"a_{name}" for name in labels}
            _refuse(template_fields(template) - known, repr(template), known)
        for template in self.description.objects:
            known = attributes | labels | {"thing", "a_thing", "A_thing"}
            _refuse(template_fields(template) - known, repr(template), known)
        return self


def template_fields(template: str) -> set[str]:
    """Gives the names in braces of a template."""
    return {name for _, name, _, _ in Formatter().parse(template) if name is not None}


def load_teacher(path: Path) -> TeacherCard:
    """Reads a teacher card.

    Raises:
        CardError: The file is no strict YAML mapping or breaks the schema; all problems at once.
    """
    card, problems = validate(TeacherCard, read_card(path))
    if card is None:
        raise CardError(problems)
    return card


def _refuse(unknown: set[str], where: str, known: set[str]) -> None:
    if unknown:
        raise ValueError(f"{where} names {sorted(unknown)}; known are {', '.join(sorted(known))}")
