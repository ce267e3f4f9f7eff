"""A model as judge: each answer beside its reference in both orders, read strictly or not at all.

Only answers that were read in both orders count; all others are excluded and counted. A judge that fails gives
no number.
"""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medkit.errors import DataError
from medkit.evaluation import judge_marks, judge_reports
from medkit.evaluation.endpoint_card import EndpointCard
from medkit.evaluation.judge_local import local_source
from medkit.evaluation.judge_rubrics import ORDERS, name_of, read_rubric, request_of
from medkit.evaluation.judge_sources import Source, StoredReplies, endpoint_source, shared_ids, stored_source
from medkit.evaluation.replies import Key, claim, forget_failed
from medkit.evaluation.scoring.answer_files import items_of, read_rows
from medkit.store import write_atomically

PARTIAL, REPLIES, IDENTITY = "judge.partial.jsonl", "judge_replies.jsonl", "judging.json"
MOST_EXCLUDED = 0.05

Row = dict[str, Any]


@dataclass(frozen=True)
class Reading:
    """How replies of one form are read and summed up.

    Attributes:
        fault: What is wrong with a reply that can't be read.
        read: Text, whether it was cut, and whether the reference stood first, to what it says, or None.
        settle: What was read in each order, to the marks of the answer.
        aggregate: Judged rows to numbers.
        order_effect, order_fault, order_line: What the order alone changes.
        value_of: The number of an answer that human marks, from ``lowest`` to ``highest``, are compared with.
        overall_lines: The numbers for the command line.
    """

    fault: str
    read: Callable[[str, bool, bool], Row | None]
    settle: Callable[[Sequence[Row]], Row]
    aggregate: Callable[[Sequence[Row]], Row]
    order_effect: Callable[[Sequence[Sequence[Row]]], Row]
    order_fault: Callable[[Row], str]
    order_line: Callable[[Row], str]
    value_of: Callable[[Row], float]
    lowest: float
    highest: float
    overall_lines: Callable[[Row], list[str]]


READINGS = {
    "marks": Reading(
        judge_marks.FAULT, judge_marks.read_marks, judge_marks.settle, judge_marks.aggregate,
        judge_marks.order_effect, judge_marks.order_fault, judge_marks.order_line, judge_marks.value_of,
        judge_marks.LOWEST, judge_marks.HIGHEST, judge_marks.overall_lines,
    ),
    "report_errors": Reading(
        judge_reports.ERRORS_FAULT, judge_reports.read_errors, judge_reports.settle, judge_reports.aggregate_errors,
        judge_reports.order_effect, judge_reports.order_fault, judge_reports.order_line, judge_reports.total_of,
        0.0, 1000.0, judge_reports.overall_lines,
    ),
    "green": Reading(
        judge_reports.GREEN_FAULT, judge_reports.read_green, judge_reports.settle, judge_reports.aggregate_green,
        judge_reports.order_effect, judge_reports.order_fault, judge_reports.order_line, judge_reports.green_of,
        0.0, 1.0, judge_reports.overall_lines,
    ),
}  # fmt: skip


def judge_answers(
    answers: Path,
    judge: EndpointCard | Path | StoredReplies,
    out: Path,
    *,
    rubric: str | Path | None = None,
    human: Path | None = None,
    retry_failed: bool = False,
) -> dict[str, Any]:
    """Lets a model judge stored answers and writes ``judgements.jsonl``, ``judge.json`` and the raw replies.

    Args:
        answers: ``answers.jsonl`` of an evaluation, or its folder; rows of controls are left out. A row may
            have ``context``, what is known of the image (caption, findings). Rubrics of reports take any file that
            ``medkit score`` reads, and of it the reports where any row is one.
        judge: An endpoint, the folder of a checkpoint on this machine, or replies that a judge gave before.
        out: Folder of this judging and no other; a killed one goes on there.
        rubric: A shipped rubric's name (``marks``, also None, ``report_errors``, ``green``), or a card's path.
        human: Human marks of the answers (1 to 10; for ``report_errors`` the significant errors, for ``green`` 0 to
            1): JSON Lines or CSV with ``id``, ``mark`` and, where there are several benchmarks, ``benchmark``.
        retry_failed: Ask an endpoint again what ended without a judgement.

    Returns:
        The content of ``judge.json``: ``{judge, rubric, orders, questions, unanswered, excluded, overall, kinds,
        answer_types, order, human, distrust}``; ``overall`` and the parts as the rubric's ``aggregate`` gives them.

    Raises:
        DataError: The answers, the human marks or the stored replies can't be used.
        MedkitError: ``out`` holds another judging, or the judge can't be asked.
    """
    card, about = read_rubric(rubric)
    if isinstance(judge, StoredReplies):
        about = {"reads": card.reads, "asked": "elsewhere"}  # the card's own words were not sent
    reading = READINGS[card.reads]
    rows = _answer_rows(answers, card.reads != "marks")
    marked = _human_marks(human, reading, shared_ids(map(name_of, rows))) if human else {}
    source = _source(judge, rows)
    orders = tuple(order for order in card.orders if order in source.orders)
    if not orders:
        raise DataError(f"the replies are in the order {source.orders[0]}, which the rubric does not ask in")
    claim(out, {"judge": source.identity, "rubric": about}, IDENTITY)
    if retry_failed:
        forget_failed(out, PARTIAL, REPLIES)
    elif (out / REPLIES).exists() and not (out / PARTIAL).exists():
        (out / REPLIES).replace(out / PARTIAL)
    said = [row for row in rows if not row.get("failed")]
    requests = [request_of(row, order, card) for row in said for order in orders]

    def fault_of(text: str, truncated: bool) -> str:
        # Whether a reply can be read does not depend on the order.
        return "" if reading.read(text, truncated, True) else reading.fault

    replies = source.ask(requests, out / PARTIAL, fault_of)
    judged = [_judged(row, replies, orders, reading) for row in said]
    found = {
        "judge": source.about(list(replies.values())),
        "rubric": about,
        "orders": list(orders),
        "questions": len(rows),
        "unanswered": len(rows) - len(said),
        "excluded": sum(row["marks"] is None for row in judged),
        "overall": reading.aggregate(judged),
        "kinds": _parts(judged, "kind", reading),
        "answer_types": _parts(judged, "answer_type", reading),
        "order": _order_effect(judged, orders, reading),
        "human": _agreement(judged, marked, reading) if human else None,
    }
    found["distrust"] = _distrust(found, judged, reading)
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in judged)
    write_atomically(out / "judgements.jsonl", lines)
    write_atomically(out / "judge.json", json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    if (out / PARTIAL).exists():
        (out / PARTIAL).replace(out / REPLIES)
    return found


def summary_lines(found: dict[str, Any]) -> list[str]:
    """Writes the result for the command line."""
    reading = READINGS[found["rubric"]["reads"]]
    lines = reading.overall_lines(found["overall"])
    orders = "both orders" if len(found["orders"]) > 1 else f"one order, {found['orders'][0]}"
    what = "marks" if found["rubric"]["reads"] == "marks" else "counts"
    lines.append(
        f"{found['overall']['count']} of {found['questions']} answers have {what} in {orders}; "
        f"{found['excluded']} excluded, {found['unanswered']} without a reply"
    )
    if found["judge"]["failed"]:
        told = ", ".join(f"{reason} {count}" for reason, count in found["judge"]["failed"].items())
        again = "; --retry-failed asks again" if "endpoint" in found["judge"] else ""
        lines.append(f"The judge failed: {told}{again}")
    if found["order"]["count"]:
        lines.append(reading.order_line(found["order"]))
    lines += [f"Distrust this: {reason}" for reason in found["distrust"]]
    human = found["human"]
    if human and human["spearman"] is not None:
        lines.append(f"With human marks of {human['count']} answers: Spearman {human['spearman']:.2f}")
    elif human:
        lines.append(f"With human marks of {human['count']} answers: too few, or all alike, to compare")
    return lines


def _source(judge: EndpointCard | Path | StoredReplies, rows: Sequence[Row]) -> Source:
    if isinstance(judge, EndpointCard):
        return endpoint_source(judge)
    if isinstance(judge, StoredReplies):
        return stored_source(judge.path, {name_of(row) for row in rows})
    return local_source(judge)


def _answer_rows(path: Path, reports: bool) -> list[Row]:
    path = path / "answers.jsonl" if path.is_dir() else path
    rows = [row for row in read_rows(path) if row.get("control", "none") == "none"]
    if reports:
        rows = _report_rows(rows, path)
    for number, row in enumerate(rows, start=1):
        for name in ("id", "question", "answer", "references"):
            if row.get(name) in (None, []):
                raise DataError(
                    f"{path}: row {number} has no {name}; a judge needs answers as medkit stores them"
                )
    twice = [key for key, count in Counter(map(name_of, rows)).items() if count > 1]
    if twice:
        raise DataError(f"{path}: {' '.join(twice[0])} comes more than once")
    if not rows:
        raise DataError(f"{path} holds no answers")
    return rows


def _report_rows(rows: list[Row], path: Path) -> list[Row]:
    """Gives any tool's answers in medkit's columns: the reports, or all where no row is stated to be one."""
    found: list[Row] = []
    for benchmark, items in items_of(rows, str(path)).items():
        reports = [item for item in items if item.answer_type == "report"] or items
        found += [
            {
                "benchmark": benchmark, "id": item.id or None, "group": item.group, "kind": item.category or "report",
                "answer_type": item.answer_type, "question": "", "answer": item.answer,
                "references": list(item.references), "failed": item.failed,
            }
            for item in reports
        ]  # fmt: skip
    return found


def _judged(row: Row, replies: dict[Key, Row], orders: Sequence[str], reading: Reading) -> Row:
    benchmark, name = name_of(row)
    by_order = {}
    for order in orders:
        reply = replies[benchmark, order, name]
        failed = "failed" in reply
        by_order[order] = (
            None if failed else reading.read(reply["answer"], reply["truncated"], order == ORDERS[0])
        )
    whole = [one for one in by_order.values() if one]
    return {
        "benchmark": benchmark,
        "id": name,
        "group": str(row.get("group", name)),
        "kind": str(row.get("kind", "question")),
        "answer_type": str(row.get("answer_type", "open")),
        "marks": reading.settle(whole) if len(whole) == len(orders) else None,
        "by_order": by_order,
    }


def _parts(judged: Sequence[Row], column: str, reading: Reading) -> dict[str, dict[str, Any]]:
    parts: dict[str, list[Row]] = defaultdict(list)
    for row in judged:
        parts[row[column]].append(row)
    return {name: reading.aggregate(part) for name, part in sorted(parts.items())}


def _order_effect(judged: Sequence[Row], orders: Sequence[str], reading: Reading) -> dict[str, Any]:
    pairs = [list(row["by_order"].values()) for row in judged if row["marks"] is not None]
    return reading.order_effect(pairs) if pairs and len(orders) > 1 else {"count": 0}


def _distrust(found: dict[str, Any], judged: Sequence[Row], reading: Reading) -> list[str]:
    """Gives what makes judgements that can be read worthless all the same."""
    reasons = []
    if found["order"]["count"] and (fault := reading.order_fault(found["order"])):
        reasons.append(fault)
    if len(found["orders"]) == 1:
        reasons.append("one order only; what the place does is not known")
    fine = [json.dumps(row["marks"], sort_keys=True) for row in judged if row["marks"] is not None]
    if len(fine) > 1 and len(set(fine)) == 1:
        reasons.append("every question has the same marks")
    if found["excluded"] > MOST_EXCLUDED * len(judged):
        reasons.append(f"{found['excluded']} of {len(judged)} answers are excluded")
    return reasons


def _human_marks(path: Path, reading: Reading, shared: set[str]) -> dict[tuple[str, str], float]:
    found: dict[tuple[str, str], float] = {}
    for number, row in enumerate(read_rows(path), start=1):
        try:
            name, mark = (str(row.get("benchmark") or ""), str(row["id"])), float(row["mark"])
        except (KeyError, TypeError, ValueError):
            raise DataError(f"{path}: row {number} has no id with a mark that is a number") from None
        if not (math.isfinite(mark) and reading.lowest <= mark <= reading.highest):
            raise DataError(
                f"{path}: row {number}: the mark {mark} is not from {reading.lowest:g} to {reading.highest:g}"
            )
        if name in found:
            raise DataError(f"{path}: row {number}: {name[1]} has a mark already")
        if not name[0] and name[1] in shared:
            raise DataError(
                f"{path}: row {number}: several benchmarks have an answer {name[1]}; give its benchmark"
            )
        found[name] = mark
    return found


def _agreement(
    judged: Sequence[Row], human: dict[tuple[str, str], float], reading: Reading
) -> dict[str, Any]:
    """Compares the judge's numbers of the answers with human ones: rank correlation and mean difference."""
    from scipy import stats

    pairs: list[tuple[float, float]] = []
    for row in judged:
        mark = human.get((row["benchmark"], row["id"]), human.get(("", row["id"])))
        if row["marks"] is not None and mark is not None:
            pairs.append((reading.value_of(row["marks"]), mark))
    found: dict[str, Any] = {"marks": len(human), "count": len(pairs), "spearman": None, "kendall": None}
    if pairs:
        found["judge_minus_human"] = sum(judge - person for judge, person in pairs) / len(pairs)
    # Of two pairs, or of marks that are all alike, a correlation says nothing or does not exist.
    if len(pairs) >= 3 and all(len(set(side)) > 1 for side in zip(*pairs, strict=True)):
        judge, person = zip(*pairs, strict=True)
        found["spearman"] = float(stats.spearmanr(judge, person)[0])  # type: ignore[arg-type]
        found["kendall"] = float(stats.kendalltau(judge, person)[0])  # type: ignore[arg-type]
    return found
