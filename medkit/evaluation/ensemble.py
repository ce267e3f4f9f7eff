"""Two files of answers joined into one, as LLaVA joined GPT-4's and its own on ScienceQA.

``complement`` takes the first model's answer, and the second's where the first gave none that can be read.
``judge`` asks a third time where the two differ, and keeps the second's answer where the judge's can't be read.

Source: Liu et al. 2023, Visual Instruction Tuning, section 5.2 and table 7.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medkit.errors import DataError
from medkit.evaluation.replies import Key, claim
from medkit.evaluation.scoring import profile_medkit, scienceqa
from medkit.evaluation.scoring.answer_files import id_of, items_of, read_rows
from medkit.evaluation.scoring.profile import Item
from medkit.store import write_atomically

Row = dict[str, Any]
Reading = Callable[[Item], str]
PARTIAL, REPLIES, IDENTITY = "ensemble.partial.jsonl", "ensemble_replies.jsonl", "ensembling.json"
LONGEST_VERDICT = 256
ASK = (
    "Two people answered this question about a picture that you can't see.\n\n{question}\n\n"
    "The first answered: {first}\nThe second answered: {second}\n\n"
    "Weigh both and give your own final answer. End with one sentence of this form: The answer is A."
)


@dataclass(frozen=True)
class Pair:
    """A question with both models' answers, and the letters that are read from them ("" for none)."""

    benchmark: str
    question: str
    first: Item
    second: Item
    letters: tuple[str, str]


def _scienceqa(item: Item) -> str:
    letter = scienceqa.llava(item.answer)
    return letter if letter in item.choices else ""


def _medkit(item: Item) -> str:
    index = profile_medkit.parse_choice(item)
    return "" if index is None else list(item.choices)[index]


# How a letter is read from a reply: as the paper's numbers were made, or as the profile medkit reads it.
READINGS: dict[str, Reading] = {"scienceqa": _scienceqa, "medkit": _medkit}


def pair_answers(first: Path, second: Path, reading: str = "scienceqa") -> list[Pair]:
    """Gives the questions of two files with both answers, in the second file's order.

    Args:
        first, second: Files of stored answers, or folders with ``answers.jsonl``, to questions with choices.
        reading: A key of ``READINGS``.

    Raises:
        DataError: The files can't be read, hold other questions, or a question without choices.
    """
    if reading not in READINGS:
        raise DataError(f"there is no reading {reading!r}; there are {', '.join(READINGS)}")
    sides = [_by_id(path) for path in (first, second)]
    lost = set(sides[0]) ^ set(sides[1])
    if lost:
        raise DataError(
            f"{first} and {second} hold other questions, for example {' '.join(min(lost))}; "
            "join answers to the same ones"
        )
    pairs = []
    for key, (item, row) in sides[1].items():
        other = sides[0][key][0]
        if not item.choices:
            raise DataError(
                f"{second}: {' '.join(key)} has no choices; only answers to choices can be joined"
            )
        if (item.references, dict(item.choices)) != (other.references, dict(other.choices)):
            raise DataError(
                f"{first} and {second} hold another gold answer or other choices for {' '.join(key)}"
            )
        letters = ["" if one.failed else READINGS[reading](one) for one in (other, item)]
        pairs.append(Pair(key[0], _question(row, item), other, item, (letters[0], letters[1])))
    return pairs


def complement(pairs: Sequence[Pair]) -> list[Row]:
    """Gives the first model's answers, the second's where the first's can't be read."""
    return [
        _row(pair, *(("first", pair.first) if pair.letters[0] else ("second", pair.second))) for pair in pairs
    ]


def disagreements(pairs: Sequence[Pair]) -> list[tuple[Pair, str]]:
    """Gives the questions whose letters differ, one that can't be read included, with what a judge is asked."""
    return [
        (
            pair,
            ASK.format(
                question=pair.question,
                first=pair.first.answer.strip() or "(nothing)",
                second=pair.second.answer.strip() or "(nothing)",
            ),
        )
        for pair in pairs
        if pair.letters[0] != pair.letters[1]
    ]


def judged(
    pairs: Sequence[Pair], verdicts: dict[tuple[str, str], str], reading: str = "scienceqa"
) -> list[Row]:
    """Gives the answer of both where they agree, else the judge's, else the second model's.

    Args:
        pairs: The questions.
        verdicts: (benchmark, id) to the judge's reply, for those that ``disagreements`` gives.
        reading: How a letter is read from a verdict.
    """
    rows = []
    for pair in pairs:
        if pair.letters[0] == pair.letters[1]:
            rows.append(_row(pair, "both", pair.second))
            continue
        said = verdicts.get((pair.benchmark, pair.second.id), "")
        told = Item(said, pair.second.references, "choice", choices=pair.second.choices)
        by_judge = bool(said.strip()) and bool(READINGS[reading](told))
        rows.append(_row(pair, *(("judge", told) if by_judge else ("second", pair.second))))
    return rows


def write_ensemble(
    first: Path, second: Path, out: Path, *, endpoint: Any = None, reading: str = "scienceqa"
) -> dict[str, Any]:
    """Joins two files of answers and writes ``answers.jsonl`` and ``ensemble.json``.

    Args:
        first, second: See ``pair_answers``.
        out: Folder of this ensemble and no other; a killed one goes on there.
        endpoint: The judge, an ``EndpointCard``; None makes the complement.
        reading: See ``pair_answers``.

    Returns:
        The content of ``ensemble.json``: ``{kind, reading, questions, from: {source: count}, unread, judge}``.

    Raises:
        DataError: The answers can't be joined.
        MedkitError: ``out`` holds another ensemble, or the endpoint can't be asked.
    """
    pairs = pair_answers(first, second, reading)
    said = json.dumps(
        [[pair.benchmark, pair.second.id, pair.first.answer, pair.second.answer] for pair in pairs]
    )
    about = {"answers": hashlib.sha256(said.encode()).hexdigest(), "reading": reading}
    if endpoint is None:
        claim(out, {**about, "judge": None}, IDENTITY)
        rows, judge = complement(pairs), None
    else:
        from medkit.evaluation.endpoint import Request, about_endpoint, ask_all
        from medkit.evaluation.endpoint_card import MANNERS

        claim(out, {**about, "judge": endpoint.model_dump(exclude=set(MANNERS))}, IDENTITY)
        if (out / REPLIES).exists() and not (out / PARTIAL).exists():
            (out / REPLIES).replace(out / PARTIAL)
        requests = [
            Request((pair.benchmark, "judge", pair.second.id), text, _sent(text), LONGEST_VERDICT)
            for pair, text in disagreements(pairs)
        ]
        replies = ask_all(endpoint, requests, out / PARTIAL, title="judging")
        rows, judge = (
            judged(pairs, _verdicts(replies), reading),
            about_endpoint(endpoint, list(replies.values())),
        )
        (out / PARTIAL).replace(out / REPLIES)
    found = {
        "kind": "complement" if endpoint is None else "judge",
        "reading": reading,
        "questions": len(rows),
        "from": dict(sorted(Counter(row["from"] for row in rows).items())),
        "unread": {"first": _unread(pairs, 0), "second": _unread(pairs, 1)},
        "judge": judge,
    }
    write_atomically(
        out / "answers.jsonl", "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    )
    write_atomically(out / "ensemble.json", json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    return found


def _sent(text: str) -> Callable[[], list[dict[str, Any]]]:
    return lambda: [{"role": "user", "content": text}]


def _verdicts(replies: dict[Key, Row]) -> dict[tuple[str, str], str]:
    # A verdict that was cut may end before its last sentence: what is read then is not what was meant.
    return {
        (benchmark, name): reply["answer"]
        for (benchmark, _, name), reply in replies.items()
        if "failed" not in reply and not reply["truncated"]
    }


def _unread(pairs: Sequence[Pair], side: int) -> int:
    return sum(not pair.letters[side] for pair in pairs)


def _by_id(path: Path) -> dict[tuple[str, str], tuple[Item, Row]]:
    path = path / "answers.jsonl" if path.is_dir() else path
    rows = [row for row in read_rows(path) if row.get("control", "none") == "none"]
    found: dict[tuple[str, str], tuple[Item, Row]] = {}
    known = {(str(row.get("benchmark", "answers")), id_of(row)): row for row in rows}
    for benchmark, items in items_of(rows, str(path)).items():
        for item in items:
            key = (benchmark, item.id)
            if not item.id or key in found:
                raise DataError(f"{path}: {f'{item.id} comes twice' if item.id else 'a row has no id'}")
            found[key] = item, known[key]
    return found


def _question(row: Row, item: Item) -> str:
    text = str(row.get("question") or row.get("prompt") or "")
    if all(choice in text for choice in item.choices.values()):
        return text
    return "\n".join([text, *(f"{letter}. {choice}" for letter, choice in item.choices.items())])


def _row(pair: Pair, source: str, taken: Item) -> Row:
    item = pair.second
    return {
        "benchmark": pair.benchmark,
        "control": "none",
        "id": item.id,
        "image": item.image,
        "group": item.group,
        "kind": item.category,
        "answer_type": item.answer_type,
        "question": pair.question,
        "references": [item.choices.get(item.gold, item.gold)],
        "choices": list(item.choices.values()),
        "answer": taken.answer,
        "truncated": taken.truncated,
        "from": source,
        **({"failed": taken.failed} if taken.failed else {}),
    }
