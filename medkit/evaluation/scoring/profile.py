"""What a profile is: named scores with their definitions, and the stored answer that they look at."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

ANSWER_TYPES: tuple[str, ...] = ("yes_no", "number", "choice", "open", "report")


@dataclass(frozen=True)
class Item:
    """A stored answer with what is known of its question.

    Attributes:
        answer: The model's reply, as it came.
        references: Gold answers, at least one, any of which is right. Of a choice its letter.
        answer_type: One of ``ANSWER_TYPES``.
        closed: Whether the question is annotated as closed (LLaVA-Med's CLOSED), whatever its answer.
        choices: Letter to text of the options, empty where there are none.
        group: What questions are clustered by: patient, image, or the question itself.
        category: Subtask (MME, POPE), or "".
        image: What the question is about, or "".
        truncated: Whether the reply was cut at its limit.
        id: The question's, or "" where a file has none.
        failed: Why there is no reply, else "". Such an item has no score.
        labelled: What the user's own labeller said: its name (``chexbert``, ``radgraph``) to that of the reply
            and that of the reference.
    """

    answer: str
    references: tuple[str, ...]
    answer_type: str = "open"
    closed: bool = False
    choices: Mapping[str, str] = field(default_factory=dict)
    group: str = ""
    category: str = ""
    image: str = ""
    truncated: bool = False
    id: str = ""
    failed: str = ""
    labelled: Mapping[str, tuple[Any, Any]] = field(default_factory=dict)

    @property
    def gold(self) -> str:
        """The first reference, the only one that most references look at."""
        return self.references[0]


@dataclass(frozen=True)
class Mark:
    """What a score gives an answer.

    Attributes:
        value: 0..1.
        why: "" or why the value is no plain decision: ``unparsed`` (nothing was found in the reply, and it
            counts as the value), ``random`` (the reference would draw an option), ``refused``, ``failed``
            (the reference stops with an error).
    """

    value: float
    why: str = ""


Given = Mark | float | None


@dataclass(frozen=True)
class Score:
    """One score of a profile.

    Attributes:
        name: Its name within the profile.
        definition: What it counts, in a sentence.
        function: Item to 0..1, None where the score does not apply.
    """

    name: str
    definition: str
    function: Callable[[Item], Given]

    def mark(self, item: Item) -> Mark | None:
        """Gives the item's mark, None where the score does not apply."""
        given = self.function(item)
        return given if isinstance(given, Mark) or given is None else Mark(float(given))


@dataclass(frozen=True)
class Sums:
    """A number of a set that is a function of what its items add up to, so that groups can be resampled.

    Attributes:
        rows: float, [N, K]: what each item adds.
        function: Sums, float [R, K], to the number, [R].
    """

    rows: np.ndarray
    function: Callable[[np.ndarray], np.ndarray]


def value_of(given: float | Sums) -> float:
    """Gives the number of the whole set."""
    return float(given.function(given.rows.sum(0)[None])[0]) if isinstance(given, Sums) else float(given)


def mean_of(values: Sequence[float]) -> Sums:
    """Gives the mean of a value that every item of a set has."""
    rows = np.stack([np.asarray(values, dtype=np.float64), np.ones(len(values))], axis=1)
    return Sums(rows, lambda sums: sums[:, 0] / sums[:, 1])


@dataclass(frozen=True)
class CorpusScores:
    """Numbers that exist for a set of answers only (F1, BLEU, CIDEr).

    Attributes:
        definition: What they count, in a sentence.
        applies: Whether an item belongs to the set.
        function: The set's items to numbers by name; not on the scale 0..1 in every case. Numbers that are
            ``Sums`` get intervals.
    """

    definition: str
    applies: Callable[[Item], bool]
    function: Callable[[Sequence[Item]], Mapping[str, float | Sums]]


@dataclass(frozen=True)
class Profile:
    """A tool's definitions under a name and a version; a number travels with both.

    Attributes:
        name: As ``--profile`` takes it.
        version: Raised whenever any score would give another number for the same answers.
        title: What it follows.
        scores: The scores of single answers.
        corpus: The scores of sets.
    """

    name: str
    version: int
    title: str
    scores: tuple[Score, ...]
    corpus: tuple[CorpusScores, ...] = ()


def when(applies: Callable[[Item], bool], function: Callable[[Item], Given]) -> Callable[[Item], Given]:
    """Gives a score's function that is None for items to which it does not apply."""
    return lambda item: function(item) if applies(item) else None


def is_closed(item: Item) -> bool:
    return item.closed


def is_open(item: Item) -> bool:
    return not item.closed and item.answer_type != "report"


def is_yes_no(item: Item) -> bool:
    return item.answer_type == "yes_no"


def is_choice(item: Item) -> bool:
    return bool(item.choices) and item.gold in item.choices


def is_short(item: Item) -> bool:
    return item.answer_type in ("open", "number") and not item.choices


def is_report(item: Item) -> bool:
    return item.answer_type == "report"


def has_annotators(item: Item) -> bool:
    return len(item.references) > 1 and not item.choices and item.answer_type != "report"
