"""The drawn phantoms: deterministic, true to their facts, and no answer without the picture."""

from __future__ import annotations

import importlib.util
import time
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest

from medkit.sample import Sample, text_of
from medkit.teacher.card import load_teacher
from medkit.teacher.rules import questions

FOLDER = Path(__file__).resolve().parents[1] / "domains" / "phantom"
COUNT = 1500
MODALITY = {
    "nodule": "chest x-ray", "effusion": "chest x-ray", "enlarged heart": "chest x-ray", "pacemaker": "chest x-ray",
    "hemorrhage": "head CT", "infarct": "head CT", "midline shift": "head CT",
    "fracture": "limb x-ray", "plate": "limb x-ray", "screw": "limb x-ray",
    "red cell": "blood smear", "white cell": "blood smear", "platelet": "blood smear", "parasite": "blood smear",
    "cyst": "ultrasound", "stone": "ultrasound",
}  # fmt: skip


@pytest.fixture(scope="module")
def phantom():
    spec = importlib.util.spec_from_file_location("phantom_domain", FOLDER / "domain.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def drawn(phantom) -> list[tuple[np.ndarray, dict]]:
    return [phantom.draw(7, index) for index in range(COUNT)]


@pytest.fixture(scope="module")
def card():
    return load_teacher(FOLDER / "teacher.yaml")


def test_a_drawing_is_a_function_of_seed_and_index(phantom) -> None:
    first, facts = phantom.draw(7, 3)
    again, same = phantom.draw(7, 3)
    assert np.array_equal(first, again) and facts == same
    assert not np.array_equal(first, phantom.draw(8, 3)[0])
    assert not np.array_equal(first, phantom.draw(7, 4)[0])
    assert (first.shape, first.dtype) == ((64, 64, 3), np.uint8)


def test_drawing_is_fast(phantom) -> None:
    start = time.process_time()
    for index in range(100):
        phantom.draw(1, index)
    assert (time.process_time() - start) / 100 < 0.008  # 0.8 ms on a quiet core


def test_facts_follow_the_schema(drawn) -> None:
    for _, facts in drawn:
        assert (facts["width"], facts["height"], facts["complete"], facts["labels"]) == (64, 64, True, {})
        for found in facts["objects"]:
            x0, y0, x1, y1 = found["box"]
            assert MODALITY[found["label"]] == facts["modality"]
            assert 0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1
            assert max(x1 - x0, y1 - y0) * 64 >= 4.5, f"{found['label']} is too small to see"
            side = found["attributes"].get("side")
            if side and found["label"] != "midline shift":
                assert (x0 + x1 < 1) == (side == "left")


def test_modalities_are_even_and_findings_occur_in_half_of_their_images(drawn) -> None:
    modalities = Counter(facts["modality"] for _, facts in drawn)
    assert len(modalities) == 5 and min(modalities.values()) > COUNT / 5 * 0.8
    for label in MODALITY.keys() - {"red cell"}:
        images = [facts for _, facts in drawn if facts["modality"] == MODALITY[label]]
        share = sum(any(found["label"] == label for found in facts["objects"]) for facts in images) / len(
            images
        )
        assert 0.38 < share < 0.62, f"{label} in {share:.2f}"


@pytest.mark.parametrize(
    ("label", "brighter"),
    [("nodule", True), ("hemorrhage", True), ("infarct", False), ("cyst", False), ("stone", True),
     ("pacemaker", True), ("effusion", True)],
)  # fmt: skip
def test_a_finding_shows_against_the_same_place_without_it(drawn, label: str, brighter: bool) -> None:
    without = [
        picture for picture, facts in drawn if facts["modality"] == MODALITY[label] and not facts["objects"]
    ]
    ground = np.mean(without, axis=0)[..., 0]
    gaps = []
    for picture, facts in drawn:
        for found in facts["objects"]:
            if found["label"] == label:
                x, y = (int(32 * (found["box"][i] + found["box"][i + 2])) for i in (0, 1))
                rows, columns = slice(y - 1, y + 2), slice(x - 1, x + 2)
                gaps.append(float(picture[rows, columns, 0].mean() - ground[rows, columns].mean()))
    share = np.mean(np.array(gaps) * (1 if brighter else -1) > 20)
    assert len(gaps) > 50 and share > 0.9


def test_counts_reach_five(drawn) -> None:
    for label, most in (("cyst", 5), ("red cell", 5), ("platelet", 5), ("screw", 4), ("white cell", 2)):
        counts = Counter(sum(found["label"] == label for found in facts["objects"]) for _, facts in drawn)
        assert max(counts) == most, label


def test_wording_alone_answers_little(drawn, card) -> None:
    """The best guess that knows only the question's kind and its subject stays near chance."""
    answers: dict[str, Counter] = defaultdict(Counter)
    by_kind: dict[str, Counter] = defaultdict(Counter)
    for index, (_, facts) in enumerate(drawn):
        record = Sample(f"r{index}", [], ["x"], facts, {"split": "test"})
        for asked in questions(record, card, 0):
            kind, answer = asked.facts["question"]["kind"], text_of(asked.messages[1])
            by_kind[kind][answer] += 1
            if kind in ("presence", "presence by side", "side"):
                found = next(
                    one
                    for one in sorted(MODALITY, key=len, reverse=True)
                    if one in text_of(asked.messages[0])
                )
                answers[f"{kind}/{found}"][answer] += 1
    for kind, limit in {"presence": 0.62, "presence by side": 0.62, "modality": 0.35, "count": 0.35, "side": 0.6,
                        "zone": 0.62, "size": 0.62, "compare": 0.65}.items():  # fmt: skip
        counts = by_kind[kind]
        assert sum(counts.values()) >= 50
        assert max(counts.values()) / sum(counts.values()) < limit, kind
    large = {key: counts for key, counts in answers.items() if sum(counts.values()) >= 60}
    assert len(large) > 8
    for key, counts in large.items():
        assert max(counts.values()) / sum(counts.values()) < 0.72, key
