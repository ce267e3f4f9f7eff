"""Scorers give the literal values that their definitions promise."""

from __future__ import annotations

import subprocess
import sys

import pytest

from medkit.evaluation import scorers


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The Left Lung.", "left lung"),
        ("  a\tCELL\n", "cell"),
        ("a", "a"),
        ("x-ray", "x ray"),
        ("Crohn’s disease", "crohns disease"),
        ("Ménière", "meniere"),
        ("ｙｅｓ！", "yes"),
        ("5 µm", "5 μm"),
        ("three", "3"),
        ("Twenty-one cells", "21 cells"),
        ("thirty", "30"),
        ("twenty eleven", "20 11"),
        ("3.0", "3"),
        ("007", "7"),
        ("1,000", "1000"),
        ("1, 2", "1 2"),
        ("-3", "-3"),
        (".5", "0.5"),
        ("-0.0", "0"),
        ("2.50 cm", "2.5 cm"),
        ("<5%", "< 5 %"),
        ("T1+contrast", "t1 + contrast"),
        ("", ""),
        ("?!", ""),
        ("右肺，正常。", "右肺 正常"),
        ("が", "が"),
    ],
)
def test_normalise(text, expected):
    assert scorers.normalise(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("no", "no"),
        ("No.", "no"),
        ("YES!", "yes"),
        ("yes, there is no doubt", "yes"),
        ("No, that is true", "no"),
        ("normal", None),
        ("nodule", None),
        ("know", None),
        ("eyes", None),
        ("", None),
        ("There is no fracture.", "no"),
        ("There is a fracture.", "yes"),
        ("There isn't a fracture", "no"),
        ("There isn’t a fracture", "no"),
        ("not true", "no"),
        ("not false", "yes"),
        ("that is false", "no"),
        ("It is correct", "yes"),
        ("A mass is present", "yes"),
        ("absent", "no"),
        ("none", "no"),
        ("The answer is no", "no"),
        ("Answer: yes", "yes"),
        ("yes or no", None),
        ("yes/no", None),
        ("I am not sure", None),
        ("I can't tell", None),
        ("cannot be determined", None),
        ("In the left lung, no nodule", "no"),
        ("There is a fracture, no effusion", "yes"),
        ("left", None),
    ],
)
def test_yes_no_is_read_from_whole_words(text, expected):
    assert scorers.parse_yes_no(text) == expected


def test_no_does_not_match_normal():
    assert scorers.yes_no("normal", ["no"]) == 0.0
    assert scorers.contained("normal", ["no"]) == 0.0
    assert scorers.contained("no abnormality", ["no"]) == 1.0
    assert scorers.yes_no("no", ["normal"]) is None


def test_exact_takes_any_reference_and_never_an_empty_answer():
    assert scorers.exact("The 2", ["one", "two"]) == 1.0
    assert scorers.exact("2 cells", ["two"]) == 0.0
    assert scorers.exact("", [""]) == 0.0
    assert scorers.exact("...", ["?"]) == 0.0


def test_contained_wants_whole_words_in_order():
    assert scorers.contained("It is in the right lung", ["right lung"]) == 1.0
    assert scorers.contained("lung, right", ["right lung"]) == 0.0
    assert scorers.contained("anything", [""]) == 0.0


def test_recall_and_f1_clip_repeats():
    assert scorers.token_recall("lung lung lung", ["right lung"]) == 0.5
    assert scorers.f1("lung lung lung", ["right lung"]) == pytest.approx(0.4)  # precision 1/3, recall 1/2
    assert scorers.f1("right lung", ["left lung", "right lung"]) == 1.0
    assert scorers.f1("", ["right lung"]) == 0.0
    assert scorers.token_recall("heart", ["right lung"]) == 0.0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("3", 3.0),
        ("There are three.", 3.0),
        ("3 of 5", None),
        ("two, yes two", 2.0),
        ("none", 0.0),
        ("many", None),
        ("T2", None),
        ("-1.5", -1.5),
    ],
)
def test_the_one_number_of_a_reply(text, expected):
    assert scorers.parse_number(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("B", 1),
        ("(c)", 2),
        ("b) blue", 1),
        ("C. the dark red one", 2),
        ("The answer is B", 1),
        ("option b because it is", 1),
        ("dark red", 2),
        ("It is dark red.", 2),
        ("it looks red", 0),
        ("red or blue", None),
        ("A red one", 0),
        ("The answer is a blue one", 1),
        ("green", None),
        ("E", None),
        ("", None),
    ],
)
def test_which_choice_a_reply_names(text, expected):
    assert scorers.parse_choice(text, ["red", "blue", "dark red"]) == expected


def test_a_choice_text_goes_before_a_letter():
    assert scorers.parse_choice("a", ["b", "a"]) == 1
    assert scorers.choice("b", ["two"], ["one", "two"]) == 1.0
    assert scorers.choice("b", ["three"], ["one", "two"]) is None


@pytest.mark.parametrize(
    ("answer", "references", "choices", "answer_type", "expected"),
    [
        ("No, it is normal.", ["no"], [], "yes_no", 1.0),
        ("normal", ["no"], [], "yes_no", 0.0),
        ("there are two", ["2", "two"], [], "number", 1.0),
        ("b", ["blue"], ["red", "blue"], "choice", 1.0),
        ("blue", ["blue"], [], "choice", 1.0),
        ("the Blue", ["blue"], [], "open", 1.0),
        ("it is blue", ["blue"], [], "open", 0.0),
        ("left", ["left"], [], "yes_no", 1.0),  # a gold that does not fit its type is scored as open
    ],
)
def test_the_headline_scorer_goes_by_answer_type(answer, references, choices, answer_type, expected):
    assert scorers.score(answer, references, choices, answer_type)["answer"] == expected


def test_scorers_that_do_not_apply_give_none():
    scores = scorers.score("blue", ["blue"])
    assert scores == {
        "answer": 1.0,
        "exact": 1.0,
        "contained": 1.0,
        "token_recall": 1.0,
        "f1": 1.0,
        "yes_no": None,
        "number": None,
        "choice": None,
    }
    assert set(scores) == set(scorers.DEFINITIONS)


def test_parsed_follows_the_answer_type():
    assert not scorers.is_parsed("normal", "yes_no")
    assert not scorers.is_parsed("several", "number")
    assert not scorers.is_parsed("purple", "choice", ["red", "blue"])
    assert scorers.is_parsed("anything", "open")
    assert scorers.is_parsed("no", "yes_no")


def test_scorers_load_no_heavy_library():
    heavy = {"torch", "transformers", "datasets"}
    code = f"import sys, medkit.evaluation.scorers; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
