"""A model as judge: each answer beside its reference in both orders, marks read strictly or not at all.

Only questions with marks in both orders count; all others are excluded and counted. A judge that fails gives
no number.
"""

from __future__ import annotations

import csv
import hashlib
import json
import math
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import model_validator

from medkit.cards.faults import validate
from medkit.cards.models import Card, Positive, Text
from medkit.cards.strict_yaml import read_card
from medkit.errors import CardError, DataError
from medkit.evaluation.endpoint import Request, about_endpoint, ask_all
from medkit.evaluation.endpoint_card import MANNERS, EndpointCard
from medkit.evaluation.replies import Key, claim, forget_failed
from medkit.evaluation.scoring.judges import relative_scores
from medkit.evaluation.statistics import ratio_interval
from medkit.store import write_atomically

RUBRICS = Path(__file__).with_name("rubrics.yaml")
PARTIAL, REPLIES, IDENTITY = "judge.partial.jsonl", "judge_replies.jsonl", "judging.json"
ORDERS = ("reference_first", "answer_first")
LOWEST, HIGHEST = 1.0, 10.0
LEAST_SAME_SIDE, MOST_EXCLUDED = 0.5, 0.05
_MARK = r"([0-9]{1,2}(?:\.[0-9]+)?)"
_MARKS = re.compile(rf"{_MARK}(?: +|, +){_MARK}")
_PLACE = re.compile(r"\{(\w+)\}")

Row = dict[str, Any]


class RubricCard(Card):
    """What a judge is asked.

    Attributes:
        version: Raised with every change; a number travels with it.
        ask: Text of a request, with {question}, {context}, {first}, {second} and {rubric}.
        context: What is put for {context} where something is {known} of the image.
        most_tokens: Longest reply.
        types: Type of question to its rubric; ``open`` serves types that have none.
    """

    version: Positive
    system: Text
    ask: str
    context: str = ""
    most_tokens: Positive = 512
    types: dict[str, Text]

    @model_validator(mode="after")
    def _is_whole(self) -> RubricCard:
        missing = {"question", "first", "second", "rubric"} - set(_PLACE.findall(self.ask))
        if missing:
            raise ValueError(f"ask lacks {{{sorted(missing)[0]}}}")
        if "open" not in self.types:
            raise ValueError("types lacks open, which serves all other types")
        return self


def judge_answers(
    answers: Path,
    endpoint: EndpointCard,
    out: Path,
    *,
    rubric: Path | None = None,
    human: Path | None = None,
    retry_failed: bool = False,
) -> dict[str, Any]:
    """Lets a model mark stored answers and writes ``judgements.jsonl``, ``judge.json`` and the raw replies.

    Args:
        answers: ``answers.jsonl`` of an evaluation, or its folder; rows of controls are left out. A row may
            have ``context``, what is known of the image (caption, findings).
        endpoint: The judge.
        out: Folder of this judging and no other; a killed one goes on there.
        rubric: A rubric card; the shipped one when None.
        human: Human marks of the answers, 1 to 10: JSON Lines or CSV with ``id``, ``mark`` and, where there are
            several benchmarks, ``benchmark``.
        retry_failed: Ask again what ended without marks.

    Returns:
        The content of ``judge.json``: ``{judge, rubric, questions, unanswered, excluded, overall, kinds,
        answer_types, order, human, distrust}``; ``overall`` and the parts as ``aggregate`` gives them.

    Raises:
        DataError: The answers or the human marks can't be used.
        MedkitError: ``out`` holds another judging, or the endpoint can't be asked.
    """
    rows = _answer_rows(answers)
    marked = _human_marks(human) if human else {}
    card, digest = _read_rubric(rubric or RUBRICS)
    about = {"version": card.version, "sha256": digest}
    claim(out, {"judge": endpoint.model_dump(exclude=set(MANNERS)), "rubric": about}, IDENTITY)
    if retry_failed:
        forget_failed(out, PARTIAL, REPLIES)
    elif (out / REPLIES).exists() and not (out / PARTIAL).exists():
        (out / REPLIES).replace(out / PARTIAL)
    said = [row for row in rows if not row.get("failed")]
    requests = [_request(row, order, card) for row in said for order in ORDERS]
    replies = ask_all(endpoint, requests, out / PARTIAL, title="judging", fault_of=_fault)
    judged = [_judged(row, replies) for row in said]
    found = {
        "judge": about_endpoint(endpoint, list(replies.values())),
        "rubric": about,
        "questions": len(rows),
        "unanswered": len(rows) - len(said),
        "excluded": sum(row["marks"] is None for row in judged),
        "overall": aggregate(judged),
        "kinds": _parts(judged, "kind"),
        "answer_types": _parts(judged, "answer_type"),
        "order": _order_effect(judged),
        "human": _agreement(judged, marked) if human else None,
    }
    found["distrust"] = _distrust(found, judged)
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in judged)
    write_atomically(out / "judgements.jsonl", lines)
    write_atomically(out / "judge.json", json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    (out / PARTIAL).replace(out / REPLIES)
    return found


def parse_marks(text: str, truncated: bool = False) -> tuple[float, float] | None:
    """Gives the two marks of a judge's first line, or None.

    The line must be two numbers from 1 to 10, apart by spaces or a comma with a space, and nothing else; a
    line that was cut ("8 1" of "8 10") does not count.

    Args:
        text: The reply.
        truncated: Whether it was cut at its limit.
    """
    line, newline, _ = text.strip().partition("\n")
    if truncated and not newline:
        return None
    found = _MARKS.fullmatch(line.strip())
    marks = (float(found[1]), float(found[2])) if found else None
    return marks if marks and all(LOWEST <= mark <= HIGHEST for mark in marks) else None


def aggregate(judged: Sequence[Row], seed: int = 0) -> dict[str, Any]:
    """Gives both relative scores, in percent of the reference, with 95 % intervals clustered by group.

    Args:
        judged: Rows with ``marks`` (``{reference, answer}``, means over both orders, or None) and ``group``.
        seed: Seed of the bootstrap.

    Returns:
        ``{count, excluded}`` and, where ``count`` is above 0, ``ratio_of_means``, ``mean_of_ratios`` (each
        ``{value, low, high}``, ends None for a single group), ``answer_mark`` and ``reference_mark``.
    """
    fine = [row for row in judged if row["marks"] is not None]
    counts: dict[str, Any] = {"count": len(fine), "excluded": len(judged) - len(fine)}
    if not fine:
        return counts
    said = [row["marks"]["answer"] for row in fine]
    gold = [row["marks"]["reference"] for row in fine]
    groups = [row["group"] for row in fine]
    values = relative_scores([list(pair) for pair in zip(gold, said, strict=True)])
    ratios = [answer / reference for answer, reference in zip(said, gold, strict=True)]
    intervals = {
        "ratio_of_means": ratio_interval(said, gold, groups, seed),
        "mean_of_ratios": ratio_interval(ratios, [1.0] * len(ratios), groups, seed),
    }
    for name, interval in intervals.items():
        ends = (round(100 * interval.low, 4), round(100 * interval.high, 4)) if interval else (None, None)
        counts[name] = {"value": round(values[name], 4), "low": ends[0], "high": ends[1]}
    return counts | {"answer_mark": sum(said) / len(said), "reference_mark": sum(gold) / len(gold)}


def summary_lines(found: dict[str, Any]) -> list[str]:
    """Writes the result for the command line."""
    lines = []
    for name in ("ratio_of_means", "mean_of_ratios"):
        if name in found["overall"]:
            score = found["overall"][name]
            ends = "" if score["low"] is None else f" ({score['low']:.1f} to {score['high']:.1f})"
            lines.append(f"{name.replace('_', ' ')}: {score['value']:.1f} % of the reference{ends}")
    lines.append(
        f"{found['overall']['count']} of {found['questions']} answers have marks in both orders; "
        f"{found['excluded']} excluded, {found['unanswered']} without a reply"
    )
    if found["judge"]["failed"]:
        told = ", ".join(f"{reason} {count}" for reason, count in found["judge"]["failed"].items())
        lines.append(f"The judge failed: {told}; --retry-failed asks again")
    if found["order"]["count"]:
        effect = found["order"]["answer_second_minus_first"]
        lines.append(
            f"The answer's mark, shown second against first: {effect:+.2f}; the same side wins in both orders "
            f"{100 * found['order']['same_side']:.0f} %"
        )
    lines += [f"Distrust this: {reason}" for reason in found["distrust"]]
    human = found["human"]
    if human and human["spearman"] is not None:
        lines.append(f"With human marks of {human['count']} answers: Spearman {human['spearman']:.2f}")
    elif human:
        lines.append(f"With human marks of {human['count']} answers: too few, or all alike, to compare")
    return lines


def _fault(text: str, truncated: bool) -> str:
    return "" if parse_marks(text, truncated) else "no two marks"


def _answer_rows(path: Path) -> list[Row]:
    from medkit.evaluation.scoring.answer_files import read_rows

    path = path / "answers.jsonl" if path.is_dir() else path
    rows = [row for row in read_rows(path) if row.get("control", "none") == "none"]
    for number, row in enumerate(rows, start=1):
        for name in ("id", "question", "answer", "references"):
            if row.get(name) in (None, []):
                raise DataError(
                    f"{path}: row {number} has no {name}; a judge needs answers as medkit stores them"
                )
    twice = [key for key, count in Counter(_name(row) for row in rows).items() if count > 1]
    if twice:
        raise DataError(f"{path}: {' '.join(twice[0])} comes more than once")
    if not rows:
        raise DataError(f"{path} holds no answers")
    return rows


def _read_rubric(path: Path) -> tuple[RubricCard, str]:
    document = read_card(path, path.name if path == RUBRICS else str(path))
    card, problems = validate(RubricCard, document)
    if problems or card is None:
        raise CardError(problems)
    return card, hashlib.sha256(path.read_bytes()).hexdigest()


def _request(row: Row, order: str, card: RubricCard) -> Request:
    pair = ("; ".join(map(str, row["references"])), row["answer"])
    first, second = pair if order == ORDERS[0] else pair[::-1]
    known = row.get("context")
    filled = {
        "question": _with_choices(row),
        "context": card.context.replace("{known}", str(known)) if known else "",
        "first": first,
        "second": second,
        "rubric": card.types.get(row.get("answer_type", "open"), card.types["open"]),
    }
    # One pass: what an answer holds is text, even where it looks like a place to fill.
    prompt = _PLACE.sub(lambda found: filled.get(found[1], found[0]), card.ask)
    sent = [{"role": "system", "content": card.system}, {"role": "user", "content": prompt}]
    benchmark, name = _name(row)
    return Request((benchmark, order, name), prompt, lambda: sent, card.most_tokens)


def _with_choices(row: Row) -> str:
    choices = [str(choice) for choice in row.get("choices") or []]
    lettered = [f"{chr(ord('A') + place)}. {text}" for place, text in enumerate(choices)]
    return "\n".join([str(row["question"]), *lettered])


def _name(row: Row) -> tuple[str, str]:
    return str(row.get("benchmark", "answers")), str(row["id"])


def _judged(row: Row, replies: dict[Key, Row]) -> Row:
    benchmark, name = _name(row)
    by_order = {}
    for order in ORDERS:
        reply = replies[benchmark, order, name]
        pair = None if "failed" in reply else parse_marks(reply["answer"], reply["truncated"])
        if pair and order == ORDERS[1]:
            pair = pair[::-1]
        by_order[order] = {"reference": pair[0], "answer": pair[1]} if pair else None
    first, second = by_order.values()
    marks = {side: (first[side] + second[side]) / 2 for side in first} if first and second else None
    return {
        "benchmark": benchmark,
        "id": name,
        "group": str(row.get("group", name)),
        "kind": str(row.get("kind", "question")),
        "answer_type": str(row.get("answer_type", "open")),
        "marks": marks,
        "by_order": by_order,
    }


def _parts(judged: Sequence[Row], column: str) -> dict[str, dict[str, Any]]:
    parts: dict[str, list[Row]] = defaultdict(list)
    for row in judged:
        parts[row[column]].append(row)
    return {name: aggregate(part) for name, part in sorted(parts.items())}


def _order_effect(judged: Sequence[Row]) -> dict[str, Any]:
    """Says what the order alone changes: a fair judge gives 0 and 1."""
    pairs = [list(row["by_order"].values()) for row in judged if row["marks"] is not None]
    if not pairs:
        return {"count": 0}
    moved = [first["answer"] - second["answer"] for first, second in pairs]  # second place less first place
    same = [_side(first) == _side(second) for first, second in pairs]
    return {
        "count": len(pairs),
        "answer_second_minus_first": sum(moved) / len(pairs),
        "same_side": sum(same) / len(pairs),
    }


def _distrust(found: dict[str, Any], judged: Sequence[Row]) -> list[str]:
    """Gives what makes marks that parse worthless all the same."""
    reasons = []
    order, excluded = found["order"], found["excluded"]
    if order["count"] and order["same_side"] < LEAST_SAME_SIDE:
        share = 100 * order["same_side"]
        reasons.append(f"the order decides; the same side wins in both orders in {share:.0f} % only")
    pairs = [tuple(row["marks"].values()) for row in judged if row["marks"] is not None]
    if len(pairs) > 1 and len(set(pairs)) == 1:
        reasons.append("every question has the same marks")
    if excluded > MOST_EXCLUDED * len(judged):
        reasons.append(f"{excluded} of {len(judged)} answers are excluded")
    return reasons


def _side(marks: dict[str, float]) -> int:
    return (marks["answer"] > marks["reference"]) - (marks["answer"] < marks["reference"])


def _human_marks(path: Path) -> dict[tuple[str, str], float]:
    from medkit.evaluation.scoring.answer_files import read_rows

    if path.suffix.lower() == ".csv":
        try:
            with path.open(encoding="utf-8-sig", newline="") as file:
                rows: list[Row] = list(csv.DictReader(file))
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{path} can't be read as a CSV in UTF-8") from error
    else:
        rows = read_rows(path)
    found: dict[tuple[str, str], float] = {}
    for number, row in enumerate(rows, start=1):
        try:
            name, mark = (str(row.get("benchmark") or ""), str(row["id"])), float(row["mark"])
        except (KeyError, TypeError, ValueError):
            raise DataError(f"{path}: row {number} has no id with a mark that is a number") from None
        if not (math.isfinite(mark) and LOWEST <= mark <= HIGHEST):
            raise DataError(f"{path}: row {number}: the mark {mark} is not from 1 to 10")
        if name in found:
            raise DataError(f"{path}: row {number}: {name[1]} has a mark already")
        found[name] = mark
    return found


def _agreement(judged: Sequence[Row], human: dict[tuple[str, str], float]) -> dict[str, Any]:
    """Compares the judge's marks of the answers with human ones: rank correlation and mean difference."""
    from scipy import stats

    pairs: list[tuple[float, float]] = []
    for row in judged:
        mark = human.get((row["benchmark"], row["id"]), human.get(("", row["id"])))
        if row["marks"] is not None and mark is not None:
            pairs.append((row["marks"]["answer"], mark))
    found: dict[str, Any] = {"marks": len(human), "count": len(pairs), "spearman": None, "kendall": None}
    if pairs:
        found["judge_minus_human"] = sum(judge - person for judge, person in pairs) / len(pairs)
    # Of two pairs, or of marks that are all alike, a correlation says nothing or does not exist.
    if len(pairs) >= 3 and all(len(set(side)) > 1 for side in zip(*pairs, strict=True)):
        judge, person = zip(*pairs, strict=True)
        found["spearman"] = float(stats.spearmanr(judge, person)[0])  # type: ignore[arg-type]
        found["kendall"] = float(stats.kendalltau(judge, person)[0])  # type: ignore[arg-type]
    return found
