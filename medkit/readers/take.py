"""From a reader's item and its pictures to a sample of the dataset, or to a row of the ledger."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from typing import Any

from medkit.readers import Merged, Record, Rejected
from medkit.readers.known import Known
from medkit.readers.prepare import Outcome
from medkit.readers.spool import Stored
from medkit.readers.workers import Engine, made_by
from medkit.sample import Sample, assistant_turn, user_turn
from medkit.store import DatasetWriter, writable

CAPTION_PROMPT = "Describe the picture."


def stored(
    item: Record | Rejected | Merged, outcome: Outcome | None, domain: dict[str, Any], to: DatasetWriter
) -> Stored | None:
    """Stores a record's pictures and gives its sample, or writes why not into the ledger.

    Args:
        item: What a reader gave.
        outcome: The record's pictures; those that the dataset lacks with their bytes.
        domain: ``name`` and ``licence`` of what is read.
        to: The dataset.
    """
    if isinstance(item, Rejected):
        to.reject(item.record, item.reason, item.detail)
        return None
    if isinstance(item, Merged):
        to.merge(item.record, item.reason, item.detail)
        return None
    assert outcome is not None
    if outcome.reason:
        to.reject(item.id, outcome.reason, outcome.detail)
        return None
    refs = [to.pictures.ref(to.put_image(picture.stored)[0]) for picture in outcome.pictures]
    messages, kind = item.messages or [], "record"
    if messages:
        kind = "question" if "question" in item.facts else "conversation"
    elif item.caption:
        kind = "caption"
        shows = str(item.facts.get("shows", ""))
        messages = [user_turn(CAPTION_PROMPT, len(refs), shows), assistant_turn(item.caption)]
    facts = dict(item.facts)
    if refs:
        facts["width"], facts["height"] = to.pictures.size(to.pictures.number_of_ref(refs[0]) or 0)
    source = {
        **item.extra,
        "dataset": domain["name"],
        "record": item.id,
        "licence": item.licence or domain.get("licence", ""),
        "group": item.group or item.id,
        "kind": kind,
    }
    sample = Sample(*_writable([item.id, messages, refs, facts, source]))
    return Stored(sample, item.split, item.notes + outcome.notes, item.kind)


def _writable(row: list[Any]) -> list[Any]:
    """Gives JSON-able values whose texts are writable."""
    return _whole(row) if "\\ud" in json.dumps(row) else row


def _whole(value: Any) -> Any:
    if isinstance(value, str):
        return writable(value)
    if isinstance(value, dict):
        return {_whole(key): _whole(one) for key, one in value.items()}
    return [_whole(one) for one in value] if isinstance(value, list | tuple) else value


def taken(
    item: Record | Rejected | Merged,
    key: bytes | None,
    outcome: Outcome | None,
    domain: dict[str, Any],
    to: DatasetWriter,
    known: Known,
    engine: Engine,
    counts: Counter[str],
) -> Stored | None:
    """Stores what became of an item, from memory where it is known, and remembers it.

    Args:
        item, domain, to: As in ``stored``.
        key: Of the record's pictures, or None.
        outcome: What was made of them just now; None: they are known.
        known: The memory.
        engine: Makes what was remembered wrongly.
        counts: ``made`` and ``remembered`` are counted up.
    """
    if not isinstance(item, Record):
        return stored(item, None, domain, to)
    if outcome is None and key is not None:
        outcome = _remembered(key, to, known)
        counts["remembered"] += outcome is not None
    elif outcome is not None:
        counts["made"] += 1
        if key is not None:
            known.keep(key, outcome)
    if outcome is None:  # the memory is damaged, or another encoding of the same pixels was kept
        outcome = made_by(engine, item.image, to.limits)
        counts["made"] += 1
        if key is not None:
            known.keep(key, outcome)
    for picture in outcome.pictures:
        if to.put_image(picture.stored)[1]:
            known.add_look(picture)
    if key is not None:
        known.use(key, outcome)
    return stored(item, outcome, domain, to)


def _remembered(key: bytes, to: DatasetWriter, known: Known) -> Outcome | None:
    """Gives a known outcome, with the bytes of the pictures that the dataset lacks."""
    outcome = known.get(key)
    if outcome is None:
        return None
    whole = []
    for picture in outcome.pictures:
        if to.pictures.number_of(picture.stored.pixels) is None:
            found = known.fetch(picture)
            if found is None:
                return None
            picture = found
        whole.append(picture)
    return replace(outcome, pictures=tuple(whole))
