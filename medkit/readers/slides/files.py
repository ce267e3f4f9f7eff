"""Which files of a folder are one slide: most formats are one file, MRXS a file with a folder, DICOM a series."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from medkit.readers.dicom.burned_in import IMAGES, WHOLE_SLIDE
from medkit.readers.dicom.files import quiet, read_file, value_of, words_of
from medkit.readers.dicom.identity import Pseudonyms
from medkit.readers.dicom.reasons import Refused as DicomRefused

# What scanners write (openslide.org/formats); a .tif may also be a plain picture, which OpenSlide refuses.
SUFFIXES = (".svs", ".tif", ".tiff", ".ndpi", ".scn", ".mrxs", ".vms", ".vmu", ".svslide", ".bif", ".czi")
DICOM_SUFFIXES = (".dcm", ".dicom")
# Pictures of the whole glass: the label is on them.
PHOTOGRAPHS = frozenset(("LABEL", "OVERVIEW", "LOCALIZER"))


@dataclass(frozen=True)
class SlideFiles:
    """The files of one slide.

    Attributes:
        path: The one that is opened.
        group: The patient as a pseudonym, where the file says who it is; else "".
        parts: (file, why it is not opened itself) of all others.
    """

    path: Path
    group: str = ""
    parts: tuple[tuple[Path, str], ...] = ()


@dataclass(frozen=True)
class Other:
    """A file that is no slide, with a reason of the reader."""

    path: Path
    reason: str
    detail: str = ""


def find_slides(files: Iterable[Path], names: Pseudonyms) -> Iterator[SlideFiles | Other]:
    """Gives the slides among files, and every file that belongs to none.

    Args:
        files: Sorted.
        names: Makes pseudonyms of patients.
    """
    files = list(files)
    inside_mrxs = {path.with_suffix("") for path in files if path.suffix.lower() == ".mrxs"}
    parts: dict[Path, list[tuple[Path, str]]] = defaultdict(list)
    slides, series = [], defaultdict(list)
    for path in files:
        suffix = path.suffix.lower()
        if path.parent in inside_mrxs:
            parts[path.parent].append((path, "data of the slide"))
        elif suffix in SUFFIXES:
            slides.append(path)
        elif suffix in DICOM_SUFFIXES or _has_prefix(path):
            found = _dicom_header(path, names)
            if isinstance(found, Other):
                yield found
            else:
                series[path.parent, found.series].append(found)
        else:
            yield Other(path, "not a slide")
    for path in slides:
        yield SlideFiles(path, parts=tuple(parts.get(path.with_suffix(""), ())))
    for members in series.values():
        levels = sorted(
            (one for one in members if not one.photograph), key=lambda one: (-one.width, one.path)
        )
        if not levels:
            for one in members:
                yield Other(one.path, "not a slide", "a picture of the label without its slide")
            continue
        others = [(one.path, "level of the slide") for one in levels[1:]]
        others += [(one.path, "label or overview, never opened") for one in members if one.photograph]
        yield SlideFiles(levels[0].path, levels[0].group, tuple(others))


@dataclass(frozen=True)
class _Member:
    path: Path
    series: str
    group: str
    photograph: bool
    width: int


def _has_prefix(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def _dicom_header(path: Path, names: Pseudonyms) -> _Member | Other:
    try:
        with quiet():
            dataset = read_file(path, pixels=False)
            if str(value_of(dataset, "SOPClassUID", "")) != IMAGES + WHOLE_SLIDE:
                return Other(path, "not a slide", "another DICOM object; the reader dicom is for pictures")
            group, made_of = names.group(dataset, path.name)
            width = value_of(dataset, "TotalPixelMatrixColumns", 0)
            return _Member(
                path,
                str(value_of(dataset, "SeriesInstanceUID", "")),
                group if made_of == "patient" else "",
                bool(PHOTOGRAPHS.intersection(words_of(dataset, "ImageType"))),
                width if isinstance(width, int) else 0,
            )
    except DicomRefused as refused:
        return Other(path, "header unreadable", refused.reason)
