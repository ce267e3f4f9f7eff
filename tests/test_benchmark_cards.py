"""Every benchmark card reads its invented rows, asks in the set's published form, and is scored by its own score."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from card_shelf import medkit
from real_data import real_set
from test_benchmarks import EVALS

from medkit.cards.load import load_card
from medkit.cards.models import Benchmark
from medkit.check import benchmark_problems
from medkit.evaluation.questions import Question, read_questions
from medkit.evaluation.scoring import captions, documents, report_text, soft
from medkit.evaluation.scoring.answer_files import read_rows
from medkit.evaluation.scoring.profiles import score_names
from medkit.evaluation.scoring.rescore import score_rows
from medkit.evaluation.standalone import summary_lines
from medkit.evaluation.summarise import answer_row
from medkit.readers import Record
from medkit.readers.benchmarks import find_benchmark, read_benchmark
from medkit.readers.questions import read
from medkit.store import open_dataset

LETTER = "Answer with the option's letter from the given choices directly."
SHORT = "Answer the question using a single word or phrase."
FINDINGS = "The lungs are drawn in one colour. There is no effusion. Heart size is 16 pixels."
STUDY = "The lungs are clear. 1. No effusion. Heart size is normal."
SOFT = ["stop"] * 7 + ["halt"] * 2 + ["nothing"]


class Case(NamedTuple):
    """What a card must give: counts of questions and images, the first prompt, replies with their scores."""

    questions: int
    images: int
    prompt: str
    scored: list[tuple[list[str], dict[str, float]]]


def report_scores(said: str, gold: str, mimic: bool) -> dict[str, float]:
    """R2Gen's numbers of one report, from the functions that the golden cases pin."""
    said, gold = (report_text.r2gen_clean(text, mimic) for text in (said, gold))
    bleu = captions.bleu_from_counts(captions.bleu_counts(said, [gold]))
    return {"bleu_1": bleu[0], "bleu_4": bleu[3], "rouge_l": captions.rouge_l(said, [gold])}


CASES = {
    "pmc-vqa": Case(1, 1, "Question: What shape is drawn?\nChoices: A:Circle B:Square C:Star D:Line\nThe Answer is:", [
        (["Square"], {"pmc_vqa": 1}), (["Squares and a star"], {"pmc_vqa": 1}), (["C"], {"pmc_vqa": 0}),
    ]),
    "pmc-vqa-test": Case(1, 1, "Question: Which colour fills the square?\nChoices: A:Red B:Green C:Black D:White\n"
                         "The Answer is:", [(["green"], {"pmc_vqa": 1}), (["White"], {"pmc_vqa": 0})]),
    "pmc-vqa-test-2": Case(2, 1, f"What is drawn?\nA. A circle\nB. A square\nC. A star\nD. Nothing\n{LETTER}", [
        (["B", "C"], {"choice": 1}), (["The answer is B.", "4"], {"choice": 1}), (["A", "c"], {"choice": 0.5}),
    ]),
    "omnimedvqa": Case(2, 1, "How was this picture made?Here are 4 candidate answers:['CT', 'By a program', 'MRI', "
                       "'Ultrasound'] Only return what you think is the correct answer from the candidate answers, do "
                       "not return any other irrelevant text!", [
        (["By a program", "Yes"], {"omnimedvqa": 1}), (["It was made by a program", "no"], {"omnimedvqa": 0.5}),
    ]),
    "medxpertqa-mm": Case(1, 2, "An invented patient shows two pictures. What differs?\nAnswer Choices: (A) A shape "
                          "(B) A colour (C) A size (D) A place (E) Nothing\nTherefore, among A through E, the answer "
                          "is", [
        (["B"], {"medxpertqa": 1}), (["(B) A colour"], {"medxpertqa": 1}), (["A colour, so B"], {"medxpertqa": 0}),
    ]),
    "mmmu-health": Case(2, 3, "Which is greener, <image 2> or <image 1>?\nA. <image 1>\nB. <image 2>\nC. Neither\n"
                        f"D. Can't be said\n{LETTER}", [
        (["B", "There is 1"], {"mmmu": 1, "mmmu_choice": 1, "mmmu_open": 1}),
        (["(A)", "one"], {"mmmu": 0.5, "mmmu_choice": 0, "mmmu_open": 1}),
        (["B. <image 2>", "two"], {"mmmu": 0, "mmmu_choice": 0, "mmmu_open": 0}),
    ]),
    "gmai-mmbench": Case(2, 1, f"What is drawn?\nA. A circle\nB. A square\nC. A star\n{LETTER}", [
        (["B", "The answer is B"], {"exact_matching": 1}), (["a square", "A"], {"exact_matching": 0.5}),
        (["A square", "B"], {"exact_matching": 0.5}),  # the article is taken for option A
    ]),
    "mimic-cxr": Case(2, 2, "Describe the findings of this chest X-ray.", [
        ([FINDINGS, FINDINGS], report_scores(FINDINGS, FINDINGS, True)),
        (["The lungs are drawn."] * 2, report_scores("The lungs are drawn.", FINDINGS, True)),
    ]),
    "iu-xray": Case(1, 2, "Describe the findings of these chest X-rays.", [
        (["The lungs_are clear."], report_scores("The lungs_are clear.", STUDY, False)),
    ]),
    "llava-bench": Case(2, 1, "What is shown?", []),
    "llava-bench-coco": Case(1, 1, "Which shape is shown?", []),
    "scienceqa": Case(2, 1, "Context: Look at the corners.\nQuestion: Which shape is it?\nOptions: (A) a circle (B) a "
                      f"square\n{LETTER}", [
        (["B", "A. green"], {"scienceqa": 1, "scienceqa_img": 1}),
        (["The answer is B", "The answer is A."], {"scienceqa": 0.5, "scienceqa_img": 0}),
    ]),
    "mme": Case(6, 3, f"Is there a square in this image?\n{SHORT}", [
        (["Yes", "No", "No", "Yes", "No", "Yes"], {"mme_perception": 400, "mme_cognition": 200, "mme": 1}),
        (["Yes", "None", "Yes", "Yes", "?", "y"], {"mme_perception": 250, "mme_cognition": 50, "mme": 4 / 6}),
    ]),
    "textvqa": Case(1, 1, f"what does the sign say?\n{SHORT}", [
        (["stop"], {"textvqa": 1}), (["Halt."], {"textvqa": soft.lmms_textvqa("Halt.", SOFT)}),
    ]),
    "vqav2": Case(2, 1, f"How many squares?\n{SHORT}", [
        (["1", "no"], {"vqa": 1}), (["one", "yes"], {"vqa": (1 + 0.6) / 2}),
    ]),
    "docvqa": Case(2, 1, f"What is the invoice number?\n{SHORT}", [
        (["inv-9001", "yes"], {"anls": 1}),
        (["INV-9002", "no"], {"anls": documents.anls("INV-9002", ["INV-9001"]) / 2}),
    ]),
    "chartqa": Case(2, 1, "What is the value of the bar?\nAnswer the question with a single word.", [
        (["209", "yes"], {"relaxed": 1}), (["211", "Yes."], {"relaxed": 0}),
    ]),
    "ocrbench": Case(2, 2, "what is written in the image?", [
        (["It says kit.", "X^{2}"], {"ocrbench": 1}), (["KI T", "x^{2}"], {"ocrbench": 0}),
    ]),
    "vqa-rad-hub": Case(2, 1, "is this an invented picture?", [(["yes", "a square"], {"answer": 1})]),
    "path-vqa": Case(2, 1, "are cells drawn?", [(["no cells are seen", "square"], {"answer": 0.5})]),
    "slake-en": Case(1, 1, f"Is there a square?\n{SHORT}", [(["yes"], {"slake": 1}), (["normal"], {"slake": 0})]),
    "slake-zh": Case(1, 1, "图中是什么？\n请用一个词或短语回答问题。", [(["方块。"], {"slake": 1})]),
    "vqa-rad": Case(2, 2, "Is the drawing dark?", [
        (["Yes", "square square"], {"closed_accuracy": 1, "open_recall": 1}),
        (["eyes", "round"], {"closed_accuracy": 1, "open_recall": 0}),
    ]),
    "vqa-rad-public": Case(2, 1, "What is shown?", [(["square", "circle"], {"answer": 0.5})]),
    "pope-coco": Case(2, 1, "Is there a dog in the image?", [(["yes", "no"], {"yes_no": 1})]),
    "pope-coco-hub": Case(2, 1, f"Is there a square in the image?\n{SHORT}", [
        (["Yes.", "No, there isn't"], {"pope": 1, "pope_f1": 1, "pope_yes_ratio": 0.5}),
        (["", "There isn't"], {"pope": 0.5, "pope_f1": 2 / 3, "pope_yes_ratio": 1}),
    ]),
    "llava-med-chat": Case(1, 1, "What is shown?", [(["a plain drawing"], {"f1": 1})]),
}  # fmt: skip


def card_of(name: str) -> Benchmark:
    card, problems = load_card("benchmark", EVALS / name / "eval.yaml")
    assert problems == []
    return card


CARDS = {path.parent.name: card_of(path.parent.name) for path in sorted(EVALS.glob("*/eval.yaml"))}


def questions_of(name: str, out: Path) -> tuple[list[Question], dict[str, Any]]:
    summary = read_benchmark(find_benchmark(name, str(EVALS / name / "fixture")), {}, out)
    return read_questions(open_dataset(out), name), summary


def rows_of(questions: list[Question], replies: list[str], scorer: str) -> list[dict]:
    return [
        answer_row(
            one, one.images, {"prompt": "", "answer": said, "truncated": False, "latency_s": 0.0}, scorer
        )
        for one, said in zip(questions, replies, strict=True)
    ]


def test_every_card_with_rows_of_its_own_has_a_case():
    assert {name for name, card in CARDS.items() if card.data} == set(CASES)
    assert all(card.fixture for card in CARDS.values() if card.data)


@pytest.mark.parametrize("name", CASES)
def test_a_fixture_is_asked_in_the_published_form_and_scored_by_the_cards_own_score(name, tmp_path):
    case, card = CASES[name], CARDS[name]
    questions, summary = questions_of(name, tmp_path / "out")
    assert (summary["found"]["questions"], summary["found"]["images"]) == (case.questions, case.images)
    assert questions[0].text == case.prompt
    assert sum(part["type"] == "image" for part in questions[0].messages[0]["content"]) == len(
        questions[0].images
    )
    for replies, expected in case.scored:
        rows = rows_of(questions, replies, card.scorer)
        found = score_rows(rows, card.profile)[card.profile]
        values = {key: entry["value"] for part in ("scores", "corpus") for key, entry in found[part].items()}
        assert {key: values[key] for key in expected} == pytest.approx(expected, abs=1e-6)
        assert set(card.metrics) <= {*values}, "a published score applies to none of the set's questions"


@pytest.mark.parametrize("name", CARDS)
def test_a_card_says_what_is_not_known(name):
    card = CARDS[name]
    assert set(card.metrics) <= {*score_names(card.profile)}
    if card.data and card.data.hub and not card.data.revision:
        assert "revision" in card.notes
    if card.data and not card.data.expected:
        assert "no count is expected" in card.notes
    assert not card.data or (card.citation and (card.data.env or card.data.hub))


def test_a_metric_that_the_profile_lacks_is_a_fault(tmp_path):
    folder = tmp_path / "evals" / "own"
    folder.mkdir(parents=True)
    (folder / "eval.yaml").write_text(
        "name: own\ntitle: Own\ndescription: d\nlicence: none\ndata: {env: MEDKIT_OWN}\nprofile: official\n"
        "metrics: [anls, omnimedvqas]\n"
    )
    card, _ = load_card("benchmark", folder / "eval.yaml")
    (problem,) = benchmark_problems(card, folder)
    assert problem.path == "metrics[1]" and "no score omnimedvqas" in problem.message
    assert problem.hint == "did you mean omnimedvqa?"


def test_the_judge_sees_what_is_known_of_a_picture_and_the_model_does_not(tmp_path):
    questions, _ = questions_of("llava-bench", tmp_path / "out")
    assert questions[1].references == ["A green square of 16 pixels without any frame."]
    assert [one.kind for one in questions] == ["conv", "detail"]
    row = rows_of(questions, ["A square.", "A square."], "f1")[0]
    assert row["context"] == "An invented picture: one green square."
    assert "invented" not in json.dumps(questions[0].messages)


def test_the_real_questions_of_llava_bench_come_with_answers_and_captions():
    root = real_set("llava_eval")
    options = card_of("llava-bench-coco").data.options  # type: ignore[union-attr]
    asked = read_rows(root / options["files"])
    found = [one for one in read(root, {**options, "text_only": True}) if isinstance(one, Record)]
    assert len(found) == len(asked) > 0
    captions = {row["image"] for row in read_rows(root / options["known_from"]["file"])}
    for row, record in zip(asked, found, strict=True):
        facts = record.facts["question"]
        assert facts["references"][0] and facts["kind"] == row["category"]
        assert facts.get("context", "").count("\n") >= 3 or row["image"] not in captions
    assert any("context" in record.facts["question"] for record in found)


@pytest.mark.parametrize(
    ("name", "facts"),
    [
        ("slake-en", {"modality": "MRI", "organ": "Abdomen"}),
        ("vqa-rad", {"organ": "CHEST"}),
        ("omnimedvqa", {"modality": "Invented"}),
        ("medxpertqa-mm", {"organ": "Other", "task": "Diagnosis"}),
        ("llava-bench", {}),
    ],
)
def test_what_a_set_says_of_its_pictures_is_kept_for_slices(name, facts, tmp_path):
    questions_of(name, tmp_path / "out")
    found = open_dataset(tmp_path / "out")[0].facts
    assert {key: value for key, value in found.items() if key not in ("question", "width", "height")} == facts


def test_several_pictures_come_in_their_order(tmp_path):
    questions, _ = questions_of("mmmu-health", tmp_path / "out")
    dataset = open_dataset(tmp_path / "out")
    shades = [dataset.image(ref).getpixel((0, 0))[0] for ref in questions[0].images]  # type: ignore[index]
    assert shades == [70, 10]
    assert questions[0].answer_type == "choice" and questions[1].answer_type == "open"


def test_reports_are_read_by_picture_and_what_has_no_findings_is_told(tmp_path):
    questions, summary = questions_of("mimic-cxr", tmp_path / "out")
    assert [one.references for one in questions] == [[FINDINGS], [FINDINGS]]
    assert len({one.group for one in questions}) == 1 and "19000001" not in questions[0].group
    assert summary["rejected"] == {"report without section": 1, "another split": 1}


def test_the_list_shows_every_benchmark_with_its_score(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "200")
    assert medkit("list", "benchmarks", monkeypatch=monkeypatch) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line[:1].isalpha()}
    assert set(CARDS) <= set(lines)
    assert "5,349" in lines["docvqa"] and "official: anls" in lines["docvqa"]
    assert "$MEDKIT_MIMIC_CXR" in lines["mimic-cxr"] and "PhysioNet" in lines["mimic-cxr"]
    assert medkit("list", "recipes", monkeypatch=monkeypatch) == 0
    assert "vqav2" not in capsys.readouterr().out
    assert medkit("list", "benchmark", monkeypatch=monkeypatch) != 0
    assert "must be one of recipes, curricula, domains, benchmarks" in capsys.readouterr().err


def test_the_published_score_is_said_after_an_evaluation(tmp_path):
    questions, _ = questions_of("mmmu-health", tmp_path / "out")
    rows = rows_of([questions[0]], ["B"], "answer")
    entry = {
        "accuracy": {"value": 1.0, "low": 0.2, "high": 1.0}, "count": 1, "failed": 0, "controls": {},
        "metrics": ["mmmu", "mmmu_open", "pope_f1"], "profiles": score_rows(rows, "official"),
    }  # fmt: skip
    entry["profiles"]["official"]["corpus"]["pope_f1"] = {"value": 0.5}
    lines = summary_lines({"benchmarks": {"mmmu-health": entry}, "decoding": {}})
    low = entry["profiles"]["official"]["scores"]["mmmu"]["low"]
    assert lines[1] == (
        f"  as published (official, version 1): mmmu 1.000 ({low:.3f} to 1.000), mmmu_open applies to no question, "
        "pope_f1 0.500"
    )
