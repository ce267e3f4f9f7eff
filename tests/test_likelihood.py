"""Closed questions answered by likelihood: candidates of the question, values that plain transformers gives."""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import replace

import pytest
from tiny_evaluation import build_model, write_dataset

from medkit.errors import ModelError
from medkit.evaluation import likelihood
from medkit.evaluation.evaluate import PARTIAL, _images_of, evaluate
from medkit.evaluation.likelihood import candidates_of, choose_answers
from medkit.evaluation.questions import Question, read_questions, with_controls
from medkit.models.contract import prepare_image
from medkit.sample import assistant_turn, user_turn
from medkit.store import open_dataset
from medkit.training.encode import render_prompt


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    folder = tmp_path_factory.mktemp("likelihood")
    loaded = build_model(folder / "model")
    dataset = open_dataset(write_dataset(folder / "data"))
    asked = with_controls(read_questions(dataset, "held-out"), ["blank", "shuffled", "text"])
    return folder, loaded, dataset, [question for question in asked if candidates_of(question)]


def _choose(bench, partial, **changed):
    _, loaded, dataset, questions = bench
    return choose_answers(
        loaded.model,
        loaded.processor,
        changed.pop("questions", questions),
        _images_of(dataset, loaded.contract),
        prompt_of=lambda messages: render_prompt(loaded.processor, messages),
        partial=partial,
        **changed,
    )


def _question(text: str, choices: list[str], answer_type: str = "choice") -> Question:
    return Question("b", "none", "q", "g", "k", answer_type, [user_turn(text, 1)], ["i"], ["left"], choices)


def test_candidates_are_those_of_the_question():
    assert candidates_of(_question("is it?", [], "yes_no")) == {"yes": ["yes", "Yes"], "no": ["no", "No"]}
    assert candidates_of(_question("which side?", ["left", "right"])) == {
        "left": ["left"],
        "right": ["right"],
    }
    assert candidates_of(_question("which?\nA. left\nB. right", ["left", "right"])) == {
        "left": ["left", "A", "A. left"],
        "right": ["right", "B", "B. right"],
    }
    many = [f"part {number}" for number in range(12)]
    listed = "\n".join(f"{letter}. {part}" for letter, part in zip("ABCDEFGHIJKL", many, strict=True))
    assert list(candidates_of(_question(f"which?\n{listed}", many))) == many
    assert candidates_of(_question("what?", [], "open")) == {}
    assert candidates_of(_question("what?", ["left", "left"])) == {}


def test_values_are_those_of_one_forward_pass_without_batch_and_cache(bench, tmp_path):
    import torch

    _, loaded, dataset, questions = bench
    found = _choose(bench, tmp_path / "partial", batch_size=11)
    assert {(row["control"], len(row["candidates"])) for row in found.values()} == {
        (control, 2) for control in ("none", "blank", "shuffled", "text")
    }
    tokenizer = loaded.processor.tokenizer
    picked = [one for one in questions if one.control in ("none", "text") and one.id.startswith("r5")]
    assert len(picked) == 4
    for question in picked:
        pictures = [prepare_image(dataset.image(ref), loaded.contract) for ref in question.images]
        for name, spellings in candidates_of(question).items():
            total = 0.0
            for spelling in spellings:
                turns = [*question.messages, assistant_turn(spelling)]
                text = loaded.processor.apply_chat_template(turns, tokenize=False)
                prompt = render_prompt(loaded.processor, question.messages)
                assert text.endswith(tokenizer.eos_token)
                count = len(tokenizer(text, add_special_tokens=False)["input_ids"])
                count -= len(tokenizer(prompt, add_special_tokens=False)["input_ids"])
                inputs = loaded.processor(
                    text=text, images=pictures or None, add_special_tokens=False, return_tensors="pt"
                )
                with torch.no_grad():
                    logits = loaded.model(**inputs).logits.log_softmax(-1)[0]
                ids = inputs["input_ids"][0]
                total += math.exp(sum(float(logits[-1 - k, ids[-k]]) for k in range(1, count + 1)))
            value = found[question.key]["candidates"][name]
            assert value == pytest.approx(math.log(total), abs=2e-4)


def test_values_depend_on_neither_batch_nor_path(bench, tmp_path, monkeypatch):
    one = _choose(bench, tmp_path / "1", batch_size=1)
    many = _choose(bench, tmp_path / "64", batch_size=64)
    monkeypatch.setattr(likelihood, "shares_prefixes", lambda _: False)
    whole = _choose(bench, tmp_path / "whole")
    assert len({row["answer"] for row in one.values()}) > 1, "one answer to all would say nothing"
    for key, row in one.items():
        assert row["answer"] == max(row["candidates"], key=row["candidates"].get)
        for other in (many, whole):
            assert other[key]["candidates"] == pytest.approx(row["candidates"], abs=2e-4)
            assert other[key]["answer"] == row["answer"]


def test_confidence_is_the_share_of_the_best_candidate(bench, tmp_path):
    for row in _choose(bench, tmp_path / "partial").values():
        values = [math.exp(value) for value in row["candidates"].values()]
        assert row["confidence"] == pytest.approx(max(values) / sum(values), abs=1e-5)
        assert 0.5 <= row["confidence"] <= 1 and not row["truncated"]


def test_per_token_divides_by_the_length_of_the_best_spelling(bench, tmp_path):
    question = next(one for one in bench[3] if one.choices and one.control == "none")
    sums = _choose(bench, tmp_path / "sums", questions=[question])[question.key]["candidates"]
    means = _choose(bench, tmp_path / "means", questions=[question], per_token=True)
    tokenizer = bench[1].processor.tokenizer
    for name, value in means[question.key]["candidates"].items():
        tokens = len(tokenizer(f" {name}{tokenizer.eos_token}", add_special_tokens=False)["input_ids"])
        assert value == pytest.approx(sums[name] / tokens, abs=1e-5)


def test_a_stopped_run_goes_on_and_asks_nothing_twice(bench, tmp_path, monkeypatch):
    expected = _choose(bench, tmp_path / "whole", batch_size=8)
    lines = (tmp_path / "whole").read_bytes().splitlines(keepends=True)
    (tmp_path / "partial").write_bytes(b"".join(lines[:13]) + lines[13][:40])
    asked: list[str] = []
    score = likelihood._score
    monkeypatch.setattr(likelihood, "_score", lambda *args: (asked.extend(args[2]), score(*args))[1])
    again = _choose(bench, tmp_path / "partial", batch_size=8)
    assert {key: row["answer"] for key, row in again.items()} == {
        key: row["answer"] for key, row in expected.items()
    }
    assert len(asked) == len(bench[3]) - 13
    keys = Counter(
        (row["control"], row["id"])
        for row in map(json.loads, (tmp_path / "partial").read_text().splitlines())
    )
    assert set(keys.values()) == {1} and len(keys) == len(bench[3])


def test_a_template_that_rewrites_the_question_is_refused(bench, tmp_path):
    question = bench[3][0]
    with pytest.raises(ModelError, match="chat template rewrites the question"):
        choose_answers(
            bench[1].model, bench[1].processor, [question], lambda _: [],
            prompt_of=lambda _: "something else", partial=tmp_path / "partial",
        )  # fmt: skip


def test_an_evaluation_scores_what_is_closed_and_generates_the_rest(bench, tmp_path, monkeypatch):
    card = {
        "name": "held-out", "source": {"split": "test"}, "controls": ["blank"], "max_new_tokens": 4,
        "answering": "likelihood",
    }  # fmt: skip
    settings = {"name": "m", "benchmarks": [card], "hardware": {"device": "cpu"}, "batch_check": 6}
    evaluate(settings, {"model": bench[0] / "model", "data": bench[0] / "data"}, tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "answers.jsonl").read_text("utf-8").splitlines()]
    scores = json.loads((tmp_path / "scores.json").read_text("utf-8"))
    entry = scores["benchmarks"]["held-out"]
    assert (entry["answering"], entry["by_likelihood"], entry["count"]) == ("likelihood", 12, 18)
    for row in rows:
        assert ("candidates" in row) == (row["answer_type"] in ("yes_no", "choice"))
        if "candidates" in row:
            assert row["answer"] in row["candidates"] and len(row["candidates"]) == 2
    assert scores["decoding"]["batch_check"] == {"asked_alone": 6, "same": 6}
    assert entry["calibration"]["count"] >= 12 and entry["unparsed"] + entry["empty"] <= 6
    assert not (tmp_path / PARTIAL).exists()
    # One file keeps both kinds of replies: with all of them there, a second evaluation asks nothing.
    from medkit.evaluation import generate

    monkeypatch.setattr(generate, "_answer", lambda *_: pytest.fail("generated again"))
    monkeypatch.setattr(likelihood, "_score", lambda *_: pytest.fail("scored again"))
    again = tmp_path / "again"
    again.mkdir()
    names = (
        "benchmark",
        "control",
        "id",
        "prompt",
        "answer",
        "truncated",
        "confidence",
        "latency_s",
        "candidates",
    )
    kept = [{name: row[name] for name in names if name in row} for row in rows]
    (again / PARTIAL).write_text("".join(json.dumps(row) + "\n" for row in kept), "utf-8")
    settings["batch_check"] = 0
    evaluate(settings, {"model": bench[0] / "model", "data": bench[0] / "data"}, again)
    assert (again / "answers.jsonl").read_bytes() == (tmp_path / "answers.jsonl").read_bytes()


def test_an_endpoint_is_refused_in_one_sentence(bench, tmp_path):
    from medkit.evaluation.endpoint_card import EndpointCard

    card = {"name": "held-out", "source": {"split": "test"}, "answering": "likelihood"}
    endpoint = EndpointCard(url="http://127.0.0.1:9/v1", model="m")
    with pytest.raises(ModelError, match="answering likelihood needs the probabilities of a model folder"):
        evaluate({"benchmarks": [card], "endpoint": endpoint}, {"data": bench[0] / "data"}, tmp_path)


def test_letters_need_every_option_listed():
    lettered = _question("which?\nA. left\nB. right", ["left", "right", "both"])
    assert candidates_of(lettered)["left"] == ["left"]
    assert candidates_of(replace(lettered, choices=["left", "right"]))["left"] == ["left", "A", "A. left"]


@pytest.mark.parametrize("family", ["qwen2_5_vl", "gemma3", "internvl", "llava_next"])
def test_other_families_give_the_values_of_one_forward_pass(family, tmp_path):
    import torch
    from families import build_family
    from PIL import Image

    loaded = build_family(family, tmp_path / "model")
    picture = Image.effect_mandelbrot((64, 64), (-2, -1.5, 1, 1.5), 40).convert("RGB")
    question = _question("is there a red circle?", [], "yes_no")
    found = choose_answers(
        loaded.model, loaded.processor, [question], lambda _: [picture],
        prompt_of=lambda messages: render_prompt(loaded.processor, messages), partial=tmp_path / "partial",
    )[question.key]  # fmt: skip
    tokenizer = loaded.processor.tokenizer
    prompt = render_prompt(loaded.processor, question.messages)
    totals = []
    for spelling in ("yes", "Yes"):
        text = loaded.processor.apply_chat_template(
            [*question.messages, assistant_turn(spelling)], tokenize=False
        )
        text = text[: text.rindex(tokenizer.eos_token) + len(tokenizer.eos_token)]
        bos = tokenizer.bos_token is not None and text.startswith(tokenizer.bos_token)
        inputs = loaded.processor(
            text=[text], images=[[picture]], add_special_tokens=not bos, return_tensors="pt"
        )
        count = len(tokenizer(text, add_special_tokens=False)["input_ids"])
        count -= len(tokenizer(prompt, add_special_tokens=False)["input_ids"])
        with torch.no_grad():
            logits = loaded.model(**inputs).logits.log_softmax(-1)[0]
        ids = inputs["input_ids"][0]
        totals.append(math.exp(sum(float(logits[-1 - k, ids[-k]]) for k in range(1, count + 1))))
    assert found["candidates"]["yes"] == pytest.approx(math.log(sum(totals)), abs=2e-4)
