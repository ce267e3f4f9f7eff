"""The tables that the command line prints: the plan with its states, and the scores at the end."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from .plan import Step
from .state import State, read_json

_STYLES = {"done": "green", "resume": "cyan", "redo": "yellow", "new": "bold"}
_MOST_REASONS = 4


def plan_table(found: Sequence[State], title: str = "") -> RenderableType:
    """Gives the steps with what they do, where they stand and why."""
    table = Table(title=title or None, title_justify="left", title_style="bold", box=None, pad_edge=False)
    table.add_column("#", justify="right", style="dim")
    for name in ("step", "state", "what"):
        table.add_column(name, overflow="fold")
    for state in found:
        about = Text(state.step.about)
        if state.reasons:
            shown = state.reasons[:_MOST_REASONS]
            more = len(state.reasons) - len(shown)
            about.append(
                "\nbecause " + "; ".join(shown) + (f"; and {more} more" if more else ""), style="yellow"
            )
        table.add_row(
            str(state.step.number), state.step.name, Text(state.state, style=_STYLES[state.state]), about
        )
    return table


def import_table(summary: dict[str, Any]) -> RenderableType:
    """Gives what an import or export found and decided, and what a person should know."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column("what", style="dim", no_wrap=True)
    table.add_column("value", overflow="fold")
    for name, value in summary.items():
        if name == "bytes":
            table.add_row("size", f"{value / 1e9:.3g} GB")
        elif name == "notes":
            for note in value:
                table.add_row("note", Text(note, style="yellow"))
        else:
            table.add_row(
                name.replace("_", " "), Text(f"{value:,}" if isinstance(value, int) else str(value))
            )
    return table


def closing_table(folder: Path, steps: Sequence[Step]) -> RenderableType:
    """Gives accuracy with its interval for the base and each stage on each benchmark."""
    order = [str(step.settings["name"]) for step in steps if step.verb == "evaluate"]
    compared = next(
        (folder / step.folder / "comparisons.json" for step in steps if step.verb == "compare"), None
    )
    benchmarks = read_json(compared).get("benchmarks", {}) if compared else {}
    table = Table(box=None, pad_edge=False)
    table.add_column("model", overflow="fold")
    for name in ("accuracy", "95 % interval", "against base", "p"):
        table.add_column(name, justify="right", no_wrap=True)
    for benchmark, scores in benchmarks.items():
        # The name stands above its rows: as a column it would push the numbers off 80 characters.
        table.add_row(Text(benchmark, style="bold"))
        stages = scores.get("stages", {})
        for model in order:
            if model == "base":
                table.add_row(model, *_accuracy(scores.get("base", {})), "", "")
            elif model in stages:
                row = stages[model]
                gain = _difference(row.get("difference", {}))
                table.add_row(model, *_accuracy(row.get("accuracy", {})), gain, _p_value(row.get("p_value")))
    return Group("", table, "") if benchmarks else Text("No comparison is there.", style="dim")


def seconds_text(seconds: float) -> str:
    """Writes a duration: 0.4 s, 12 s, 3 min 20 s, 2 h 5 min."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def _accuracy(score: dict[str, Any]) -> tuple[str, str]:
    # An evaluation may nest the numbers under "accuracy", as scores.json does.
    score = score.get("accuracy", score) if isinstance(score.get("accuracy"), dict) else score
    if "value" not in score:
        return "not scored", ""
    interval = (
        f"{100 * score['low']:.1f} to {100 * score['high']:.1f}" if "low" in score and "high" in score else ""
    )
    return f"{100 * score['value']:.1f} %", interval


def _difference(score: dict[str, Any]) -> str:
    if "value" not in score:
        return ""
    interval = (
        f" ({100 * score['low']:+.1f} to {100 * score['high']:+.1f})"
        if "low" in score and "high" in score
        else ""
    )
    return f"{100 * score['value']:+.1f}{interval}"


def _p_value(value: Any) -> str:
    if not isinstance(value, int | float):
        return ""
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def score_table(found: dict[str, Any]) -> RenderableType:
    """Gives the scores of stored answers: each with its interval, and what stands behind it."""
    parts: list[RenderableType] = []
    for benchmark, entry in found["benchmarks"].items():
        title = f"{benchmark}: {entry['questions']} questions, {entry['groups']} groups"
        if entry["failed"]:
            title += f", {entry['failed']} without a reply, which no score counts"
        table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
        table.add_column("score", overflow="fold")
        for name in ("value", "95 % interval", "count", "empty", "unparsed", "cut", "chance"):
            table.add_column(name, justify="right", no_wrap=True)
        for profile, scores in entry["profiles"].items():
            table.add_row(Text(f"{profile} v{scores['version']}", style="bold"))
            for name, score in scores["scores"].items():
                unread = score["unparsed"] + score["refused"] + score["failed"]
                counts = (score["empty"], unread, score["truncated"], score["would_be_random"])
                interval = f"{score['low']:.3f} to {score['high']:.3f}"
                shown = (
                    f"{score['value']:.3f}",
                    interval,
                    str(score["count"]),
                    *(str(c or "") for c in counts),
                )
                table.add_row(name, *shown)
            for name, score in scores["corpus"].items():
                known = score.get("low") is not None
                interval = f"{score['low']:.3f} to {score['high']:.3f}" if known else ""
                table.add_row(name, f"{score['value']:.3f}", interval, str(score["count"]))
        parts.append(table)
        for labeller, counts in entry.get("annotated", {}).items():
            line = f"{labeller}: {counts['scored']} reports have annotations of both sides"
            if counts["missing"]:
                shown = ", ".join(counts["examples"])
                line += f"; {counts['missing']} have not and are in no number ({shown})"
            parts.append(Text(line))
    spare = found.get("annotations", {}).get("unused", 0)
    if spare:
        parts.append(Text(f"{spare} annotated ids belong to no answer with a reply", style="yellow"))
    return Group(*parts)
