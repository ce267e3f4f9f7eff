"""A comparison as CSV and as a LaTeX table."""

from __future__ import annotations

import csv
import io
from typing import Any

from medkit.report import wording

Found = dict[str, Any]
_LATEX = {character: f"\\{character}" for character in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
}
_MARKS = {"behind": r"$^{*}$", "ahead": r"$^{*}$"}


def leaderboard_csv(found: Found) -> str:
    """Gives one line for each benchmark and model; shares and differences in 0..1, not in points."""
    controls = sorted(
        {name for entry in found["benchmarks"].values() for row in entry["rows"] for name in row["controls"]}
    )
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(
        [
            "benchmark", "model", "questions", "groups", "accuracy", "accuracy_low", "accuracy_high", "against",
            "difference", "difference_low", "difference_high", "wins", "losses", "test", "p", "p_adjusted",
            "verdict", "failed", "empty", "truncated", "unparsed",
            *(f"{name}_{what}" for name in controls for what in ("accuracy", "survives")),
        ]
    )  # fmt: skip
    for name, entry in found["benchmarks"].items():
        for row in entry["rows"]:
            writer.writerow(
                [
                    name, row["model"], entry["questions"], entry["groups"], *_three(row["accuracy"]),
                    entry["reference"], *_three(row["difference"]), row["wins"], row["losses"], row.get("test"),
                    row["p"], row["p_adjusted"], row["verdict"], row["failed"], row["empty"],
                    row["truncated"], row["unparsed"],
                    *(row["controls"].get(one, {}).get(what) for one in controls for what in ("value", "survives")),
                ]
            )  # fmt: skip
    return out.getvalue()


def leaderboard_latex(found: Found) -> str:
    """Gives a table for ``booktabs``: accuracy and difference in points, each with its 95 % interval."""
    lines = [r"\begin{tabular}{llrrr}", r"\toprule"]
    lines += [r"Benchmark & Model & Accuracy, \% & Difference, points & $p$ (Holm) \\"]
    for name, entry in found["benchmarks"].items():
        lines.append(r"\midrule")
        for place, row in enumerate(entry["rows"]):
            cells = [
                _latex(name) if not place else "",
                _latex(row["model"]),
                _accuracy(row),
                _difference(row),
            ]
            cells.append("" if row["p_adjusted"] is None else _p(row["p_adjusted"]))
            lines.append(" & ".join(cells) + r" \\")
    lines += [r"\bottomrule", r"\end{tabular}"]
    about = "% 95 % intervals, bootstrap over groups; * adjusted p below 0.05, against the row without a difference"
    return "\n".join([about, *lines]) + "\n"


def _three(entry: Found | None) -> list[float | None]:
    return [entry[name] for name in ("value", "low", "high")] if entry else [None, None, None]


def _accuracy(row: Found) -> str:
    entry = row["accuracy"]
    return (
        f"{100 * entry['value']:.1f} ({100 * entry['low']:.1f}--{100 * entry['high']:.1f})" if entry else "--"
    )


def _difference(row: Found) -> str:
    if not row["difference"]:
        return ""
    value, low, high = (f"${_signed(number)}$" for number in _three(row["difference"]))
    return f"{value} ({low} to {high}){_MARKS.get(row['verdict'], '')}"


def _signed(share: float | None) -> str:
    return wording.points(share).replace(wording.MINUS, "-")


def _p(value: float) -> str:
    return "$<$0.001" if value < 0.001 else f"{value:.3f}"


def _latex(text: str) -> str:
    return "".join(_LATEX.get(character, character) for character in text)
