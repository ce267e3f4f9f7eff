"""The comparison pairs questions, tests the difference, and counts what leaked from train to test."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_evaluation import write_dataset

from medkit.errors import DataError
from medkit.evaluation.compare import compare, paired
from medkit.evaluation.leaks import count_leaks
from medkit.sample import Sample, assistant_turn, user_turn
from medkit.store import DatasetWriter, open_dataset


def _row(number: int, correct: float, benchmark: str = "held-out") -> dict:
    return {"benchmark": benchmark, "control": "none", "id": f"q{number}", "group": f"g{number // 2}",
            "references": ["yes"], "correct": correct}  # fmt: skip


def _evaluation(folder: Path, model: str, rows: list[dict]) -> Path:
    folder.mkdir(parents=True)
    blank = [row | {"control": "blank", "correct": 0} for row in rows]
    (folder / "answers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows + blank))
    benchmarks = {
        name: {
            "accuracy": {"value": 0.5, "low": 0.4, "high": 0.6},
            "source": {"domain": "scenes" if name == "general-scenes" else "same"},
        }
        for name in {row["benchmark"]: None for row in rows}
    }
    (folder / "scores.json").write_text(json.dumps({"model": model, "benchmarks": benchmarks}))
    return folder


def _stage(folder: Path, samples: int) -> Path:
    (folder / "model").mkdir(parents=True)
    result = {"model": "model", "samples_seen": samples, "supervised_tokens": 5 * samples, "seconds": 9.5}
    (folder / "summary.json").write_text(json.dumps({"step": folder.name, "result": result}))
    return folder


def test_questions_that_share_no_picture_are_tested_by_mcnemar():
    before = [_row(n, 0) | {"group": f"g{n}"} for n in range(40)]
    after = [_row(n, int(n < 6)) | {"group": f"g{n}"} for n in range(40)]
    found = paired(before, after, "held-out", "instruct")
    assert (found["test"], found["wins"], found["losses"]) == ("exact McNemar", 6, 0)
    assert found["p_value"] == pytest.approx(2 / 2**6, abs=1e-12)
    shared = [row | {"group": f"g{n // 20}"} for n, row in enumerate(before)]
    assert paired(shared, after, "held-out", "instruct")["p_value"] > 0.4  # two pictures show nothing


def test_a_run_is_compared_with_its_base(tmp_path):
    before = [0] * 32 + [1] * 8
    after = [1] * 36 + [0] * 4
    base = [_row(n, c) for n, c in enumerate(before)] + [_row(n, 1, "general-scenes") for n in range(10)]
    tuned = [_row(n, c) for n, c in enumerate(after)] + [_row(n, n % 2, "general-scenes") for n in range(10)]
    inputs = {
        "base": _evaluation(tmp_path / "eb", "base", base),
        "instruct": _evaluation(tmp_path / "ei", "instruct", tuned[::-1]),
        "data": write_dataset(tmp_path / "data", shared=1),
        "train:instruct": _stage(tmp_path / "3-instruct", 1200),
    }
    out = tmp_path / "out"
    out.mkdir()
    result = compare({"seed": 0}, inputs, out)
    found = json.loads((out / "comparisons.json").read_text())
    held_out = found["benchmarks"]["held-out"]["stages"]["instruct"]
    assert (held_out["wins"], held_out["losses"], held_out["count"]) == (32, 4, 40)
    # questions share pictures, so whole pictures are swapped
    assert held_out["test"] == "paired permutation over groups"
    assert held_out["p_value"] < 0.002
    assert held_out["difference"]["value"] == 0.7
    assert held_out["difference"]["low"] > 0
    assert found["benchmarks"]["held-out"]["base"] == {"value": 0.5, "low": 0.4, "high": 0.6}
    assert list(found["forgetting"]) == ["general-scenes"]
    assert found["forgetting"]["general-scenes"]["instruct"]["value"] == -0.5
    assert found["budget"] == {"instruct": {"samples_seen": 1200, "tokens": 6000, "seconds": 9.5}}
    assert found["note"].startswith("Samples seen in training: base 0, instruct 1,200.")
    assert found["leaks"]["images"] == 1
    assert result["differences"]["held-out"]["instruct"]["value"] == 0.7


def test_unequal_budgets_are_said(tmp_path):
    rows = [_row(n, n % 2) for n in range(4)]
    inputs = {
        "base": _evaluation(tmp_path / "eb", "base", rows),
        "align": _evaluation(tmp_path / "ea", "align", rows),
        "instruct": _evaluation(tmp_path / "ei", "instruct", rows),
        "train:align": _stage(tmp_path / "a", 100),
        "train:instruct": _stage(tmp_path / "i", 300) / "model",
    }
    compare({}, inputs, tmp_path)
    found = json.loads((tmp_path / "comparisons.json").read_text())
    assert "align 100, instruct 300. The budgets differ" in found["note"]
    assert found["leaks"] == {}
    assert found["benchmarks"]["held-out"]["stages"]["align"]["p_value"] == 1.0


def test_fractional_scores_are_tested_by_permutation():
    before = [_row(number, 0.0) for number in range(40)]
    after = [_row(number, 0.5) for number in range(40)]
    found = paired(before, after, "held-out", "instruct")
    assert found["test"] == "paired permutation over groups"
    assert found["p_value"] < 0.001


def test_different_questions_are_refused():
    rows = [_row(number, 1) for number in range(3)]
    with pytest.raises(DataError, match=r"asked different questions \(3 and 2, 2 in common\)"):
        paired(rows, rows[:2], "held-out", "instruct")
    other = [rows[0] | {"references": ["no"]}, *rows[1:]]
    with pytest.raises(DataError, match="asked different questions"):
        paired(rows, other, "held-out", "instruct")


def test_a_comparison_needs_a_base(tmp_path):
    with pytest.raises(DataError, match="needs an evaluation of the base"):
        compare({}, {"instruct": _evaluation(tmp_path / "e", "instruct", [_row(0, 1)])}, tmp_path)


def _smooth(seed: int) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((96, 96), Image.Resampling.BICUBIC))


def test_leaks_are_exact_near_and_by_question(tmp_path):
    same, near, other = _smooth(1), _smooth(2), _smooth(3)
    brighter = np.clip(near.astype(int) + 3, 0, 255).astype(np.uint8)
    negative = 255 - near
    rows = [
        ("t1", "train", "conversation", same, "How many cells?"),
        ("t2", "train", "conversation", near, "Which colour?"),
        ("e1", "test", "question", same, "how many cells"),  # same image, same question
        ("e2", "test", "question", brighter, "Is there a cell?"),  # near duplicate, new question
        ("e3", "test", "question", brighter, "which colour"),  # near duplicate, same question
        ("e4", "test", "question", other, "Which colour?"),  # another image: the text alone is known
        ("e5", "test", "question", negative, "Where?"),
    ]
    with DatasetWriter(tmp_path, "leaky") as writer:
        for name, split, kind, picture, text in rows:
            source = {
                "dataset": "leaky",
                "record": name,
                "licence": "MIT",
                "group": name,
                "split": split,
                "kind": kind,
            }
            ref = writer.add_image(picture)
            writer.add(Sample(name, [user_turn(text, 1), assistant_turn("yes")], [ref], {}, source))
    leaks = count_leaks(open_dataset(tmp_path))
    del leaks["examples"]
    assert leaks == {
        "images": 1,
        "near_duplicate_images": 1,
        "questions": 2,
        "question_texts": 3,
        "test_images": 4,
        "test_questions": 5,
        "train_images": 2,
    }


def test_images_alike_by_hash_alone_are_no_duplicates(tmp_path):
    """Two dark pictures with one faint spot each agree in almost every hash bit; their thumbnails differ."""
    with DatasetWriter(tmp_path, "dark") as writer:
        for name, split, kind, level in (("t", "train", "conversation", 0), ("e", "test", "question", 200)):
            picture = np.full((64, 64, 3), level, dtype=np.uint8)
            source = {
                "dataset": "dark",
                "record": name,
                "licence": "MIT",
                "group": name,
                "split": split,
                "kind": kind,
            }
            ref = writer.add_image(picture)
            writer.add(Sample(name, [user_turn("?", 1), assistant_turn("yes")], [ref], {}, source))
    assert count_leaks(open_dataset(tmp_path))["near_duplicate_images"] == 0
