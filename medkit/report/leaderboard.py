"""The page of ``medkit compare``: which model is better, by how much, how sure, and what to distrust."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from medkit.report import charts, wording
from medkit.report.build import template_engine
from medkit.report.leaderboard_findings import doubts
from medkit.store import write_atomically

Found = dict[str, Any]
VERDICTS = {
    "reference": "compared with",
    "ahead": "better",
    "behind": "worse",
    "level": "not told apart",
    "unknown": "not compared",
}


def write_leaderboard(found: Found, path: Path) -> Path:
    """Writes a comparison as one HTML file that loads nothing, and gives its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, render_leaderboard(found))
    return path


def summary_lines(found: Found) -> list[str]:
    """Gives what the command line says: a sentence for each benchmark, then the cautions."""
    order = benchmark_order(found)
    lines = [headline(found, name)["sentence"] for name in order]
    cautions = [finding for finding in doubts(found, order) if finding.level == "warn"]
    return lines + [f"Caution: {finding.title}. {finding.detail}" for finding in cautions]


def render_leaderboard(found: Found) -> str:
    """Gives the HTML of a comparison as ``medkit.evaluation.leaderboard`` makes it."""
    order = benchmark_order(found)
    boards = [_board(found, name) for name in order]
    contents = [("result", "Result"), ("distrust", "What to distrust")]
    contents += [("others", "Other benchmarks")] if len(boards) > 1 else []
    contents += [("seeds", "Several seeds")] if any(board["seeds"] for board in boards) else []
    contents += [("controls", "Without the image"), ("models", "Models"), ("method", "How it is computed")]
    doubted = doubts(found, order)
    return (
        template_engine()
        .get_template("leaderboard.html")
        .render(
            head=headline(found, order[0]),
            boards=boards,
            briefs=[headline(found, name)["sentence"] for name in order[1:]],
            doubts=doubted,
            cautions=[finding.title for finding in doubted if finding.level == "warn"],
            models=[_about(model) for model in found["models"]],
            found=found,
            contents=[
                entry for entry in contents if entry[0] != "controls" or any(b["controls"] for b in boards)
            ],
            title=" · ".join(model["name"] for model in found["models"]),
        )
    )


def benchmark_order(found: Found) -> list[str]:
    """Gives the benchmarks, those of the models' own domain first."""
    names = list(found["benchmarks"])
    return sorted(names, key=lambda name: (found["benchmarks"][name]["general"], -len(_rows(found, name))))


def headline(found: Found, name: str) -> Found:
    """Says in a sentence who is better on a benchmark, by how much and how sure.

    Returns:
        ``sentence``, ``verdict`` (gain, none or unknown), and ``best``, ``next`` and ``lead``, rows or None.
    """
    entry = found["benchmarks"][name]
    rows = entry["rows"]
    if not entry["questions"]:
        text = f"On {name} nothing can be compared: no question was answered by all models in the same form."
        return {"sentence": text, "verdict": "unknown", "best": None, "next": None, "lead": None}
    best, other = rows[0], rows[1] if len(rows) > 1 else None
    asked = f"{wording.plural(entry['questions'], 'question')} in {wording.plural(entry['groups'], 'group')}"
    right = f"{wording.percent(best['accuracy']['value'])} ({wording.interval(best['accuracy'])})"
    if other is None:
        text = f"On {name} only {best['model']} answered: {right} of {asked}."
        return {"sentence": text, "verdict": "unknown", "best": best, "next": None, "lead": None}
    if entry["reference"] != best["model"] or found["against"] != "best":
        return _against(name, entry, asked)
    near = [row for row in rows if row["verdict"] == "level"]
    level = [row["model"] for row in near]
    other = near[0] if near else other
    lead = _turned(other)
    behind = [row["model"] for row in rows if row["verdict"] == "behind"]
    gap = f"{wording.points(lead['value'])} points ({wording.points_interval(lead)}; adjusted {_p(other)})"
    if not level:
        text = f"{best['model']} is best on {name}: {right} of {asked}, {gap} against {other['model']}."
    else:
        text = f"No best model is shown on {name}: {best['model']} leads with {right} of {asked}, but "
        text += f"{wording.listed(level)} can’t be told apart from it"
        text += f": {gap}." if len(level) == 1 else f"; the nearest, {other['model']}: {gap}."
    if level and behind:
        text += f" {wording.listed(behind)} {'is' if len(behind) == 1 else 'are'} worse."
    return {
        "sentence": text,
        "verdict": "none" if level else "gain",
        "best": best,
        "next": other,
        "lead": lead | {"p": f"adjusted {_p(other)}"},
    }


def _against(name: str, entry: Found, asked: str) -> Found:
    rows = entry["rows"]
    reference = next(row for row in rows if row["model"] == entry["reference"])
    parts = []
    for verdict in ("ahead", "level", "behind"):
        listed = [
            f"{row['model']} ({wording.points(row['difference']['value'])}, "
            f"{wording.points_interval(row['difference'])}; adjusted {_p(row)})"
            for row in rows
            if row["verdict"] == verdict
        ]
        if listed:
            parts.append(f"{VERDICTS[verdict]}: {wording.listed(listed)}")
    right = f"{wording.percent(reference['accuracy']['value'])} ({wording.interval(reference['accuracy'])})"
    text = f"Against {reference['model']} on {name} ({right} of {asked}), in points, {'; '.join(parts)}."
    shown = next((row for row in rows if row is not reference), None)
    lead = shown["difference"] | {"p": f"adjusted {_p(shown)}"} if shown else None
    verdict = "gain" if any(row["verdict"] == "ahead" for row in rows) else "none"
    return {"sentence": text, "verdict": verdict, "best": shown, "next": reference, "lead": lead}


def _board(found: Found, name: str) -> Found:
    entry = found["benchmarks"][name]
    base = {model["name"] for model in found["models"] if model["model"] == "base"}
    rows, controls = [], []
    for row in entry["rows"]:
        style = "final" if row["verdict"] == "reference" else "base" if row["model"] in base else "stage"
        survives = {control: one.get("survives") for control, one in row["controls"].items()}
        difference = row["difference"]
        rows.append(
            {
                "model": row["model"],
                "style": style,
                "value": wording.percent((row["accuracy"] or {}).get("value")),
                "interval": wording.interval(row["accuracy"]),
                "difference": wording.points(difference["value"]) if difference else "",
                "difference_interval": wording.points_interval(difference) if difference else "",
                "p": _p(row),
                "verdict": row["verdict"],
                "word": VERDICTS[row["verdict"]],
                "survives": wording.percent(max(known)) if (known := _known(survives)) else "–",
                "faults": _faults(row),
                "chart": charts.dots([charts.mark(row["model"], row["accuracy"], style)], entry["majority"]),
            }
        )
        controls += [_control(row, control, one) for control, one in row["controls"].items()]
    return {
        "name": name,
        "title": entry["title"],
        "general": entry["general"],
        "questions": wording.plural(entry["questions"], "question"),
        "groups": wording.plural(entry["groups"], "group"),
        "reference": entry["reference"],
        "definition": entry["definition"],
        "majority": entry["majority"] is not None,
        "rows": rows,
        "controls": controls,
        "seeds": [_seeds(one) for one in entry["repeats"]],
    }


def _seeds(family: Found) -> Found:
    marks = [
        charts.mark(f"seed {seed}", {"value": value}, "stage")
        for seed, value in zip(family["seeds"], family["values"], strict=True)
    ]
    return {
        "models": wording.listed(family["models"]),
        "seeds": wording.listed([str(seed) for seed in family["seeds"]]),
        "mean": wording.percent(family["mean"]["value"]),
        "interval": wording.interval(family["mean"]),
        "deviation": f"{100 * family['deviation']:.1f}",
        "range": f"{100 * min(family['values']):.1f}–{100 * max(family['values']):.1f}",
        "chart": charts.dots([charts.mark("mean over seeds", family["mean"], "final"), *marks]),
    }


def _control(row: Found, control: str, one: Found) -> Found:
    return {
        "label": f"{row['model']}, {wording.CONTROL_LABELS.get(control, wording.words(control))}",
        "value": wording.percent(one.get("value")),
        "interval": wording.interval(one),
        "survives": wording.percent(one.get("survives")),
        "chart": charts.dots(
            [
                charts.mark("the right image", row["accuracy"], "final"),
                charts.mark(control, one, "control"),
            ]
        ),
    }


def _about(model: Found) -> Found:
    seen, leaks = model["samples_seen"], model["leaks"]
    return {
        "name": model["name"],
        "path": model["path"],
        "model": model["model"] or "a file of answers",
        "seed": "–" if model["seed"] is None else str(model["seed"]),
        "seen": wording.count(seen),
        "leaks": "–" if model["model"] == "base" else "not counted" if leaks is None else _leaks(leaks),
        "decoding": ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in model["decoding"].items())
        or "unknown",
    }


def _leaks(leaks: Found) -> str:
    words = (("images", "image"), ("near_duplicate_images", "look-alike"), ("questions", "question"))
    counts = [wording.plural(leaks.get(key), word) for key, word in words if leaks.get(key)]
    return ", ".join(counts) or "none"


def _faults(row: Found) -> str:
    counts = {name: wording.number(row.get(name)) for name in ("failed", "empty", "truncated", "unparsed")}
    return ", ".join(f"{wording.count(amount)} {name}" for name, amount in counts.items() if amount)


def _known(shares: Found) -> list[float]:
    return [share for share in map(wording.number, shares.values()) if share is not None]


def _turned(row: Found) -> Found:
    found = row["difference"]
    return {"value": -found["value"], "low": -found["high"], "high": -found["low"]}


def _p(row: Found) -> str:
    return wording.p_value(row["p_adjusted"])


def _rows(found: Found, name: str) -> list[Found]:
    return found["benchmarks"][name]["rows"]
