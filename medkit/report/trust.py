"""How far the numbers carry: poor pictures, calibration, other definitions, how it was asked, equal budgets."""

from __future__ import annotations

from typing import Any

from medkit.report import plots, wording
from medkit.report.findings import Headline, accuracy, benchmark_names, final_model, stage_path
from medkit.report.plots import Point, Series
from medkit.report.read import Run, mapping
from medkit.report.tables import style_of

CORRUPTION_WORDS = {
    "noise": "noise added",
    "blur": "blurred",
    "contrast": "contrast taken away",
    "jpeg": "JPEG, strongly compressed",
    "window": "grey window set wrongly",
}
SEVERITIES = 5
QUARTERS = [(share, f"{100 * share:.0f}{wording.SPACE}%") for share in (0.0, 0.25, 0.5, 0.75, 1.0)]


def corruptions(run: Run) -> list[dict[str, Any]]:
    """Gives, for each benchmark with corrupted pictures, a drawing and rows of every corruption."""
    found = []
    for benchmark in benchmark_names(run):
        models = _shown_models(run, benchmark)
        kinds = dict.fromkeys(kind for model in models for kind in _worse(run, model, benchmark))
        plotted, rows = [], []
        for kind in kinds:
            about = CORRUPTION_WORDS.get(kind, wording.words(kind))
            plotted.append(
                {"title": about[0].upper() + about[1:], "plot": _severity_plot(run, models, benchmark, kind)}
            )
            levels = dict.fromkeys(
                level for model in models for level in mapping(_worse(run, model, benchmark).get(kind))
            )
            rows += [
                {"kind": about, "severity": level, "cells": _worse_cells(run, models, benchmark, kind, level)}
                for level in sorted(levels)
            ]
        if rows:
            found.append({"name": benchmark, "models": models, "plots": plotted, "rows": rows})
    return found


def calibrated(run: Run) -> list[dict[str, Any]]:
    """Gives, for each benchmark whose answers have confidences, reliability, selective accuracy and numbers."""
    found = []
    for benchmark in benchmark_names(run):
        models = [
            model
            for model in _shown_models(run, benchmark)
            if mapping(accuracy(run, model, benchmark).get("calibration")).get("bins")
        ]
        if not models:
            continue
        final = final_model(run)
        reliable, selective, rows = [], [], []
        for model in models:
            scored = accuracy(run, model, benchmark)
            calibration, answered = mapping(scored.get("calibration")), mapping(scored.get("selective"))
            style = style_of(model, final)
            reliable.append(Series(model, style, _points(calibration["bins"], "confidence")))
            selective.append(Series(model, style, _points(answered.get("at"), "coverage")))
            at = {
                wording.number(mapping(one).get("coverage")): mapping(one)
                for one in _listed(answered.get("at"))
            }
            rows.append(
                {
                    "model": model,
                    "count": wording.count(calibration.get("count")),
                    "confidence": wording.percent(calibration.get("confidence")),
                    "accuracy": wording.percent(calibration.get("accuracy")),
                    "ece": wording.points(calibration.get("ece")).removeprefix("+"),
                    "half": wording.percent(mapping(at.get(0.5)).get("accuracy")),
                    "fifth": wording.percent(mapping(at.get(0.2)).get("accuracy")),
                    "area": wording.percent(answered.get("area")),
                }
            )
        found.append(
            {
                "name": benchmark,
                "rows": rows,
                "reliability": plots.plot(reliable, QUARTERS, "how sure the model was", diagonal=True),
                "selective": plots.plot(
                    selective, QUARTERS, "share of questions answered, the surest first", dots=False
                ),
            }
        )
    return found


def definitions(run: Run) -> list[dict[str, Any]]:
    """Gives, for each benchmark, every stored score of every profile, with what stands behind it."""
    found = []
    for benchmark in benchmark_names(run):
        models = _shown_models(run, benchmark)
        profiles: dict[str, dict[str, Any]] = {}
        for model in models:
            for name, profile in mapping(accuracy(run, model, benchmark).get("profiles")).items():
                profiles.setdefault(name, {})[model] = mapping(profile)
        groups = []
        for name, by_model in profiles.items():
            some = next(iter(by_model.values()))
            rows = []
            for part in ("scores", "corpus"):
                names = dict.fromkeys(
                    score for profile in by_model.values() for score in mapping(profile.get(part))
                )
                rows += [_definition_row(models, by_model, part, score) for score in names]
            if rows:
                title = f"{some.get('title') or name}, version {some.get('version', '?')}"
                groups.append({"title": title, "rows": rows})
        if groups:
            found.append({"name": benchmark, "models": models, "groups": groups})
    return found


def asked(run: Run) -> list[dict[str, Any]]:
    """Gives, for each benchmark, what was read and how it was asked, as pairs of a name and a text."""
    found = []
    for benchmark in benchmark_names(run):
        models = [model for model in run.scores if accuracy(run, model, benchmark)]
        if not models:
            continue
        scored = accuracy(run, models[0], benchmark)
        data = mapping(scored.get("data"))
        facts = [
            ("Scorer", scored.get("scorer")),
            ("Counts found", _counts(data.get("found"))),
            ("Counts expected", _counts(data.get("expected"))),
            ("Differs", "; ".join(str(one) for one in _listed(data.get("differs")))),
            ("Source's part", data.get("part")),
            ("Source's commit", data.get("revision")),
            ("Answers by", _answering(scored)),
            ("Questions, sha256", str(scored.get("questions_sha256") or "")[:16]),
        ]
        ways: dict[str, list[str]] = {}
        for model in models:
            ways.setdefault(_decoding(mapping(run.scores[model].get("decoding"))), []).append(model)
        for way, who in ways.items():
            facts.append(("Decoding" if len(ways) == 1 else f"Decoding, {wording.listed(who)}", way))
        found.append(
            {
                "name": benchmark,
                "facts": [(name, str(value)) for name, value in facts if value not in (None, "")],
            }
        )
    return found


def equal_budget(run: Run, head: Headline) -> dict[str, Any]:
    """Gives every model with what it has seen since the base, its whole line of stages added up."""
    steps = {step.name: step for step in run.of("train")}
    rows = []
    for model in run.scores:
        scored = accuracy(run, model, head.benchmark)
        path = stage_path(run, model)
        if not scored or (model != "base" and not path):
            continue
        results = [steps[name].result for name in path]
        sums = {
            key: _sum([wording.number(result.get(key)) for result in results])
            for key in ("steps", "samples_seen", "supervised_tokens", "seconds")
        }
        rows.append(
            {
                "model": model,
                "path": " → ".join(path) or "–",
                "style": style_of(model, head.model),
                "steps": wording.count(sums["steps"]),
                "samples": wording.count(sums["samples_seen"]),
                "tokens": wording.count(sums["supervised_tokens"]),
                "time": wording.duration(sums["seconds"]),
                "value": wording.percent(mapping(scored.get("accuracy")).get("value")),
                "interval": wording.interval(scored.get("accuracy")),
                "seen": sums["samples_seen"],
            }
        )
    seen = {row["seen"] for row in rows if row["model"] != "base"}
    most = max((value for value in seen if value is not None), default=None)
    for row in rows:
        unequal = len(seen) > 1 and row["model"] != "base" and row["seen"] not in (None, most) and most
        row["share"] = f"{100 * row['seen'] / most:.0f}{wording.SPACE}%" if unequal else ""
    return {"benchmark": head.benchmark, "rows": rows if len(rows) > 1 else [], "unequal": len(seen) > 1}


def _shown_models(run: Run, benchmark: str) -> list[str]:
    """Gives the base and the result, as far as they answered the benchmark."""
    return [name for name in dict.fromkeys(("base", final_model(run))) if accuracy(run, name, benchmark)]


def _worse(run: Run, model: str, benchmark: str) -> dict[str, Any]:
    return mapping(accuracy(run, model, benchmark).get("corruptions"))


def _severity_plot(run: Run, models: list[str], benchmark: str, kind: str) -> Any:
    ticks = [(0.0, "none")] + [(level / SEVERITIES, str(level)) for level in range(1, SEVERITIES + 1)]
    final, series = final_model(run), []
    for model in models:
        scored, asked_worse = (
            accuracy(run, model, benchmark),
            mapping(_worse(run, model, benchmark).get(kind)),
        )
        if not asked_worse:
            continue
        levels = {"0": mapping(scored.get("accuracy")), **asked_worse}
        points = [
            Point(int(level) / SEVERITIES, value, *wording.bounds(entry))
            for level, entry in sorted(levels.items())
            if level.isdigit() and (value := wording.number(mapping(entry).get("value"))) is not None
        ]
        series.append(Series(model, style_of(model, final), points))
    majority = wording.number(accuracy(run, models[0], benchmark).get("majority"))
    return plots.plot(series, ticks, "severity", majority=majority)


def _worse_cells(run: Run, models: list[str], benchmark: str, kind: str, level: str) -> list[dict[str, str]]:
    cells = []
    for model in models:
        entry = mapping(mapping(_worse(run, model, benchmark).get(kind)).get(level))
        change = mapping(entry.get("change"))
        cells.append(
            {
                "model": model,
                "value": wording.percent(entry.get("value")),
                "interval": wording.interval(entry),
                "change": wording.points(change.get("value")),
                "change_interval": wording.points_interval(change),
            }
        )
    return cells


def _points(entries: Any, place: str) -> list[Point]:
    points = []
    for entry in map(mapping, _listed(entries)):
        x, y = wording.number(entry.get(place)), wording.number(entry.get("accuracy"))
        if x is not None and y is not None:
            ends = (wording.number(entry.get(name)) for name in ("accuracy_low", "accuracy_high"))
            points.append(Point(x, y, *ends))
    return points


def _definition_row(
    models: list[str], by_model: dict[str, dict[str, Any]], part: str, score: str
) -> dict[str, Any]:
    cells, last = [], {}
    for model in models:
        entry = mapping(mapping(by_model.get(model, {}).get(part)).get(score))
        last = entry or last
        value = wording.number(entry.get("value"))
        scaled = value is not None and (part == "scores" or _is_share(score, value))
        cells.append(
            {
                "model": model,
                "value": wording.percent(value) if scaled else wording.figure(value),
                "interval": wording.interval(entry) if scaled else _plain_interval(entry),
            }
        )
    counts = [
        f"{wording.count(amount)} {name}"
        for key, name in _BEHIND
        if (amount := wording.number(last.get(key)))
    ]
    return {
        "name": wording.words(score),
        "definition": str(last.get("definition") or ""),
        "count": wording.count(last.get("count")),
        "cells": cells,
        "behind": ", ".join(counts) or "–",
    }


_BEHIND = (
    ("empty", "empty"), ("unparsed", "unparsed"), ("truncated", "truncated"), ("would_be_random", "by chance"),
    ("refused", "refused"), ("failed", "failed"),
)  # fmt: skip


def _is_share(score: str, value: float) -> bool:
    """CIDEr and MME's points are no shares, whatever their value."""
    return not score.startswith(("cider", "mme_")) and 0 <= value <= 1


def _plain_interval(entry: dict[str, Any]) -> str:
    low, high = wording.bounds(entry)
    return "" if low is None or high is None else f"{wording.figure(low)}–{wording.figure(high)}"


def _counts(value: Any) -> str:
    return ", ".join(
        f"{wording.words(name)} {wording.count(amount)}" for name, amount in mapping(value).items()
    )


def _answering(scored: dict[str, Any]) -> str:
    way = str(scored.get("answering") or "")
    if not way:
        return ""
    chosen = wording.count(scored.get("by_likelihood") or 0)
    per = " per token" if way == "likelihood_per_token" else ""
    return f"the most probable candidate{per} for {chosen} closed questions, generated for the others"


def _decoding(decoding: dict[str, Any]) -> str:
    told = []
    for name, value in decoding.items():
        if name == "batch_check":
            check = mapping(value)
            told.append(
                f"{wording.count(check.get('same'))} of {wording.count(check.get('asked_alone'))} answers asked "
                "alone are the same as in a batch"
            )
        elif isinstance(value, dict):
            inner = ", ".join(f"{wording.words(key)} {amount}" for key, amount in value.items())
            told += [f"{wording.words(name)}: {inner}"] if inner else []
        elif isinstance(value, list):
            told += [f"{wording.words(name)} {wording.listed([str(one) for one in value])}"] if value else []
        elif value not in (None, ""):
            told.append(f"{wording.words(name)} {value}")
    return "; ".join(told) or "not recorded"


def _sum(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
