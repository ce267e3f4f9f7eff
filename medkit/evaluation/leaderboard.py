"""Several models on the same questions: who is better, by how much, how sure, and what differs between them."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np

from medkit.errors import DataError
from medkit.evaluation.sources import Answer, Source
from medkit.evaluation.statistics import (
    Interval,
    design_effect,
    detectable,
    holm,
    mcnemar_exact,
    paired_bootstrap,
    paired_permutation,
    questions_needed,
    repeats,
    score_interval,
)

ALPHA, TARGET = 0.05, 0.03
# Of how replies were decoded: who was asked, and what came of it. No model is better for another value of these.
UNSET = frozenset({"batch_check", "processes", "endpoint", "model", "served_by", "tries", "failed"})


def leaderboard(sources: list[Source], against: str = "best", seed: int = 0) -> dict[str, Any]:
    """Compares models on each benchmark, on the questions that all of them answered.

    Args:
        sources: At least two models.
        against: ``best`` (of each benchmark), ``first`` (given), or a model's name.
        seed: Seed of the resampling.

    Returns:
        ``{models, benchmarks, against, tests, interval}``: for each benchmark ``rows``, the best first, of
        ``{model, accuracy, difference, p, p_adjusted, verdict, wins, losses, controls, empty, ...}``, with
        ``power``, ``repeats`` and ``differs``. ``verdict`` is reference, ahead, behind or level, the last
        where the adjusted p-value is at least 0.05.

        p-values are adjusted by Holm over all benchmarks. Against the best, over all pairs of models,
        because which model is the best is itself read from the answers.

    Raises:
        DataError: Fewer than two models, or no such model.
    """
    names = [source.name for source in sources]
    if len(sources) < 2:
        raise DataError(f"compare needs at least two models, got {', '.join(names) or 'none'}")
    if against not in ("best", "first", *names):
        raise DataError(f"--against {against}: choose best, first or one of {', '.join(names)}")
    benchmarks: dict[str, Any] = {}
    tests: list[dict[str, Any]] = []
    for name in dict.fromkeys(name for source in sources for name in source.answers):
        entry, found = _benchmark(sources, name, against, seed)
        benchmarks[name] = entry
        tests += found
    for test, adjusted in zip(tests, holm([test["p"] for test in tests]), strict=True):
        test["p_adjusted"] = adjusted
    for name, entry in benchmarks.items():
        _judge(entry, [test for test in tests if test["benchmark"] == name])
    return {
        "models": [_model(source) for source in sources],
        "against": against,
        "interval": "95 %, bootstrap over groups; Wilson's where all scores are equal; not adjusted",
        "adjustment": f"Holm over {len(tests)} tests",
        "benchmarks": benchmarks,
        "tests": tests,
    }


def _model(source: Source) -> dict[str, Any]:
    return {
        "name": source.name,
        "path": str(source.path),
        "model": source.model,
        "seed": source.seed,
        "samples_seen": source.samples_seen,
        "decoding": source.decoding,
        "leaks": {k: v for k, v in source.leaks.items() if k != "examples"} if source.leaks else None,
    }


def _benchmark(
    sources: list[Source], name: str, against: str, seed: int
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    members = [source for source in sources if name in source.answers]
    first = members[0].answers[name]
    shared = [key for key in first if all(key in member.answers[name] for member in members)]
    common = [
        key
        for key in shared
        if all(member.answers[name][key].references == first[key].references for member in members)
    ]
    differs = _differs(members, name, shared, common)
    groups = [first[key].group for key in common]
    scores = {
        member.name: np.array([member.answers[name][key].score for key in common]) for member in members
    }
    rows = [_row(member, name, scores[member.name], groups, seed) for member in members]
    if common:
        rows.sort(key=lambda row: -row["accuracy"]["value"])
    # A model that is named but did not answer this benchmark leaves the best one to compare with.
    reference = rows[0]["model"] if against == "best" else sources[0].name if against == "first" else against
    reference = reference if reference in scores else rows[0]["model"]
    tests = []
    for one, two in combinations([row["model"] for row in rows], 2) if common else ():
        if against == "best" or reference in (one, two):
            tests.append(
                {"benchmark": name, "models": [one, two], **_test(scores[one], scores[two], groups, seed)}
            )
    for row in rows:
        if common and row["model"] != reference:
            row["difference"] = _rounded(
                paired_bootstrap(scores[reference], scores[row["model"]], groups, seed=seed)
            )
    about = members[0].scores.get(name, {})
    entry = {
        "title": about.get("title", name),
        "general": about.get("source", {}).get("domain", "same") != "same",
        "questions": len(common),
        "groups": len(set(groups)),
        "scorer": about.get("scorer", ""),
        "definition": about.get("definition", ""),
        "majority": about.get("majority"),
        "reference": reference,
        "absent": [source.name for source in sources if source not in members],
        "rows": rows,
        "power": _power(scores, [row["model"] for row in rows], groups),
        "repeats": _repeats(members, scores, groups) if common else [],
        "differs": differs,
    }
    return entry, tests


def _row(member: Source, name: str, scores: np.ndarray, groups: list[str], seed: int) -> dict[str, Any]:
    stored = member.scores.get(name, {})
    own = [answer.score for answer in member.answers[name].values()]
    return {
        "model": member.name,
        "accuracy": _rounded(score_interval(scores, groups, seed)) if len(scores) else None,
        "asked": len(own),
        "own_accuracy": round(float(np.mean(own)), 6),
        "difference": None,
        "controls": {
            control: {key: found.get(key) for key in ("value", "low", "high", "survives")}
            for control, found in stored.get("controls", {}).items()
        },
        **{key: stored.get(key) for key in ("failed", "empty", "truncated", "unparsed")},
    }


def _test(one: np.ndarray, two: np.ndarray, groups: list[str], seed: int) -> dict[str, Any]:
    wins, losses = int((one > two).sum()), int((one < two).sum())
    plain = len(set(groups)) == len(groups) and set(np.unique([one, two])) <= {0.0, 1.0}
    return {
        "p": mcnemar_exact(wins, losses) if plain else paired_permutation(two, one, groups, seed=seed),
        "test": "exact McNemar" if plain else "paired permutation over groups",
        "wins": wins,
        "losses": losses,
    }


def _judge(entry: dict[str, Any], tests: list[dict[str, Any]]) -> None:
    for row in entry["rows"]:
        pair = {row["model"], entry["reference"]}
        test = next((one for one in tests if set(one["models"]) == pair), None)
        row["verdict"] = "reference" if len(pair) == 1 else "unknown"
        row |= {"p": None, "p_adjusted": None, "wins": None, "losses": None}
        if test is not None and len(pair) == 2:
            turned = test["models"][0] != row["model"]
            row |= {"p": test["p"], "p_adjusted": test["p_adjusted"], "test": test["test"]}
            row |= {
                "wins": test["losses" if turned else "wins"],
                "losses": test["wins" if turned else "losses"],
            }
            side = "ahead" if row["difference"]["value"] > 0 else "behind"
            row["verdict"] = side if test["p_adjusted"] < ALPHA else "level"


def _power(scores: dict[str, np.ndarray], order: list[str], groups: list[str]) -> dict[str, Any] | None:
    """Says what these questions could show between the two best models."""
    if len(order) < 2 or len(groups) < 2:
        return None
    differences = scores[order[0]] - scores[order[1]]
    discordant = float((differences**2).mean())
    if not discordant:
        return None
    design = design_effect(differences, groups)
    return {
        "models": order[:2],
        "discordant": round(discordant, 6),
        "design_effect": round(design, 3),
        "detectable": round(detectable(len(groups), discordant, design=design), 6),
        "target": TARGET,
        "questions_for_target": questions_needed(TARGET, max(discordant, TARGET), design=design),
    }


def _repeats(members: list[Source], scores: dict[str, np.ndarray], groups: list[str]) -> list[dict[str, Any]]:
    """Finds models of one recipe that differ in the seed only."""
    families: dict[tuple[str, str], list[Source]] = {}
    for member in members:
        if member.recipe and member.seed is not None:
            families.setdefault((member.recipe, member.model), []).append(member)
    found = []
    for family in families.values():
        if len({member.seed for member in family}) == len(family) > 1 and len(set(groups)) > 1:
            result = repeats(np.array([scores[member.name] for member in family]), groups)
            found.append(
                {
                    "models": [member.name for member in family],
                    "seeds": [member.seed for member in family],
                    "values": [round(float(scores[member.name].mean()), 6) for member in family],
                    "mean": _rounded(result.mean),
                    "deviation": round(result.deviation, 6),
                }
            )
    return found


def _differs(members: list[Source], name: str, shared: list[str], common: list[str]) -> dict[str, Any]:
    """Finds what besides the model could make a difference; empty where nothing does."""
    found: dict[str, Any] = {}
    extra = {member.name: len(member.answers[name]) - len(shared) for member in members}
    if any(extra.values()):
        found["questions"] = {"shared": len(shared), "left_out": extra}
    if len(common) < len(shared):
        found["references"] = len(shared) - len(common)
    for what in ("question", "prompt", "image", "group"):
        changed = [key for key in common if len(_told(members, name, key, what)) > 1]
        if changed:
            example = sorted(_told(members, name, changed[0], what))[:2]
            found[what] = {"count": len(changed), "example": example}
    for what, values in (
        ("scorer", {member.name: member.scores.get(name, {}).get("scorer") for member in members}),
        ("definition", {member.name: member.scores.get(name, {}).get("definition") for member in members}),
        (
            "answering",
            {member.name: member.scores.get(name, {}).get("answering", "generate") for member in members},
        ),
        ("profiles", {member.name: _profiles(member, name) for member in members}),
        ("most new tokens", {member.name: member.limits.get(name) for member in members}),
        *(
            (key.replace("_", " "), {member.name: member.decoding.get(key) for member in members})
            for key in dict.fromkeys(key for member in members for key in member.decoding)
            if key not in UNSET
        ),
    ):
        known = {model: value for model, value in values.items() if value is not None}
        if len({str(value) for value in known.values()}) > 1:
            found.setdefault("settings", {})[what] = known
    unknown = [member.name for member in members if not member.decoding]
    if unknown:
        found["decoder_unknown"] = unknown
    return found


def _told(members: list[Source], name: str, key: str, what: str) -> set[str]:
    found = {str(getattr(_answer(member, name, key), what)) for member in members}
    return found - {""}


def _answer(member: Source, name: str, key: str) -> Answer:
    return member.answers[name][key]


def _profiles(member: Source, name: str) -> str | None:
    profiles = member.scores.get(name, {}).get("profiles")
    if not profiles:
        return None
    return ", ".join(f"{one} {about.get('version')}" for one, about in sorted(profiles.items()))


def _rounded(interval: Interval) -> dict[str, float]:
    return {name: round(value, 6) for name, value in interval._asdict().items()}
