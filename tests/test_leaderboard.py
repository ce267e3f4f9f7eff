"""Models are compared on the questions they share; what differs is told; the page says who is better."""

from __future__ import annotations

import csv
import html
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from card_shelf import medkit

from medkit.errors import DataError
from medkit.evaluation.leaderboard import leaderboard
from medkit.evaluation.sources import read_sources
from medkit.report.leaderboard import headline, render_leaderboard
from medkit.report.leaderboard_findings import doubts
from medkit.report.leaderboard_tables import leaderboard_csv, leaderboard_latex

EVIL = "<script>alert('x')</script>"
GREEDY = {"method": "greedy", "precision": "fp32", "device": "cpu"}


def answer_rows(right: range, count: int = 120, **changed: Any) -> list[dict[str, Any]]:
    """Rows of ``count`` yes/no questions, four an image; those numbered in ``right`` are answered right."""
    return [
        {
            "benchmark": "held-out", "control": "none", "id": f"q{number}", "image": f"i{number // 4}",
            "group": f"g{number // 4}", "kind": "presence", "answer_type": "yes_no",
            "question": f"Is it {number}?", "prompt": f"USER: Is it {number}? ASSISTANT:",
            "references": ["yes"], "choices": [], "answer": "yes" if number in right else "no",
            "correct": int(number in right), "truncated": False,
        } | changed
        for number in range(count)
    ]  # fmt: skip


def evaluation(folder: Path, model: str, rows: list[dict[str, Any]], **changed: Any) -> Path:
    folder.mkdir(parents=True)
    (folder / "answers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    entry = {
        "title": "Held-out questions", "source": {"domain": "same"}, "scorer": "answer",
        "definition": "Right is right.",
        "controls": {"blank": {"value": 0.3, "low": 0.2, "high": 0.4, "survives": 0.41}},
        "empty": 0, "truncated": 0, "unparsed": 0, "majority": 0.5,
    }  # fmt: skip
    scores = {"model": model, "decoding": GREEDY | changed, "benchmarks": {"held-out": entry}}
    (folder / "scores.json").write_text(json.dumps(scores))
    return folder


def run(folder: Path, right: range, seed: int = 0, leaks: int = 0, **recipe: Any) -> Path:
    evaluation(folder / "8-evaluate-base", "base", answer_rows(range(30)))
    evaluation(folder / "10-evaluate-instruct", "instruct", answer_rows(right))
    evaluation(folder / "9-evaluate-align", "align", answer_rows(range(40)))
    resolved = {"curriculum": {"final": "instruct"}, "recipe": {"base": "tiny", "seed": seed} | recipe}
    (folder / "resolved.json").write_text(json.dumps(resolved))
    (folder / "11-compare").mkdir()
    compared = {"leaks": {"images": leaks, "questions": 0}, "budget": {"instruct": {"samples_seen": 500}}}
    (folder / "11-compare" / "comparisons.json").write_text(json.dumps(compared))
    return folder


def board(*paths: Path, against: str = "best") -> dict[str, Any]:
    return leaderboard(read_sources(list(paths)), against)


def rows_of(found: dict[str, Any], name: str = "held-out") -> dict[str, dict[str, Any]]:
    return {row["model"]: row for row in found["benchmarks"][name]["rows"]}


def titles(found: dict[str, Any], level: str = "warn") -> list[str]:
    return [one.title for one in doubts(found, list(found["benchmarks"])) if one.level == level]


def plain(page: str) -> str:
    body = re.sub(r"<(style|svg)\b.*?</\1>", " ", page, flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", body)).split())


def test_what_asking_came_to_is_no_difference_of_settings(tmp_path):
    checked = {"batch_check": {"asked_alone": 8, "same": 8}, "processes": 2}
    asked = {"batch_check": {"asked_alone": 16, "same": 16}, "processes": 3, "precision": "other"}
    one = evaluation(tmp_path / "one", "one", answer_rows(range(60)), **checked)
    two = evaluation(tmp_path / "two", "two", answer_rows(range(50)), **asked)
    settings = board(one, two)["benchmarks"]["held-out"]["differs"]["settings"]
    assert list(settings) == ["precision"]


def test_runs_give_their_final_model_and_one_base(tmp_path):
    found = board(run(tmp_path / "a", range(108)), run(tmp_path / "b", range(60), size=2))
    assert list(rows_of(found)) == ["a", "b", "base"]
    rows = rows_of(found)
    assert rows["a"]["accuracy"]["value"] == 0.9
    assert rows["b"]["difference"]["value"] == -0.4
    assert (rows["b"]["wins"], rows["b"]["losses"]) == (0, 48)
    assert [rows[name]["verdict"] for name in rows] == ["reference", "behind", "behind"]
    assert rows["b"]["test"] == "paired permutation over groups"


def test_p_values_are_adjusted_over_all_pairs_when_the_best_is_chosen_by_the_answers(tmp_path):
    paths = [run(tmp_path / name, range(right), size=right) for name, right in (("a", 108), ("b", 60))]
    chosen, given = board(*paths), board(*paths, against="first")
    assert (chosen["adjustment"], given["adjustment"]) == ("Holm over 3 tests", "Holm over 2 tests")
    for found in (chosen, given):
        assert all(test["p_adjusted"] >= test["p"] for test in found["tests"])
    for found, count in ((chosen, 3), (given, 2)):
        least = min(test["p"] for test in found["tests"])
        assert min(test["p_adjusted"] for test in found["tests"]) == pytest.approx(count * least)


def test_a_small_gap_is_not_called_a_difference(tmp_path):
    found = board(run(tmp_path / "a", range(100)), run(tmp_path / "b", range(98), size=2))
    assert rows_of(found)["b"]["verdict"] == "level"
    head = headline(found, "held-out")
    assert head["verdict"] == "none"
    assert head["sentence"].startswith("No best model is shown on held-out: a leads with 83.3\u00a0%")
    assert "b can’t be told apart from it: +1.7 points (" in head["sentence"]
    assert head["sentence"].endswith("base is worse.")


def test_the_headline_names_the_best(tmp_path):
    found = board(run(tmp_path / "a", range(60)), run(tmp_path / "b", range(114), size=2))
    head = headline(found, "held-out")
    assert (head["verdict"], head["best"]["model"], head["next"]["model"]) == ("gain", "b", "a")
    assert "b is best on held-out: 95.0\u00a0%" in head["sentence"]
    assert "+45.0 points (" in head["sentence"]


def test_runs_that_differ_in_the_seed_only_are_told(tmp_path):
    paths = [run(tmp_path / str(seed), range(100 + seed), seed) for seed in (0, 1, 2)]
    found = board(*paths)
    [family] = found["benchmarks"]["held-out"]["repeats"]
    assert (family["models"], family["seeds"]) == (["0", "1", "2"], [0, 1, 2])
    assert family["mean"]["value"] == pytest.approx(101 / 120, abs=1e-6)
    assert "held-out: one recipe, several seeds" in titles(found)
    assert family["values"] == pytest.approx([100 / 120, 101 / 120, 102 / 120], abs=1e-6)
    assert family["deviation"] == pytest.approx(1 / 120, abs=1e-6)
    text = plain(render_leaderboard(found))
    assert "0, 1 and 2 0, 1 and 2 84.2\u00a0%" in text.replace(" %", "\u00a0%") and "0.8 83.3–85.0" in text
    assert "single runs 83.3 to 85.0" in text
    named = [run(tmp_path / f"n{seed}", range(100), seed, name=f"x-{seed}") for seed in (0, 1)]
    assert board(*named)["benchmarks"]["held-out"]["repeats"][0]["deviation"] == 0
    other = board(paths[0], run(tmp_path / "other", range(90), 5, epochs=3))
    assert other["benchmarks"]["held-out"]["repeats"] == []


def test_samples_seen_are_those_of_all_stages_since_the_base(tmp_path):
    folder = run(tmp_path / "a", range(100))
    [source] = [one for one in read_sources([folder]) if one.model == "instruct"]
    assert source.samples_seen == 500  # the comparison knows the stage by itself
    for name, start, samples in (
        ("5-see", "base", 70),
        ("6-align", "see", 100),
        ("7-instruct", "align", 500),
    ):
        (folder / name).mkdir()
        summary = {"settings": {"start": start}, "result": {"samples_seen": samples}}
        (folder / name / "summary.json").write_text(json.dumps(summary))
    [source] = [one for one in read_sources([folder]) if one.model == "instruct"]
    assert source.samples_seen == 670


def test_what_differs_is_told(tmp_path):
    one = evaluation(tmp_path / "one", "m", answer_rows(range(90)))
    prompts = evaluation(tmp_path / "two", "m", answer_rows(range(90), prompt="Another."), precision="bf16")
    found = board(one, prompts)
    assert {"held-out: different prompts", "held-out: different precision"} <= set(titles(found))
    assert found["benchmarks"]["held-out"]["differs"]["prompt"]["count"] == 120
    same = board(one, evaluation(tmp_path / "three", "m", answer_rows(range(80))))
    assert same["benchmarks"]["held-out"]["differs"] == {}
    assert "held-out: the same questions, prompts and images" in titles(same, "fine")


def test_only_shared_questions_with_the_same_gold_count(tmp_path):
    one = evaluation(tmp_path / "one", "m", answer_rows(range(120)))
    fewer = answer_rows(range(40), 80)
    fewer[0]["references"] = ["no"]
    found = board(one, evaluation(tmp_path / "two", "m", fewer))
    entry = found["benchmarks"]["held-out"]
    assert entry["questions"] == 79
    assert entry["differs"]["questions"] == {"shared": 80, "left_out": {"one": 40, "two": 0}}
    assert entry["differs"]["references"] == 1
    assert rows_of(found)["two"]["accuracy"]["value"] == pytest.approx(39 / 79, abs=1e-6)
    assert {"held-out: different questions", "held-out: different gold answers"} <= set(titles(found))


def test_questions_without_a_reply_are_left_out_for_every_model_and_told(tmp_path):
    rows = answer_rows(range(100))
    for row in rows[:8]:
        row |= {"answer": "", "correct": None, "failed": "timeout"}
    far = evaluation(tmp_path / "far", "far", rows)
    scores = json.loads((far / "scores.json").read_text())
    scores["benchmarks"]["held-out"]["failed"] = 8
    (far / "scores.json").write_text(json.dumps(scores))
    near = evaluation(tmp_path / "near", "near", answer_rows(range(60)))
    found = board(far, near)
    assert found["benchmarks"]["held-out"]["questions"] == 112
    assert rows_of(found)["far"]["accuracy"]["value"] == pytest.approx(92 / 112, abs=1e-6)
    assert "held-out: questions without a reply" in titles(found)
    assert next(csv.DictReader(io.StringIO(leaderboard_csv(found))))["failed"] == "8"


def test_nothing_shared_is_no_comparison(tmp_path):
    other = [row | {"id": "x" + row["id"]} for row in answer_rows(range(50))]
    found = board(
        evaluation(tmp_path / "one", "m", answer_rows(range(50))), evaluation(tmp_path / "two", "m", other)
    )
    assert headline(found, "held-out")["verdict"] == "unknown"
    assert found["tests"] == []
    assert "nothing can be compared" in plain(render_leaderboard(found))
    assert leaderboard_csv(found).count("\n") == 3
    assert "--" in leaderboard_latex(found)


def test_leaks_and_controls_are_told(tmp_path):
    leaky, clean = run(tmp_path / "a", range(108), leaks=3), run(tmp_path / "b", range(60), size=2)
    bare = evaluation(tmp_path / "c", "m", answer_rows(range(39)))
    found = board(leaky, clean, bare)
    told = {one.title: one.detail for one in doubts(found, ["held-out"])}
    assert told["Train and test overlap"] == "3\u00a0images of the test in training (a)."
    assert told["No leak between train and test"] == "b."
    assert told["Leaks were not counted"].startswith("c:")
    detail = told["held-out: the image hardly matters"]
    assert detail == "c (30.0\u00a0% without its image) and base (30.0\u00a0% without its image)."
    assert "41.0\u00a0% of a" in told["held-out: what needs no image"]


def test_files_of_other_tools_are_paired_and_scored_by_one_definition(tmp_path):
    rows = [
        {"question_id": f"q{number}", "prediction": "Yes.", "gt": "yes", "img_name": "x"}
        for number in range(120)
    ]
    tool = tmp_path / "tool.jsonl"
    tool.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = board(evaluation(tmp_path / "ours", "m", answer_rows(range(60))), tool)
    assert list(found["benchmarks"]) == ["held-out"]
    entry = found["benchmarks"]["held-out"]
    assert (entry["scorer"], entry["questions"], entry["groups"]) == ("medkit/answer", 120, 30)
    assert [(row["model"], row["accuracy"]["value"]) for row in entry["rows"]] == [
        ("tool", 1.0),
        ("ours", 0.5),
    ]
    assert "held-out: prompt and decoder not known" in titles(found, "note")
    assert {"held-out: no image control", "Leaks were not counted"} <= set(titles(found))
    scored = tmp_path / "scored.json"
    scored.write_text(json.dumps({"answers": str(tool), "benchmarks": {}}))
    again = board(tmp_path / "ours", scored)
    assert rows_of(again)["scored"]["accuracy"] == rows_of(found)["tool"]["accuracy"]
    tool.unlink()
    with pytest.raises(DataError, match="give the file of answers itself"):
        board(tmp_path / "ours", scored)


def test_refusals_say_what_to_do(tmp_path):
    one = evaluation(tmp_path / "one", "m", answer_rows(range(50)))
    with pytest.raises(DataError, match="given twice"):
        read_sources([one, one])
    with pytest.raises(DataError, match="at least two models"):
        board(one)
    with pytest.raises(DataError, match="is not there"):
        read_sources([tmp_path / "none"])
    with pytest.raises(DataError, match="no finished evaluation"):
        (tmp_path / "empty").mkdir()
        read_sources([tmp_path / "empty"])
    double = evaluation(tmp_path / "double", "m", answer_rows(range(50)) * 2)
    with pytest.raises(DataError, match="id q0 comes twice"):
        read_sources([one, double])
    two = evaluation(tmp_path / "two", "m", answer_rows(range(50)))
    with pytest.raises(DataError, match="choose best, first or one of one, two"):
        board(one, two, against="three")


def test_same_names_are_told_apart(tmp_path):
    found = board(
        evaluation(tmp_path / "x" / "e", "m", answer_rows(range(90))),
        evaluation(tmp_path / "y" / "e", "m", answer_rows(range(50))),
    )
    assert len(rows_of(found)) == 2


def test_the_page_is_one_file_that_escapes_everything(tmp_path):
    rows = answer_rows(range(90), prompt=EVIL)
    found = board(
        evaluation(tmp_path / "one", "m", rows),
        evaluation(tmp_path / "two & co", "m", answer_rows(range(20)), precision=EVIL),
    )
    page = render_leaderboard(found)
    assert "<script" not in page
    assert not re.search(r"""(src|href)=["']?(?!#)\w""", page)
    text = plain(page)
    assert "one is best on held-out" in text
    assert "two & co" in text
    for section in ("What to distrust", "Without the image", "Models", "How it is computed"):
        assert section in text


def test_csv_and_latex(tmp_path):
    found = board(
        evaluation(tmp_path / "one_a", "m", answer_rows(range(90))),
        evaluation(tmp_path / "two&b", "m", answer_rows(range(20))),
    )
    lines = list(csv.DictReader(io.StringIO(leaderboard_csv(found))))
    assert [(line["model"], line["accuracy"], line["verdict"]) for line in lines] == [
        ("one_a", "0.75", "reference"),
        ("two&b", "0.166667", "behind"),
    ]
    assert lines[1]["blank_survives"] == "0.41"
    table = leaderboard_latex(found)
    assert r"one\_a & 75.0 (" in table and r"two\&b & 16.7 (" in table
    assert "$-58.3$ (" in table


def test_the_command_writes_what_it_says(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    run(tmp_path / "a", range(108))
    run(tmp_path / "b", range(60), size=2)
    extra = ("--json", "c.json", "--csv", "c.csv", "--latex", "c.tex")
    assert medkit("compare", "a", "b", *extra, monkeypatch=monkeypatch) == 0
    said = capsys.readouterr().out
    assert said.startswith("a is best on held-out: 90.0")
    assert said.endswith("Comparison: compare.html\n")
    assert json.loads((tmp_path / "c.json").read_text())["against"] == "best"
    assert (tmp_path / "compare.html").read_text().startswith("<!DOCTYPE html>")
    assert medkit("compare", "a", "missing", monkeypatch=monkeypatch) == 1
    assert capsys.readouterr().err == (
        "missing is not there; give run folders, evaluation folders or files of answers\n"
    )


def test_against_a_named_model_the_headline_sorts_the_others(tmp_path):
    found = board(
        evaluation(tmp_path / "one", "m", answer_rows(range(60))),
        evaluation(tmp_path / "two", "m", answer_rows(range(110))),
        evaluation(tmp_path / "three", "m", answer_rows(range(58))),
        against="one",
    )
    head = headline(found, "held-out")
    assert head["sentence"].startswith("Against one on held-out (50.0\u00a0% (")
    assert re.search(r"better: two \(\+41\.7, .*; not told apart: three \(−1\.7, ", head["sentence"])
    assert [(row["model"], row["verdict"]) for row in found["benchmarks"]["held-out"]["rows"]] == [
        ("two", "ahead"),
        ("one", "reference"),
        ("three", "level"),
    ]
