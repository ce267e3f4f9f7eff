"""Samples of the same picture in one sequence: the picture is read once, and no sample sees another.

A packed sequence is the samples' common beginning, which holds the picture, followed by what remains of each.
Every remainder has the positions that it would have alone and attends to the beginning and to itself only, so
the loss is that of the samples one by one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch

from ..errors import TrainingError
from ..sample import Sample
from .encode import IGNORE, Encoded

# Families whose language model takes a mask of its own and plain positions, shown by a test for each.
FAMILIES = ("llava", "llava_next", "idefics3")
ATTENTION = ("eager", "sdpa")


def single_turns(sample: Sample) -> Iterator[Sample]:
    """Gives every question of a conversation with its answer as a sample that has all the pictures."""
    pictures = [{"type": "image"}] * len(sample.images)
    for number in range(0, len(sample.messages) - 1, 2):
        asked, answered = sample.messages[number : number + 2]
        words = [part for part in asked["content"] if part["type"] != "image"]
        messages = [{**asked, "content": [*pictures, *words]}, answered]
        yield replace(sample, id=f"{sample.id}-{number // 2}", messages=messages)


def takes_turns(sample: Sample) -> bool:
    """Says whether a sample is nothing but questions with their answers, the pictures before the first."""
    roles = [message["role"] for message in sample.messages]
    later = [part for message in sample.messages[1:] for part in message["content"]]
    alternate = roles == ["user", "assistant"] * (len(roles) // 2)
    return bool(roles) and alternate and all(part["type"] != "image" for part in later)


def refuse_unpackable(model_type: str, attention: str) -> None:
    """Raises ``TrainingError`` for a family or an attention kernel that can't keep packed samples apart."""
    if model_type not in FAMILIES:
        raise TrainingError(f"pack: true works for {', '.join(FAMILIES)}, not for {model_type}; leave it out")
    if attention not in ATTENTION:
        raise TrainingError(f"pack: true needs {' or '.join(ATTENTION)} attention, not {attention}")


def pack(samples: list[Encoded], image_token: int, max_tokens: int) -> list[tuple[Encoded, list[int]]]:
    """Packs encoded samples of the same pictures.

    Args:
        samples: Encoded one by one.
        image_token: Id of the placeholder tokens; all of them must lie in the common beginning.
        max_tokens: Longest packed sequence.

    Returns:
        Sequences, each with the numbers of the samples in it. A sample that shares no beginning with the one
        before it stands alone.
    """
    packed: list[tuple[Encoded, list[int]]] = []
    numbers: list[int] = []
    shared = 0
    for number, one in enumerate(samples):
        if numbers:
            common = min(shared, _common(samples[numbers[0]], one))
            longer = sum(len(samples[other].ids) - common for other in [*numbers, number]) + common
            pictures_shared = not (one.ids[common:] == image_token).any()
            if pictures_shared and common > 0 and longer <= max_tokens:
                numbers, shared = [*numbers, number], common
                continue
            packed.append((_join([samples[other] for other in numbers], shared), numbers))
        numbers, shared = [number], _before_answers(one)
    if numbers:
        packed.append((_join([samples[other] for other in numbers], shared), numbers))
    return packed


def packed_mask(segments: torch.Tensor, dtype: torch.dtype, boolean: bool) -> torch.Tensor:
    """Makes the mask of packed sequences.

    Args:
        segments: int [B, T]: 0 for the common beginning, 1, 2, ... for the samples, -1 for padding.
        dtype: Of an additive mask.
        boolean: Give a boolean mask (True: may attend) instead of an additive one.

    Returns:
        [B, 1, T, T]. Padding attends to itself, so that no row is empty.
    """
    length = segments.shape[1]
    asking, asked = segments[:, :, None], segments[:, None, :]
    causal = torch.ones(length, length, dtype=torch.bool, device=segments.device).tril()
    allowed = (causal & ((asked == 0) | (asked == asking)))[:, None]
    if boolean:
        return allowed
    return torch.zeros(allowed.shape, dtype=dtype, device=segments.device).masked_fill_(
        ~allowed, torch.finfo(dtype).min
    )


def _before_answers(one: Encoded) -> int:
    # the position before the first answer token predicts it, so it belongs to the sample
    return max(0, int(np.flatnonzero(one.labels != IGNORE)[0]) - 1)


def _common(first: Encoded, other: Encoded) -> int:
    """Gives how many tokens two samples begin with alike, answers left out."""
    most = min(_before_answers(first), _before_answers(other))
    differ = np.flatnonzero(first.ids[:most] != other.ids[:most])
    return int(differ[0]) if len(differ) else most


def _join(samples: list[Encoded], shared: int) -> Encoded:
    if len(samples) == 1:
        return samples[0]
    rests = [len(one.ids) - shared for one in samples]
    segments = np.repeat(np.arange(len(samples) + 1), [shared, *rests])
    positions = np.concatenate([np.arange(shared), *(shared + np.arange(rest) for rest in rests)])

    def joined(arrays: list[np.ndarray]) -> np.ndarray:
        return np.concatenate([arrays[0][:shared], *(array[shared:] for array in arrays)])

    extra = {key: joined([one.extra[key] for one in samples]) for key in samples[0].extra}
    return Encoded(
        joined([one.ids for one in samples]), joined([one.labels for one in samples]), extra,
        segments.astype(np.int32), positions.astype(np.int32),
    )  # fmt: skip
