"""Reads a run folder as it lies on disk: whatever is there, and a sentence for whatever is not."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medkit.errors import MedkitError
from medkit.store import is_dataset


@dataclass(frozen=True)
class Step:
    """One step folder of a run.

    Attributes:
        number: Its place in the run, from the folder's name.
        name: Its name, for example ``evaluate-base``.
        folder: Where its outputs lie.
        summary: The step's ``summary.json``, empty while the step has not finished.
    """

    number: int
    name: str
    folder: Path
    summary: dict[str, Any]

    @property
    def finished(self) -> bool:
        """Whether the step wrote its summary, which it does last."""
        return bool(self.summary)

    @property
    def verb(self) -> str:
        """ingest, teach, build, train, evaluate or compare; guessed from the name while unfinished."""
        return str(self.summary.get("verb") or _guess_verb(self.name))

    @property
    def result(self) -> dict[str, Any]:
        """What the step returned."""
        return mapping(self.summary.get("result"))

    @property
    def settings(self) -> dict[str, Any]:
        """What the step ran with."""
        return mapping(self.summary.get("settings"))


@dataclass
class Run:
    """What a run folder holds, in the order of its steps.

    Attributes:
        scores: Model name -> ``scores.json`` of its evaluation, the base first.
        answers: Model name -> rows of ``answers.jsonl``.
        logs: Training stage -> rows of ``log.jsonl``.
        missing: One sentence for each piece that a complete run would have.
        alone: Whether this is a single evaluation outside of a run.
    """

    folder: Path
    recipe_text: str = ""
    resolved: dict[str, Any] = field(default_factory=dict)
    steps: list[Step] = field(default_factory=list)
    scores: dict[str, dict[str, Any]] = field(default_factory=dict)
    answers: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    logs: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    comparisons: dict[str, Any] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    alone: bool = False

    def of(self, verb: str) -> list[Step]:
        """Gives the steps of one verb."""
        return [step for step in self.steps if step.verb == verb]

    @property
    def recipe(self) -> dict[str, Any]:
        """The resolved recipe, wherever ``resolved.json`` keeps it."""
        inner = self.resolved.get("recipe")
        return inner if isinstance(inner, dict) else self.resolved

    @property
    def name(self) -> str:
        """The run's name."""
        return str(self.recipe.get("name") or self.folder.name)


def read_run(folder: Path) -> Run:
    """Reads a run folder; unreadable or absent pieces become sentences in ``missing``.

    The folder of a single evaluation (``medkit evaluate --out``) is read as a run that has nothing else.

    Raises:
        MedkitError: When there is no such folder.
    """
    if not folder.is_dir():
        raise MedkitError(f"{folder}: no run folder is there; give the folder that `medkit run` printed")
    folder = folder.resolve()
    run = Run(folder)
    if (folder / "scores.json").is_file():
        _read_evaluation(Step(1, "evaluate", folder, {}), run)
        # Alone it is the model that the page is about, not the one that others are compared with.
        if "base" in run.scores:
            run.scores["base model"], run.answers["base model"] = (
                run.scores.pop("base"),
                run.answers.pop("base"),
            )
        run.alone = True
        return run
    recipe = folder / "recipe.yaml"
    if recipe.is_file():
        run.recipe_text = recipe.read_text(encoding="utf-8", errors="replace")
    else:
        run.missing.append("recipe.yaml is not in the run folder: the recipe text can't be shown.")
    run.resolved = _json(folder / "resolved.json", run, "commands and versions can't be shown")
    run.steps = _steps(folder, run)
    for step in run.steps:
        if not step.finished:
            run.missing.append(f"The step {step.name} has not finished: what it makes is left out.")
        elif step.verb == "evaluate":
            _read_evaluation(step, run)
        elif step.verb == "train":
            run.logs[step.name] = _rows(step.folder / "log.jsonl", run)
        elif step.verb == "compare":
            path = step.folder / "comparisons.json"
            run.comparisons = _json(path, run, "differences and p-values can't be shown")
    run.scores = dict(sorted(run.scores.items(), key=lambda entry: entry[0] != "base"))
    run.missing += _not_run(run)
    return run


def _not_run(run: Run) -> list[str]:
    """Says which steps have no folder: those of the plan where it is known, else one of each verb."""
    planned = run.resolved.get("steps")
    if isinstance(planned, list) and planned:
        folders = [str(step.get("folder") or "") for step in planned if isinstance(step, dict)]
        names = [folder.partition("-")[2] for folder in folders]
    else:
        names = [verb for verb in _CONSEQUENCES if not run.of(verb)]
    there = {step.name for step in run.steps}
    return [
        f"The step {name} has not run: {_CONSEQUENCES.get(_guess_verb(name), 'what it makes is left out')}."
        for name in names
        if name and name not in there
    ]


def _guess_verb(name: str) -> str:
    head = name.split("-")[0]
    return head if head in (*_CONSEQUENCES, "build") else "train"


_CONSEQUENCES = {
    "ingest": "no count of source records, no ledger of rejections",
    "teach": "no made text to describe",
    "train": "no training curves, no adapted model",
    "evaluate": "no accuracy is known",
    "compare": "no paired test of base and adapted model, no leak count",
}


def mapping(value: Any) -> dict[str, Any]:
    """Gives the value when it is a mapping, otherwise an empty one."""
    return value if isinstance(value, dict) else {}


def find_key(value: Any, key: str) -> Any:
    """Gives the first value under ``key`` at any depth of nested mappings (nearest first), or None."""
    if not isinstance(value, dict):
        return None
    if value.get(key) is not None:
        return value[key]
    return next((found for inner in value.values() if (found := find_key(inner, key)) is not None), None)


def dataset_folders(step: Step) -> list[Path]:
    """Gives the dataset folders of a step: the step's own folder or folders inside it."""
    candidates = [step.folder, *sorted(path for path in step.folder.iterdir() if path.is_dir())]
    return [path for path in candidates if is_dataset(path)]


def ledger_rows(step: Step) -> list[dict[str, Any]]:
    """Gives the ledger rows of a step, from its folder or the dataset folders inside it."""
    paths = sorted({*step.folder.glob("ledger.jsonl"), *step.folder.glob("*/ledger.jsonl")})
    return [row for path in paths for row in _lines(path)[0]]


def _steps(folder: Path, run: Run) -> list[Step]:
    found = []
    for path in folder.iterdir():
        number, dash, name = path.name.partition("-")
        if path.is_dir() and dash and number.isdigit() and not path.name.endswith(".partial"):
            summary = path / "summary.json"
            content = _json(summary, run, f"the step {name} counts as unfinished") if summary.exists() else {}
            # A dataset folder's own summary has the same file name; only a step's has a verb.
            found.append(Step(int(number), name, path, content if "verb" in content else {}))
    return sorted(found, key=lambda step: (step.number, step.name))


def _read_evaluation(step: Step, run: Run) -> None:
    scores = _json(step.folder / "scores.json", run, f"the scores of {step.name} can't be shown")
    if not isinstance(scores.get("benchmarks"), dict):
        return
    model = str(scores.get("model") or step.name.removeprefix("evaluate-"))
    run.scores[model] = scores
    run.answers[model] = _rows(step.folder / "answers.jsonl", run)


def _json(path: Path, run: Run, consequence: str) -> dict[str, Any]:
    place = path.relative_to(run.folder) if path.is_relative_to(run.folder) else path.name
    if not path.is_file():
        run.missing.append(f"{place} is not there: {consequence}.")
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError):
        content = None
    if not isinstance(content, dict):
        run.missing.append(f"{place} can't be read as JSON: {consequence}.")
        return {}
    return content


def _rows(path: Path, run: Run) -> list[dict[str, Any]]:
    place = f"{path.parent.name}/{path.name}"
    if not path.is_file():
        run.missing.append(f"{place} is not there.")
        return []
    rows, broken = _lines(path)
    if broken:
        run.missing.append(f"{place}: {broken} unreadable line{'s' * (broken != 1)} left out.")
    return rows


def _lines(path: Path) -> tuple[list[dict[str, Any]], int]:
    rows: list[dict[str, Any]] = []
    broken = 0
    with path.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError:
                row = None
            if isinstance(row, dict):
                rows.append(row)
            else:
                broken += 1
    return rows, broken
