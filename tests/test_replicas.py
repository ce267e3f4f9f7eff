"""Several processes give the answers of one, also after a kill and with another number of processes."""

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
from test_evaluate import CARD
from tiny_evaluation import build_model, write_dataset

from medkit.errors import ModelError
from medkit.evaluation.evaluate import PARTIAL, evaluate
from medkit.evaluation.questions import Question
from medkit.evaluation.replicas import answer_in_processes, gather_replies, split_questions
from medkit.evaluation.replies import append_replies, read_replies
from medkit.sample import user_turn

ROOT = Path(__file__).parents[1]


def _question(number: int, picture: str) -> Question:
    turns = [user_turn("what?", images=1)]
    return Question("b", "none", str(number), "g", "k", "open", turns, [picture], ["red"])


def test_questions_about_a_picture_stay_together_in_parts_of_like_size():
    asked = {"b": [_question(number, f"picture {number % 7}") for number in range(30)]}
    parts = split_questions(asked, 3)
    pictures = [{question.images[0] for question in part["b"]} for part in parts]
    assert not (pictures[0] & pictures[1] or pictures[0] & pictures[2] or pictures[1] & pictures[2])
    assert sorted(int(one.id) for part in parts for one in part["b"]) == list(range(30))
    assert max(len(part["b"]) for part in parts) - min(len(part["b"]) for part in parts) <= 5


def _reply(number: int, answer: str) -> dict[str, str]:
    return {"benchmark": "b", "control": "none", "id": str(number), "prompt": "p", "answer": answer}


def _write(path: Path, *rows: dict[str, str]) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_one_process_takes_over_what_several_answered(tmp_path):
    _write(tmp_path / PARTIAL, _reply(0, "red"), _reply(1, "of another prompt"))
    _write(tmp_path / "replica-0" / PARTIAL, _reply(0, "red"), _reply(1, "blue"))
    _write(tmp_path / "replica-1" / PARTIAL, _reply(2, "green"))
    with (tmp_path / "replica-1" / PARTIAL).open("a") as file:
        file.write('{"benchmark": "b", "contr')
    gather_replies(tmp_path, PARTIAL)
    rows = [json.loads(line) for line in (tmp_path / PARTIAL).read_text().splitlines()]
    assert [row["answer"] for row in rows] == ["red", "of another prompt", "blue", "green"]
    assert {key[2]: reply["answer"] for key, reply in read_replies(tmp_path / PARTIAL)}["1"] == "blue"
    assert not list(tmp_path.glob("replica*"))


def _say_red(settings, share, folder):
    replies = {question.key: _reply(int(question.id), "red") for question in share["b"]}
    with (folder / PARTIAL).open("ab") as file:
        append_replies(file, list(replies.values()))
    return replies, {}


@pytest.mark.slow
def test_replies_stay_until_the_answers_are_written(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(ROOT / "tests")]))
    asked = {"b": [_question(number, f"picture {number}") for number in range(4)]}
    replies, _ = answer_in_processes(_say_red, 2, {}, asked, (), tmp_path, PARTIAL)
    assert len(replies) == 4 and dict(read_replies(tmp_path / PARTIAL)) == replies
    assert not list(tmp_path.glob("replica*"))


def _refuse(settings, share, folder):
    raise ModelError(f"{folder.name} can't")


def _vanish(settings, share, folder):
    os._exit(9)


@pytest.mark.slow
@pytest.mark.parametrize(("work", "told"), [(_refuse, "can't"), (_vanish, "ended without a word")])
def test_what_goes_wrong_in_a_process_is_told(tmp_path, monkeypatch, work, told):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(ROOT / "tests")]))
    asked = {"b": [_question(number, f"picture {number}") for number in range(4)]}
    with pytest.raises(ModelError, match=told):
        answer_in_processes(work, 2, {}, asked, (), tmp_path, PARTIAL)


def _evaluate(folders: Path, out: Path, processes: int, engine: str = "local") -> dict[str, list]:
    out.mkdir(exist_ok=True)
    hardware = {"device": "cpu", "processes": processes, "engine": engine}
    settings = {"benchmarks": [CARD | {"answering": "likelihood"}], "hardware": hardware, "batch_check": 3}
    evaluate(settings, {"model": folders / "stage", "data": folders / "data"}, out)
    rows = [json.loads(line) for line in (out / "answers.jsonl").read_text().splitlines()]
    return {name: [row[name] for row in rows] for name in ("id", "control", "answer", "correct")}


@pytest.mark.slow
def test_two_processes_give_the_answers_of_one_also_after_a_kill(tmp_path):
    folders = tmp_path / "folders"
    build_model(folders / "stage" / "model")
    write_dataset(folders / "data")
    alone = _evaluate(folders, tmp_path / "alone", 1)
    assert len(alone["id"]) == 54

    out = tmp_path / "together"
    script = f"""
        import sys
        from pathlib import Path
        sys.path.insert(0, {str(ROOT / "tests")!r})
        if __name__ == "__main__":
            from test_replicas import _evaluate
            _evaluate(Path({str(folders)!r}), Path({str(out)!r}), 2)
    """
    path = tmp_path / "child.py"
    path.write_text(textwrap.dedent(script))
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    child = subprocess.Popen([sys.executable, str(path)], stderr=subprocess.DEVNULL, env=environment)
    deadline = time.monotonic() + 200
    partials = []
    while child.poll() is None and time.monotonic() < deadline:
        partials = [one for one in out.glob(f"replica-*/{PARTIAL}") if one.read_bytes().count(b"\n") > 0]
        if partials:
            os.kill(child.pid, signal.SIGKILL)
            break
        time.sleep(0.005)
    child.wait(timeout=60)
    assert partials, "the child answered nothing"
    time.sleep(2)  # the orphans see that their parent is gone
    kept = {line for one in out.glob(f"replica-*/{PARTIAL}") for line in one.read_text().splitlines(True)}
    kept = {line for line in kept if line.endswith("\n")}
    assert 0 < len(kept) <= 54

    assert _evaluate(folders, out, 3) == alone
    assert not list(out.glob("replica*"))
    scores = json.loads((out / "scores.json").read_text())
    assert scores["decoding"]["processes"] == 3
    assert scores["decoding"]["batch_check"] == {"asked_alone": 9, "same": 9}
    answered = [json.loads(line)["latency_s"] for line in kept]
    rows = [json.loads(line) for line in (out / "answers.jsonl").read_text().splitlines()]
    # replies from before the kill are those that count: their times show that they were not asked again
    assert set(answered) <= {row["latency_s"] for row in rows}


@pytest.mark.slow
def test_a_ray_cluster_gives_the_answers_of_one_process(tmp_path, monkeypatch):
    pytest.importorskip("ray.data", reason="the extra ray isn't installed")
    folders = tmp_path / "folders"
    build_model(folders / "stage" / "model")
    write_dataset(folders / "data")
    alone = _evaluate(folders, tmp_path / "alone", 1)
    assert _evaluate(folders, tmp_path / "ray", 2, "ray") == alone
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(ROOT / "tests")]))
    asked = {"b": [_question(number, f"picture {number}") for number in range(4)]}
    settings = {"hardware": {"engine": "ray"}}
    with pytest.raises(ModelError, match="can't"):
        answer_in_processes(_refuse, 2, settings, asked, (), tmp_path, PARTIAL)
