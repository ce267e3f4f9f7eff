"""A series of slices as one ordered volume, or the reason why it is none.

Order comes from positions alone (PS3.3 C.7.6.2.1.1: position along the normal of the orientation). File names and
instance numbers are no evidence, and a gap, a double or a stranger among the slices is never smoothed over.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset

from medkit.readers.dicom.decode import Stored, decode, describe
from medkit.readers.dicom.description import Description
from medkit.readers.dicom.files import (
    DEFAULT_LIMITS,
    Limits,
    number_of,
    numbers_of,
    quiet,
    read_file,
    value_of,
    word_of,
    words_of,
)
from medkit.readers.dicom.frames import group_of_frame, modality_of
from medkit.readers.dicom.reasons import Refused
from medkit.readers.dicom.render import modality_transform
from medkit.readers.dicom.worker import decode_apart

VOLUMES = ("CT", "MR", "PT")  # modalities whose series are volumes
SAME_DIRECTION = 1e-2
SAME_SPACING = 1e-3
SAME_PLACE = 0.01  # share of the usual gap
UNEVEN = 0.05  # share of the usual gap
UNEVEN_MM = 0.02
GAP = 1.5  # times the usual gap
SHIFT_MM = 1.0
TILT_DEGREES = 0.5
# What tells the pictures of one place apart: time, echo, diffusion weighting.
MOMENTS = ("TemporalPositionIdentifier", "AcquisitionNumber", "EchoTime", "DiffusionBValue", "TriggerTime")


@dataclass(frozen=True)
class Slice:
    """One slice: a file, or a frame of one.

    Attributes:
        path, frame: Where its pixels lie.
        position: Of the first pixel's centre in mm, or None.
        orientation: Direction cosines of a row and a column, or None.
        spacing_mm: Between rows and between columns.
        rows, columns: Its size.
        unit: Modality and rescale type.
        number: Instance number, or None.
        localizer: Whether the image type says so.
        moment: What tells it from another picture of the same place.
        uid: The instance's UID; stays inside.
    """

    path: Path
    frame: int
    position: tuple[float, ...] | None
    orientation: tuple[float, ...] | None
    spacing_mm: tuple[float, float]
    rows: int
    columns: int
    unit: str = ""
    number: int | None = None
    localizer: bool = False
    moment: tuple[float, ...] = ()
    uid: str = ""


@dataclass(frozen=True)
class Volume:
    """Slices in space, first the one that lies lowest along the normal (for axial slices: the feet).

    Attributes:
        slices: In order.
        spacing_mm: Between slices, rows and columns.
        notes: (reason, detail) pairs: what a user should know.
    """

    slices: tuple[Slice, ...]
    spacing_mm: tuple[float, float, float]
    notes: tuple[tuple[str, str], ...] = ()


def slices_of(path: Path, dataset: Dataset) -> list[Slice]:
    """Gives the slices of a file: one, or one a frame.

    Raises:
        Refused: A geometry element is malformed.
    """
    with quiet():
        frames = int(number_of(dataset, "NumberOfFrames", 1) or 1)
        return [_slice(path, dataset, frame) for frame in range(min(frames, DEFAULT_LIMITS.frames))]


def order_slices(slices: list[Slice]) -> Volume:
    """Orders the slices of one series by their place.

    Raises:
        Refused: They are no even stack of parallel slices; the reason says why, the detail where.
    """
    localizers = sum(one.localizer for one in slices)
    if localizers:
        raise Refused("localizer in the series", f"{localizers} of {len(slices)} slices")
    placed = [one for one in slices if one.position and one.orientation]
    if len(placed) < len(slices) or not slices:
        raise Refused("no positions", f"{len(slices) - len(placed)} of {len(slices)} slices")
    directions = np.array([one.orientation for one in slices])
    turned = np.abs(directions - directions[0]).max(axis=1) > SAME_DIRECTION
    if turned.any():
        raise Refused("mixed orientation", f"{int(turned.sum())} of {len(slices)} differ from the first")
    _check_alike(slices)
    normal = np.cross(directions[0, :3], directions[0, 3:])
    length = float(np.linalg.norm(normal))
    if length < 0.5:
        raise Refused("no positions", "the orientation's rows and columns are parallel")
    points = np.array([one.position for one in slices])
    along = points @ (normal / length)
    ranks = np.argsort(along, kind="stable")
    ordered = [slices[rank] for rank in ranks]
    gap = _check_gaps(ordered, along[ranks])
    notes = _check_shift(points[ranks], normal / length)
    numbers = [one.number for one in ordered]
    if len(set(numbers)) < len(numbers) and len({(one.path, one.frame) for one in ordered}) == len(ordered):
        notes += (("equal instance numbers", "ordered by position"),) if None not in numbers else ()
    return Volume(tuple(ordered), (gap, *ordered[0].spacing_mm), notes)


def load_values(volume: Volume, limits: Limits = DEFAULT_LIMITS) -> np.ndarray:
    """Gives a volume's values in the modality's unit (HU for CT), each slice by its own rescale.

    Returns:
        [Z,R,C], int16 where all slopes and intercepts are whole numbers and the values fit, else float32.

    Raises:
        Refused: A slice can't be decoded.
    """
    first = volume.slices[0]
    out = np.empty((len(volume.slices), first.rows, first.columns), np.int16)
    at = 0
    for path, frames in runs_of(volume.slices):
        dataset, about, stored = read_stored(path, list(frames), limits)
        for frame, values in zip(frames, stored.values, strict=True):
            units = _units_of(dataset, frame, about, values)
            if units.dtype != np.int16 and out.dtype == np.int16:
                out = out.astype(np.float32)
            out[at] = units
            at += 1
    return out


def runs_of(slices: Sequence[Slice], most: int = 64) -> Iterator[tuple[Path, tuple[int, ...]]]:
    """Gives the slices as (file, frames), neighbours of one file together: it is then read once and not per frame."""
    for path, members in itertools.groupby(slices, key=lambda one: one.path):
        frames = [one.frame for one in members]
        for start in range(0, len(frames), most):
            yield path, tuple(frames[start : start + most])


def _units_of(dataset: Dataset, frame: int, about: Description, values: np.ndarray) -> np.ndarray:
    """Gives a frame in the modality's unit: int16 [R,C] where values are whole and fit, else float32."""
    modality = modality_transform(dataset, frame, about.signed)
    whole = modality.slope == 1.0 and modality.intercept.is_integer() and values.dtype.itemsize <= 2
    if modality.table or not whole:
        return modality.apply(values).astype(np.float32)
    ends = (int(values.min()) + int(modality.intercept), int(values.max()) + int(modality.intercept))
    if ends[0] < -32_768 or ends[1] > 32_767:
        return modality.apply(values).astype(np.float32)
    # Modulo 2**16 the sum is right even where the stored type can't hold HU, and its ends were checked.
    codes = values.view(np.uint16) if values.itemsize == 2 else values.astype(np.int16).view(np.uint16)
    return np.add(codes, np.uint16(int(modality.intercept) % 65_536)).view(np.int16)


def read_stored(
    path: Path, frames: list[int], limits: Limits = DEFAULT_LIMITS, side: int | None = None
) -> tuple[Dataset, Description, Stored]:
    """Reads a file and decodes some of its frames, compressed ones in the worker; ``side`` as in ``decode``.

    Raises:
        Refused: The file or a frame can't be read.
    """
    with quiet():
        dataset = read_file(path, limits)
        about = describe(dataset, limits)
        stored = decode(dataset, frames, limits) if about.native else decode_apart(path, frames, limits, side)
        return dataset, about, stored


def plane_of(orientation: tuple[float, ...] | None) -> str:
    """Gives axial, coronal or sagittal: what the slices' normal is nearest to; "" where that is unknown."""
    if orientation is None:
        return ""
    normal = np.abs(np.cross(orientation[:3], orientation[3:]))
    return ("sagittal", "coronal", "axial")[int(normal.argmax())]


def plane_as_said(plane: str, volume: Volume) -> str:
    """Gives the plane where the slices run as its name promises (``slices.DIRECTIONS``), else ""."""
    first, last = volume.slices[0].position, volume.slices[-1].position
    if not plane or first is None or last is None:
        return ""
    axis, towards = {"axial": (2, 1), "coronal": (1, 1), "sagittal": (0, 1)}[plane]
    return plane if (last[axis] - first[axis]) * towards > 0 else ""


def _slice(path: Path, dataset: Dataset, frame: int) -> Slice:
    position = numbers_of(group_of_frame(dataset, frame, "PlanePositionSequence"), "ImagePositionPatient")
    orientation = numbers_of(
        group_of_frame(dataset, frame, "PlaneOrientationSequence"), "ImageOrientationPatient"
    )
    measures = group_of_frame(dataset, frame, "PixelMeasuresSequence")
    spacing = numbers_of(measures, "PixelSpacing") or [0.0, 0.0]
    rescale = group_of_frame(dataset, frame, "PixelValueTransformationSequence")
    number = number_of(dataset, "InstanceNumber")
    moment = tuple(number_of(dataset, keyword, 0.0) or 0.0 for keyword in MOMENTS)
    return Slice(
        path,
        frame,
        tuple(position) if len(position) == 3 else None,
        tuple(orientation) if len(orientation) == 6 else None,
        (spacing[0], spacing[-1]),
        int(number_of(dataset, "Rows", 0) or 0),
        int(number_of(dataset, "Columns", 0) or 0),
        f"{modality_of(dataset)} {word_of(rescale, 'RescaleType')}",
        None if number is None else int(number),
        "LOCALIZER" in words_of(dataset, "ImageType"),
        moment,
        str(value_of(dataset, "SOPInstanceUID", "")),
    )


def _check_alike(slices: list[Slice]) -> None:
    first = slices[0]
    for what, differs in (
        ("size", lambda one: (one.rows, one.columns) != (first.rows, first.columns)),
        (
            "pixel spacing",
            lambda one: (
                max(abs(a - b) for a, b in zip(one.spacing_mm, first.spacing_mm, strict=True))
                > SAME_SPACING * max(first.spacing_mm[0], 1e-6)
            ),
        ),
        ("unit of the values", lambda one: one.unit != first.unit),
    ):
        count = sum(map(differs, slices))
        if count:
            raise Refused(
                "mixed geometry", f"{what} of {count} of {len(slices)} slices differs from the first"
            )


def _check_gaps(ordered: list[Slice], along: np.ndarray) -> float:
    """Gives the distance between slices in mm."""
    if len(ordered) < 2:
        return 0.0
    gaps = np.diff(along)
    apart = gaps[gaps > 1e-4]
    if apart.size == 0:
        raise Refused("duplicate slices", f"all {len(ordered)} slices lie at one place")
    usual = float(np.median(apart))
    close = np.flatnonzero(gaps < SAME_PLACE * usual)
    if close.size:
        pairs = [(ordered[index], ordered[index + 1]) for index in close]
        several = any(one.moment != two.moment for one, two in pairs)
        reason = "several acquisitions" if several else "duplicate slices"
        raise Refused(reason, f"{close.size} places twice among {len(ordered)} slices")
    widest = int(np.argmax(gaps))
    if gaps[widest] > GAP * usual:
        lacking = int(sum(round(gap / usual) - 1 for gap in gaps if gap > GAP * usual))
        where = f"after slice {widest + 1} of {len(ordered)} a gap of {gaps[widest]:.2f} mm instead of {usual:.2f} mm"
        raise Refused("missing slices", f"about {lacking}; {where}")
    worst = float(np.abs(gaps - usual).max())
    if worst > max(UNEVEN * usual, UNEVEN_MM):
        raise Refused("uneven spacing", f"{gaps.min():.2f} to {gaps.max():.2f} mm between slices")
    return float(along[-1] - along[0]) / (len(ordered) - 1)


def _check_shift(points: np.ndarray, normal: np.ndarray) -> tuple[tuple[str, str], ...]:
    """Refuses slices that are shifted against each other; an even shift is the gantry's tilt."""
    if len(points) < 2:
        return ()
    steps = np.diff(points, axis=0)
    sideways = steps - np.outer(steps @ normal, normal)
    usual = np.median(sideways, axis=0)
    worst = float(np.linalg.norm(sideways - usual, axis=1).max())
    if worst > SHIFT_MM:
        raise Refused("mixed geometry", f"slices are shifted against each other by {worst:.1f} mm")
    tilt = float(np.degrees(np.arctan2(np.linalg.norm(usual), abs(np.median(steps @ normal)))))
    return (("gantry tilt", f"{tilt:.1f} degrees"),) if tilt > TILT_DEGREES else ()
