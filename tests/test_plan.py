"""Plans: which steps a recipe needs, what each reads, and nothing touched on disk."""

from __future__ import annotations

from pathlib import Path

import pytest
from card_shelf import replace_in, write_shelf

from medkit.cards import load_recipe
from medkit.plan import plan
from medkit.run import step_inputs


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(write_shelf(tmp_path))
    monkeypatch.delenv("MEDKIT_SHELF", raising=False)
    return tmp_path


def test_replay_and_a_foreign_benchmark_share_one_general_dataset(shelf: Path) -> None:
    replace_in(shelf / "curricula/two.yaml", "batch: 8", "replay: 0.25")
    (shelf / "evals/far").mkdir()
    (shelf / "evals/far/eval.yaml").write_text(
        "name: far\ntitle: Far\ndescription: Far.\nlicence: MIT\nsource: {domain: scenes}\n"
    )
    steps = plan(load_recipe("small", ["benchmarks=[asked, far]", "replay.count=50"]))
    assert [step.folder for step in steps][:6] == [
        "1-ingest", "2-teach", "3-ingest-general", "4-teach-general", "5-align", "6-instruct",
    ]  # fmt: skip
    by_name = {step.name: step for step in steps}
    assert by_name["ingest-general"].settings["count"] == 50
    assert by_name["ingest-general"].settings["domain"]["name"] == "scenes"
    assert "replay" not in by_name["align"].inputs
    assert by_name["instruct"].inputs == {"start": "align", "data": "teach", "replay": "teach-general"}
    assert by_name["evaluate-base"].inputs["data:far"] == "teach-general"


def test_a_built_base_is_a_step_and_a_stage_that_sees_is_not_asked(shelf: Path) -> None:
    replace_in(shelf / "curricula/two.yaml", "    on: [caption]\n", "    objective: see\n    on: [record]\n")
    replace_in(
        shelf / "curricula/two.yaml", "    train: {projector: 1.0e-3}\n", "    train: {vision: 1.0e-3}\n"
    )
    steps = plan(load_recipe("small", ["base=build", "build.image_px=32"]))
    assert [step.name for step in steps] == [
        "ingest", "teach", "build", "align", "instruct", "evaluate-base", "evaluate-instruct", "compare",
    ]  # fmt: skip
    by_name = {step.name: step for step in steps}
    assert by_name["build"].settings["sizes"]["image_px"] == 32
    assert by_name["align"].inputs == {"start": "build", "data": "teach", "records": "ingest"}
    assert by_name["evaluate-base"].inputs["model"] == "build"


def test_a_drawn_domain_draws_as_many_pictures_as_the_recipe_says(shelf: Path) -> None:
    (shelf / "domains/cells/domain.py").write_text("")
    replace_in(
        shelf / "domains/cells/domain.yaml", "reader: class_folders", "reader: drawn\n  needs_path: false"
    )
    replace_in(shelf / "domains/cells/domain.yaml", "{attribute: class}", "{train: 90, test: 20}")
    replace_in(shelf / "recipes/small.yaml", "data: cells-data\n", "")
    ingest = plan(load_recipe("small", ["ingest.train=5"]))[0]
    assert ingest.settings["domain"]["data"]["options"] == {"train": 5, "test": 20}
    assert ingest.external == {"code": str(shelf / "domains/cells/domain.py")}


def test_a_hub_base_reaches_the_verb_as_its_id(shelf: Path) -> None:
    steps = plan(load_recipe("small", ["base=owner/model"]))
    by_name = {step.name: step for step in steps}
    assert step_inputs(by_name["align"], steps, Path("r"))["start"] == Path("owner/model")


def test_a_plan_is_pure(shelf: Path) -> None:
    cards = load_recipe("small")
    assert plan(cards) == plan(cards)
    assert not Path("runs").exists()
