"""Reader ``nifti``: a folder of NIfTI volumes becomes records of slices, with findings from masks and reports."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from medkit.errors import DataError
from medkit.privacy.presidio import read_finder
from medkit.readers import (
    Loaded,
    Merged,
    Record,
    Rejected,
    check_kinds,
    check_options,
    files_below,
    group_of,
    inside,
    split_of,
)
from medkit.readers.dicom.profiles import Profile, carried, choose_profiles
from medkit.readers.findings import extent_of, finding_facts, findings_of
from medkit.readers.nifti.files import (
    DEFAULT_LIMITS,
    SUFFIXES,
    Head,
    read_head,
    read_values,
    turned_affine,
)
from medkit.readers.nifti.reasons import Refused, one_file
from medkit.readers.reports import Reports
from medkit.readers.slices import SlicePlan, choose, montage, read_plan, read_side, say, shrink, square
from medkit.readers.volumes import (
    ACROSS,
    MOST_VALUES,
    SHOWN_AS,
    Transforms,
    backwards,
    check_profiles,
    pictures_of,
    read_transforms,
    shape_after,
    sides_of,
    transformed,
)
from medkit.readers.volumes import OPTIONS as TRANSFORMS

OPTIONS = (
    "profiles", "modality", "slices", "plane", "masks", "labels", "reports", "give", "presidio", "unplaced",
    "group_pattern", "licence", *TRANSFORMS, "side_px",
)  # fmt: skip
PLANES = ("axial", "coronal", "sagittal")
MOST_LABEL = 65_535


@dataclass(frozen=True)
class Loading:
    """How pictures are made of a volume; what a record's loader carries."""

    path: Path
    head: Head
    profile: Profile
    modality: str
    plane: str
    shown: tuple[int, ...]
    plan: SlicePlan
    transforms: Transforms | None = None
    side: int | None = None

    def __call__(self) -> Loaded:
        """Reads and renders.

        Raises:
            Refused: With the reason.
        """
        with one_file():
            values = read_values(self.path, self.head)
            self._check(values)
            spacing, code = self.head.spacing_mm, SHOWN_AS
            if self.transforms is not None:
                values = transformed(values, turned_affine(self.head), self.transforms)
                spacing, code = placed(self.head, self.transforms)[1], self.transforms.orientation
            made = pictures_of(values, self.profile, self.plane, self.shown, code)
            pictures: list[Any] = [square(one, *sides_of(self.plane, spacing)) for one in made]
            if self.plan.show == "montage":
                pictures = [montage(pictures, self.plan.tile)]
            return Loaded([shrink(one, self.side) for one in pictures])

    def _check(self, values: np.ndarray) -> None:
        finite = values[np.isfinite(values)] if values.dtype.kind == "f" else values
        if finite.size == 0 or finite.min() == finite.max():
            raise Refused("one value")
        if self.profile.unit == "HU" and (self.modality != "CT" or finite.min() >= 0):
            why = "the card says no modality CT" if self.modality != "CT" else "no value below 0"
            raise Refused("values are not Hounsfield units", f"profile {self.profile.name}: {why}")


@dataclass
class _Reading:
    root: Path
    options: dict[str, Any]
    profile: Profile
    modality: str
    plan: SlicePlan
    plane: str
    reports: Reports
    names: dict[Path, str]
    transforms: Transforms | None = None
    side: int | None = None
    masks: dict[Path, Path] = field(default_factory=dict)


def read(root: Path, options: dict[str, Any]) -> Iterator[Record | Rejected | Merged]:
    """Reads every file below a folder.

    Options:
        profiles: As in reader dicom; the profile of ``modality`` is taken. NIfTI files hold no window of their own:
            where a profile asks for the file's, the 0.5 to 99.5 percentiles are shown.
        modality: CT, MR, PT ...; NIfTI doesn't say. Windows in HU need CT.
        slices: Most slices (16), or {most, show: uniform | finding | montage, tile, margin}.
        plane: axial (default), coronal or sagittal.
        masks: Pattern of a volume's label mask, beside it: "{name}_seg.nii.gz".
        labels: Mask value -> name; values that it lacks are left out. Without it every value is a label.
        reports: Pattern of a report below the root with {name} and {folder}: "reports/{name}.txt".
        give: What is made of a volume with a report: [caption] (default), [record] or both, as in reader figures.
        orientation: Where the axes run to, by MONAI: LPS (default), RAS ... Other letters mirror the pictures.
        spacing_mm: Distances of values across, in depth and in height to which MONAI resamples.
        intensity: MONAI's transforms by name with their settings: ``{MedianSmooth: {radius: 1}}``.
        side_px: Shorter side that larger pictures are shrunk to (default: they keep their size).
        presidio: true, or {model, language, least}, as in reader dicom.
        unplaced: Whether volumes without an orientation are read (false): their sides may be exchanged.
        group_pattern, licence: As in class_folders.

    Raises:
        DataError: The folder is missing or empty, or an option makes no sense.
    """
    reading, files = _begin(Path(root), options)
    reports = [path for path in files if reading.reports.holds(path)]
    for path in files:
        if path in reading.masks or reading.reports.holds(path):
            continue
        record = reading.names[path]
        try:
            with one_file():
                made = _record(path, record, reading)
        except Refused as refused:
            yield Rejected(record, refused.reason, refused.detail)
            continue
        yield from reading.reports.made(made)
    for mask, volume in sorted(reading.masks.items()):
        yield Merged(reading.names[mask], "mask of a volume", f"of record {reading.names[volume]}")
    yield from reading.reports.fates(reports)


def placed(
    head: Head, transforms: Transforms | None
) -> tuple[tuple[int, int, int], tuple[float, float, float]]:
    """Gives a volume's shape and spacing along left, posterior, superior, or along the axes that a card asks for.

    Raises:
        Refused: Resampling would make too many values.
    """
    shape = tuple(head.shape[axis] for axis, _ in head.axes)
    whole = (shape[0], shape[1], shape[2])
    if transforms is None:
        return whole, head.spacing_mm
    if np.prod(whole, dtype=np.int64) > MOST_VALUES:
        raise Refused("too many values", f"{' x '.join(map(str, whole))} before resampling")
    found, spacing = shape_after(whole, turned_affine(head), transforms)
    if np.prod(found, dtype=np.int64) > MOST_VALUES:
        raise Refused("too many values", f"{' x '.join(map(str, found))} after resampling")
    return found, spacing


def _begin(root: Path, options: dict[str, Any]) -> tuple[_Reading, list[Path]]:
    check_options("nifti", options, OPTIONS)
    check_kinds(
        "nifti", options, ("modality", "masks", "reports", "licence"), ("give",), switches=("unplaced",)
    )
    if not root.is_dir():
        raise DataError(f"{root} is no folder; give the folder of the NIfTI files")
    plane = options.get("plane", "axial")
    if plane not in PLANES:
        raise DataError(f"reader nifti: plane {plane!r} is none of {', '.join(PLANES)}")
    modality = str(options.get("modality", "")).upper()
    chosen = choose_profiles(options.get("profiles"))
    profile = chosen.get(modality) or chosen["*"]
    check_profiles("nifti", profile)
    labels = options.get("labels")
    if labels is not None and not (
        isinstance(labels, dict) and all(str(value).isdigit() for value in labels)
    ):
        raise DataError("reader nifti: labels maps a mask's whole numbers to names")
    plan = read_plan("nifti", options.get("slices", 16))
    if plan.show == "finding" and not options.get("masks"):
        raise DataError("reader nifti: slices.show finding needs masks, the pattern of the masks' names")
    files = files_below(root)
    if not files:
        raise DataError(f"{root} holds no file; give the folder of the NIfTI files")
    names = _names(files, root)
    give = options.get("give", ["caption"])
    fields, finder = ("name", "folder"), read_finder(options.get("presidio"), "reader nifti")
    reports = Reports("nifti", root, options.get("reports"), fields, names.__getitem__, give, finder)
    transforms = read_transforms("nifti", options, profile)
    reading = _Reading(root, options, profile, modality, plan, plane, reports, names, transforms)
    reading.side = read_side("nifti", options.get("side_px"))
    reading.masks = _masks(files, root, options.get("masks"))
    return reading, files


def _names(files: list[Path], root: Path) -> dict[Path, str]:
    """Gives every file's id: its name without the suffix of a volume where that is unique, else its path."""
    stems = Counter(map(_stem, files))
    return {
        path: _stem(path) if stems[_stem(path)] == 1 else path.relative_to(root).as_posix() for path in files
    }


def _stem(path: Path) -> str:
    suffix = next((one for one in reversed(SUFFIXES) if path.name.lower().endswith(one)), "")
    return path.name[: len(path.name) - len(suffix)]


def _masks(files: list[Path], root: Path, pattern: str | None) -> dict[Path, Path]:
    """Gives mask -> volume for all masks that are there."""
    if pattern is None:
        return {}
    if str(pattern).replace("{name}", "").count("{") or "{name}" not in str(pattern):
        raise DataError(f"reader nifti: masks {pattern!r} needs the field {{name}} and no other")
    there = set(files)
    found = {}
    for path in files:
        mask = inside(root, str(path.parent.relative_to(root) / pattern.replace("{name}", _stem(path))))
        if mask is not None and mask in there and mask != path and path.name.lower().endswith(SUFFIXES):
            found[mask] = path
    return found


def _record(path: Path, record: str, reading: _Reading) -> Record:
    if not path.name.lower().endswith(SUFFIXES):
        raise Refused("pair of files" if path.suffix.lower() in (".hdr", ".img") else "not NIfTI")
    options, plane, plan = reading.options, reading.plane, reading.plan
    head = read_head(path, unplaced=bool(options.get("unplaced", False)))
    shape, spacing = placed(head, reading.transforms)
    count = shape[ACROSS[plane]]
    mask, notes = _mask(path, head, reading)
    labels = options.get("labels")
    names = None if labels is None else {int(value): str(name) for value, name in labels.items()}
    findings = [] if mask is None else findings_of(mask, plane, spacing, names)
    extent = extent_of(findings)
    if plan.show == "finding" and extent is None:
        notes += (("no finding in the mask", "slices were taken evenly"),)
    shown = choose(count, plan, extent)
    text, more = reading.reports.of(
        record, {"name": _stem(path), "folder": path.parent.relative_to(reading.root).as_posix()}
    )
    facts: dict[str, Any] = {"labels": {}, "objects": [], "complete": False}
    if reading.modality:
        facts["modality"] = reading.modality
    facts["volume"] = {
        "slices": count,
        "shown": [index + 1 for index in shown],
        "plane": plane,
        "spacing_mm": [round(one, 4) for one in (spacing[ACROSS[plane]], *sides_of(plane, spacing))],
    }
    code = reading.transforms.orientation if reading.transforms else SHOWN_AS
    facts["shows"] = say(shown, count, plane, plan.show == "montage", backwards(plane, code))
    if mask is not None and findings:
        facts |= finding_facts(findings, mask, shown, plane, spacing, code)
    how = (reading.profile, reading.modality, plane, tuple(shown), plan, reading.transforms, reading.side)
    return Record(
        record,
        Loading(path, head, *how),
        facts,
        caption=text,
        group=group_of(record, options.get("group_pattern")),
        split=split_of(path, reading.root, options.get("splits", ())),
        licence=options.get("licence", ""),
        notes=head.notes + notes + more,
        extra=carried(reading.profile, reading.transforms.settings if reading.transforms else None),
    )


def _mask(path: Path, head: Head, reading: _Reading) -> tuple[np.ndarray | None, tuple[tuple[str, str], ...]]:
    """Gives the volume's mask, placed as its values; one that can't be used costs its volume: half a truth is none."""
    mask = next((mask for mask, volume in reading.masks.items() if volume == path), None)
    if mask is None:
        return None, (("no mask", ""),) if reading.options.get("masks") else ()
    marked = read_head(mask, DEFAULT_LIMITS, bool(reading.options.get("unplaced", False)))
    near = 0.1 * min(head.spacing_mm)
    if marked.shape != head.shape or np.abs(marked.affine - head.affine).max() > near:
        raise Refused("mask doesn't fit", "another size or place")
    values = read_values(mask, marked)
    if values.dtype.kind == "f" and (not np.isfinite(values).all() or (values != np.rint(values)).any()):
        raise Refused("mask doesn't fit", "its values are no whole numbers")
    if values.min() < 0 or values.max() > MOST_LABEL:
        raise Refused("mask doesn't fit", f"its values lie beyond 0 to {MOST_LABEL}")
    if reading.transforms is not None:
        values = transformed(values, turned_affine(marked), reading.transforms, labels=True)
    return values, ()
