"""The questions of a benchmark, read from a dataset folder; and the same questions under each control."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from medkit.errors import DataError
from medkit.evaluation.controls import shuffled_images
from medkit.evaluation.corruptions import Corruption
from medkit.sample import Sample, text_of
from medkit.store import Dataset, open_dataset

CONTROLS: tuple[str, ...] = ("none", "blank", "shuffled", "noise", "text")
# What a slice is called, and where the readers put it: a fact of the image, or one of its labels.
IMAGE_SLICES = {"modality": ("modality",), "organ": ("organ", "body_part", "region", "anatomy")}


@dataclass(frozen=True)
class Question:
    """One question as it is asked: a benchmark's row under one control.

    Attributes:
        benchmark: Name of the benchmark's card.
        control: ``none``; ``blank`` (each image replaced by one colour), ``noise`` (by noise), ``shuffled``
            (by another group's), ``text`` (no image at all); or a corruption, ``blur:3``.
        id: Id of the sample in its dataset; unique within a benchmark.
        group: What questions are clustered by: a patient or a source image.
        kind: Kind of question, the slice it is reported in ("count", "position").
        answer_type: ``yes_no``, ``number``, ``choice`` or ``open``.
        messages: The turns before the answer, images as parts.
        images: References of the images to show, in the order of their parts; under ``shuffled`` already
            another group's.
        references: Gold answers, any of which is right.
        choices: Options of a multiple-choice question, else empty.
        slices: What is known of its image (``modality``, ``organ``), by which it is reported.
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
    slices: dict[str, str] = field(default_factory=dict, repr=False)
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
    found = [dataset[index] for index in dataset.select(["question"], [split])]
    known = _known_of(dataset, split, {ref for sample in found for ref in sample.images})
    questions = [_question(sample, benchmark, known) for sample in found]
    if not questions:
        raise DataError(
            f"benchmark {benchmark}: {dataset.folder} has no question in its {split} split; "
            f"give the domain data for that split, or a teacher card that asks questions"
        )
    return limited(questions, limit)


def with_controls(
    questions: Sequence[Question],
    controls: Iterable[str],
    seed: int = 0,
    corruptions: Iterable[Corruption] = (),
) -> list[Question]:
    """Gives the questions themselves and again under each control and with each corruption of their images.

    Questions without an image have no control, nor has ``shuffled`` where no other image exists: there the
    answers would be those of ``none`` and look like a finding.

    Args:
        questions: Questions of one benchmark with control ``none``.
        controls: Any of ``CONTROLS``.
        seed: Seed of the shuffle.
        corruptions: What is done to the pictures, each by itself.
    """
    asked = list(questions)
    with_images = [question for question in questions if question.images]
    wanted = list(dict.fromkeys(controls))
    if "blank" in wanted:
        asked += [replace(question, control="blank") for question in with_images]
    if "noise" in wanted:
        asked += [replace(question, control="noise") for question in with_images]
    if "text" in wanted:
        asked += [
            replace(question, control="text", images=[], messages=_without_images(question.messages))
            for question in with_images
        ]
    if "shuffled" in wanted:
        groups = [question.group for question in with_images]
        others = shuffled_images(groups, [question.images for question in with_images], seed)
        asked += [
            replace(question, control="shuffled", images=images)
            for question, images in zip(with_images, others or [], strict=False)
        ]
    for corruption in dict.fromkeys(corruptions):
        asked += [replace(question, control=corruption.control) for question in with_images]
    return asked


def _without_images(messages: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {**turn, "content": [part for part in turn["content"] if part["type"] != "image"]}
        for turn in messages
    ]


def _known_of(dataset: Dataset, split: str, refs: set[str]) -> dict[str, dict[str, str]]:
    """Gives what a split's samples of these images, here or where the images come from, say of them."""
    known: dict[str, dict[str, str]] = {ref: {} for ref in refs}
    folders = [dataset.folder / other for other in dataset.summary.get("images_from", [])]
    for part in [dataset, *(open_dataset(folder) for folder in folders)]:
        for index in part.select(splits=[split]):
            sample = part[index]
            if len(sample.images) == 1 and sample.images[0] in known:
                known[sample.images[0]] = _slices(sample.facts) | known[sample.images[0]]
    return known


def _slices(facts: dict[str, Any]) -> dict[str, str]:
    labels = facts.get("labels")
    told = {
        **(labels if isinstance(labels, dict) else {}),
        **{name: facts[name] for name in IMAGE_SLICES if facts.get(name)},
    }
    found = {}
    for name, places in IMAGE_SLICES.items():
        value = next((told[place] for place in places if told.get(place)), None)
        if isinstance(value, str):
            found[name] = value.strip().lower()
    return found


def _question(sample: Sample, benchmark: str, known: dict[str, dict[str, str]]) -> Question:
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
        slices={**(known[sample.images[0]] if len(sample.images) == 1 else {}), **_slices(sample.facts)},
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
