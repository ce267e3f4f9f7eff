"""The offline rule teacher: turns a record's facts into captions, conversations and questions.

The words come from the domain's teacher card; nothing here knows a domain. Everything is a pure function of
(record id, card, seed), and every made text says in its source that it is derived from annotations.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Any

from medkit.sample import Sample, assistant_turn, user_turn
from medkit.teacher.asks import Draft, Fact, draft
from medkit.teacher.card import Question, TeacherCard, template_fields
from medkit.teacher.view import View, counted, listed, say, shown, view_of, with_article


@dataclass(frozen=True)
class Asked:
    """A question in words with its short answer and, where the card has one, a reasoned answer."""

    kind: str
    text: str
    reason: str
    draft: Draft


def conversations(
    record: Sample, card: TeacherCard, seed: int, *, conversations_per_image: int = 1, apart: bool = False
) -> list[Sample]:
    """Makes the training samples of a record.

    Args:
        record: A sample with facts and one image; its messages are not read.
        card: The domain's words.
        seed: Together with the record's id it decides every choice.
        conversations_per_image: How many of each kind; each has other questions and wordings.
        apart: Turns will be learnt one by one, so a turn may ask what an earlier one tells.

    Returns:
        Samples of kind caption, description, conversation and reasoning, as far as the facts allow.
        ``facts["turns"]`` of a conversation names each turn's question kind and answer type.
    """
    view = view_of(record.facts, card)
    made: list[Sample] = []
    for number in range(conversations_per_image):
        rng = _rng(record, seed, f"teach-{number}")
        caption = _sentence(card.captions, _scene_fields(view, card), rng)
        if caption:
            turn = (rng.choice(card.caption_prompts), caption)
            # The caption carries the record's facts on, for objectives that learn from them directly.
            made.append(_made(record, card, "caption", number, [turn], dict(record.facts)))
        description = _description(view, card, rng)
        if description:
            turn = (rng.choice(card.description.prompts), description)
            made.append(_made(record, card, "description", number, [turn]))
        talks = {
            number: _ask_many(view, card, rng, rng.randint(*card.turns), leak=apart),
            conversations_per_image + number: _checklist(view, card, rng),
        }
        for place, asked in talks.items():
            if asked:
                turns = [(one.text, one.draft.answer) for one in asked]
                facts = {"turns": [{"kind": one.kind, "answer_type": one.draft.answer_type} for one in asked]}
                made.append(_made(record, card, "conversation", place, turns, facts))
        reasoned = _reasoned(view, card, rng)
        if reasoned:
            text = rng.choice(card.reasoning_prompts).format(question=reasoned.text)
            facts = {"turns": [{"kind": reasoned.kind, "answer_type": "open"}]}
            made.append(_made(record, card, "reasoning", number, [(text, reasoned.reason)], facts))
    return made


def questions(record: Sample, card: TeacherCard, seed: int, *, count: int = 4) -> list[Sample]:
    """Makes evaluation samples: one question and one short answer each, of as many kinds as possible.

    Returns:
        At most ``count`` samples of kind question with ``facts["question"]``.
    """
    rng = _rng(record, seed, "question")
    made = []
    for number, one in enumerate(_ask_many(view_of(record.facts, card), card, rng, count, leak=True)):
        facts = {
            "question": {
                "kind": one.kind,
                "answer_type": one.draft.answer_type,
                "choices": one.draft.choices,
                "references": one.draft.references,
            }
        }
        made.append(_made(record, card, "question", number, [(one.text, one.draft.answer)], facts))
    return made


def _rng(record: Sample, seed: int, purpose: str) -> Random:
    return Random(f"{seed}/{record.id}/{purpose}")


def _made(
    record: Sample,
    card: TeacherCard,
    kind: str,
    number: int,
    turns: list[tuple[str, str]],
    facts: dict[str, Any] | None = None,
) -> Sample:
    messages = []
    for place, (asked, answered) in enumerate(turns):
        messages += [
            user_turn(asked, len(record.images) if place == 0 else 0, str(record.facts.get("shows", ""))),
            assistant_turn(answered),
        ]
    source = record.source | {
        "record": record.source.get("record", record.id),
        "kind": kind,
        "split": record.split,
        "group": record.group,
        "teacher": card.teacher,
        "prompt_version": card.version,
        "derived_from": card.derived_from,
    }
    return Sample(f"{record.id}-{kind}-{number}", messages, list(record.images), facts or {}, source)


def _ask_many(view: View, card: TeacherCard, rng: Random, most: int, *, leak: bool = False) -> list[Asked]:
    """Asks up to ``most`` questions, every kind once before any a second time.

    Unless ``leak``, a question is left out when the turns before it, read without the image, tell its
    answer: otherwise the model learns to read its own context instead of looking.
    """
    asked: list[Asked] = []
    told: list[Fact] = []
    texts: set[str] = set()
    for _ in range(3):
        order = _shuffled(card, rng)
        if not leak:
            order.sort(key=card.tells_other_labels)  # last, or nothing could be asked after them
        for question in order:
            one = _ask(view, card, question, rng)
            if one is None or one.text in texts:
                continue
            if not leak and all(any(need <= fact for fact in told) for need in one.draft.needs):
                continue
            asked.append(one)
            if len(asked) == most:
                return asked
            told += one.draft.told
            texts.add(one.text)
    return asked


def _shuffled(card: TeacherCard, rng: Random) -> list[Question]:
    # Exponential keys: a weighted order without replacement (Efraimidis and Spirakis, 2006).
    return sorted(card.questions, key=lambda one: rng.expovariate(one.weight))


def _checklist(view: View, card: TeacherCard, rng: Random) -> list[Asked]:
    """Asks the card's checklist question once for every thing that it can be asked for, in any order."""
    asked = []
    for question in card.questions if card.checklist else ():
        if question.kind != card.checklist:
            continue
        for value in rng.sample(question.among["label"], len(question.among["label"])):
            only = question.model_copy(update={"by": [["label"]], "among": {"label": [value]}})
            present = any(item.get("label") == value for item in view.objects)
            if (one := _ask(view, card, only, rng, present)) is not None:
                asked.append(one)
    return asked


def _ask(
    view: View, card: TeacherCard, question: Question, rng: Random, want: bool | None = None
) -> Asked | None:
    found = draft(view, card, question, rng, want=rng.random() < 0.5 if want is None else want)
    if found is None:
        return None
    text = rng.choice(question.templates).format(**found.fields)
    reasons = question.reasons(found.answer)
    reason = rng.choice(reasons).format(**found.fields) if reasons else ""
    return Asked(question.kind, _capital(text), _capital(reason), found)


def _reasoned(view: View, card: TeacherCard, rng: Random) -> Asked | None:
    for question in _shuffled(card, rng):
        one = _ask(view, card, question, rng) if question.because else None
        if one is not None and one.reason:
            return one
    return None


def _scene_fields(view: View, card: TeacherCard) -> dict[str, str]:
    fields = {name: shown(card, value) for name, value in view.labels.items()}
    fields |= {f"a_{name}": with_article(value) for name, value in fields.items()}
    fields["things"] = _things(view, card)
    if view.complete and not view.uncounted:
        fields["total"] = counted(card, (), len(view.objects))
    if not view.complete and not view.objects:
        # "Nothing" would claim an absence that the annotations don't hold.
        del fields["things"]
    return fields


def _things(view: View, card: TeacherCard) -> str:
    groups: dict[tuple[tuple[str, str], ...], int] = {}
    for item in view.objects:
        pairs = tuple((name, item[name]) for name in card.things_by if name in item)
        groups[pairs] = groups.get(pairs, 0) + 1
    phrases = []
    for pairs, number in groups.items():
        if dict(pairs).get("label") in view.uncounted or (not view.complete and number > 1):
            phrases.append(say(card, pairs, plural=True))
        elif number == 1:
            phrases.append(with_article(say(card, pairs)))
        else:
            phrases.append(counted(card, pairs, number))
    return listed(phrases) if phrases else card.nothing


def _description(view: View, card: TeacherCard, rng: Random) -> str:
    plan = card.description
    fields = _scene_fields(view, card)
    sentences = [_sentence(plan.opening, fields, rng)]
    places = [place for place, item in enumerate(view.objects) if item["label"] not in view.uncounted]
    if len(places) <= plan.most_objects:
        for place in sorted(places, key=lambda place: view.measures[place].get("x", 0.0)):
            item = view.objects[place]
            sentences.append(_sentence(plan.objects, _object_fields(item, card) | fields, rng))
    sentences += [_sentence([template], fields, rng) for template in plan.labels]
    return " ".join(sentence for sentence in sentences if sentence)


def _object_fields(item: dict[str, str], card: TeacherCard) -> dict[str, str]:
    named = [name for name in card.attributes if name in item and name not in card.places]
    phrase = say(card, tuple((name, item[name]) for name in named))
    thing = {"thing": phrase, "a_thing": with_article(phrase), "A_thing": _capital(with_article(phrase))}
    return {name: shown(card, value) for name, value in item.items()} | thing


def _sentence(templates: list[str], fields: dict[str, str], rng: Random) -> str:
    """Fills one of the templates whose fields are all known; "" when there is none."""
    usable = [template for template in templates if template_fields(template) <= fields.keys()]
    return _capital(rng.choice(usable).format(**fields)) if usable else ""


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
