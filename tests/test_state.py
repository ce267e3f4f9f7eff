"""States: how settings and outside data are told apart from those of an earlier run."""

from __future__ import annotations

from pathlib import Path

from medkit.state import differences, digest, without_neutral


def test_differences_name_the_setting_from_what_to_what() -> None:
    old = {"train": {"projector": 0.1}, "benchmarks": [{"name": "a", "limit": 1}], "on": ["x"], "gone": 1}
    new = {"train": {"projector": 0.2}, "benchmarks": [{"name": "a", "limit": 2}], "on": ["x", "y"]}
    assert differences(old, new) == [
        "train.projector: 0.1 -> 0.2",
        "benchmarks.a.limit: 1 -> 2",
        'on: ["x"] -> ["x", "y"]',
        "gone: 1 -> (not set)",
    ]


def test_a_copy_of_small_data_has_the_same_digest(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x").write_text("same")
    assert digest(str(tmp_path / "a")) == digest(str(tmp_path / "b"))
    (tmp_path / "b/x").write_text("else")
    assert digest(str(tmp_path / "a")) != digest(str(tmp_path / "b"))
    assert digest("hub:owner/model") == "hub:owner/model"
    assert digest(str(tmp_path / "none")) == "absent"


def test_settings_that_change_no_output_do_not_count() -> None:
    settings = {
        "data": "/somewhere",
        "domain": {"name": "a", "folder": "/else", "data": {"reader": "table", "where": "there"}},
        "hardware": {"device": "cpu", "threads": 3},
        "benchmarks": [{"name": "b", "title": "B", "limit": 1}],
    }
    assert without_neutral(settings) == {
        "domain": {"name": "a", "data": {"reader": "table"}},
        "hardware": {"device": "cpu"},
        "benchmarks": [{"name": "b", "limit": 1}],
    }
