"""`medkit score` and its profiles: what each definition gives, and that nothing is imputed in silence."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
from real_data import real_set, splits_of
from typer.testing import CliRunner

from medkit.cards import models
from medkit.cli import app
from medkit.errors import DataError
from medkit.evaluation.scoring import answer_files, captions, judges, profile_medkit, yes_no
from medkit.evaluation.scoring.profile import Item
from medkit.evaluation.scoring.profiles import PROFILES
from medkit.evaluation.scoring.rescore import score_file, score_items

PAGE = (Path(__file__).resolve().parent.parent / "docs" / "scoring.md").read_text(encoding="utf-8")


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def values(items: list[Item], profile: str) -> dict[str, float]:
    found = score_items(items, PROFILES[profile])
    return {name: score["value"] for name, score in found["scores"].items()}


NORMAL = Item("normal", ("no",), "yes_no", closed=True)
OPEN = Item("lung lung lung", ("right lung",))
OPTIONS = {"A": "Pneumonia", "B": "Left lung", "C": "Right lung"}


def test_the_seven_profiles_have_versions_and_say_what_they_count() -> None:
    assert sorted(PROFILES) == [
        "llava_med_v1",
        "llava_med_v1_batch",
        "lmms_eval",
        "medevalkit",
        "medkit",
        "official",
        "vlmevalkit",
    ]
    for profile in PROFILES.values():
        assert profile.version >= 1
        names = [score.name for score in profile.scores]
        assert len(set(names)) == len(names)
        assert all(len(entry.definition) > 15 for entry in (*profile.scores, *profile.corpus))


def test_a_benchmark_card_may_name_each_profile() -> None:
    assert set(get_args(models.ProfileName)) == set(PROFILES)


def test_the_page_names_every_profile_and_score_with_its_version() -> None:
    for profile in PROFILES.values():
        section = PAGE.split(f"### `{profile.name}`, version {profile.version}\n", 1)[1].split("\n##", 1)[0]
        missing = [score.name for score in profile.scores if f"`{score.name}`" not in section]
        assert missing == [], profile.name


@pytest.mark.parametrize(
    ("profile", "score", "value"),
    [
        ("llava_med_v1", "closed_accuracy", 1.0),
        ("llava_med_v1_batch", "closed_accuracy", 1.0),
        ("medevalkit", "judgement", 1.0),
        ("official", "pope", 0.0),
        ("lmms_eval", "pope", 0.0),
        ("lmms_eval", "mme", 1.0),
        ("vlmevalkit", "yes_no", 0.0),
        ("medkit", "yes_no", 0.0),
    ],
)
def test_normal_is_a_no_for_some(profile: str, score: str, value: float) -> None:
    assert values([NORMAL], profile)[score] == value
    assert values([Item("nodule", ("no",), "yes_no", closed=True)], profile)[score] == value


def test_repeats_raise_the_published_recall_and_not_the_corrected_one() -> None:
    assert values([OPEN], "llava_med_v1")["open_recall"] == 0.75
    assert values([OPEN], "medkit")["token_recall"] == 0.5


@pytest.mark.parametrize(
    ("answer", "gold"),
    [
        ("computed tomography", "CT"),
        ("Transverse Plane", "axial"),
        ("3 cm", "30mm"),
        ("0.5 g", "500 mg"),
        ("two", "2"),
        ("Ｘ‐ｒａｙ", "x-ray"),
        ("haemorrhage", "Hemorrhage."),
        ("MRI", "CT or MRI"),
        ("heart attack", "myocardial infarction"),
        ("5 µm", "5 μm"),
    ],
)
def test_the_medkit_profile_knows_equal_answers(answer: str, gold: str) -> None:
    assert values([Item(answer, (gold,))], "medkit")["answer"] == 1.0


@pytest.mark.parametrize(
    ("answer", "gold"),
    [
        ("3 cm", "3 mm"),
        ("3 cm", "3"),
        ("left", "right"),
        ("liver", "liver; spleen"),
        ("", "none"),
        ("CT", "MRI"),
    ],
)
def test_the_medkit_profile_tells_answers_apart(answer: str, gold: str) -> None:
    assert values([Item(answer, (gold,))], "medkit")["answer"] == 0.0


def test_a_synonym_never_becomes_another_form() -> None:
    synonyms, _, _ = profile_medkit._tables()
    assert {form: synonyms[form] for form in set(synonyms.values())} == {
        form: form for form in set(synonyms.values())
    }


def test_options_by_synonym_and_by_letter() -> None:
    choices = {"A": "CT", "B": "MRI", "C": "B mode"}
    asked = {"references": ("B",), "answer_type": "choice", "closed": True, "choices": choices}
    said = ["B", "(b)", "magnetic resonance imaging", "The answer is B.", "CT", "hm"]
    found = [values([Item(one, **asked)], "medkit")["answer"] for one in said]
    assert found == [1.0, 1.0, 1.0, 1.0, 0.0, 0.0]


def test_what_a_reference_would_draw_by_chance_is_counted_and_wrong() -> None:
    items = [
        Item(one, ("B",), "choice", True, OPTIONS, str(n)) for n, one in enumerate(["no idea", "(B)", ""])
    ]
    score = score_items(items, PROFILES["official"])["scores"]["mmmu_choice"]
    assert (score["value"], score["count"]) == (pytest.approx(1 / 3, abs=1e-6), 3)
    assert (score["would_be_random"], score["empty"]) == (2, 1)
    score = score_items(items, PROFILES["vlmevalkit"])["scores"]["exact_matching"]
    assert (score["unparsed"], score["would_be_random"]) == (2, 0)


def test_an_empty_reply_that_stops_the_reference_is_counted_as_failed() -> None:
    score = score_items([Item("", ("liver",))], PROFILES["medevalkit"])["scores"]["rouge1"]
    assert (score["value"], score["failed"], score["empty"]) == (0.0, 1, 1)


def test_intervals_are_over_groups() -> None:
    items = [Item("CT" if n < 10 else "no", ("CT",), group="one" if n < 10 else "two") for n in range(20)]
    score = score_items(items, PROFILES["medkit"])["scores"]["answer"]
    assert (score["value"], score["low"], score["high"]) == (0.5, 0.0, 1.0)


def test_a_run_folder_is_scored_without_its_controls(tmp_path: Path) -> None:
    row = {
        "benchmark": "b",
        "control": "none",
        "id": "1",
        "answer": "Yes.",
        "references": ["yes"],
        "group": "g",
    }
    row |= {"answer_type": "yes_no", "choices": [], "image": "i", "truncated": True}
    write(tmp_path / "answers.jsonl", [row, row | {"control": "blank", "answer": "no"}])
    entry = score_file(tmp_path, "all")["benchmarks"]["b"]
    assert (entry["questions"], entry["truncated"]) == (1, 1)
    assert entry["profiles"]["medkit"]["scores"]["answer"]["value"] == 1.0
    assert entry["profiles"]["medkit"]["scores"]["answer"]["truncated"] == 1
    assert entry["profiles"]["lmms_eval"]["scores"]["pope"]["value"] == 0.0
    assert set(entry["profiles"]) == set(PROFILES)


@pytest.mark.parametrize(
    "row",
    [
        {"question_id": 1, "prediction": "B", "answer": "Left lung", "choices": list(OPTIONS.values())},
        {"doc_id": 1, "filtered_resps": ["B"], "target": "B", "options": OPTIONS},
        {"index": 1, "response": "B", "gt": "b", "options": str(list(OPTIONS.values()))},
        {"id": 1, "text": "B", "ground_truth": "Left lung", "choices": OPTIONS},
    ],
)
def test_columns_of_other_tools(tmp_path: Path, row: dict[str, Any]) -> None:
    items = answer_files.read_items(write(tmp_path / "a.jsonl", [row]))["a"]
    assert items[0].answer == "B"
    assert (items[0].references, items[0].answer_type, items[0].choices) == (("B",), "choice", OPTIONS)


def test_a_json_list_and_vqa_answers_and_nothing_said(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    golds = [{"answer": "no", "answer_id": 1}, {"answer": "none", "answer_id": 2}]
    path.write_text(json.dumps([{"question_id": 1, "response": None, "answers": golds}]), encoding="utf-8")
    item = answer_files.read_items(path)["a"][0]
    assert (item.answer, item.references) == ("", ("no", "none"))


def test_a_csv_of_answers(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(
        '\ufeffid,prediction,gt,image\n1,"left, lower",left lower,x\n2,no,yes,x\n', encoding="utf-8"
    )
    items = answer_files.read_items(path)["a"]
    assert [(item.answer, item.gold, item.group) for item in items] == [
        ("left, lower", "left lower", "x"),
        ("no", "yes", "x"),
    ]


def test_closed_is_an_annotation_and_yes_no_a_property_of_the_gold(tmp_path: Path) -> None:
    rows = [
        {"id": 1, "pred": "CT", "gt": "CT", "answer_type": "CLOSED"},
        {"id": 2, "pred": "yes", "gt": "Yes", "answer_type": "CLOSED "},
        {"id": 3, "pred": "x", "gt": "liver", "answer_type": "OPEN"},
        {"id": 4, "pred": "x", "gt": "no"},
    ]
    items = answer_files.read_items(write(tmp_path / "a.jsonl", rows))["a"]
    assert [(item.closed, item.answer_type) for item in items] == [
        (True, "open"),
        (True, "yes_no"),
        (False, "open"),
        (True, "yes_no"),
    ]


def test_references_apart_are_joined_by_id_in_any_order(tmp_path: Path) -> None:
    said = write(tmp_path / "a.jsonl", [{"question_id": n, "text": str(n)} for n in (2, 1)])
    turns = [{"from": "human", "value": "how many?"}, {"from": "gpt", "value": "1"}]
    gold = tmp_path / "test.json"
    gold.write_text(
        json.dumps(
            [
                {"id": 1, "conversatons": turns, "answer_type": "OPEN"},
                {"id": 2, "conversations": turns, "answer_type": "OPEN"},
            ]
        ),
        encoding="utf-8",
    )
    items = answer_files.read_items(said, gold)["a"]
    assert [(item.answer, item.gold) for item in items] == [("2", "1"), ("1", "1")]


def test_what_cannot_be_scored_is_refused_in_a_sentence(tmp_path: Path) -> None:
    answers = [{"id": 1, "prediction": "a"}, {"id": 2, "prediction": "b"}]
    path = write(tmp_path / "a.jsonl", answers)
    with pytest.raises(DataError, match="row 1 has no gold answer"):
        answer_files.read_items(path)
    gold = write(tmp_path / "gold.jsonl", [{"id": 1, "gt": "a"}, {"id": 3, "gt": "a"}])
    with pytest.raises(DataError, match=r"without a reply \['3'\], without a reference \['2'\]"):
        answer_files.read_items(path, gold)
    twice = write(tmp_path / "twice.jsonl", [{"id": 1, "gt": "a"}, {"id": 1, "gt": "b"}])
    with pytest.raises(DataError, match="id 1 comes 2 times"):
        answer_files.read_items(path, twice)
    with pytest.raises(DataError, match="no column with the replies among gt, id"):
        answer_files.read_items(gold)
    with pytest.raises(DataError, match="can't be read"):
        answer_files.read_items(tmp_path / "nowhere.jsonl")
    (tmp_path / "broken.jsonl").write_text('{"id": 1,\n', encoding="utf-8")
    with pytest.raises(DataError, match=r"broken.jsonl:1: not valid JSON"):
        answer_files.read_items(tmp_path / "broken.jsonl")
    with pytest.raises(DataError, match="no profile 'best'; there are: all, medkit"):
        score_file(path, "best")


def test_the_command_prints_and_writes(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [{"id": 1, "prediction": "no fracture", "gt": "no", "image": "i"}])
    out = tmp_path / "scores.json"
    done = CliRunner().invoke(app, ["score", str(path), "--profile", "all", "--json", str(out)])
    assert done.exit_code == 0, done.output
    assert "medkit v1" in done.output
    assert "closed_accuracy" in done.output
    written = json.loads(out.read_text(encoding="utf-8"))["benchmarks"]["a"]["profiles"]
    assert written["medkit"]["scores"]["yes_no"]["value"] == 1.0
    assert "substring" in written["llava_med_v1_batch"]["scores"]["closed_accuracy"]["definition"]
    assert written["lmms_eval"]["corpus"]["pope_f1"]["value"] == 0.0


def test_pope_counts_what_is_neither_in_three_ways() -> None:
    pairs = [("yes", "yes"), ("hm", "yes"), ("no", "no"), ("hm", "no")]
    lenient = yes_no.confusion_scores(pairs, ratio_of_gold=True)
    assert (lenient["accuracy"], lenient["precision"], lenient["recall"], lenient["yes_ratio"]) == (
        0.5,
        1,
        1,
        0.5,
    )
    strict = yes_no.confusion_scores(pairs, other_is_no=True)
    assert (strict["recall"], strict["yes_ratio"]) == (0.5, 0.25)
    assert yes_no.confusion_scores([])["f1"] == 0.0


def test_mme_points() -> None:
    rows = [
        ("existence", "a", True),
        ("existence", "a", True),
        ("existence", "b", True),
        ("existence", "b", False),
    ]
    points = yes_no.mme_scores([*rows, ("code_reasoning", "c", True), ("code_reasoning", "c", True)])
    assert (points["existence"], points["perception"], points["cognition"]) == (125.0, 125.0, 200.0)


def test_malformed_marks_are_counted_and_never_averaged() -> None:
    marks = [[8.0, 4.0], [2.0, 2.0], judges.MALFORMED]
    assert judges.relative_scores(marks) == {
        "count": 2,
        "malformed": 1,
        "ratio_of_means": 60.0,
        "mean_of_ratios": 75.0,
    }
    assert judges.relative_scores([judges.MALFORMED]) == {"count": 0, "malformed": 1}


def test_reports_have_corpus_scores() -> None:
    item = Item("The lungs are clear.", ("The lungs are clear.",), "report")
    numbers = score_items([item, item], PROFILES["official"])["corpus"]
    assert numbers["bleu_1"]["value"] == pytest.approx(1.0, abs=1e-6)
    assert numbers["rouge_l"]["value"] == pytest.approx(1.0)
    assert "answer" not in score_items([item], PROFILES["medkit"])["scores"]


def test_corpus_scores_of_reports_have_intervals_over_groups() -> None:
    golds = ["clear lungs"] * 6 + ["large heart"] * 6
    items = [Item("clear lungs", (gold,), "report", group=f"g{n // 3}") for n, gold in enumerate(golds)]
    # R2Gen ends each report with a full stop, which counts as a word.
    for profile, bleu in (("medkit", 1 / 2), ("official", 2 / 3), ("vlmevalkit", 1 / 2)):
        numbers = score_items(items, PROFILES[profile])["corpus"]
        assert numbers["bleu_1"]["value"] == pytest.approx(bleu, abs=1e-6)
        assert numbers["bleu_1"]["low"] < numbers["bleu_1"]["value"] < numbers["bleu_1"]["high"]
        assert numbers["cider"]["low"] < numbers["cider"]["value"] < numbers["cider"]["high"]
    alone = score_items([replace(item, group="g") for item in items], PROFILES["official"])["corpus"]
    assert (alone["bleu_1"]["low"], alone["bleu_1"]["high"]) == (None, None)
    assert "low" not in score_items([NORMAL], PROFILES["official"])["corpus"]["pope_f1"]


def test_bleu_of_a_corpus_is_not_the_mean_of_its_sentences() -> None:
    counts = [captions.bleu_counts("a b", ["a b c d"]), captions.bleu_counts("a b c d", ["a b c d"])]
    assert captions.bleu_from_counts(sum(counts))[0] == pytest.approx(0.716531, abs=1e-6)


@pytest.mark.parametrize("name", ["slake_text", "vqa_med_2019_text", "vqa_rad"])
def test_real_answers_are_right_under_the_definitions_that_should_say_so(name: str) -> None:
    folder = real_set(name)
    rows = [row for split in splits_of(folder, "questions_*.jsonl").values() for row in split]
    gold = [row | {"references": row["answer"], "id": n} for n, row in enumerate(rows)][:1500]
    said = [row | {"prediction": row["references"]} for row in gold if str(row["references"]).strip()]
    assert said
    items = answer_files.items_of(said, name)["answers"]
    for profile in PROFILES.values():
        score_items(items, profile)  # any text of any language has a value
    assert values(items, "medkit")["exact"] == 1.0
    assert values(items, "llava_med_v1_batch")["closed_accuracy"] == 1.0
    if "yes_no" in values(items, "medkit"):
        assert values(items, "medkit")["yes_no"] == 1.0
        assert values(items, "lmms_eval")["pope"] == 1.0
