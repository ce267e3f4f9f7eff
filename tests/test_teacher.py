"""The rule teacher: what it asks is unique and certain, balanced, and says where it comes from."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from random import Random

import numpy as np
import pytest

from medkit.errors import CardError, DataError
from medkit.sample import Sample, assistant_turn, text_of, user_turn
from medkit.store import DatasetWriter, open_dataset
from medkit.teacher.asks import draft
from medkit.teacher.card import FIELDS, TeacherCard, load_teacher, template_fields
from medkit.teacher.rules import conversations, questions
from medkit.teacher.teach import teach
from medkit.teacher.view import View, listed, say, view_of

DOMAINS = Path(__file__).resolve().parents[1] / "domains"
CARDS = sorted(path.parent.name for path in DOMAINS.glob("*/teacher.yaml"))


def _question(kind: str, **settings) -> dict:
    return {"kind": kind, "templates": [settings.pop("template")] * 4, **settings}


def _card(*asked: dict, **settings) -> dict:
    base = {
        "version": "toy-1",
        "nouns": {
            "circle": ["circle", "circles"],
            "square": ["square", "squares"],
            "star": ["star", "stars"],
        },
        "attributes": {
            "colour": {"values": ["red", "green", "blue"]},
            "label": {"values": ["circle", "square", "star"]},
        },
        "labels": {"background": {"values": ["white", "black"]}},
        "things_by": ["colour", "label"],
        "caption_prompts": ["Caption?", "Caption?"],
        "captions": ["{things} on a {background} background."],
        "description": {
            "prompts": ["Describe.", "Describe."],
            "opening": ["It shows {things}."],
            "objects": ["{A_thing} is at the {position}."],
            "labels": ["The background is {background}."],
        },
        "reasoning_prompts": ["{question} Why?"],
        "questions": list(asked) or [PRESENCE],
    }
    return base | settings


PRESENCE = _question("presence", ask="present", by=[["colour", "label"]], template="Is there {a_subject}?")
COUNT = _question("count", ask="count", by=[["label"]], zero=0, template="How many {subjects} are there?")
COLOUR = _question(
    "colour", ask="value", of="colour", by=[["label"]], template="What colour is the {subject}?"
)
WHERE = _question("position", ask="value", of="position", by=[["label"]], template="Where is the {subject}?")
SUM = _question(
    "sum", ask="sum", by=[["label"]], zero=0, template="How many {subjects} and {others} together?",
    because=["{count} and {other_count} make {answer}."],
)  # fmt: skip
MORE = _question(
    "compare", ask="compare", by=[["label"]], zero=0, template="Are there more {subjects} than {others}?",
    because={"yes": ["{count} is more than {other_count}, so yes."],
             "no": ["{count} is less than {other_count}, so no."]},
)  # fmt: skip
LEFT = _question(
    "relation", ask="relation", by=[["label"]], template="Is the {subject} {relation} the {other}?"
)
LARGEST = _question(
    "extreme", ask="extreme", of="label", measure="area", direction="most", margin=0.5, template="What is the largest?"
)  # fmt: skip
GROUND = _question("background", ask="label", of="background", template="What colour is the background?")
IS_GROUND = _question("check", ask="label_is", of="background", template="Is the background {value}?")


def _thing(label: str, x: float, y: float, side: float = 0.2, **attributes: str) -> dict:
    box = [x - side / 2, y - side / 2, x + side / 2, y + side / 2]
    return {"label": label, "box": box, "attributes": attributes}


def _facts(**changes) -> dict:
    objects = [
        _thing("circle", 0.2, 0.2, colour="red"),
        _thing("circle", 0.8, 0.2, colour="green"),
        _thing("square", 0.8, 0.8, 0.4, colour="blue"),
    ]
    return {"labels": {"background": "white"}, "objects": objects, "complete": True, **changes}


def _record(name: str = "r1", split: str = "train", **changes) -> Sample:
    source = {
        "dataset": "toy",
        "record": name,
        "licence": "MIT",
        "group": name,
        "split": split,
        "kind": "record",
    }
    return Sample(name, [], ["0" * 64], _facts(**changes), source)


def _ask(question: dict, want: bool, facts: dict | None = None, tries: int = 40) -> set[tuple[str, str]]:
    card = TeacherCard.model_validate(_card(question))
    view, asked = view_of(facts or _facts(), card), set()
    for seed in range(tries):
        found = draft(view, card, card.questions[0], Random(seed), want)
        if found:
            asked.add((card.questions[0].templates[0].format(**found.fields), found.answer))
    return asked


def _texts(sample: Sample) -> list[str]:
    return [text_of(message) for message in sample.messages]


@pytest.mark.parametrize(
    ("question", "want", "expected"),
    [
        (COUNT, True, {("How many circles are there?", "2"), ("How many squares are there?", "1")}),
        (COLOUR, True, {("What colour is the square?", "blue")}),  # there are two circles
        (WHERE, True, {("Where is the square?", "bottom right")}),
        (SUM, True, {("How many circles and squares together?", "3"), ("How many squares and circles together?", "3")}),
        (MORE, True, {("Are there more circles than squares?", "yes")}),
        (MORE, False, {("Are there more squares than circles?", "no")}),
        (LARGEST, True, {("What is the largest?", "square")}),
        (GROUND, True, {("What colour is the background?", "white")}),
        (IS_GROUND, True, {("Is the background white?", "yes")}),
        (IS_GROUND, False, {("Is the background black?", "no")}),
    ],
)  # fmt: skip
def test_small_facts_give_exactly_these_questions(question: dict, want: bool, expected: set) -> None:
    assert _ask(question, want) == expected


def test_relation_is_asked_in_both_directions_only_between_things_that_a_description_singles_out() -> None:
    facts = _facts(
        objects=[_thing("circle", 0.2, 0.5), _thing("star", 0.7, 0.5), _thing("square", 0.75, 0.1)]
    )
    asked = _ask(LEFT, True, facts) | _ask(LEFT, False, facts)
    assert ("Is the circle to the left of the star?", "yes") in asked
    assert ("Is the star to the left of the circle?", "no") in asked
    assert ("Is the star to the right of the circle?", "yes") in asked
    assert not any("star" in text and "square" in text for text, _ in asked), "0.05 apart is not certain"


def test_presence_is_asked_of_what_is_there() -> None:
    assert _ask(PRESENCE, True) == {
        ("Is there a red circle?", "yes"),
        ("Is there a green circle?", "yes"),
        ("Is there a blue square?", "yes"),
    }


def test_hard_negatives_share_all_but_one_attribute_with_an_object() -> None:
    seen = {("red", "circle"), ("green", "circle"), ("blue", "square")}
    asked = _ask(PRESENCE, False, tries=300)
    assert len(asked) == 6  # every combination that isn't there but for those two swaps away
    for text, answer in asked:
        colour, label = text.removeprefix("Is there a ").removesuffix("?").split()
        assert answer == "no"
        assert (colour, label) not in seen
        assert any((colour == c) + (label == s) == 1 for c, s in seen)


def test_negatives_prefer_confusable_values() -> None:
    card = _card(PRESENCE)
    card["attributes"]["label"]["confusable"] = {"circle": ["star"], "square": ["star"]}
    card["attributes"]["colour"]["confusable"] = {"red": ["green"], "green": ["red"], "blue": ["green"]}
    model = TeacherCard.model_validate(card)
    view = view_of(_facts(), model)
    found = {str(one.fields["subject"]) for seed in range(200)
             if (one := draft(view, model, model.questions[0], Random(seed), False))}  # fmt: skip
    assert found == {"red star", "green star", "blue star", "green square"}


@pytest.mark.parametrize("question", [PRESENCE, COUNT, COLOUR, SUM, MORE, LEFT, LARGEST])
def test_incomplete_facts_allow_no_absence_no_count_and_no_definite_article(question: dict) -> None:
    assert _ask(question, False, _facts(complete=False)) == set()


def test_incomplete_facts_still_allow_presence() -> None:
    assert len(_ask(PRESENCE, True, _facts(complete=False))) == 3


def test_labels_that_were_not_boxed_throughout_are_neither_counted_nor_denied() -> None:
    facts = _facts(incomplete=["circle"])
    assert _ask(COUNT, True, facts) == {("How many squares are there?", "1")}
    assert all("circle" not in text for text, _ in _ask(PRESENCE, False, facts, tries=200))


def test_an_unknown_attribute_is_no_evidence() -> None:
    facts = _facts(objects=[_thing("circle", 0.2, 0.2, colour="red"), _thing("square", 0.8, 0.8)])
    assert ("Is there a red square?", "no") not in _ask(PRESENCE, False, facts, tries=200)


def test_a_place_near_a_border_of_cells_is_not_said() -> None:
    card = TeacherCard.model_validate(_card())
    view = view_of(_facts(objects=[_thing("star", 0.34, 0.5), _thing("star", 0.5, 0.5)]), card)
    assert [item.get("position") for item in view.objects] == [None, "center"]


def test_a_broken_box_costs_the_place_and_nothing_else() -> None:
    broken = {"label": "star", "box": [0.5, 0.5, 0.5, 0.6], "attributes": {"colour": "red"}}
    assert _ask(COLOUR, True, _facts(objects=[broken])) == {("What colour is the star?", "red")}
    assert _ask(WHERE, True, _facts(objects=[broken])) == set()


def test_captions_and_descriptions_read_literally() -> None:
    made = {one.kind: one for one in conversations(_record(), TeacherCard.model_validate(_card()), 0)}
    assert _texts(made["caption"]) == [
        "Caption?", "A red circle, a green circle and a blue square on a white background."
    ]  # fmt: skip
    assert _texts(made["description"])[1] == (
        "It shows a red circle, a green circle and a blue square. A red circle is at the top left. "
        "A green circle is at the top right. A blue square is at the bottom right. The background is white."
    )
    assert made["caption"].facts == _facts(), "objectives that learn from facts read them off the caption"


def test_reasoning_ends_in_the_answer() -> None:
    (made,) = [one for one in conversations(_record(), TeacherCard.model_validate(_card(SUM)), 0)
               if one.kind == "reasoning"]  # fmt: skip
    assert _texts(made)[1] in ("2 and 1 make 3.", "1 and 2 make 3.")
    assert _texts(made)[0].endswith("together? Why?")


def test_no_turn_asks_what_an_earlier_turn_told() -> None:
    check = _question("check", ask="label_is", of="background", template="Is it {value}?")
    card = TeacherCard.model_validate(_card(GROUND, check, turns=[5, 5]))
    for seed in range(60):
        for made in conversations(_record(), card, seed):
            texts = _texts(made)
            if made.kind == "conversation" and GROUND["templates"][0] in texts:
                assert texts.index(GROUND["templates"][0]) == len(texts) - 2, "all that follows is known"


def test_a_derived_label_tells_its_source_when_only_one_value_leads_there() -> None:
    labels = {
        "background": {"values": ["white", "black", "gray"]},
        "bright": {"source": "background", "table": {"white": "bright", "black": "dark", "gray": "dark"}},
    }
    bright = _question("bright", ask="label", of="bright", template="Bright or dark?")
    card = TeacherCard.model_validate(_card(GROUND, bright, labels=labels, turns=[5, 5]))
    for ground, kinds in (("white", ["bright"]), ("black", ["bright", "background"])):
        record = _record(labels={"background": ground})
        (made,) = [one for one in conversations(record, card, 3) if one.kind == "conversation"]
        assert [turn["kind"] for turn in made.facts["turns"]] == kinds


def test_questions_carry_what_scorers_need() -> None:
    (asked,) = questions(_record(split="test"), TeacherCard.model_validate(_card(COUNT)), 0, count=1)
    number = text_of(asked.messages[1])
    assert asked.facts["question"] == {
        "kind": "count", "answer_type": "number", "choices": [],
        "references": [number, {"1": "one", "2": "two"}[number]],
    }  # fmt: skip
    (asked,) = questions(_record(split="test"), TeacherCard.model_validate(_card(GROUND)), 0, count=1)
    assert asked.facts["question"] == {
        "kind": "background", "answer_type": "choice", "choices": ["white", "black"], "references": ["white"],
    }  # fmt: skip


def test_made_text_states_its_origin() -> None:
    card = TeacherCard.model_validate(_card(PRESENCE, COUNT, SUM))
    for made in [*conversations(_record(), card, 0), *questions(_record(), card, 0)]:
        assert made.source["teacher"] == "rules"
        assert made.source["derived_from"] == "annotations"
        assert made.source["prompt_version"] == "toy-1"
        assert (made.source["record"], made.split, made.group) == ("r1", "train", "r1")
        assert [part["type"] for part in made.messages[0]["content"]] == ["image", "text"]


def test_the_same_record_and_seed_give_the_same_text_and_another_seed_other_text() -> None:
    card = TeacherCard.model_validate(_card(PRESENCE, COUNT, COLOUR, SUM, MORE, turns=[2, 8]))
    assert conversations(_record(), card, 1) == conversations(_record(), card, 1)
    assert len({str(conversations(_record(), card, seed)) for seed in range(10)}) > 1


def test_questions_that_are_learnt_apart_may_ask_what_is_told() -> None:
    check = _question("check", ask="label_is", of="background", template="Is it {value}?")
    card = TeacherCard.model_validate(_card(GROUND, check, turns=[5, 5]))

    def followed(apart: bool) -> int:
        made = [one for seed in range(40) for one in conversations(_record(), card, seed, apart=apart)]
        talks = [_texts(one) for one in made if one.kind == "conversation"]
        return sum(talk[0] == GROUND["templates"][0] and len(talk) > 2 for talk in talks)

    assert followed(apart=False) == 0
    assert followed(apart=True) > 5


def test_phrases() -> None:
    attributes = {
        "size": {"values": ["large"]},
        "label": {"values": ["cyst"]},
        "side": {"before": False, "phrase": "on the {value}"},
    }
    card = TeacherCard.model_validate(_card(PRESENCE | {"by": [["label"]]}, attributes=attributes, nouns={}))
    assert say(card, (("side", "left"), ("label", "cyst"), ("size", "large"))) == "large cyst on the left"
    assert say(card, (("size", "large"),), plural=True) == "large objects"
    assert (listed(["a"]), listed(["a", "b"]), listed(["a", "b", "c"])) == ("a", "a and b", "a, b and c")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"questions": [COUNT | {"templates": ["How many {things}?"] * 4}]}, "'things'"),
        ({"questions": [COUNT | {"templates": ["How many?"]}]}, "templates"),
        ({"questions": [COUNT | {"by": [["taste"]]}]}, "'taste'"),
        ({"questions": [COLOUR | {"of": "taste"}]}, "'taste'"),
        ({"questions": [{**COLOUR, "of": None}]}, "needs of:"),
        ({"captions": ["On {ground}."]}, "'ground'"),
        ({"derived_from": "images"}, "annotations"),
    ],
)
def test_a_wrong_card_is_refused_before_any_image_is_read(change: dict, said: str, tmp_path: Path) -> None:
    with pytest.raises(CardError) as error:
        teach({"teacher": _card() | change}, {"ingest": tmp_path / "missing"}, tmp_path / "out")
    assert said in str(error.value)


def test_a_card_file_gives_its_faults_with_lines(tmp_path: Path) -> None:
    path = tmp_path / "teacher.yaml"
    path.write_text("version: toy-1\nteachr: rules\n", encoding="utf-8")
    with pytest.raises(CardError) as error:
        load_teacher(path)
    assert "teacher.yaml:2: teachr: unknown key; did you mean teacher?" in str(error.value)


@pytest.mark.parametrize("name", CARDS)
def test_every_template_of_a_shipped_card_renders(name: str) -> None:
    card = load_teacher(DOMAINS / name / "teacher.yaml")
    assert card.questions
    for question in card.questions:
        assert len(set(question.templates)) >= 4, f"{question.kind} needs four wordings"
        fields = dict.fromkeys(FIELDS[question.ask], "word")
        for template in [*question.templates, *question.reasons("yes"), *question.reasons("no")]:
            assert "{" not in template.format(**fields)
    for template in [*card.captions, *card.description.opening]:
        assert template_fields(template) <= {
            "things",
            "total",
            *card.labels,
            *(f"a_{one}" for one in card.labels),
        }


def test_shipped_cards_are_these() -> None:
    assert {"blood", "phantom", "retail", "scenes", "sorting"} <= set(CARDS)


@pytest.mark.parametrize("name", ["retail", "sorting"])
def test_classes_are_wrongly_named_as_often_as_rightly(name: str) -> None:
    label = load_teacher(DOMAINS / name / "teacher.yaml").labels["class"]
    named = Counter(other for value in label.values for other in label.confusable[value])
    assert named == dict.fromkeys(label.values, 2)
    assert all(len(set(label.confusable[value]) - {value}) == 2 for value in label.values)


def test_view_of_empty_facts_is_empty_and_incomplete() -> None:
    assert view_of({}, TeacherCard.model_validate(_card())) == View({}, [], [], False, frozenset())


@pytest.fixture()
def taught(tmp_path: Path) -> tuple[dict, Path]:
    ingested = tmp_path / "1-ingest"
    with DatasetWriter(ingested, "toy") as writer:
        refs: list[str] = []
        for number in range(90):
            refs.append(writer.add_image(np.full((4, 4, 3), number, dtype=np.uint8)))
            rng = Random(number)
            things = [
                _thing(
                    rng.choice(["circle", "square", "star"]),
                    x,
                    0.2,
                    colour=rng.choice(["red", "green", "blue"]),
                )
                for x in (0.15, 0.5, 0.85)[: rng.randint(0, 3)]
            ]
            split = ("train", "valid", "test")[number % 3]
            record = _record(f"r{number}", split, objects=things)
            writer.add(Sample(record.id, [], refs[-1:], record.facts, record.source))
        said = [user_turn("Is it on?", images=1), assistant_turn("yes")]
        writer.add(
            Sample("own", said, refs[:1], {}, {"record": "own", "split": "train", "kind": "conversation"})
        )
        bare = {"record": "bare", "split": "test", "kind": "record"}
        writer.add(Sample("bare", [], refs[:1], {"labels": {}, "objects": []}, bare))
    settings = {"teacher": _card(PRESENCE, MORE, COUNT), "questions_per_image": 6, "seed": 5}
    return teach(settings, {"ingest": ingested}, tmp_path / "2-teach"), tmp_path / "2-teach"


def test_yes_and_no_are_exactly_equal_per_split_and_kind(taught: tuple[dict, Path]) -> None:
    result, folder = taught
    counts: Counter = Counter()
    for sample in open_dataset(folder):
        turns = [sample.facts["question"]] if sample.kind == "question" else sample.facts.get("turns", [])
        assert sample.kind != "conversation" or sample.id == "own" or len(turns) == len(sample.messages) // 2
        for number, turn in enumerate(turns):
            if turn["answer_type"] == "yes_no":
                answer = text_of(sample.messages[2 * number + 1])
                counts[f"{sample.split}/{sample.kind}/{turn['kind']}", answer] += 1
    assert result["balance"]["test/question/presence"] > 5
    assert result["dropped_for_balance"] > 0
    for key, pairs in result["balance"].items():
        assert counts[key, "yes"] == counts[key, "no"] == pairs


def test_teach_writes_what_each_split_is_for(taught: tuple[dict, Path]) -> None:
    result, folder = taught
    dataset = open_dataset(folder)
    kinds = {
        split: {dataset[i].kind for i in dataset.select(splits=[split])}
        for split in ("train", "valid", "test")
    }
    made = {"caption", "conversation", "description", "reasoning"}
    assert kinds == {"train": made, "valid": made | {"question"}, "test": {"question"}}
    assert result["records"] == 92
    assert dataset.image(dataset[0].images[0]).size == (4, 4), "images are read from the ingest folder"
    for sample in dataset:
        assert [part["type"] for part in sample.messages[0]["content"]] == ["image", "text"]
        assert all(part["type"] == "text" for message in sample.messages[1:] for part in message["content"])


def test_text_of_the_source_passes_and_a_record_without_text_is_in_the_ledger(
    taught: tuple[dict, Path],
) -> None:
    _, folder = taught
    dataset = open_dataset(folder)
    (own,) = [sample for sample in dataset if sample.id == "own"]
    assert _texts(own) == ["Is it on?", "yes"]
    rows = {row["record"]: (row["fate"], row["reason"]) for row in dataset.ledger()}
    assert rows["bare"] == ("rejected", "no text follows from its facts")
    assert len(rows) == 92


def test_facts_that_the_card_does_not_know_are_one_clear_error(tmp_path: Path) -> None:
    with DatasetWriter(tmp_path / "in", "toy") as writer:
        ref = writer.add_image(np.zeros((4, 4, 3), dtype=np.uint8))
        writer.add(
            Sample("r", [], [ref], {"objects": []}, {"record": "r", "split": "test", "kind": "record"})
        )
    with pytest.raises(DataError, match="made nothing of 1 records"):
        teach({"teacher": _card()}, {"ingest": tmp_path / "in"}, tmp_path / "out")


def test_a_checklist_goes_through_every_label_once():
    asked = _question(
        "presence",
        ask="present",
        by=[["label"]],
        among={"label": ["circle", "square", "star"]},
        template="Is there {a_subject}?",
    )
    card = TeacherCard.model_validate(_card(asked, checklist="presence"))
    facts = {
        "objects": [{"label": "star", "box": [0.1, 0.1, 0.3, 0.3], "attributes": {"colour": "red"}}],
        "labels": {"background": "white"},
        "complete": True,
    }
    record = Sample("one", [], ["ref"], facts, {"kind": "record"})
    made = [sample for sample in conversations(record, card, 0) if sample.id == "one-conversation-1"]
    texts = [text_of(message) for message in made[0].messages]
    answers = dict(zip(texts[::2], texts[1::2], strict=True))
    assert answers == {"Is there a circle?": "no", "Is there a square?": "no", "Is there a star?": "yes"}


def test_a_checklist_names_a_question_that_the_card_has():
    asked = _question("count", ask="count", template="How many {subjects}?")
    with pytest.raises(ValueError, match="checklist names"):
        TeacherCard.model_validate(_card(asked, checklist="presence"))
