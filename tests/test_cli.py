"""The command line: fast, without torch, errors without a traceback, scaffolds that pass check."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from card_shelf import medkit, python, replace_in, write_shelf

HELP = """
import sys, time
start = time.process_time()
from medkit.cli import main
try:
    main()
except SystemExit as ended:
    code = ended.code
heavy = ("torch", "transformers", "datasets", "numpy", "PIL", "pydantic")
seconds = round(time.process_time() - start, 3)
print(code, seconds, [name for name in heavy if name in sys.modules], file=sys.stderr)
"""


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(write_shelf(tmp_path))
    monkeypatch.delenv("MEDKIT_SHELF", raising=False)
    monkeypatch.setenv("COLUMNS", "200")
    return tmp_path


def test_help_is_light_and_teaches(tmp_path: Path) -> None:
    done = python(HELP, tmp_path, "--help")
    code, seconds, loaded = done.stderr.splitlines()[-1].split(" ", 2)
    assert (code, loaded) == ("0", "[]")
    # Processor time, not the clock: other work on the machine must not fail the test.
    assert float(seconds) < 0.3
    assert "medkit run blood --set data=~/BCCD" in done.stdout
    for verb in ("run", "check", "list", "new", "report", "show"):
        assert f"│ {verb} " in done.stdout


def test_check_of_a_recipe_takes_less_than_a_second(shelf: Path) -> None:
    done = python(HELP, shelf, "check", "small")
    code, seconds, loaded = done.stderr.splitlines()[-1].split(" ", 2)
    assert code == "0"
    assert float(seconds) < 1
    assert "torch" not in loaded and "transformers" not in loaded and "datasets" not in loaded


def test_check_prints_the_plan(
    shelf: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    assert medkit("check", "small", monkeypatch=monkeypatch) == 0
    said = capsys.readouterr().out
    assert "A small recipe (runs/small)" in said
    rows = [line.split()[:3] for line in said.splitlines()[2:-1]]
    assert [row for row in rows if row[0].isdigit()] == [
        ["1", "ingest", "new"], ["2", "teach", "new"], ["3", "align", "new"], ["4", "instruct", "new"],
        ["5", "evaluate-base", "new"], ["6", "evaluate-align", "new"], ["7", "evaluate-instruct", "new"],
        ["8", "compare", "new"],
    ]  # fmt: skip
    assert said.splitlines()[-1] == "8 of 8 steps would run."
    assert not Path("runs").exists()


def test_check_without_a_recipe_checks_every_card(
    shelf: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    (shelf / "checkpoints/tiny-general").mkdir()
    (shelf / "checkpoints/tiny-general/config.json").write_text("{}")
    assert medkit("check", monkeypatch=monkeypatch) == 0
    names = "blood, chest-xray, ct-reports, pathology-slides, phantom, pmc-biomed, retail, small, sorting"
    assert f"ok recipe: {names}, tiny-general" in capsys.readouterr().out
    replace_in(shelf / "curricula/two.yaml", "batch: 8", "bach: 8")
    replace_in(shelf / "evals/asked/eval.yaml", "name: asked", "name: asekd")
    assert medkit("check", monkeypatch=monkeypatch) == 2
    assert capsys.readouterr().err.splitlines() == [
        "curricula/two.yaml:13: stages.instruct.bach: unknown key; did you mean batch?",
        "evals/asked/eval.yaml:1: name: \"asekd\" is not the name of its folder (asked); write 'name: asked' "
        "or rename the folder",
    ]


def test_check_reads_the_fixture(
    shelf: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    for picture in (shelf / "domains/cells/fixture").rglob("*.png"):
        picture.unlink()
    assert medkit("check", "small", monkeypatch=monkeypatch) == 2
    assert capsys.readouterr().err.startswith("domains/cells/domain.yaml:12: fixture: can't be read: ")


def test_check_finds_an_option_that_the_reader_lacks(
    shelf: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    replace_in(shelf / "domains/cells/domain.yaml", "{attribute: class}", "{atribute: class}")
    assert medkit("check", "small", monkeypatch=monkeypatch) == 2
    assert (
        "reader class_folders has no option 'atribute' (did you mean 'attribute'?)" in capsys.readouterr().err
    )


def test_new_cards_pass_check_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    (tmp_path / "checkpoints/tiny-general").mkdir(parents=True)
    (tmp_path / "checkpoints/tiny-general/config.json").write_text("{}")
    for arguments in (["domain", "no"], ["benchmark", "1e3"], ["recipe", "welds", "--domain", "no"]):
        assert medkit("new", *arguments, monkeypatch=monkeypatch) == 0
    replace_in(tmp_path / "recipes/welds.yaml", "benchmarks: [held-out]", 'benchmarks: [held-out, "1e3"]')
    assert medkit("check", monkeypatch=monkeypatch) == 0
    said = capsys.readouterr()
    assert said.err == ""
    assert "welds" in said.out
    assert medkit("check", "welds", "--set", "data=domains/no/fixture", monkeypatch=monkeypatch) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "8 of 8 steps would run."


def test_new_overwrites_nothing_and_refuses_odd_names(
    shelf: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    before = (shelf / "recipes/small.yaml").read_text()
    assert medkit("new", "recipe", "small", monkeypatch=monkeypatch) == 1
    assert "recipes/small.yaml is there already" in capsys.readouterr().err
    assert (shelf / "recipes/small.yaml").read_text() == before
    assert medkit("new", "domain", "../out", monkeypatch=monkeypatch) == 1
    assert not (shelf.parent / "out").exists()


def test_list_names_every_card(
    shelf: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    assert medkit("list", monkeypatch=monkeypatch) == 0
    said = capsys.readouterr().out
    rows = {tuple(line.split()[:2]) for line in said.splitlines()}
    assert {("recipe", "small"), ("curriculum", "two"), ("domain", "cells"), ("benchmark", "asked"),
            ("checkpoint", "little"), ("recipe", "phantom"), ("benchmark", "held-out")} <= rows  # fmt: skip


def test_errors_have_no_traceback_and_their_exit_codes(shelf: Path) -> None:
    code = "from medkit.cli import main; main()"
    for arguments, expected, said in (
        (["check", "nothing"], 2, "nothing: there is no such recipe"),
        (["run", "small", "--name", "a/b"], 1, "--name a/b: must be a plain folder name"),
        (["check", "--set", "seed=1"], 1, "--set changes a recipe: name one"),
        (["report", "runs/none"], 1, "runs/none: no run folder is there"),
    ):
        done = python(code, shelf, *arguments)
        assert done.returncode == expected, arguments
        assert done.stderr.startswith(said), arguments
        assert "Traceback" not in done.stderr


def test_a_recipe_elsewhere_can_be_named_by_its_path(
    shelf: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    (shelf / "far").mkdir()
    (shelf / "recipes/small.yaml").rename(shelf / "far/small.yaml")
    assert medkit("check", "far/small.yaml", monkeypatch=monkeypatch) == 0
    assert medkit("check", "small", monkeypatch=monkeypatch) == 2


def test_the_run_folder_can_be_named(
    shelf: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    assert medkit("check", "small", "--name", "second", "--runs", "out", monkeypatch=monkeypatch) == 0
    assert "A small recipe (out/second)" in capsys.readouterr().out


def test_a_real_ingest_and_teach_run_through_the_command_line(
    shelf: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    # "little" has no weights, so the run must stop at the first step that loads one, in one line.
    (shelf / "checkpoints/little/config.json").write_text(json.dumps({"model_type": "llava"}))
    started = time.monotonic()
    code = medkit("run", "small", "--set", "data=domains/cells/fixture", monkeypatch=monkeypatch)
    assert code == 1
    assert time.monotonic() - started < 120
    assert Path("runs/small/2-teach/summary.json").is_file()
    assert capsys.readouterr().err.startswith("step 3-align: ")
    assert medkit("show", "runs/small/2-teach", "--out", "sheet.png", monkeypatch=monkeypatch) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "wrote sheet.png"
    assert Path("sheet.png").read_bytes().startswith(b"\x89PNG")
