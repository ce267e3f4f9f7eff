"""POPE of any dataset with findings or boxes: is it there? Asked about what is, and as often about what isn't.

Source: Li et al., 2023, "Evaluating Object Hallucination in Large Vision-Language Models" (random, popular and
adversarial negatives).
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from medkit.errors import DataError
from medkit.evaluation.questions import Question
from medkit.sample import Sample, user_turn
from medkit.store import Dataset

STRATEGIES = ("random", "popular", "adversarial")
MOST_EACH = 3


def pope_questions(
    dataset: Dataset, benchmark: str, split: str = "test", of: str = "label", seed: int = 0
) -> list[Question]:
    """Makes yes/no questions about what annotations say is there, and about what they say is not.

    Every image has up to three questions whose answer is yes, and for each strategy as many whose answer is
    no: ``random`` draws them from all that images of the same modality have, ``popular`` takes the most
    frequent, ``adversarial`` those that most often come together with what is there. Frequencies are those of
    the split. The positives are asked again under each strategy, so that each is balanced by itself.

    Images whose boxes are known to be incomplete give positives' negatives no ground, so they are left out, as
    are labels in ``facts["incomplete"]``. An image without any of the things gives no question.

    Args:
        dataset: An ingested dataset folder: its samples have ``facts``.
        benchmark: Name that the questions carry.
        split: ``test``, ``valid`` or ``train``.
        of: ``label`` for boxed objects, else the name of an image label.
        seed: Of the order among equals.

    Raises:
        DataError: The split has no image with such annotations, or all have the same.
    """
    images = _annotated(dataset, split, of)
    scopes: dict[str, dict[str, set[str]]] = defaultdict(dict)
    for ref, (_, present, scope) in images.items():
        scopes[scope][ref] = present
    questions: list[Question] = []
    for scope, members in scopes.items():
        frequency = Counter(name for present in members.values() for name in present)
        together: dict[str, Counter[str]] = defaultdict(Counter)
        for present in members.values():
            for name in present:
                together[name].update(present - {name})
        for ref, present in members.items():
            sample = images[ref][0]
            barred = set(sample.facts.get("incomplete", []))
            absent = sorted(set(frequency) - present - barred)
            there = _shuffled(sorted(present - barred), f"{seed}:{ref}:there")[:MOST_EACH]
            if not there or not absent:
                continue
            order = _shuffled(absent, f"{seed}:{ref}:{scope}")
            chosen = {
                "random": order,
                "popular": sorted(order, key=lambda name: -frequency[name]),
                "adversarial": sorted(order, key=lambda name: -sum(together[one][name] for one in present)),
            }
            for strategy in STRATEGIES:
                missing = chosen[strategy][: len(there)]
                # As many of each, also where few things are absent.
                for answer, names in (("yes", there[: len(missing)]), ("no", missing)):
                    for name in names:
                        questions.append(_question(benchmark, strategy, sample, ref, name, answer))
    if not questions:
        raise DataError(
            f"benchmark {benchmark}: the {split} split of {dataset.folder} has no complete annotations of "
            f"{of!r} with something that other images have and an image lacks"
        )
    return questions


def wording(name: str) -> str:
    """Gives the question about a thing: POPE's own words, with the article that the name takes."""
    article = "an" if name[:1].lower() in "aeiou" else "a"
    return f"Is there {article} {name} in the image?"


def _annotated(dataset: Dataset, split: str, of: str) -> dict[str, tuple[Sample, set[str], str]]:
    """Gives the annotated images of a split: reference to (sample, what is there, its modality)."""
    found: dict[str, tuple[Sample, set[str], str]] = {}
    for index in dataset.select(splits=[split]):
        sample = dataset[index]
        if len(sample.images) != 1:
            continue
        present = _present(sample.facts, of)
        if present is None:
            continue
        ref = sample.images[0]
        if ref in found:
            present |= found[ref][1]
        found[ref] = (sample, present, str(sample.facts.get("modality", "")))
    return found


def _present(facts: Mapping[str, Any], of: str) -> set[str] | None:
    """Gives what an image has, None where its annotations can't say what it lacks."""
    if of != "label":
        value = facts.get("labels", {}).get(of)
        return (
            None
            if value in (None, "")
            else {str(one) for one in (value if isinstance(value, list) else [value])}
        )
    if facts.get("complete") is not True or "objects" not in facts:
        return None
    return {str(item["label"]) for item in facts["objects"]}


def _question(benchmark: str, strategy: str, sample: Sample, ref: str, name: str, answer: str) -> Question:
    return Question(
        benchmark=benchmark,
        control="none",
        id=f"{sample.id}:{strategy}:{name}",
        group=sample.group,
        kind=strategy,
        answer_type="yes_no",
        messages=[user_turn(wording(name), images=1)],
        images=[ref],
        references=[answer],
    )


def _shuffled(names: Sequence[str], key: str) -> list[str]:
    return sorted(names, key=lambda name: hashlib.sha256(f"{key}:{name}".encode()).digest())
