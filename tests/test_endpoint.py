"""An endpoint is scored by the code that scores checkpoints; whatever it does wrong is counted, never a number."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import multiprocessing
import os
import random
import re
import signal
import time
from pathlib import Path

import pytest
from fake_endpoint import MODEL, completion, serving
from PIL import Image
from tiny_evaluation import build_model, write_dataset

from medkit.cards.models import Benchmark
from medkit.errors import CardError, MedkitError, ModelError
from medkit.evaluation.endpoint_card import EndpointCard, read_endpoint
from medkit.evaluation.remote import data_url
from medkit.evaluation.standalone import evaluate_alone, summary_lines

pytest.importorskip(
    "openai", reason="an endpoint needs the openai package: pip install 'medkit-lmm[endpoint]'"
)

BENCHMARK = Benchmark(name="held-out", title="t", description="d", licence="CC0-1.0", max_new_tokens=8)
ANSWERS = ["yes", "no", "2", "left", "right", "three cells"]


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("endpoint") / "data", train=1, test=6)


@pytest.fixture(autouse=True)
def _no_key(monkeypatch):
    for name in ("MEDKIT_ENDPOINT_KEY", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)


def card(url: str, **changes) -> EndpointCard:
    settings = {
        "model": MODEL,
        "concurrency": 4,
        "tries": 3,
        "timeout_s": 10.0,
        "wait_s": 0.01,
        "give_up_after": 1000,
    }
    return EndpointCard(url=url, **{**settings, **changes})


def answer(asked: dict, _: int = 0) -> dict:
    """Answers by what was asked, the picture included: equal questions have equal answers."""
    digest = hashlib.sha256(json.dumps(asked["messages"]).encode()).digest()
    return completion(ANSWERS[digest[0] % len(ANSWERS)])


def rows_of(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "answers.jsonl").read_text("utf-8").splitlines()]


def without_times(out: Path) -> list[dict]:
    return [{name: value for name, value in row.items() if name != "latency_s"} for row in rows_of(out)]


def test_an_endpoint_gets_rows_and_scores_as_a_checkpoint_does(data, tmp_path):
    with serving(answer) as server:
        scores = evaluate_alone(card(server.url), [BENCHMARK], data, tmp_path)
    rows = rows_of(tmp_path)
    assert len(rows) == len(server.asked) == 6 * 3 * 3
    entry = scores["benchmarks"]["held-out"]
    assert (entry["count"], entry["failed"], set(entry["controls"])) == (18, 0, {"blank", "shuffled"})
    right = [row["correct"] for row in rows if row["control"] == "none"]
    assert entry["accuracy"]["value"] == pytest.approx(sum(right) / 18, abs=1e-6)
    assert scores["decoding"] == {
        "method": "greedy", "endpoint": server.url, "model": MODEL, "served_by": [MODEL], "failed": {}, "tries": 54,
    }  # fmt: skip
    asked = server.asked[0]
    assert (asked["model"], asked["temperature"], asked["max_tokens"]) == (MODEL, 0, 8)
    image, text = asked["messages"][0]["content"]
    assert (
        text == {"type": "text", "text": json.loads(rows[0]["prompt"])[0]["content"][1]["text"]}
        or text["text"]
    )
    assert image["image_url"]["url"].startswith("data:image/png;base64,")


def test_the_picture_that_is_sent_has_the_pixels_that_are_stored(data, tmp_path):
    from medkit.store import open_dataset

    with serving(answer) as server:
        evaluate_alone(card(server.url, concurrency=1), [BENCHMARK], data, tmp_path)
    row = next(row for row in rows_of(tmp_path) if row["control"] == "none")
    url = server.asked[0]["messages"][0]["content"][0]["image_url"]["url"]
    sent = Image.open(io.BytesIO(base64.b64decode(url.split(",")[1])))
    assert sent.tobytes() == open_dataset(data).image(row["image"]).tobytes()
    blank = server.asked[18]["messages"][0]["content"][0]["image_url"]["url"]
    grey = Image.open(io.BytesIO(base64.b64decode(blank.split(",")[1])))
    assert (grey.size, grey.getcolors()) == ((24, 20), [(480, (128, 128, 128))])


def test_an_endpoint_sees_each_control_as_a_checkpoint_does(data, tmp_path):
    from medkit.evaluation.controls import noise_image
    from medkit.evaluation.corruptions import Corruption, corrupted
    from medkit.store import open_dataset

    changed = {"controls": ["noise", "text"], "corruptions": ["blur"], "severities": [3]}
    with serving(answer) as server:
        benchmark = BENCHMARK.model_copy(update=changed)
        scores = evaluate_alone(card(server.url, concurrency=1), [benchmark], data, tmp_path)
    entry = scores["benchmarks"]["held-out"]
    assert set(entry["controls"]) == {"noise", "text"} and list(entry["corruptions"]["blur"]) == ["3"]
    assert len(server.asked) == 18 * 4
    rows = {control: next(row for row in rows_of(tmp_path) if row["control"] == control)
            for control in ("none", "noise", "text", "blur:3")}  # fmt: skip
    ref = rows["none"]["image"]
    sent: dict[str, Image.Image] = {}
    for control, place in (("noise", 18), ("blur:3", 54)):
        url = server.asked[place]["messages"][0]["content"][0]["image_url"]["url"]
        sent[control] = Image.open(io.BytesIO(base64.b64decode(url.split(",")[1])))
    picture = open_dataset(data).image(ref)
    assert sent["noise"].tobytes() == noise_image(picture.size, ref).tobytes()
    assert sent["blur:3"].tobytes() == corrupted(picture, Corruption("blur", 3), ref).tobytes()
    assert isinstance(server.asked[36]["messages"][0]["content"], str)
    # what was sent can be told from the prompt, so that a reply to another picture never counts
    assert len({row["prompt"] for row in rows.values()}) == 4 and f"{ref} blur:3" in rows["blur:3"]["prompt"]


def test_only_size_changes_a_picture():
    buffer = io.BytesIO()
    Image.new("RGB", (40, 20), (9, 8, 7)).save(buffer, format="JPEG")
    same = base64.b64encode(buffer.getvalue()).decode()
    assert data_url(buffer.getvalue(), 40) == f"data:image/jpeg;base64,{same}"
    smaller = data_url(buffer.getvalue(), 10)
    kind, _, text = smaller.partition(",")
    assert kind == "data:image/png;base64"
    assert Image.open(io.BytesIO(base64.b64decode(text))).size == (10, 5)


FAILING = {
    "timeout": "hang",
    "HTTP 429": (429, {"error": {"message": "slow down"}}, {"Retry-After": "0"}),
    "HTTP 500": (500, b"Internal Server Error"),
    "HTTP 400": (400, {"error": {"message": "yes"}}),
    "HTTP 302": (302, b"", {"Location": "http://127.0.0.1:9/yes"}),
    "broken JSON": b'{"choices": [{"message": {"content": "yes"',
    "broken JSON ": json.dumps(completion("yes")).replace('"created": 1', '"created": NaN').encode(),
    "error in place of a reply": {"error": {"message": "yes"}},
    "error in place of a reply ": [completion("yes")],
    "no choices": {**completion("yes"), "choices": []},
    "no choices ": {**completion("yes"), "choices": "yes"},
    "no message": {**completion("yes"), "choices": [{"finish_reason": "stop"}]},
    "no text": completion(None),
    "no text ": completion(["yes"]),
    "no text  ": completion("\ud800"),
    "no end of the reply": completion("yes", finish=None),
    "no end of the reply ": completion("yes", finish="tool_calls"),
    "refused": completion("yes", refusal="I can't."),
    "refused ": completion("yes", finish="content_filter"),
    "another model answered": completion("yes", model=f"{MODEL}-mini"),
    "another model answered ": {name: value for name, value in completion("yes").items() if name != "model"},
    "connection lost": "reset",
}
ONCE = {"HTTP 302", "HTTP 400", "refused", "another model answered"}


@pytest.mark.parametrize("kind", FAILING)
def test_an_endpoint_that_always_fails_gives_no_number(data, tmp_path, kind):
    few = BENCHMARK.model_copy(update={"limit": 2, "controls": []})
    with serving(lambda *_: FAILING[kind]) as server:
        limit_s = 0.3 if kind == "timeout" else 10.0
        scores = evaluate_alone(card(server.url, timeout_s=limit_s), [few], data, tmp_path)
    rows = rows_of(tmp_path)
    assert [(row["failed"], row["answer"], row["correct"]) for row in rows] == [(kind.strip(), "", None)] * 2
    assert {value for row in rows for value in row["scores"].values()} == {None}
    entry = scores["benchmarks"]["held-out"]
    assert (entry["accuracy"], entry["count"], entry["failed"]) == (None, 0, 2)
    assert scores["decoding"]["failed"] == {kind.strip(): 2}
    assert {score for one in entry["profiles"].values() for score in one["scores"]} == set()
    assert len(server.asked) == (2 if kind.strip() in ONCE else 6)
    assert summary_lines(scores)[0] == "held-out: no accuracy: none of 2 questions has a reply"


def test_some_failures_are_counted_with_bounds_and_enter_no_number(data, tmp_path):
    def reply(asked, _):
        text = json.dumps(asked["messages"])
        return FAILING["HTTP 400"] if "how many" in text else completion("yes")

    with serving(reply) as server:
        scores = evaluate_alone(card(server.url), [BENCHMARK], data, tmp_path)
        entry = scores["benchmarks"]["held-out"]
        assert (entry["count"], entry["failed"], entry["unparsed"]) == (12, 6, 6)
        assert entry["accuracy"]["value"] == pytest.approx(3 / 12)  # yes is right for half of the yes/no six
        assert entry["bounds"] == {"low": round(3 / 18, 6), "high": round(9 / 18, 6)}
        assert entry["controls"]["blank"] | {"low": 0, "high": 0} == {
            "count": 12, "failed": 6, "value": 0.25, "low": 0, "high": 0, "survives": 1.0,
        }  # fmt: skip
        assert entry["profiles"]["medkit"]["scores"]["answer"]["count"] == 12
        from medkit.evaluation.scoring.rescore import score_file

        again = score_file(tmp_path, "medkit")["benchmarks"]["held-out"]
        assert (again["questions"], again["failed"], again["empty"]) == (18, 6, 0)
        assert again["profiles"]["medkit"]["scores"]["answer"]["value"] == pytest.approx(0.25)

        asked = len(server.asked)
        assert evaluate_alone(card(server.url), [BENCHMARK], data, tmp_path) == scores
        assert len(server.asked) == asked, "a finished evaluation asks nothing"
        server.reply = answer
        scores = evaluate_alone(card(server.url), [BENCHMARK], data, tmp_path, retry_failed=True)
        assert len(server.asked) == asked + 18
        assert scores["benchmarks"]["held-out"]["count"] == 18


def test_a_try_that_fails_is_tried_again_and_a_half_reply_is_not_taken(data, tmp_path):
    kinds = [kind for kind in FAILING if kind.strip() not in ONCE and kind != "timeout"]
    seen: dict[str, int] = {}

    def reply(asked, number):
        text = json.dumps(asked["messages"])
        seen[text] = seen.get(text, 0) + 1
        return answer(asked) if seen[text] > 1 else FAILING[kinds[number % len(kinds)]]

    with serving(answer) as server:
        expected = evaluate_alone(card(server.url), [BENCHMARK], data, tmp_path / "calm")
    with serving(reply) as server:
        found = evaluate_alone(card(server.url), [BENCHMARK], data, tmp_path / "stormy")
    assert without_times(tmp_path / "stormy") == without_times(tmp_path / "calm")
    assert found["benchmarks"] == expected["benchmarks"]
    assert found["decoding"]["tries"] > 54


@pytest.mark.parametrize(
    ("status", "said"), [(401, "refuses the key"), (403, "refuses the key"), (404, "knows no such model")]
)
def test_wrong_settings_stop_at_once(data, tmp_path, status, said):
    wrong = status, {"error": {"message": "no"}}
    with serving(lambda *_: wrong) as server, pytest.raises(ModelError, match=said):
        evaluate_alone(card(server.url), [BENCHMARK], data, tmp_path)
    assert len(server.asked) <= 4
    assert not (tmp_path / "scores.json").exists()


def test_an_endpoint_that_is_gone_stops_the_run_and_it_goes_on_later(data, tmp_path):
    with serving(lambda asked, number: answer(asked) if number <= 10 else FAILING["HTTP 500"]) as server:
        with pytest.raises(
            ModelError, match="5 questions failed one after another, the last with 'HTTP 500'"
        ):
            evaluate_alone(card(server.url, give_up_after=5, tries=1), [BENCHMARK], data, tmp_path)
        server.reply, asked = answer, len(server.asked)
        changed = card(server.url, concurrency=2)  # how it is asked may change, what it answers not
        scores = evaluate_alone(changed, [BENCHMARK], data, tmp_path, retry_failed=True)
    assert len(server.asked) - asked == 54 - 10
    assert scores["benchmarks"]["held-out"]["failed"] == 0


def test_the_key_is_sent_and_stands_nowhere(data, tmp_path, monkeypatch, caplog):
    caplog.set_level("DEBUG")
    monkeypatch.setenv("MEDKIT_ENDPOINT_KEY", "sk-very-secret")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-someone-else")
    monkeypatch.setenv("OPENAI_ORG_ID", "org-of-someone-else")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "project-of-someone-else")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    with serving(lambda *_: completion("the key is sk-very-secret")) as server:
        evaluate_alone(card(server.url), [BENCHMARK], data, tmp_path)
    assert {headers.get("authorization") for headers in server.headers} == {"Bearer sk-very-secret"}
    assert "someone-else" not in json.dumps(server.headers)
    stored = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert b"sk-very-secret" not in stored and b"the key is [key]" in stored
    assert "sk-very-secret" not in caplog.text


def test_endpoints_that_would_leak_or_mislead_are_refused(tmp_path, monkeypatch):
    for url in ("http://user:word@host/v1", "https://host/v1?api-key=secret"):
        with pytest.raises(MedkitError, match="holds no key") as told:
            read_endpoint(url, "m")
        assert "secret" not in str(told.value) and "word" not in str(told.value)
    with pytest.raises(MedkitError, match="which model is asked"):
        read_endpoint("http://127.0.0.1:1/v1")
    written = tmp_path / "endpoint.yaml"
    written.write_text("url: http://127.0.0.1:1/v1\nmodel: one\nkey: sk-1\n")
    with pytest.raises(CardError, match="unknown key"):
        read_endpoint(str(written))
    written.write_text("url: http://127.0.0.1:1/v1\nmodel: one\ntries: 2\n")
    assert (read_endpoint(str(written)).tries, read_endpoint(str(written), "two").model) == (2, "two")


def test_a_key_goes_over_https_only_and_a_named_variable_must_hold_one(data, tmp_path, monkeypatch):
    with pytest.raises(MedkitError, match=r"\$MY_KEY holds no key"):
        evaluate_alone(
            card("http://127.0.0.1:1/v1", key_variable="MY_KEY"), [BENCHMARK], data, tmp_path / "a"
        )
    monkeypatch.setenv("MEDKIT_ENDPOINT_KEY", "sk-1")
    with pytest.raises(MedkitError, match="over https only"):
        evaluate_alone(card("http://example.org/v1"), [BENCHMARK], data, tmp_path / "b")


def test_a_folder_of_another_evaluation_is_refused(data, tmp_path):
    with serving(answer) as server:
        evaluate_alone(card(server.url), [BENCHMARK], data, tmp_path)
        with pytest.raises(MedkitError, match=r"belongs to another task \(other model"):
            evaluate_alone(card(server.url, model="other"), [BENCHMARK], data, tmp_path)
        shorter = BENCHMARK.model_copy(update={"limit": 3})
        with pytest.raises(MedkitError, match=r"other benchmarks"):
            evaluate_alone(card(server.url), [shorter], data, tmp_path)


def test_a_dated_name_is_the_model_that_was_asked(data, tmp_path):
    few = BENCHMARK.model_copy(update={"limit": 2, "controls": []})
    with serving(lambda *_: completion("yes", model=f"{MODEL}-2026-01-31")) as server:
        scores = evaluate_alone(card(server.url), [few], data, tmp_path / "a")
        assert scores["decoding"]["served_by"] == [f"{MODEL}-2026-01-31"]
        asked = card(server.url, answers_as="gpt")
        assert evaluate_alone(asked, [few], data, tmp_path / "b")["benchmarks"]["held-out"]["failed"] == 2
        asked = card(server.url, answers_as="any")
        assert evaluate_alone(asked, [few], data, tmp_path / "c")["benchmarks"]["held-out"]["failed"] == 0


def _evaluate_in_child(url: str, data: Path, out: Path) -> None:
    evaluate_alone(card(url), [BENCHMARK], data, out)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_ten_kills_leave_the_answers_of_an_undisturbed_run(data, tmp_path, seed):
    """The child is killed with SIGKILL at any moment; what was answered and stored is asked no more."""
    with serving(answer) as server:
        evaluate_alone(card(server.url), [BENCHMARK], data, tmp_path / "calm")
    pause = random.Random(seed)
    context = multiprocessing.get_context("fork")
    out, kills = tmp_path / "killed", 0

    def slowly(asked, _):
        time.sleep(0.02)
        return answer(asked)

    with serving(slowly) as server:
        while not (out / "scores.json").exists():
            child = context.Process(target=_evaluate_in_child, args=(server.url, data, out))
            before = len(server.asked)
            child.start()
            if kills < 10:
                deadline, more = time.monotonic() + 20, pause.randrange(1, 5)
                while child.is_alive() and len(server.asked) < before + more and time.monotonic() < deadline:
                    time.sleep(0.002)
                time.sleep(pause.uniform(0, 0.03))
                assert child.pid is not None
                os.kill(child.pid, signal.SIGKILL)
                kills += 1
            child.join(60)
        asked = len(server.asked)
    assert kills == 10
    assert without_times(out) == without_times(tmp_path / "calm")
    # All that can be asked twice is what was under way, four requests at a kill.
    assert 54 <= asked <= 54 + 4 * kills


def test_a_checkpoint_folder_is_scored_the_same_way_and_checked_alone(data, tmp_path, monkeypatch):
    build_model(tmp_path / "model")
    scores = evaluate_alone(tmp_path / "model", [BENCHMARK], data, tmp_path / "out")
    assert scores["decoding"]["batch_check"] == {"asked_alone": 8, "same": 8}
    assert summary_lines(scores)[-1] == "Asked alone, 8 of 8 answers are the same as in a batch"
    assert not (tmp_path / "out/alone.partial.jsonl").exists()

    from medkit.evaluation import generate

    real = generate._answer

    def depends_on_the_batch(model, processor, inputs, config):
        many = len(inputs["input_ids"]) > 1
        return [(f"{text} {many}", *rest) for text, *rest in real(model, processor, inputs, config)]

    monkeypatch.setattr(generate, "_answer", depends_on_the_batch)
    with pytest.raises(ModelError, match="8 of 8 answers are others in a batch of 32 than alone"):
        evaluate_alone(tmp_path / "model", [BENCHMARK], data, tmp_path / "other")


def test_the_page_names_every_key_of_the_card_with_its_default():
    page = (Path(__file__).resolve().parent.parent / "docs/endpoints.md").read_text("utf-8")
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \| .+ \|$", page.split("## Judges")[0], re.MULTILINE)
    assert dict(rows) == {
        name: "required" if field.is_required() else str(field.default) or '""'
        for name, field in EndpointCard.model_fields.items()
    }


def test_the_commands_of_the_page_parse():
    import shlex

    from typer.main import get_command

    from medkit.cli import app

    page = (Path(__file__).resolve().parent.parent / "docs/endpoints.md").read_text("utf-8")
    commands = [shlex.split(line)[2:] for line in page.splitlines() if line.startswith("$ medkit ")]
    assert len(commands) >= 7
    for verb, *words in commands:
        get_command(app).commands[verb].make_context(verb, words)  # type: ignore[attr-defined]
