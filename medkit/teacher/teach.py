"""The teach step: reads records with facts, writes captions, conversations and evaluation questions."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from medkit.cards.faults import validate
from medkit.cards.strict_yaml import Document
from medkit.errors import CardError, DataError
from medkit.sample import Sample, text_of
from medkit.store import Dataset, DatasetWriter, open_dataset
from medkit.teacher.card import TeacherCard
from medkit.teacher.rules import conversations, questions

Turn = tuple[str, int]  # (sample id, number of the question in it)


def teach(settings: dict[str, Any], inputs: dict[str, Path], out: Path) -> dict[str, Any]:
    """Makes the text of a dataset.

    Records of ``train`` and ``valid`` become captions, descriptions, conversations and reasoning; records of
    ``valid`` and ``test`` become evaluation questions. Samples that have text pass through. Yes and no are
    exactly equally frequent in every (split, question kind), among the questions and, apart from them, among
    the turns of the conversations: what is surplus is left out, chosen by a hash.

    Args:
        settings: ``teacher`` (the teacher card as a mapping), ``conversations_per_image``, ``apart``,
            ``questions_per_image``, ``seed``.
        inputs: ``ingest``: the dataset folder with the records.
        out: Where the dataset folder goes; it takes its images from ``ingest``.

    Returns:
        ``records``, ``samples``, ``kinds``, ``splits``, ``balance`` ({"split/use/kind": number of yes = of no}),
        ``dropped_for_balance`` (questions), ``without_text`` (records that gave nothing; they are in the ledger).

    Raises:
        CardError: The teacher card breaks its schema.
        DataError: No sample could be made.
    """
    card = _card(settings["teacher"])
    source = open_dataset(inputs["ingest"])
    surplus, balance = _surplus(source, card, settings)
    records, without_text = 0, 0
    with DatasetWriter(
        out, name=f"{source.summary.get('name', 'data')}-taught", images_from=[inputs["ingest"]]
    ) as to:
        for record, made in _made(source, card, settings):
            records += 1
            kept = [left for sample in made if (left := _without(sample, surplus)) is not None]
            for sample in kept:
                to.add(sample)
            if not kept:
                without_text += 1
                reason = "only questions of the surplus answer" if made else "no text follows from its facts"
                to.reject(str(record.source.get("record", record.id)), reason)
        to.note("balance", balance)
        to.note("prompt_version", card.version)
    if not to.summary["samples"]:
        raise DataError(
            f"teacher card {card.version} made nothing of {records} records; compare the labels and attributes in "
            "the records' facts with those of the card"
        )
    return {
        "records": records,
        "samples": to.summary["samples"],
        "kinds": to.summary["kinds"],
        "splits": to.summary["splits"],
        "balance": balance,
        "dropped_for_balance": len(surplus),
        "without_text": without_text,
        "prompt_version": card.version,
        "derived_from": card.derived_from,
    }


def _card(teacher: dict[str, Any]) -> TeacherCard:
    card, problems = validate(TeacherCard, Document("teacher card", teacher))
    if card is None:
        raise CardError(problems)
    return card


def _made(
    source: Dataset, card: TeacherCard, settings: dict[str, Any]
) -> Iterator[tuple[Sample, list[Sample]]]:
    """Gives each input with what is made of it; pure, so that it can be walked twice instead of kept."""
    seed = int(settings.get("seed", 0))
    for record in source:
        if record.messages:
            yield record, [record]
            continue
        made: list[Sample] = []
        if record.split != "test":
            number = int(settings.get("conversations_per_image", 1))
            apart = bool(settings.get("apart", False))
            made += conversations(record, card, seed, conversations_per_image=number, apart=apart)
        if record.split != "train":
            made += questions(record, card, seed, count=int(settings.get("questions_per_image", 4)))
        yield record, made


def _surplus(
    source: Dataset, card: TeacherCard, settings: dict[str, Any]
) -> tuple[set[Turn], dict[str, int]]:
    """Chooses the yes/no questions to leave out, and counts the pairs that stay."""
    asked: dict[str, dict[str, list[Turn]]] = defaultdict(lambda: {"yes": [], "no": []})
    for record, made in _made(source, card, settings):
        for sample in made if not record.messages else []:
            for number, turn in enumerate(_turns(sample)):
                if turn["answer_type"] == "yes_no":
                    key = f"{sample.split}/{sample.kind}/{turn['kind']}"
                    asked[key][text_of(sample.messages[2 * number + 1])].append((sample.id, number))
    surplus: set[Turn] = set()
    balance: dict[str, int] = {}
    for key, answers in sorted(asked.items()):
        balance[key] = min(len(answers["yes"]), len(answers["no"]))
        for turns in answers.values():
            surplus.update(sorted(turns, key=_order)[balance[key] :])
    return surplus, balance


def _order(turn: Turn) -> bytes:
    return hashlib.sha256(f"{turn[0]}/{turn[1]}".encode()).digest()


def _turns(sample: Sample) -> list[dict[str, Any]]:
    question = sample.facts.get("question")
    return [question] if question else sample.facts.get("turns", [])


def _without(sample: Sample, surplus: set[Turn]) -> Sample | None:
    """Gives the sample without its surplus turns, None when none is left."""
    turns = _turns(sample)
    if not any((sample.id, number) in surplus for number in range(len(turns))):
        return sample
    stay = [number for number in range(len(turns)) if (sample.id, number) not in surplus]
    if not stay:
        return None
    messages = [message for number in stay for message in sample.messages[2 * number : 2 * number + 2]]
    if stay[0] != 0:
        # The images stand in the first user turn; they move on with it.
        pictures = [part for part in sample.messages[0]["content"] if part["type"] == "image"]
        messages[0] = {**messages[0], "content": [*pictures, *messages[0]["content"]]}
    return replace(
        sample, messages=messages, facts=sample.facts | {"turns": [turns[number] for number in stay]}
    )
