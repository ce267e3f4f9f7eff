"""Reader ``frames``: videos, multi-page TIFF files and animations become pictures, evenly chosen."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from medkit.errors import DataError
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
from medkit.readers.frames.reasons import Refused
from medkit.readers.frames.work import (
    DEFAULT_LIMITS,
    STACKS,
    VIDEOS,
    Limits,
    Survey,
    frames_apart,
    is_installed,
    survey_apart,
)
from medkit.readers.slices import choose_slices

OPTIONS = (
    "frames", "records", *TABLE_OPTIONS, *NAME_OPTIONS, "longest", "seconds", "modality", "licence",
)  # fmt: skip


@dataclass(frozen=True)
class Loading:
    """How frames are decoded; what a record's loader carries."""

    path: Path
    places: tuple[float, ...]
    limits: Limits

    def __call__(self) -> Loaded:
        """Decodes the frames.

        Raises:
            Refused: With the reason.
        """
        pictures: list[Picture] = list(frames_apart(self.path, list(self.places), self.limits))
        return Loaded(pictures)


def read(root: Path, options: dict[str, Any]) -> Iterator[Record | Rejected | Merged]:
    """Reads every video and stack below a folder.

    Options:
        frames: Most frames of a file (8): of a video in the middle of equal parts of its length, of a stack evenly
            from the first page to the last.
        records: What is one record: "frame" (default), or "clip" with all its frames as pictures.
        table, key, labels, unknown, group, split, caption: As in ``medkit.readers.case_table``; the caption needs
            records: clip.
        group_pattern, names, mapping: As in ``medkit.readers.file_names``.
        longest: Longest video in s (14400).
        seconds: Longest time for one record (60).
        modality, licence: As in class_folders.

    Videos need the extra ``video``; without it each is a ledger row.

    Raises:
        DataError: The folder is missing, or an option makes no sense.
    """
    root = Path(root)
    check_options("frames", options, OPTIONS)
    check_kinds("frames", options, ("modality", "licence"))
    if not root.is_dir():
        raise DataError(f"{root} is no folder; give the folder of the videos")
    most, limits = _checked(options)
    files = files_below(root)
    if not files:
        raise DataError(f"{root} holds no file; give the folder of the videos")
    table, names = CaseTable("frames", root, options), FileNames("frames", root, options, files)
    files = [path for path in files if path != table.path]
    names.write_mapping(files)
    for path in files:
        record, case = names.of(path), table.of(path, root)
        try:
            if not path.name.lower().endswith(VIDEOS + STACKS):
                raise Refused("not a video")
            if path.name.lower().endswith(VIDEOS) and not is_installed():
                raise Refused("decoder not installed", "av; install medkit-lmm[video]")
            survey = survey_apart(path, limits)
        except Refused as refused:
            yield Rejected(record, refused.reason, refused.detail)
            continue
        told = (("no row in the table", ""),) if table and case is None else ()
        case = case or Case()
        basis = Record(
            record,
            [],
            {"labels": dict(case.labels), "objects": [], "complete": False},
            group=names.group(path, case),
            split=case.split or split_of(path, root, options.get("splits", ())),
            licence=options.get("licence", ""),
            notes=told + case.notes + names.notes(),
        )
        yield from _records(basis, case, Loading(path, _places(survey, most), limits), survey, options)
    yield from table.faults("video missing")


def _checked(options: dict[str, Any]) -> tuple[int, Limits]:
    most = options.get("frames", 8)
    if not isinstance(most, int) or isinstance(most, bool) or not 1 <= most <= 10_000:
        raise DataError(f"reader frames: frames {most!r} is no whole number from 1 to 10000")
    if options.get("records", "frame") not in ("frame", "clip"):
        raise DataError(f"reader frames: records {options['records']!r} is none of frame, clip")
    if "caption" in options and options.get("records", "frame") == "frame":
        raise DataError("reader frames: a caption tells of a whole video; give records: clip with it")
    times = {}
    for name, default in (("longest", DEFAULT_LIMITS.length_s), ("seconds", DEFAULT_LIMITS.seconds)):
        times[name] = options.get(name, default)
        if (
            not isinstance(times[name], int | float)
            or isinstance(times[name], bool)
            or not 0 < times[name] < 1e6
        ):
            raise DataError(f"reader frames: {name} {times[name]!r} is no time above 0")
    return most, Limits(length_s=float(times["longest"]), seconds=float(times["seconds"]))


def _places(survey: Survey, most: int) -> tuple[float, ...]:
    """Gives times in s, or page numbers from 0."""
    if survey.pages is not None:
        return tuple(choose_slices(survey.pages, most))
    length = survey.length_s or 0.0
    # A picture of no length is shown once: its record would have the same name again.
    return tuple(dict.fromkeys(round(length * (index + 0.5) / most, 3) for index in range(most)))


def _records(
    basis: Record, case: Case, loading: Loading, survey: Survey, options: dict[str, Any]
) -> Iterator[Record | Merged]:
    facts = dict(basis.facts)
    if options.get("modality"):
        facts["modality"] = options["modality"]
    of: dict[str, Any]
    if survey.pages is not None:
        # Pages are counted from 1, as people do.
        key, named, of = "page", [place + 1 for place in loading.places], {"of": survey.pages}
        shows = f"Pages {_listed(named)} of {survey.pages}."
    else:
        length_s = round(survey.length_s or 0.0, 3)
        key, named, of = "second", list(loading.places), {"length_s": length_s}
        shows = f"Frames of one video at {_listed(named)} of {length_s:g} s."
    if options.get("records", "frame") == "clip":
        facts |= {"clip": {**of, f"{key}s": named}, "shows": shows}
        yield replace(basis, image=loading, facts=facts, caption=case.caption)
        return
    notes = basis.notes
    for place, told in zip(loading.places, named, strict=True):
        yield replace(
            basis,
            id=f"{basis.id}:{key} {told:g}",
            image=replace(loading, places=(place,)),
            facts={**facts, "frame": {key: told, **of}},
            notes=notes,
        )
        notes = ()
    yield Merged(basis.id, "frames of a file", shows)


def _listed(numbers: list[float]) -> str:
    return ", ".join(f"{one:g}" for one in numbers)
