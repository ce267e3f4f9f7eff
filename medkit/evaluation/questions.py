"""The questions of a benchmark, read from a dataset folder; and the same questions under each control."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from medkit.errors import DataError
from medkit.evaluation.controls import shuffled_images
from medkit.sample import Sample, text_of
from medkit.store import Dataset

CONTROLS: tuple[str, ...] = ("none", "blank", "shuffled")


@dataclass(frozen=True)
class Question:
    """One question as it is asked: a benchmark's row under one control.

    Attributes:
        benchmark: Name of the benchmark's card.
        control: ``none``, ``blank`` (each image replaced by one colour) or ``shuffled`` (another group's
        image).
        id: Id of the sample in its dataset; unique within a benchmark.
        group: What questions are clustered by: a patient or a source image.
        kind: Kind of question, the slice it is reported in ("count", "position").
        answer_type: ``yes_no``, ``number``, ``choice`` or ``open``.
        messages: The turns before the answer, images as parts.
        images: References of the images to show, in the order of their parts; under ``shuffled`` already
            another group's.
        references: Gold answers, any of which is right.
        choices: Options of a multiple-choice question, else empty.
        context: What is known of the image, for a judge; the model does not see it.
    """

    benchmark: str
    control: str
    id: str
    group: str
    kind: str
    answer_type: str
    messages: list[dict[str, Any]] = field(repr=False)
    images: list[str] = field(repr=False)
    references: list[str]
    choices: list[str] = field(default_factory=list)
    context: str = ""

    @property
    def key(self) -> tuple[str, str, str]:
        """Identity of the question within an evaluation."""
        return self.benchmark, self.control, self.id

    @property
    def text(self) -> str:
        """The last user turn's text."""
        return text_of(self.messages[-1]).strip()


def read_questions(
    dataset: Dataset, benchmark: str, split: str = "test", limit: int | None = None
) -> list[Question]:
    """Reads a split's question samples in their stored order.

    Args:
        dataset: The folder with ``question`` samples.
        benchmark: Name that the questions carry.
        split: ``test``, ``valid`` or ``train``.
        limit: Ask at most this many: whole groups in the order of their hash, so that the choice depends on
            neither the order of the data nor a seed, and images keep all of their questions.

    Raises:
        DataError: The split holds no question.
    """
    questions = [_question(dataset[index], benchmark) for index in dataset.select(["question"], [split])]
    if not questions:
        raise DataError(
            f"benchmark {benchmark}: {dataset.folder} has no question in its {split} split; "
            f"give the domain data for that split, or a teacher card that asks questions"
        )
    return limited(questions, limit)


def with_controls(questions: Sequence[Question], controls: Iterable[str], seed: int = 0) -> list[Question]:
    """Gives the questions themselves and again under each control.

    Questions without an image have no control, nor has ``shuffled`` where no other image exists: there the
    answers would be those of ``none`` and look like a finding.

    Args:
        questions: Questions of one benchmark with control ``none``.
        controls: Any of ``blank`` and ``shuffled``.
        seed: Seed of the shuffle.
    """
    asked = list(questions)
    with_images = [question for question in questions if question.images]
    wanted = list(dict.fromkeys(controls))
    if "blank" in wanted:
        asked += [replace(question, control="blank") for question in with_images]
    if "shuffled" in wanted:
        groups = [question.group for question in with_images]
        others = shuffled_images(groups, [question.images for question in with_images], seed)
        asked += [
            replace(question, control="shuffled", images=images)
            for question, images in zip(with_images, others or [], strict=False)
        ]
    return asked


def _question(sample: Sample, benchmark: str) -> Question:
    asked = sample.facts.get("question", {})
    turns = sample.messages
    gold = text_of(turns[-1]).strip() if turns and turns[-1]["role"] == "assistant" else ""
    return Question(
        benchmark=benchmark,
        control="none",
        id=sample.id,
        group=sample.group,
        kind=str(asked.get("kind", "question")),
        answer_type=str(asked.get("answer_type", "open")),
        messages=turns[:-1] if gold else turns,
        images=list(sample.images),
        references=[str(reference) for reference in asked.get("references") or [gold]],
        choices=[str(option) for option in asked.get("choices") or []],
        context=str(asked.get("context", "")),
    )


def limited(questions: list[Question], limit: int | None) -> list[Question]:
    """Gives at most so many questions: whole groups in the order of their hash."""
    if limit is None or len(questions) <= limit:
        return questions

    def rank(index: int) -> tuple[bytes, int]:
        return hashlib.sha256(questions[index].group.encode()).digest(), index

    kept = sorted(range(len(questions)), key=rank)[:limit]
    return [questions[index] for index in sorted(kept)]
