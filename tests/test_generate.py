"""Answers don't depend on the batch, and a killed evaluation goes on with nothing asked twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from tiny_evaluation import build_model, write_dataset

from medkit.evaluation.evaluate import _images_of
from medkit.evaluation.generate import answer_questions
from medkit.evaluation.prefixes import Prompts
from medkit.evaluation.questions import read_questions, with_controls
from medkit.models.contract import prepare_image
from medkit.store import open_dataset
from medkit.training.encode import render_prompt


class Bench:
    """A model, its questions, and a count of what is really asked."""

    def __init__(self, folder: Path):
        self.loaded = build_model(folder / "model")
        self.dataset = open_dataset(write_dataset(folder / "data"))
        self.questions = with_controls(read_questions(self.dataset, "held-out"), ["blank", "shuffled"])
        self.asked: list[tuple[str, str, str]] = []

    def answers(
        self, partial: Path, batch_size: int = 8, max_new_tokens: int = 6, stop_after: int | None = None
    ):
        show = _images_of(self.dataset, self.loaded.contract)

        def images(question):
            if stop_after is not None and len(self.asked) >= stop_after:
                raise KeyboardInterrupt
            self.asked.append(question.key)
            return show(question)

        return answer_questions(
            self.loaded.model,
            self.loaded.processor,
            self.questions,
            images,
            prompt_of=lambda messages: render_prompt(self.loaded.processor, messages),
            partial=partial,
            batch_size=batch_size,
            max_new_tokens=max_new_tokens,
        )


@pytest.fixture(scope="module")
def _bench(tmp_path_factory):
    return Bench(tmp_path_factory.mktemp("bench"))


@pytest.fixture
def bench(_bench):
    _bench.asked.clear()
    return _bench


def _said(replies):
    return {key: (reply["answer"], reply["truncated"]) for key, reply in replies.items()}


def test_answers_are_the_same_for_every_batch_size(bench, tmp_path):
    alone = _said(bench.answers(tmp_path / "1", batch_size=1))
    assert len(alone) == 6 * 3 * 3
    assert len(set(alone.values())) >= 6, "the model must answer differently, or the test says nothing"
    for batch_size in (7, 64):
        assert _said(bench.answers(tmp_path / str(batch_size), batch_size=batch_size)) == alone


def test_answers_equal_plain_transformers(bench, tmp_path):
    """The reply is what apply_chat_template and generate give for one question, without medkit."""
    import torch

    replies = bench.answers(tmp_path / "partial", max_new_tokens=6)
    model, processor = bench.loaded.model, bench.loaded.processor
    for question in [question for question in bench.questions if question.control == "none"][:5]:
        picture = bench.dataset.image(question.images[0])
        inputs = processor(
            text=processor.apply_chat_template(question.messages, add_generation_prompt=True),
            images=prepare_image(picture, bench.loaded.contract),
            add_special_tokens=False,
            return_tensors="pt",
        )
        with torch.no_grad():
            output = model.generate(**inputs, max_new_tokens=6, do_sample=False)
        reply = processor.tokenizer.decode(
            output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True
        )
        assert replies[question.key]["answer"] == reply.strip()


def test_reading_a_prefix_once_changes_no_answer(bench, tmp_path, monkeypatch):
    rows: list[int] = []
    hook = bench.loaded.model.model.vision_tower.register_forward_pre_hook(
        lambda _, args, kwargs: rows.append(len(kwargs.get("pixel_values", args[0] if args else None))),
        with_kwargs=True,
    )
    try:
        shared = _said(bench.answers(tmp_path / "shared", batch_size=18))
        seen = sum(rows)
        rows.clear()
        monkeypatch.setattr("medkit.evaluation.generate.shares_prefixes", lambda _: False)
        assert _said(bench.answers(tmp_path / "whole", batch_size=18)) == shared
    finally:
        hook.remove()
    # six pictures, each under none and shuffled together, and one blank; without sharing every question's
    assert (seen, sum(rows)) == (7, 54)


@pytest.mark.parametrize("image_first", [True, False])
def test_prefixes_are_held_only_where_questions_share_them(bench, image_first):
    loaded, picture = bench.loaded, bench.dataset.image(bench.questions[0].images[0])
    picture = prepare_image(picture, loaded.contract)
    image, asked = loaded.processor.image_token, ("left or right", "right or left")  # equally long
    texts = [f"{image}{text} no" if image_first else f"{text}{image} no" for text in asked]
    token = loaded.model.config.image_token_id
    [inputs] = Prompts(loaded.processor, texts, [[picture]] * 2, [[0, 1]], token).inputs(loaded.model)
    assert ("past_key_values" in inputs, "pixel_values" in inputs) == (image_first, not image_first)


def test_the_end_token_stops_and_the_limit_is_told(bench, tmp_path):
    import torch

    assert all(reply["truncated"] for reply in bench.answers(tmp_path / "long", max_new_tokens=3).values())
    model, eos = bench.loaded.model, bench.loaded.processor.tokenizer.eos_token_id

    def only_eos(module, inputs, output):
        output.logits = torch.zeros_like(output.logits)
        output.logits[..., eos] = 1.0
        return output

    hook = model.register_forward_hook(only_eos)
    try:
        replies = bench.answers(tmp_path / "short", max_new_tokens=3)
    finally:
        hook.remove()
    assert {(reply["answer"], reply["truncated"]) for reply in replies.values()} == {("", False)}


def test_sampling_settings_of_the_checkpoint_have_no_say(bench, tmp_path):
    expected = _said(bench.answers(tmp_path / "plain"))
    own = bench.loaded.model.generation_config
    kept = (own.do_sample, own.temperature, own.repetition_penalty)
    own.do_sample, own.temperature, own.repetition_penalty = True, 5.0, 3.0
    try:
        assert _said(bench.answers(tmp_path / "sampled")) == expected
    finally:
        own.do_sample, own.temperature, own.repetition_penalty = kept


def test_an_interrupted_run_goes_on_and_asks_nothing_twice(bench, tmp_path, monkeypatch):
    # One thread opens the pictures in the order of the questions: it is known what was answered at the stop.
    monkeypatch.setattr("medkit.evaluation.generate.PREPARING", 1)
    expected = _said(bench.answers(tmp_path / "whole"))
    bench.asked.clear()
    partial = tmp_path / "partial"
    for stop_after in (20, 39):
        with pytest.raises(KeyboardInterrupt):
            bench.answers(partial, stop_after=stop_after)
        bench.asked[:] = [tuple(json.loads(line)[name] for name in ("benchmark", "control", "id"))
                          for line in partial.read_text().splitlines()]  # fmt: skip
    assert len(bench.asked) == 32
    assert _said(bench.answers(partial)) == expected
    keys = [json.loads(line)["control"] + json.loads(line)["id"] for line in partial.read_text().splitlines()]
    assert len(keys) == len(set(keys)) == len(bench.questions)
    assert len(bench.asked) == len(set(bench.asked)) == len(bench.questions)


@pytest.mark.parametrize(
    "tail", [b'{"benchmark": "held-out", "contr', b"\x00\x00\x00", b'{"benchmark": 1}\n', b"7\n"]
)
def test_a_torn_end_is_cut_off(bench, tmp_path, tail):
    whole = tmp_path / "whole"
    expected = _said(bench.answers(whole))
    lines = whole.read_bytes().splitlines(keepends=True)
    partial = tmp_path / "partial"
    partial.write_bytes(b"".join(lines[:13]) + tail)
    bench.asked.clear()
    assert _said(bench.answers(partial)) == expected
    assert len(bench.asked) == len(bench.questions) - 13
    assert [json.loads(line)["id"] for line in partial.read_text().splitlines()].count("r4-count") == 3


def test_a_whole_line_without_its_newline_is_asked_again(bench, tmp_path):
    whole = tmp_path / "whole"
    bench.answers(whole)
    partial = tmp_path / "partial"
    partial.write_bytes(whole.read_bytes()[:-1])
    bench.asked.clear()
    bench.answers(partial)
    assert len(bench.asked) == 1
    assert len(partial.read_text().splitlines()) == len(bench.questions)


def test_a_reply_to_another_prompt_does_not_count(bench, tmp_path):
    partial = tmp_path / "partial"
    bench.answers(partial)
    rows = [json.loads(line) for line in partial.read_text().splitlines()]
    rows[0]["prompt"] += " "
    partial.write_text("".join(json.dumps(row) + "\n" for row in rows))
    bench.asked.clear()
    bench.answers(partial)
    assert bench.asked == [(rows[0]["benchmark"], rows[0]["control"], rows[0]["id"])]


@pytest.mark.slow
def test_a_killed_process_leaves_a_file_to_go_on_from(bench, tmp_path):
    expected = _said(bench.answers(tmp_path / "whole"))
    script = textwrap.dedent(
        f"""
        import sys, time
        from pathlib import Path
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        from test_generate import Bench
        bench = Bench(Path({str(tmp_path)!r}) / "child")
        bench.loaded.model.register_forward_pre_hook(lambda *_: time.sleep(0.05))
        bench.answers(Path({str(tmp_path / "partial")!r}), batch_size=8)
        """
    )
    partial = tmp_path / "partial"
    child = subprocess.Popen(
        [sys.executable, "-c", script], stderr=subprocess.DEVNULL, cwd=Path(__file__).parents[1]
    )
    deadline = time.monotonic() + 120
    while child.poll() is None and time.monotonic() < deadline:
        if partial.exists() and partial.read_bytes().count(b"\n") >= 8:
            os.kill(child.pid, signal.SIGKILL)
            break
        time.sleep(0.01)
    child.wait(timeout=60)
    done = partial.read_bytes().count(b"\n")
    assert 8 <= done < len(bench.questions)
    bench.asked.clear()
    assert _said(bench.answers(partial)) == expected
    assert len(bench.asked) == len(bench.questions) - done
