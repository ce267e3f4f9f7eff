"""The measured part of the report as rows: accuracies, slices, controls, forgetting, curves, budget."""

from __future__ import annotations

from typing import Any

from medkit.report import charts, wording
from medkit.report.findings import Headline, accuracy, benchmark_names, compared, final_model, is_general
from medkit.report.read import Run, Step, find_key, mapping


def style_of(model: str, final: str) -> str:
    """Gives the chart style of a model: base, final or stage (another stage)."""
    return "base" if model == "base" else "final" if model == final else "stage"


def overview(run: Run) -> list[dict[str, Any]]:
    """Gives benchmark x model: one entry a benchmark with a cell for each model that was scored."""
    final = final_model(run)
    rows = []
    for benchmark in benchmark_names(run):
        cells = []
        for model in run.scores:
            scored = accuracy(run, model, benchmark)
            paired = compared(run, benchmark, model)
            cells.append(
                {
                    "model": model,
                    "style": style_of(model, final),
                    "value": wording.percent(mapping(scored.get("accuracy")).get("value")),
                    "interval": wording.interval(scored.get("accuracy")),
                    "difference": wording.points(mapping(paired.get("difference")).get("value")),
                    "difference_interval": wording.points_interval(paired.get("difference")),
                    "p": wording.p_value(paired.get("p_value")),
                    "wins": wording.count(paired.get("wins")),
                    "losses": wording.count(paired.get("losses")),
                    "paired": bool(paired),
                    "chart": charts.dots([_accuracy_mark(run, model, benchmark)], _majority(scored)),
                }
            )
        some = next((scored for model in run.scores if (scored := accuracy(run, model, benchmark))), {})
        rows.append({**_describe(run, benchmark, some), "cells": cells})
    return rows


def headline_chart(run: Run, head: Headline) -> list[dict[str, Any]]:
    """Gives the rows of the chart under the headline: base, every stage, then the controls of the result."""
    rows = [
        {
            "label": model if run.alone else _role(model, head.model),
            "value": wording.percent(
                mapping(accuracy(run, model, head.benchmark).get("accuracy")).get("value")
            ),
            "interval": wording.interval(accuracy(run, model, head.benchmark).get("accuracy")),
            "chart": charts.dots(
                [_accuracy_mark(run, model, head.benchmark)], _majority_of(run, head.benchmark)
            ),
        }
        for model in run.scores
        if accuracy(run, model, head.benchmark)
    ]
    for name, entry in mapping(accuracy(run, head.model, head.benchmark).get("controls")).items():
        mark = charts.mark(name, entry, "control")
        rows.append(
            {
                "label": f"{head.model}, {wording.CONTROL_LABELS.get(name, name)}",
                "value": wording.percent(mapping(entry).get("value")),
                "interval": wording.interval(entry),
                "chart": charts.dots([mark], _majority_of(run, head.benchmark)),
            }
        )
    return rows


def slices(run: Run, head: Headline) -> list[dict[str, Any]]:
    """Gives, for each benchmark, its slices (kind, answer type) with base and adapted drawn side by side."""
    found = []
    for benchmark in benchmark_names(run):
        base = accuracy(run, "base", benchmark)
        adapted = accuracy(run, head.model, benchmark)
        some = adapted or base
        if not some:
            continue
        groups = [
            {"name": wording.words(name), "rows": rows}
            for name in mapping(some.get("slices"))
            if (rows := _slice_rows(base, adapted, name))
        ]
        found.append(
            {**_describe(run, benchmark, some), "groups": groups, "scorers": _scorers(base, adapted)}
        )
    return found


def controls(run: Run) -> list[dict[str, Any]]:
    """Gives, for each benchmark, every model's accuracy with the right image and under each control."""
    final = final_model(run)
    found = []
    for benchmark in benchmark_names(run):
        rows = []
        for model in ("base", final):
            scored = accuracy(run, model, benchmark)
            if not scored:
                continue
            rows.append(_control_row(run, model, "the right image", mapping(scored.get("accuracy")), scored))
            for name, entry in mapping(scored.get("controls")).items():
                label = wording.CONTROL_LABELS.get(name, name)
                rows.append(_control_row(run, model, label, mapping(entry), scored))
        if rows:
            found.append({"name": benchmark, "rows": rows})
    return found


def forgetting(run: Run) -> list[dict[str, Any]]:
    """Gives, for benchmarks of another domain, every model's accuracy and its change against the base."""
    final = final_model(run)
    shares = {step.name: replay_share(step) for step in run.of("train")}
    found = []
    for benchmark in benchmark_names(run):
        if not is_general(run, benchmark):
            continue
        rows = []
        for model in run.scores:
            scored = accuracy(run, model, benchmark)
            if not scored:
                continue
            difference = mapping(compared(run, benchmark, model).get("difference"))
            share = shares.get(model)
            replay = "–" if model == "base" or share is None else _whole(share) if share else "none"
            rows.append(
                {
                    "model": model,
                    "replay": replay,
                    "value": wording.percent(mapping(scored.get("accuracy")).get("value")),
                    "interval": wording.interval(scored.get("accuracy")),
                    "difference": wording.points(difference.get("value")),
                    "difference_interval": wording.points_interval(difference),
                    "chart": charts.dots(
                        [charts.mark(model, scored.get("accuracy"), style_of(model, final))]
                    ),
                }
            )
        note = _replay_note(run, shares)
        found.append(
            {**_describe(run, benchmark, accuracy(run, "base", benchmark)), "rows": rows, "note": note}
        )
    return found


def _replay_note(run: Run, shares: dict[str, float | None]) -> str:
    """Says which rows show what replay does, and what else differs between them."""
    steps = {step.name: step for step in run.of("train")}
    starts = {name: str(step.settings.get("start", "")) for name, step in steps.items()}
    epochs = {name: wording.number(find_key(step.settings, "epochs")) for name, step in steps.items()}
    answering = [name for name in run.scores if shares.get(name) is not None]
    notes = []
    for name in answering:
        beside = [other for other in answering if not shares[other] and starts[other] == starts[name]]
        if shares[name] and beside:
            own, other = epochs[name], epochs[beside[0]]
            longer = ""
            if own is not None and other is not None and own != other:
                longer = f" They also differ in length: {name} {own:g} epochs, {beside[0]} {other:g}."
            notes.append(f"{name} and {beside[0]} start from the same model and differ in replay.{longer}")
    return " ".join(notes) or (
        "This run has no pair of stages with and without replay, so the effect of replay itself can't be read "
        "from it."
    )


def training(run: Run) -> list[dict[str, Any]]:
    """Gives one entry a training stage: its curve and the numbers of its log."""
    found = []
    for step in run.of("train"):
        rows = run.logs.get(step.name, [])
        train, valid = _series(rows, "loss"), _series(rows, "valid_loss")
        result = step.result
        speeds = [value for row in rows if (value := wording.number(row.get("tokens_per_s"))) is not None]
        last = wording.figure(result.get("loss_last") if result else (train[-1][1] if train else None))
        valid_loss = wording.number(result.get("valid_loss"))
        valid_loss = valid_loss if valid_loss is not None else (valid[-1][1] if valid else None)
        spoken = f"{step.name}: loss over steps, ending at {last}"
        if valid_loss is not None:
            spoken += f", validation loss {wording.figure(valid_loss)}"
        found.append(
            {
                "name": step.name,
                "curve": charts.curves(train, valid, spoken),
                "loss": f"{wording.figure(result.get('loss_first'))} → {last}" if result else last,
                "valid_loss": wording.figure(valid_loss),
                "steps": wording.count(result.get("steps") if result else (train[-1][0] if train else None)),
                "speed": f"{wording.figure(sum(speeds) / len(speeds))} tokens/s" if speeds else "–",
                "seconds": wording.duration(result.get("seconds") or step.summary.get("seconds")),
                "finished": step.finished,
            }
        )
    return found


def budget(run: Run) -> list[dict[str, Any]]:
    """Gives what every stage saw of data and time, from the comparison or else from the stages themselves."""
    told = mapping(run.comparisons.get("budget"))
    rows = []
    for step in run.of("train"):
        entry = mapping(told.get(step.name))
        result = step.result
        rows.append(
            {
                "stage": step.name,
                "steps": wording.count(result.get("steps")),
                "samples": wording.count(entry.get("samples_seen", result.get("samples_seen"))),
                "tokens": wording.count(entry.get("tokens", result.get("supervised_tokens"))),
                "seconds": wording.duration(entry.get("seconds", result.get("seconds"))),
                "replay": _whole(replay_share(step) or 0.0),
            }
        )
    return rows


def replay_share(step: Step) -> float | None:
    """Gives the share of general samples mixed into a training stage, None when its settings don't say."""
    return wording.number(find_key(step.settings, "replay"))


def _whole(share: float) -> str:
    return f"{100 * share:.0f}{wording.SPACE}%"


def _describe(run: Run, benchmark: str, scored: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": benchmark,
        "questions": wording.plural(scored.get("count"), "question"),
        "images": wording.plural(scored.get("images"), "image"),
        "scorer": scored.get("scorer") or "",
        "definition": scored.get("definition") or "",
        "general": is_general(run, benchmark),
        "majority": wording.percent(_majority(scored)),
    }


def _role(model: str, final: str) -> str:
    return "base" if model == "base" else f"{model} (adapted)" if model == final else model


def _accuracy_mark(run: Run, model: str, benchmark: str) -> charts.Mark | None:
    entry = accuracy(run, model, benchmark).get("accuracy")
    return charts.mark(model, entry, style_of(model, final_model(run)))


def _majority(scored: dict[str, Any]) -> float | None:
    return wording.number(scored.get("majority"))


def _majority_of(run: Run, benchmark: str) -> float | None:
    values = (_majority(accuracy(run, model, benchmark)) for model in run.scores)
    return next((value for value in values if value is not None), None)


def _slice_rows(base: dict[str, Any], adapted: dict[str, Any], name: str) -> list[dict[str, Any]]:
    before = mapping(mapping(base.get("slices")).get(name))
    after = mapping(mapping(adapted.get("slices")).get(name))
    rows = []
    for kind in sorted({**before, **after}, key=lambda kind: -_amount(after.get(kind) or before.get(kind))):
        one, two = mapping(before.get(kind)), mapping(after.get(kind))
        majority = wording.number(two.get("majority", one.get("majority")))
        marks = [charts.mark("base", one, "base"), charts.mark("adapted", two, "final")]
        value = wording.number(two.get("value"))
        rows.append(
            {
                "kind": wording.words(kind),
                "count": wording.count(two.get("count", one.get("count"))),
                "base": wording.percent(one.get("value")),
                "adapted": wording.percent(two.get("value")),
                "interval": wording.interval(two),
                "majority": wording.percent(majority),
                "behind": value is not None and majority is not None and value <= majority,
                "chart": charts.dots(marks, majority),
            }
        )
    return rows


def _amount(entry: Any) -> float:
    return wording.number(mapping(entry).get("count")) or 0


def _scorers(base: dict[str, Any], adapted: dict[str, Any]) -> list[dict[str, str]]:
    one, two = mapping(base.get("by_scorer")), mapping(adapted.get("by_scorer"))
    return [
        {
            "name": wording.words(name),
            "base": wording.percent(mapping(one.get(name)).get("value")),
            "base_interval": wording.interval(one.get(name)),
            "adapted": wording.percent(mapping(two.get(name)).get("value")),
            "adapted_interval": wording.interval(two.get(name)),
        }
        for name in {**one, **two}
    ]


def _control_row(
    run: Run, model: str, label: str, entry: dict[str, Any], scored: dict[str, Any]
) -> dict[str, Any]:
    survives, gain = wording.number(entry.get("survives")), wording.number(entry.get("gain_kept"))
    low, majority = wording.bounds(scored.get("accuracy"))[0], wording.number(scored.get("majority"))
    if low is not None and majority is not None and low <= majority:
        gain = None  # a share of a gain that may be none is any number
    right = label == "the right image"
    style = style_of(model, final_model(run)) if right else "control"
    return {
        "model": model,
        "label": label,
        "right": right,
        "value": wording.percent(entry.get("value")),
        "interval": wording.interval(entry),
        "survives": "" if survives is None else wording.percent(survives),
        "gain": "" if gain is None else f"{wording.points(gain).removeprefix('+')}{wording.SPACE}%",
        "chart": charts.bar(charts.mark(f"{model}, {label}", entry, style), _majority(scored)),
    }


def _series(rows: list[dict[str, Any]], name: str) -> list[tuple[float, float]]:
    pairs = ((wording.number(row.get("step")), wording.number(row.get(name))) for row in rows)
    return [(step, value) for step, value in pairs if step is not None and value is not None]
