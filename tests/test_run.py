"""Runs: a second redoes nothing, a killed one goes on, a changed setting redoes what depends on it."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from card_shelf import write_shelf
from rich.console import Console

from medkit.cards import load_recipe
from medkit.cards.load import Cards
from medkit.errors import DataError, MedkitError
from medkit.plan import plan
from medkit.run import Stopped, place_model, run, run_recipe, write_json
from medkit.state import states

STEPS = [
    "ingest",
    "teach",
    "align",
    "instruct",
    "evaluate-base",
    "evaluate-align",
    "evaluate-instruct",
    "compare",
]
COMPARED = {
    "benchmarks": {
        "asked": {
            "base": {"value": 0.5, "low": 0.4, "high": 0.6},
            "stages": {
                "instruct": {
                    "accuracy": {"value": 0.9, "low": 0.85, "high": 0.95},
                    "difference": {"value": 0.4, "low": 0.3, "high": 0.5},
                    "p_value": 0.0001,
                }
            },
        }
    }
}


class Verbs:
    """Verbs that note their calls and leave small files, and fail where they are told to."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.seen: dict[str, dict[str, Path]] = {}
        self.stop: dict[str, BaseException] = {}

    def table(self) -> dict[str, Any]:
        names = ("ingest", "teach", "build", "train", "evaluate", "compare")
        return {**{name: self.verb(name) for name in names}, "report": self.report}

    def verb(self, name: str) -> Callable[..., dict[str, Any]]:
        def call(settings: dict[str, Any], inputs: dict[str, Path], out: Path) -> dict[str, Any]:
            step = out.name.partition("-")[2]
            self.calls.append(step)
            self.seen[step] = inputs
            for path in inputs.values():
                assert path.exists(), f"{step} reads {path}, which is not there"
            if step in self.stop:
                (out / "half").write_text("half")
                raise self.stop.pop(step)
            if name in ("train", "build"):
                (out / "model").mkdir(exist_ok=True)
                (out / "model/config.json").write_text(json.dumps(settings.get("stage")))
            if name == "compare":
                write_json(out / "comparisons.json", COMPARED)
            return {"half": (out / "half").exists()}

        return call

    def report(self, folder: Path) -> Path:
        self.calls.append("report")
        (folder / "report.html").write_text("<html></html>")
        return folder / "report.html"

    def take(self) -> list[str]:
        calls, self.calls = self.calls, []
        return calls


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(write_shelf(tmp_path))
    monkeypatch.delenv("MEDKIT_SHELF", raising=False)
    return tmp_path


def go(verbs: Verbs, *settings: str, run_folder: str = "runs/small") -> str:
    out = io.StringIO()
    cards = load_recipe("small", settings)
    run_recipe(cards, Path(run_folder), verbs=verbs.table(), console=Console(file=out, width=150))
    return out.getvalue()


def why(cards: Cards) -> dict[str, list[str]]:
    return {
        state.step.name: state.reasons for state in states(plan(cards), Path("runs/small")) if state.reasons
    }


def test_a_run_makes_every_step_once_in_order(shelf: Path) -> None:
    verbs = Verbs()
    said = go(verbs)
    assert verbs.take() == [*STEPS, "report"]
    folders = [f"{number}-{name}" for number, name in enumerate(STEPS, 1)]
    files = ["finished.json", "model", "recipe.yaml", "report.html", "resolved.json"]
    there = [path.name for path in Path("runs/small").iterdir() if not path.name.startswith(".")]
    assert sorted(there) == sorted([*folders, *files])
    assert json.loads(Path("runs/small/model/config.json").read_text()) == "instruct"
    assert (
        "90.0 %" in said and "85.0 to 95.0" in said and "+40.0 (+30.0 to +50.0)" in said and "< 0.001" in said
    )
    assert "Report: runs/small/report.html" in said


def test_steps_read_the_folders_that_they_depend_on(shelf: Path) -> None:
    verbs = Verbs()
    go(verbs)
    base = Path("runs/small")
    assert verbs.seen["ingest"] == {"data": shelf / "cells-data"}
    assert verbs.seen["teach"] == {"ingest": base / "1-ingest"}
    assert verbs.seen["align"] == {"start": shelf / "checkpoints/little", "data": base / "2-teach"}
    assert verbs.seen["instruct"] == {"start": base / "3-align/model", "data": base / "2-teach"}
    assert verbs.seen["evaluate-instruct"] == {
        "model": base / "4-instruct/model",
        "data": base / "2-teach",
        "data:asked": base / "2-teach",
    }
    assert verbs.seen["compare"] == {
        "base": base / "5-evaluate-base",
        "align": base / "6-evaluate-align",
        "instruct": base / "7-evaluate-instruct",
        "train:align": base / "3-align",
        "train:instruct": base / "4-instruct",
        "data": base / "2-teach",
    }


def test_a_second_run_redoes_nothing_and_says_so(shelf: Path) -> None:
    verbs = Verbs()
    go(verbs)
    verbs.take()
    before = {path: path.stat().st_mtime_ns for path in Path("runs/small").rglob("*") if path.is_file()}
    said = go(verbs)
    assert verbs.take() == []
    assert "Nothing to do: all 8 steps of small are done with these settings." in said
    assert "90.0 %" in said
    after = {path: path.stat().st_mtime_ns for path in Path("runs/small").rglob("*") if path.is_file()}
    assert {path: time for path, time in after.items() if path.name != ".lock"} == {
        path: time for path, time in before.items() if path.name != ".lock"
    }


def test_summary_and_started_hold_what_the_step_ran_with(shelf: Path) -> None:
    go(Verbs())
    summary = json.loads(Path("runs/small/4-instruct/summary.json").read_text())
    started = json.loads(Path("runs/small/4-instruct/started.json").read_text())
    assert {"step", "verb", "fingerprint", "settings", "inputs", "seconds", "finished", "result"} <= set(
        summary
    )
    assert (summary["step"], summary["verb"], summary["settings"]["epochs"]) == ("instruct", "train", 2)
    assert summary["fingerprint"] == started["fingerprint"]
    upstream = json.loads(Path("runs/small/3-align/summary.json").read_text())["fingerprint"]
    assert summary["inputs"]["start"] == upstream
    resolved = json.loads(Path("runs/small/resolved.json").read_text())
    assert resolved["recipe"]["name"] == "small" and resolved["final"] == "instruct"
    assert [step["folder"] for step in resolved["steps"]] == [
        f"{n}-{name}" for n, name in enumerate(STEPS, 1)
    ]


@pytest.mark.parametrize("step", STEPS)
def test_a_run_killed_in_any_step_goes_on_in_it(step: str, shelf: Path) -> None:
    verbs = Verbs()
    verbs.stop[step] = SystemExit(9)  # what a kill leaves: no summary, half the files
    with pytest.raises(SystemExit):
        go(verbs)
    assert verbs.take() == STEPS[: STEPS.index(step) + 1]
    found = {state.step.name: state.state for state in states(plan(load_recipe("small")), Path("runs/small"))}
    assert [found[name] for name in STEPS] == [
        *["done"] * STEPS.index(step), "resume", *["new"] * (len(STEPS) - STEPS.index(step) - 1)
    ]  # fmt: skip
    go(verbs)
    assert verbs.take() == [*STEPS[STEPS.index(step) :], "report"]
    number = STEPS.index(step) + 1
    # The verb found its own half-done files: it can resume from them.
    assert json.loads(Path(f"runs/small/{number}-{step}/summary.json").read_text())["result"] == {
        "half": True
    }


def test_a_kill_before_the_report_only_lacks_the_report(shelf: Path) -> None:
    verbs = Verbs()
    go(verbs)
    verbs.take()
    Path("runs/small/finished.json").unlink()
    Path("runs/small/report.html").unlink()
    go(verbs)
    assert verbs.take() == ["report"]


def test_a_changed_stage_redoes_it_and_what_depends_on_it_and_says_why(shelf: Path) -> None:
    verbs = Verbs()
    go(verbs)
    verbs.take()
    assert why(load_recipe("small", ["instruct.epochs=4"])) == {
        "instruct": ["epochs: 2 -> 4"],
        "evaluate-instruct": ["its input instruct changed"],
        "compare": ["its input evaluate-instruct changed", "its input instruct changed"],
    }
    said = go(verbs, "instruct.epochs=4")
    assert verbs.take() == ["instruct", "evaluate-instruct", "compare", "report"]
    assert "because epochs: 2 -> 4" in said


def test_a_changed_adapter_leaves_the_stage_that_trains_the_projector_alone(shelf: Path) -> None:
    verbs = Verbs()
    go(verbs)
    verbs.take()
    go(verbs, "adapter.rank=16")
    assert verbs.take() == ["instruct", "evaluate-instruct", "compare", "report"]


def test_what_changes_no_output_redoes_no_step(shelf: Path) -> None:
    verbs = Verbs()
    go(verbs)
    verbs.take()
    assert why(load_recipe("small", ["hardware.threads=1", "align.checkpoint_every=7", "title=Other"])) == {}
    Path("runs").rename("moved")
    (shelf / "cells-data").rename(shelf / "data-elsewhere")
    go(verbs, "data=data-elsewhere", run_folder="moved/small")
    assert verbs.take() == []


def test_a_redone_step_starts_from_an_empty_folder(shelf: Path) -> None:
    verbs = Verbs()
    go(verbs)
    (Path("runs/small/4-instruct") / "half").write_text("of the old settings")
    go(verbs, "instruct.epochs=4")
    assert not Path("runs/small/4-instruct/half").exists()


def test_changed_data_redoes_everything_but_the_base(shelf: Path) -> None:
    verbs = Verbs()
    go(verbs)
    verbs.take()
    (shelf / "cells-data/first/2.png").write_text("new")
    assert why(load_recipe("small"))["ingest"] == ["the files of data changed"]
    go(verbs)
    assert verbs.take() == [*STEPS, "report"]


def test_a_changed_base_leaves_the_data(shelf: Path) -> None:
    verbs = Verbs()
    go(verbs)
    verbs.take()
    (shelf / "checkpoints/little/config.json").write_text('{"changed": 1}')
    assert why(load_recipe("small"))["evaluate-base"] == ["the base model changed"]
    go(verbs)
    assert verbs.take() == [*STEPS[2:], "report"]


def test_an_added_stage_is_new_and_later_steps_keep_their_work_under_new_numbers(shelf: Path) -> None:
    verbs = Verbs()
    go(verbs)
    verbs.take()
    path = shelf / "curricula/two.yaml"
    path.write_text(path.read_text() + "  more:\n    start: align\n    train: {language: 1.0e-4}\n")
    go(verbs)
    assert verbs.take() == ["more", "evaluate-more", "compare", "report"]
    assert Path("runs/small/6-evaluate-base/summary.json").is_file()
    assert not Path("runs/small/5-evaluate-base").exists()
    path.write_text(
        path.read_text().replace("  more:\n    start: align\n    train: {language: 1.0e-4}\n", "")
    )
    go(verbs)
    assert verbs.take() == ["compare", "report"]
    # What no report may read any more is kept out of its sight, not thrown away.
    assert Path("runs/small/unused/5-more/model").is_dir()
    assert not Path("runs/small/5-more").exists()


def test_a_broken_record_of_a_step_is_a_reason(shelf: Path) -> None:
    go(Verbs())
    Path("runs/small/4-instruct/started.json").write_text("{")
    assert why(load_recipe("small"))["instruct"] == ["its record of how it was made is gone or broken"]


def test_a_lost_model_is_made_again(shelf: Path) -> None:
    verbs = Verbs()
    go(verbs)
    verbs.take()
    for path in (Path("runs/small/3-align/model"), Path("runs/small/model")):
        for file in path.iterdir():
            file.unlink()
        path.rmdir()
    go(verbs)
    assert verbs.take() == ["align", "report"]
    assert Path("runs/small/model/config.json").is_file()


def test_a_users_error_names_the_step(shelf: Path) -> None:
    verbs = Verbs()
    verbs.stop["teach"] = DataError("no sample could be made")
    with pytest.raises(DataError, match=r"^step 2-teach: no sample could be made$"):
        go(verbs)


def test_ctrl_c_says_how_to_go_on(shelf: Path) -> None:
    verbs = Verbs()
    verbs.stop["align"] = KeyboardInterrupt()
    with pytest.raises(Stopped, match=r"^Stopped in step 3-align; what is done is kept") as stopped:
        go(verbs)
    assert stopped.value.exit_code == 130


def test_two_runs_can_not_work_in_one_folder(shelf: Path) -> None:
    verbs = Verbs()
    inner = verbs.table()

    def twice(settings: dict[str, Any], inputs: dict[str, Path], out: Path) -> dict[str, Any]:
        with pytest.raises(MedkitError, match="runs/small: another medkit run works in this folder"):
            go(Verbs())
        return verbs.verb("ingest")(settings, inputs, out)

    run_recipe(
        load_recipe("small"),
        Path("runs/small"),
        verbs={**inner, "ingest": twice},
        console=Console(file=io.StringIO()),
    )
    assert verbs.take() == [*STEPS, "report"]


def test_run_gives_the_names_of_the_steps_that_ran(shelf: Path) -> None:
    verbs, steps = Verbs(), plan(load_recipe("small"))
    console = Console(file=io.StringIO())
    assert run(steps, Path("out"), verbs=verbs.table(), console=console) == STEPS
    assert run(steps, Path("out"), verbs=verbs.table(), console=console) == []


def test_the_placed_model_is_whole_and_replaces_the_old_one(tmp_path: Path) -> None:
    source, target = tmp_path / "1-a/model", tmp_path / "model"
    (source / "sub").mkdir(parents=True)
    (source / "sub/weights").write_text("new")
    target.mkdir()
    (target / "old").write_text("old")
    place_model(source, target)
    assert [path.relative_to(target).as_posix() for path in sorted(target.rglob("*"))] == [
        "sub",
        "sub/weights",
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1-a", "model"]
    with pytest.raises(MedkitError, match="left no model folder"):
        place_model(tmp_path / "nowhere", target)
