"""What else to distrust: missing replies, data that differs, poor pictures, false certainty, unequal budgets."""

from __future__ import annotations

from typing import Any

from medkit.report import wording
from medkit.report.findings import Finding, Headline, accuracy, benchmark_names
from medkit.report.read import Run, mapping
from medkit.report.trust import CORRUPTION_WORDS, equal_budget

LARGE_FALL, LARGE_ERROR = 0.10, 0.10


def cautions(run: Run, head: Headline) -> list[Finding]:
    """Lists doubts about how the questions were asked and how far their numbers carry."""
    found: list[Finding] = []
    model = head.model or "base"
    for benchmark in benchmark_names(run):
        scored = accuracy(run, model, benchmark)
        if scored:
            found += _about_replies(benchmark, scored)
            found += _about_counts(benchmark, scored)
            found += _about_words(benchmark, scored)
            found += _about_poor_pictures(benchmark, scored)
            found += _about_certainty(benchmark, scored)
    return found + _about_batches(run) + _about_budget(run, head)


def _about_replies(benchmark: str, scored: dict[str, Any]) -> list[Finding]:
    failed = wording.number(scored.get("failed"))
    if not failed:
        return []
    low, high = wording.bounds(scored.get("bounds"))
    detail = f"{wording.plural(failed, 'question')} got no reply and enter no number"
    if low is not None and high is not None:
        detail += f"; had all of them been wrong, accuracy were {wording.percent(low)}, right {wording.percent(high)}"
    return [Finding("warn", f"{benchmark}: questions without a reply", f"{detail}.")]


def _about_counts(benchmark: str, scored: dict[str, Any]) -> list[Finding]:
    data = mapping(scored.get("data"))
    differs = data.get("differs")
    if isinstance(differs, list) and differs:
        detail = f"{'; '.join(str(one) for one in differs)}: numbers of papers are of other questions."
        return [Finding("warn", f"{benchmark}: the data differ from what is published", detail)]
    if data.get("expected"):
        detail = "Questions, images and kinds of answer are as many as the card expects."
        return [Finding("fine", f"{benchmark}: counts are as published", detail)]
    return []


def _about_words(benchmark: str, scored: dict[str, Any]) -> list[Finding]:
    text = mapping(mapping(scored.get("controls")).get("text"))
    low, majority = wording.bounds(text)[0], wording.number(scored.get("majority"))
    if low is None or majority is None or low <= majority:
        return []
    detail = (
        f"Without any image {wording.percent(text.get('value'))} are right, and the most frequent answer gives "
        f"{wording.percent(majority)}: wording tells some of the answers."
    )
    return [Finding("note", f"{benchmark}: questions that answer themselves", detail)]


def _about_poor_pictures(benchmark: str, scored: dict[str, Any]) -> list[Finding]:
    fragile, blind, falls = [], [], []
    for kind, levels in mapping(scored.get("corruptions")).items():
        known = sorted(
            (int(level), mapping(entry)) for level, entry in mapping(levels).items() if level.isdigit()
        )
        if not known:
            continue
        (least, first), (most, last) = known[0], known[-1]
        word = CORRUPTION_WORDS.get(kind, wording.words(kind))
        change = mapping(first.get("change"))
        high = wording.bounds(change)[1]
        if least <= 2 and high is not None and high < -LARGE_FALL:
            fragile.append(f"{word} at severity {least} ({wording.points(change.get('value'))} points)")
        highest = wording.bounds(last.get("change"))[1]
        falls.append(highest is not None and highest < 0)
        if most >= 4 and highest is not None and highest >= 0:
            blind.append(f"{word} at severity {most}")
    found = []
    if fragile:
        detail = f"Accuracy falls by more than 10 points with pictures {wording.listed(fragile)}."
        found.append(Finding("warn", f"{benchmark}: slightly poorer pictures cost much", detail))
    if blind:
        detail = f"No fall is shown with pictures {wording.listed(blind)}: are the details looked at?"
        found.append(Finding("note", f"{benchmark}: very poor pictures cost nothing", detail))
    if not found and falls and all(falls):
        detail = "Accuracy falls with severity, and no slight corruption costs 10 points for sure."
        found.append(Finding("fine", f"{benchmark}: poorer pictures cost what they should", detail))
    return found


def _about_certainty(benchmark: str, scored: dict[str, Any]) -> list[Finding]:
    told = mapping(scored.get("calibration"))
    error = wording.number(told.get("ece"))
    sure, right = (wording.number(told.get(name)) for name in ("confidence", "accuracy"))
    if error is None or sure is None or right is None:
        return []
    detail = (
        f"It is sure of its answers to {wording.percent(sure)} and right in {wording.percent(right)}; confidence "
        f"and accuracy lie {100 * error:.1f} points apart."
    )
    if error > LARGE_ERROR:
        side = "too sure of itself" if sure > right else "less sure than it could be"
        return [Finding("note", f"{benchmark}: the model is {side}", detail)]
    return [Finding("fine", f"{benchmark}: confidence means what it says", detail)]


def _about_batches(run: Run) -> list[Finding]:
    found = []
    for model, scores in run.scores.items():
        check = mapping(mapping(scores.get("decoding")).get("batch_check"))
        alone, same = wording.number(check.get("asked_alone")), wording.number(check.get("same"))
        if alone and same is not None and same < alone:
            detail = (
                f"{alone - same:.0f} of {alone:.0f} answers are others when asked alone: rounding decides between "
                "answers that are equally probable."
            )
            found.append(Finding("note", f"{model}: answers depend on the batch", detail))
    return found


def _about_budget(run: Run, head: Headline) -> list[Finding]:
    found = equal_budget(run, head)
    if not found["unequal"] or not found["rows"]:
        return []
    seen = [f"{row['model']} {row['samples']}" for row in found["rows"] if row["model"] != "base"]
    detail = (
        f"Samples seen since the base: {wording.listed(seen)}. A gap between these models is the effect of method "
        "and budget together."
    )
    return [Finding("note", "Models of unequal budgets", detail)]
