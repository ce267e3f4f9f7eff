"""ScienceQA's ensembles over two files of answers: complement and judge, and files that can't be joined."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from card_shelf import medkit
from fake_endpoint import completion, serving
from test_endpoint import _no_key, card  # noqa: F401  (a fixture that applies itself)

from medkit.errors import DataError, MedkitError
from medkit.evaluation.ensemble import complement, disagreements, judged, pair_answers, write_ensemble
from medkit.evaluation.scoring.rescore import score_file

# (gold letter, the first model's reply, the second's)
SAID = [
    ("A", "The answer is A.", "A"),  # same letter
    ("B", "I can't see the picture.", "B"),  # the first gives none
    ("A", "The answer is A.", "B"),  # they differ, the first is right
    ("B", "A", "The answer is B.!"),  # they differ, the second is right
    ("A", "Perhaps.", "Who knows"),  # neither gives one
]


def stored(path: Path, side: int, **more) -> Path:
    rows = [
        {"id": f"q{n}", "question": f"Which one is {n}?\nA. this\nB. that", "choices": ["this", "that"],
         "image": f"i{n}", "references": [{"A": "this", "B": "that"}[one[0]]], "answer_type": "choice",
         "answer": one[side], **more}
        for n, one in enumerate(SAID)
    ]  # fmt: skip
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def files(tmp_path) -> tuple[Path, Path]:
    return stored(tmp_path / "gpt.jsonl", 1), stored(tmp_path / "llava.jsonl", 2)


def test_the_complement_takes_the_second_where_the_first_gives_nothing(files, tmp_path, monkeypatch, capsys):
    rows = complement(pair_answers(*files))
    assert [(row["from"], row["answer"]) for row in rows] == [
        ("first", "The answer is A."), ("second", "B"), ("first", "The answer is A."), ("first", "A"),
        ("second", "Who knows"),
    ]  # fmt: skip
    out = tmp_path / "out"
    assert medkit("ensemble", str(files[0]), str(files[1]), "--out", str(out), monkeypatch=monkeypatch) == 0
    said = capsys.readouterr().out
    assert "complement of 5 answers, taken from: first 3, second 2" in said
    assert "No letter could be read in 2 of the first and 1 of the second" in said
    scores = score_file(out, "official")["benchmarks"]["answers"]["profiles"]["official"]["scores"]
    assert scores["scienceqa"]["value"] == 0.6 and scores["scienceqa"]["unparsed"] == 1


def test_an_empty_id_gives_way_to_the_next_column(tmp_path):
    pair = stored(tmp_path / "one.jsonl", 1), stored(tmp_path / "two.jsonl", 2)
    for path in pair:
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        rows = [{**row, "id": "", "question_id": row["id"]} for row in rows]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert [one.second.id for one in pair_answers(*pair)] == ["q0", "q1", "q2", "q3", "q4"]


def test_a_judge_is_asked_only_where_they_differ_and_the_second_stands_where_it_fails(files):
    pairs = pair_answers(*files)
    asked = disagreements(pairs)
    assert [pair.second.id for pair, _ in asked] == ["q1", "q2", "q3"]
    assert "Which one is 1?\nA. this\nB. that" in asked[0][1]
    assert "The first answered: I can't see the picture.\nThe second answered: B" in asked[0][1]
    rows = judged(
        pairs, {("answers", "q1"): "The answer is A.", ("answers", "q2"): "hm", ("answers", "q9"): "B"}
    )
    assert [(row["from"], row["answer"]) for row in rows] == [
        ("both", "A"), ("judge", "The answer is A."), ("second", "B"), ("second", "The answer is B.!"),
        ("both", "Who knows"),
    ]  # fmt: skip


def test_an_endpoint_judges_once(files, tmp_path):
    pytest.importorskip(
        "openai", reason="an endpoint needs the openai package: pip install 'medkit-lmm[endpoint]'"
    )
    told = {"1": "B", "2": "A"}

    def reply(asked: dict, _: int) -> dict:
        number = asked["messages"][0]["content"].split("Which one is ")[1][0]
        if number == "3":  # cut in its first words
            return completion("The answer is A.", finish="length")
        return completion(f"I weigh both. The answer is {told[number]}.")

    with serving(reply) as server:
        found = write_ensemble(*files, tmp_path / "out", endpoint=card(server.url))
        asked = len(server.asked)
        write_ensemble(*files, tmp_path / "out", endpoint=card(server.url))
        assert len(server.asked) == asked, "what was judged is not judged again"
    assert found["from"] == {"both": 2, "judge": 2, "second": 1} and found["kind"] == "judge"
    scores = score_file(tmp_path / "out", "official")["benchmarks"]["answers"]["profiles"]["official"][
        "scores"
    ]
    assert scores["scienceqa"]["value"] == 0.8
    with pytest.raises(MedkitError, match="belongs to another task"):
        write_ensemble(*files, tmp_path / "out")


def test_what_failed_or_was_cut_stays_so(tmp_path):
    """A reply that never came is no wrong answer, and rows may have an empty column of ids beside the true one."""
    about = {
        "question": "Which?",
        "choices": ["this", "that"],
        "references": ["this"],
        "answer_type": "choice",
        "id": "",
    }
    said = (("failed", "failed"), ("failed", "A"), ("cut", "cut"))
    for side in (0, 1):
        rows = [
            {**about, "question_id": f"q{n}", "answer": "" if one[side] == "failed" else one[side],
             "truncated": one[side] == "cut", **({"failed": "no reply"} if one[side] == "failed" else {})}
            for n, one in enumerate(said)
        ]  # fmt: skip
        (tmp_path / f"{side}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    pairs = pair_answers(tmp_path / "0.jsonl", tmp_path / "1.jsonl")
    for rows in (complement(pairs), judged(pairs, {})):
        assert [(row["id"], row["answer"], row.get("failed", ""), row["truncated"]) for row in rows] == [
            ("q0", "", "no reply", False), ("q1", "A", "", False), ("q2", "cut", "", True),
        ]  # fmt: skip
    write_ensemble(tmp_path / "0.jsonl", tmp_path / "1.jsonl", tmp_path / "out")
    found = score_file(tmp_path / "out", "official")["benchmarks"]["answers"]
    assert (found["failed"], found["truncated"]) == (1, 1)
    assert found["profiles"]["official"]["scores"]["scienceqa"]["count"] == 2


def test_files_that_cant_be_joined_are_refused(files, tmp_path):
    rows = [json.loads(line) for line in files[0].read_text().splitlines()]

    def other(change) -> Path:
        path = tmp_path / "other.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in change([dict(row) for row in rows])))
        return path

    for change, said in (
        (lambda found: found[1:], "hold other questions, for example answers q0"),
        (
            lambda found: [{**row, "choices": ["this", "other"]} for row in found],
            "another gold answer or other choices",
        ),
        (lambda found: [{**row, "choices": []} for row in found], "has no choices"),
        (lambda found: [*found, found[0]], "q0 comes twice"),
    ):
        with pytest.raises(DataError, match=said):
            pair_answers(files[0], other(change))
    with pytest.raises(DataError, match="there is no reading 'guess'; there are scienceqa, medkit"):
        pair_answers(*files, reading="guess")


def test_letters_are_read_as_the_golden_cases_say(tmp_path):
    shared = Path(os.environ.get("MEDKIT_SHARED") or Path(__file__).resolve().parent.parent.parent / "shared")
    found = [
        path for path in (shared / "golden").glob("*.jsonl") if '"llava_script"' in path.open().readline()
    ]
    if not found:
        pytest.skip(
            f"{shared / 'golden'} has no ScienceQA cases; set MEDKIT_SHARED to the folder with golden/"
        )
    for path in found:
        cases = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        pairs = pair_answers(path, path)
        assert len(pairs) == len(cases) > 0
        for pair, case in zip(pairs, cases, strict=True):
            parsed = case["expected"]["llava_script"]["parsed"]
            wanted = parsed if parsed in case["options"] else ""
            assert pair.letters == (wanted, wanted), case["id"]
        assert disagreements(pairs) == []
