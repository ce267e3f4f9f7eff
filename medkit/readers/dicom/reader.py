"""Reader ``dicom``: a folder of DICOM files becomes records with rendered pictures and allow-listed facts.

Every file below the folder ends as a record, as a slice of one, or as a ledger row with its reason. Pixels, facts
of the allow-list and keyed hashes leave this room; file names, UIDs and every other header value stay.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medkit.errors import DataError
from medkit.privacy.presidio import read_finder
from medkit.privacy.text import known_values
from medkit.readers import Merged, Record, Rejected, check_kinds, check_options, files_below, split_of
from medkit.readers.dicom.burned_in import Box, check_is_picture
from medkit.readers.dicom.decode import describe
from medkit.readers.dicom.facts import check_patient, facts_of
from medkit.readers.dicom.files import DEFAULT_LIMITS, Limits, quiet, read_file, value_of
from medkit.readers.dicom.frames import modality_of
from medkit.readers.dicom.identity import KEY_VARIABLE, Pseudonyms, write_mapping
from medkit.readers.dicom.loading import Loading
from medkit.readers.dicom.profiles import Profile, carried, choose_profiles
from medkit.readers.dicom.reasons import Refused, one_file
from medkit.readers.dicom.screening import Screening, read_screening
from medkit.readers.dicom.segmentation import is_segmentation, segments_in, series_of
from medkit.readers.dicom.series import (
    VOLUMES,
    Slice,
    Volume,
    order_slices,
    plane_as_said,
    plane_of,
    runs_of,
    slices_of,
)
from medkit.readers.dicom.stack import StackLoading, count_across, extent, marked, marked_facts, stack_grid
from medkit.readers.reports import Reports
from medkit.readers.slices import SlicePlan, choose, choose_slices, read_plan, read_side, say
from medkit.readers.volumes import ACROSS, Transforms, backwards, check_profiles, read_transforms, sides_of
from medkit.readers.volumes import OPTIONS as TRANSFORMS

OPTIONS = (
    "profiles", "burned_in", "patient", "frames", "series", "slices", "modalities", "seconds", "mapping",
    "reports", "give", "presidio", "masks", "ocr", "released", "licence", "side_px", "segmentations", "labels",
    *TRANSFORMS,
)  # fmt: skip
REPORT_FIELDS = ("accession", "study", "series", "name", "folder")
LABELS = ("modality", "body_part", "view", "side")
TEXTS = ("mapping", "reports", "released", "licence")
OF_SERIES = ("slices", "segmentations", *TRANSFORMS)


@dataclass
class _Reading:
    """A card's options, checked, and what one reading gathers."""

    root: Path
    options: dict[str, Any]
    profiles: dict[str, Profile]
    patient: tuple[str, ...]
    limits: Limits
    names: Pseudonyms
    screening: Screening
    plan: SlicePlan
    reports: Reports
    side: int | None = None
    transforms: Transforms | None = None
    marks: dict[str, list[tuple[str, Path]]] = field(default_factory=lambda: defaultdict(list))
    told_key: bool = False
    waiting: dict[str, list[_Scanned]] = field(default_factory=lambda: defaultdict(list))

    def names_of(self) -> dict[str, str] | None:
        labels = self.options.get("labels")
        return None if labels is None else {str(key): str(name) for key, name in labels.items()}

    def profile(self, modality: str) -> Profile:
        if modality not in self.profiles and "*" not in self.profiles:
            raise Refused("modality left out")
        return self.profiles.get(modality) or self.profiles["*"]


@dataclass
class _Scanned:
    """What is kept of a header."""

    id: str
    path: Path
    facts: dict[str, Any]
    group: str
    grouped_by: str
    frames: int
    keep: tuple[Box, ...] | None
    profile: Profile
    report: str | None = None
    notes: tuple[tuple[str, str], ...] = ()
    slices: list[Slice] = field(default_factory=list)


def read(root: Path, options: dict[str, Any]) -> Iterator[Record | Rejected | Merged]:
    """Reads every file below a folder.

    Options:
        profiles: A render profile's name, or modality -> name or inline profile ("*": all others). Default:
            CT ct-abdomen, MR mr-percentile, all others the file's window.
        burned_in: "quarantine" (default: captures stay out, ultrasound shows its marked regions only) or "keep".
        patient: What may be told of a patient: age_band, sex (default: nothing).
        frames: Most frames of a multi-frame file, evenly spread (default 1: the middle one).
        series: Whether the slices of a CT, MR or PET series become one record (default false).
        slices: Most slices of a series, evenly spread (default 16), or {most, show: uniform | finding | montage, tile,
            margin}.
        segmentations: Whether segmentation objects tell findings of the series that they refer to (default false).
        labels: Segment number or code value -> name; segments that it lacks are left out. Without it a segment is
            called by its number.
        orientation, spacing_mm, intensity: What MONAI does with a series as a whole, as in reader nifti.
        reports: Pattern of a report's text file below the folder with {accession}, {study}, {series}, {name} or
            {folder}: "reports/{accession}.txt". The report becomes the caption, without what the header knows of the
            patient and what the rules of ``medkit.privacy`` find.
        modalities: List of the modalities to read (default: all).
        seconds: Longest time for one compressed file (default 60).
        side_px: Shorter side that larger pictures are shrunk to; then large JPEG 2000 and HTJ2K pictures are decoded at
            a half, a quarter ... of their size (default: pictures keep their size).
        give: What is made of a record with a report: [caption] (default), [record] (facts alone, of which a teacher
            makes questions) or both.
        presidio: true, or {model, language, least}: Presidio also looks through the reports.
        mapping: File that takes "record,file" lines, outside the data set; stays with the key's holder.
        masks: Regions that become black, by device: a list of {manufacturer, model, station, rows, columns, boxes}.
        ocr: "off" (default), "flag" (text in a picture is told in the ledger) or "quarantine" (it stays out).
        released: File with the pseudonyms of pictures that a person found free of names (``medkit data review``).
        licence: The source's licence.

    The environment variable MEDKIT_PATIENT_KEY keys the hashes that stand for patients, series and files.

    Raises:
        DataError: The folder is missing or empty, or an option makes no sense.
    """
    reading = _begin(root, options)
    files = files_below(reading.root)
    if not files:
        raise DataError(f"{reading.root} holds no file; give the folder of the DICOM files")
    names = [path.relative_to(reading.root).as_posix() for path in files]
    records = [reading.names.name("file", name) for name in names]
    if options.get("mapping"):
        write_mapping("dicom", options["mapping"], zip(records, names, strict=True))
    reports = [path for path in files if reading.reports.holds(path)]
    for path, name, record in zip(files, names, records, strict=True):
        if reading.reports.holds(path):
            continue
        try:
            scanned = _scan(path, record, name, reading)
        except Refused as refused:
            yield Rejected(record, refused.reason, refused.detail)
            continue
        if scanned is not None:
            yield from reading.reports.made(_picture_record(scanned, reading))
    for series, members in sorted(reading.waiting.items()):
        yield from _series_records(series, members, reading)
    for record, _ in (mark for marks in reading.marks.values() for mark in marks):
        yield Rejected(record, "segmentation without its series", "no series of the folder is meant")
    yield from reading.reports.fates(reports)


def _begin(root: Path, options: dict[str, Any]) -> _Reading:
    check_options("dicom", options, OPTIONS)
    check_kinds("dicom", options, TEXTS, ("modalities",), ("series", "segmentations"))
    if not options.get("series") and (idle := [name for name in OF_SERIES if options.get(name)]):
        raise DataError(
            f"reader dicom: {', '.join(idle)} need series: true, for single pictures have none of it"
        )
    root = Path(root)
    if not root.is_dir():
        raise DataError(f"{root} is no folder; give the folder of the DICOM files")
    most = options.get("frames", 1)
    if not isinstance(most, int) or isinstance(most, bool) or most < 1:
        raise DataError(f"reader dicom: frames {most!r} is no whole number of at least 1")
    seconds = options.get("seconds", DEFAULT_LIMITS.seconds)
    if not isinstance(seconds, int | float) or not 0 < seconds < 86_400:
        raise DataError(f"reader dicom: seconds {seconds!r} is no time above 0")
    labels = options.get("labels")
    if labels is not None and not (isinstance(labels, dict) and options.get("segmentations")):
        raise DataError(
            "reader dicom: labels maps segment numbers or code values to names, with segmentations: true"
        )
    plan = read_plan("dicom", options.get("slices", 16))
    if plan.show == "finding" and not options.get("segmentations"):
        raise DataError("reader dicom: slices.show finding needs segmentations: true")
    names, profiles = Pseudonyms(), choose_profiles(options.get("profiles"))
    transforms = read_transforms("dicom", options)
    if transforms is not None:
        shown = (profiles.get(modality) or profiles.get("*") for modality in VOLUMES)
        check_profiles("dicom", *(one for one in shown if one is not None))
    return _Reading(
        root,
        options,
        profiles,
        check_patient(options.get("patient")),
        Limits(seconds=float(seconds)),
        names,
        read_screening(options),
        plan,
        Reports(
            "dicom",
            root,
            options.get("reports"),
            REPORT_FIELDS,
            lambda path: names.name("file", path.relative_to(root).as_posix()),
            options.get("give", ["caption"]),
            read_finder(options.get("presidio"), "reader dicom"),
        ),
        read_side("dicom", options.get("side_px")),
        transforms,
    )


def _scan(path: Path, record: str, name: str, reading: _Reading) -> _Scanned | None:
    """Reads a header; a slice of a series waits for the others and gives None.

    Raises:
        Refused: The file gives no picture.
    """
    with one_file(), quiet():
        dataset = read_file(path, reading.limits, pixels=False)
        if reading.options.get("segmentations") and is_segmentation(dataset):
            reading.marks[series_of(dataset)].append((record, path))
            return None
        check_is_picture(dataset)
        about = describe(dataset, reading.limits, has_pixels=False)
        modality = modality_of(dataset)
        wanted = reading.options.get("modalities")
        if wanted is not None and modality not in wanted:
            raise Refused("modality left out")
        keep = reading.screening.regions(dataset, about, record)
        facts = facts_of(dataset, about, reading.patient)
        group, grouped_by = reading.names.group(dataset, name)
        scanned = _Scanned(
            record, path, facts, group, grouped_by, about.frames, keep, reading.profile(modality)
        )
        series = str(value_of(dataset, "SeriesInstanceUID", ""))
        if reading.reports.pattern is not None:
            values = {
                "accession": str(value_of(dataset, "AccessionNumber", "")).strip(),
                "study": str(value_of(dataset, "StudyInstanceUID", "")).strip(),
                "series": series.strip(),
                "name": path.stem,
                "folder": path.parent.relative_to(reading.root).as_posix(),
            }
            scanned.report, scanned.notes = reading.reports.of(record, values, known_values(dataset))
        # Marked regions are a picture's own: a volume has none.
        whole = about.samples == 1 and keep is None
        if reading.options.get("series") and modality in VOLUMES and series and whole:
            scanned.slices = slices_of(path, dataset)
            reading.waiting[series].append(scanned)
            return None
        return scanned


def _picture_record(scanned: _Scanned, reading: _Reading) -> Record:
    most = reading.options.get("frames", 1)
    frames = tuple(choose_slices(scanned.frames, most))
    loading = Loading(
        ((scanned.path, frames),),
        scanned.profile,
        reading.limits,
        scanned.keep,
        side=reading.side,
        masks=reading.screening.masks,
        ocr=reading.screening.ocr_of(scanned.id),
    )
    return _record(scanned.id, loading, scanned.facts, scanned, reading)


def _series_records(
    series: str, members: list[_Scanned], reading: _Reading
) -> Iterator[Record | Rejected | Merged]:
    """Gives the record of a series, or a row a file that says why there is none."""
    slices, marks = [one for member in members for one in member.slices], reading.marks.pop(series, [])
    if len(slices) == 1:
        first = members[0]
        if reading.transforms is not None:
            first.notes += (("not transformed", "the series has one slice"),)
        yield from reading.reports.made(_picture_record(first, reading))
        for record, _ in marks:
            yield Rejected(
                record, "segmentation doesn't fit", f"its series, record {first.id}, has one slice"
            )
        return
    name = reading.names.name("series", series)
    try:
        volume = order_slices(slices)
        loading, facts, notes = _shown_of(volume, members, marks, reading)
    except Refused as refused:
        detail = f"series {name} of {len(members)} files: {refused.detail}"
        for member in members:
            yield Rejected(member.id, refused.reason, detail)
        for record, _ in marks:
            yield Rejected(record, refused.reason, f"its series {name}")
        return
    reported = [member for member in members if member.report is not None]
    count = len({member.report for member in reported})
    if count > 1:
        notes += (("several reports", f"{count} for one series; the first was taken"),)
    first = [*reported, *members][0]
    yield from reading.reports.made(_record(name, loading, facts, first, reading, notes))
    for member in members:
        yield Merged(member.id, "slice of a series", f"in record {name}")
    for record, _ in marks:
        yield Merged(record, "segmentation of a series", f"in record {name}")


def _shown_of(
    volume: Volume, members: list[_Scanned], marks: list[tuple[str, Path]], reading: _Reading
) -> tuple[Loading | StackLoading, dict[str, Any], tuple[tuple[str, str], ...]]:
    """Gives loader, facts and notes of an ordered series.

    Raises:
        Refused: A segmentation of it can't be used, for half a truth is none; or the transforms can't.
    """
    first, plan, transforms = members[0], reading.plan, reading.transforms
    tile = plan.tile if plan.show == "montage" else None
    ocr = reading.screening.ocr_of(*(member.id for member in members))
    how = (tile, reading.side, reading.screening.masks, ocr)
    plane = plane_of(volume.slices[0].orientation)
    with one_file(), quiet():
        segments = [
            one for _, path in marks for one in segments_in(path, volume, reading.limits, reading.names_of())
        ]
        found = marked(segments, volume, plane, transforms)
        count = count_across(volume, plane, transforms)
    chosen = choose(count, plan, extent(found))
    notes = volume.notes
    if plan.show == "finding" and not found:
        notes += (("no finding in a segmentation", "slices were taken evenly"),)
    spacing_mm, order, against = volume.spacing_mm, plane_as_said(plane, volume), False
    if transforms is None:
        places = tuple(runs_of([volume.slices[index] for index in chosen]))
        released = tuple(one.path for one in members if one.id in reading.screening.released)
        loading = Loading(places, first.profile, reading.limits, first.keep, volume, *how, released)
    else:
        if first.profile.windows and not transforms.keeps_units:
            raise Refused("values are not Hounsfield units", "the intensity steps change what values mean")
        loading = StackLoading(volume, first.profile, reading.limits, plane, tuple(chosen), transforms, *how)
        spacing = stack_grid(volume, transforms)[1]
        spacing_mm = (spacing[ACROSS[plane]], *sides_of(plane, spacing))
        order, against = plane, backwards(plane, transforms.orientation)
    facts = {
        **first.facts,
        "volume": {
            "slices": count,
            "shown": [index + 1 for index in chosen],
            "spacing_mm": [round(one, 4) for one in spacing_mm],
            "plane": plane,
        },
        "shows": say(chosen, count, order, plan.show == "montage", against),
    }
    if found:
        facts |= marked_facts(found, chosen, volume, plane, transforms)
    facts.pop("frames", None)
    return loading, facts, notes


def _record(
    record: str,
    loading: Loading | StackLoading,
    facts: dict[str, Any],
    scanned: _Scanned,
    reading: _Reading,
    notes: tuple[tuple[str, str], ...] = (),
) -> Record:
    notes += scanned.notes
    if scanned.grouped_by != "patient":
        notes += (("no patient identifier", f"grouped by {scanned.grouped_by}"),)
    if reading.names.random and not reading.told_key:
        reading.told_key = True
        detail = f"patients are known by this run's own key only; set {KEY_VARIABLE} to keep groups over runs"
        notes += (("random patient key", detail),)
    # What a teacher may ask about: the header knows it, and a person sees it in the picture.
    labels = {name: facts[name] for name in LABELS if name in facts}
    return Record(
        record,
        loading,
        {"labels": labels, "objects": [], "complete": False, **facts},
        caption=scanned.report,
        group=scanned.group,
        split=split_of(scanned.path, reading.root, reading.options.get("splits", ())),
        licence=reading.options.get("licence", ""),
        notes=notes,
        extra=carried(
            loading.profile,
            loading.transforms.settings if isinstance(loading, StackLoading) else None,
        ),
    )
