"""Leaks: test images and questions that the training data has too, counted before anyone believes a score."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from medkit.evaluation.scorers import normalise
from medkit.sample import Sample, text_of
from medkit.store import Dataset

HASH_BITS = 4  # dHash distance, of 64 bits, up to which two images are candidates
GREY_LEVELS = 6.0  # mean absolute difference of the 16x16 thumbnails, of 255, that confirms a candidate
EXAMPLES = 20


def count_leaks(dataset: Dataset) -> dict[str, Any]:
    """Counts what the train split shares with the test questions.

    ``images`` are test images of which the train split has the same stored bytes; ``near_duplicate_images``
    further ones with a train image that looks the same (difference hash within 4 of 64 bits, confirmed on a
    thumbnail, since plain images such as phantoms collide by hash alone); ``questions`` are test questions
    whose image or near duplicate comes with the same question text in the train split; ``question_texts`` are
    test questions whose text alone occurs there, which for questions made from templates is no leak.

    Args:
        dataset: Dataset folder with train samples and test questions.

    Returns:
        The four counts, ``test_images``, ``test_questions``, ``train_images`` and up to 20 ``examples``
        ``[test reference, train reference]``.
    """
    train: dict[str, set[str]] = {}
    for index in dataset.select(splits=["train"]):
        _collect(dataset[index], train)
    tests = [dataset[index] for index in dataset.select(["question"], ["test"])]
    test_refs = list(dict.fromkeys(ref for sample in tests for ref in sample.images))
    train_refs = list(train)
    exact = {ref for ref in test_refs if ref in train}
    rest = [ref for ref in test_refs if ref not in exact]
    near = near_duplicates(dataset, rest, train_refs)
    texts = set().union(*train.values()) if train else set()
    asked = [(sample.images, _asked(sample)) for sample in tests]
    return {
        "images": len(exact),
        "near_duplicate_images": len(near),
        "questions": sum(
            any(text & train.get(ref if ref in exact else near.get(ref, ""), set()) for ref in refs)
            for refs, text in asked
        ),
        "question_texts": sum(bool(text & texts) for _, text in asked),
        "test_images": len(test_refs),
        "test_questions": len(tests),
        "train_images": len(train_refs),
        "examples": ([[ref, ref] for ref in sorted(exact)] + [[a, b] for a, b in sorted(near.items())])[
            :EXAMPLES
        ],
    }


def near_duplicates(dataset: Dataset, refs: Sequence[str], others: Sequence[str]) -> dict[str, str]:
    """Finds for each image one of ``others`` that looks the same, if there is one.

    Args:
        dataset: Where the images are.
        refs: References to look for.
        others: References to look among.

    Returns:
        Reference to the most similar other's reference, only for those with one.

    Source: dHash as in Buchner's imagehash (Krawetz 2013, "Kind of Like That"), 8x8 bits.
    """
    return match_fingerprints([(ref, dataset) for ref in refs], [(ref, dataset) for ref in others])


def match_fingerprints(
    pictures: Sequence[tuple[str, Dataset]], among: Sequence[tuple[str, Dataset]]
) -> dict[str, str]:
    """Does what `near_duplicates` says for pictures of several datasets: (reference, where it is)."""
    if not pictures or not among:
        return {}
    refs, others = [ref for ref, _ in pictures], [ref for ref, _ in among]
    hashes, thumbnails = _fingerprints(pictures)
    other_hashes, other_thumbnails = _fingerprints(among)
    found = {}
    rows = max(1, 8_000_000 // len(others))
    for start in range(0, len(refs), rows):
        distance = np.bitwise_count(hashes[start : start + rows, None] ^ other_hashes[None])  # [rows, others]
        for row in np.flatnonzero((distance <= HASH_BITS).any(1)).tolist():
            candidates = np.flatnonzero(distance[row] <= HASH_BITS)
            gap = np.abs(other_thumbnails[candidates] - thumbnails[start + row]).mean(1)
            if gap.min() <= GREY_LEVELS:
                found[refs[start + row]] = others[int(candidates[gap.argmin()])]
    return found


def _collect(sample: Sample, train: dict[str, set[str]]) -> None:
    asked = _asked(sample)
    for ref in sample.images:
        train.setdefault(ref, set()).update(asked)


def _asked(sample: Sample) -> set[str]:
    texts = (normalise(text_of(message)) for message in sample.messages if message["role"] == "user")
    return {text for text in texts if text}


def _fingerprints(pictures: Sequence[tuple[str, Dataset]]) -> tuple[np.ndarray, np.ndarray]:
    import imagehash

    hashes = np.empty(len(pictures), dtype=np.uint64)
    thumbnails = np.empty((len(pictures), 256), dtype=np.int16)
    for index, (ref, dataset) in enumerate(pictures):
        grey = dataset.image(ref).convert("L")
        hashes[index] = np.packbits(imagehash.dhash(grey).hash.ravel()).view(">u8")[0]
        thumbnails[index] = np.asarray(grey.resize((16, 16), Image.Resampling.BOX), dtype=np.int16).ravel()
    return hashes, thumbnails
