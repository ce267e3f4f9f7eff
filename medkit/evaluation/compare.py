"""The comparison step: every stage against the base on the same questions, and what to distrust about it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from medkit.errors import DataError
from medkit.evaluation.leaks import count_leaks
from medkit.evaluation.statistics import mcnemar_exact, paired_bootstrap, paired_permutation
from medkit.store import is_dataset, open_dataset, write_atomically

Row = dict[str, Any]


def compare(settings: dict[str, Any], inputs: dict[str, Path], out: Path) -> dict[str, Any]:
    """Compares the evaluations of a run pairwise with the base and writes ``comparisons.json``.

    Args:
        settings: Optionally ``seed`` of the bootstrap.
        inputs: Folders by role, told apart by what they hold. Evaluations: ``base`` and one for each stage.
            Datasets (``data``): the first is searched for leaks. Training steps: their budget is shown. The
            name is the role, or what follows its colon (``train:instruct``).
        out: The step's folder.

    Returns:
        ``{benchmark: {stage: {value, low, high, p_value}}}`` under ``differences``, and ``leaks``.

    Raises:
        DataError: There is no evaluation of the base, or two evaluations asked different questions.
    """
    seed = settings.get("seed", 0)
    evaluations = {_name(role): path for role, path in inputs.items() if (path / "scores.json").is_file()}
    if "base" not in evaluations:
        raise DataError(
            f"compare needs an evaluation of the base (scores.json), got {', '.join(inputs) or 'nothing'}"
        )
    scores = {
        name: json.loads((path / "scores.json").read_text("utf-8")) for name, path in evaluations.items()
    }
    rows = {name: _read_rows(path) for name, path in evaluations.items()}
    stages = [name for name in evaluations if name != "base"]
    benchmarks: dict[str, Any] = {}
    for name, entry in scores["base"]["benchmarks"].items():
        benchmarks[name] = {
            "general": entry.get("source", {}).get("domain", "same") != "same",
            "base": entry["accuracy"],
            "stages": {
                stage: {
                    "accuracy": scores[stage]["benchmarks"][name]["accuracy"],
                    **paired(rows["base"].get(name, []), rows[stage].get(name, []), name, stage, seed),
                }
                for stage in stages
                if name in scores[stage]["benchmarks"]
            },
        }
    budget = {_name(role): entry for role, path in inputs.items() if (entry := _budget(path))}
    datasets = [path for path in inputs.values() if is_dataset(path)]
    comparisons = {
        "benchmarks": benchmarks,
        "forgetting": _forgetting(benchmarks),
        "leaks": count_leaks(open_dataset(datasets[0])) if datasets else {},
        "budget": budget,
        "note": _note(budget, stages),
    }
    write_atomically(out / "comparisons.json", json.dumps(comparisons, indent=1, ensure_ascii=False))
    differences = {
        name: {
            stage: found["difference"] | {"p_value": found["p_value"]}
            for stage, found in entry["stages"].items()
        }
        for name, entry in benchmarks.items()
    }
    return {"differences": differences, "leaks": comparisons["leaks"]}


def paired(before: Sequence[Row], after: Sequence[Row], benchmark: str, stage: str, seed: int = 0) -> Row:
    """Compares two models on the same questions of a benchmark.

    Args:
        before: Answer rows of the first model with control ``none``.
        after: Answer rows of the second model.
        benchmark: Name, for messages.
        stage: Name of the second model, for messages.
        seed: Seed of the bootstrap.

    Returns:
        ``difference`` (after - before, clustered interval), ``p_value``, ``test``, ``wins`` (questions that
        the second model answers better), ``losses``, ``count``.

    Raises:
        DataError: The two asked different questions.
    """
    one, two = ({row["id"]: row for row in rows} for rows in (before, after))
    changed = [key for key in one if key in two and one[key]["references"] != two[key]["references"]]
    if one.keys() != two.keys() or changed or not one:
        raise DataError(
            f"benchmark {benchmark}: base and {stage} asked different questions ({len(one)} and {len(two)}, "
            f"{len(one.keys() & two.keys()) - len(changed)} in common); evaluate both on the same data"
        )
    left = [float(row["correct"]) for row in one.values()]
    right = [float(two[key]["correct"]) for key in one]
    groups = [row["group"] for row in one.values()]
    wins = sum(second > first for first, second in zip(left, right, strict=True))
    losses = sum(second < first for first, second in zip(left, right, strict=True))
    # questions about one picture are no independent ones: McNemar then errs twice as often as it says
    plain = set(left) | set(right) <= {0.0, 1.0} and len(set(groups)) == len(groups)
    p_value = mcnemar_exact(wins, losses) if plain else paired_permutation(left, right, groups, seed=seed)
    difference = paired_bootstrap(left, right, groups, seed=seed)
    return {
        "difference": {name: round(value, 6) for name, value in difference._asdict().items()},
        "p_value": p_value,
        "test": "exact McNemar" if plain else "paired permutation over groups",
        "wins": wins,
        "losses": losses,
        "count": len(left),
    }


def _name(role: str) -> str:
    return role.rpartition(":")[2]


def _read_rows(folder: Path) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    with (folder / "answers.jsonl").open(encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            if row["control"] == "none":
                found.setdefault(row["benchmark"], []).append(row)
    return found


def _forgetting(benchmarks: dict[str, Any]) -> dict[str, Any]:
    return {
        name: {stage: found["difference"] for stage, found in entry["stages"].items()}
        for name, entry in benchmarks.items()
        if entry["general"]
    }


def _budget(folder: Path) -> dict[str, Any]:
    if folder.name == "model" and not (folder / "summary.json").is_file():
        folder = folder.parent
    summary = folder / "summary.json"
    result = json.loads(summary.read_text("utf-8")).get("result") if summary.is_file() else None
    if not isinstance(result, dict) or "samples_seen" not in result:
        return {}
    return {
        "samples_seen": result["samples_seen"],
        "tokens": result.get("supervised_tokens"),
        "seconds": result.get("seconds"),
    }


def _note(budget: dict[str, Any], stages: Sequence[str]) -> str:
    seen = {name: budget[name]["samples_seen"] for name in stages if name in budget}
    if not seen:
        return "What each stage saw in training is not known here, so no claim at equal budget can be made."
    counts = ", ".join(f"{name} {count:,}" for name, count in seen.items())
    start = f"Samples seen in training: base 0, {counts}. "
    if len(set(seen.values())) == 1:
        return (
            start
            + "The stages saw equally many; the base saw none, so its gap is the gain from adapting at all."
        )
    return start + (
        "The budgets differ, so a gap between two stages is the effect of method and budget together; the "
        "base saw none, so its gap is the gain from adapting at all."
    )
