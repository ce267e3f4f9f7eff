"""Reader ``nifti``: a folder of NIfTI volumes becomes records of slices, with findings from masks and reports."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from medkit.errors import DataError
from medkit.privacy.presidio import read_finder
from medkit.readers import Loaded, Merged, Record, Rejected, check_options, group_of, inside, split_of
from medkit.readers.dicom.profiles import Profile, choose_profiles
from medkit.readers.dicom.render import PERCENTILES, spread_over
from medkit.readers.dicom.tone import between
from medkit.readers.nifti.files import DEFAULT_LIMITS, SUFFIXES, Head, read_head, read_values
from medkit.readers.nifti.reasons import Refused, one_file
from medkit.readers.reports import Reports
from medkit.readers.slices import SlicePlan, choose, montage, read_plan, say, square

OPTIONS = (
    "profiles", "modality", "slices", "plane", "masks", "labels", "reports", "give", "presidio", "unplaced",
    "group_pattern", "licence",
)  # fmt: skip
# The stored axes are turned to left, posterior, superior: (axis across slices, rows run against their axis).
PLANES = {"axial": (2, False), "coronal": (1, True), "sagittal": (0, True)}
MOST_LABEL = 65_535
THIN = 2


@dataclass(frozen=True)
class Finding:
    """What a mask marks under one label: slices from 0 along the plane, the slice with most of it, its size."""

    label: str
    first: int
    last: int
    most: int
    volume_ml: float


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

    def __call__(self) -> Loaded:
        """Reads and renders.

        Raises:
            Refused: With the reason.
        """
        with one_file():
            values = read_values(self.path, self.head)
            pictures: list[Any] = [
                square(one, *sides_of(self.plane, self.head.spacing_mm)) for one in self._pictures(values)
            ]
            return Loaded([montage(pictures, self.plan.tile)] if self.plan.show == "montage" else pictures)

    def _pictures(self, values: np.ndarray) -> list[np.ndarray]:
        finite = values[np.isfinite(values)] if values.dtype.kind == "f" else values
        if finite.size == 0 or finite.min() == finite.max():
            raise Refused("one value")
        least = finite.min()
        if self.profile.unit == "HU" and (self.modality != "CT" or least >= 0):
            why = "the card says no modality CT" if self.modality != "CT" else "no value below 0"
            raise Refused("values are not Hounsfield units", f"profile {self.profile.name}: {why}")
        windows = self.profile.windows
        if not windows:
            share = self.profile.percentiles or PERCENTILES
            windows = (spread_over([values[::THIN, ::THIN, :]], share),)
        ramps = [between(low, high) for low, high in windows]
        made = []
        for index in self.shown:
            part = plane_of(values, self.plane, index).astype(np.float64)
            channels = [np.rint(np.nan_to_num(ramp.apply(part)) * 255.0).astype(np.uint8) for ramp in ramps]
            made.append(channels[0] if len(channels) == 1 else np.stack(channels, axis=-1))
        return made


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


def plane_of(values: np.ndarray, plane: str, index: int) -> np.ndarray:
    """Gives a slice of [L,P,S] as a radiologist sees it, [rows, columns].

    Axial: from the feet, front at the top, the patient's right at the picture's left. Coronal: from the front, head at
    the top. Sagittal: head at the top, front at the left.
    """
    across, turned = PLANES[plane]
    part = np.take(values, index, axis=across).T
    return part[::-1] if turned else part


def sides_of(plane: str, spacing_mm: tuple[float, float, float]) -> tuple[float, float]:
    """Gives the distances between a slice's rows and its columns in mm."""
    kept = [one for axis, one in enumerate(spacing_mm) if axis != PLANES[plane][0]]
    return kept[1], kept[0]


def findings_of(
    mask: np.ndarray, plane: str, spacing_mm: tuple[float, float, float], labels: dict[int, str] | None
) -> list[Finding]:
    """Gives what a mask [L,P,S] of whole numbers marks, 0 being nothing; in the order of its values.

    Raises:
        Refused: Its values are no labels.
    """
    if mask.dtype.kind == "f" and (not np.isfinite(mask).all() or (mask != np.rint(mask)).any()):
        raise Refused("mask doesn't fit", "its values are no whole numbers")
    if mask.min() < 0 or mask.max() > MOST_LABEL:
        raise Refused("mask doesn't fit", f"its values lie beyond 0 to {MOST_LABEL}")
    codes = mask.astype(np.int64)
    across = PLANES[plane][0]
    voxel_ml = float(np.prod(spacing_mm)) / 1000.0
    found = []
    for value in np.flatnonzero(np.bincount(codes.ravel())).tolist():
        if value == 0 or (labels is not None and value not in labels):
            continue
        marked = (codes == value).sum(axis=tuple(axis for axis in range(3) if axis != across))
        places = np.flatnonzero(marked)
        name = labels[value] if labels is not None else str(value)
        found.append(
            Finding(
                name,
                int(places[0]),
                int(places[-1]),
                int(marked.argmax()),
                round(float(marked.sum()) * voxel_ml, 3),
            )
        )
    return found


def _begin(root: Path, options: dict[str, Any]) -> tuple[_Reading, list[Path]]:
    check_options("nifti", options, OPTIONS)
    if not root.is_dir():
        raise DataError(f"{root} is no folder; give the folder of the NIfTI files")
    plane = options.get("plane", "axial")
    if plane not in PLANES:
        raise DataError(f"reader nifti: plane {plane!r} is none of {', '.join(PLANES)}")
    modality = str(options.get("modality", "")).upper()
    chosen = choose_profiles(options.get("profiles"))
    profile = chosen.get(modality) or chosen["*"]
    if profile.equalise:
        raise DataError(
            f"reader nifti: profile {profile.name} is for radiographs; choose windows or percentiles"
        )
    labels = options.get("labels")
    if labels is not None and not (
        isinstance(labels, dict) and all(str(value).isdigit() for value in labels)
    ):
        raise DataError("reader nifti: labels maps a mask's whole numbers to names")
    plan = read_plan("nifti", options.get("slices", 16))
    if plan.show == "finding" and not options.get("masks"):
        raise DataError("reader nifti: slices.show finding needs masks, the pattern of the masks' names")
    found = []
    for parent, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [Path(parent, name) for name in names if not name.startswith(".")]
    files = sorted(path for path in found if path.is_file())
    if not files:
        raise DataError(f"{root} holds no file; give the folder of the NIfTI files")
    names = _names(files, root)
    give = options.get("give", ["caption"])
    finder = read_finder(options.get("presidio"), "reader nifti")
    fields = ("name", "folder")
    reports = Reports("nifti", root, options.get("reports"), fields, names.__getitem__, give, finder)
    reading = _Reading(root, options, profile, modality, plan, plane, reports, names)
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
    count = head.shape[head.axes[PLANES[plane][0]][0]]
    findings, notes = _findings(path, head, reading)
    extent = (min(one.first for one in findings), max(one.last for one in findings)) if findings else None
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
        "spacing_mm": [round(one, 4) for one in _spacing(plane, head)],
    }
    facts["shows"] = say(shown, count, plane, plan.show == "montage")
    if findings:
        facts["findings"] = [
            {
                "label": one.label,
                "slices": [one.first + 1, one.last + 1],
                "largest": one.most + 1,
                "volume_ml": one.volume_ml,
            }
            for one in findings
        ]
    return Record(
        record,
        Loading(path, head, reading.profile, reading.modality, plane, tuple(shown), plan),
        facts,
        caption=text,
        group=group_of(record, options.get("group_pattern")),
        split=split_of(path, reading.root, options.get("splits", ())),
        licence=options.get("licence", ""),
        notes=head.notes + notes + more,
        extra={"render": reading.profile.name},
    )


def _findings(path: Path, head: Head, reading: _Reading) -> tuple[list[Finding], tuple[tuple[str, str], ...]]:
    """Gives what the volume's mask marks; a mask that can't be used costs its volume: half a truth is none."""
    mask = next((mask for mask, volume in reading.masks.items() if volume == path), None)
    if mask is None:
        return [], (("no mask", ""),) if reading.options.get("masks") else ()
    marked = read_head(mask, DEFAULT_LIMITS, bool(reading.options.get("unplaced", False)))
    near = 0.1 * min(head.spacing_mm)
    if marked.shape != head.shape or np.abs(marked.affine - head.affine).max() > near:
        raise Refused("mask doesn't fit", "another size or place")
    labels = reading.options.get("labels")
    names = None if labels is None else {int(value): str(name) for value, name in labels.items()}
    return findings_of(read_values(mask, marked), reading.plane, head.spacing_mm, names), ()


def _spacing(plane: str, head: Head) -> tuple[float, float, float]:
    """Gives the distances between slices, rows and columns."""
    return (head.spacing_mm[PLANES[plane][0]], *sides_of(plane, head.spacing_mm))
