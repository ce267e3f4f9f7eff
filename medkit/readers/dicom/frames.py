"""Attributes of one frame: in its functional groups, in the shared ones, or at the top of a classic object.

highdicom reads the same groups; it decodes with whatever plug-in it finds and gives float64, so it serves as the
tests' oracle and not here. Source: PS3.3 C.7.6.16.
"""

from __future__ import annotations

from pydicom.dataset import Dataset

from medkit.readers.dicom.files import value_of, word_of
from medkit.readers.dicom.reasons import Refused


def group_of_frame(dataset: Dataset, frame: int, sequence: str) -> Dataset:
    """Gives the item of a functional group that holds for a frame, or the dataset itself.

    Args:
        dataset: The file.
        frame: Number from 0.
        sequence: Keyword, for example ``PixelValueTransformationSequence``.

    Raises:
        Refused: The per-frame groups are fewer than the frames.
    """
    for keyword, index in (
        ("PerFrameFunctionalGroupsSequence", frame),
        ("SharedFunctionalGroupsSequence", 0),
    ):
        groups = value_of(dataset, keyword)
        if groups is None:
            continue
        if index >= len(groups):
            raise Refused("malformed element", keyword)
        items = value_of(groups[index], sequence)
        if items:
            return items[0]
    return dataset


def modality_of(dataset: Dataset) -> str:
    """Gives the modality in capitals, "" when the header has none."""
    return word_of(dataset, "Modality")
