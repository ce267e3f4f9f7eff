"""From answer rows to the scores of a benchmark: accuracy with interval, slices, controls, calibration, counts."""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

from medkit.evaluation import scorers
from medkit.evaluation.corruptions import read_corruption
from medkit.evaluation.questions import IMAGE_SLICES, Question
from medkit.evaluation.statistics import (
    Interval,
    calibration,
    paired_bootstrap,
    score_interval,
    selective_accuracy,
)

Row = dict[str, Any]

COVERAGES = tuple(round(step / 20, 2) for step in range(1, 21))
UNKNOWN = "not stated"
ROUNDING = 1e-9  # a sum of scores that are no whole numbers may miss a whole number by so much


def answer_row(question: Question, shown: Sequence[str], reply: Row, scorer: str) -> Row:
    """Joins a question with its reply and scores it: one row of ``answers.jsonl``.

    Args:
        question: What was asked.
        shown: References of the images of the question itself, whatever a control showed instead.
        reply: ``{prompt, answer, truncated, latency_s}``, and ``failed`` where there was no reply: then
            nothing is scored. ``confidence`` (0..1) and ``candidates`` are kept where they are.
        scorer: The benchmark's headline scorer; questions it does not apply to are scored by ``answer``.
    """
    scores = scorers.score(reply["answer"], question.references, question.choices, question.answer_type)
    headline = scores["answer"] if scores[scorer] is None else scores[scorer]
    row = {
        "benchmark": question.benchmark,
        "control": question.control,
        "id": question.id,
        "image": shown[0] if shown else "",
        "group": question.group,
        "kind": question.kind,
        "answer_type": question.answer_type,
        "question": question.text,
        "prompt": reply["prompt"],
        "references": question.references,
        "choices": question.choices,
        **({"context": question.context} if question.context else {}),
        "answer": reply["answer"],
        "correct": int(headline) if headline in (0.0, 1.0) else headline,
        "scores": {name: scores[name] for name in scorers.SCORERS},
        "latency_s": reply["latency_s"],
        "truncated": reply["truncated"],
    }
    row |= {name: reply[name] for name in ("confidence", "candidates") if reply.get(name) is not None}
    if question.slices:
        row["slices"] = question.slices
    if "failed" in reply:
        row |= {"correct": None, "scores": dict.fromkeys(scorers.SCORERS), "failed": reply["failed"]}
    if question.control == "shuffled":
        row["shown"] = question.images[0]
    return row


def summarise(rows: Sequence[Row], scorer: str, seed: int = 0) -> dict[str, Any]:
    """Gives the scores of one benchmark from its answer rows, controls included.

    ``majority`` is the accuracy of always giving the most frequent gold answer (of a slice; overall, of each
    kind of question). ``survives`` is the share of what was right with the true image that is still right
    under the control, ``gain_kept`` the share of the gain over ``majority`` that the control keeps (left out
    where there is no gain). ``corruptions`` has kind -> severity -> accuracy and its paired ``change`` against the
    pictures as they are. ``calibration`` and ``selective`` are there where answers have a ``confidence``.
    Intervals are clustered by group.

    Questions without a reply are counted as ``failed`` and enter no other number; ``bounds`` are the accuracies
    had all of them been wrong, and right. With no reply at all there is no accuracy.

    Args:
        rows: Rows of ``answers.jsonl`` of one benchmark; at least one has control ``none``.
        scorer: Name of the headline scorer.
        seed: Seed of the bootstrap.
    """
    by_control: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_control[row["control"]].append(row)
    all_asked = by_control.pop("none")
    asked = [row for row in all_asked if "failed" not in row]
    failed = len(all_asked) - len(asked)
    if not asked:
        return {"count": 0, "failed": failed, "accuracy": None, "controls": {}, "scorer": scorer}
    slices = _all_slices(asked, seed)
    majority = _frequent_by_kind(asked) / len(asked)
    controls = {
        name: _control(asked, under, seed)
        for name, under in sorted(by_control.items())
        if read_corruption(name) is None
    }
    return {
        "count": len(asked),
        "images": len({row["image"] for row in asked if row["image"]}),
        "groups": len({row["group"] for row in asked}),
        "questions_sha256": _identity(all_asked),
        "scorer": scorer,
        "definition": scorers.DEFINITIONS[scorer],
        "interval": "95 %, bootstrap over groups; Wilson's where all scores are equal",
        "accuracy": _accuracy(asked, seed),
        "by_scorer": _by_scorer(asked, seed),
        "slices": slices,
        "controls": {name: found for name, found in controls.items() if found is not None},
        **_corruptions(asked, by_control, seed),
        **_confidence(asked),
        "failed": failed,
        **({"bounds": _bounds(asked, failed)} if failed else {}),
        "empty": sum(not row["answer"].strip() for row in asked),
        "truncated": sum(row["truncated"] for row in asked),
        "unparsed": sum(_unparsed(row) for row in asked),
        **({"by_likelihood": chosen} if (chosen := sum("candidates" in row for row in asked)) else {}),
        "majority": round(majority, 6),
    }


def _accuracy(rows: Sequence[Row], seed: int) -> dict[str, float]:
    return _interval([row["correct"] for row in rows], rows, seed)


def _interval(values: Sequence[float], rows: Sequence[Row], seed: int) -> dict[str, float]:
    interval: Interval = score_interval(values, [row["group"] for row in rows], seed)
    return {name: round(value, 6) for name, value in interval._asdict().items()}


def _by_scorer(rows: Sequence[Row], seed: int) -> dict[str, dict[str, float]]:
    found = {}
    for name in scorers.SCORERS:
        applies = [row for row in rows if row["scores"][name] is not None]
        if applies:
            values = [row["scores"][name] for row in applies]
            found[name] = {"count": len(applies), **_interval(values, applies, seed)}
    return found


def _all_slices(rows: Sequence[Row], seed: int) -> dict[str, dict[str, dict[str, float]]]:
    """Gives the slices by kind and type, and those by image and length that tell rows apart."""
    found = {name: _slices(rows, [row[name] for row in rows], seed) for name in ("kind", "answer_type")}
    more = {name: [row.get("slices", {}).get(name, UNKNOWN) for row in rows] for name in IMAGE_SLICES}
    more["answer_length"] = [_length(row) for row in rows]
    return found | {
        name: _slices(rows, values, seed) for name, values in more.items() if len(set(values)) > 1
    }


def _length(row: Row) -> str:
    words = len(row["references"][0].split())
    return "1 word" if words < 2 else "2 to 4 words" if words < 5 else "5 words or more"


def _slices(rows: Sequence[Row], values: Sequence[str], seed: int) -> dict[str, dict[str, float]]:
    parts: dict[str, list[Row]] = defaultdict(list)
    for row, value in zip(rows, values, strict=True):
        parts[value].append(row)
    return {
        name: {"count": len(part), **_accuracy(part, seed), "majority": round(_frequent(part) / len(part), 6)}
        for name, part in sorted(parts.items())
    }


def _frequent(rows: Sequence[Row]) -> int:
    """Counts the rows with the most frequent gold answer."""
    gold = Counter(scorers.normalise(row["references"][0]) for row in rows)
    return gold.most_common(1)[0][1]


def _frequent_by_kind(rows: Sequence[Row]) -> int:
    parts: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        parts[row["kind"]].append(row)
    return sum(map(_frequent, parts.values()))


def _bounds(asked: Sequence[Row], failed: int) -> dict[str, float]:
    right, count = sum(row["correct"] for row in asked), len(asked) + failed
    return {"low": round(right / count, 6), "high": round((right + failed) / count, 6)}


def _control(asked: Sequence[Row], rows: Sequence[Row], seed: int) -> dict[str, Any] | None:
    right, under = _both(asked, rows)
    if not under:
        return None
    total = sum(right[row["id"]] for row in under)
    kept = sum(min(right[row["id"]], row["correct"]) for row in under)
    frequent = _frequent_by_kind(under)
    gain, left = total - frequent, sum(row["correct"] for row in under) - frequent
    return {
        "count": len(under),
        **({"failed": len(rows) - len(under)} if len(rows) > len(under) else {}),
        **_accuracy(under, seed),
        "survives": round(kept / total, 6) if total else 0.0,
        **({"gain_kept": round(left / gain, 6)} if gain > ROUNDING else {}),
    }


def _corruptions(asked: Sequence[Row], by_control: dict[str, list[Row]], seed: int) -> dict[str, Any]:
    found: dict[str, dict[str, Any]] = defaultdict(dict)
    for control, rows in by_control.items():
        corruption = read_corruption(control)
        if corruption is None:
            continue
        right, under = _both(asked, rows)
        if not under:
            continue
        change = paired_bootstrap(
            [right[row["id"]] for row in under],
            [row["correct"] for row in under],
            [row["group"] for row in under],
            seed=seed,
        )
        found[corruption.kind][str(corruption.severity)] = {
            "count": len(under),
            **({"failed": len(rows) - len(under)} if len(rows) > len(under) else {}),
            **_accuracy(under, seed),
            "change": {name: round(value, 6) for name, value in change._asdict().items()},
        }
    ordered = {kind: dict(sorted(levels.items())) for kind, levels in sorted(found.items())}
    return {"corruptions": ordered} if ordered else {}


def _both(asked: Sequence[Row], rows: Sequence[Row]) -> tuple[dict[str, float], list[Row]]:
    """Gives what was right by question, and the rows under a control of questions that have both replies."""
    right = {row["id"]: row["correct"] for row in asked}
    return right, [row for row in rows if "failed" not in row and row["id"] in right]


def _confidence(asked: Sequence[Row]) -> dict[str, Any]:
    """Compares how sure the model was with how often it was right, where replies have a confidence."""
    sure = [row for row in asked if row.get("confidence") is not None]
    if not sure:
        return {}
    confidence, correct = [row["confidence"] for row in sure], [row["correct"] for row in sure]
    return {
        "calibration": _rounded(calibration(confidence, correct)),
        "selective": _rounded(selective_accuracy(confidence, correct, COVERAGES)),
    }


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _rounded(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_rounded(inner) for inner in value]
    return round(value, 6) if isinstance(value, float) else value


def _unparsed(row: Row) -> bool:
    said = bool(row["answer"].strip())
    return said and not scorers.is_parsed(row["answer"], row["answer_type"], row["choices"])


def _identity(rows: Sequence[Row]) -> str:
    asked = sorted([row["id"], row["image"], row["question"], *row["references"]] for row in rows)
    return hashlib.sha256(json.dumps(asked, ensure_ascii=False).encode()).hexdigest()
