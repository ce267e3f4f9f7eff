"""Reader ``slides``: a folder of whole-slide images becomes tiles of tissue, with labels from a table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medkit.errors import DataError, MissingExtra
from medkit.readers import (
    Loaded,
    Merged,
    Picture,
    Record,
    Rejected,
    check_kinds,
    check_options,
    files_below,
    split_of,
)
from medkit.readers.case_table import OPTIONS as TABLE_OPTIONS
from medkit.readers.case_table import Case, CaseTable
from medkit.readers.file_names import OPTIONS as NAME_OPTIONS
from medkit.readers.file_names import FileNames
from medkit.readers.slides.boxes import Box, SlideBoxes, objects_of
from medkit.readers.slides.files import Other, SlideFiles, find_slides
from medkit.readers.slides.grid import Chosen, Place, Wanted, choose_tiles, facts_of, name_of
from medkit.readers.slides.reasons import Refused
from medkit.readers.slides.work import DEFAULT_LIMITS, Limits, is_installed, survey_apart, tiles_apart

OPTIONS = (
    "magnifications", "tile", "tiles", "tissue", "mpp", "seed", "records", *TABLE_OPTIONS, "boxes", "complete",
    *NAME_OPTIONS, "seconds", "modality", "licence",
)  # fmt: skip
MODALITY = "histology"


@dataclass(frozen=True)
class Loading:
    """How tiles are read; what a record's loader carries.

    Attributes:
        path: The slide.
        places: Its tiles.
        tile: Side of a tile in px.
        limits: What is refused.
        parts: The slide's other files: when one of them changes, so do the tiles.
    """

    path: Path
    places: tuple[Place, ...]
    tile: int
    limits: Limits
    parts: tuple[Path, ...] = ()

    def __call__(self) -> Loaded:
        """Reads the tiles.

        Raises:
            Refused: With the reason.
        """
        pictures: list[Picture] = list(tiles_apart(self.path, list(self.places), self.tile, self.limits))
        return Loaded(pictures)


@dataclass
class _Reading:
    root: Path
    options: dict[str, Any]
    wanted: Wanted
    limits: Limits
    names: FileNames
    table: CaseTable
    boxes: SlideBoxes


@dataclass(frozen=True)
class _Slide:
    name: str
    files: SlideFiles
    vendor: str
    case: Case | None
    boxes: list[Box]


def read(root: Path, options: dict[str, Any]) -> Iterator[Record | Rejected | Merged]:
    """Reads every slide below a folder.

    Options:
        magnifications: List of objectives ([20]); a tile at 20x has pixels of 0.5 um, at 10x of 1 um.
        tile: Side of a tile in px (512).
        tiles: Most tiles of a slide (32), shared out evenly between the magnifications.
        tissue: Least share of tissue in a tile (0.5).
        mpp: Pixel size in um of slides that don't tell theirs.
        seed: Of the hash that chooses among the tiles (0).
        records: What is one record: "tile" (default), or "slide" with all its tiles as pictures.
        table, key, labels, unknown, group, split, caption: As in ``medkit.readers.case_table``; the caption needs
            records: slide.
        boxes: Table of boxes below the root: slide, label, x, y, width, height in px of level 0.
        complete: Whether the boxes hold everything that there is to mark (false).
        group_pattern, names, mapping: As in ``medkit.readers.file_names``.
        seconds: Longest time for looking at a slide, and for reading one tile (60).
        modality: Written into the facts ("histology").
        licence: The source's licence.

    The environment variable MEDKIT_PATIENT_KEY keys the hashes that stand for patients and slides.

    Raises:
        DataError: OpenSlide or the folder is missing, or an option makes no sense.
    """
    reading, files = _begin(Path(root), options)
    tables = {reading.table.path, reading.boxes.path}
    found = list(find_slides((path for path in files if path not in tables), reading.names.pseudonyms))
    reading.names.write_mapping(path for one in found for path in _paths(one))
    for one in found:
        if isinstance(one, Other):
            yield Rejected(reading.names.of(one.path), one.reason, one.detail)
            continue
        record = reading.names.of(one.path)
        case = reading.table.of(one.path, reading.root)
        boxes = reading.boxes.of(one.path, reading.root)
        try:
            survey = survey_apart(one.path, reading.limits)
            chosen = choose_tiles(survey, reading.wanted, one.path.relative_to(reading.root).as_posix())
        except Refused as refused:
            yield Rejected(record, refused.reason, refused.detail)
        else:
            yield from _records(_Slide(record, one, survey.vendor, case, boxes), chosen, reading)
        for path, what in one.parts:
            yield Merged(reading.names.of(path), "part of a slide", f"{what}, record {record}")
    yield from reading.table.faults("slide missing")
    yield from reading.boxes.faults()


def _begin(root: Path, options: dict[str, Any]) -> tuple[_Reading, list[Path]]:
    check_options("slides", options, OPTIONS)
    check_kinds("slides", options, ("boxes", "modality", "licence"), switches=("complete",))
    if not is_installed():
        raise MissingExtra("reader slides needs OpenSlide: pip install medkit-lmm[slides]")
    if not root.is_dir():
        raise DataError(f"{root} is no folder; give the folder of the slides")
    if options.get("records", "tile") not in ("tile", "slide"):
        raise DataError(f"reader slides: records {options['records']!r} is none of tile, slide")
    if "caption" in options and options.get("records", "tile") == "tile":
        raise DataError("reader slides: a caption tells of a whole slide; give records: slide with it")
    powers = options.get("magnifications", [20])
    if not isinstance(powers, list) or not powers or not all(_is_number(one, 0.1, 200) for one in powers):
        raise DataError(f"reader slides: magnifications {powers!r} is no list of objectives from 0.1 to 200")
    mpp = options.get("mpp")
    if mpp is not None and not _is_number(mpp, 0.05, 20):
        raise DataError(f"reader slides: mpp {mpp!r} is no pixel size from 0.05 to 20 um")
    if not _is_number(options.get("tissue", 0.5), 0, 1):
        raise DataError(f"reader slides: tissue {options['tissue']!r} is no share from 0 to 1")
    if not _is_number(options.get("seconds", 60), 0.001, 86_400):
        raise DataError(f"reader slides: seconds {options['seconds']!r} is no time above 0")
    for name, default, least, most in (
        ("tile", 512, 16, 4096),
        ("tiles", 32, 1, 100_000),
        ("seed", 0, 0, 2**63),
    ):
        number = options.get(name, default)
        if not isinstance(number, int) or not _is_number(number, least, most):
            raise DataError(f"reader slides: {name} {number!r} is no whole number from {least} to {most}")
    files = files_below(root)
    if not files:
        raise DataError(f"{root} holds no file; give the folder of the slides")
    wanted = Wanted(
        tuple(sorted({float(one) for one in powers})),
        options.get("tile", 512),
        options.get("tiles", 32),
        float(options.get("tissue", 0.5)),
        options.get("seed", 0),
        None if mpp is None else float(mpp),
    )
    limits = Limits(seconds=float(options.get("seconds", DEFAULT_LIMITS.seconds)))
    table, boxes = CaseTable("slides", root, options), SlideBoxes(root, options.get("boxes"))
    names = FileNames("slides", root, options, files)
    return _Reading(root, options, wanted, limits, names, table, boxes), files


def _records(slide: _Slide, chosen: Chosen, reading: _Reading) -> Iterator[Record | Merged]:
    """Gives the records of a slide, and the row of its ledger where it is no record itself."""
    options, name, case = reading.options, slide.name, slide.case
    notes = chosen.notes
    if reading.table and case is None:
        notes += (("no row in the table", ""),)
    case = case or Case()
    notes += case.notes + reading.names.notes()
    group = reading.names.group(slide.files.path, case, slide.files.group)
    split = case.split or split_of(slide.files.path, reading.root, options.get("splits", ()))
    parts = tuple(path for path, _ in slide.files.parts)
    counts = Counter(name_of(place.magnification) for place in chosen.places)
    listed = " and ".join(f"{count} at {power}" for power, count in counts.items())

    def record(record_id: str, places: tuple[Place, ...], facts: dict[str, Any], told: Any) -> Record:
        return Record(
            record_id,
            Loading(slide.files.path, places, reading.wanted.tile, reading.limits, parts),
            {
                "labels": dict(case.labels),
                "objects": [],
                "complete": bool(options.get("complete", False)) and bool(slide.boxes),
                "modality": options.get("modality", MODALITY),
                **facts,
            },
            caption=case.caption if options.get("records") == "slide" else None,
            group=group,
            split=split,
            licence=options.get("licence", ""),
            notes=told,
            extra={"slide": name, "scanner": slide.vendor},
        )

    if options.get("records", "tile") == "slide":
        facts = {
            "tiles": [facts_of(place) for place in chosen.places],
            "shows": f"Tiles of one slide, {listed}.",
            "complete": False,
        }
        yield record(name, tuple(chosen.places), facts, notes)
        return
    for place in chosen.places:
        power = name_of(place.magnification)
        labels = {**case.labels, "magnification": power}
        facts = {"labels": labels, "objects": objects_of(slide.boxes, place), "tile": facts_of(place)}
        yield record(f"{name}:{power}:{place.x},{place.y}", (place,), facts, notes)
        notes = ()
    yield Merged(name, "tiles of a slide", f"{listed}, of {chosen.candidates} with tissue")


def _paths(one: SlideFiles | Other) -> list[Path]:
    return [one.path] if isinstance(one, Other) else [one.path, *(path for path, _ in one.parts)]


def _is_number(value: Any, least: float, most: float) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and least <= value <= most
