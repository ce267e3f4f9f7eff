"""The evaluation step writes every answer under every control, and scores that match them."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
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
    names = ("benchmark", "control", "id", "prompt", "answer", "truncated", "confidence", "latency_s")
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
    assert scores["majority"] == round(4 / 6, 6)
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


def test_noise_text_and_corruptions_are_asked_beside(folders, tmp_path):
    card = CARD | {"controls": ["noise", "text"], "corruptions": ["window", "blur"], "severities": [5, 1]}
    _, rows, scores = _run(folders, tmp_path, benchmarks=[card])
    counts = Counter(row["control"] for row in rows)
    worse = ("window:1", "window:5", "blur:1", "blur:5")
    assert counts == dict.fromkeys(("none", "noise", "text", *worse), 18)
    for row in rows:
        assert ("<image>" in row["prompt"]) == (row["control"] != "text")
        assert len(row["image"]) == 64 and "shown" not in row
    answers = {control: [row["answer"] for row in rows if row["control"] == control] for control in counts}
    assert answers["noise"] != answers["none"] and answers["blur:5"] != answers["none"]
    entry = scores["benchmarks"]["held-out"]
    assert set(entry["controls"]) == {"noise", "text"}
    assert {kind: list(levels) for kind, levels in entry["corruptions"].items()} == {
        "blur": ["1", "5"],
        "window": ["1", "5"],
    }
    for levels in entry["corruptions"].values():
        for found in levels.values():
            change = found["value"] - entry["accuracy"]["value"]
            assert found["count"] == 18 and found["change"]["value"] == pytest.approx(change, abs=1e-5)
            assert found["low"] <= found["value"] <= found["high"]


def test_the_share_of_the_gain_that_a_control_keeps():
    rows = [
        _row(number, "none", "yes" if number % 2 else "no", "yes" if number % 2 else "no")
        for number in range(8)
    ]
    rows += [_row(number, "text", "yes", "yes" if number % 2 else "no") for number in range(8)]
    rows += [_row(number, "noise", "yes" if number % 2 or not number else "no", "yes" if number % 2 else "no")
             for number in range(8)]  # fmt: skip
    found = summarise(rows, "answer")
    assert found["majority"] == 0.5 and found["accuracy"]["value"] == 1.0
    assert (found["controls"]["text"]["survives"], found["controls"]["text"]["gain_kept"]) == (0.5, 0.0)
    assert (found["controls"]["noise"]["survives"], found["controls"]["noise"]["gain_kept"]) == (0.875, 0.75)
    blind = [row | {"correct": 0} for row in rows if row["control"] == "none"]
    assert "gain_kept" not in summarise(blind + rows[8:], "answer")["controls"]["text"]


def test_as_good_as_the_most_frequent_answer_is_no_gain():
    golds = ["a", "a", "a", "b", "c", "d", "e"], [f"gold {number}" for number in range(49)]
    rows = [
        _row(100 * kind + number, control, texts[0], gold, f"kind {kind}")
        for control in ("none", "blank")
        for kind, texts in enumerate(golds)
        for number, gold in enumerate(texts)
    ]
    found = summarise(rows, "answer")
    assert found["accuracy"]["value"] == found["majority"] == round(4 / 56, 6)
    assert 1 / 49 * 49 < 1, "shares that are added up again would leave a gain of 1e-16, and any part of it"
    assert "gain_kept" not in found["controls"]["blank"]
    # the slices too, or a tie would count as a gain for its last digit
    for slice_ in found["slices"]["kind"].values():
        assert slice_["value"] == slice_["majority"]


def test_confidence_gives_calibration_and_selective_accuracy():
    rows = [_row(number, "none", "yes", "yes" if number < 6 else "no") for number in range(10)]
    assert "calibration" not in summarise(rows, "answer")
    sure = [0.95] * 5 + [0.55] * 5
    told = [row | {"confidence": value} for row, value in zip(rows, sure, strict=True)]
    told.append(_row(10, "none", "yes", "yes"))  # a reply without one counts in the accuracy only
    found = summarise(told, "answer")
    assert found["calibration"]["count"] == 10 and found["count"] == 11
    # five of five right at .95, one of five at .55: (.05 + .35) / 2
    assert found["calibration"]["ece"] == pytest.approx(0.2, abs=1e-6)
    assert [(one["count"], one["accuracy"]) for one in found["calibration"]["bins"]] == [(5, 0.2), (5, 1.0)]
    at = {one["coverage"]: one["accuracy"] for one in found["selective"]["at"]}
    assert len(at) == 20 and at[0.5] == 1.0 and at[1.0] == 0.6


def test_the_reply_s_confidence_is_kept_in_the_row():
    question = Question("b", "none", "q", "g", "k", "open", [user_turn("?", 1)], ["i"], ["red"])
    reply = {"prompt": "?", "answer": "red", "truncated": False, "latency_s": 0.1}
    assert "confidence" not in answer_row(question, ["i"], reply | {"confidence": None}, "answer")
    assert answer_row(question, ["i"], reply | {"confidence": 0.25}, "answer")["confidence"] == 0.25


def test_slices_by_what_is_known_of_the_image_and_by_length(tmp_path):
    with DatasetWriter(tmp_path / "records", "r") as records:
        refs = [records.add_image(np.full((8, 8, 3), 40 * shade, dtype=np.uint8)) for shade in range(3)]
        for number, (ref, facts) in enumerate(
            zip(
                refs,
                ({"modality": "CT", "labels": {"organ": "Lung"}}, {"labels": {"body_part": "HEAD"}}, {}),
                strict=True,
            )
        ):
            source = {
                "dataset": "r",
                "record": str(number),
                "licence": "MIT",
                "group": f"g{number}",
                "split": "test",
            }
            records.add(Sample(f"r{number}", [], [ref], facts, source | {"kind": "record"}))
    with DatasetWriter(tmp_path / "asked", "a", images_from=[tmp_path / "records"]) as asked:
        for number, ref in enumerate(refs):
            gold = ["left", "left lower lobe", "a b c d e"][number]
            facts = {"question": {"kind": "k", "answer_type": "open", "references": [gold]}}
            source = {
                "dataset": "a",
                "record": str(number),
                "licence": "MIT",
                "group": f"g{number}",
                "split": "test",
            }
            asked.add(Sample(f"q{number}", [user_turn("?", 1)], [ref], facts, source | {"kind": "question"}))
    questions = read_questions(open_dataset(tmp_path / "asked"), "b")
    assert [question.slices for question in questions] == [
        {"modality": "ct", "organ": "lung"},
        {"organ": "head"},
        {},
    ]
    reply = {"prompt": "?", "answer": "left", "truncated": False, "latency_s": 0.1}
    slices = summarise([answer_row(one, one.images, reply, "answer") for one in questions], "answer")[
        "slices"
    ]
    assert {name: list(part) for name, part in slices.items()} == {
        "kind": ["k"],
        "answer_type": ["open"],
        "modality": ["ct", "not stated"],
        "organ": ["head", "lung", "not stated"],
        "answer_length": ["1 word", "2 to 4 words", "5 words or more"],
    }


def test_the_command_line_sets_lists_with_and_without_brackets():
    from medkit.errors import MedkitError
    from medkit.evaluation.standalone import find_benchmarks

    for given in ("corruptions=noise,blur", "corruptions=[noise, blur]"):
        [card] = find_benchmarks(["held-out"], [given, "severities=1,5", "controls=text"])
        assert (card.corruptions, card.severities, card.controls) == (["noise", "blur"], [1, 5], ["text"])
    with pytest.raises(MedkitError, match=r"--set corruptions\.0: Input should be 'noise', 'blur'"):
        find_benchmarks(["held-out"], ["corruptions=fog"])
    with pytest.raises(MedkitError, match=r"--set severities\.0: Input should be less than or equal to 5"):
        find_benchmarks(["held-out"], ["severities=[7]"])


def test_the_command_line_sets_the_hardware(folders, tmp_path, monkeypatch):
    from medkit.errors import MedkitError
    from medkit.evaluation import standalone

    hardware, others = standalone.read_hardware(["limit=9", "hardware.processes=2", "hardware.device=cpu"])
    assert (hardware.processes, hardware.device, hardware.precision, others) == (
        2,
        "cpu",
        "auto",
        ["limit=9"],
    )
    for given, told in (
        ("hardware.processes=0", r"--set hardware\.processes: Input should be greater than or equal to 1"),
        ("hardware.precision=fp8", r"--set hardware\.precision: Input should be 'auto'"),
        ("hardware.threads=2", r"must be hardware\.KEY=VALUE with device, precision or processes"),
        ("hardware.processes", r"must be hardware\.KEY=VALUE"),
    ):
        with pytest.raises(MedkitError, match=told):
            standalone.read_hardware([given])

    seen: list[int] = []

    def asked(settings, inputs, out):
        seen.append(settings["hardware"]["processes"])
        if len(seen) > 1:
            (out / "scores.json").write_text("{}")

    monkeypatch.setattr(standalone, "evaluate", asked)
    cards = standalone.find_benchmarks(["held-out"])
    place = (folders / "stage", cards, folders / "data", tmp_path)
    with pytest.raises(FileNotFoundError):  # stopped
        standalone.evaluate_alone(*place, hardware=hardware)
    # how many processes ask is no part of what an evaluation is, the precision is
    one = hardware.model_copy(update={"processes": 1})
    assert standalone.evaluate_alone(*place, hardware=one) == {} and seen == [2, 1]
    with pytest.raises(MedkitError, match=r"another task \(other hardware"):
        standalone.evaluate_alone(*place, hardware=one.model_copy(update={"precision": "bf16"}))
    with pytest.raises(MedkitError, match="--retry-failed is for endpoints"):
        standalone.evaluate_alone(*place, retry_failed=True)
