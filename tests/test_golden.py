"""Every golden case equals medkit's function of the same definition.

The cases were produced by running the references' own functions. They lie in $MEDKIT_SHARED/golden; any
number of files and cases may be there.
"""

from __future__ import annotations

import copy
import json
import math
import os
from pathlib import Path
from typing import Any

import pytest
from golden_table import ALSO_EXPECTED, EXCEPTIONS, OPTIONAL, TABLE

from medkit.evaluation.scoring import captions, lmms_statistics

FOLDER = Path(os.environ.get("MEDKIT_SHARED") or Path(__file__).resolve().parents[2] / "shared") / "golden"
FILES = sorted(FOLDER.glob("*.jsonl"))
TOLERANCE = 1e-9


def differences(expected: Any, found: Any, at: str = "") -> list[str]:
    """Lists where a found value is not the expected one, by path; keys that only ``found`` has don't count."""
    if isinstance(expected, dict) and (set(expected) == {"nonfinite"} or expected == {"error": "nan"}):
        same = _same_nonfinite(expected.get("nonfinite", "nan"), found)
        return [] if same else [f"{at}: {expected} is {found!r}"]
    if isinstance(expected, dict) and isinstance(found, dict):
        return [
            line
            for key, value in expected.items()
            for line in differences(value, found.get(key, "(nothing)"), f"{at}/{key}")
        ]
    if isinstance(expected, list) and isinstance(found, list | tuple) and len(expected) == len(found):
        pairs = enumerate(zip(expected, found, strict=True))
        return [line for index, (one, other) in pairs for line in differences(one, other, f"{at}/{index}")]
    if isinstance(expected, float) and isinstance(found, int | float):
        return [] if abs(expected - found) <= TOLERANCE else [f"{at}: {expected} is {found}"]
    return [] if expected == found else [f"{at}: {expected!r} is {found!r}"]


def _same_nonfinite(name: str, found: Any) -> bool:
    value = float(name)
    return isinstance(found, float) and (found == value or (math.isnan(value) and math.isnan(found)))


def cases_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def expected_of(case: dict[str, Any], stem: str) -> dict[str, Any]:
    """Gives what a case expects, without what EXCEPTIONS argue and what a missing program would give."""
    also = {key: case[key] for key in ALSO_EXPECTED if key in case}
    excepted = {key for key, applies in EXCEPTIONS.get(stem, {}).items() if applies(case)}
    expected = copy.deepcopy({key: v for key, v in (case["expected"] | also).items() if key not in excepted})
    for path, (_, is_here) in OPTIONAL.get(stem, {}).items():
        within: Any = expected
        for key in path[:-1]:
            within = within.get(key, {})
        if not is_here():
            within.pop(path[-1], None)
    return expected


@pytest.mark.parametrize("path", FILES, ids=[path.stem for path in FILES])
def test_every_case_is_equal(path: Path) -> None:
    make = TABLE.get(path.stem)
    if make is None:
        pytest.skip(f"{path.name}: medkit has no scorer under this file's name")
    cases = cases_of(path)
    scores = make(path.parent, cases)
    wrong, checked = [], 0
    for case in cases:
        expected = expected_of(case, path.stem)
        checked += bool(expected)
        found = differences(expected, scores(case)) if expected else []
        wrong += [f"case {case['id']}{line}" for line in found]
    assert checked, f"{path.name}: nothing was checked"
    assert not wrong, f"{len(wrong)} values of {len(cases)} cases differ:\n" + "\n".join(wrong[:20])


def test_the_report_file_as_a_corpus() -> None:
    path = FOLDER / "report_nlg.jsonl"
    cases = cases_of(path) if path.is_file() else []
    if len(cases) != 195:  # CIDEr and BLEU of a corpus are known for the whole file only
        pytest.skip(f"{path} is not there as a whole")
    counts = sum(captions.bleu_counts(case["prediction"], case["references"]) for case in cases)
    expected = [0.6565992865634586, 0.6163983144871259, 0.5844703722567954, 0.5551873433800266]
    assert not differences(expected, captions.bleu_from_counts(counts))
    said, golds = [case["prediction"] for case in cases], [case["references"] for case in cases]
    assert abs(sum(captions.cider(said, golds)) / 195 - 2.7300028646782466) <= TOLERANCE


@pytest.mark.parametrize(
    ("stem", "path"), [(stem, path) for stem, paths in OPTIONAL.items() for path in paths]
)
def test_what_needs_a_program_was_compared(stem: str, path: tuple[str, ...]) -> None:
    program, is_here = OPTIONAL[stem][path]
    if not is_here():
        pytest.skip(f"{stem}: {' '.join(path)} is not compared without {program}: medkit-lmm[evaluate]")
    cases = [case for file in FILES if file.stem == stem for case in cases_of(file)]
    if not cases:
        pytest.skip(f"no {stem}.jsonl in {FOLDER}")
    assert any(path[0] in expected_of(case, stem) for case in cases)


def test_power_and_repeats_are_equal() -> None:
    path = FOLDER / "lmms_stats_extra.json"
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    extra = json.loads(path.read_text(encoding="utf-8"))
    for case in extra["power_analysis"]:
        assert not differences(case["expected"], lmms_statistics.power_analysis(**case["args"])), case["args"]
    for case in extra["repeats"]:
        found = lmms_statistics.repeat_stability(case["scores_per_question"])
        assert not differences(case["expected"], found)


def test_the_cases_are_there() -> None:
    if not FILES:
        pytest.skip(f"no golden cases in {FOLDER}; set MEDKIT_SHARED to the folder that holds golden/")
    assert {path.stem for path in FILES} & set(TABLE)


@pytest.mark.parametrize(
    ("expected", "found"),
    [
        (1.0, 1.0 + 2e-9),
        (True, False),
        ("B", "b"),
        ({"error": "ValueError"}, 0.0),
        ({"nonfinite": "inf"}, math.nan),
        ({"a": 1}, {}),
        ([1, 2], [1]),
    ],
)
def test_differences_are_seen(expected: Any, found: Any) -> None:
    assert differences(expected, found)
