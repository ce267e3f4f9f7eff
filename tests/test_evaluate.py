"""The evaluation step writes every answer under every control, and scores that match them."""

from __future__ import annotations

import json
from collections import Counter

import pytest
from tiny_evaluation import build_model, write_dataset

from medkit.errors import DataError
from medkit.evaluation.evaluate import PARTIAL, evaluate
from medkit.evaluation.questions import Question, read_questions, with_controls
from medkit.evaluation.summarise import answer_row, summarise
from medkit.sample import Sample, user_turn
from medkit.store import DatasetWriter, open_dataset

CARD = {
    "name": "held-out",
    "title": "Held-out questions",
    "source": {"domain": "same", "split": "test"},
    "scorer": "answer",
    "controls": ["blank", "shuffled"],
    "limit": None,
    "max_new_tokens": 5,
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("evaluate")
    build_model(root / "stage" / "model")
    write_dataset(root / "data")
    write_dataset(root / "other", train=0, test=3)
    return root


def _run(folders, out, **changes):
    out.mkdir(exist_ok=True)
    settings = {"name": "base", "benchmarks": [CARD], "hardware": {"device": "cpu"}, **changes}
    inputs = {"model": folders / "stage", "data": folders / "data", "data:general-scenes": folders / "other"}
    result = evaluate(settings, inputs, out)
    rows = [json.loads(line) for line in (out / "answers.jsonl").read_text("utf-8").splitlines()]
    return result, rows, json.loads((out / "scores.json").read_text("utf-8"))


def test_every_question_is_answered_under_every_control(folders, tmp_path):
    general = CARD | {"name": "general-scenes", "source": {"domain": "scenes", "split": "test"}}
    result, rows, scores = _run(folders, tmp_path, benchmarks=[CARD, general])
    counts = Counter((row["benchmark"], row["control"]) for row in rows)
    assert counts == {
        ("held-out", "none"): 18,
        ("held-out", "blank"): 18,
        ("held-out", "shuffled"): 18,
        ("general-scenes", "none"): 9,
        ("general-scenes", "blank"): 9,
        ("general-scenes", "shuffled"): 9,
    }
    assert result["answers"] == len(rows) == 81
    assert scores["model"] == "base"
    assert scores["decoding"] == {"method": "greedy", "precision": "fp32", "device": "cpu", "batch_size": 32}
    entry = scores["benchmarks"]["held-out"]
    assert (entry["count"], entry["images"], entry["groups"]) == (18, 6, 6)
    assert entry["source"]["domain"] == "same"
    assert set(entry["controls"]) == {"blank", "shuffled"}
    assert result["benchmarks"]["held-out"] == entry["accuracy"]
    right = [row["correct"] for row in rows if row["benchmark"] == "held-out" and row["control"] == "none"]
    assert entry["accuracy"]["value"] == pytest.approx(sum(right) / 18, abs=1e-6)


def test_rows_say_what_was_asked_and_shown(folders, tmp_path):
    _, rows, _ = _run(folders, tmp_path)
    by_control = {row["control"]: row for row in rows if row["id"] == "r4-count"}
    row = by_control["none"]
    assert row["question"] == "how many cells can be seen in this picture?"
    assert row["prompt"] == "<s>USER: <image>\nhow many cells can be seen in this picture? ASSISTANT:"
    assert (row["kind"], row["answer_type"], row["references"], row["group"]) == (
        "count",
        "number",
        ["2"],
        "g4",
    )
    assert set(row["scores"]) == {"exact", "contained", "token_recall", "f1", "yes_no", "number", "choice"}
    assert by_control["blank"]["image"] == by_control["shuffled"]["image"] == row["image"]
    assert by_control["shuffled"]["shown"] != row["image"]
    assert "shown" not in row


def test_a_second_call_asks_nothing_and_gives_the_same_answers(folders, tmp_path, monkeypatch):
    _, rows, scores = _run(folders, tmp_path)
    assert not (tmp_path / PARTIAL).exists()
    names = ("benchmark", "control", "id", "prompt", "answer", "truncated", "latency_s")
    kept = [{name: row[name] for name in names} for row in rows]
    (tmp_path / "again").mkdir()
    (tmp_path / "again" / PARTIAL).write_text("".join(json.dumps(row) + "\n" for row in kept), "utf-8")
    from medkit.evaluation import generate

    monkeypatch.setattr(generate, "_answer", lambda *_: pytest.fail("asked again"))
    _, again, scores_again = _run(folders, tmp_path / "again")
    assert again == rows
    assert scores_again == scores


def test_limit_keeps_images_whole_and_is_independent_of_order(folders):
    dataset = open_dataset(folders / "data")
    questions = read_questions(dataset, "held-out", limit=7)
    assert len(questions) == 7
    assert sorted(Counter(question.group for question in questions).values()) == [1, 3, 3]
    fewer = read_questions(dataset, "held-out", limit=4)
    assert {question.id for question in fewer} < {question.id for question in questions}


def test_a_benchmark_without_questions_is_refused_in_one_sentence(folders, tmp_path):
    card = CARD | {"source": {"domain": "same", "split": "valid"}}
    with pytest.raises(DataError, match=r"benchmark held-out: .* has no question in its valid split"):
        _run(folders, tmp_path, benchmarks=[card])


def test_questions_without_an_image_have_no_control(tmp_path):
    with DatasetWriter(tmp_path, "texts") as writer:
        source = {"dataset": "texts", "record": "1", "licence": "MIT", "group": "g"}
        source |= {"split": "test", "kind": "question"}
        asked = {"question": {"kind": "word", "answer_type": "open", "references": ["x"]}}
        writer.add(Sample("1", [user_turn("which?")], [], asked, source))
    questions = read_questions(open_dataset(tmp_path), "texts")
    assert [question.control for question in with_controls(questions, ["blank", "shuffled"])] == ["none"]


def _row(number: int, control: str, answer: str, gold: str, kind: str = "exists", truncated: bool = False):
    answer_type = "yes_no" if kind == "exists" else "open"
    question = Question("b", control, f"q{number}", f"g{number // 2}", kind, answer_type, [user_turn("?", 1)],
                        ["other"], [gold])  # fmt: skip
    reply = {"prompt": "?", "answer": answer, "truncated": truncated, "latency_s": 0.1}
    return answer_row(question, [f"image{number // 2}"], reply, "answer")


def test_the_summary_has_literal_values():
    rows = [
        _row(0, "none", "yes", "yes"),
        _row(1, "none", "no", "no"),
        _row(2, "none", "normal", "no"),
        _row(3, "none", "", "yes"),
        _row(4, "none", "Red", "red", "colour"),
        _row(5, "none", "dark red it is", "red", "colour", truncated=True),
        _row(0, "blank", "yes", "yes"),
        _row(1, "blank", "yes", "no"),
        _row(2, "blank", "no", "no"),
    ]
    scores = summarise(rows, "answer")
    assert scores["accuracy"]["value"] == 0.5
    assert 0 <= scores["accuracy"]["low"] < 0.5 < scores["accuracy"]["high"] <= 1
    assert (scores["empty"], scores["unparsed"], scores["truncated"]) == (1, 1, 1)
    assert scores["slices"]["kind"]["exists"]["value"] == 0.5
    assert scores["slices"]["kind"]["exists"]["majority"] == 0.5
    assert scores["slices"]["kind"]["colour"]["majority"] == 1.0
    assert scores["slices"]["answer_type"]["open"]["count"] == 2
    assert scores["majority"] == pytest.approx(4 / 6)
    assert scores["by_scorer"]["yes_no"] | {"low": 0, "high": 0} == {
        "count": 4,
        "value": 0.5,
        "low": 0,
        "high": 0,
    }
    assert scores["by_scorer"]["contained"]["value"] == pytest.approx(4 / 6, abs=1e-6)
    assert "choice" not in scores["by_scorer"]
    blank = scores["controls"]["blank"]
    assert (blank["count"], blank["survives"]) == (3, 0.5)
    assert blank["value"] == pytest.approx(2 / 3, abs=1e-6)


def test_a_headline_scorer_that_does_not_apply_gives_way():
    question = Question("b", "none", "q", "g", "k", "open", [user_turn("?", 1)], ["i"], ["red"])
    reply = {"prompt": "?", "answer": "red", "truncated": False, "latency_s": 0.1}
    assert answer_row(question, ["i"], reply, "yes_no")["correct"] == 1
    assert answer_row(question, ["i"], reply | {"answer": "dark red"}, "f1")["correct"] == pytest.approx(
        2 / 3
    )
