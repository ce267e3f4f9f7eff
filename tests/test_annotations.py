"""Labels and annotations of reports: joined by id, nothing filled in, F1 and RadGraph with intervals."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from medkit.cli import app
from medkit.errors import DataError
from medkit.evaluation.scoring.findings import CONDITIONS, binary_labels, label_f1
from medkit.evaluation.scoring.profile_labelled import label_sums
from medkit.evaluation.scoring.rescore import score_file
from medkit.evaluation.statistics import sums_interval

GOLDEN = Path(os.environ.get("MEDKIT_SHARED", "../shared")) / "golden"
BLANKS = [0] * 14


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def classes(**found: int) -> list[int]:
    """Gives the class numbers with some conditions set, spaces as underscores."""
    return [found.get(name.replace(" ", "_"), 0) for name in CONDITIONS]


def graph(*entities: tuple[str, str]) -> dict[str, Any]:
    return {
        "entities": {
            str(n): {"tokens": t, "label": label, "relations": []} for n, (t, label) in enumerate(entities)
        }
    }


@pytest.fixture
def reports(tmp_path) -> Path:
    rows = [
        {"id": f"r{n}", "prediction": "lungs", "reference": "lungs", "patient": f"p{n // 2}", "type": "report"}
        for n in range(4)
    ]  # fmt: skip
    return write(tmp_path / "reports.jsonl", rows)


def labelled(found: dict[str, Any]) -> dict[str, Any]:
    profile = found["benchmarks"]["reports"]["profiles"]["labelled"]
    return {**profile["scores"], **profile["corpus"]}


def test_f1_of_both_rules_with_their_literal_values(reports, tmp_path):
    rows = [
        {"id": "r0", "hypothesis_classes": classes(Edema=1, Cardiomegaly=1), "reference_classes": classes(Edema=1)},
        {"id": "r1", "hypothesis_classes": classes(Edema=3), "reference_classes": classes(Edema=1, Fracture=1)},
        {"id": "r2", "hypothesis_classes": classes(Edema=2), "reference_classes": BLANKS},
        {"id": "r3", "hypothesis_classes": classes(Edema=1), "reference_classes": classes(Edema=1)},
    ]  # fmt: skip
    found = score_file(reports, annotations=[write(tmp_path / "a.jsonl", rows)])
    values = {name: score["value"] for name, score in labelled(found).items()}
    # Uncertain as positive: Edema 3 hits of 3 and 3; Cardiomegaly 0 of 1 and 0; Fracture 0 of 0 and 1.
    assert values["f1chexbert_14_micro_f1"] == pytest.approx(2 * 3 / (4 + 4))
    assert values["f1chexbert_14_macro_f1"] == pytest.approx(1 / 14)
    assert values["f1chexbert_5_macro_f1"] == pytest.approx(1 / 5)
    assert values["f1chexbert_14_weighted_f1"] == pytest.approx(3 / 4)
    assert values["f1chexbert_14_samples_f1"] == pytest.approx((2 / 3 + 2 / 3 + 0 + 1) / 4)
    # As negative: Edema 2 hits of 2 and 3.
    assert values["llava_rad_14_micro_f1"] == pytest.approx(2 * 2 / (3 + 4))
    assert values["llava_rad_5_micro_f1"] == pytest.approx(2 * 2 / (3 + 3))
    assert values["f1chexbert_5_accuracy"] == 0.75  # r0 has another Cardiomegaly
    assert found["benchmarks"]["reports"]["annotated"]["chexbert"]["scored"] == 4
    assert "radgraph" not in found["benchmarks"]["reports"]["annotated"]


def test_every_average_is_that_of_label_f1():
    rng = np.random.default_rng(0)
    said, gold = (binary_labels(rng.integers(0, 4, (40, 14)).tolist(), True) for _ in range(2))
    said[:, 3] = gold[:, 3] = False  # nobody names it
    wanted = label_f1(said, gold)
    for name, sums in label_sums(said, gold).items():
        value = float(sums.function(sums.rows.sum(0)[None])[0])
        assert value == pytest.approx(wanted[name]["f1"], abs=1e-12), name


def test_a_rare_condition_does_not_draw_the_interval_below_the_score():
    gold = np.eye(14, dtype=bool)[:, :14]  # every condition in one report alone, all found but one
    said = gold.copy()
    said[0, 0] = False
    macro = label_sums(said, gold)["macro"]
    found = sums_interval(macro.rows, macro.function, list(range(14)))
    assert found is not None
    assert found.value == pytest.approx(13 / 14)
    assert found.low < found.value <= found.high


def test_intervals_are_over_patients(reports, tmp_path):
    graphs = [graph(("heart", "a")), graph(("heart", "a")), graph(("lung", "a")), graph(("lung", "a"))]
    rows = [{"id": f"r{n}", "hypothesis": one, "reference": graphs[0]} for n, one in enumerate(graphs)]
    score = labelled(score_file(reports, annotations=[write(tmp_path / "a.jsonl", rows)]))["radgraph_partial"]
    # Two patients, one all right and one all wrong: nothing is known.
    assert (score["value"], score["low"], score["high"], score["count"]) == (0.5, 0.0, 1.0, 4)


def test_case_is_folded_as_in_the_repository_and_kept_as_on_pypi(reports, tmp_path):
    rows = [{"id": "r0", "hypothesis": graph(("Heart", "a")), "reference": graph(("heart", "a"))}]
    found = labelled(score_file(reports, annotations=[write(tmp_path / "a.jsonl", rows)]))
    assert (found["radgraph_simple"]["value"], found["radgraph_simple_pypi"]["value"]) == (1.0, 0.0)


def test_csv_files_of_both_sides_in_any_order_and_what_is_missing_is_told(reports, tmp_path):
    def table(name: str, cells: dict[str, dict[str, Any]], **more: str) -> Path:
        with (tmp_path / name).open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, ["id", *more, *CONDITIONS])
            writer.writeheader()
            for key, found in cells.items():
                writer.writerow({"id": key, **more, **found})
        return tmp_path / name

    said = table("said.csv", {"r3": {"Edema": "1.0"}, "r0": {"Edema": -1}, "r1": {"Edema": 0}, "r9": {}})
    gold = table("gold.csv", {"r0": {"Edema": 1}, "r2": {"Edema": 1}, "r3": {"Edema": 1}})
    found = score_file(reports, annotations=[said], reference_annotations=[gold])
    counts = found["benchmarks"]["reports"]["annotated"]["chexbert"]
    assert counts == {
        "scored": 2, "missing": 2, "missing_reply": 1, "missing_reference": 1, "examples": ["r2", "r1"],
    }  # fmt: skip
    assert found["annotations"] == {"files": [str(said), str(gold)], "unused": 1}
    scores = labelled(found)
    assert scores["f1chexbert_14_micro_f1"]["value"] == 1.0
    assert scores["llava_rad_14_micro_f1"]["value"] == pytest.approx(2 * 1 / (1 + 2))
    assert scores["f1chexbert_5_accuracy"]["count"] == 2
    with_side = table("gold2.csv", {"r0": {"Edema": 1}, "r3": {"Edema": 1}}, side="reference")
    again = score_file(reports, annotations=[said, with_side])
    assert labelled(again)["llava_rad_14_micro_f1"]["value"] == pytest.approx(2 / 3)


def test_radgraph_files_by_id_and_a_reply_that_failed(tmp_path):
    rows = [
        {"id": "1", "prediction": "a", "reference": "a", "type": "report"},
        {"id": "2", "prediction": "", "reference": "a", "type": "report", "failed": "timeout"},
    ]
    answers = write(tmp_path / "reports.jsonl", rows)
    for name in ("said", "gold"):
        content = {"1": {"text": "a", **graph(("heart", "a"))}, "2": graph(("heart", "a"))}
        (tmp_path / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    found = score_file(
        answers, annotations=[tmp_path / "said.json"], reference_annotations=[tmp_path / "gold.json"]
    )
    counts = found["benchmarks"]["reports"]["annotated"]["radgraph"]
    assert (counts["scored"], counts["missing"], found["annotations"]["unused"]) == (1, 0, 1)
    assert labelled(found)["radgraph_partial"]["count"] == 1


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"classes": BLANKS}, "has no id"),
        ({"id": "r0"}, "has no annotation"),
        ({"id": "r0", "classes": [0] * 13}, "no list of 14 class numbers"),
        ({"id": "r0", "classes": [4] + [0] * 13}, "no list of 14 class numbers"),
        ({"id": "r0", "classes": [1.0] + [0] * 13}, "no list of 14 class numbers"),
        ({"id": "r0", "classes": [True] + [0] * 13}, "no list of 14 class numbers"),
        ({"id": "r0", "labels": {"Edema": 1}}, "lacks the condition Enlarged Cardiomediastinum"),
        ({"id": "r0", "Edema": 1}, "lacks the condition Enlarged Cardiomediastinum"),
        ({"id": "r0", "labels": dict.fromkeys(CONDITIONS, 3)}, "is 3; a label is blank, 1, 0 or -1"),
        ({"id": "r0", "labels": dict.fromkeys(CONDITIONS, "yes")}, "is 'yes'; a label is"),
        ({"id": "r0", "radgraph": "heart"}, "is no RadGraph annotation"),
        ({"id": "r0", "radgraph": {"entities": {"1": {"tokens": "x", "relations": []}}}}, "entity 1 needs tokens"),
        (
            {"id": "r0", "radgraph": {"entities": {"1": {"tokens": "x", "label": "a", "relations": [["m", "2"]]}}}},
            "pairs of a kind and another entity",
        ),
        ({"id": "r0", "side": "left", "classes": BLANKS}, "the side 'left' is neither"),
        ({"id": "r0", "classes": BLANKS}, "no answer has an annotation of both"),
        ({"id": "r9", "hypothesis_classes": BLANKS, "reference_classes": BLANKS}, "no answer has an annotation"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_refused_in_a_sentence(reports, tmp_path, row, said):
    with pytest.raises(DataError, match=said):
        score_file(reports, annotations=[write(tmp_path / "a.jsonl", [row])])


def test_the_same_thing_said_twice_and_torn_tables_are_refused(reports, tmp_path):
    twice = write(tmp_path / "a.jsonl", [{"id": "r0", "classes": BLANKS}] * 2)
    with pytest.raises(DataError, match="r0 has chexbert of its reply already"):
        score_file(reports, annotations=[twice])
    torn = tmp_path / "torn.csv"
    torn.write_text("id,Edema\nr0,1,7\n", encoding="utf-8")
    with pytest.raises(DataError, match="row 1 has more or fewer cells"):
        score_file(reports, annotations=[torn])
    torn.write_bytes(b"id,Edema\nr\xff,1\n")
    with pytest.raises(DataError, match="no text in UTF-8"):
        score_file(reports, annotations=[torn])


def test_the_command_scores_reports_of_any_tool(tmp_path):
    rows = [{"id": n, "text": "no effusion", "gt": "no effusion" if n else "effusion"} for n in range(3)]
    answers = write(tmp_path / "reports.jsonl", rows)
    both = write(
        tmp_path / "a.jsonl",
        [{"id": 1, "hypothesis_classes": classes(Edema=1), "reference_classes": classes(Edema=1)}],
    )
    out = tmp_path / "scores.json"
    done = CliRunner().invoke(
        app, ["score", str(answers), "--reports", "--annotations", str(both), "--json", str(out)]
    )
    assert done.exit_code == 0, done.output
    told = " ".join(done.output.split())
    assert (
        "chexbert: 1 reports have annotations of both sides; 2 have not and are in no number (0, 2)" in told
    )
    entry = json.loads(out.read_text(encoding="utf-8"))["benchmarks"]["reports"]
    bleu = entry["profiles"]["medkit"]["corpus"]["bleu_1"]
    assert bleu["low"] < bleu["value"] < bleu["high"]
    f1 = entry["profiles"]["labelled"]["corpus"]["f1chexbert_14_micro_f1"]
    assert (f1["value"], f1["low"], f1["high"], f1["count"]) == (1.0, None, None, 1)


def golden_rows(pattern: str) -> list[dict[str, Any]]:
    files = sorted(GOLDEN.glob(pattern))
    if not files:
        pytest.skip(f"no {pattern} in MEDKIT_SHARED")
    return [json.loads(line) for path in files for line in path.read_text("utf-8").splitlines()]


@pytest.mark.parametrize("labeller", ["chexbert_f1", "radgraph_reward"])
def test_golden_files_are_annotation_files(tmp_path, labeller):
    rows = golden_rows(f"{labeller}*.jsonl")
    answers = write(
        tmp_path / "reports.jsonl",
        [{"id": row["id"], "prediction": "x", "reference": "x", "type": "report"} for row in rows],
    )
    found = labelled(score_file(answers, annotations=[write(tmp_path / "a.jsonl", rows)]))
    if labeller == "radgraph_reward":
        for name in ("simple", "partial", "complete"):
            wanted = np.mean([row["expected"]["git"][name] for row in rows])
            assert found[f"radgraph_{name}"]["value"] == pytest.approx(wanted, abs=1e-6)
            pypi = np.mean([row["expected"]["pypi_0.1.18"][name] for row in rows])
            assert found[f"radgraph_{name}_pypi"]["value"] == pytest.approx(pypi, abs=1e-6)
        return
    for rule, positive in (("f1chexbert", True), ("llava_rad", False)):
        sides = [[row[f"{side}_classes"] for row in rows] for side in ("hypothesis", "reference")]
        said, gold = (binary_labels(side, positive) for side in sides)
        wanted = label_f1(said, gold)
        for average in ("micro", "macro"):
            score = found[f"{rule}_14_{average}_f1"]
            assert score["value"] == pytest.approx(wanted[average]["f1"], abs=1e-9)
            assert score["low"] < score["value"] < score["high"]
