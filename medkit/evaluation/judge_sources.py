"""Where a judge's replies come from: an endpoint, a checkpoint on this machine, or a file of another tool."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medkit.errors import DataError
from medkit.evaluation.endpoint import Request, about_endpoint, ask_all
from medkit.evaluation.endpoint_card import MANNERS, EndpointCard
from medkit.evaluation.judge_rubrics import ORDERS
from medkit.evaluation.replies import Key
from medkit.evaluation.scoring.answer_files import IDS, first_of, read_rows
from medkit.state import digest

# Columns of a reply's text: medkit's, LLaVA-Bench's and LLaVA-Med's reviews, GREEN's results.
TEXTS = ("judge_reply", "content", "green_analysis", "green_reply", "reply", "review", "text", "answer")

Row = dict[str, Any]
Fault = Callable[[str, bool], str]


@dataclass(frozen=True)
class StoredReplies:
    """A file of what a judge said before: rows with the answer's id, the text and, where known, the ``order``."""

    path: Path


@dataclass(frozen=True)
class Source:
    """Where replies come from.

    Attributes:
        identity: What makes this judge, as JSON: another one needs another folder.
        ask: Requests, the file of raw replies and what is wrong with a text, to the replies by key; those that
            don't count have ``failed``.
        about: Replies to how they came about, with the count of failures by reason.
        orders: The orders that it can be asked in.
    """

    identity: dict[str, Any]
    ask: Callable[[Sequence[Request], Path, Fault], dict[Key, Row]]
    about: Callable[[Sequence[Row]], Row]
    orders: tuple[str, ...] = ORDERS


def endpoint_source(endpoint: EndpointCard) -> Source:
    """Gives an endpoint as a judge."""
    return Source(
        endpoint.model_dump(exclude=set(MANNERS)),
        lambda requests, partial, fault_of: ask_all(
            endpoint, requests, partial, title="judging", fault_of=fault_of
        ),
        lambda replies: about_endpoint(endpoint, replies),
    )


def stored_source(path: Path, known: set[tuple[str, str]]) -> Source:
    """Gives a file of stored replies as a judge.

    Args:
        path: The file, see ``StoredReplies``.
        known: Benchmark and id of every answer.

    Raises:
        DataError: A row has no id, an order or a second reply that can't be, or an id of several benchmarks and no
            benchmark; or none is about the answers.
    """
    texts = _read_stored(path, known)
    orders = tuple(order for order in ORDERS if any(key[1] == order for key in texts))

    def ask(requests: Sequence[Request], partial: Path, fault_of: Fault) -> dict[Key, Row]:
        replies = {}
        for request in requests:
            benchmark, order, name = request.key
            row = {"benchmark": benchmark, "control": order, "id": name, "answer": "", "truncated": False}
            said = texts.get(request.key, texts.get(("", order, name)))
            if said is None:
                replies[request.key] = {**row, "failed": "no stored reply"}
            else:
                replies[request.key] = with_fault({**row, **said}, fault_of)
        return replies

    def about(replies: Sequence[Row]) -> Row:
        return {"method": "stored replies", "file": str(path), "failed": failures(replies)}

    return Source({"replies": digest(str(path))}, ask, about, orders)


def failures(replies: Sequence[Row]) -> dict[str, int]:
    """Counts the replies that don't count, by reason."""
    return dict(sorted(Counter(reply["failed"] for reply in replies if "failed" in reply).items()))


def with_fault(reply: Row, fault_of: Fault) -> Row:
    """Gives a reply with ``failed`` where its text can't be read."""
    fault = fault_of(reply["answer"], reply["truncated"])
    return {**reply, "failed": fault} if fault else reply


def shared_ids(known: Iterable[tuple[str, str]]) -> set[str]:
    """Gives the ids that answers of several benchmarks have: a row about one of them must name its benchmark.

    Args:
        known: Benchmark and id of every answer, each once.
    """
    return {name for name, count in Counter(name for _, name in known).items() if count > 1}


def _read_stored(path: Path, known: set[tuple[str, str]]) -> dict[Key, Row]:
    ids, shared = {name for _, name in known}, shared_ids(known)
    found: dict[Key, Row] = {}
    for number, row in enumerate(read_rows(path), start=1):
        name, text = first_of(row, IDS), first_of(row, TEXTS)
        if name is None:
            raise DataError(f"{path}: row {number} has no id; it needs one of {', '.join(IDS)}")
        order = str(row.get("order") or row.get("control") or ORDERS[0])
        if order not in ORDERS:
            raise DataError(f"{path}: row {number}: the order {order!r} is neither of {', '.join(ORDERS)}")
        key = str(row.get("benchmark") or ""), order, str(name)
        if key in found:
            raise DataError(f"{path}: row {number}: {name} has a reply in the order {order} already")
        if not key[0] and str(name) in shared:
            raise DataError(
                f"{path}: row {number}: several benchmarks have an answer {name}; give its benchmark"
            )
        if str(name) in ids:
            found[key] = {"answer": str(text or "").strip(), "truncated": bool(row.get("truncated", False))}
    if not found:
        raise DataError(f"{path} holds no reply about any of the answers; its ids are others")
    return found
