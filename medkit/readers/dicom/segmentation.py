"""Segmentation objects: what they mark in the series that they refer to.

A segment's label is free text and may name anybody, so segments are called by their number or by what a card calls
their number or code. highdicom reads the same objects; it decodes with whatever it finds and is the tests' oracle.
Source: PS3.3 A.51, C.8.20.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset

from medkit.readers.dicom.decode import decode, describe
from medkit.readers.dicom.files import Limits, number_of, numbers_of, quiet, read_file, value_of, word_of
from medkit.readers.dicom.frames import group_of_frame
from medkit.readers.dicom.reasons import Refused
from medkit.readers.dicom.series import SAME_DIRECTION, Volume
from medkit.readers.dicom.worker import decode_apart

CLASSES = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")
KINDS = ("BINARY", "FRACTIONAL", "LABELMAP")
MOST_SEGMENTS = 256
MOST_VALUES = 1 << 32  # of all masks together, a byte each
SHIFT = 0.5  # of a pixel
OFF_SLICE = 0.1  # of the distance between slices


@dataclass(frozen=True)
class Segment:
    """One segment in the grid of its series.

    Attributes:
        label: What it is called.
        number: Its number in the object.
        mask: bool [C,R,Z], Z as the series' slices.
    """

    label: str
    number: int
    mask: np.ndarray


def is_segmentation(dataset: Dataset) -> bool:
    """Whether a file marks regions of a series."""
    return str(value_of(dataset, "SOPClassUID", "")) in CLASSES


def series_of(dataset: Dataset) -> str:
    """Gives the UID of the series that a segmentation refers to; stays inside.

    Raises:
        Refused: It names none.
    """
    items = value_of(dataset, "ReferencedSeriesSequence", [])
    uid = str(value_of(items[0], "SeriesInstanceUID", "")) if items else ""
    if not uid:
        raise Refused("segmentation without its series", "it names none")
    return uid


def segments_in(path: Path, volume: Volume, limits: Limits, labels: dict[str, str] | None) -> list[Segment]:
    """Gives the segments of a file, placed in a volume.

    Args:
        path: The segmentation.
        volume: The series.
        limits: What to refuse.
        labels: Segment number or code value -> name; segments that it lacks are left out. None: all, by their number.

    Raises:
        Refused: The file is damaged, its frames don't lie on the volume's slices, or its masks would fill the memory.
    """
    with quiet():
        dataset = read_file(path, limits)
        kind = word_of(dataset, "SegmentationType")
        if kind not in KINDS:
            raise Refused("segmentation doesn't fit", "an unknown kind")
        about = describe(dataset, limits)
        stored = decode(dataset, None, limits) if about.native else decode_apart(path, None, limits)
        first = volume.slices[0]
        if (about.rows, about.columns) != (first.rows, first.columns):
            raise Refused("segmentation doesn't fit", "another size")
        names = _names(dataset, labels)
        places = [_place(dataset, frame, volume) for frame in range(about.frames)]
        half = (
            (number_of(dataset, "MaximumFractionalValue", 255.0) or 255.0) / 2
            if kind == "FRACTIONAL"
            else 0.0
        )
        masks: dict[int, np.ndarray] = {}
        for frame, place in enumerate(places):
            numbers = (
                [int(one) for one in np.unique(stored.values[frame]) if one]
                if kind == "LABELMAP"
                else [_segment_of(dataset, frame)]
            )
            for number in numbers:
                if number not in names:
                    continue
                values = stored.values[frame]
                marked = values == number if kind == "LABELMAP" else values > half
                if number not in masks:
                    count = (len(masks) + 1) * first.columns * first.rows * len(volume.slices)
                    if count > MOST_VALUES:
                        detail = (
                            f"more than {len(masks)} segments of the volume's size; name fewer with labels"
                        )
                        raise Refused("too many pixels", detail)
                    masks[number] = np.zeros((first.columns, first.rows, len(volume.slices)), bool)
                masks[number][:, :, place] |= marked.T
    return [Segment(names[number], number, mask) for number, mask in sorted(masks.items()) if mask.any()]


def _names(dataset: Dataset, labels: dict[str, str] | None) -> dict[int, str]:
    items = value_of(dataset, "SegmentSequence", [])
    if len(items) > MOST_SEGMENTS:
        raise Refused("segmentation doesn't fit", f"{len(items)} segments, limit {MOST_SEGMENTS}")
    names = {}
    for item in items:
        number = int(number_of(item, "SegmentNumber", -1) or 0)
        codes = value_of(item, "SegmentedPropertyTypeCodeSequence", [])
        code = str(value_of(codes[0], "CodeValue", "")) if codes else ""
        name = str(number) if labels is None else labels.get(str(number)) or labels.get(code)
        if name and number >= 0:
            names[number] = name
    return names


def _segment_of(dataset: Dataset, frame: int) -> int:
    group = group_of_frame(dataset, frame, "SegmentIdentificationSequence")
    number = number_of(group, "ReferencedSegmentNumber")
    if number is None:
        raise Refused("malformed element", "ReferencedSegmentNumber")
    return int(number)


def _place(dataset: Dataset, frame: int, volume: Volume) -> int:
    """Gives the slice on which a frame lies."""
    position = numbers_of(group_of_frame(dataset, frame, "PlanePositionSequence"), "ImagePositionPatient")
    orientation = numbers_of(
        group_of_frame(dataset, frame, "PlaneOrientationSequence"), "ImageOrientationPatient"
    )
    first = volume.slices[0]
    if len(position) != 3 or len(orientation) != 6 or first.orientation is None:
        raise Refused("segmentation doesn't fit", "a frame without place")
    if np.abs(np.subtract(orientation, first.orientation)).max() > SAME_DIRECTION:
        raise Refused("segmentation doesn't fit", "another orientation")
    row, column = np.asarray(orientation[:3]), np.asarray(orientation[3:])
    normal = np.cross(row, column)
    steps = np.asarray(position) - np.array([one.position for one in volume.slices])
    along = np.abs(steps @ normal)
    nearest = int(along.argmin())
    aside = steps[nearest]
    apart = (abs(aside @ row) / first.spacing_mm[1], abs(aside @ column) / first.spacing_mm[0])
    if along[nearest] > OFF_SLICE * max(volume.spacing_mm[0], 0.1) or max(apart) > SHIFT:
        raise Refused("segmentation doesn't fit", f"frame {frame + 1} lies beside the slices")
    return nearest
