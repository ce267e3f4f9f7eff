"""A series as a whole: turned, resampled and smoothed as a card asks, and with what segmentations mark in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from medkit.privacy.pixels import boxes_for
from medkit.privacy.profile import Box, Mask
from medkit.readers import Loaded
from medkit.readers.dicom.files import Limits, quiet, read_file
from medkit.readers.dicom.profiles import Profile
from medkit.readers.dicom.reasons import Refused, one_file
from medkit.readers.dicom.render import (
    has_hounsfield_units,
    is_inverted,
    modality_transform,
    padding_of,
)
from medkit.readers.dicom.screening import judge, text_in
from medkit.readers.dicom.segmentation import Segment
from medkit.readers.dicom.series import Volume, read_stored, runs_of
from medkit.readers.findings import Finding, extent_of, finding_facts, findings_of
from medkit.readers.slices import montage, shrink, square
from medkit.readers.volumes import (
    ACROSS,
    MOST_VALUES,
    SHOWN_AS,
    Transforms,
    pictures_of,
    shape_after,
    sides_of,
    transformed,
)

# From DICOM's left and posterior to right and anterior.
TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


@dataclass(frozen=True)
class StackLoading:
    """How pictures are made of a series that is transformed as a whole.

    Attributes:
        volume: All slices.
        profile: What is shown; one that asks for the file's window shows the 0.5 to 99.5 percentiles.
        limits: What is refused.
        plane, shown: Which slices after the transforms.
        transforms: What is done.
        tile: Longest side in px of a montage's tiles, or None.
        side: Shorter side in px that larger pictures are shrunk to, or None.
        masks, ocr: As in ``loading.Loading``.
    """

    volume: Volume
    profile: Profile
    limits: Limits
    plane: str
    shown: tuple[int, ...]
    transforms: Transforms
    tile: int | None = None
    side: int | None = None
    masks: tuple[Mask, ...] = ()
    ocr: str = "off"

    def __call__(self) -> Loaded:
        """Decodes, transforms and renders.

        Raises:
            Refused: With the reason.
        """
        with one_file(), quiet():
            header = read_file(self.volume.slices[0].path, self.limits, pixels=False)
            values, hidden = stack_values(self.volume, self.limits, self.profile, self.masks)
            if values.min() == values.max():
                raise Refused("one value")
            values = transformed(values, stack_affine(self.volume), self.transforms)
            made = pictures_of(values, self.profile, self.plane, self.shown, self.transforms.orientation)
            if is_inverted(header):
                made = [255 - one for one in made]
            sides = sides_of(self.plane, stack_grid(self.volume, self.transforms)[1])
            pictures: list[Any] = [square(one, *sides) for one in made]
            notes: dict[tuple[str, str], None] = {("site mask applied", ""): None} if hidden else {}
            if self.ocr != "off":
                upright = [self._as_taken(one) for one in pictures]
                notes |= judge(text_in(upright, header), self.ocr)
            if self.tile is not None:
                pictures = [montage(pictures, self.tile)]
            return Loaded([shrink(one, self.side) for one in pictures], tuple(notes))

    def _as_taken(self, picture: np.ndarray) -> np.ndarray:
        """Turns a slice back to how its device wrote it: mirrored text is legible to a person and not to OCR."""
        across = ACROSS[self.plane]
        right, down = (axis for axis in range(3) if axis != across)
        taken = np.asarray(self.volume.slices[0].orientation)
        code = self.transforms.orientation
        # Where columns and rows of the picture run to, along the axes of the body: 1 for left, posterior, superior.
        runs = {axis: 1 if code[axis] == SHOWN_AS[axis] else -1 for axis in (right, down)}
        if self.plane != "axial":
            runs[down] = -1
        if int(np.abs(taken[:3])[[right, down]].argmax()) == 1:
            picture, right, down = picture.swapaxes(0, 1), down, right
        if taken[3 + down] * runs[down] < 0:
            picture = picture[::-1]
        return picture[:, ::-1] if taken[right] * runs[right] < 0 else picture


def stack_affine(volume: Volume) -> np.ndarray:
    """Gives the affine of ``stack_values`` in mm towards right, anterior, superior, [4,4]."""
    first, last = volume.slices[0], volume.slices[-1]
    assert first.position is not None and first.orientation is not None and last.position is not None
    out = np.eye(4)
    out[:3, 0] = np.asarray(first.orientation[:3]) * first.spacing_mm[1]
    out[:3, 1] = np.asarray(first.orientation[3:]) * first.spacing_mm[0]
    out[:3, 2] = np.subtract(last.position, first.position) / max(len(volume.slices) - 1, 1)
    out[:3, 3] = first.position
    return TO_RAS @ out


def stack_grid(
    volume: Volume, transforms: Transforms
) -> tuple[tuple[int, int, int], tuple[float, float, float]]:
    """Gives shape and spacing of a series after its transforms.

    Raises:
        Refused: It would hold too many values, or its pixels have no spacing.
    """
    first = volume.slices[0]
    if min(first.spacing_mm) <= 0:
        raise Refused("no positions", "the pixels have no spacing")
    shape = (first.columns, first.rows, len(volume.slices))
    if np.prod(shape, dtype=np.int64) > MOST_VALUES:
        raise Refused("too many pixels", f"{' x '.join(map(str, shape))} before resampling")
    found, spacing = shape_after(shape, stack_affine(volume), transforms)
    if np.prod(found, dtype=np.int64) > MOST_VALUES:
        raise Refused("too many pixels", f"{' x '.join(map(str, found))} after resampling")
    return found, spacing


def stack_values(
    volume: Volume, limits: Limits, profile: Profile, masks: tuple[Mask, ...] = ()
) -> tuple[np.ndarray, bool]:
    """Gives a series in the modality's unit; padding holds the darkest value of its slice, not its own far one.

    Returns:
        float32 [C,R,Z], and whether a mask of a device hid a part, whose value is black in every picture of the
        series.

    Raises:
        Refused: A slice can't be read, or the profile needs Hounsfield units and there are none.
    """
    first = volume.slices[0]
    out = np.empty((first.columns, first.rows, len(volume.slices)), np.float32)
    at, inverted = 0, False
    hidden: list[tuple[int, tuple[Box, ...]]] = []
    for path, frames in runs_of(volume.slices):
        dataset, about, stored = read_stored(path, list(frames), limits)
        boxes = boxes_for(dataset, masks)
        if at == 0:
            inverted = is_inverted(dataset)
        elif inverted != is_inverted(dataset):
            raise Refused("mixed geometry", "some slices show the least value as white, others as black")
        for frame, values in zip(frames, stored.values, strict=True):
            if profile.unit == "HU" and not has_hounsfield_units(dataset, frame):
                raise Refused("values are not Hounsfield units", f"profile {profile.name}")
            units = modality_transform(dataset, frame, about.signed).apply(values)
            padding = padding_of(dataset, values, about)
            if padding is not None:
                filled = (values >= padding[0]) & (values <= padding[1])
                if not filled.all():
                    shown = units[~filled]
                    units[filled] = shown.max() if inverted else shown.min()
            if boxes:
                hidden.append((at, boxes))
            out[:, :, at] = units.T
            at += 1
    if hidden:
        # No slice's own least value need be black, so the mask's lies at or below all that a picture can show.
        ends = [end for window in profile.windows for end in window]
        dark = max([float(out.max()), *ends]) if inverted else min([float(out.min()), *ends])
        for place, boxes in hidden:
            for left, top, right, bottom in boxes:
                out[left:right, top:bottom, place] = dark
    return out, bool(hidden)


def marked(
    segments: list[Segment], volume: Volume, plane: str, transforms: Transforms | None
) -> list[tuple[Finding, np.ndarray]]:
    """Gives every segment's finding with its mask, placed as the pictures' slices are."""
    if transforms is not None:
        spacing = stack_grid(volume, transforms)[1]
    else:
        spacing = _spacing(volume)
    found = []
    for one in segments:
        mask = one.mask.view(np.uint8)
        if transforms is not None:
            mask = transformed(mask, stack_affine(volume), transforms, labels=True)
        # Without transforms slices are shown as they were taken: across the third axis, whatever plane that is.
        across = plane if transforms is not None else "axial"
        found += [(finding, mask) for finding in findings_of(mask, across, spacing, {1: one.label})]
    return found


def extent(found: list[tuple[Finding, np.ndarray]]) -> tuple[int, int] | None:
    """Gives the first and last slice with a finding, None where there is none."""
    return extent_of([finding for finding, _ in found])


def marked_facts(
    found: list[tuple[Finding, np.ndarray]],
    shown: list[int],
    volume: Volume,
    plane: str,
    transforms: Transforms | None,
) -> dict[str, Any]:
    """Gives the facts of all segments, see ``findings.finding_facts``; segments may overlap."""
    facts: dict[str, Any] = {"findings": [], "slice_labels": [[] for _ in shown]}
    if len(shown) == 1:
        facts["objects"] = []
    spacing = _spacing(volume) if transforms is None else stack_grid(volume, transforms)[1]
    across, code = ("axial", SHOWN_AS) if transforms is None else (plane, transforms.orientation)
    for finding, mask in found:
        own = finding_facts([finding], mask, shown, across, spacing, code)
        facts["findings"] += own["findings"]
        facts["slice_labels"] = [
            [*known, *more] for known, more in zip(facts["slice_labels"], own["slice_labels"], strict=True)
        ]
        if "objects" in facts:
            facts["objects"] += own["objects"]
    return facts


def count_across(volume: Volume, plane: str, transforms: Transforms | None) -> int:
    """Gives the number of slices that can be shown."""
    return len(volume.slices) if transforms is None else stack_grid(volume, transforms)[0][ACROSS[plane]]


def _spacing(volume: Volume) -> tuple[float, float, float]:
    """Gives the distances along columns, rows and slices, as the axes of ``stack_values`` run."""
    between_slices, rows, columns = volume.spacing_mm
    return columns, rows, between_slices
