"""A judge gives marks in both orders or none: whatever its endpoint does wrong never looks like a score."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from fake_endpoint import completion, serving
from test_endpoint import FAILING, _no_key, card  # noqa: F401  (a fixture that applies itself)

from medkit.errors import CardError, DataError, MedkitError
from medkit.evaluation.judge import judge_answers, summary_lines
from medkit.evaluation.judge_marks import aggregate, parse_marks

pytest.importorskip(
    "openai", reason="an endpoint needs the openai package: pip install 'medkit-lmm[endpoint]'"
)

SAID = [
    ("q0", "a", "yes", "good"),
    ("q1", "a", "no", "poor"),
    ("q2", "b", "left lung", "good"),
    ("q3", "c", "2", "poor"),
]


@pytest.fixture
def answers(tmp_path) -> Path:
    rows = [
        {"benchmark": "b", "control": "none", "id": name, "group": group, "kind": "k", "answer_type": "open",
         "question": f"what is {name}?", "references": [gold], "answer": said, "truncated": False}
        for name, group, gold, said in SAID
    ]  # fmt: skip
    rows.append({**rows[0], "control": "blank"})
    rows.append({**rows[0], "id": "q9", "answer": "", "failed": "timeout"})
    (tmp_path / "in").mkdir()
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "in/answers.jsonl").write_text(text, "utf-8")
    return tmp_path / "in"


def sides(asked: dict) -> tuple[str, str]:
    text = asked["messages"][1]["content"]
    return tuple(re.search(rf"\[Answer {n}\]\n(.*)\n\[End", text)[1] for n in "12")  # type: ignore[return-value,index]


def fair(asked: dict, _: int = 0) -> dict:
    """Marks a good answer 9, a poor one 3 and the reference 6, and likes what stands second by 1."""
    first, second = (({"good": 9, "poor": 3}).get(side, 6) for side in sides(asked))
    return completion(f"{first} {second + 1}\nBecause.")


def test_both_aggregations_with_their_literal_values(answers, tmp_path):
    with serving(fair) as server:
        found = judge_answers(answers, card(server.url), tmp_path / "out")
        assert len(server.asked) == 8
        judge_answers(answers, card(server.url), tmp_path / "out")
        assert len(server.asked) == 8, "what was judged is not judged again"
    assert (found["questions"], found["unanswered"], found["excluded"]) == (5, 1, 0)
    # Means over both orders: answers 9.5, 3.5, 9.5, 3.5; the reference 6.5 each time.
    assert found["overall"]["ratio_of_means"]["value"] == pytest.approx(100 * 26 / 26)
    assert found["overall"]["mean_of_ratios"]["value"] == pytest.approx(100.0)
    assert (found["overall"]["answer_mark"], found["overall"]["reference_mark"]) == (6.5, 6.5)
    assert found["overall"]["ratio_of_means"]["low"] < 100 < found["overall"]["ratio_of_means"]["high"]
    assert found["order"] == {"count": 4, "answer_second_minus_first": 1.0, "same_side": 1.0}
    rows = [json.loads(line) for line in (tmp_path / "out/judgements.jsonl").read_text().splitlines()]
    assert rows[0]["by_order"] == {
        "reference_first": {"reference": 6.0, "answer": 10.0},
        "answer_first": {"reference": 7.0, "answer": 9.0},
    }
    raw = [json.loads(line) for line in (tmp_path / "out/judge_replies.jsonl").read_text().splitlines()]
    assert {row["answer"] for row in raw} == {
        "9 7\nBecause.",
        "3 7\nBecause.",
        "6 10\nBecause.",
        "6 4\nBecause.",
    }


def test_the_two_aggregations_differ_where_references_do():
    rows = [
        {"marks": {"reference": 10.0, "answer": 5.0}, "group": "a"},
        {"marks": {"reference": 2.0, "answer": 4.0}, "group": "b"},
        {"marks": None, "group": "c"},
    ]
    found = aggregate(rows)
    assert (found["count"], found["excluded"]) == (2, 1)
    assert found["ratio_of_means"]["value"] == 75.0
    assert found["mean_of_ratios"]["value"] == 125.0
    assert aggregate(rows[2:]) == {"count": 0, "excluded": 1}


@pytest.mark.parametrize(
    ("text", "marks"),
    [
        ("8 9", (8.0, 9.0)), ("8 9\nBecause 1 2", (8.0, 9.0)), ("8.5, 10", (8.5, 10.0)), (" 1 10 ", (1.0, 10.0)),
        ("8", None), ("8 ", None), ("8 9 7", None), ("nan 8", None), ("8 inf", None), ("8,9", None),
        ("8/10 9/10", None),
        ("0 8", None), ("8 11", None), ("-8 9", None), ("1e1 9", None), ("Answer 1: 8 9", None), ("", None),
        ("\n", None), ("٨ 9", None), ("8 9.", None), ("marks:\n8 9", None),
    ],
)  # fmt: skip
def test_marks_are_two_numbers_on_the_first_line_or_none(text, marks):
    assert parse_marks(text) == marks


def test_a_line_that_was_cut_has_no_marks():
    assert parse_marks("8 1", truncated=True) is None
    assert parse_marks("8 1\nBecau", truncated=True) == (8.0, 1.0)


HALF = {
    "half a line": completion("8 1", finish="length"),
    "one number": completion("8\n9"),
    "not numbers": completion("NaN NaN\nI could not decide."),
    "prose": completion("Answer 1 deserves 8 and answer 2 deserves 9."),
    "out of range": completion("80 90\n"),
    "empty": completion(""),
}


@pytest.mark.parametrize("kind", [*FAILING, *HALF])
def test_a_judge_that_always_fails_gives_no_number(answers, tmp_path, kind):
    reply = FAILING[kind] if kind in FAILING else HALF[kind]
    with serving(lambda *_: reply) as server:
        asked = card(server.url, tries=2, concurrency=8, timeout_s=0.3 if kind == "timeout" else 10.0)
        found = judge_answers(answers, asked, tmp_path / "out")
    assert found["overall"] == {"count": 0, "excluded": 4}
    assert (found["order"], found["excluded"]) == ({"count": 0}, 4)
    reason = kind.strip() if kind in FAILING else "no two marks"
    assert found["judge"]["failed"] == {reason: 8}
    rows = [json.loads(line) for line in (tmp_path / "out/judgements.jsonl").read_text().splitlines()]
    assert {row["marks"] for row in rows} == {None}
    assert summary_lines(found)[0] == (
        "0 of 5 answers have marks in both orders; 4 excluded, 1 without a reply"
    )
    if kind in HALF:
        raw = [json.loads(line) for line in (tmp_path / "out/judge_replies.jsonl").read_text().splitlines()]
        said = HALF[kind]["choices"][0]["message"]["content"].strip()
        assert {tuple(row["rejected"]) for row in raw} == {(said, said)}


def test_an_order_that_fails_excludes_the_question_and_is_asked_again_on_demand(answers, tmp_path):
    def one_order(asked, _):
        return completion("9") if sides(asked)[0] == "good" else fair(asked)

    with serving(one_order) as server:
        found = judge_answers(answers, card(server.url), tmp_path / "out")
        assert (found["overall"]["count"], found["overall"]["excluded"]) == (2, 2)
        assert found["overall"]["ratio_of_means"]["value"] == pytest.approx(100 * 3.5 / 6.5, abs=1e-3)
        server.reply, asked = fair, len(server.asked)
        found = judge_answers(answers, card(server.url), tmp_path / "out", retry_failed=True)
        assert len(server.asked) == asked + 2
    assert (found["overall"]["count"], found["excluded"]) == (4, 0)


def test_an_answer_is_text_even_where_it_looks_like_a_place(answers, tmp_path):
    lines = (answers / "answers.jsonl").read_text().splitlines()
    row = {
        **json.loads(lines[0]),
        "answer": "{second} {rubric}",
        "context": "a {first} scan",
        "choices": ["x", "y"],
    }
    (answers / "answers.jsonl").write_text(json.dumps(row) + "\n")
    with serving(lambda *_: completion("5 5")) as server:
        judge_answers(answers, card(server.url, concurrency=1), tmp_path / "out")
    text = server.asked[0]["messages"][1]["content"]
    assert "[Answer 1]\nyes\n[End of answer 1]\n\n[Answer 2]\n{second} {rubric}\n[End of answer 2]" in text
    assert "a {first} scan" in text and "what is q0?\nA. x\nB. y\n" in text
    assert sides(server.asked[1]) == ("{second} {rubric}", "yes")


def test_agreement_with_human_marks(answers, tmp_path):
    human = tmp_path / "human.csv"
    human.write_text("id,mark\nq0,10\nq1,2\nq2,9\nq3,4\nq77,5\n")
    with serving(fair) as server:
        found = judge_answers(answers, card(server.url), tmp_path / "out", human=human)
        # judge 9.5 3.5 9.5 3.5 against 10 2 9 4: ranks 3.5 1.5 3.5 1.5 against 4 1 3 2
        assert found["human"]["spearman"] == pytest.approx(0.894427, abs=1e-6)
        assert (found["human"]["marks"], found["human"]["count"]) == (5, 4)
        assert found["human"]["judge_minus_human"] == pytest.approx(0.25)
        human.write_text("id,mark\nq0,10\nq1,2\n")
        found = judge_answers(answers, card(server.url), tmp_path / "out", human=human)
        assert (found["human"]["count"], found["human"]["spearman"]) == (2, None)
        for text, said in (("id,mark\nq0,nan\n", "not from 1 to 10"), ("id,mark\nq0,\n", "row 1 has no id with a mark"),
                           ("id,mark\nq0,1\nq0,2\n", "has a mark already")):  # fmt: skip
            human.write_text(text)
            with pytest.raises(DataError, match=said):
                judge_answers(answers, card(server.url), tmp_path / "out", human=human)


def test_another_judge_or_rubric_needs_another_folder_and_a_rubric_must_be_whole(answers, tmp_path):
    written = tmp_path / "rubric.yaml"
    written.write_text(
        "version: 1\nsystem: s\nask: '{question} [Answer 1]\n\n{first}\n\n[End {second} {rubric}'\ntypes: {open: o}\n"
    )
    with serving(lambda *_: completion("5 6")) as server:
        judge_answers(answers, card(server.url), tmp_path / "out")
        with pytest.raises(MedkitError, match="belongs to another task"):
            judge_answers(answers, card(server.url), tmp_path / "out", rubric=written)
        with pytest.raises(MedkitError, match="belongs to another task"):
            judge_answers(answers, card(server.url, model="other"), tmp_path / "out")
        found = judge_answers(answers, card(server.url), tmp_path / "own", rubric=written)
        assert found["overall"]["ratio_of_means"]["value"] == 100.0
        written.write_text("version: 1\nsystem: s\nask: '{question} {first} {rubric}'\ntypes: {open: o}\n")
        with pytest.raises(CardError, match=r"ask lacks \{second\}"):
            judge_answers(answers, card(server.url), tmp_path / "third", rubric=written)


def test_a_judge_that_marks_the_place_alone_is_told(answers, tmp_path):
    with serving(lambda *_: completion("7 8")) as server:
        found = judge_answers(answers, card(server.url), tmp_path / "out")
    assert found["overall"]["ratio_of_means"]["value"] == 100.0
    assert found["distrust"] == [
        "the order decides; the same side wins in both orders in 0 % only",
        "every question has the same marks",
    ]
    assert "Distrust this: every question has the same marks" in summary_lines(found)
    with serving(fair) as server:
        assert judge_answers(answers, card(server.url), tmp_path / "fair")["distrust"] == []
